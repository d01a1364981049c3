// A tablet: a pointer that says where on the screen it is. No system needs a driver of its own for it.
//   Spec     HID 1.11 (sections are its); HID Usage Tables 1.12
//   Models   one report of five buttons, place and wheel; report and boot protocol requests, idle rate
//   Omits    the boot protocol's reports (a tablet is no boot mouse), reports at the idle rate
//   Threads  under the device lock
#pragma once

#include <array>
#include <cstdint>

#include "devices/usb/device.h"

namespace caisson::usb {

class Tablet final : public UsbDevice {
 public:
  static constexpr uint16_t most = 32767;       // of a place: right, bottom
  static constexpr size_t report_size = 6;      // buttons, x, y, wheel
  static constexpr unsigned most_waiting = 16;  // reports that the host has not asked for

  using Report = std::array<uint8_t, report_size>;
  struct State {
    UsbDevice::State device;
    std::array<uint8_t, report_size * most_waiting> waiting{};  // reports, the oldest first
    uint8_t count = 0;                                          // of them
    Report last{};                                              // what was sent last
    uint8_t idle = 0;                                           // in 4 ms; 0: only what has changed
    static constexpr auto fields() {
      using fields::row;
      return fields::table<State>(row<1>("device", &State::device), row<2>("waiting", &State::waiting),
                                  row<3>("count", &State::count), row<4>("last", &State::last),
                                  row<5>("idle", &State::idle));
    }
  };

  Tablet();

  // Somebody gets what is sent.
  [[nodiscard]] bool driven() const { return configured(); }
  // `buttons`: bit 0 left, 1 right, 2 middle, 3 and 4 the others; `wheel` in steps away from the user, -127 to 127.
  // False where nobody drives it, or where the host has not taken earlier reports yet: try again later.
  [[nodiscard]] bool point(uint16_t x, uint16_t y, uint8_t buttons, int wheel);

  void save(fields::Buffer& out) const override;
  [[nodiscard]] Result<> restore(std::span<const uint8_t> in) override;

 protected:
  [[nodiscard]] std::optional<std::vector<uint8_t>> class_in(const Setup& setup) override;
  [[nodiscard]] bool class_out(const Setup& setup, std::span<const uint8_t> data) override;
  [[nodiscard]] Moved send(unsigned endpoint, std::span<uint8_t> into) override;
  [[nodiscard]] Moved take(unsigned, std::span<const uint8_t>, bool) override { return {.kind = Moved::Kind::Stall}; }
  void forget() override;

 private:
  State now_;  // `device` only while saving
};

}  // namespace caisson::usb
