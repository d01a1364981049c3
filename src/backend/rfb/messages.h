// What a client says once it is connected.
//   Spec     RFC 6143, 7.5; the community's rfbproto for SetDesktopSize and QEMU's extended key events
//   Bounds   nothing is kept of a message that is not whole; the longest one that is kept is SetEncodings
//   Threads  pure functions
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <variant>
#include <vector>

#include "backend/rfb/frame.h"
#include "backend/rfb/pixel_format.h"
#include "base/result.h"

namespace caisson::rfb {

struct SetPixelFormat {
  PixelFormat format;
  bool operator==(const SetPixelFormat&) const = default;
};
struct SetEncodings {
  static constexpr size_t most = 1024;
  std::vector<int32_t> encodings;  // the client's favourite first
  bool operator==(const SetEncodings&) const = default;
};
struct UpdateRequest {
  bool incremental = false;
  Rect rect;
  bool operator==(const UpdateRequest&) const = default;
};
struct KeyEvent {
  bool down = false;
  uint32_t keysym = 0;
  uint32_t keycode = 0;  // of set 1, bit 7 stands for the prefix 0xe0; 0: only the keysym is known
  bool operator==(const KeyEvent&) const = default;
};
struct PointerEvent {
  uint8_t buttons = 0;
  uint16_t x = 0, y = 0;
  bool operator==(const PointerEvent&) const = default;
};
struct CutText {  // so many bytes follow, which nobody wants
  static constexpr uint32_t most = 1 << 20;
  uint32_t length = 0;
  bool operator==(const CutText&) const = default;
};
struct SetDesktopSize {
  uint16_t width = 0, height = 0;
  bool operator==(const SetDesktopSize&) const = default;
};
using Message =
    std::variant<SetPixelFormat, SetEncodings, UpdateRequest, KeyEvent, PointerEvent, CutText, SetDesktopSize>;

struct Parsed {
  Message message;
  size_t used = 0;  // bytes
};
// The message that the bytes begin with; none: more bytes are needed. An error: the client is to be cut off.
[[nodiscard]] Result<std::optional<Parsed>> parse_message(std::span<const uint8_t> bytes);

}  // namespace caisson::rfb
