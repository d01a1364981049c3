// A machine's console or screen by WebSocket (RFC 6455): its bytes in both directions.
//   Threads  the event loop's; the machine is asked in the pool
#pragma once

#include <optional>

#include <boost/beast/http/message.hpp>
#include <boost/beast/http/string_body.hpp>

#include "daemon/shared.h"
#include "daemon/stream.h"

namespace caisson::daemon {

using Sent = beast::http::request<beast::http::string_body>;

// The connection is this from here on; an answer where it cannot be.
asio::awaitable<std::optional<api::Answer>> serve_socket(Stream& stream, const Sent& request,
                                                         api::Api::Admitted& admitted, Shared& shared);

}  // namespace caisson::daemon
