// What a guest printed, kept within bounds: two files, of which the newer takes the bytes; when it is full its content
// becomes the older one's.
//   Reader   the older file, then the newer; one that follows a file that has become shorter goes on in the older one
//            where it was, then at the newer one's start
//   Threads  under the device lock; the timer on the event loop likewise
#pragma once

#include <memory>
#include <span>
#include <string>

#include "base/event_loop.h"
#include "base/fd.h"

namespace caisson::machine {

class ConsoleLog {
 public:
  // `newer`, `older`: regular files open for reading and writing. What `newer` holds stays.
  ConsoleLog(EventLoop& loop, Fd newer, Fd older, uint64_t most);
  ~ConsoleLog();

  // Gathered; in the file within a tenth of a second.
  void write(std::span<const uint8_t> bytes);
  void flush();
  // At most `most` of the last bytes.
  [[nodiscard]] std::string last(size_t most);

 private:
  void turn_over();

  Fd newer_;
  Fd older_;
  const uint64_t most_;
  uint64_t size_ = 0;  // of the newer
  std::string pending_;
  std::unique_ptr<EventLoop::Timer> soon_;
  bool warned_ = false;
};

}  // namespace caisson::machine
