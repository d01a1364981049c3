#include "machine/inputs.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/check.h"

namespace caisson::machine {
namespace {

using virtio::InputEvent;
namespace input = virtio::input;

// Further than any screen is wide.
constexpr int far_away = 16384;

struct ButtonCode {
  uint8_t button;
  uint16_t code;
};
// The USB tablet has the same numbers for buttons and places.
static_assert(input::abs_most == usb::Tablet::most && Ps2Mouse::left == 1 && Ps2Mouse::right == 2 &&
              Ps2Mouse::middle == 4);
constexpr ButtonCode button_codes[]{{Ps2Mouse::left, input::btn_left},
                                    {Ps2Mouse::right, input::btn_right},
                                    {Ps2Mouse::middle, input::btn_middle},
                                    {Ps2Mouse::fourth, input::btn_side},
                                    {Ps2Mouse::fifth, input::btn_extra}};

uint32_t on_tablet(uint32_t at, uint32_t length) {
  if (length <= 1) return 0;
  return static_cast<uint32_t>(uint64_t{std::min(at, length - 1)} * input::abs_most / (length - 1));
}

}  // namespace

Inputs::Inputs(Clock& clock, KeyboardController& ps2, virtio::Input* keyboard, virtio::Input* tablet,
               usb::Tablet* usb_tablet)
    : clock_(clock),
      ps2_(ps2),
      keyboard_(keyboard),
      tablet_(tablet),
      usb_tablet_(usb_tablet),
      timer_(clock.create_timer([this] { retry(); })) {}

bool Inputs::key(Key key, bool down) {
  const size_t index = key.code + (key.extended ? 256u : 0u);
  const bool driven = keyboard_ != nullptr && keyboard_->driven();
  const uint16_t code = input::key_of(key.code, key.extended);
  const bool there = down ? driven && code != 0 : down_there_[index];
  if (!there) return ps2_.key(key, down);
  // Whoever has reset the device knows of no key that is down.
  if (driven && !keyboard_->send(std::array{InputEvent{input::ev_key, code, down ? 1u : 0u}})) return false;
  down_there_[index] = down;
  return true;
}

bool Inputs::point(const Pointing& to) {
  if (usb_driven()) {
    const auto x = static_cast<uint16_t>(on_tablet(to.x, to.width));
    const auto y = static_cast<uint16_t>(on_tablet(to.y, to.height));
    if (!usb_tablet_->point(x, y, to.buttons, -to.wheel)) return false;
    known_ = false;
  } else if (absolute()) {
    std::vector<InputEvent> events{{input::ev_abs, input::abs_x, on_tablet(to.x, to.width)},
                                   {input::ev_abs, input::abs_y, on_tablet(to.y, to.height)}};
    for (const auto& [button, code] : button_codes) {
      if (((to.buttons ^ last_.buttons) & button) == 0) continue;
      events.push_back({input::ev_key, code, (to.buttons & button) != 0 ? 1u : 0u});
    }
    if (to.wheel != 0) events.push_back({input::ev_rel, input::rel_wheel, static_cast<uint32_t>(-to.wheel)});
    if (!tablet_->send(events)) return false;
    known_ = false;
  } else {
    int right = 0, down = 0;
    if (known_) {
      right = static_cast<int>(to.x) - static_cast<int>(last_.x);
      down = static_cast<int>(to.y) - static_cast<int>(last_.y);
    }
    if (!ps2_.move(right, -down, to.wheel, to.buttons)) return false;
    known_ = true;
  }
  last_ = to;
  return true;
}

bool Inputs::home() {
  if (absolute()) return true;
  if (!ps2_.mouse_wanted()) return false;
  if (!goes_home_) {
    if (!ps2_.move(-far_away, far_away, 0, last_.buttons)) return false;
    goes_home_ = true;
  }
  if (!ps2_.mouse_told()) return false;
  goes_home_ = false;
  known_ = true;
  last_.x = last_.y = 0;
  return true;
}

bool Inputs::try_now(const Waiting& one) { return one.key ? key(*one.key, one.down) : point(one.pointing); }

void Inputs::add(const Waiting& one) {
  if (waiting_.empty() && try_now(one)) return;
  if (!one.key && !waiting_.empty() && !waiting_.back().key &&
      waiting_.back().pointing.buttons == one.pointing.buttons) {
    const int wheel = waiting_.back().pointing.wheel;
    waiting_.back() = one;
    waiting_.back().pointing.wheel = std::clamp(wheel + one.pointing.wheel, -most_wheel, most_wheel);
    return;
  }
  if (waiting_.size() >= most_waiting) return;
  waiting_.push_back(one);
  if (waiting_.size() == 1) timer_->arm(clock_.now_ns() + pace_ns);
}

void Inputs::key_soon(Key key, bool down) { add({key, down, {}}); }
void Inputs::point_soon(const Pointing& to) { add({{}, false, to}); }

void Inputs::retry() {
  while (!waiting_.empty() && try_now(waiting_.front())) waiting_.pop_front();
  if (!waiting_.empty()) timer_->arm(clock_.now_ns() + pace_ns);
}

std::unique_ptr<Inputs> add_inputs(Clock& clock, KeyboardController& ps2, pci::HostBridge& bridge,
                                   const virtio::Services& services, UsbPorts& usb, control::Tablet tablet) {
  auto& keyboard = virtio::add_input(bridge, services, virtio::Input::Kind::Keyboard);
  if (tablet == control::Tablet::Virtio) {
    auto& pointer = virtio::add_input(bridge, services, virtio::Input::Kind::Tablet);
    return std::make_unique<Inputs>(clock, ps2, &keyboard, &pointer);
  }
  auto owned = std::make_unique<usb::Tablet>();
  usb::Tablet* const pointer = owned.get();
  // The only device of its speed.
  CAISSON_CHECK(usb.connect(std::move(owned)).has_value());
  return std::make_unique<Inputs>(clock, ps2, &keyboard, nullptr, pointer);
}

}  // namespace caisson::machine
