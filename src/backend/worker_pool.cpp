#include "backend/worker_pool.h"

#include <system_error>
#include <utility>

namespace caisson {

WorkerPool::~WorkerPool() {
  {
    const std::lock_guard lock{mutex_};
    stopping_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void WorkerPool::run(std::function<void()> task) {
  {
    std::unique_lock lock{mutex_};
    tasks_.push_back(std::move(task));
    if (idle_ < tasks_.size() && threads_.size() < most_threads_) {
      try {
        threads_.emplace_back([this] { work(); });
      } catch (const std::system_error&) {
        // The host gives no more threads. Those there are do the work; where there are none the caller has to.
        if (threads_.empty()) {
          task = std::move(tasks_.back());
          tasks_.pop_back();
          lock.unlock();
          task();
          return;
        }
      }
    }
  }
  changed_.notify_one();
}

void WorkerPool::work() {
  std::unique_lock lock{mutex_};
  for (;;) {
    ++idle_;
    changed_.wait(lock, [this] { return stopping_ || !tasks_.empty(); });
    --idle_;
    if (tasks_.empty()) return;
    auto task = std::move(tasks_.front());
    tasks_.pop_front();
    lock.unlock();
    task();
    task = nullptr;
    lock.lock();
  }
}

}  // namespace caisson
