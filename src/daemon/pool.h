// Work that may wait, done by a thread of the pool while the event loop goes on.
//   Threads  called on the event loop's, which the result comes back to
#pragma once

#include <type_traits>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace caisson::daemon {

namespace asio = boost::asio;

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

}  // namespace caisson::daemon
