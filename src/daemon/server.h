// The server: HTTP/1.1 on a unix socket, and HTTPS on an address where one is given; streams of events; consoles by
// WebSocket.
//   Who      on the unix socket by peer credentials; on HTTPS by a client's certificate or a bearer token. Nobody else
//            gets past 401 and 403.
//   Bounds   connections, header, body, time for each, streams; one that does not read what it gets is cut off
//   Threads  one runs the event loop and all connections; work that may wait is done by a small pool
#pragma once

#include <memory>
#include <string>

#include "api/api.h"
#include "base/fd.h"
#include "daemon/settings.h"
#include "daemon/tokens.h"

namespace caisson::daemon {

class Server {
 public:
  static constexpr size_t most_connections = 256;
  static constexpr unsigned pool_threads = 8;

  Server(api::Api& api, const Settings& settings, const Tokens& tokens);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // A socket of this user, or of all where settings give others roles; what a killed daemon left is replaced. Held
  // against a second daemon by a lock beside it.
  [[nodiscard]] Result<> listen_unix(const std::string& path);
  // By the settings' listen, certificate, key and client_ca.
  [[nodiscard]] Result<> listen_https();
  // Where it listens, with the port that was chosen for 0.
  [[nodiscard]] std::string https_address() const;

  // Until SIGTERM or SIGINT, or stop().
  void run();
  // From any thread.
  void stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace caisson::daemon
