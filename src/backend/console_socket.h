// A console's host side over two descriptors: sockets, pipes or terminals.
//   Models   a bounded buffer for output with backpressure to the device; input that stops when the guest does not
//   read;
//            an optional log that gets a copy of all output; draining at exit
//   Gone     when nobody reads the output any more (EPIPE), it is taken and dropped: a guest does not hang because its
//            console was closed. The log still gets it.
//   Threads  called under the device lock; handlers run on the event loop under the same lock, see char_backend.h.
//   Note     makes the descriptors non-blocking (which others who share them see) and ignores SIGPIPE in the process
#pragma once

#include <memory>

#include "backend/char_backend.h"
#include "base/event_loop.h"
#include "base/fd.h"
#include "base/result.h"

namespace caisson {

struct ConsoleSocketOptions {
  size_t output_buffer = 256 * 1024;
  size_t input_buffer = 16 * 1024;
  Fd log;  // may be invalid
};

class ConsoleSocket final : public CharBackend {
 public:
  // For one socket in both directions give it and a dup() of it. An invalid `input` never has input; an invalid
  // `output` drops everything.
  [[nodiscard]] static Result<std::unique_ptr<ConsoleSocket>> create(EventLoop& loop, Fd input, Fd output,
                                                                     ConsoleSocketOptions options = {});
  ~ConsoleSocket() override;  // under the device lock

  [[nodiscard]] size_t write(std::span<const uint8_t> bytes) override;
  void set_writable_handler(std::function<void()> handler) override;
  void set_receiver(Receiver receiver) override;
  void receive_ready() override;

  // Nobody reads the output any more.
  [[nodiscard]] bool gone() const;
  // Called on the loop, once, when the host's side has ended its input.
  void set_input_end_handler(std::function<void()> handler);

  // Blocks until everything is written or the deadline (CLOCK_MONOTONIC, EventLoop::now_ns()) has passed; true when
  // nothing is left. Under the device lock; the loop need not run any more.
  bool drain(uint64_t deadline_ns);

 private:
  struct Impl;
  explicit ConsoleSocket(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace caisson
