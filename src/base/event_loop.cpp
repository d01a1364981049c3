// One epoll instance watches the descriptors, an eventfd that wakes the loop for posted tasks, and one timerfd
// programmed for the earliest of all timers.
//   Locks   guard, then mutex_ (a leaf: no foreign code runs under it, not even the destructor of a handler)
#include "base/event_loop.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <ctime>
#include <unordered_map>
#include <utility>
#include <vector>

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>

#include "base/check.h"
#include "base/fd.h"
#include "base/log.h"

namespace caisson {
namespace {

constexpr uint64_t ns_per_second = 1'000'000'000;
constexpr uint64_t never = UINT64_MAX;

// Keys of the loop's own descriptors in epoll_event.data; those of watches have a generation above zero.
constexpr uint64_t wake_key = 0;
constexpr uint64_t timer_key = 1;

constexpr uint64_t watch_key(uint32_t generation, int fd) {
  return uint64_t{generation} << 32 | static_cast<uint32_t>(fd);
}

// All timers, as a binary heap ordered by deadline in which every timer knows its own place. Timers share it with the
// loop, so that one which outlives the loop does no harm.
class TimerQueue {
 public:
  struct Entry {
    std::shared_ptr<const EventLoop::Handler> handler;
    uint64_t deadline = 0;
    size_t place = not_queued;
  };
  static constexpr size_t not_queued = SIZE_MAX;

  explicit TimerQueue(Fd timer_fd) : timer_fd_(std::move(timer_fd)) {}

  [[nodiscard]] int fd() const { return timer_fd_.get(); }

  void arm(Entry& entry, uint64_t deadline) {
    const std::lock_guard lock{mutex_};
    entry.deadline = deadline;
    if (entry.place == not_queued) {
      entry.place = heap_.size();
      heap_.push_back(&entry);
    }
    sift(entry.place);
    // A later deadline than the programmed one needs no system call: the loop wakes too early once and programs anew.
    if (heap_.front()->deadline < programmed_) program(heap_.front()->deadline);
  }

  void cancel(Entry& entry) {
    const std::lock_guard lock{mutex_};
    remove(entry);
  }

  // The timerfd has fired: how many timers are due now. The rest is programmed again by finish().
  size_t begin(uint64_t now) {
    const std::lock_guard lock{mutex_};
    uint64_t expirations = 0;
    [[maybe_unused]] const ssize_t size = ::read(timer_fd_.get(), &expirations, sizeof expirations);
    programmed_ = never;
    return static_cast<size_t>(
        std::count_if(heap_.begin(), heap_.end(), [&](const Entry* entry) { return entry->deadline <= now; }));
  }

  // Takes the earliest timer out when it is due.
  std::shared_ptr<const EventLoop::Handler> take_due(uint64_t now) {
    const std::lock_guard lock{mutex_};
    if (heap_.empty() || heap_.front()->deadline > now) return nullptr;
    Entry& entry = *heap_.front();
    remove(entry);
    return entry.handler;
  }

  void finish() {
    const std::lock_guard lock{mutex_};
    if (!heap_.empty() && heap_.front()->deadline < programmed_) program(heap_.front()->deadline);
  }

 private:
  void place(Entry* entry, size_t at) {
    heap_[at] = entry;
    entry->place = at;
  }

  // Moves the entry at `at` up or down to where it belongs.
  void sift(size_t at) {
    Entry* const entry = heap_[at];
    while (at > 0 && entry->deadline < heap_[(at - 1) / 2]->deadline) {
      place(heap_[(at - 1) / 2], at);
      at = (at - 1) / 2;
    }
    for (;;) {
      size_t child = 2 * at + 1;
      if (child >= heap_.size()) break;
      if (child + 1 < heap_.size() && heap_[child + 1]->deadline < heap_[child]->deadline) ++child;
      if (entry->deadline <= heap_[child]->deadline) break;
      place(heap_[child], at);
      at = child;
    }
    place(entry, at);
  }

  void remove(Entry& entry) {
    if (entry.place == not_queued) return;
    const size_t at = entry.place;
    Entry* const last = heap_.back();
    heap_.pop_back();
    entry.place = not_queued;
    if (last != &entry) {
      place(last, at);
      sift(at);
    }
  }

  void program(uint64_t deadline) {
    itimerspec time{};
    const uint64_t ns = std::max<uint64_t>(deadline, 1);  // zero would disarm
    time.it_value.tv_sec = static_cast<time_t>(ns / ns_per_second);
    time.it_value.tv_nsec = static_cast<long>(ns % ns_per_second);
    CAISSON_CHECK(::timerfd_settime(timer_fd_.get(), TFD_TIMER_ABSTIME, &time, nullptr) == 0);
    programmed_ = deadline;
  }

