#include "backend/rfb/tight.h"

namespace caisson::rfb {
namespace {

// The compression-control byte: its upper half says what follows, for basic compression which zlib stream packs it and
// whether a filter is named.
constexpr uint8_t fill = 0x80, named_filter = 0x40;
constexpr unsigned stream_shift = 4;
constexpr uint8_t palette_filter = 1;
constexpr size_t least_packed = 12;  // fewer bytes are sent as they are, without a length

}  // namespace

bool TightEncoder::encode(std::span<const uint32_t> pixels, unsigned width, const PixelWriter& writer,
                          std::vector<uint8_t>& out) {
  const size_t start = out.size();
  Stream stream = FullColour;
  plain_.clear();
  const auto& colours = palette_.colours();
  if (!palette_.gather(pixels, Palette::largest)) {
    out.push_back(FullColour << stream_shift);
    for (const uint32_t rgb : pixels) writer.put_tight(plain_, rgb);
  } else if (colours.size() == 1) {
    out.push_back(fill);
    writer.put_tight(out, colours[0]);
    return true;
  } else {
    stream = colours.size() == 2 ? TwoColours : Indexed;
    out.push_back(static_cast<uint8_t>(named_filter | stream << stream_shift));
    out.push_back(palette_filter);
    out.push_back(static_cast<uint8_t>(colours.size() - 1));
    for (const uint32_t rgb : colours) writer.put_tight(out, rgb);
    if (stream == TwoColours) {
      put_two_colours(pixels, width);
    } else {
      for (const uint32_t rgb : pixels) plain_.push_back(static_cast<uint8_t>(palette_.index_of(rgb)));
    }
  }
  if (put_data(stream, out)) return true;
  out.resize(start);
  return false;
}

// A bit for each pixel, the first one the highest; each row begins with a byte.
void TightEncoder::put_two_colours(std::span<const uint32_t> pixels, unsigned width) {
  for (size_t row = 0; row < pixels.size(); row += width) {
    unsigned byte = 0;
    for (unsigned x = 0; x < width; ++x) {
      byte = byte << 1 | (pixels[row + x] == palette_.colours()[1] ? 1 : 0);
      if (x % 8 == 7) plain_.push_back(static_cast<uint8_t>(byte));
    }
    if (width % 8 != 0) plain_.push_back(static_cast<uint8_t>(byte << (8 - width % 8)));
  }
}

bool TightEncoder::put_data(Stream stream, std::vector<uint8_t>& out) {
  if (plain_.size() < least_packed) {
    out.insert(out.end(), plain_.begin(), plain_.end());
    return true;
  }
  packed_.clear();
  if (!streams_[stream].append(plain_, packed_)) return false;
  // The length: seven bits, seven bits and eight bits, the lowest first; the eighth bit says that another byte follows.
  const size_t length = packed_.size();
  out.push_back(static_cast<uint8_t>((length & 0x7f) | (length > 0x7f ? 0x80 : 0)));
  if (length > 0x7f) out.push_back(static_cast<uint8_t>((length >> 7 & 0x7f) | (length > 0x3fff ? 0x80 : 0)));
  if (length > 0x3fff) out.push_back(static_cast<uint8_t>(length >> 14));
  out.insert(out.end(), packed_.begin(), packed_.end());
  return true;
}

}  // namespace caisson::rfb
