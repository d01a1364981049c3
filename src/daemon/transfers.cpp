#include "daemon/transfers.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <boost/beast/core/file_posix.hpp>
#include <boost/beast/http.hpp>

#include "base/write_all.h"
#include "daemon/answers.h"
#include "daemon/pool.h"
#include "store/files.h"

namespace caisson::daemon {

namespace {

constexpr size_t most_uploads = 4;

// The body into a file without a name; an answer where it cannot be, none and no file where nobody is there any more.
struct Received {
  api::File content;
  std::optional<api::Answer> refused;
};
asio::awaitable<Received> receive_file(Stream& stream, beast::flat_buffer& buffer, Head& head, Shared& shared) {
  Received received;
  const auto make = [] { return unnamed_file(); };
  auto fd = co_await in_pool(shared.pool, make);
  if (!fd) {
    received.refused = api::problem(409, fd.error().message);
    co_return received;
  }
  http::request_parser<http::buffer_body> parser{std::move(head)};
  parser.body_limit(api::max_upload);
  std::vector<char> piece(64 * 1024);
  while (!parser.is_done()) {
    auto& body = parser.get().body();
    body.data = piece.data();
    body.size = piece.size();
    stream.expires_after(request_time);
    auto [error, size] = co_await http::async_read(stream, buffer, parser, no_throw);
    if (error && error != http::error::need_buffer) {
      received.refused = answer_to(error);
      co_return received;
    }
    const std::string_view bytes{piece.data(), piece.size() - body.size};
    const auto keep = [&fd, bytes] { return write_all(fd->get(), bytes); };
    const int failed = co_await in_pool(shared.pool, keep);
    if (failed != 0) {
      received.refused = api::problem(409, fail_errno(failed, "cannot keep what was sent").error().message);
      co_return received;
    }
    received.content.size += bytes.size();
  }
  received.content.fd = std::move(*fd);
  co_return received;
}

}  // namespace

asio::awaitable<bool> send_file(Stream& stream, const api::Route& route, api::File file, bool keep_alive) {
  http::response<http::file_body> response{static_cast<http::status>(route.status), 11};
  response.set(http::field::content_type, beast::string_view{route.type.data(), route.type.size()});
  response.set(http::field::cache_control, "no-store");
  response.set("X-Content-Type-Options", "nosniff");
  beast::file_posix content;
  content.native_handle(file.fd.release());
  beast::error_code error;
  content.seek(0, error);
  if (!error) response.body().reset(std::move(content), error);
  if (error) {
    const api::Answer answer = api::problem(500, error.message());
    const bool written = co_await send(stream, answer, keep_alive);
    co_return written;
  }
  response.keep_alive(keep_alive);
  response.prepare_payload();
  http::response_serializer<http::file_body> serializer{response};
  while (!serializer.is_done()) {
    stream.expires_after(answer_time);
    auto [failed, size] = co_await http::async_write_some(stream, serializer, no_throw);
    if (failed) co_return false;
  }
  co_return true;
}

asio::awaitable<bool> go_on(Stream& stream, const Head& head) {
  if (!beast::iequals(head.get()[http::field::expect], "100-continue")) co_return true;
  http::response<http::empty_body> response{http::status::continue_, 11};
  auto [error, size] = co_await http::async_write(stream, response, no_throw);
  co_return !error;
}

asio::awaitable<void> discard(Stream& stream) {
  std::vector<char> bytes(16 * 1024);
  stream.expires_after(2s);
  for (size_t left = size_t{1} << 20; left > 0;) {
    auto [error, size] = co_await stream.async_read_some(asio::buffer(bytes), no_throw);
    if (error) break;
    left -= std::min(left, size);
  }
}

asio::awaitable<bool> serve_upload(Stream& stream, beast::flat_buffer& buffer, Head& head,
                                   const std::optional<api::Caller>& caller, Shared& shared) {
  const bool keep_alive = head.get().keep_alive();
  api::Request request;
  request.method = std::string{head.get().method_string()};
  request.target = std::string{head.get().target()};
  auto admitted = shared.api.admit(request, caller);
  if (!admitted) {
    // Its body is on its way, and nobody reads it.
    co_await send(stream, admitted.error(), false);
    co_await discard(stream);
    co_return false;
  }
  if (shared.uploads >= most_uploads) {
    const api::Answer answer = api::problem(429, "too many files are being sent; try again later");
    co_await send(stream, answer, false);
    co_await discard(stream);
    co_return false;
  }
  const Place place{shared.uploads};
  const bool wanted = co_await go_on(stream, head);
  if (!wanted) co_return false;
  const auto received = co_await receive_file(stream, buffer, head, shared);
  if (!received.content.fd.valid()) {
    if (received.refused) {
      co_await send(stream, *received.refused, false);
      co_await discard(stream);
    }
    co_return false;
  }
  stream.expires_never();
  const auto work = [&shared, &admitted, &received] { return shared.api.take(*admitted, received.content); };
  const api::Answer answer = co_await in_pool(shared.pool, work);
  const bool written = co_await send(stream, answer, keep_alive);
  co_return written&& keep_alive;
}

bool is_upload(const Head& head) {
  const auto target = api::parse_target(std::string{head.get().target()});
  if (!target) return false;
  const auto found = api::find_route(std::string{head.get().method_string()}, target->path);
  return found.route != nullptr && found.route->kind == api::Kind::Upload;
}

}  // namespace caisson::daemon
