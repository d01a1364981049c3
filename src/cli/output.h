// Where the console's bytes go: standard output, without ever blocking this process and without losing a byte while
// somebody reads.
//   Bounded  holds at most `capacity` bytes; room() says when more may come, which is the backpressure
//   Threads  one object, one thread
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "base/fd.h"

namespace caisson::cli {

class Output {
 public:
  static constexpr size_t capacity = 256 * 1024;

  // `fd` stays the caller's and keeps its flags: they are shared with the shell and others.
  explicit Output(int fd);

  [[nodiscard]] size_t room() const { return capacity - (pending_.size() - start_); }
  [[nodiscard]] bool empty() const { return pending_.size() == start_; }
  [[nodiscard]] bool broken() const { return broken_; }  // the reader is gone; bytes are discarded
  // To poll for POLLOUT while not empty().
  [[nodiscard]] int fd() const { return fd_; }

  void put(std::string_view bytes);  // at most room()
  void flush();                      // writes what can be written now
  // The last byte taken by flush() or waiting was a line's end (or nothing was ever put).
  [[nodiscard]] bool at_line_start() const { return last_ == '\n'; }

 private:
  [[nodiscard]] ssize_t write_some(std::string_view bytes);

  enum class Kind { NonBlocking, Socket, File, Blocking };
  Fd own_;  // a description of our own, where one can be had, so that O_NONBLOCK is ours alone
  int fd_;
  Kind kind_ = Kind::Blocking;
  std::string pending_;
  size_t start_ = 0;
  bool broken_ = false;
  char last_ = '\n';
};

}  // namespace caisson::cli
