// The host's end of a byte stream that a device carries: reads and writes that never wait, and word when they would not
// have to.
//   Threads  every call comes with the device lock held; handlers are called on the event loop's thread with that lock
//            held, never from inside a call. A handler may destroy the stream.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/result.h"

namespace caisson {

class HostStream {
 public:
  enum class State : uint8_t {
    Moved,  // `bytes` of them, at least one
    Later,  // nothing now
    Ended,  // read: nothing will come any more; write: nobody reads any more
  };
  struct Outcome {
    State state = State::Later;
    size_t bytes = 0;
  };

  virtual ~HostStream() = default;
  virtual void set_handlers(std::function<void()> readable, std::function<void()> writable) = 0;
  [[nodiscard]] virtual Outcome read(std::span<uint8_t> into) = 0;
  [[nodiscard]] virtual Outcome write(std::span<const uint8_t> bytes) = 0;
  // Calls the handler once, when a read (a write) would not answer Later; also when the peer has gone.
  virtual void wait_readable() = 0;
  virtual void wait_writable() = 0;
  // The peer reads the end after what was written.
  virtual void end_output() = 0;
};

// Over a connected stream socket, which it makes non-blocking.
[[nodiscard]] Result<std::unique_ptr<HostStream>> socket_stream(EventLoop& loop, Fd socket);

}  // namespace caisson