  std::mutex mutex_;
  const Fd timer_fd_;
  std::vector<Entry*> heap_;
  uint64_t programmed_ = never;
};

class LoopTimer final : public EventLoop::Timer {
 public:
  LoopTimer(std::shared_ptr<TimerQueue> queue, EventLoop::Handler handler) : queue_(std::move(queue)) {
    entry_.handler = std::make_shared<const EventLoop::Handler>(std::move(handler));
  }
  ~LoopTimer() override { queue_->cancel(entry_); }
  LoopTimer(const LoopTimer&) = delete;
  LoopTimer& operator=(const LoopTimer&) = delete;

  void arm(uint64_t deadline_ns) override { queue_->arm(entry_, deadline_ns); }
  void cancel() override { queue_->cancel(entry_); }

 private:
  const std::shared_ptr<TimerQueue> queue_;
  TimerQueue::Entry entry_;
};

Result<> add_own(int epoll_fd, int fd, uint64_t key) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = key;
  if (::epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) return fail_errno(errno, "cannot set up an event loop");
  return {};
}

}  // namespace

struct EventLoop::Impl {
  struct Watch {
    std::shared_ptr<const FdHandler> handler;
    uint32_t events = 0;
    uint32_t generation = 0;
    bool always_ready = false;  // a regular file or /dev/null: epoll refuses those; they are ready like under poll(2)
  };

  Impl(std::mutex* handler_guard, Fd epoll, Fd wake, Fd timer)
      : guard(handler_guard),
        epoll_fd(std::move(epoll)),
        wake_fd(std::move(wake)),
        timers(std::make_shared<TimerQueue>(std::move(timer))) {}

  [[nodiscard]] std::unique_lock<std::mutex> hold_guard() const {
    return guard != nullptr ? std::unique_lock{*guard} : std::unique_lock<std::mutex>{};
  }

  void wake() {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t size = ::write(wake_fd.get(), &one, sizeof one);  // full means awake already
  }

  void run_tasks();
  void run_timers();
  void run_watch(uint64_t key, uint32_t ready);
  void run_always_ready();

  std::mutex* const guard;
  const Fd epoll_fd;
  const Fd wake_fd;
  const std::shared_ptr<TimerQueue> timers;
  std::atomic<bool> stopping{false};

  std::mutex mutex;  // over what follows
  std::unordered_map<int, Watch> watches;
  std::vector<Handler> tasks;
  uint32_t last_generation = 0;
  size_t always_ready_count = 0;
};

void EventLoop::Impl::run_tasks() {
  std::vector<Handler> ready;
  {
    const std::lock_guard lock{mutex};
    ready.swap(tasks);
  }
  for (Handler& task : ready) {
    const auto held = hold_guard();
    task();
    task = nullptr;  // what it captured goes under the guard too
  }
}

void EventLoop::Impl::run_timers() {
  const uint64_t now = now_ns();
  // Bounded by those due at the start: a handler that arms its timer in the past must not keep the loop here.
  for (size_t due = timers->begin(now); due > 0; --due) {
    const auto held = hold_guard();
    const auto handler = timers->take_due(now);  // under the guard: somebody may just have cancelled it
    if (handler == nullptr) break;
    (*handler)();
  }
  timers->finish();
}

void EventLoop::Impl::run_watch(uint64_t key, uint32_t ready) {
  const auto held = hold_guard();
  std::shared_ptr<const FdHandler> handler;
  {
    const std::lock_guard lock{mutex};
    const auto found = watches.find(static_cast<int>(key & 0xffffffff));
    // Unwatched, or watched anew, since epoll_wait returned.
    if (found == watches.end() || found->second.generation != key >> 32) return;
    handler = found->second.handler;
  }
  (*handler)(ready);
}

void EventLoop::Impl::run_always_ready() {
  std::vector<std::pair<uint64_t, uint32_t>> ready;
  {
    const std::lock_guard lock{mutex};
    if (always_ready_count == 0) return;
    for (const auto& [fd, watch] : watches) {
      const uint32_t events = watch.events & (EPOLLIN | EPOLLOUT);
      if (watch.always_ready && events != 0) ready.emplace_back(watch_key(watch.generation, fd), events);
    }
  }
  for (const auto& [key, events] : ready) run_watch(key, events);
}

