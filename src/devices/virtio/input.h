// Virtio input: a keyboard, or a tablet, which is a pointer that says where on the screen it is.
//   Spec     VIRTIO 1.2, 5.8; Linux's include/uapi/linux/input-event-codes.h, which that names for types and codes
//   Models   identity, capabilities, event queue, status queue (lights are taken and forgotten)
//   Omits    repetition of keys (the guest does that), touch
//   Threads  under the device lock
#pragma once

#include <array>
#include <cstdint>
#include <deque>

#include "devices/virtio/model.h"

namespace caisson::virtio {

// struct virtio_input_event, 5.8.6.2.
struct InputEvent {
  uint16_t type = 0;
  uint16_t code = 0;
  uint32_t value = 0;
  bool operator==(const InputEvent&) const = default;
};

// Types and codes of input-event-codes.h.
namespace input {
inline constexpr uint16_t ev_syn = 0, ev_key = 1, ev_rel = 2, ev_abs = 3, ev_led = 0x11, ev_rep = 0x14;
inline constexpr uint16_t rel_hwheel = 6, rel_wheel = 8, abs_x = 0, abs_y = 1;
inline constexpr uint16_t btn_left = 0x110, btn_right = 0x111, btn_middle = 0x112, btn_side = 0x113, btn_extra = 0x114;
// Where a tablet is, from 0 at the left or top to this.
inline constexpr uint32_t abs_most = 32767;
// The key of a code of scan code set 1; 0: there is none.
[[nodiscard]] uint16_t key_of(uint8_t scan_code, bool extended);
}  // namespace input

class Input final : public Model {
 public:
  enum class Kind : uint8_t { Keyboard, Tablet };
  enum QueueIndex : uint8_t { event_queue, status_queue };
  // Events that wait for the driver's buffers, at most.
  static constexpr size_t most_waiting = 64;

  struct State {
    uint8_t select = 0;
    uint8_t subselect = 0;
    static constexpr auto fields() {
      using fields::row;
      return fields::table<State>(row<1>("select", &State::select), row<2>("subselect", &State::subselect));
    }
  };

  explicit Input(Kind kind);

  // A driver runs the device: somebody gets what is sent.
  [[nodiscard]] bool driven();
  // Events that belong together; SYN_REPORT is added. False where no driver runs the device, or where it has not taken
  // earlier ones yet: try again later.
  [[nodiscard]] bool send(std::span<const InputEvent> events);

  [[nodiscard]] std::string_view kind() const override {
    return kind_ == Kind::Keyboard ? "virtio-keyboard" : "virtio-tablet";
  }
  [[nodiscard]] DeviceType type() const override { return DeviceType::Input; }
  [[nodiscard]] uint32_t pci_class() const override { return kind_ == Kind::Keyboard ? 0x090000 : 0x098000; }
  [[nodiscard]] uint64_t features() const override { return 0; }
  [[nodiscard]] unsigned queue_count() const override { return 2; }
  [[nodiscard]] uint16_t queue_size() const override { return 64; }
  [[nodiscard]] std::span<const uint8_t> config() const override { return config_; }
  void write_config(unsigned offset, std::span<const uint8_t> bytes) override;
  void stop() override { waiting_.clear(); }
  void kick(unsigned queue) override;
  // Events that wait are not saved: a machine that moves on loses at most a key's way.
  void save(fields::Buffer& out) const override { fields::save(state_, out); }
  [[nodiscard]] Result<> restore(std::span<const uint8_t> in) override;

 private:
  void refresh_config();
  void deliver();

  const Kind kind_;
  State state_;
  std::array<uint8_t, 8 + 128> config_{};
  std::deque<InputEvent> waiting_;
};

}  // namespace caisson::virtio
