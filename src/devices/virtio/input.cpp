#include "devices/virtio/input.h"

#include <algorithm>
#include <string_view>

namespace caisson::virtio {
namespace {

using namespace input;

// select of struct virtio_input_config, 5.8.4.
enum Select : uint8_t { IdName = 0x01, IdDevices = 0x03, EventBits = 0x11, AbsInfo = 0x12 };
constexpr size_t size_at = 2, data_at = 8, data_length = 128;
constexpr uint16_t bus_virtual = 6, vendor = 0x1af4, keyboard_product = 1, tablet_product = 2, version = 1;
constexpr uint16_t lights[]{0, 1, 2};  // num lock, caps lock, scroll lock
constexpr size_t event_length = 8;

// Keys with the prefix 0xe0. All others have the number of their code in set 1, but for those of Japanese keyboards.
struct Extended {
  uint8_t code;
  uint16_t key;
};
constexpr Extended extended_keys[]{{0x1c, 96},  {0x1d, 97},  {0x20, 113}, {0x2e, 114}, {0x30, 115}, {0x35, 98},
                                   {0x37, 99},  {0x38, 100}, {0x46, 119}, {0x47, 102}, {0x48, 103}, {0x49, 104},
                                   {0x4b, 105}, {0x4d, 106}, {0x4f, 107}, {0x50, 108}, {0x51, 109}, {0x52, 110},
                                   {0x53, 111}, {0x5b, 125}, {0x5c, 126}, {0x5d, 127}, {0x5e, 116}, {0x5f, 142}};
constexpr Extended japanese_keys[]{{0x70, 93}, {0x73, 89}, {0x79, 92}, {0x7b, 94}, {0x7d, 124}};
constexpr uint8_t last_common_key = 0x58;  // F12

void set_bit(std::span<uint8_t> bits, unsigned bit, size_t& size) {
  bits[bit / 8] |= static_cast<uint8_t>(1u << bit % 8);
  size = std::max<size_t>(size, bit / 8 + 1);
}

void put16(std::span<uint8_t> out, size_t at, uint16_t value) {
  out[at] = static_cast<uint8_t>(value);
  out[at + 1] = static_cast<uint8_t>(value >> 8);
}

// The capabilities of one type of events; their length in bytes.
size_t event_bits(Input::Kind kind, uint8_t type, std::span<uint8_t> bits) {
  size_t size = 0;
  if (kind == Input::Kind::Keyboard) {
    if (type == ev_key) {
      for (unsigned code = 1; code < 0x80; ++code) {
        for (const bool extended : {false, true}) {
          if (const uint16_t key = key_of(static_cast<uint8_t>(code), extended)) set_bit(bits, key, size);
        }
      }
    }
    if (type == ev_led) {
      for (const uint16_t light : lights) set_bit(bits, light, size);
    }
    // Without a bit: Linux looks whether there is anything, and repeats keys itself then.
    if (type == ev_rep) size = 1;
    return size;
  }
  if (type == ev_key) {
    for (const uint16_t button : {btn_left, btn_right, btn_middle, btn_side, btn_extra}) set_bit(bits, button, size);
  }
  if (type == ev_rel) {
    set_bit(bits, rel_wheel, size);
    set_bit(bits, rel_hwheel, size);
  }
  if (type == ev_abs) {
    set_bit(bits, abs_x, size);
    set_bit(bits, abs_y, size);
  }
  return size;
}

}  // namespace

uint16_t input::key_of(uint8_t scan_code, bool extended) {
  const auto look = [&](std::span<const Extended> table) -> uint16_t {
    const auto found = std::ranges::find(table, scan_code, &Extended::code);
    return found == table.end() ? uint16_t{0} : found->key;
  };
  if (extended) return look(extended_keys);
  if (scan_code > last_common_key) return look(japanese_keys);
  return scan_code == 0x54 || scan_code == 0x55 ? uint16_t{0} : scan_code;  // no keys in set 1
}

Input::Input(Kind kind) : kind_(kind) {}

// struct virtio_input_config, 5.8.4: select, subsel, size, reserved, and what was selected.
void Input::refresh_config() {
  config_.fill(0);
  config_[0] = state_.select;
  config_[1] = state_.subselect;
  const std::span<uint8_t> data = std::span(config_).subspan(data_at, data_length);
  size_t size = 0;
  switch (state_.select) {
    case IdName: {
      const std::string_view name = kind_ == Kind::Keyboard ? "Caisson Virtio Keyboard" : "Caisson Virtio Tablet";
      std::ranges::copy(name, data.begin());
      size = name.size();
      break;
    }
    case IdDevices:
      put16(data, 0, bus_virtual);
      put16(data, 2, vendor);
      put16(data, 4, kind_ == Kind::Keyboard ? keyboard_product : tablet_product);
      put16(data, 6, version);
      size = 8;
      break;
    case EventBits: size = event_bits(kind_, state_.subselect, data); break;
    case AbsInfo:
      if (kind_ == Kind::Tablet && state_.subselect <= abs_y) {
        put16(data, 4, abs_most);  // min, max, fuzz, flat, res: of 32 bits each
        size = 20;
      }
      break;
    default: break;
  }
  config_[size_at] = static_cast<uint8_t>(size);
}

void Input::write_config(unsigned offset, std::span<const uint8_t> bytes) {
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (offset + i == 0) state_.select = bytes[i];
    if (offset + i == 1) state_.subselect = bytes[i];
  }
  refresh_config();
}

Result<> Input::restore(std::span<const uint8_t> in) {
  State state = state_;
  if (auto done = fields::restore(state, in); !done) return done;
  state_ = state;
  refresh_config();
  return {};
}

bool Input::driven() { return transport_ != nullptr && transport_->queue(event_queue) != nullptr; }

bool Input::send(std::span<const InputEvent> events) {
  if (!driven() || waiting_.size() + events.size() + 1 > most_waiting) return false;
  waiting_.insert(waiting_.end(), events.begin(), events.end());
  waiting_.push_back({ev_syn, 0, 0});
  deliver();
  return true;
}

// One event to a buffer (5.8.6.1).
void Input::deliver() {
  Queue* const queue = transport_->queue(event_queue);
  if (queue == nullptr || waiting_.empty()) return;
  Chain chain;
  unsigned retries = 4;
  bool pushed = false;
  while (!waiting_.empty()) {
    const Queue::Popped popped = queue->pop(chain);
    if (popped == Queue::Popped::Broken) return transport_->fail(queue->fault());
    if (popped == Queue::Popped::Empty) {
      if (retries-- > 0 && queue->allow_kicks()) continue;
      break;
    }
    const InputEvent event = waiting_.front();
    std::array<uint8_t, event_length> bytes{};
    put16(bytes, 0, event.type);
    put16(bytes, 2, event.code);
    put16(bytes, 4, static_cast<uint16_t>(event.value));
    put16(bytes, 6, static_cast<uint16_t>(event.value >> 16));
    if (scatter(transport_->memory(), chain.writable, 0, bytes) != bytes.size()) {
      return transport_->fail("an input event's buffer without room for it");
    }
    queue->push(chain.ticket, event_length);
    waiting_.pop_front();
    pushed = true;
  }
  if (pushed) transport_->signal(event_queue);
}

void Input::kick(unsigned index) {
  if (index == status_queue) {
    serve(*transport_, index, [](Queue& queue, const Chain& chain) {
      queue.push(chain.ticket, 0);
      return true;
    });
    return;
  }
  if (Queue* queue = transport_->queue(index)) queue->suppress_kicks();  // until events find no buffer
  deliver();
}

}  // namespace caisson::virtio
