#include "boot/initrd.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <memory>

#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

namespace caisson::boot {

namespace {

using namespace std::string_view_literals;

std::unexpected<Error> truncated(Bytes file) {
  return fail("truncated or damaged initial ramdisk of {} bytes; copy it again", file.size());
}

// All of these take the part of the file that starts with their magic and give its length.

Result<uint64_t> cpio_length(Bytes part) {
  constexpr uint64_t header_size = 110;
  const auto padded = [](uint64_t size) { return (size + 3) & ~uint64_t{3}; };
  uint64_t at = 0;
  while (true) {
    const auto header = slice(part, at, header_size);
    if (!header || !(starts_with(*header, "070701") || starts_with(*header, "070702"))) return truncated(part);
    const auto field = [&](size_t index) -> std::optional<uint32_t> {
      const char* from = reinterpret_cast<const char*>(header->data()) + 6 + 8 * index;
      uint32_t value = 0;
      const auto [end, error] = std::from_chars(from, from + 8, value, 16);
      if (error != std::errc{} || end != from + 8) return std::nullopt;
      return value;
    };
    const auto size = field(6), name_size = field(11);
    if (!size || !name_size || *name_size == 0) return truncated(part);
    const auto name = slice(part, at + header_size, *name_size);
    if (!name) return truncated(part);
    const uint64_t body = padded(at + header_size + *name_size);
    if (*name_size == 11 && starts_with(*name, "TRAILER!!!")) return std::min<uint64_t>(body, part.size());
    if (!slice(part, body, *size)) return truncated(part);
    at = padded(body + *size);
  }
}

Result<uint64_t> gzip_length(Bytes part) {
  z_stream stream{};
  if (inflateInit2(&stream, 15 + 16) != Z_OK) return fail("no memory to check the initial ramdisk");
  const std::unique_ptr<z_stream, int (*)(z_stream*)> end{&stream, inflateEnd};
  std::array<uint8_t, 65536> sink;
  uint64_t used = 0;
  while (true) {
    if (stream.avail_in == 0) {
      stream.next_in = const_cast<uint8_t*>(part.data() + used);
      stream.avail_in = static_cast<uInt>(std::min<uint64_t>(part.size() - used, 1u << 30));
      used += stream.avail_in;
    }
    stream.next_out = sink.data();
    stream.avail_out = sink.size();
    const int status = inflate(&stream, Z_NO_FLUSH);
    if (status == Z_STREAM_END) return used - stream.avail_in;
    if (status != Z_OK || (stream.avail_in == 0 && used == part.size() && stream.avail_out != 0))
      return truncated(part);
  }
}

Result<uint64_t> zstd_length(Bytes part) {
  const size_t length = ZSTD_findFrameCompressedSize(part.data(), part.size());
  if (ZSTD_isError(length)) return truncated(part);
  return length;
}

// The last 12 bytes before the padding are the stream's footer, which says how long the index before it is; with
// several streams in one file only the last is looked at.
Result<uint64_t> xz_length(Bytes part) {
  uint64_t end = part.size();
  while (end >= 4 && read_le<uint32_t>(part, end - 4) == 0) end -= 4;
  if (end < 2 * LZMA_STREAM_HEADER_SIZE) return truncated(part);
  lzma_stream_flags flags{};
  if (lzma_stream_footer_decode(&flags, part.data() + end - LZMA_STREAM_HEADER_SIZE) != LZMA_OK) return truncated(part);
  return part.size();
}

Result<uint64_t> lz4_length(Bytes part) {
  uint64_t at = 4;
  while (at < part.size()) {
    const auto size = read_le<uint32_t>(part, at);
    if (!size) return truncated(part);
    // Zero padding, another legacy frame, or something else that follows.
    if (*size == 0 || *size == 0x184c'2102 || *size == 0x3730'3730) break;
    if (!slice(part, at + 4, *size)) return truncated(part);
    at += 4 + uint64_t{*size};
  }
  if (at == 4) return truncated(part);
  return at;
}

Result<uint64_t> whole_length(Bytes part) { return part.size(); }

struct Format {
  std::string_view magic;
  Result<uint64_t> (*length)(Bytes);
};
constexpr Format formats[] = {
    {"070701", cpio_length},
    {"070702", cpio_length},
    {"\x1f\x8b"sv, gzip_length},
    {"\x28\xb5\x2f\xfd"sv, zstd_length},
    {"\xfd"
     "7zXZ\0"sv,
     xz_length},
    {"\x02\x21\x4c\x18"sv, lz4_length},
    {"\x5d\0\0"sv, whole_length},  // lzma
    {"BZh", whole_length},         // bzip2
    {"\x89LZO\0\r\n\x1a\n"sv, whole_length},
};

bool is_file_system(Bytes file) {
  return starts_with(file, "hsqs") || starts_with(file, "-rom1fs-") || read_le<uint32_t>(file, 0) == 0x28cd'3d45 ||
         read_le<uint16_t>(file, 1080) == 0xef53 || read_le<uint16_t>(file, 1040) == 0x138f ||
         read_le<uint16_t>(file, 1040) == 0x137f;  // squashfs, romfs, cramfs; ext2, minix
}

}  // namespace

Result<> check_initrd(Bytes file) {
  if (file.empty()) return fail("an empty file, no initial ramdisk");
  if (is_file_system(file)) return {};
  uint64_t at = 0;
  bool any = false;
  while (at < file.size()) {
    if (file[at] == 0) {
      ++at;
      continue;
    }
    const Bytes part = file.subspan(at);
    const auto format =
        std::ranges::find_if(formats, [&](const Format& known) { return starts_with(part, known.magic); });
    if (format == std::end(formats)) {
      if (any) return truncated(file);
      return fail("not an initial ramdisk (a cpio archive, plain or compressed)");
    }
    const auto length = format->length(part);
    if (!length) return std::unexpected(length.error());
    at += std::max<uint64_t>(*length, 1);
    any = true;
  }
  if (!any) return fail("not an initial ramdisk: {} zero bytes", file.size());
  return {};
}

}  // namespace caisson::boot
