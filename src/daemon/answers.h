// How an answer goes out, and how long the parts of a conversation may take.
//   Threads  the event loop's
#pragma once

#include <chrono>
#include <optional>

#include <boost/asio/awaitable.hpp>
#include <boost/beast/core/error.hpp>

#include "api/http.h"
#include "daemon/stream.h"

namespace caisson::daemon {

using namespace std::chrono_literals;

// A connection may rest so long between requests, and take so long for one, and for taking its answer.
inline constexpr auto idle_time = 60s;
inline constexpr auto request_time = 15s;
inline constexpr auto answer_time = 60s;
// A stream that has nothing to say says so, so that one whose reader has gone is noticed.
inline constexpr auto keep_alive_time = 20s;

// What a request that cannot be read is answered with; none: nobody is there to read an answer.
std::optional<api::Answer> answer_to(const beast::error_code& error);

// False: it could not be written.
asio::awaitable<bool> send(Stream& stream, const api::Answer& answer, bool keep_alive);

}  // namespace caisson::daemon
