#include "devices/chipset/keyboard_controller.h"

#include <algorithm>
#include <utility>

namespace caisson {
namespace {

// What the controller makes of the keyboard's scan codes, set 2, with translation on: set 1.
constexpr std::array<uint8_t, 128> translation{
    0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59, 0x65, 0x38, 0x2a,
    0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b, 0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05,
    0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d, 0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a,
    0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f, 0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26,
    0x27, 0x19, 0x0c, 0x61, 0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63,
    0x76, 0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f, 0x52, 0x53,
    0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54};
constexpr uint8_t release_prefix = 0xf0, set1_release = 0x80;
constexpr uint8_t scan_f7 = 0x83;  // the one code of set 2 beyond the table

uint8_t translated(uint8_t code) {
  if (code == scan_f7) return 0x41;
  return code < translation.size() ? translation[code] : code;
}

enum Region : unsigned { Data, Command };

constexpr uint8_t status_output_full = 0x01;
constexpr uint8_t status_system = 0x04;
constexpr uint8_t status_command = 0x08;
constexpr uint8_t status_unlocked = 0x10;
constexpr uint8_t status_auxiliary = 0x20;
constexpr uint8_t status_timeout = 0x40;

constexpr uint8_t mode_keyboard_interrupt = 0x01;
constexpr uint8_t mode_auxiliary_interrupt = 0x02;
constexpr uint8_t mode_system = 0x04;
constexpr uint8_t mode_keyboard_disabled = 0x10;
constexpr uint8_t mode_auxiliary_disabled = 0x20;
constexpr uint8_t mode_translate = 0x40;

constexpr uint8_t output_port_no_reset = 0x01;

enum ControllerCommand : uint8_t {
  ReadRamFirst = 0x20,
  WriteRamFirst = 0x60,
  DisableAuxiliary = 0xa7,
  EnableAuxiliary = 0xa8,
  TestAuxiliary = 0xa9,
  SelfTest = 0xaa,
  TestKeyboard = 0xab,
  DisableKeyboard = 0xad,
  EnableKeyboard = 0xae,
  ReadInputPort = 0xc0,
  ReadOutputPort = 0xd0,
  WriteOutputPort = 0xd1,
  WriteKeyboardOutput = 0xd2,
  WriteAuxiliaryOutput = 0xd3,
  WriteAuxiliary = 0xd4,
  PulseFirst = 0xf0,
};

constexpr uint8_t self_test_passed = 0x55;
constexpr uint8_t port_test_passed = 0x00;
constexpr uint8_t auxiliary_clock_stuck_low = 0x01;
// What a controller puts into the output buffer when a device does not answer: RESEND with the time-out bit.
constexpr uint8_t resend = 0xfe;
constexpr uint8_t no_keyboard_lock = 0x80;

}  // namespace

KeyboardController::KeyboardController(InterruptLine& keyboard_line, InterruptLine& mouse_line, PowerSink& power,
                                       bool plugged)
    : keyboard_line_(keyboard_line), mouse_line_(mouse_line), power_(power), plugged_(plugged) {
  reset();
}

void KeyboardController::reset() {
  state_ = State{};
  state_.status = status_system | status_unlocked;
  state_.ram[0] = mode_system | mode_keyboard_disabled | mode_auxiliary_disabled;
  update();
}

Result<> KeyboardController::restore(std::span<const uint8_t> in) {
  State state = state_;
  if (auto done = fields::restore(state, in); !done) return done;
  if (!state.keyboard.possible() || !state.mouse.possible())
    return fail("i8042: the saved keyboard or mouse is an impossible one; the snapshot is damaged");
  state_ = state;
  update();
  return {};
}

uint64_t KeyboardController::read(unsigned region, uint64_t, unsigned) {
  if (region == Command) return state_.status;
  state_.status &= static_cast<uint8_t>(~(status_output_full | status_auxiliary | status_timeout));
  update();  // the line falls between two bytes
  const uint8_t value = state_.output;
  pump();
  update();
  return value;
}

void KeyboardController::write(unsigned region, uint64_t, unsigned, uint64_t value) {
  if (region == Command) {
    state_.status |= status_command;
    command(static_cast<uint8_t>(value));
  } else {
    state_.status &= static_cast<uint8_t>(~status_command);
    data(static_cast<uint8_t>(value));
  }
  pump();
  update();
}

void KeyboardController::command(uint8_t value) {
  state_.argument_of = 0;
  if (value >= PulseFirst) {  // a 0 in bits 3:0 pulses that line of the output port; line 0 is the CPU's reset
    if ((value & output_port_no_reset) == 0) power_.request(PowerEvent::Reset);
    return;
  }
  if ((value & 0xe0) == ReadRamFirst) {
    answer(state_.ram[value & 0x1f]);
    return;
  }
  if ((value & 0xe0) == WriteRamFirst) {
    state_.argument_of = value;
    return;
  }
  switch (value) {
    case DisableAuxiliary: state_.ram[0] |= mode_auxiliary_disabled; break;
    case EnableAuxiliary: state_.ram[0] &= static_cast<uint8_t>(~mode_auxiliary_disabled); break;
    case TestAuxiliary: answer(plugged_ ? port_test_passed : auxiliary_clock_stuck_low); break;
    case SelfTest:
      state_.status |= status_system;
      answer(self_test_passed);
      break;
    case TestKeyboard: answer(port_test_passed); break;
    case DisableKeyboard: state_.ram[0] |= mode_keyboard_disabled; break;
    case EnableKeyboard: state_.ram[0] &= static_cast<uint8_t>(~mode_keyboard_disabled); break;
    case ReadInputPort: answer(no_keyboard_lock); break;
    case ReadOutputPort: answer(state_.output_port); break;
    case WriteOutputPort:
    case WriteKeyboardOutput:
    case WriteAuxiliaryOutput:
    case WriteAuxiliary: state_.argument_of = value; break;
    default: break;
  }
}

void KeyboardController::data(uint8_t value) {
  const uint8_t command = state_.argument_of;
  state_.argument_of = 0;
  if ((command & 0xe0) == WriteRamFirst) {
    state_.ram[command & 0x1f] = value;
    return;
  }
  switch (command) {
    case WriteOutputPort: write_output_port(value); break;
    case WriteKeyboardOutput: answer(value); break;
    // Without an auxiliary port the loop comes back as keyboard data: drivers see at once that there is none.
    case WriteAuxiliaryOutput: answer(value, plugged_ ? status_auxiliary : 0); break;
    case WriteAuxiliary:
      if (!plugged_) {
        answer(resend, status_auxiliary | status_timeout);
        break;
      }
      // As for the keyboard.
      state_.ram[0] &= static_cast<uint8_t>(~mode_auxiliary_disabled);
      state_.mouse.command(value);
      break;
    default:
      // A byte for the keyboard also enables its port.
      state_.ram[0] &= static_cast<uint8_t>(~mode_keyboard_disabled);
      if (plugged_) {
        state_.keyboard.command(value);
        break;
      }
      answer(resend, status_timeout);
      break;
  }
}

void KeyboardController::answer(uint8_t value, uint8_t extra_status) {
  state_.output = value;
  state_.status &= static_cast<uint8_t>(~(status_auxiliary | status_timeout));
  state_.status |= status_output_full | extra_status;
}

void KeyboardController::write_output_port(uint8_t value) {
  state_.output_port = value;
  if ((value & output_port_no_reset) == 0) power_.request(PowerEvent::Reset);
}

// The next byte of keyboard or mouse, where there is room for it and its port is on.
void KeyboardController::pump() {
  if (!plugged_) return;
  while ((state_.status & status_output_full) == 0 && (state_.ram[0] & mode_keyboard_disabled) == 0) {
    const auto byte = state_.keyboard.next();
    if (!byte) break;
    if ((state_.ram[0] & mode_translate) == 0) {
      answer(*byte);
    } else if (*byte == release_prefix) {
      state_.released = true;
    } else {
      const uint8_t code = translated(*byte);
      answer(static_cast<uint8_t>(code | (std::exchange(state_.released, false) ? set1_release : 0)));
    }
  }
  if ((state_.status & status_output_full) != 0 || (state_.ram[0] & mode_auxiliary_disabled) != 0) return;
  if (const auto byte = state_.mouse.next()) answer(*byte, status_auxiliary);
}

bool KeyboardController::key(Key key, bool down) {
  if (!plugged_) return false;
  // The code that the controller will make of it; the keyboard sends its inverse.
  const auto code = std::ranges::find(translation, key.code);
  if (code == translation.end()) return false;
  const auto scan = key.code == 0x41 ? scan_f7 : static_cast<uint8_t>(code - translation.begin());
  if (!state_.keyboard.key(scan, key.extended, down)) return false;
  pump();
  update();
  return true;
}

bool KeyboardController::move(int right, int up, int wheel, uint8_t buttons) {
  if (!plugged_ || !state_.mouse.move(right, up, wheel, buttons)) return false;
  pump();
  update();
  return true;
}

void KeyboardController::update() {
  const bool full = (state_.status & status_output_full) != 0;
  const bool mouse = full && (state_.status & status_auxiliary) != 0;
  keyboard_line_.set(full && !mouse && (state_.ram[0] & mode_keyboard_interrupt) != 0);
  mouse_line_.set(mouse && (state_.ram[0] & mode_auxiliary_interrupt) != 0);
}

}  // namespace caisson
