#include "devices/chipset/keyboard_controller.h"

namespace caisson {
namespace {

enum Region : unsigned { Data, Command };

constexpr uint8_t status_output_full = 0x01;
constexpr uint8_t status_system = 0x04;
constexpr uint8_t status_command = 0x08;
constexpr uint8_t status_unlocked = 0x10;
constexpr uint8_t status_auxiliary = 0x20;
constexpr uint8_t status_timeout = 0x40;

constexpr uint8_t mode_keyboard_interrupt = 0x01;
constexpr uint8_t mode_system = 0x04;
constexpr uint8_t mode_keyboard_disabled = 0x10;
constexpr uint8_t mode_auxiliary_disabled = 0x20;

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
constexpr uint8_t keyboard_test_passed = 0x00;
constexpr uint8_t auxiliary_clock_stuck_low = 0x01;
// What a controller puts into the output buffer when a device does not answer: RESEND with the time-out bit.
constexpr uint8_t resend = 0xfe;
constexpr uint8_t no_keyboard_lock = 0x80;

}  // namespace

KeyboardController::KeyboardController(InterruptLine& keyboard_line, PowerSink& power)
    : line_(keyboard_line), power_(power) {
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
  state_ = state;
  update();
  return {};
}

uint64_t KeyboardController::read(unsigned region, uint64_t, unsigned) {
  if (region == Command) return state_.status;
  state_.status &= static_cast<uint8_t>(~(status_output_full | status_auxiliary | status_timeout));
  update();
  return state_.output;
}

void KeyboardController::write(unsigned region, uint64_t, unsigned, uint64_t value) {
  if (region == Command) {
    state_.status |= status_command;
    command(static_cast<uint8_t>(value));
  } else {
    state_.status &= static_cast<uint8_t>(~status_command);
    data(static_cast<uint8_t>(value));
  }
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
    case TestAuxiliary: answer(auxiliary_clock_stuck_low); break;
    case SelfTest:
      state_.status |= status_system;
      answer(self_test_passed);
      break;
    case TestKeyboard: answer(keyboard_test_passed); break;
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
    // Without an auxiliary port the loop comes back as keyboard data: drivers see at once that there is none.
    case WriteKeyboardOutput:
    case WriteAuxiliaryOutput: answer(value); break;
    case WriteAuxiliary: answer(resend, status_auxiliary | status_timeout); break;
    default:
      // A byte for the keyboard also enables its port.
      state_.ram[0] &= static_cast<uint8_t>(~mode_keyboard_disabled);
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

void KeyboardController::update() {
  const bool keyboard_byte = (state_.status & (status_output_full | status_auxiliary)) == status_output_full;
  line_.set(keyboard_byte && (state_.ram[0] & mode_keyboard_interrupt) != 0);
}

}  // namespace caisson
