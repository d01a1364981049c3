// Packed virtqueues: VIRTIO 1.2, 2.8.
#include <optional>
#include <utility>

#include "devices/virtio/queue.h"
#include "devices/virtio/ring_format.h"

namespace caisson::virtio {

bool Queue::available_packed() const {
  const uint16_t flags = load16(state_->descriptors + descriptor_size * state_->next_available + packed_flags);
  const bool available = (flags & descriptor_available) != 0;
  const bool used = (flags & descriptor_used) != 0;
  return available == state_->available_wrap && used != state_->available_wrap;
}

Queue::Popped Queue::pop_packed(Chain& chain) {
  if (!available_packed()) return Popped::Empty;
  const uint16_t size = state_->size;
  uint16_t slots = 0;
  uint16_t id = 0;
  for (uint16_t index = state_->next_available;; index = static_cast<uint16_t>(index + 1 == size ? 0 : index + 1)) {
    if (++slots > size) return broken("a chain that is longer than the ring");
    const Descriptor descriptor = load_descriptor(state_->descriptors, index);
    id = descriptor.link;  // that of the last one counts (2.8.6)
    if ((descriptor.flags & descriptor_indirect) != 0) {
      unsigned entries = 0;
      if (slots != 1) return broken("an indirect descriptor in a list");
      if (!indirect_table(descriptor, entries)) return Popped::Broken;
      if (entries > max_indirect) return broken("an indirect table that is too long");
      for (unsigned i = 0; i < entries; ++i) {
        const Descriptor inner = load_descriptor(descriptor.address, i);
        if ((inner.flags & descriptor_indirect) != 0) return broken("an indirect table inside another");
        if (!add(chain, inner)) return Popped::Broken;
      }
      break;
    }
    if (!add(chain, descriptor)) return Popped::Broken;
    if ((descriptor.flags & descriptor_next) == 0) break;
  }
  chain.ticket = {.id = id, .slots = slots};
  unsigned next = state_->next_available + slots;
  if (next >= size) {
    next -= size;
    state_->available_wrap = !state_->available_wrap;
  }
  state_->next_available = static_cast<uint16_t>(next);
  return Popped::Chain;
}

void Queue::push_packed(std::span<const Used> used) {
  // Flags hand a descriptor over (2.8.6); those of the first one come last, as the driver looks at it first.
  std::optional<std::pair<Gpa, uint16_t>> first;
  for (const Used& entry : used) {
    const Gpa descriptor = state_->descriptors + descriptor_size * state_->next_used;
    store32(descriptor + packed_length, entry.written);
    store16(descriptor + packed_id, entry.ticket.id);
    const uint16_t turn = state_->used_wrap ? descriptor_available | descriptor_used : 0;
    const auto flags = static_cast<uint16_t>(turn | (entry.written != 0 ? descriptor_write : 0));
    if (first) {
      store16(descriptor + packed_flags, flags);
    } else {
      first = {descriptor + packed_flags, flags};
    }
    unsigned next = state_->next_used + entry.ticket.slots;
    if (next >= state_->size) {
      next -= state_->size;
      state_->used_wrap = !state_->used_wrap;
    }
    state_->next_used = static_cast<uint16_t>(next);
  }
  if (first) store16(first->first, first->second);
}

bool Queue::should_signal_packed(uint16_t unsignalled) {
  const uint16_t flags = load16(state_->driver + 2) & 3;
  if (flags == packed_event_disable) return false;
  if (flags != packed_event_at || !event_idx_) return true;
  // 2.8.10: an interrupt when the used position passes the one that the driver names; count in slots, unwrapped.
  const uint16_t wanted = load16(state_->driver);
  int event = wanted & 0x7fff;
  if (((wanted & 0x8000) != 0) != state_->used_wrap) event -= state_->size;
  return static_cast<uint16_t>(state_->next_used - event - 1) < unsignalled;
}

}  // namespace caisson::virtio
