// The encoder's files are read back chunk by chunk, with zlib's own inflate and check sums.
#include "backend/png.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <algorithm>
#include <string>

namespace caisson {
namespace {

struct Chunk {
  std::string type;
  std::vector<uint8_t> data;
};

uint32_t big(std::span<const uint8_t> bytes) {
  return uint32_t{bytes[0]} << 24 | uint32_t{bytes[1]} << 16 | uint32_t{bytes[2]} << 8 | bytes[3];
}

// Every chunk of the file, each with a good check sum (PNG 5.3: over type and data); none when the file has another
// form.
std::vector<Chunk> chunks(std::span<const uint8_t> file) {
  const std::vector<uint8_t> signature{137, 80, 78, 71, 13, 10, 26, 10};  // PNG 5.2
  if (file.size() < 8 || !std::equal(signature.begin(), signature.end(), file.begin())) return {};
  std::vector<Chunk> found;
  for (auto rest = file.subspan(8); !rest.empty();) {
    if (rest.size() < 12 || big(rest) > rest.size() - 12) return {};
    const size_t length = big(rest);
    const auto checked = rest.subspan(4, 4 + length);
    if (::crc32(0, checked.data(), static_cast<uInt>(checked.size())) != big(rest.subspan(8 + length))) return {};
    found.push_back({{checked.begin(), checked.begin() + 4}, {checked.begin() + 4, checked.end()}});
    rest = rest.subspan(12 + length);
  }
  return found;
}

TEST(Png, HoldsThePictureItWasGiven) {
  constexpr unsigned width = 259, height = 3;  // a width of two bytes that differ: their order shows
  std::vector<uint8_t> rgb(size_t{3} * width * height);
  for (size_t i = 0; i < rgb.size(); ++i) rgb[i] = static_cast<uint8_t>(i * 7 + i / 256);
  const auto file = encode_png(width, height, rgb);
  ASSERT_TRUE(file);
  const auto parts = chunks(*file);
  ASSERT_EQ(parts.size(), 3u);
  EXPECT_EQ(parts[0].type, "IHDR");
  EXPECT_EQ(parts[0].data, (std::vector<uint8_t>{0, 0, 1, 3, 0, 0, 0, 3, 8, 2, 0, 0, 0}));  // PNG 11.2.1
  EXPECT_EQ(parts[2].type, "IEND");
  EXPECT_TRUE(parts[2].data.empty());

  ASSERT_EQ(parts[1].type, "IDAT");
  std::vector<uint8_t> rows(rgb.size() + height + 1);  // one more than must come
  uLongf size = rows.size();
  ASSERT_EQ(::uncompress(rows.data(), &size, parts[1].data.data(), parts[1].data.size()), Z_OK);
  ASSERT_EQ(size, rgb.size() + height);
  std::vector<uint8_t> pixels;
  for (unsigned y = 0; y < height; ++y) {
    const auto row = rows.begin() + y * (1 + 3 * width);
    EXPECT_EQ(*row, 0) << "the filter of row " << y;
    pixels.insert(pixels.end(), row + 1, row + 1 + 3 * width);
  }
  EXPECT_EQ(pixels, rgb);
}

TEST(Png, RefusesSizesThatDoNotFitThePicture) {
  const std::vector<uint8_t> rgb(12);
  EXPECT_TRUE(encode_png(2, 2, rgb));
  EXPECT_FALSE(encode_png(2, 3, rgb));
  EXPECT_FALSE(encode_png(1, 2, rgb));
  EXPECT_FALSE(encode_png(0, 2, {}));
  EXPECT_FALSE(encode_png(2, 0, {}));
}

TEST(Png, TakesSidesUpTo65535) {
  const std::vector<uint8_t> line(size_t{3} * 65536);
  EXPECT_TRUE(encode_png(65535, 1, std::span(line).first(size_t{3} * 65535)));
  EXPECT_TRUE(encode_png(1, 65535, std::span(line).first(size_t{3} * 65535)));
  EXPECT_FALSE(encode_png(65536, 1, line));
  EXPECT_FALSE(encode_png(1, 65536, line));
}

}  // namespace
}  // namespace caisson
