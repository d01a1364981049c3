#include "machine/cpu_limits.h"

#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <ctime>
#include <utility>

#include "base/child_time.h"
#include "control/limits.h"

namespace caisson::machine {
namespace {

// More often than this nobody looks: what is used meanwhile is made good.
constexpr uint64_t least_look_ns = 1'000'000;

uint64_t process_cpu_ns() {
  timespec used{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
  return static_cast<uint64_t>(used.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(used.tv_nsec) +
         child_time::total_ns();
}

// Each step of nice is a factor of 1.25 to Linux's scheduler.
int nice_of(uint32_t share) {
  return static_cast<int>(
      std::lround(std::log(static_cast<double>(control::usual_cpu_share) / share) / std::log(1.25)));
}

}  // namespace

CpuBudget::CpuBudget(uint32_t percent, uint64_t now_ns, uint64_t used_ns)
    : per_ns_(percent / 100.0), left_ns_(per_ns_ * period_ns), now_ns_(now_ns), used_ns_(used_ns) {}

bool CpuBudget::spend(uint64_t now_ns, uint64_t used_ns) {
  const double full = per_ns_ * period_ns;
  left_ns_ = std::min(full, left_ns_ + per_ns_ * static_cast<double>(now_ns - std::min(now_ns_, now_ns)));
  left_ns_ -= static_cast<double>(used_ns - std::min(used_ns_, used_ns));
  now_ns_ = now_ns;
  used_ns_ = used_ns;
  rests_ = rests_ ? left_ns_ < full / 2 : left_ns_ <= 0;
  return rests_;
}

uint64_t CpuBudget::look_again_ns(uint64_t now_ns, unsigned cpus) const {
  const double wait = rests_ ? (per_ns_ * period_ns / 2 - left_ns_) / per_ns_ : left_ns_ / cpus;
  return now_ns + std::max(least_look_ns, static_cast<uint64_t>(std::max(0.0, wait)));
}

CpuLimits::CpuLimits(EventLoop& loop, unsigned cpus, std::function<void()> kick)
    : cpus_(cpus),
      kick_(std::move(kick)),
      share_(control::usual_cpu_share),
      share_of_group_(control::usual_cpu_share),
      timer_(loop.create_timer([this] { look(); })) {}

void CpuLimits::set_cap(uint32_t percent) {
  budget_.reset();
  timer_->cancel();
  if (percent != 0) budget_ = std::make_unique<CpuBudget>(percent, EventLoop::now_ns(), process_cpu_ns());
  look();
}

Result<> CpuLimits::set_share(uint32_t share) {
  if (share == share_) return {};
  // All threads of this process, which is the only one of its group; those to come have it from those that start them.
  errno = 0;
  const int now = ::getpriority(PRIO_PGRP, 0);
  if (now == -1 && errno != 0) return fail_errno(errno, "--cpu-share: cannot ask for the priority");
  const int wanted = std::clamp(now + nice_of(share) - nice_of(share_), -20, 19);
  if (::setpriority(PRIO_PGRP, 0, wanted) != 0) {
    return fail_errno(errno, fmt::format("--cpu-share {}: this user may not raise a priority (nice {} to {}); stop the "
                                         "machine and start it again, or choose at most {}",
                                         share, now, wanted, share_));
  }
  share_ = share;
  return {};
}

Result<> CpuLimits::set(std::optional<uint32_t> cap_percent, std::optional<uint32_t> share, bool by_group) {
  if (by_group) {
    cap_of_group_ = cap_percent.value_or(cap_of_group_);
    share_of_group_ = share.value_or(share_of_group_);
    cap_percent = 0;
    share = control::usual_cpu_share;
  } else {
    if (cap_percent) cap_of_group_ = 0;
    if (share) share_of_group_ = control::usual_cpu_share;
  }
  if (share) {
    if (auto done = set_share(*share); !done) return done;
  }
  if (cap_percent) set_cap(*cap_percent);
  return {};
}

std::string CpuLimits::kept_by() const {
  if (cap_of_group_ != 0 || share_of_group_ != control::usual_cpu_share) return "cgroup";
  return budget_ != nullptr || share_ != control::usual_cpu_share ? "vmm" : "";
}

void CpuLimits::look() {
  bool rests = false;
  if (budget_) {
    const uint64_t now = EventLoop::now_ns();
    rests = budget_->spend(now, process_cpu_ns());
    timer_->arm(budget_->look_again_ns(now, cpus_));
  }
  bool kick = false;
  {
    const std::lock_guard hold(lock_);
    kick = rests && !rests_ && running_;
    rests_ = rests;
  }
  if (kick) kick_();
  if (!rests) go_on_.notify_all();
}

void CpuLimits::start() {
  const std::lock_guard hold(lock_);
  running_ = true;
}

void CpuLimits::stop() {
  {
    const std::lock_guard hold(lock_);
    running_ = false;
  }
  go_on_.notify_all();
}

bool CpuLimits::rest() {
  std::unique_lock hold(lock_);
  go_on_.wait(hold, [this] { return !rests_ || !running_; });
  return running_;
}

}  // namespace caisson::machine
