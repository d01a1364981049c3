// VMMs that this process has started stay its children: they are waited for when they end, so that none is left as a
// zombie.
//   Threads  any
#pragma once

#include <mutex>
#include <vector>

#include <sys/types.h>
#include <sys/wait.h>

namespace caisson::api {

class Children {
 public:
  void add(pid_t process) {
    {
      const std::lock_guard lock{mutex_};
      processes_.push_back(process);
    }
    reap();  // it may have ended already, its signal come and gone
  }
  // After SIGCHLD. Others' children are left to them.
  // True: one has ended.
  bool reap() {
    const std::lock_guard lock{mutex_};
    return std::erase_if(processes_, [](pid_t process) { return ::waitpid(process, nullptr, WNOHANG) != 0; }) != 0;
  }

 private:
  std::mutex mutex_;
  std::vector<pid_t> processes_;
};

}  // namespace caisson::api
