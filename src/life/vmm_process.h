// Starts caisson-vmm and holds what connects this process to it.
//   Threads  one object, one thread
#pragma once

#include <optional>
#include <string>

#include <sys/types.h>

#include "base/fd.h"
#include "base/result.h"
#include "control/channel.h"

namespace caisson::life {

// What a session talks to: a VMM's ends of the sockets, and its process where there is one.
struct VmmLink {
  control::Channel channel;
  Fd console;  // stream socket, our end
  Fd log;      // reading end of what the VMM writes to standard error
};

class VmmProcess {
 public:
  struct Started;
  // `program`: its path. The child has the channel as descriptor 3, the log as standard error, and nothing else. With
  // `log_file`, which is for a VMM that outlives this process, that is its log, and VmmLink::log is none.
  [[nodiscard]] static Result<Started> start(const std::string& program, const Fd* log_file = nullptr);
  // Starts one ahead of what is known about its machine: it gets ready, which takes as long as understanding a command
  // line, and the next start() without a log file takes it. Best effort; one that nobody takes ends with this process.
  static void start_ahead();
  VmmProcess() = default;
  VmmProcess(VmmProcess&& other) noexcept;
  VmmProcess& operator=(VmmProcess&& other) noexcept;
  ~VmmProcess();  // kills and reaps a child that still runs

  [[nodiscard]] pid_t pid() const { return pid_; }
  [[nodiscard]] int pidfd() const { return pidfd_.get(); }  // readable once the child has ended
  void kill();
  // Leaves it to itself.
  void release() { pid_ = -1; }
  // Waits for the end: the status of waitpid.
  [[nodiscard]] std::optional<int> wait();

 private:
  pid_t pid_ = -1;
  Fd pidfd_;
};

struct VmmProcess::Started {
  VmmProcess process;
  VmmLink link;
  Fd guest_console;  // the VMM's end of the console, to be sent to it
};

// "<folder of this program>/<name>"; an error that says `what` it does where it is not there.
[[nodiscard]] Result<std::string> sibling_program(const std::string& name, const std::string& what);
// "<folder of this program>/caisson-vmm"
[[nodiscard]] Result<std::string> vmm_program();

}  // namespace caisson::life
