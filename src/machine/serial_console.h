// Joins a serial port with the host's side of a console, and listens for the guest kernel's panic message.
//   Threads  under the device lock
#pragma once

#include <functional>
#include <string>

#include "backend/char_backend.h"
#include "devices/chipset/uart.h"

namespace caisson::machine {

// Finds "Kernel panic - not syncing" in what a guest prints. It alone proves nothing (somebody may print a log), so the
// machine only believes it when a reset or stop follows close behind and the kernel did not announce an orderly one.
class PanicScanner {
 public:
  // Called with the panic's line, once for each.
  using Handler = std::function<void(std::string line)>;

  void set_handler(Handler handler) { handler_ = std::move(handler); }
  void scan(std::span<const uint8_t> bytes);
  // A panic message stands among the last few KiB, and nothing after it says that the kernel went on.
  [[nodiscard]] bool crashed() const { return crashed_ && since_ <= reach; }
  void forget();

 private:
  static constexpr uint64_t reach = 16384;
  static constexpr size_t longest_line = 512;
  void end_of_line();

  Handler handler_;
  std::string line_;
  bool crashed_ = false;
  uint64_t since_ = 0;
};

class SerialConsole final : public CharSink {
 public:
  explicit SerialConsole(CharBackend& console) : console_(console) {}
  void connect(Uart& uart);

  size_t write(std::span<const uint8_t> bytes) override;
  [[nodiscard]] PanicScanner& scanner() { return scanner_; }

 private:
  CharBackend& console_;
  PanicScanner scanner_;
};

}  // namespace caisson::machine
