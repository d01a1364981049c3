// Child processes for building images: started in groups of their own, with everything but the given descriptors
// closed.
//   Threads  any
#pragma once

#include <string>
#include <vector>

#include <sys/types.h>

#include "base/fd.h"
#include "base/result.h"

namespace caisson::life {

// -1: /dev/null.
struct ChildStreams {
  int in = -1;
  int out = -1;
  int error = -1;
};

class Child {
 public:
  // `arguments[0]` is looked up in PATH.
  [[nodiscard]] static Result<Child> start(const std::vector<std::string>& arguments, const ChildStreams& streams,
                                           const std::vector<std::string>& extra_environment = {});
  Child(Child&& other) noexcept;
  Child& operator=(Child&&) = delete;
  ~Child();  // ends and reaps it

  void signal(int number);  // to the whole group
  // 0 when it ended well; else the exit status, or 128 + the signal's number.
  [[nodiscard]] int wait();

 private:
  explicit Child(pid_t pid) : pid_(pid) {}
  pid_t pid_;
};

struct Captured {
  int status = 0;
  std::string out;  // standard output and error
};
// Runs to the end; at most 1 MiB of output is kept.
[[nodiscard]] Result<Captured> capture(const std::vector<std::string>& arguments);
// True when it can be started and ends with 0.
[[nodiscard]] bool succeeds(const std::vector<std::string>& arguments);
[[nodiscard]] bool in_path(const std::string& program);

struct Pipe {
  Fd read;
  Fd write;
};
[[nodiscard]] Result<Pipe> make_pipe();

}  // namespace caisson::life
