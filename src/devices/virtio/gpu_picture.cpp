// What a virtio GPU's screen shows, and what it says of itself.
#include <algorithm>

#include "devices/virtio/gpu.h"

namespace caisson::virtio {
namespace {

using namespace gpu;

// Where a format has its parts, counted in bytes; none: opaque.
struct Layout {
  unsigned red, green, blue;
  std::optional<unsigned> alpha;
};
Layout layout_of(Format format) {
  switch (format) {
    case Format::B8G8R8A8: return {2, 1, 0, 3};
    case Format::B8G8R8X8: return {2, 1, 0, {}};
    case Format::A8R8G8B8: return {1, 2, 3, 0};
    case Format::X8R8G8B8: return {1, 2, 3, {}};
    case Format::R8G8B8A8: return {0, 1, 2, 3};
    case Format::R8G8B8X8: return {0, 1, 2, {}};
    case Format::A8B8G8R8: return {3, 2, 1, 0};
    case Format::X8B8G8R8: return {3, 2, 1, {}};
  }
  return {2, 1, 0, {}};
}

}  // namespace

std::pair<unsigned, unsigned> Gpu::size() const {
  if (state_.shown != 0) return {state_.width, state_.height};
  return {state_.wanted_width, state_.wanted_height};
}

display::Picture Gpu::picture_below_pointer() const {
  const auto [width, height] = size();
  display::Picture out{width, height, std::vector<uint8_t>(size_t{3} * width * height)};
  const Resource* const resource = find(state_.shown);
  if (resource == nullptr) return out;
  const Layout layout = layout_of(resource->format);
  uint8_t* to = out.rgb.data();
  for (uint32_t row = 0; row < height; ++row) {
    const uint8_t* from = resource->pixels.get() + (size_t{state_.y} + row) * resource->stride() + size_t{state_.x} * 4;
    for (uint32_t column = 0; column < width; ++column, from += 4, to += 3) {
      to[0] = from[layout.red];
      to[1] = from[layout.green];
      to[2] = from[layout.blue];
    }
  }
  return out;
}

// Its colours are multiplied by its alpha already, as drivers' compositors make them.
std::optional<display::PointerPicture> Gpu::pointer() const {
  const Resource* const resource = find(state_.cursor);
  if (resource == nullptr) return {};
  display::PointerPicture out{cursor_size, cursor_size, state_.hot_x, state_.hot_y};
  out.pixels.reserve(size_t{cursor_size} * cursor_size);
  const Layout layout = layout_of(resource->format);
  const uint8_t* from = resource->pixels.get();
  for (size_t i = 0; i < size_t{cursor_size} * cursor_size; ++i, from += 4) {
    const uint32_t alpha = layout.alpha ? from[*layout.alpha] : 0xffu;
    out.pixels.push_back(alpha << 24 | uint32_t{from[layout.red]} << 16 | uint32_t{from[layout.green]} << 8 |
                         from[layout.blue]);
  }
  return out;
}

display::Picture Gpu::picture() const {
  display::Picture out = picture_below_pointer();
  const auto above = pointer();
  if (!above) return out;
  for (uint32_t row = 0; row < above->height; ++row) {
    const int64_t y = int64_t{static_cast<int32_t>(state_.cursor_y)} + row - state_.hot_y;
    if (y < 0 || y >= out.height) continue;
    for (uint32_t column = 0; column < above->width; ++column) {
      const int64_t x = int64_t{static_cast<int32_t>(state_.cursor_x)} + column - state_.hot_x;
      if (x < 0 || x >= out.width) continue;
      const uint32_t pixel = above->pixels[size_t{row} * above->width + column];
      const unsigned behind = 255u - (pixel >> 24);
      uint8_t* const to = out.rgb.data() + 3 * (static_cast<size_t>(y) * out.width + static_cast<size_t>(x));
      for (unsigned part = 0; part < 3; ++part) {
        const unsigned over = pixel >> (16 - 8 * part) & 0xff;
        to[part] = static_cast<uint8_t>(std::min(255u, over + (to[part] * behind + 127u) / 255u));
      }
    }
  }
  return out;
}

// VESA E-EDID 1.4: one detailed timing, of the size that is wanted, at about 60 Hz with CVT's reduced blanking.
std::array<uint8_t, edid_size> Gpu::edid() const {
  constexpr uint32_t blank_x = 160, front_x = 48, sync_x = 32, front_y = 3, sync_y = 6;
  const uint32_t width = state_.wanted_width, height = state_.wanted_height;
  const uint32_t blank_y = std::max(16u, height / 32);
  // What 16 bits of 10 kHz can say; larger ones are slower than 60 Hz.
  const uint64_t clock = std::min<uint64_t>(uint64_t{width + blank_x} * (height + blank_y) * 60 / 10'000, 0xffff);
  std::array<uint8_t, edid_size> out{};
  constexpr std::array<uint8_t, 8> magic{0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00};
  std::ranges::copy(magic, out.begin());
  const auto letter = [](char c) { return static_cast<unsigned>(c - 'A' + 1); };
  const unsigned maker = letter('C') << 10 | letter('S') << 5 | letter('N');
  out[8] = static_cast<uint8_t>(maker >> 8);
  out[9] = static_cast<uint8_t>(maker);
  out[10] = 1;   // product
  out[16] = 1;   // week
  out[17] = 36;  // of 2026
  out[18] = 1;   // version 1.4
  out[19] = 4;
  out[20] = 0xa5;  // digital, 8 bits a colour, DisplayPort
  // In centimetres, at about 96 dots an inch; the detailed timing has millimetres.
  const uint32_t millimetres_x = width * 254 / 960, millimetres_y = height * 254 / 960;
  out[21] = static_cast<uint8_t>(std::clamp(millimetres_x / 10, 1u, 255u));
  out[22] = static_cast<uint8_t>(std::clamp(millimetres_y / 10, 1u, 255u));
  out[23] = 120;   // gamma 2.2
  out[24] = 0x06;  // sRGB; the first timing is the native one
  constexpr std::array<uint8_t, 10> srgb{0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54};
  std::ranges::copy(srgb, out.begin() + 25);
  for (size_t i = 38; i < 54; ++i) out[i] = 0x01;  // no standard timings
  uint8_t* const timing = out.data() + 54;
  timing[0] = static_cast<uint8_t>(clock);
  timing[1] = static_cast<uint8_t>(clock >> 8);
  timing[2] = static_cast<uint8_t>(width);
  timing[3] = static_cast<uint8_t>(blank_x);
  timing[4] = static_cast<uint8_t>((width >> 8 & 15) << 4 | (blank_x >> 8 & 15));
  timing[5] = static_cast<uint8_t>(height);
  timing[6] = static_cast<uint8_t>(blank_y);
  timing[7] = static_cast<uint8_t>((height >> 8 & 15) << 4 | (blank_y >> 8 & 15));
  timing[8] = static_cast<uint8_t>(front_x);
  timing[9] = static_cast<uint8_t>(sync_x);
  timing[10] = static_cast<uint8_t>(front_y << 4 | sync_y);
  timing[12] = static_cast<uint8_t>(millimetres_x);
  timing[13] = static_cast<uint8_t>(millimetres_y);
  timing[14] = static_cast<uint8_t>((millimetres_x >> 8 & 15) << 4 | (millimetres_y >> 8 & 15));
  timing[17] = 0x1e;  // digital separate sync, both positive
  // 3.10.3: a name, and nothing twice.
  uint8_t* const name = timing + 18;
  name[3] = 0xfc;
  constexpr std::string_view text = "Caisson\n     ";
  std::ranges::copy(text, name + 5);
  timing[36 + 3] = timing[54 + 3] = 0x10;
  unsigned sum = 0;
  for (const uint8_t byte : out) sum += byte;
  out[127] = static_cast<uint8_t>(256 - sum % 256);
  return out;
}

}  // namespace caisson::virtio
