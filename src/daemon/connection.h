// One connection, from its first request to its last: plain answers, a stream of events, or a console.
//   Threads  the event loop's; what may wait goes to the pool
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/basic_stream.hpp>
#include <boost/beast/core/tcp_stream.hpp>

#include "api/api.h"
#include "daemon/tokens.h"
#include "life/feed.h"

namespace caisson::daemon {

namespace asio = boost::asio;
namespace beast = boost::beast;

inline constexpr auto no_throw = asio::as_tuple(asio::use_awaitable);

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

// What connections share.
struct Shared {
  api::Api& api;
  const Tokens& tokens;
  asio::thread_pool& pool;
  Listeners listeners;
  size_t connections = 0;
  size_t streams = 0;
  size_t uploads = 0;  // each has a file of its own
};

template <class Work>
asio::awaitable<std::invoke_result_t<Work&>> call(Work& work) {
  co_return work();
}
// Runs `work` in the pool and comes back to this thread with what it gives. A name is asked for: GCC 12 destroys a
// temporary with captures twice where a coroutine waits in the same expression.
template <class Work>
asio::awaitable<std::invoke_result_t<Work&>> in_pool(asio::thread_pool& pool, Work& work) {
  return asio::co_spawn(pool.get_executor(), call(work), asio::use_awaitable);
}

// Whoever is at the other end.
struct Identity {
  std::optional<api::Caller> caller;  // by the connection itself
  bool by_token = false;              // requests may bring a token
};

using UnixStream = beast::basic_stream<asio::local::stream_protocol>;
using TlsStream = asio::ssl::stream<beast::tcp_stream>;

template <class Stream>
asio::awaitable<void> serve(Stream stream, Identity identity, Shared& shared);

extern template asio::awaitable<void> serve(UnixStream, Identity, Shared&);
extern template asio::awaitable<void> serve(TlsStream, Identity, Shared&);

}  // namespace caisson::daemon
