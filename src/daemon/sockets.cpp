#include "daemon/sockets.h"

#include <array>
#include <string>
#include <utility>

#include <fmt/core.h>
#include <sys/socket.h>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/websocket.hpp>

#include "daemon/answers.h"
#include "daemon/pool.h"
#include "life/machines.h"
#include "life/vm_client.h"
#include "life/vnc_socket.h"

namespace caisson::daemon {

namespace http = beast::http;
namespace websocket = beast::websocket;

namespace {

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

// Of who looks.
using Socket = websocket::stream<Stream&>;

// From the machine to who looks.
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
asio::awaitable<void> connect_both(Stream& stream, const Sent& request, MachineSocket machine, bool may_write) {
  stream.expires_never();
  Socket socket{stream};
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
    stream.expires_after(5s);
    co_await out_end.async_wait(no_throw);
  }
}

}  // namespace

asio::awaitable<std::optional<api::Answer>> serve_socket(Stream& stream, const Sent& request,
                                                         api::Api::Admitted& admitted, Shared& shared) {
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
  co_await connect_both(stream, request, std::move(socket), may_write);
  co_return std::nullopt;
}

}  // namespace caisson::daemon
