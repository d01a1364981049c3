// What a machine may use of the host's CPUs: a cap, kept by having its virtual CPUs rest, and a share, by the priority
// of its threads ("nice").
//   Models   the cap counts what the whole process uses. A bucket holds what it may use in a tenth of a second and
//   fills
//            at that rate; when it is empty the CPUs leave the engine, as for a pause, and rest until it is half full.
//            Devices and timers go on meanwhile; what is due for a CPU waits for it, as when the host had run others.
//   Threads  as each function says
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "base/event_loop.h"
#include "base/result.h"

namespace caisson::machine {

// The budget by itself: nanoseconds of CPU time by those of a clock.
class CpuBudget {
 public:
  static constexpr uint64_t period_ns = 100'000'000;

  CpuBudget(uint32_t percent, uint64_t now_ns, uint64_t used_ns);

  // `used_ns`: CPU time used in all; both do not go back. True: it is used up, until there is half of a period's again.
  bool spend(uint64_t now_ns, uint64_t used_ns);
  // After spend(): when to look again, at the latest, with so many CPUs that may use it at once.
  [[nodiscard]] uint64_t look_again_ns(uint64_t now_ns, unsigned cpus) const;

 private:
  double per_ns_;  // CPU time for each nanosecond
  double left_ns_;
  bool rests_ = false;
  uint64_t now_ns_;
  uint64_t used_ns_;
};

class CpuLimits {
 public:
  // `kick`: has all CPUs that are in the engine leave it.
  CpuLimits(EventLoop& loop, unsigned cpus, std::function<void()> kick);

  // Loop thread. 0: no cap.
  void set_cap(uint32_t percent);
  // An error where this user may not have the priority that goes with the share; nothing has changed then.
  [[nodiscard]] Result<> set_share(uint32_t share);
  // Loop thread. What is there takes the place of what was. `by_group`: a control group keeps both, and this object
  // lets go of what it kept.
  [[nodiscard]] Result<> set(std::optional<uint32_t> cap_percent, std::optional<uint32_t> share, bool by_group);
  // Who keeps limits: "vmm", "cgroup"; empty: there are none.
  [[nodiscard]] std::string kept_by() const;

  // Around the CPUs' threads, by who starts and joins them.
  void start();
  void stop();
  // A CPU's thread, whose engine has been left: waits until there is CPU time. False: CPUs are to end.
  [[nodiscard]] bool rest();

 private:
  void look();

  const unsigned cpus_;
  const std::function<void()> kick_;
  std::unique_ptr<CpuBudget> budget_;  // null: no cap
  uint32_t share_;
  uint32_t cap_of_group_ = 0;
  uint32_t share_of_group_;
  std::unique_ptr<EventLoop::Timer> timer_;

  std::mutex lock_;
  std::condition_variable go_on_;
  bool rests_ = false;
  bool running_ = false;
};

}  // namespace caisson::machine
