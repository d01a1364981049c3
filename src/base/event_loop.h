// One thread's event loop over epoll: file descriptors, timers, and tasks posted by other threads.
//   Threads  run() is called by one thread, the loop thread; watch/unwatch/arm/cancel and post may be called by any.
//            Handlers run on the loop thread with `guard` held, where one was given (the device lock).
//   Units    timers count CLOCK_MONOTONIC nanoseconds.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>

#include "base/result.h"

namespace caisson {

class EventLoop {
 public:
  using Handler = std::function<void()>;
  using FdHandler = std::function<void(uint32_t epoll_events)>;

  // `guard`: a lock to hold around every handler; it must outlive the loop; may be null.
  [[nodiscard]] static Result<std::unique_ptr<EventLoop>> create(std::mutex* guard);
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  // Level-triggered. One handler per descriptor; watching it again replaces events and handler.
  void watch(int fd, uint32_t epoll_events, FdHandler handler);
  // After it returns the handler will not be started again.
  void unwatch(int fd);

  // Runs `task` on the loop thread soon.
  void post(Handler task);

  class Timer {
   public:
    virtual ~Timer() = default;
    // Replaces an earlier deadline. A deadline in the past fires at once.
    virtual void arm(uint64_t deadline_ns) = 0;
    virtual void cancel() = 0;
  };
  // The handler is not called after the timer's destructor returns on the loop thread or under the guard.
  [[nodiscard]] std::unique_ptr<Timer> create_timer(Handler handler);

  [[nodiscard]] static uint64_t now_ns();

  // Until stop() is called.
  void run();
  void stop();

 private:
  struct Impl;
  explicit EventLoop(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace caisson
