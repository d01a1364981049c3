// Those who ask a running machine over its control sockets: every request is answered, at once or later, and who
// watches is told the events.
//   Rights   the user that the machine belongs to, and root (SO_PEERCRED); others are cut off unheard
//   Bounds   so many clients at once; one that does not read its answers is cut off, and so is one that asks again
//            before it was answered
//   Threads  made and destroyed under the device lock; requests come on the event loop under it, answers are given
//            there, too; tell() from any thread
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <vector>

#include "base/event_loop.h"
#include "control/channel.h"
#include "control/messages.h"

namespace caisson::machine {

class ControlServer {
 public:
  // Answers one request, with a descriptor where one goes with it. May be called later, once; does nothing where the
  // client has gone, or the server.
  using Reply = std::function<void(const control::Event&, Fd)>;
  // `fds`: what came with the request.
  using Handler = std::function<void(const control::Request&, const std::vector<Fd>& fds, Reply)>;

  static constexpr size_t most_clients = 128;

  ControlServer(EventLoop& loop, Handler handler);
  ~ControlServer();
  ControlServer(const ControlServer&) = delete;
  ControlServer& operator=(const ControlServer&) = delete;

  // `listener`: a bound SOCK_SEQPACKET socket.
  [[nodiscard]] Result<> listen(Fd listener);

  // An event, to those who watch.
  void tell(std::string_view event);

 private:
  struct Client {
    uint64_t id;
    control::Channel channel;
    bool watches = false;
    bool waits = false;  // for an answer
  };

  void accept(int listener);
  void serve(uint64_t id);
  void drop(uint64_t id);
  void answer(uint64_t id, const control::Event& event, const Fd& fd, bool watches = false);
  [[nodiscard]] Client* find(uint64_t id);

  EventLoop& loop_;
  std::vector<Fd> listeners_;
  Handler handler_;
  std::mutex lock_;  // of the list, for those who change it or are not on the event loop; and of what is sent
  std::list<Client> clients_;
  uint64_t last_id_ = 0;
  std::shared_ptr<ControlServer*> self_;  // what replies that come too late look at
};

}  // namespace caisson::machine
