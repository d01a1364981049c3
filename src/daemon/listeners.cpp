#include "daemon/listeners.h"

#include <fmt/core.h>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http.hpp>

#include "daemon/answers.h"
#include "daemon/pool.h"

namespace caisson::daemon {

namespace http = beast::http;

asio::awaitable<std::shared_ptr<Listeners::Queue>> Listeners::add() {
  auto executor = co_await asio::this_coro::executor;
  auto queue = std::make_shared<Queue>(executor);
  if (!feed_) {
    feed_ = std::make_shared<life::Feed>();
    queues_.insert(queue);
    co_await look();
    asio::co_spawn(executor, watch(), asio::detached);
  } else {
    queues_.insert(queue);
  }
  co_return queue;
}

asio::awaitable<void> Listeners::look() {
  auto feed = feed_;
  const auto look_again = [feed] { return feed->look(); };
  const auto events = co_await in_pool(pool_, look_again);
  if (events.empty()) co_return;
  for (const auto& queue : queues_) {
    for (const auto& event : events) {
      queue->lines.push_back(
          fmt::format("event: {}\ndata: {}\n\n", event.value("type", ""), control::dump_json(event)));
    }
    queue->overflowed = queue->overflowed || queue->lines.size() > Queue::most;
    queue->arrived.cancel();
  }
}

asio::awaitable<void> Listeners::watch() {
  asio::steady_timer timer{co_await asio::this_coro::executor};
  while (!queues_.empty()) {
    timer.expires_after(interval);
    auto [error] = co_await timer.async_wait(no_throw);
    if (error) break;
    co_await look();
  }
  feed_.reset();
}

// Each line of data is one event.
asio::awaitable<void> send_events(Stream& stream, Listeners& listeners) {
  auto queue = co_await listeners.add();
  http::response<http::empty_body> head{http::status::ok, 11};
  head.set(http::field::content_type, "text/event-stream");
  head.set(http::field::cache_control, "no-store");
  head.chunked(true);
  http::response_serializer<http::empty_body> serializer{head};
  stream.expires_after(answer_time);
  auto [failed, head_size] = co_await http::async_write_header(stream, serializer, no_throw);
  std::string text = ": listening\n\n";
  while (!failed && !queue->overflowed) {
    for (const std::string& line : queue->lines) text += line;
    queue->lines.clear();
    if (!text.empty()) {
      stream.expires_after(answer_time);
      auto chunk = http::make_chunk(asio::buffer(text));
      auto [error, size] = co_await asio::async_write(stream, chunk, no_throw);
      text.clear();
      if (error) break;
      continue;
    }
    stream.expires_never();
    queue->arrived.expires_after(keep_alive_time);
    auto [waited] = co_await queue->arrived.async_wait(no_throw);
    // Cancelled where something has come; where nothing has, the reader is still looked for.
    if (!waited && queue->lines.empty()) text = ": still here\n\n";
    if (waited && queue->lines.empty() && !queue->overflowed) break;  // the server ends
  }
  listeners.remove(queue);
}

}  // namespace caisson::daemon
