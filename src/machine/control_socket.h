// A socket at which anybody who may connect sends requests to a running machine.
//   Form     SOCK_SEQPACKET, each connection a control::Channel; a request that cannot be read ends its connection
//   Threads  the event loop's
#pragma once

#include <functional>
#include <map>
#include <memory>

#include "base/event_loop.h"
#include "base/fd.h"
#include "control/channel.h"
#include "control/messages.h"

namespace caisson::machine {

class ControlSocket {
 public:
  static constexpr size_t most_clients = 16;
  // Answers one request; may be called later, and does nothing where the client has gone.
  using Reply = std::function<void(const control::Event&)>;
  using Handler = std::function<void(const control::Request&, std::vector<Fd>, Reply)>;

  // `listener`: bound and listening. `loop` outlives this.
  ControlSocket(EventLoop& loop, Fd listener, Handler handler);
  ~ControlSocket();
  ControlSocket(const ControlSocket&) = delete;
  ControlSocket& operator=(const ControlSocket&) = delete;

 private:
  void accept();
  void receive(uint64_t id);
  void drop(uint64_t id);

  EventLoop& loop_;
  Fd listener_;
  Handler handler_;
  std::map<uint64_t, std::unique_ptr<control::Channel>> clients_;
  uint64_t last_id_ = 0;
};

}  // namespace caisson::machine