EventLoop::EventLoop(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
EventLoop::~EventLoop() = default;

Result<std::unique_ptr<EventLoop>> EventLoop::create(std::mutex* guard) {
  Fd epoll{::epoll_create1(EPOLL_CLOEXEC)};
  Fd wake{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  Fd timer{::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)};
  if (!epoll.valid() || !wake.valid() || !timer.valid()) {
    return fail_errno(errno, "cannot set up an event loop; raise the limit on open files (ulimit -n)");
  }
  if (auto done = add_own(epoll.get(), wake.get(), wake_key); !done) return std::unexpected(done.error());
  if (auto done = add_own(epoll.get(), timer.get(), timer_key); !done) return std::unexpected(done.error());
  return std::unique_ptr<EventLoop>(
      new EventLoop(std::make_unique<Impl>(guard, std::move(epoll), std::move(wake), std::move(timer))));
}

void EventLoop::watch(int fd, uint32_t epoll_events, FdHandler handler) {
  CAISSON_CHECK(fd >= 0);
  auto shared = std::make_shared<const FdHandler>(std::move(handler));
  std::shared_ptr<const FdHandler> old;  // destroyed after the lock is gone: its captures may call us
  bool wake_needed = false;
  {
    const std::lock_guard lock{impl_->mutex};
    if (++impl_->last_generation == 0) ++impl_->last_generation;
    Impl::Watch& watch = impl_->watches[fd];
    old = std::exchange(watch.handler, std::move(shared));
    watch.events = epoll_events;
    watch.generation = impl_->last_generation;

    epoll_event event{};
    event.events = epoll_events;
    event.data.u64 = watch_key(watch.generation, fd);
    int done = ::epoll_ctl(impl_->epoll_fd.get(), old != nullptr ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event);
    if (done != 0 && errno == EEXIST) done = ::epoll_ctl(impl_->epoll_fd.get(), EPOLL_CTL_MOD, fd, &event);
    if (done != 0 && errno == ENOENT) done = ::epoll_ctl(impl_->epoll_fd.get(), EPOLL_CTL_ADD, fd, &event);
    const bool always_ready = done != 0 && errno == EPERM;
    if (done != 0 && !always_ready) {
      log::error("cannot wait for descriptor {}: error {} from epoll_ctl", fd, errno);
    }
    impl_->always_ready_count += size_t{always_ready} - size_t{watch.always_ready};
    watch.always_ready = always_ready;
    wake_needed = always_ready;
  }
  if (wake_needed) impl_->wake();
}

void EventLoop::unwatch(int fd) {
  Impl::Watch old;
  const std::lock_guard lock{impl_->mutex};
  const auto found = impl_->watches.find(fd);
  if (found == impl_->watches.end()) return;
  old = std::move(found->second);
  impl_->watches.erase(found);
  impl_->always_ready_count -= size_t{old.always_ready};
  // Fails when the descriptor is closed already, which has taken it out.
  ::epoll_ctl(impl_->epoll_fd.get(), EPOLL_CTL_DEL, fd, nullptr);
}

void EventLoop::post(Handler task) {
  bool first = false;
  {
    const std::lock_guard lock{impl_->mutex};
    first = impl_->tasks.empty();
    impl_->tasks.push_back(std::move(task));
  }
  if (first) impl_->wake();
}

std::unique_ptr<EventLoop::Timer> EventLoop::create_timer(Handler handler) {
  return std::make_unique<LoopTimer>(impl_->timers, std::move(handler));
}

uint64_t EventLoop::now_ns() {
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<uint64_t>(time.tv_sec) * ns_per_second + static_cast<uint64_t>(time.tv_nsec);
}

void EventLoop::run() {
  std::array<epoll_event, 64> events;
  for (;;) {
    int timeout = -1;
    {
      const std::lock_guard lock{impl_->mutex};
      if (impl_->always_ready_count != 0) timeout = 0;
    }
    const int count = ::epoll_wait(impl_->epoll_fd.get(), events.data(), static_cast<int>(events.size()), timeout);
    if (count < 0) CAISSON_CHECK(errno == EINTR);
    for (int i = 0; i < count; ++i) {
      const epoll_event& event = events[static_cast<size_t>(i)];
      if (event.data.u64 == wake_key) {
        uint64_t wakes = 0;
        [[maybe_unused]] const ssize_t size = ::read(impl_->wake_fd.get(), &wakes, sizeof wakes);
        // Before the tasks: those that were posted before stop() still run.
        const bool stop = impl_->stopping.exchange(false);
        impl_->run_tasks();
        if (stop) return;
      } else if (event.data.u64 == timer_key) {
        impl_->run_timers();
      } else {
        impl_->run_watch(event.data.u64, event.events);
      }
    }
    impl_->run_always_ready();
  }
}

void EventLoop::stop() {
  impl_->stopping.store(true);
  impl_->wake();
}

}  // namespace caisson
