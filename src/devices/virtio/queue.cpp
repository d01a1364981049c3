// What both formats share: set-up, descriptors, dispatch.
#include "devices/virtio/queue.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <tuple>
#include <utility>

#include "devices/virtio/ring_format.h"

namespace caisson::virtio {

std::optional<Queue> Queue::create(GuestMemory& memory, QueueState& state, uint64_t features, std::string_view& fault) {
  const bool packed = (features & feature::ring_packed) != 0;
  const uint64_t size = state.size;
  // Event fields count only where they are used: a driver without the feature need not have room for them.
  const uint64_t event = (features & feature::event_idx) != 0 ? 2 : 0;
  const uint64_t driver_length = packed ? packed_event_length : split_header + 2 * size + event;
  const uint64_t device_length = packed ? packed_event_length : split_header + split_used_size * size + event;
  if (size == 0 || size > max_size || (!packed && !std::has_single_bit(state.size))) {
    fault = "queue size";
  } else if (state.descriptors % 16 != 0 || !memory.contains(state.descriptors, descriptor_size * size)) {
    fault = "descriptor area";
  } else if (state.driver % (packed ? 4 : 2) != 0 || !memory.contains(state.driver, driver_length)) {
    fault = "driver area";
  } else if (state.device % 4 != 0 || !memory.contains(state.device, device_length)) {
    fault = "device area";
  } else if (packed && (state.next_available >= size || state.next_used >= size)) {
    fault = "ring position";  // only a restored state can say so
  } else {
    return Queue(memory, state, features);
  }
  return {};
}

Queue::Queue(GuestMemory& memory, QueueState& state, uint64_t features)
    : memory_(&memory),
      state_(&state),
      packed_((features & feature::ring_packed) != 0),
      event_idx_((features & feature::event_idx) != 0),
      indirect_((features & feature::indirect_desc) != 0) {}

Queue::Popped Queue::pop(Chain& chain) {
  if (!fault_.empty()) return Popped::Broken;
  chain.readable.clear();
  chain.writable.clear();
  chain.readable_length = chain.writable_length = 0;
  return packed_ ? pop_packed(chain) : pop_split(chain);
}

void Queue::unpop(const Chain& chain) {
  uint16_t& next = state_->next_available;
  if (!packed_) {
    --next;
  } else if (next >= chain.ticket.slots) {
    next = static_cast<uint16_t>(next - chain.ticket.slots);
  } else {
    next = static_cast<uint16_t>(next + state_->size - chain.ticket.slots);
    state_->available_wrap = !state_->available_wrap;
  }
}

void Queue::push(std::span<const Used> used) {
  packed_ ? push_packed(used) : push_split(used);
  unsigned count = state_->unsignalled;
  for (const Used& entry : used) count += packed_ ? entry.ticket.slots : 1u;
  state_->unsignalled = static_cast<uint16_t>(std::min(count, 0xffffu));
}

bool Queue::should_signal() {
  if (state_->unsignalled == 0) return false;
  const uint16_t unsignalled = std::exchange(state_->unsignalled, 0);
  // The used entries must be visible before the driver's wish is read (2.7.7.2, 2.8.21.3.1).
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return packed_ ? should_signal_packed(unsignalled) : should_signal_split(unsignalled);
}

void Queue::suppress_kicks() {
  if (packed_) {
    store32(state_->device, uint32_t{packed_event_disable} << 16);
  } else if (!event_idx_) {
    store16(state_->device, split_no_notify);
  }
  // With the event index a split ring's old index is itself the suppression (2.7.10).
}

bool Queue::allow_kicks() {
  if (packed_) {
    const uint32_t position = state_->next_available | (state_->available_wrap ? 0x8000u : 0);
    store32(state_->device, event_idx_ ? position | uint32_t{packed_event_at} << 16 : 0);
  } else if (event_idx_) {
    store16(state_->device + split_header + split_used_size * state_->size, state_->next_available);
  } else {
    store16(state_->device, 0);
  }
  // The wish must be visible before the ring is looked at again, else a chain could come unseen between the two.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return packed_ ? available_packed() : available_split();
}

Queue::Popped Queue::broken(std::string_view why) {
  fault_ = why;
  return Popped::Broken;
}

Queue::Descriptor Queue::load_descriptor(Gpa table, unsigned index) const {
  std::array<uint8_t, descriptor_size> raw{};
  if (!memory_->read(table + uint64_t{index} * descriptor_size, raw)) return {};
  const auto number = [&](unsigned at, unsigned width) {
    uint64_t value = 0;
    for (unsigned i = 0; i < width; ++i) value |= uint64_t{raw[at + i]} << (8 * i);
    return value;
  };
  const auto third = static_cast<uint16_t>(number(12, 2));
  const auto fourth = static_cast<uint16_t>(number(14, 2));
  return {number(0, 8), static_cast<uint32_t>(number(8, 4)), packed_ ? fourth : third, packed_ ? third : fourth};
}

bool Queue::add(Chain& chain, const Descriptor& descriptor) {
  if (descriptor.length == 0) return true;
  if (!memory_->contains(descriptor.address, descriptor.length)) {
    fault_ = "a buffer outside RAM";
    return false;
  }
  if (chain.readable_length + chain.writable_length + descriptor.length > 0xffff'ffff) {
    fault_ = "a chain longer than 4 GiB";
    return false;
  }
  if ((descriptor.flags & descriptor_write) != 0) {
    chain.writable.push_back({descriptor.address, descriptor.length});
    chain.writable_length += descriptor.length;
    return true;
  }
  if (!chain.writable.empty()) {
    fault_ = "a readable buffer after a writable one";
    return false;
  }
  chain.readable.push_back({descriptor.address, descriptor.length});
  chain.readable_length += descriptor.length;
  return true;
}

bool Queue::indirect_table(const Descriptor& descriptor, unsigned& entries) {
  if (!indirect_) {
    fault_ = "an indirect descriptor without the feature";
  } else if ((descriptor.flags & descriptor_next) != 0) {
    fault_ = "an indirect descriptor that goes on";
  } else if (descriptor.length == 0 || descriptor.length % descriptor_size != 0 ||
             !memory_->contains(descriptor.address, descriptor.length)) {
    fault_ = "an indirect table of bad length or outside RAM";
  } else {
    entries = static_cast<unsigned>(descriptor.length / descriptor_size);
    return true;
  }
  return false;
}

uint16_t Queue::load16(Gpa address) const {
  auto* cell = reinterpret_cast<uint16_t*>(memory_->base() + address);
  return std::atomic_ref(*cell).load(std::memory_order_acquire);
}

void Queue::store16(Gpa address, uint16_t value) {
  auto* cell = reinterpret_cast<uint16_t*>(memory_->base() + address);
  std::atomic_ref(*cell).store(value, std::memory_order_release);
  memory_->written(address, sizeof value);
}

void Queue::store32(Gpa address, uint32_t value) {
  auto* cell = reinterpret_cast<uint32_t*>(memory_->base() + address);
  std::atomic_ref(*cell).store(value, std::memory_order_release);
  memory_->written(address, sizeof value);
}

namespace {

// Calls `use(part of a segment)` for the bytes [offset, offset + length) of the segments; says how many there were.
template <class Use>
uint64_t for_each_part(std::span<const Segment> segments, uint64_t offset, uint64_t length, Use use) {
  uint64_t done = 0;
  for (const Segment& segment : segments) {
    if (done == length) break;
    if (offset >= segment.length) {
      offset -= segment.length;
      continue;
    }
    const uint64_t part = std::min(segment.length - offset, length - done);
    use(Segment{segment.address + offset, static_cast<uint32_t>(part)}, done);
    done += part;
    offset = 0;
  }
  return done;
}

}  // namespace

size_t gather(const GuestMemory& memory, std::span<const Segment> segments, uint64_t offset, std::span<uint8_t> out) {
  return for_each_part(segments, offset, out.size(), [&](const Segment& part, uint64_t done) {
    std::ignore = memory.read(part.address, out.subspan(done, part.length));
  });
}

size_t scatter(GuestMemory& memory, std::span<const Segment> segments, uint64_t offset, std::span<const uint8_t> in) {
  return for_each_part(segments, offset, in.size(), [&](const Segment& part, uint64_t done) {
    std::ignore = memory.write(part.address, in.subspan(done, part.length));
  });
}

std::vector<Segment> slice(std::span<const Segment> segments, uint64_t offset, uint64_t length) {
  std::vector<Segment> parts;
  for_each_part(segments, offset, length, [&](const Segment& part, uint64_t) { parts.push_back(part); });
  return parts;
}

}  // namespace caisson::virtio
