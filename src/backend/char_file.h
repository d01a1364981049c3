// A file that gets what a console device writes; there is no input.
//   Threads  as char_backend.h says. Writes go to the host's page cache and are not waited for longer than that.
//   Errors   what cannot be written (a full disk) is lost, which a warning says once
#pragma once

#include <string>

#include "backend/char_backend.h"
#include "base/fd.h"

namespace caisson {

class CharFile final : public CharBackend {
 public:
  // `fd` is open for writing; `name` is for messages.
  CharFile(Fd fd, std::string name) : fd_(std::move(fd)), name_(std::move(name)) {}

  [[nodiscard]] size_t write(std::span<const uint8_t> bytes) override;
  void set_writable_handler(std::function<void()>) override {}
  void set_receiver(Receiver) override {}
  void receive_ready() override {}

 private:
  const Fd fd_;
  const std::string name_;
  bool failed_ = false;
};

}  // namespace caisson
