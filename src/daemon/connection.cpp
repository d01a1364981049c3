#include "daemon/connection.h"

#include <string>
#include <utility>

#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>

#include "base/utc.h"
#include "daemon/answers.h"
#include "daemon/pool.h"
#include "daemon/sockets.h"
#include "daemon/transfers.h"

namespace caisson::daemon {

namespace http = beast::http;

namespace {

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
asio::awaitable<std::optional<api::Answer>> serve_stream(Stream& stream, const Sent& request,
                                                         api::Api::Admitted& admitted, Shared& shared) {
  if (shared.streams >= most_streams) co_return api::problem(429, "too many streams are open; close one");
  const Place place{shared.streams};
  if (admitted.route->kind == api::Kind::Events) {
    co_await send_events(stream, shared.listeners);
    co_return std::nullopt;
  }
  auto answer = co_await serve_socket(stream, request, admitted, shared);
  co_return answer;
}

}  // namespace

asio::awaitable<void> serve(Stream stream, Identity identity, Shared& shared) {
  beast::flat_buffer buffer{api::max_header + api::max_body};
  for (;;) {
    Head head;
    head.header_limit(api::max_header);
    head.body_limit(api::max_upload);
    stream.expires_after(idle_time);
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
    stream.expires_after(request_time);
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
      stream.expires_never();
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
      stream.expires_never();
      const auto work = [&shared, &admitted] { return shared.api.answer(*admitted); };
      answer = co_await in_pool(shared.pool, work);
    }
    const bool written = co_await send(stream, *answer, keep_alive);
    if (!written || !keep_alive) break;
  }
  stream.expires_after(5s);
  co_await stream.shut_down();
}

}  // namespace caisson::daemon
