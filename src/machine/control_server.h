// Those who ask a running machine over its control socket: every request is answered in turn, and who watches is told
// the events.
//   Rights   the user that the machine belongs to, and root (SO_PEERCRED); others are cut off unheard
//   Bounds   so many clients at once; one that does not read its answers is cut off
//   Threads  made and destroyed under the device lock; requests come on the event loop under it; tell() from any thread
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <mutex>

#include "base/event_loop.h"
#include "control/channel.h"
#include "control/messages.h"

namespace caisson::machine {

class ControlServer {
 public:
  // An answer, and the descriptor that goes with it.
  struct Answer {
    control::Event event;
    Fd fd{};
  };
  using Handler = std::function<Answer(const control::Request&)>;

  // `listener`: a bound SOCK_SEQPACKET socket, on which nobody listens yet.
  [[nodiscard]] static Result<std::unique_ptr<ControlServer>> create(EventLoop& loop, Fd listener, Handler handler);
  ~ControlServer();
  ControlServer(const ControlServer&) = delete;
  ControlServer& operator=(const ControlServer&) = delete;

  void tell(std::string_view event);

 private:
  static constexpr size_t most_clients = 128;
  struct Client {
    control::Channel channel;
    bool watches = false;
  };

  ControlServer(EventLoop& loop, Fd listener, Handler handler)
      : loop_(loop), listener_(std::move(listener)), handler_(std::move(handler)) {}
  void accept();
  void serve(Client* client);
  void drop(Client* client);

  EventLoop& loop_;
  Fd listener_;
  Handler handler_;
  std::mutex lock_;  // of the list and of what is sent
  std::list<Client> clients_;
};

}  // namespace caisson::machine
