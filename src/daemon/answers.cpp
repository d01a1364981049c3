#include "daemon/answers.h"

#include <boost/beast/http.hpp>

namespace caisson::daemon {

namespace http = beast::http;

namespace {

http::response<http::string_body> to_response(const api::Answer& answer, bool keep_alive) {
  http::response<http::string_body> response{static_cast<http::status>(answer.status), 11};
  if (!answer.type.empty()) response.set(http::field::content_type, answer.type);
  response.set(http::field::cache_control, "no-store");
  response.set("X-Content-Type-Options", "nosniff");
  for (const auto& [name, value] : answer.headers) response.set(name, value);
  if (answer.status == 401) response.set(http::field::www_authenticate, "Bearer realm=\"caisson\"");
  response.body() = answer.body;
  response.keep_alive(keep_alive);
  response.prepare_payload();
  return response;
}

}  // namespace

std::optional<api::Answer> answer_to(const beast::error_code& error) {
  if (error == http::error::header_limit) return api::problem(431, "the header is too large");
  if (error == http::error::body_limit) return api::problem(413, "the body is too large");
  if (error == http::error::end_of_stream || error == http::error::partial_message) return std::nullopt;
  if (error.category() == http::make_error_code(http::error::bad_method).category()) {
    return api::problem(400, "not a request of HTTP/1.1: " + error.message());
  }
  return std::nullopt;
}

asio::awaitable<bool> send(Stream& stream, const api::Answer& answer, bool keep_alive) {
  auto response = to_response(answer, keep_alive);
  stream.expires_after(answer_time);
  auto [error, size] = co_await http::async_write(stream, response, no_throw);
  co_return !error;
}

}  // namespace caisson::daemon
