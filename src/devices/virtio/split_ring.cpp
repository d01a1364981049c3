// Split virtqueues: VIRTIO 1.2, 2.7.
#include "devices/virtio/queue.h"
#include "devices/virtio/ring_format.h"

namespace caisson::virtio {

bool Queue::available_split() const { return load16(state_->driver + split_index) != state_->next_available; }

Queue::Popped Queue::pop_split(Chain& chain) {
  const uint16_t size = state_->size;
  const auto waiting = static_cast<uint16_t>(load16(state_->driver + split_index) - state_->next_available);
  if (waiting == 0) return Popped::Empty;
  if (waiting > size) return broken("the available index jumps");
  const uint16_t head = load16(state_->driver + split_header + 2ull * (state_->next_available % size));
  if (head >= size) return broken("a head index beyond the queue");

  Gpa table = state_->descriptors;
  unsigned entries = size;
  unsigned limit = size;
  bool indirect = false;
  unsigned index = head;
  for (unsigned seen = 1;; ++seen) {
    if (seen > limit) return broken("a chain that loops or is too long");
    const Descriptor descriptor = load_descriptor(table, index);
    if ((descriptor.flags & descriptor_indirect) != 0) {
      if (indirect) return broken("an indirect table inside another");
      if (!indirect_table(descriptor, entries)) return Popped::Broken;
      indirect = true;
      table = descriptor.address;
      limit = max_indirect;
      index = 0;
      seen = 0;
      continue;
    }
    if (!add(chain, descriptor)) return Popped::Broken;
    if ((descriptor.flags & descriptor_next) == 0) break;
    index = descriptor.link;
    if (index >= entries) return broken("a next index beyond its table");
  }
  chain.ticket = {.id = head, .slots = 1};
  ++state_->next_available;
  return Popped::Chain;
}

void Queue::push_split(std::span<const Used> used) {
  for (const Used& entry : used) {
    const Gpa element = state_->device + split_header + split_used_size * (state_->next_used % state_->size);
    store32(element, entry.ticket.id);
    store32(element + 4, entry.written);
    ++state_->next_used;
  }
  store16(state_->device + split_index, state_->next_used);
}

bool Queue::should_signal_split(uint16_t unsignalled) {
  if (!event_idx_) return (load16(state_->driver) & split_no_interrupt) == 0;
  // 2.7.10: an interrupt when the index passes used_event.
  const uint16_t used_event = load16(state_->driver + split_header + 2ull * state_->size);
  return static_cast<uint16_t>(state_->next_used - used_event - 1) < unsignalled;
}

}  // namespace caisson::virtio
