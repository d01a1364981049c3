// The viewers of a machine's screen (VNC): a listening socket, and a session for each who connects.
//   Rights   on a unix socket the user that the machine belongs to, and root (SO_PEERCRED); on a TCP socket who knows
//            the password, which there must be
//   Bounds   so many viewers; of each a picture's worth of output; after some wrong passwords nobody is heard for a
//   while Threads  a thread of its own, so that neither drawing nor compressing keeps the machine waiting; it sleeps
//   while
//            nobody is connected. create() and the destructor: any one thread, without the device lock.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "backend/rfb/session.h"
#include "base/fd.h"
#include "base/result.h"

namespace caisson::rfb {

// The machine, to viewers. Called on the server's thread.
class Machine : public Hands {
 public:
  // Grows when the picture may have changed.
  [[nodiscard]] virtual uint64_t changes() = 0;
  // With the guest's pointer, or without it where cursor() has it.
  [[nodiscard]] virtual Frame draw(bool pointer) = 0;
  // What viewers are to draw where they point; empty where they are not.
  [[nodiscard]] virtual Cursor cursor() = 0;
};

class Server {
 public:
  static constexpr size_t most_viewers = 8;

  // `listener`: a bound stream socket. `machine` outlives the server.
  [[nodiscard]] static Result<std::unique_ptr<Server>> create(Fd listener, SessionOptions options, Machine& machine);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  [[nodiscard]] unsigned viewers() const;  // connected now; any thread

 private:
  struct Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace caisson::rfb
