// How an answer goes out, and how long the parts of a conversation may take.
//   Threads  the event loop's
// Included by connection.cpp and what belongs to it only.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include <boost/beast/core/stream_traits.hpp>
#include <boost/beast/http.hpp>

#include "api/http.h"
#include "daemon/connection.h"

namespace caisson::daemon {

namespace http = beast::http;
using namespace std::chrono_literals;

// A connection may rest so long between requests, and take so long for one, and for taking its answer.
inline constexpr auto idle_time = 60s;
inline constexpr auto request_time = 15s;
inline constexpr auto answer_time = 60s;
// A stream that has nothing to say says so, so that one whose reader has gone is noticed.
inline constexpr auto keep_alive_time = 20s;

template <class Stream>
auto& lowest(Stream& stream) {
  return beast::get_lowest_layer(stream);
}

inline http::response<http::string_body> to_response(const api::Answer& answer, bool keep_alive) {
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

// What a request that cannot be read is answered with; none: nobody is there to read an answer.
inline std::optional<api::Answer> answer_to(const beast::error_code& error) {
  if (error == http::error::header_limit) return api::problem(431, "the header is too large");
  if (error == http::error::body_limit) return api::problem(413, "the body is too large");
  if (error == http::error::end_of_stream || error == http::error::partial_message) return std::nullopt;
  if (error.category() == http::make_error_code(http::error::bad_method).category()) {
    return api::problem(400, "not a request of HTTP/1.1: " + error.message());
  }
  return std::nullopt;
}

template <class Stream>
asio::awaitable<bool> send(Stream& stream, const api::Answer& answer, bool keep_alive) {
  auto response = to_response(answer, keep_alive);
  lowest(stream).expires_after(answer_time);
  auto [error, size] = co_await http::async_write(stream, response, no_throw);
  co_return !error;
}

// One of those that are there at once.
class Place {
 public:
  explicit Place(size_t& count) : count_(count) { ++count_; }
  ~Place() { --count_; }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;

 private:
  size_t& count_;
};

}  // namespace caisson::daemon
