// A virtqueue as the device sees it: takes descriptor chains, gives them back used.
//   Spec     VIRTIO 1.2, 2.7 (split), 2.8 (packed)
//   Models   both formats, indirect descriptors, event index, notification suppression
//   Omits    in-order use, queue reset, notification data
//   Threads  under the device lock
//
// Rings lie in guest memory, which changes while one looks: each index and descriptor is copied once, checked, and the
// copy used. Whatever a chain names is inside RAM when pop() returns it. A queue that breaks a rule is broken for good:
// pop() says so and fault() tells why; the device then sets DEVICE_NEEDS_RESET.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/fields.h"
#include "devices/virtio/registers.h"
#include "memory/guest_memory.h"

namespace caisson::virtio {

// What the driver sets up for a queue, and how far the device has come in it.
struct QueueState {
  uint16_t size = 0;
  uint16_t vector = no_vector;
  bool enabled = false;
  uint64_t descriptors = 0;  // descriptor area
  uint64_t driver = 0;       // driver area: available ring, or the driver's event suppression
  uint64_t device = 0;       // device area: used ring, or the device's event suppression
  uint16_t next_available = 0;
  uint16_t next_used = 0;
  bool available_wrap = true;  // packed only
  bool used_wrap = true;       // packed only
  uint16_t unsignalled = 0;    // used entries (packed: slots) since should_signal() was asked

  static constexpr auto fields() {
    using fields::row;
    return fields::table<QueueState>(
        row<1>("size", &QueueState::size), row<2>("vector", &QueueState::vector),
        row<3>("enabled", &QueueState::enabled), row<4>("descriptors", &QueueState::descriptors),
        row<5>("driver", &QueueState::driver), row<6>("device", &QueueState::device),
        row<7>("next_available", &QueueState::next_available), row<8>("next_used", &QueueState::next_used),
        row<9>("available_wrap", &QueueState::available_wrap), row<10>("used_wrap", &QueueState::used_wrap),
        row<11>("unsignalled", &QueueState::unsignalled));
  }
};

struct Segment {
  Gpa address;
  uint32_t length;  // never 0
};

// What of a chain is needed to give it back.
struct Ticket {
  uint16_t id = 0;     // head index (split) or buffer id (packed)
  uint16_t slots = 1;  // how many ring descriptors it took (packed)
};

// A chain given back: `written` bytes from the front of its writable part have been written.
struct Used {
  Ticket ticket;
  uint32_t written = 0;
};

struct Chain {
  Ticket ticket;
  std::vector<Segment> readable;
  std::vector<Segment> writable;
  uint64_t readable_length = 0;  // at most 2^32 - 1 both together
  uint64_t writable_length = 0;
};

class Queue {
 public:
  // Longest chain in an indirect table; the specification's limit is the queue size, but Linux does exceed that.
  static constexpr unsigned max_indirect = 1024;
  static constexpr uint16_t max_size = 1024;

  // None where size or addresses are not valid for `features`; `fault` then says what. `state` must outlive the queue.
  [[nodiscard]] static std::optional<Queue> create(GuestMemory& memory, QueueState& state, uint64_t features,
                                                   std::string_view& fault);

  [[nodiscard]] uint16_t size() const { return state_->size; }

  enum class Popped : uint8_t { Chain, Empty, Broken };
  [[nodiscard]] Popped pop(Chain& chain);
  // Undoes the latest pop() that has not been undone; more than one in reverse order.
  void unpop(const Chain& chain);
  // Gives chains back; the driver sees all of them or none.
  void push(std::span<const Used> used);
  void push(const Ticket& ticket, uint32_t written) { push(std::array{Used{ticket, written}}); }
  // Whether the driver wants an interrupt for what was pushed since the last call.
  [[nodiscard]] bool should_signal();

  // Asks the driver not to kick; a hint only.
  void suppress_kicks();
  // Asks for a kick with the next chain. True: a chain has come before that took effect; look again.
  [[nodiscard]] bool allow_kicks();

  [[nodiscard]] std::string_view fault() const { return fault_; }

 private:
  struct Descriptor {
    uint64_t address = 0;
    uint32_t length = 0;
    uint16_t flags = 0;
    uint16_t link = 0;  // split: next index; packed: buffer id
  };

  Queue(GuestMemory& memory, QueueState& state, uint64_t features);

  Popped broken(std::string_view why);
  [[nodiscard]] Descriptor load_descriptor(Gpa table, unsigned index) const;
  [[nodiscard]] bool add(Chain& chain, const Descriptor& descriptor);
  [[nodiscard]] bool indirect_table(const Descriptor& descriptor, unsigned& entries);
  [[nodiscard]] uint16_t load16(Gpa address) const;
  void store16(Gpa address, uint16_t value);
  void store32(Gpa address, uint32_t value);

  Popped pop_split(Chain& chain);
  void push_split(std::span<const Used> used);
  [[nodiscard]] bool should_signal_split(uint16_t unsignalled);
  [[nodiscard]] bool available_split() const;

  Popped pop_packed(Chain& chain);
  void push_packed(std::span<const Used> used);
  [[nodiscard]] bool should_signal_packed(uint16_t unsignalled);
  [[nodiscard]] bool available_packed() const;

  GuestMemory* memory_;
  QueueState* state_;
  bool packed_;
  bool event_idx_;
  bool indirect_;
  std::string_view fault_;
};

// Copies between a chain's segments and host bytes, from byte `offset` of the segments on; says how many were copied,
// which is less than asked for only where the segments end.
size_t gather(const GuestMemory& memory, std::span<const Segment> segments, uint64_t offset, std::span<uint8_t> out);
size_t scatter(GuestMemory& memory, std::span<const Segment> segments, uint64_t offset, std::span<const uint8_t> in);

// The part [offset, offset + length) of a list of segments.
[[nodiscard]] std::vector<Segment> slice(std::span<const Segment> segments, uint64_t offset, uint64_t length);

}  // namespace caisson::virtio
