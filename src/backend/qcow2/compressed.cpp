#include "backend/qcow2/compressed.h"

#include <cerrno>

#include <zlib.h>
#include <zstd.h>

namespace caisson::qcow2 {
namespace {

int inflate_all(std::span<const uint8_t> from, std::span<uint8_t> to) {
  z_stream stream{};
  if (::inflateInit2(&stream, -15) != Z_OK) return ENOMEM;
  stream.next_in = const_cast<uint8_t*>(from.data());
  stream.avail_in = static_cast<unsigned>(from.size());
  stream.next_out = to.data();
  stream.avail_out = static_cast<unsigned>(to.size());
  const int result = ::inflate(&stream, Z_FINISH);
  const bool good = (result == Z_STREAM_END || result == Z_BUF_ERROR) && stream.avail_out == 0;
  ::inflateEnd(&stream);
  return good ? 0 : EIO;
}

int zstd_all(std::span<const uint8_t> from, std::span<uint8_t> to) {
  constexpr int most_window_bits = 23;
  ZSTD_DStream* const stream = ::ZSTD_createDStream();
  if (stream == nullptr) return ENOMEM;
  ::ZSTD_DCtx_setParameter(stream, ZSTD_d_windowLogMax, most_window_bits);
  ZSTD_inBuffer in{from.data(), from.size(), 0};
  ZSTD_outBuffer out{to.data(), to.size(), 0};
  int error = 0;
  while (out.pos < out.size && error == 0) {
    const size_t in_before = in.pos, out_before = out.pos;
    const size_t result = ::ZSTD_decompressStream(stream, &out, &in);
    // 0: the frame is at its end, and what follows it is of no concern.
    const bool stuck = in.pos == in_before && out.pos == out_before;
    if (::ZSTD_isError(result) != 0 || (out.pos < out.size && (result == 0 || stuck))) error = EIO;
  }
  ::ZSTD_freeDStream(stream);
  return error;
}

}  // namespace

int decompress(Compression compression, std::span<const uint8_t> from, std::span<uint8_t> to) {
  return compression == Compression::Zlib ? inflate_all(from, to) : zstd_all(from, to);
}

}  // namespace caisson::qcow2
