#include "backend/rfb/zlib_stream.h"

#include <array>

#include <zlib.h>

namespace caisson::rfb {
namespace {

constexpr int level = 2;

}  // namespace

struct ZlibStream::Deflate {
  z_stream stream{};
  bool works = ::deflateInit(&stream, level) == Z_OK;
  Deflate() = default;
  ~Deflate() {
    if (works) ::deflateEnd(&stream);
  }
  Deflate(const Deflate&) = delete;
  Deflate& operator=(const Deflate&) = delete;
};

ZlibStream::ZlibStream() = default;
ZlibStream::~ZlibStream() = default;

bool ZlibStream::append(std::span<const uint8_t> plain, std::vector<uint8_t>& out) {
  if (!deflate_) deflate_ = std::make_unique<Deflate>();
  if (!deflate_->works) return false;
  z_stream& stream = deflate_->stream;
  stream.next_in = const_cast<uint8_t*>(plain.data());  // which it does not write to
  stream.avail_in = static_cast<uInt>(plain.size());
  std::array<uint8_t, 16384> piece;
  do {
    stream.next_out = piece.data();
    stream.avail_out = static_cast<uInt>(piece.size());
    if (::deflate(&stream, Z_SYNC_FLUSH) == Z_STREAM_ERROR) {
      ::deflateEnd(&stream);
      return deflate_->works = false;
    }
    out.insert(out.end(), piece.begin(), piece.end() - static_cast<ptrdiff_t>(stream.avail_out));
  } while (stream.avail_out == 0);
  return true;
}

}  // namespace caisson::rfb
