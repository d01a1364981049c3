// One connection, from its first request to its last: plain answers, files, a stream of events, a console or a screen.
//   Threads  the event loop's; what may wait goes to the pool
#pragma once

#include <optional>

#include "daemon/shared.h"
#include "daemon/stream.h"

namespace caisson::daemon {

// Whoever is at the other end.
struct Identity {
  std::optional<api::Caller> caller;  // by the connection itself
  bool by_token = false;              // requests may bring a token
};

asio::awaitable<void> serve(Stream stream, Identity identity, Shared& shared);

}  // namespace caisson::daemon
