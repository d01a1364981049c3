// A running machine, asked over its control socket.
//   Threads  one object, one thread
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include <sys/types.h>
#include <sys/un.h>

#include "base/fd.h"
#include "base/result.h"
#include "control/channel.h"
#include "control/messages.h"
#include "store/vm_folder.h"

namespace caisson::life {

// Of a socket in the file system.
[[nodiscard]] Result<sockaddr_un> socket_address(const std::string& path);

class VmClient {
 public:
  struct Answer {
    control::Event event;
    Fd fd;  // where one came with it
  };

  // An error where the machine does not run.
  [[nodiscard]] static Result<VmClient> connect(const store::VmFolder& folder);
  // To a socket by its path.
  [[nodiscard]] static Result<VmClient> connect_path(const std::string& path);

  // Sends without waiting; receive() gives the answer.
  [[nodiscard]] Result<> send(const control::Request& request, std::span<const int> fds = {});
  // The answer to what was sent; Refused is an error. Events that come before it are dropped. Waits so long at most.
  [[nodiscard]] Result<Answer> receive(uint64_t timeout_ms);
  [[nodiscard]] Result<Answer> ask(const control::Request& request, uint64_t timeout_ms = patience_ms,
                                   std::span<const int> fds = {});
  // The next event; none: the machine's process has gone, or nothing came in time.
  [[nodiscard]] std::optional<control::Event> next_event(uint64_t timeout_ms);
  // The process at the other end is gone.
  [[nodiscard]] bool gone() const { return gone_; }

  [[nodiscard]] pid_t pid() const;
  // Kills the machine's process: that one, whatever happens to its number.
  [[nodiscard]] Result<> kill();
  [[nodiscard]] control::Channel take_channel() { return std::move(channel_); }

  static constexpr uint64_t patience_ms = 10'000;

 private:
  VmClient(control::Channel channel, std::string name) : channel_(std::move(channel)), name_(std::move(name)) {}
  control::Channel channel_;
  std::string name_;  // for messages
  bool gone_ = false;
};

}  // namespace caisson::life
