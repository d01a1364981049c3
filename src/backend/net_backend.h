// What a network device asks of the host: Ethernet frames out and in, without FCS and without any virtio header.
//   Threads  every call comes with the device lock held (from a vCPU thread or the event loop's thread); the backend
//            copies a frame and does its work on its own thread or loop. The receiver is called on the event loop's
//            thread with the device lock held.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

namespace caisson {

class NetBackend {
 public:
  static constexpr size_t max_frame = 65550;  // Ethernet header and the largest IP packet, with a little to spare

  virtual ~NetBackend() = default;

  // Sends one frame; never blocks. A backend that cannot keep up drops frames, as a wire would.
  virtual void send(std::span<const uint8_t> frame) = 0;

  // False: the guest has no buffer; the backend keeps the frame (and bounds how many it keeps) and offers it again
  // after receive_ready(). True: taken, or dropped for good. An empty function ends reception.
  using Receiver = std::function<bool(std::span<const uint8_t> frame)>;
  virtual void set_receiver(Receiver receiver) = 0;

  // The device has buffers again. The receiver is not called from inside; it is called soon, from the event loop.
  virtual void receive_ready() = 0;
};

}  // namespace caisson
