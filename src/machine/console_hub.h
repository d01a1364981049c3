// The host's side of a machine's console: its first console (whoever started the machine), those that attach later, and
// the log.
//   Output   to all. The first console holds the guest back when its reader is slow; those that attach later do not:
//            what they have no room for is lost to them.
//   Input    from all, as it comes
//   Threads  under the device lock, as char_backend.h says
#pragma once

#include <list>
#include <memory>

#include "backend/console_socket.h"
#include "machine/console_log.h"

namespace caisson::machine {

class ConsoleHub final : public CharBackend {
 public:
  ConsoleHub(EventLoop& loop, std::unique_ptr<ConsoleSocket> first, std::unique_ptr<ConsoleLog> log);

  [[nodiscard]] size_t write(std::span<const uint8_t> bytes) override;
  void set_writable_handler(std::function<void()> handler) override;
  void set_receiver(Receiver receiver) override;
  void receive_ready() override;

  // Gives the attached one's end. `replay`: so much of the log comes first, at most.
  [[nodiscard]] Result<Fd> attach(size_t replay);
  [[nodiscard]] uint32_t attached();
  // As ConsoleSocket::drain, for all.
  void drain(uint64_t deadline_ns);

 private:
  static constexpr size_t most_attached = 32;
  void forget_gone();

  EventLoop& loop_;
  std::unique_ptr<ConsoleSocket> first_;
  std::unique_ptr<ConsoleLog> log_;  // may be null
  struct Other {
    uint64_t id;  // never used again
    std::unique_ptr<ConsoleSocket> socket;
  };
  std::list<Other> others_;
  uint64_t last_id_ = 0;
  Receiver receiver_;
};

}  // namespace caisson::machine
