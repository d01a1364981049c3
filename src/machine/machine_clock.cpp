#include "machine/machine_clock.h"

#include <cpuid.h>
#include <ctime>
#include <optional>

namespace caisson::machine {
namespace {

uint64_t read_clock(clockid_t id) {
  timespec now{};
  clock_gettime(id, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

// Two readings so far apart err by less than 30 parts in a million.
constexpr uint64_t least_apart_ns = 2'000'000;
// What is further apart was not read for this machine's start.
constexpr uint64_t most_apart_ns = 1'000'000'000;

uint64_t measured_tsc_hz(TscReading first) {
  TscReading last = read_tsc();
  if (first.ns >= last.ns || last.ns - first.ns > most_apart_ns || first.tsc >= last.tsc) first = last;
  while (last.ns - first.ns < least_apart_ns) {
    const timespec pause{.tv_sec = 0, .tv_nsec = static_cast<long>(least_apart_ns - (last.ns - first.ns))};
    nanosleep(&pause, nullptr);
    last = read_tsc();
  }
  return (last.tsc - first.tsc) * 1'000'000'000 / (last.ns - first.ns);  // no overflow below 18 GHz
}

}  // namespace

uint64_t host_tsc_hz(const TscReading& earlier) {
  uint32_t eax, ebx, ecx, edx;
  // A hypervisor below us tells the frequency in kHz (leaf 4000_0010h), else the CPU does (15h).
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & 1u << 31)) {
    __cpuid(0x4000'0000, eax, ebx, ecx, edx);
    if (eax >= 0x4000'0010) {
      __cpuid(0x4000'0010, eax, ebx, ecx, edx);
      if (eax != 0) return uint64_t{eax} * 1000;
    }
  }
  if (__get_cpuid(0x15, &eax, &ebx, &ecx, &edx) && eax != 0 && ebx != 0 && ecx != 0) return uint64_t{ecx} * ebx / eax;
  return measured_tsc_hz(earlier);
}

MachineClock::MachineClock(EventLoop& loop, uint64_t tsc_hz)
    : loop_(loop), tsc_hz_(tsc_hz), start_ns_(EventLoop::now_ns()), tsc_start_(__builtin_ia32_rdtsc()) {}

class MachineClock::LoopTimer final : public Clock::Timer {
 public:
  LoopTimer(MachineClock& clock, std::function<void()> handler)
      : clock_(clock), timer_(clock.loop_.create_timer([this, handler = std::move(handler)] {
          if (!fire()) return;
          handler();
        })) {
    const std::lock_guard hold(clock_.timers_lock_);
    clock_.timers_.insert(this);
  }
  ~LoopTimer() override {
    const std::lock_guard hold(clock_.timers_lock_);
    clock_.timers_.erase(this);
  }

  void arm(uint64_t deadline_ns) override {
    const std::lock_guard hold(clock_.timers_lock_);
    deadline_ = deadline_ns;
    set();
  }
  void cancel() override {
    const std::lock_guard hold(clock_.timers_lock_);
    deadline_.reset();
    timer_->cancel();
  }

  // Under the lock of the timers: as the clock is now.
  void set() {
    if (clock_.standing_ || !deadline_) {
      timer_->cancel();
      return;
    }
    const uint64_t deadline = *deadline_ + clock_.start_ns_.load(std::memory_order_relaxed);
    timer_->arm(deadline < *deadline_ ? ~uint64_t{0} : deadline);
  }

 private:
  // The event loop may have been about to call when the clock was stopped. A deadline that another thread has set
  // meanwhile stays.
  bool fire() {
    const std::lock_guard hold(clock_.timers_lock_);
    if (clock_.standing_) return false;
    if (deadline_ && *deadline_ <= clock_.now_ns()) deadline_.reset();
    return true;
  }

  MachineClock& clock_;
  std::unique_ptr<EventLoop::Timer> timer_;
  std::optional<uint64_t> deadline_;
};

uint64_t MachineClock::now_ns() const {
  if (standing_.load(std::memory_order_acquire)) return standing_ns_.load(std::memory_order_relaxed);
  return EventLoop::now_ns() - start_ns_.load(std::memory_order_relaxed);
}

uint64_t MachineClock::wall_ns() const { return read_clock(CLOCK_REALTIME); }

uint64_t MachineClock::tsc() const {
  if (standing_.load(std::memory_order_acquire)) return standing_tsc_.load(std::memory_order_relaxed);
  return __builtin_ia32_rdtsc() - tsc_start_.load(std::memory_order_relaxed);
}

std::unique_ptr<Clock::Timer> MachineClock::create_timer(std::function<void()> handler) {
  return std::make_unique<LoopTimer>(*this, std::move(handler));
}

void MachineClock::stand_still() {
  const std::lock_guard hold(timers_lock_);
  standing_ns_ = now_ns();
  standing_tsc_ = tsc();
  standing_.store(true, std::memory_order_release);
  for (LoopTimer* timer : timers_) timer->set();
}

void MachineClock::go_on() {
  const std::lock_guard hold(timers_lock_);
  start_ns_ = EventLoop::now_ns() - standing_ns_;
  tsc_start_ = __builtin_ia32_rdtsc() - standing_tsc_;
  standing_.store(false, std::memory_order_release);
  for (LoopTimer* timer : timers_) timer->set();
}

}  // namespace caisson::machine
