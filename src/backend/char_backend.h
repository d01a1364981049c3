// What a console device asks of the host: two byte streams with backpressure in both directions.
//   Threads  every call comes with the device lock held (from a vCPU thread or the event loop's thread). The handlers
//   are
//            called on the event loop's thread with the device lock held, never from inside a call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

namespace caisson {

class CharBackend {
 public:
  virtual ~CharBackend() = default;

  // Guest to host. Takes bytes from the front and says how many; fewer than given means full: the writable handler is
  // called once there is room. Never blocks.
  [[nodiscard]] virtual size_t write(std::span<const uint8_t> bytes) = 0;
  virtual void set_writable_handler(std::function<void()> handler) = 0;

  // Host to guest. The receiver takes bytes from the front and says how many; fewer than given means that the guest is
  // not reading: the backend keeps the rest, stops reading from the host, and offers again after receive_ready(). An
  // empty function ends reception.
  using Receiver = std::function<size_t(std::span<const uint8_t> bytes)>;
  virtual void set_receiver(Receiver receiver) = 0;
  virtual void receive_ready() = 0;
};

}  // namespace caisson
