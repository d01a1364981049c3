// i8042 keyboard controller, with a keyboard and a mouse or with nothing plugged in.
//   Spec     Intel 8042 as in the IBM PS/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device
//            Controller"
//   Models   status, controller commands, self-test, interface tests, controller RAM, reset pulse; time-out answers of
//            the empty ports, so that a probe ends at once; a keyboard (ps2_keyboard.h) with scan code translation; a
//            mouse (ps2_mouse.h) at the auxiliary port
//   Omits    the A20 gate (A20 is never masked)
//   Threads  none of its own; called under the device lock
//   Regions  0: data port 0x60; 1: command and status port 0x64
#pragma once

#include <array>
#include <cstdint>

#include "bus/device.h"
#include "bus/interrupt.h"
#include "bus/power.h"
#include "devices/chipset/ps2_keyboard.h"
#include "devices/chipset/ps2_mouse.h"

namespace caisson {

class KeyboardController final : public Device {
 public:
  struct State {
    std::array<uint8_t, 32> ram{};  // byte 0: the command byte
    uint8_t status = 0;
    uint8_t output = 0;
    uint8_t output_port = 3;
    Ps2Keyboard::State keyboard;
    Ps2Mouse::State mouse;
    bool released = false;    // the keyboard sent the prefix of a release, and it waits for translation
    uint8_t argument_of = 0;  // the command whose argument the data port gets next; 0: none
    static constexpr auto fields() {
      using fields::row;
      return fields::table<State>(row<1>("ram", &State::ram), row<2>("status", &State::status),
                                  row<3>("output", &State::output), row<4>("output_port", &State::output_port),
                                  row<5>("argument_of", &State::argument_of), row<6>("keyboard", &State::keyboard),
                                  row<7>("released", &State::released), row<8>("mouse", &State::mouse));
    }
  };

  // `plugged`: a keyboard and a mouse are there.
  KeyboardController(InterruptLine& keyboard_line, InterruptLine& mouse_line, PowerSink& power, bool plugged = false);

  // A key goes down or up. False where there is no keyboard, or it cannot remember more: try again later.
  bool key(Key key, bool down);
  // The mouse moves, as Ps2Mouse::State::move(). False where there is none, or where it is for later.
  bool move(int right, int up, int wheel, uint8_t buttons);
  // The guest has switched the mouse's reports on.
  [[nodiscard]] bool mouse_wanted() const { return plugged_ && state_.mouse.enabled; }
  // It has read everything that the mouse had to report.
  [[nodiscard]] bool mouse_told() const { return state_.mouse.told(); }

  [[nodiscard]] std::string_view name() const override { return "i8042"; }
  uint64_t read(unsigned region, uint64_t offset, unsigned size) override;
  void write(unsigned region, uint64_t offset, unsigned size, uint64_t value) override;
  void reset() override;
  void save(fields::Buffer& out) const override { fields::save(state_, out); }
  [[nodiscard]] Result<> restore(std::span<const uint8_t> in) override;

 private:
  void command(uint8_t value);
  void data(uint8_t value);
  void answer(uint8_t value, uint8_t extra_status = 0);
  void write_output_port(uint8_t value);
  void pump();
  void update();

  InterruptLine& keyboard_line_;
  InterruptLine& mouse_line_;
  PowerSink& power_;
  const bool plugged_;
  State state_;
};

}  // namespace caisson
