// The socket between whoever starts a VM and its VMM: messages with file descriptors, each whole or not at all.
//   Form     a connected SOCK_SEQPACKET Unix socket; one packet is one JSON text (messages.h), at most 64 KiB, with at
//   most
//            max_fds descriptors as SCM_RIGHTS
//   Threads  send() may be called by any thread (one packet is atomic); receive() by one thread at a time
//   Checks   the peer is untrusted: an oversized or truncated packet, or one with too many descriptors, is an error,
//   and
//            every descriptor that came with it is closed
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace caisson::control {

struct Packet {
  std::string text;
  std::vector<Fd> fds;
};

class Channel {
 public:
  static constexpr size_t max_text = 64 * 1024;
  static constexpr size_t max_fds = 64;

  explicit Channel(Fd socket) : socket_(std::move(socket)) {}

  // Both ends, close-on-exec.
  [[nodiscard]] static Result<std::pair<Channel, Channel>> create_pair();

  // Waits while the peer's buffer is full. An error when the peer is gone; never raises SIGPIPE.
  [[nodiscard]] Result<> send(std::string_view text, std::span<const int> fds = {});

  // Does not wait: an error where the peer's buffer is full, too.
  [[nodiscard]] Result<> try_send(std::string_view text, std::span<const int> fds = {});

  // Waits for one packet; none when the peer has closed its end.
  [[nodiscard]] Result<std::optional<Packet>> receive();

  // To poll for EPOLLIN; receive() then does not wait.
  [[nodiscard]] int fd() const { return socket_.get(); }

 private:
  [[nodiscard]] Result<> send_with(std::string_view text, std::span<const int> fds, int flags);
  Fd socket_;
};

}  // namespace caisson::control
