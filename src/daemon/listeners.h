// Events of all machines for those who listen to them.
//   Bounds   one that is more than Queue::most lines behind is left out
//   Threads  the event loop's; the store is looked at in the pool
#pragma once

#include <chrono>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>

#include "daemon/stream.h"
#include "life/feed.h"

namespace caisson::daemon {

// Those who listen to events. While there are any the store is looked at several times a second.
class Listeners {
 public:
  struct Queue {
    explicit Queue(const asio::any_io_executor& executor) : arrived(executor) {}
    static constexpr size_t most = 512;
    std::vector<std::string> lines;
    bool overflowed = false;
    asio::steady_timer arrived;  // cancelled when there is something, or the server ends
  };

  explicit Listeners(asio::thread_pool& pool) : pool_(pool) {}
  // Events that happen after this are in the queue.
  asio::awaitable<std::shared_ptr<Queue>> add();
  void remove(const std::shared_ptr<Queue>& queue) { queues_.erase(queue); }

 private:
  static constexpr std::chrono::milliseconds interval{200};
  asio::awaitable<void> watch();
  asio::awaitable<void> look();

  asio::thread_pool& pool_;
  std::set<std::shared_ptr<Queue>> queues_;
  std::shared_ptr<life::Feed> feed_;  // while watch() runs
};

// Sends them as server-sent events (HTML, 9.2) until the reader has gone.
asio::awaitable<void> send_events(Stream& stream, Listeners& listeners);

}  // namespace caisson::daemon
