// The two halves of a virtio device: the Model is what it does (a disk, a network card…), the Transport is how the
// driver reaches it (virtio_pci.h). A model knows nothing of PCI; a transport nothing of disks.
//   Threads  every call, both ways, comes with the device lock held.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/fields.h"
#include "devices/virtio/queue.h"
#include "devices/virtio/registers.h"
#include "memory/guest_memory.h"

namespace caisson::virtio {

class Transport {
 public:
  virtual ~Transport() = default;
  [[nodiscard]] virtual GuestMemory& memory() = 0;
  // Accepted by the driver; 0 before it has said so.
  [[nodiscard]] virtual uint64_t features() const = 0;
  // Null unless the driver has started the device and enabled the queue, and the device may access memory and has not
  // failed. Ask anew in each call from outside.
  [[nodiscard]] virtual Queue* queue(unsigned index) = 0;
  // Chains have been pushed: interrupts the driver if it wants that.
  virtual void signal(unsigned queue) = 0;
  // A field of the device's configuration changed by itself.
  virtual void config_changed() = 0;
  // The driver broke a rule: DEVICE_NEEDS_RESET (2.1.2). All queues are gone until it resets the device.
  virtual void fail(std::string_view why) = 0;
  // Calls Model::kick(queue) soon, from the event loop.
  virtual void kick_later(unsigned queue) = 0;
};

class Model {
 public:
  virtual ~Model() = default;

  [[nodiscard]] virtual std::string_view kind() const = 0;  // "virtio-blk"
  [[nodiscard]] virtual DeviceType type() const = 0;
  [[nodiscard]] virtual uint32_t pci_class() const = 0;
  [[nodiscard]] virtual uint64_t features() const = 0;  // without those of the transport and the rings
  [[nodiscard]] virtual unsigned queue_count() const = 0;
  [[nodiscard]] virtual uint16_t queue_size() const { return 256; }  // a power of two
  // Device configuration as the driver sees it; its length must not change.
  [[nodiscard]] virtual std::span<const uint8_t> config() const = 0;
  // The driver wrote there; offset and size lie inside config(). The model takes what is writable.
  virtual void write_config(unsigned offset, std::span<const uint8_t> bytes) {
    (void)offset;
    (void)bytes;
  }

  // Before anything else, once.
  virtual void connect(Transport& transport) { transport_ = &transport; }
  // The driver is ready: queues exist from now on. A kick of each queue follows.
  virtual void start() {}
  // Queues are about to go: ends all that is in flight, without touching queues. Afterwards as after creation, but for
  // what the host has set (a link's state, a console's size). May come without a start().
  virtual void stop() {}
  // Completes what is in flight through the queues: before a save, or before the device loses access to memory.
  virtual void quiesce() {}
  // There may be something in this queue; spurious ones come.
  virtual void kick(unsigned queue) = 0;

  // What a guest can observe beside the transport's registers; nothing is in flight then.
  virtual void save(fields::Buffer& out) const { (void)out; }
  [[nodiscard]] virtual Result<> restore(std::span<const uint8_t> in) {
    if (!in.empty()) return fail("saved state of {} has {} bytes where none are expected", kind(), in.size());
    return {};
  }

 protected:
  Transport* transport_ = nullptr;
};

// Serves the chains of a queue: `handle(queue, chain)` gives each back (or keeps its ticket) and returns true; false
// puts the chain back and stops. Bounded: a driver that feeds faster than the device eats must not hold the device lock
// for ever.
template <class Handle>
void serve(Transport& transport, unsigned index, Handle handle) {
  Queue* queue = transport.queue(index);
  if (queue == nullptr) return;
  Chain chain;
  unsigned left = std::max(256u, 4u * queue->size());
  bool more = true;
  while (more) {
    queue->suppress_kicks();
    for (;;) {
      if (left-- == 0) {
        transport.signal(index);
        transport.kick_later(index);
        return;
      }
      const Queue::Popped popped = queue->pop(chain);
      if (popped == Queue::Popped::Empty) break;
      if (popped == Queue::Popped::Broken) {
        transport.fail(queue->fault());
        return;
      }
      if (!handle(*queue, chain)) {
        queue->unpop(chain);
        transport.signal(index);
        return;
      }
      if (transport.queue(index) == nullptr) return;  // the handler called fail()
    }
    more = queue->allow_kicks();
  }
  transport.signal(index);
}

}  // namespace caisson::virtio
