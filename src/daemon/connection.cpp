#include "daemon/connection.h"

#include <array>

#include <fmt/core.h>
#include <sys/socket.h>
#include <boost/asio/buffer.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/websocket.hpp>
#include <boost/beast/websocket/ssl.hpp>

#include "base/utc.h"
#include "daemon/transfers.h"
#include "life/machines.h"
#include "life/vm_client.h"
#include "life/vnc_socket.h"

namespace caisson::daemon {
namespace {

namespace websocket = beast::websocket;

using Sent = http::request<http::string_body>;

// Server-sent events (HTML, 9.2), each line of data one event.
template <class Stream>
asio::awaitable<void> send_events(Stream& stream, Shared& shared) {
  auto queue = co_await shared.listeners.add();
  http::response<http::empty_body> head{http::status::ok, 11};
  head.set(http::field::content_type, "text/event-stream");
  head.set(http::field::cache_control, "no-store");
  head.chunked(true);
  http::response_serializer<http::empty_body> serializer{head};
  lowest(stream).expires_after(answer_time);
  auto [failed, head_size] = co_await http::async_write_header(stream, serializer, no_throw);
  std::string text = ": listening\n\n";
  while (!failed && !queue->overflowed) {
    for (const std::string& line : queue->lines) text += line;
    queue->lines.clear();
    if (!text.empty()) {
      lowest(stream).expires_after(answer_time);
      auto chunk = http::make_chunk(asio::buffer(text));
      auto [error, size] = co_await asio::async_write(stream, chunk, no_throw);
      text.clear();
      if (error) break;
      continue;
    }
    lowest(stream).expires_never();
    queue->arrived.expires_after(keep_alive_time);
    auto [waited] = co_await queue->arrived.async_wait(no_throw);
    // Cancelled where something has come; where nothing has, the reader is still looked for.
    if (!waited && queue->lines.empty()) text = ": still here\n\n";
    if (waited && queue->lines.empty() && !queue->overflowed) break;  // the server ends
  }
  shared.listeners.remove(queue);
}

// One end of a machine's console or screen.
struct End {
  Fd socket;
  std::string error;
};

End attach(const std::string& name, uint32_t replay) {
  auto folder = life::find(name);
  if (!folder) return {Fd{}, folder.error().message};
  auto client = life::VmClient::connect(*folder);
  if (!client) return {Fd{}, client.error().message};
  auto attached = client->ask(control::Attach{replay});
  if (!attached) return {Fd{}, attached.error().message};
  if (!attached->fd.valid()) return {Fd{}, fmt::format("machine {} has given no console", name)};
  return {std::move(attached->fd), ""};
}

End look_at(const std::string& name) {
  auto folder = life::find(name);
  if (!folder) return {Fd{}, folder.error().message};
  const auto spec = folder->spec();
  if (!spec) return {Fd{}, spec.error().message};
  if (!folder->alive()) return {Fd{}, fmt::format("machine {} is not running", name)};
  if (spec->vnc.empty())
    return {Fd{}, fmt::format("machine {} shows its screen to no viewer; change vnc, and start it again", name)};
  auto socket = life::connect_vnc(*folder, *spec);
  if (!socket) return {Fd{}, socket.error().message};
  return {std::move(*socket), ""};
}

// Of whatever family: a console's is a unix socket, a screen's may be one of the loopback.
using MachineSocket = asio::generic::stream_protocol::socket;

// From the machine to who looks.
template <class Socket>
asio::awaitable<void> copy_out(Socket& socket, MachineSocket& machine) {
  std::array<char, 16 * 1024> bytes;
  for (;;) {
    auto [error, size] = co_await machine.async_read_some(asio::buffer(bytes), no_throw);
    if (error) break;
    auto [failed, sent] = co_await socket.async_write(asio::buffer(bytes.data(), size), no_throw);
    if (failed) break;
  }
  // The machine has ended, or nobody looks any more: the other direction notices.
  co_await socket.async_close(websocket::close_code::normal, no_throw);
}

// A WebSocket (RFC 6455) whose messages are the machine's bytes, in both directions; where they are cut means nothing.
template <class Stream>
asio::awaitable<void> serve_socket(Stream& stream, const Sent& request, MachineSocket machine, bool may_write) {
  lowest(stream).expires_never();
  websocket::stream<Stream&> socket{stream};
  auto timeouts = websocket::stream_base::timeout::suggested(beast::role_type::server);
  timeouts.keep_alive_pings = true;
  socket.set_option(timeouts);
  socket.read_message_max(api::max_body);
  socket.binary(true);
  // Older viewers in browsers ask for this one, and go without it.
  if (http::token_list{request[http::field::sec_websocket_protocol]}.exists("binary")) {
    socket.set_option(websocket::stream_base::decorator(
        [](websocket::response_type& response) { response.set(http::field::sec_websocket_protocol, "binary"); }));
  }
  auto [error] = co_await socket.async_accept(request, no_throw);
  if (error) co_return;
  bool out_ended = false;
  asio::steady_timer out_end{co_await asio::this_coro::executor, asio::steady_timer::time_point::max()};
  asio::co_spawn(co_await asio::this_coro::executor, copy_out(socket, machine), [&](const std::exception_ptr&) {
    out_ended = true;
    out_end.cancel();
  });
  beast::flat_buffer buffer;
  for (;;) {
    auto [failed, size] = co_await socket.async_read(buffer, no_throw);
    if (failed) break;
    if (!may_write) break;
    auto [lost, written] = co_await asio::async_write(machine, buffer.data(), no_throw);
    if (lost) break;
    buffer.clear();
  }
  beast::error_code ignored;
  machine.shutdown(MachineSocket::shutdown_both, ignored);
  machine.cancel(ignored);
  while (!out_ended) {
    lowest(stream).expires_after(5s);
    co_await out_end.async_wait(no_throw);
  }
}

// Who sends this request; an Answer where its token is refused.
std::expected<std::optional<api::Caller>, api::Answer> caller_of(const http::fields& request, const Identity& identity,
                                                                 Shared& shared) {
  const auto given = request.find(http::field::authorization);
  if (!identity.by_token || given == request.end()) return identity.caller;
  const auto value = given->value();
  constexpr std::string_view scheme = "bearer ";
  if (value.size() <= scheme.size() ||
      !beast::iequals(value.substr(0, scheme.size()), beast::string_view{scheme.data(), scheme.size()})) {
    return std::unexpected(api::problem(401, "send Authorization: Bearer TOKEN"));
  }
  auto caller = shared.tokens.check({value.data() + scheme.size(), value.size() - scheme.size()}, utc_ms());
  if (caller) return *caller;
  shared.api.audit().write({.operation = "token", .status = 401, .result = caller.error().message});
  return std::unexpected(api::problem(401, "the token is wrong or has expired"));
}

constexpr size_t most_streams = 64;

// Events, a console or a screen: the connection is this from here on. An answer where it cannot be.
template <class Stream>
asio::awaitable<std::optional<api::Answer>> serve_stream(Stream& stream, const Sent& request,
                                                         api::Api::Admitted& admitted, Shared& shared) {
  if (shared.streams >= most_streams) co_return api::problem(429, "too many streams are open; close one");
  const Place place{shared.streams};
  if (admitted.route->kind == api::Kind::Events) {
    co_await send_events(stream, shared);
    co_return std::nullopt;
  }
  if (!websocket::is_upgrade(request)) {
    co_return api::problem(426, "this is reached by WebSocket");
  }
  const std::string name = admitted.call.word("name");
  const std::string* const replay = admitted.call.parameter("replay");
  const uint32_t bytes = replay != nullptr ? static_cast<uint32_t>(std::stoul(*replay)) : 2048;
  const auto find = [&name] { return life::find(name).has_value(); };
  const bool found = co_await in_pool(shared.pool, find);
  if (!found) co_return api::problem(404, fmt::format("there is no machine {}", name));
  const bool screen = admitted.route->kind == api::Kind::Screen;
  const auto connect = [&name, bytes, screen] { return screen ? look_at(name) : attach(name, bytes); };
  auto end = co_await in_pool(shared.pool, connect);
  const bool may_write = admitted.call.caller.role >= api::Role::Operator;
  shared.api.audit().write({admitted.call.caller.name, api::name_of(admitted.call.caller.role), admitted.route->id,
                            name, end.error.empty() ? 101u : 409u,
                            end.error.empty() ? std::string_view{"ok"} : end.error});
  if (!end.error.empty()) co_return api::problem(409, end.error);
  int family = AF_UNIX;
  socklen_t size = sizeof family;
  (void)::getsockopt(end.socket.get(), SOL_SOCKET, SO_DOMAIN, &family, &size);
  MachineSocket socket{co_await asio::this_coro::executor, asio::generic::stream_protocol{family, 0},
                       end.socket.release()};
  co_await serve_socket(stream, request, std::move(socket), may_write);
  co_return std::nullopt;
}

}  // namespace

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

template <class Stream>
asio::awaitable<void> serve(Stream stream, Identity identity, Shared& shared) {
  beast::flat_buffer buffer{api::max_header + api::max_body};
  for (;;) {
    Head head;
    head.header_limit(api::max_header);
    head.body_limit(api::max_upload);
    lowest(stream).expires_after(idle_time);
    auto [error, header_size] = co_await http::async_read_header(stream, buffer, head, no_throw);
    if (error) {
      if (auto answer = answer_to(error)) co_await send(stream, *answer, false);
      break;
    }
    auto caller = caller_of(head.get(), identity, shared);
    const bool upload = is_upload(head);
    if (caller && upload) {
      const bool more = co_await serve_upload(stream, buffer, head, *caller, shared);
      if (!more) break;
      continue;
    }
    if (upload || head.content_length().value_or(0) > api::max_body) {
      const api::Answer answer = caller ? api::problem(413, "the body is too large") : caller.error();
      co_await send(stream, answer, false);
      co_await discard(stream);
      break;
    }
    lowest(stream).expires_after(request_time);
    if (!head.is_done()) {
      const bool wanted = co_await go_on(stream, head);
      if (!wanted) break;
    }
    http::request_parser<http::string_body> parser{std::move(head)};
    parser.body_limit(api::max_body);
    if (!parser.is_done()) {
      auto [body_error, body_size] = co_await http::async_read(stream, buffer, parser, no_throw);
      if (body_error) {
        if (auto answer = answer_to(body_error)) co_await send(stream, *answer, false);
        break;
      }
    }
    const Sent sent = parser.release();
    const bool keep_alive = sent.keep_alive();
    if (!caller) {
      const bool written = co_await send(stream, caller.error(), keep_alive);
      if (!written || !keep_alive) break;
      continue;
    }
    api::Request request;
    request.method = std::string{sent.method_string()};
    request.target = std::string{sent.target()};
    request.content_type = std::string{sent[http::field::content_type]};
    request.body = sent.body();
    auto admitted = shared.api.admit(request, *caller);
    std::optional<api::Answer> answer;
    if (!admitted) {
      answer = std::move(admitted.error());
    } else if (admitted->route->kind == api::Kind::Download) {
      lowest(stream).expires_never();
      const auto work = [&shared, &admitted] { return shared.api.fetch(*admitted); };
      auto file = co_await in_pool(shared.pool, work);
      if (file) {
        const bool written = co_await send_file(stream, *admitted->route, std::move(*file), keep_alive);
        if (!written || !keep_alive) break;
        continue;
      }
      answer = std::move(file.error());
    } else if (admitted->route->kind != api::Kind::Answer) {
      answer = co_await serve_stream(stream, sent, *admitted, shared);
      if (!answer) break;
    } else {
      lowest(stream).expires_never();
      const auto work = [&shared, &admitted] { return shared.api.answer(*admitted); };
      answer = co_await in_pool(shared.pool, work);
    }
    const bool written = co_await send(stream, *answer, keep_alive);
    if (!written || !keep_alive) break;
  }
  lowest(stream).expires_after(5s);
  beast::error_code ignored;
  if constexpr (std::is_same_v<Stream, TlsStream>) {
    co_await stream.async_shutdown(no_throw);
  } else {
    stream.socket().shutdown(asio::socket_base::shutdown_send, ignored);
  }
}

template asio::awaitable<void> serve(UnixStream, Identity, Shared&);
template asio::awaitable<void> serve(TlsStream, Identity, Shared&);

}  // namespace caisson::daemon
