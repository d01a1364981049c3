// One console of the host for the two that a guest sees: the serial port and the virtio console.
//   Models   output of both, in the order it comes; input for the one that wrote last (the serial port at first)
//   Threads  under the device lock, as char_backend.h says
#pragma once

#include <array>

#include "backend/char_backend.h"

namespace caisson::machine {

class ConsoleSwitch {
 public:
  explicit ConsoleSwitch(CharBackend& console);
  ~ConsoleSwitch();
  ConsoleSwitch(const ConsoleSwitch&) = delete;
  ConsoleSwitch& operator=(const ConsoleSwitch&) = delete;

  [[nodiscard]] CharBackend& serial() { return fronts_[0]; }
  [[nodiscard]] CharBackend& virtio() { return fronts_[1]; }

 private:
  class Front final : public CharBackend {
   public:
    explicit Front(ConsoleSwitch& owner) : owner_(owner) {}
    [[nodiscard]] size_t write(std::span<const uint8_t> bytes) override;
    void set_writable_handler(std::function<void()> handler) override { writable = std::move(handler); }
    void set_receiver(Receiver receiver) override { receive = std::move(receiver); }
    void receive_ready() override { owner_.console_.receive_ready(); }

    std::function<void()> writable;
    Receiver receive;

   private:
    ConsoleSwitch& owner_;
  };

  CharBackend& console_;
  std::array<Front, 2> fronts_{Front{*this}, Front{*this}};
  Front* last_ = fronts_.data();
};

}  // namespace caisson::machine
