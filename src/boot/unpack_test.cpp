#include "boot/unpack.h"

#include <functional>
#include <numeric>

#include <gtest/gtest.h>
#include <lz4.h>
#include <lz4hc.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include "boot/initrd.h"
#include "boot/test_images.h"

namespace caisson::boot {
namespace {

using test::Image;

Image sample(size_t size) {
  Image out(size);
  uint32_t state = 7;
  for (size_t i = 0; i < size; ++i) {
    if (i % 16 == 0) state = state * 1664525 + 1013904223;
    out[i] = static_cast<uint8_t>(state >> 24);
  }
  return out;
}

Image gzip(const Image& in) {
  z_stream stream{};
  EXPECT_EQ(deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  Image out(deflateBound(&stream, in.size()) + 32);
  stream.next_in = const_cast<uint8_t*>(in.data());
  stream.avail_in = static_cast<uInt>(in.size());
  stream.next_out = out.data();
  stream.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

// As the kernel's build does: CRC32 check, x86 filter before LZMA2.
Image xz(const Image& in) {
  lzma_options_lzma options;
  EXPECT_FALSE(lzma_lzma_preset(&options, 1));
  const lzma_filter filters[] = {
      {LZMA_FILTER_X86, nullptr}, {LZMA_FILTER_LZMA2, &options}, {LZMA_VLI_UNKNOWN, nullptr}};
  Image out(lzma_stream_buffer_bound(in.size()));
  size_t size = 0;
  EXPECT_EQ(lzma_stream_buffer_encode(const_cast<lzma_filter*>(filters), LZMA_CHECK_CRC32, nullptr, in.data(),
                                      in.size(), out.data(), &size, out.size()),
            LZMA_OK);
  out.resize(size);
  return out;
}

Image lzma(const Image& in) {
  lzma_options_lzma options;
  EXPECT_FALSE(lzma_lzma_preset(&options, 1));
  lzma_stream stream = LZMA_STREAM_INIT;
  EXPECT_EQ(lzma_alone_encoder(&stream, &options), LZMA_OK);
  Image out(in.size() + 65536);
  stream.next_in = in.data();
  stream.avail_in = in.size();
  stream.next_out = out.data();
  stream.avail_out = out.size();
  EXPECT_EQ(lzma_code(&stream, LZMA_FINISH), LZMA_STREAM_END);
  out.resize(stream.total_out);
  lzma_end(&stream);
  return out;
}

Image zstd(const Image& in) {
  Image out(ZSTD_compressBound(in.size()));
  const size_t size = ZSTD_compress(out.data(), out.size(), in.data(), in.size(), 3);
  EXPECT_FALSE(ZSTD_isError(size));
  out.resize(size);
  return out;
}

Image lz4(const Image& in) {
  constexpr size_t block = 8u << 20;
  Image out = {0x02, 0x21, 0x4c, 0x18};
  for (size_t at = 0; at < in.size(); at += block) {
    const int size = static_cast<int>(std::min(block, in.size() - at));
    Image packed(static_cast<size_t>(LZ4_compressBound(size)));
    const int got = LZ4_compress_default(reinterpret_cast<const char*>(in.data() + at),
                                         reinterpret_cast<char*>(packed.data()), size, static_cast<int>(packed.size()));
    EXPECT_GT(got, 0);
    append_le(out, static_cast<uint32_t>(got));
    out.insert(out.end(), packed.begin(), packed.begin() + got);
  }
  return out;
}

struct Packer {
  const char* name;
  std::function<Image(const Image&)> pack;
};

class Unpack : public testing::TestWithParam<Packer> {};

TEST_P(Unpack, RoundTripWithAndWithoutAppendedSize) {
  for (const size_t size : {size_t{1}, size_t{1000}, size_t{300'000}, size_t{(8u << 20) + 5}}) {
    const Image in = sample(size);
    Image packed = GetParam().pack(in);
    auto out = unpack(packed, 64u << 20);
    ASSERT_TRUE(out) << size << ": " << out.error().message;
    EXPECT_EQ(*out, in);
    append_le(packed, static_cast<uint32_t>(size));
    out = unpack(packed, 64u << 20);
    ASSERT_TRUE(out) << size << ": " << out.error().message;
    EXPECT_EQ(*out, in);
  }
}

TEST_P(Unpack, OutputIsBounded) {
  const Image packed = GetParam().pack(Image(40u << 20));
  const auto out = unpack(packed, 10u << 20);
  ASSERT_FALSE(out);
  EXPECT_NE(out.error().message.find("10 MiB"), std::string::npos) << out.error().message;
}

TEST_P(Unpack, DamageIsNoCrash) {
  const Image packed = GetParam().pack(sample(30'000));
  for (size_t size = 0; size < packed.size(); size += 31) {
    (void)unpack(Bytes{packed}.first(size), 1u << 20);
  }
  EXPECT_FALSE(unpack(Bytes{packed}.first(packed.size() / 2), 1u << 20));
  for (size_t at = 0; at < packed.size(); at += 17) {
    Image damaged = packed;
    damaged[at] ^= 0x41;
    (void)unpack(damaged, 1u << 20);
  }
}

// The same formats as ramdisks.
TEST_P(Unpack, AsInitrd) {
  const Image packed = GetParam().pack(test::make_cpio(50'000));
  const auto good = check_initrd(packed);
  EXPECT_TRUE(good) << good.error().message;
  Image early = test::make_cpio(100);
  early.insert(early.end(), 412, 0);
  Image padded = early;
  padded.insert(padded.end(), packed.begin(), packed.end());
  padded.insert(padded.end(), 8, 0);
  const auto joined = check_initrd(padded);
  EXPECT_TRUE(joined) << joined.error().message;
  if (GetParam().name != std::string{"lzma"}) {
    EXPECT_FALSE(check_initrd(Bytes{packed}.first(packed.size() * 2 / 3)));
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, Unpack,
                         testing::Values(Packer{"gzip", gzip}, Packer{"xz", xz}, Packer{"lzma", lzma},
                                         Packer{"zstd", zstd}, Packer{"lz4", lz4}),
                         [](const auto& one) { return std::string{one.param.name}; });

TEST(UnpackAny, UnknownFormat) {
  EXPECT_FALSE(unpack({}, 1000));
  EXPECT_FALSE(unpack(Image{1, 2, 3, 4, 5}, 1000));
}

TEST(Initrd, Archives) {
  const Image cpio = test::make_cpio(1000);
  EXPECT_TRUE(check_initrd(cpio));
  for (size_t size = 0; size < cpio.size() - 16; size += 9) EXPECT_FALSE(check_initrd(Bytes{cpio}.first(size))) << size;
  Image junk = cpio;
  junk.insert(junk.end(), {'j', 'u', 'n', 'k'});
  EXPECT_FALSE(check_initrd(junk));
  EXPECT_FALSE(check_initrd(Image{}));
  EXPECT_FALSE(check_initrd(Image(4096)));
  EXPECT_FALSE(check_initrd(Image(4096, 0x55)));
  Image squashfs(4096);
  std::memcpy(squashfs.data(), "hsqs", 4);
  EXPECT_TRUE(check_initrd(squashfs));
}

}  // namespace
}  // namespace caisson::boot
