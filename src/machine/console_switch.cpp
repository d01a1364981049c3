#include "machine/console_switch.h"

namespace caisson::machine {

ConsoleSwitch::ConsoleSwitch(CharBackend& console) : console_(console) {
  console_.set_writable_handler([this] {
    for (Front& front : fronts_) {
      if (front.writable) front.writable();
    }
  });
  console_.set_receiver([this](std::span<const uint8_t> bytes) -> size_t {
    Front& to = last_->receive ? *last_ : fronts_[0];
    return to.receive ? to.receive(bytes) : 0;
  });
}

ConsoleSwitch::~ConsoleSwitch() {
  console_.set_writable_handler({});
  console_.set_receiver({});
}

size_t ConsoleSwitch::Front::write(std::span<const uint8_t> bytes) {
  if (owner_.last_ != this) {
    owner_.last_ = this;
    owner_.console_.receive_ready();  // what waited for the other is for this one now
  }
  return owner_.console_.write(bytes);
}

}  // namespace caisson::machine
