#include "machine/serial_console.h"

#include <string_view>

namespace caisson::machine {

void PanicScanner::scan(std::span<const uint8_t> bytes) {
  for (const uint8_t byte : bytes) {
    ++since_;
    if (byte == '\n') {
      end_of_line();
    } else if (line_.size() < longest_line) {
      line_.push_back(static_cast<char>(byte));
    }
  }
}

void PanicScanner::end_of_line() {
  constexpr std::string_view panic = "Kernel panic - not syncing", orderly = "reboot: ";
  if (const size_t at = line_.find(panic); at != std::string::npos) {
    const bool ends = line_.find("---[ end") != std::string::npos;
    if (!ends) {
      crashed_ = true;
      since_ = 0;
      std::string text = line_.substr(at);
      while (!text.empty() && static_cast<unsigned char>(text.back()) < ' ') text.pop_back();
      if (handler_) handler_(std::move(text));
    }
  } else if (line_.find(orderly) != std::string::npos) {
    crashed_ = false;
  }
  line_.clear();
}

void PanicScanner::forget() {
  line_.clear();
  crashed_ = false;
  since_ = 0;
}

void SerialConsole::connect(Uart& uart) {
  console_.set_writable_handler([&uart] { uart.transmit_ready(); });
  console_.set_receiver([&uart](std::span<const uint8_t> bytes) { return uart.receive(bytes); });
  uart.on_space([this] { console_.receive_ready(); });
}

size_t SerialConsole::write(std::span<const uint8_t> bytes) {
  const size_t taken = console_.write(bytes);
  scanner_.scan(bytes.first(taken));
  return taken;
}

}  // namespace caisson::machine
