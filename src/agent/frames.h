// What is said between the command line and the agent in a guest: frames on a byte stream through the machine's socket
// device.
//   Form     eight bytes: the payload's length as four, little-endian, the type as one, three of zero; then the payload
//   Order    the agent says Hello; the host asks once, by Execute, Put, Get, PowerOff or SetClock; the agent's last
//   frame
//            is Exit or Failed. A stream that ends before means that its other end has gone.
//   Checks   each side takes the other for hostile: what is too long, unknown or malformed is an error
//   Threads  one object, one thread
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace caisson::agent {

constexpr uint32_t port = 1024;  // where the agent listens
constexpr uint32_t version = 1;

enum class Type : uint8_t {
  // Host to agent, the one request
  Execute = 1,  // Execution
  Put,          // Place; then a tree (tree.h)
  Get,          // Place; answered by a tree
  PowerOff,
  SetClock,  // Number: CLOCK_REALTIME in nanoseconds
  // Host to agent, while a command runs
  Input = 16,  // bytes for its standard input
  InputEnd,
  Resize,  // Window
  // Agent to host
  Hello = 32,  // Number: the version
  Output,      // bytes of standard output, or of the terminal
  Errors,      // bytes of standard error
  Exit,        // Number: the command's exit status, 128 + n after signal n; 0 for the other requests
  Failed,      // text: one line, what and why
  // A tree, either way: tree.h
  Total = 64,  // Number: bytes in its files
  Entry,       // tree.h
  Data,
  Leave,
  TreeEnd,
};

struct Frame {
  Type type{};
  std::string payload;
};

constexpr size_t max_payload = 64 * 1024;

[[nodiscard]] std::string encode(Type type, std::string_view payload);

// Cuts what is read into frames.
class FrameReader {
 public:
  void feed(std::string_view bytes) { bytes_ += bytes; }
  // The next whole frame, none: more is needed; an error: it is not one.
  [[nodiscard]] Result<std::optional<Frame>> next();

 private:
  std::string bytes_;
  size_t start_ = 0;
};

// A stream socket that waits.
class Stream {
 public:
  explicit Stream(int socket) : socket_(socket) {}
  [[nodiscard]] Result<> send(Type type, std::string_view payload = {});
  // Frames that go in many pieces.
  [[nodiscard]] Result<> send_encoded(std::string_view bytes);
  // The next frame; none: the other end has gone.
  [[nodiscard]] Result<std::optional<Frame>> receive();
  // For who goes on reading the socket itself: it may hold what came after the last frame.
  [[nodiscard]] FrameReader& reader() { return reader_; }

 private:
  int socket_;  // not its own
  FrameReader reader_;
};

// --- Payloads ---

// Numbers of four or eight bytes, and strings with their length before them.
class Packer {
 public:
  Packer& number(uint64_t value);
  Packer& text(std::string_view value);
  [[nodiscard]] std::string take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

class Unpacker {
 public:
  explicit Unpacker(std::string_view bytes) : bytes_(bytes) {}
  // Zero or empty after what is not there; then ok() is false.
  [[nodiscard]] uint64_t number();
  [[nodiscard]] std::string text();
  // Everything was there, and nothing is left.
  [[nodiscard]] bool done() const { return ok_ && bytes_.empty(); }
  [[nodiscard]] bool ok() const { return ok_; }

 private:
  std::string_view bytes_;
  bool ok_ = true;
};

struct Window {
  uint16_t columns = 80, rows = 25;
  bool operator==(const Window&) const = default;
};

struct Execution {
  static constexpr size_t max_words = 1024;
  bool terminal = false;
  Window window;
  std::string directory;                 // empty: the user's home
  std::vector<std::string> environment;  // NAME=value, beside the usual
  std::vector<std::string> words;        // at least one
  bool operator==(const Execution&) const = default;
};

// Where a tree goes to or comes from.
struct Place {
  std::string path;      // relative to root's home
  bool folders = false;  // may be a folder
  bool operator==(const Place&) const = default;
};

[[nodiscard]] std::string pack(uint64_t number);
[[nodiscard]] std::string pack(const Window& window);
[[nodiscard]] std::string pack(const Execution& execution);
[[nodiscard]] std::string pack(const Place& place);
[[nodiscard]] Result<uint64_t> unpack_number(std::string_view payload);
[[nodiscard]] Result<Window> unpack_window(std::string_view payload);
[[nodiscard]] Result<Execution> unpack_execution(std::string_view payload);
[[nodiscard]] Result<Place> unpack_place(std::string_view payload);

// Text from the other side, fit for one line.
[[nodiscard]] std::string plain(std::string_view text);

}  // namespace caisson::agent
