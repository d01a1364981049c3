#include "backend/rfb/messages.h"

namespace caisson::rfb {
namespace {

// Message types, 7.5.
enum Type : uint8_t {
  TypeSetPixelFormat = 0,
  TypeSetEncodings = 2,
  TypeUpdateRequest = 3,
  TypeKeyEvent = 4,
  TypePointerEvent = 5,
  TypeCutText = 6,
  TypeSetDesktopSize = 251,
  TypeQemu = 255,
};
constexpr uint8_t qemu_extended_key = 0;

class Reader {
 public:
  explicit Reader(std::span<const uint8_t> bytes) : bytes_(bytes) {}
  [[nodiscard]] bool has(size_t count) const { return bytes_.size() >= count; }
  [[nodiscard]] uint8_t byte(size_t at) const { return bytes_[at]; }
  [[nodiscard]] uint16_t word(size_t at) const { return static_cast<uint16_t>(bytes_[at] << 8 | bytes_[at + 1]); }
  [[nodiscard]] uint32_t dword(size_t at) const { return uint32_t{word(at)} << 16 | word(at + 2); }
  [[nodiscard]] std::span<const uint8_t> bytes() const { return bytes_; }

 private:
  std::span<const uint8_t> bytes_;
};

}  // namespace

Result<std::optional<Parsed>> parse_message(std::span<const uint8_t> bytes) {
  const Reader in(bytes);
  if (!in.has(1)) return std::nullopt;
  switch (in.byte(0)) {
    case TypeSetPixelFormat: {
      if (!in.has(20)) return std::nullopt;
      auto format = PixelFormat::parse(in.bytes().subspan<4, PixelFormat::length>());
      if (!format) return std::unexpected(format.error());
      return Parsed{SetPixelFormat{*format}, 20};
    }
    case TypeSetEncodings: {
      if (!in.has(4)) return std::nullopt;
      const size_t count = in.word(2);
      if (count > SetEncodings::most) return fail("{} encodings", count);
      if (!in.has(4 + 4 * count)) return std::nullopt;
      SetEncodings message;
      for (size_t i = 0; i < count; ++i) message.encodings.push_back(static_cast<int32_t>(in.dword(4 + 4 * i)));
      return Parsed{std::move(message), 4 + 4 * count};
    }
    case TypeUpdateRequest:
      if (!in.has(10)) return std::nullopt;
      return Parsed{UpdateRequest{in.byte(1) != 0, {in.word(2), in.word(4), in.word(6), in.word(8)}}, 10};
    case TypeKeyEvent:
      if (!in.has(8)) return std::nullopt;
      return Parsed{KeyEvent{in.byte(1) != 0, in.dword(4), 0}, 8};
    case TypePointerEvent:
      if (!in.has(6)) return std::nullopt;
      return Parsed{PointerEvent{in.byte(1), in.word(2), in.word(4)}, 6};
    case TypeCutText: {
      if (!in.has(8)) return std::nullopt;
      const uint32_t length = in.dword(4);
      if (length > CutText::most) return fail("a text of {} bytes to paste", length);
      return Parsed{CutText{length}, 8};
    }
    case TypeSetDesktopSize: {
      if (!in.has(8)) return std::nullopt;
      const size_t length = 8 + size_t{16} * in.byte(6);
      if (!in.has(length)) return std::nullopt;
      return Parsed{SetDesktopSize{in.word(2), in.word(4)}, length};
    }
    case TypeQemu:
      if (!in.has(2)) return std::nullopt;
      if (in.byte(1) != qemu_extended_key) return fail("unknown message 255/{}", in.byte(1));
      if (!in.has(12)) return std::nullopt;
      return Parsed{KeyEvent{in.word(2) != 0, in.dword(4), in.dword(8)}, 12};
    default: return fail("unknown message {}", in.byte(0));
  }
}

}  // namespace caisson::rfb
