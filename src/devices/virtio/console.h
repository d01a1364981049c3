// Virtio console: one port.
//   Spec     VIRTIO 1.2, 5.3
//   Models   receive and transmit queue of port 0, console size
//   Omits    several ports, emergency write
//   Threads  under the device lock
#pragma once

#include <array>

#include "backend/char_backend.h"
#include "devices/virtio/model.h"

namespace caisson::virtio {

class Console final : public Model {
 public:
  struct State {
    uint16_t columns = 80;
    uint16_t rows = 25;
    uint32_t sent = 0;  // bytes of the transmit queue's next chain that the backend has taken
    static constexpr auto fields() {
      using fields::row;
      return fields::table<State>(row<1>("columns", &State::columns), row<2>("rows", &State::rows),
                                  row<3>("sent", &State::sent));
    }
  };

  static constexpr uint64_t size = 1ull << 0;  // feature bit, 5.3.3

  enum QueueIndex : uint8_t { receive_queue, transmit_queue };

  explicit Console(CharBackend& backend);
  ~Console() override;

  void set_size(uint16_t columns, uint16_t rows);  // the host's terminal

  [[nodiscard]] std::string_view kind() const override { return "virtio-console"; }
  [[nodiscard]] DeviceType type() const override { return DeviceType::Console; }
  [[nodiscard]] uint32_t pci_class() const override { return 0x078000; }
  [[nodiscard]] uint64_t features() const override { return size; }
  [[nodiscard]] unsigned queue_count() const override { return 2; }
  [[nodiscard]] std::span<const uint8_t> config() const override { return config_; }
  void start() override;
  void stop() override;
  void kick(unsigned queue) override;
  void save(fields::Buffer& out) const override { fields::save(state_, out); }
  [[nodiscard]] Result<> restore(std::span<const uint8_t> in) override;

 private:
  size_t receive(std::span<const uint8_t> bytes);
  void transmit();
  void refresh_config();

  CharBackend& backend_;
  State state_;
  std::array<uint8_t, 12> config_{};
  bool starved_ = false;  // bytes wait at the backend for buffers
};

}  // namespace caisson::virtio
