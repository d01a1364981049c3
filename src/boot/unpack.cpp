#include "boot/unpack.h"

#include <algorithm>
#include <memory>

#include <lz4.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

namespace caisson::boot {

namespace {

// First size of the output; it doubles up to the limit. Linux appends the true size (gzip does so by itself), which
// saves the doubling where it is no lie.
size_t first_guess(Bytes packed, uint64_t limit) {
  const uint32_t claimed = packed.size() < 4 ? 0 : read_le<uint32_t>(packed, packed.size() - 4).value_or(0);
  const bool plausible = claimed >= packed.size() / 2 && claimed / 64 <= packed.size();
  return static_cast<size_t>(std::min<uint64_t>(limit, plausible ? claimed : packed.size() * 4 + 65536));
}

std::unexpected<Error> damaged(std::string_view format) { return fail("damaged {} data", format); }
std::unexpected<Error> too_large(uint64_t limit) { return fail("unpacks to more than {} MiB", limit >> 20); }

// Makes room for more output; false at the limit.
bool grow(std::vector<uint8_t>& out, uint64_t limit) {
  if (out.size() >= limit) return false;
  out.resize(static_cast<size_t>(std::min<uint64_t>(limit, std::max<uint64_t>(65536, out.size() * 2))));
  return true;
}

Result<std::vector<uint8_t>> unpack_gzip(Bytes packed, uint64_t limit) {
  z_stream stream{};
  if (inflateInit2(&stream, 15 + 16) != Z_OK) return fail("no memory to unpack");
  const std::unique_ptr<z_stream, int (*)(z_stream*)> end{&stream, inflateEnd};
  std::vector<uint8_t> out(first_guess(packed, limit));
  size_t produced = 0;
  stream.next_in = const_cast<uint8_t*>(packed.data());
  stream.avail_in = static_cast<uInt>(std::min<size_t>(packed.size(), UINT32_MAX));
  while (true) {
    if (produced == out.size() && !grow(out, limit)) return too_large(limit);
    stream.next_out = out.data() + produced;
    stream.avail_out = static_cast<uInt>(std::min<size_t>(out.size() - produced, UINT32_MAX));
    const int status = inflate(&stream, Z_NO_FLUSH);
    produced = static_cast<size_t>(stream.next_out - out.data());
    if (status == Z_STREAM_END) break;
    if (status != Z_OK || (stream.avail_in == 0 && stream.avail_out != 0)) return damaged("gzip");
  }
  out.resize(produced);
  return out;
}

Result<std::vector<uint8_t>> unpack_lzma(Bytes packed, uint64_t limit, bool is_xz) {
  constexpr uint64_t memory_limit = uint64_t{256} << 20;
  lzma_stream stream = LZMA_STREAM_INIT;
  const lzma_ret started =
      is_xz ? lzma_stream_decoder(&stream, memory_limit, 0) : lzma_alone_decoder(&stream, memory_limit);
  if (started != LZMA_OK) return fail("no memory to unpack");
  const std::unique_ptr<lzma_stream, void (*)(lzma_stream*)> end{&stream, lzma_end};
  std::vector<uint8_t> out(first_guess(packed, limit));
  size_t produced = 0;
  stream.next_in = packed.data();
  stream.avail_in = packed.size();
  while (true) {
    if (produced == out.size() && !grow(out, limit)) return too_large(limit);
    stream.next_out = out.data() + produced;
    stream.avail_out = out.size() - produced;
    const lzma_ret status = lzma_code(&stream, LZMA_RUN);
    produced = static_cast<size_t>(stream.next_out - out.data());
    if (status == LZMA_STREAM_END) break;
    if (status != LZMA_OK || (stream.avail_in == 0 && stream.avail_out != 0)) return damaged(is_xz ? "xz" : "lzma");
  }
  out.resize(produced);
  return out;
}

Result<std::vector<uint8_t>> unpack_zstd(Bytes packed, uint64_t limit) {
  const std::unique_ptr<ZSTD_DStream, size_t (*)(ZSTD_DStream*)> stream{ZSTD_createDStream(), ZSTD_freeDStream};
  if (!stream) return fail("no memory to unpack");
  ZSTD_DCtx_setParameter(stream.get(), ZSTD_d_windowLogMax, 27);
  std::vector<uint8_t> out(first_guess(packed, limit));
  ZSTD_inBuffer in{packed.data(), packed.size(), 0};
  size_t produced = 0;
  while (true) {
    if (produced == out.size() && !grow(out, limit)) return too_large(limit);
    ZSTD_outBuffer to{out.data(), out.size(), produced};
    const size_t before = in.pos;
    const size_t status = ZSTD_decompressStream(stream.get(), &to, &in);
    const bool stuck = to.pos == produced && in.pos == before;
    produced = to.pos;
    if (ZSTD_isError(status) || (status != 0 && stuck)) return damaged("zstd");
    if (status == 0) break;
  }
  out.resize(produced);
  return out;
}

// The legacy frame: magic, then blocks of {size, LZ4 block of 8 MiB unpacked but for the last}, ended by the input's
// end or, in a kernel, by the appended size of everything.
Result<std::vector<uint8_t>> unpack_lz4(Bytes packed, uint64_t limit) {
  constexpr size_t block = 8u << 20;
  std::vector<uint8_t> out(first_guess(packed, limit));
  size_t produced = 0;
  uint64_t at = 4;
  while (const auto size = read_le<uint32_t>(packed, at)) {
    const auto body = slice(packed, at + 4, *size);
    if (*size == 0 || *size > LZ4_COMPRESSBOUND(block) || !body) break;
    while (true) {
      const size_t room = std::min(out.size() - produced, block);
      const int got = LZ4_decompress_safe(reinterpret_cast<const char*>(body->data()),
                                          reinterpret_cast<char*>(out.data() + produced),
                                          static_cast<int>(body->size()), static_cast<int>(room));
      if (got >= 0) {
        produced += static_cast<size_t>(got);
        break;
      }
      if (room == block) return damaged("lz4");
      if (!grow(out, limit)) return too_large(limit);
    }
    at += 4 + uint64_t{*size};
  }
  // What stopped the loop is the end, or the appended size.
  if (packed.size() > at &&
      (packed.size() - at != 4 || read_le<uint32_t>(packed, at) != static_cast<uint32_t>(produced))) {
    return damaged("lz4");
  }
  if (produced == 0) return damaged("lz4");
  out.resize(produced);
  return out;
}

}  // namespace

Result<std::vector<uint8_t>> unpack(Bytes packed, uint64_t limit) {
  using namespace std::string_view_literals;
  if (starts_with(packed, "\x1f\x8b"sv)) return unpack_gzip(packed, limit);
  if (starts_with(packed,
                  "\xfd"
                  "7zXZ\0"sv))
    return unpack_lzma(packed, limit, true);
  if (starts_with(packed, "\x5d\0\0"sv)) return unpack_lzma(packed, limit, false);
  if (starts_with(packed, "\x28\xb5\x2f\xfd"sv)) return unpack_zstd(packed, limit);
  if (starts_with(packed, "\x02\x21\x4c\x18"sv)) return unpack_lz4(packed, limit);
  return fail("packed in an unknown way");
}

}  // namespace caisson::boot
