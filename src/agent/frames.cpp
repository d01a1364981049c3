#include "agent/frames.h"

#include <array>
#include <cerrno>
#include <utility>

#include <sys/socket.h>

namespace caisson::agent {
namespace {

constexpr size_t header_size = 8;

void put32(std::string& to, uint32_t value) {
  for (unsigned i = 0; i < 4; ++i) to += static_cast<char>(value >> (8 * i) & 0xff);
}

std::unexpected<Error> malformed() { return fail("the other end of the agent's connection sent what is no message"); }

}  // namespace

std::string encode(Type type, std::string_view payload) {
  std::string frame;
  frame.reserve(header_size + payload.size());
  put32(frame, static_cast<uint32_t>(payload.size()));
  frame += static_cast<char>(type);
  frame.append(3, '\0');
  frame += payload;
  return frame;
}

Result<std::optional<Frame>> FrameReader::next() {
  const std::string_view rest = std::string_view{bytes_}.substr(start_);
  std::optional<Frame> frame;
  if (rest.size() >= header_size) {
    size_t size = 0;
    for (unsigned i = 0; i < 4; ++i) size |= size_t{static_cast<uint8_t>(rest[i])} << (8 * i);
    if (size > max_payload || rest[5] != 0 || rest[6] != 0 || rest[7] != 0) return malformed();
    if (rest.size() - header_size >= size) {
      frame = Frame{static_cast<Type>(rest[4]), std::string{rest.substr(header_size, size)}};
      start_ += header_size + size;
    }
  }
  if (!frame || start_ > max_payload) {
    bytes_.erase(0, start_);
    start_ = 0;
  }
  return frame;
}

Result<> Stream::send(Type type, std::string_view payload) { return send_encoded(encode(type, payload)); }

Result<> Stream::send_encoded(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t size = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) return fail_errno(errno, "the connection to the other side broke");
    bytes.remove_prefix(static_cast<size_t>(size));
  }
  return {};
}

Result<std::optional<Frame>> Stream::receive() {
  for (;;) {
    auto frame = reader_.next();
    if (!frame || *frame) return frame;
    std::array<char, 64 * 1024> bytes;
    const ssize_t size = ::recv(socket_, bytes.data(), bytes.size(), 0);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0 && errno != ECONNRESET) return fail_errno(errno, "cannot read from the other side");
    if (size <= 0) return std::optional<Frame>{};
    reader_.feed({bytes.data(), static_cast<size_t>(size)});
  }
}

Packer& Packer::number(uint64_t value) {
  put32(bytes_, static_cast<uint32_t>(value));
  put32(bytes_, static_cast<uint32_t>(value >> 32));
  return *this;
}

Packer& Packer::text(std::string_view value) {
  number(value.size());
  bytes_ += value;
  return *this;
}

uint64_t Unpacker::number() {
  if (bytes_.size() < 8) {
    ok_ = false;
    return 0;
  }
  uint64_t value = 0;
  for (unsigned i = 0; i < 8; ++i) value |= uint64_t{static_cast<uint8_t>(bytes_[i])} << (8 * i);
  bytes_.remove_prefix(8);
  return value;
}

std::string Unpacker::text() {
  const uint64_t size = number();
  if (!ok_ || size > bytes_.size()) {
    ok_ = false;
    return {};
  }
  std::string value{bytes_.substr(0, size)};
  bytes_.remove_prefix(size);
  // What becomes an argument or a path must not end early.
  if (value.find('\0') != std::string::npos) ok_ = false;
  return value;
}

std::string pack(uint64_t number) { return Packer{}.number(number).take(); }
std::string pack(const Window& window) { return Packer{}.number(window.columns).number(window.rows).take(); }
std::string pack(const Place& place) { return Packer{}.text(place.path).number(place.folders ? 1 : 0).take(); }
std::string pack(const Execution& execution) {
  Packer packer;
  packer.number(execution.terminal ? 1 : 0).number(execution.window.columns).number(execution.window.rows);
  packer.text(execution.directory);
  for (const auto* list : {&execution.environment, &execution.words}) {
    packer.number(list->size());
    for (const std::string& one : *list) packer.text(one);
  }
  return packer.take();
}

Result<uint64_t> unpack_number(std::string_view payload) {
  Unpacker in{payload};
  const uint64_t value = in.number();
  if (!in.done()) return malformed();
  return value;
}

Result<Window> unpack_window(std::string_view payload) {
  Unpacker in{payload};
  const uint64_t columns = in.number();
  const uint64_t rows = in.number();
  if (!in.done() || columns > UINT16_MAX || rows > UINT16_MAX) return malformed();
  return Window{static_cast<uint16_t>(columns), static_cast<uint16_t>(rows)};
}

Result<Execution> unpack_execution(std::string_view payload) {
  Unpacker in{payload};
  Execution execution;
  execution.terminal = in.number() != 0;
  const uint64_t columns = in.number();
  const uint64_t rows = in.number();
  if (columns > UINT16_MAX || rows > UINT16_MAX) return malformed();
  execution.window = {static_cast<uint16_t>(columns), static_cast<uint16_t>(rows)};
  execution.directory = in.text();
  for (auto* list : {&execution.environment, &execution.words}) {
    const uint64_t count = in.number();
    if (count > Execution::max_words) return malformed();
    for (uint64_t i = 0; i < count && in.ok(); ++i) list->push_back(in.text());
  }
  if (!in.done() || execution.words.empty() || execution.words[0].empty()) return malformed();
  return execution;
}

Result<Place> unpack_place(std::string_view payload) {
  Unpacker in{payload};
  Place place;
  place.path = in.text();
  place.folders = in.number() != 0;
  if (!in.done() || place.path.empty()) return malformed();
  return place;
}

std::string plain(std::string_view text) {
  std::string line{text.substr(0, 1024)};
  for (char& c : line) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  }
  return line;
}

}  // namespace caisson::agent
