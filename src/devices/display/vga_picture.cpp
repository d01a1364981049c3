// What a VGA's screen shows: text with the guest's own font, planar and packed graphics, linear modes.
#include <algorithm>
#include <string>

#include "devices/display/vga.h"
#include "devices/display/vga_registers.h"

namespace caisson::display {

using namespace vga;

namespace {

void put(Picture& out, unsigned x, unsigned y, std::array<uint8_t, 3> rgb) {
  if (x >= out.width || y >= out.height) return;
  std::ranges::copy(rgb, out.rgb.begin() + 3 * (size_t{y} * out.width + x));
}

Picture blank(unsigned width, unsigned height) {
  return {width, height, std::vector<uint8_t>(size_t{3} * width * height)};
}

}  // namespace

uint32_t Vga::start_address() const {
  return static_cast<uint32_t>(state_.crtc[crtc_start_high] << 8 | state_.crtc[crtc_start_low]);
}

unsigned Vga::lines() const {
  const uint8_t overflow = state_.crtc[crtc_overflow];
  return (state_.crtc[crtc_display_end] | (overflow & 0x02u) << 7 | (overflow & 0x40u) << 3) + 1u;
}

// A DAC entry has 6 bits a component, or 8 where the VBE registers say so.
std::array<uint8_t, 3> Vga::color(uint8_t index) const {
  const bool wide = (state_.vbe[vbe_enable] & vbe_8bit_dac) != 0;
  index &= state_.dac_mask;
  std::array<uint8_t, 3> rgb{};
  for (unsigned i = 0; i < 3; ++i) {
    const uint8_t value = state_.dac[3u * index + i];
    rgb[i] = wide ? value : static_cast<uint8_t>((value & 0x3f) << 2 | (value & 0x3f) >> 4);
  }
  return rgb;
}

uint8_t Vga::palette(uint8_t attribute) const {
  const uint8_t entry = state_.attribute[attribute & 0xf];
  const uint8_t select = state_.attribute[attr_color_select];
  if ((state_.attribute[attr_mode] & attr_palette_45) != 0) {
    return static_cast<uint8_t>((entry & 0x0f) | (select & 0x0f) << 4);
  }
  return static_cast<uint8_t>((entry & 0x3f) | (select & 0x0c) << 4);
}

std::optional<Vga::TextShape> Vga::text_shape() const {
  if (linear() || (state_.graphics[gfx_misc] & gfx_misc_graphics) != 0) return {};
  const unsigned height = (state_.crtc[crtc_cell_height] & 0x1fu) + 1;
  const unsigned columns = state_.crtc[crtc_columns] + 1u;
  const unsigned rows = lines() / height;
  if (rows == 0) return {};
  return TextShape{columns, rows, height, (state_.sequencer[seq_clocking] & clocking_8_dots) != 0 ? 8u : 9u};
}

std::string Vga::text() const {
  std::string out;
  const auto shape = text_shape();
  if (!shape) return out;
  for (unsigned row = 0; row < shape->rows; ++row) {
    std::string line;
    for (unsigned column = 0; column < shape->columns; ++column) {
      // A cell is two addresses in odd/even order: character in plane 0, attribute in plane 1.
      const uint32_t cell = start_address() + row * state_.crtc[crtc_offset] * 2u + column;
      const uint8_t code = byte_at(uint64_t{cell} * 8);
      line += code >= 0x20 && code < 0x7f ? static_cast<char>(code) : code == 0 ? ' ' : '?';
    }
    while (!line.empty() && line.back() == ' ') line.pop_back();
    out += line + "\n";
  }
  return out;
}

void Vga::draw_text(Picture& out, const TextShape& shape) const {
  const uint8_t fonts = state_.sequencer[seq_fonts];
  // Bits 5, 3:2 and 4, 1:0 choose the fonts of characters with attribute bit 3 set and clear, 8 KiB each in an order of
  // their own.
  const auto font_at = [](unsigned select) { return (select & 3) * 0x4000u + (select >> 2) * 0x2000u; };
  const uint32_t font_set = font_at((fonts >> 2 & 3u) | (fonts >> 3 & 4u));
  const uint32_t font_clear = font_at((fonts & 3u) | (fonts >> 2 & 4u));
  const uint8_t attr = state_.attribute[attr_mode];
  const uint8_t background_bits = (attr & attr_blink) != 0 ? 7 : 15;
  const unsigned cursor = static_cast<unsigned>(state_.crtc[crtc_cursor_high] << 8 | state_.crtc[crtc_cursor_low]);
  const uint8_t cursor_start = state_.crtc[crtc_cursor_start], cursor_end = state_.crtc[crtc_cursor_end] & 0x1f;
  for (unsigned row = 0; row < shape.rows; ++row) {
    for (unsigned column = 0; column < shape.columns; ++column) {
      const uint32_t cell = (start_address() + row * state_.crtc[crtc_offset] * 2u + column) & 0xffff;
      const uint8_t code = byte_at(uint64_t{cell} * 8);
      const uint8_t attribute = byte_at(uint64_t{cell} * 8 + 1);
      const auto foreground = color(palette(attribute & 0xf));
      const auto background = color(palette(attribute >> 4 & background_bits));
      const uint32_t glyph = ((attribute & 8) != 0 ? font_set : font_clear) + code * 32u;
      const bool line_graphics = (attr & attr_line_graphics) != 0 && code >= 0xc0 && code <= 0xdf;
      for (unsigned y = 0; y < shape.height; ++y) {
        unsigned bits = byte_at(uint64_t{glyph + y} * 4 + 2) << 1u;
        if (line_graphics) bits |= bits >> 1 & 1;
        const bool in_cursor =
            cell == cursor && (cursor_start & cursor_off) == 0 && y >= (cursor_start & 0x1fu) && y <= cursor_end;
        for (unsigned x = 0; x < shape.width; ++x) {
          const bool on = in_cursor || (bits >> (8 - x) & 1) != 0;
          put(out, column * shape.width + x, row * shape.height + y, on ? foreground : background);
        }
      }
    }
  }
}

void Vga::draw_graphics(Picture& out) const {
  const uint8_t mode = state_.graphics[gfx_mode];
  const unsigned repeat = (state_.crtc[crtc_cell_height] & 0x1fu) + 1;
  const bool cga = (mode & mode_cga) != 0;
  // With 4 pixels a clock a 256-colour pixel is two dots wide.
  const bool packed = (mode & mode_256_colors) != 0;
  for (unsigned y = 0; y < out.height; ++y) {
    unsigned row = y;
    if ((state_.crtc[crtc_cell_height] & cell_doubled) != 0) row /= 2;
    uint32_t scan = row / repeat * state_.crtc[crtc_offset] * 2u + start_address();
    // CGA's odd rows lie 8 KiB behind.
    const uint32_t odd = (state_.crtc[crtc_mode] & 1) == 0 && row % repeat % 2 != 0 ? 0x2000 : 0;
    for (unsigned x = 0; x < out.width; ++x) {
      uint8_t index = 0;
      if (packed) {
        index = byte_at(uint64_t{scan} * 4 + x / 2);
      } else if (cga) {
        const uint32_t at = scan + odd + x / 4;
        index = palette(byte_at(uint64_t{at & ~1u} * 4 + (at & 1)) >> (6 - 2 * (x % 4)) & 3);
      } else {
        const uint32_t at = scan + odd + x / 8;
        uint8_t planes = 0;
        for (unsigned i = 0; i < 4; ++i) {
          planes |= static_cast<uint8_t>((byte_at(uint64_t{at} * 4 + i) >> (7 - x % 8) & 1) << i);
        }
        index = palette(planes & state_.attribute[attr_planes] & 0xf);
      }
      put(out, x, y, color(index));
    }
  }
}

void Vga::draw_linear(Picture& out) const {
  const unsigned depth = state_.vbe[vbe_depth];
  const unsigned bytes = (depth + 7) / 8;
  const uint64_t line = uint64_t{std::max(state_.vbe[vbe_virtual_width], state_.vbe[vbe_width])} * bytes;
  for (unsigned y = 0; y < out.height; ++y) {
    uint64_t at = (uint64_t{y} + state_.vbe[vbe_y_offset]) * line + uint64_t{state_.vbe[vbe_x_offset]} * bytes;
    if (depth == 32) {  // what desktops have, and viewers look at often
      uint8_t* to = out.rgb.data() + size_t{3} * y * out.width;
      for (unsigned x = 0; x < out.width; ++x, at += 4) {
        for (unsigned i = 0; i < 3; ++i) *to++ = byte_at(at + 2 - i);
      }
      continue;
    }
    for (unsigned x = 0; x < out.width; ++x, at += bytes) {
      uint32_t pixel = 0;
      for (unsigned i = 0; i < bytes; ++i) pixel |= uint32_t{byte_at(at + i)} << (8 * i);
      const auto part = [&](unsigned shift, unsigned bits) {
        const uint32_t value = pixel >> shift & ((1u << bits) - 1);
        return static_cast<uint8_t>(bits == 8 ? value : value << (8 - bits) | value >> (2 * bits - 8));
      };
      switch (depth) {
        case 15: put(out, x, y, {part(10, 5), part(5, 5), part(0, 5)}); break;
        case 16: put(out, x, y, {part(11, 5), part(5, 6), part(0, 5)}); break;
        case 24:
        case 32: put(out, x, y, {part(16, 8), part(8, 8), part(0, 8)}); break;
        default: put(out, x, y, color(static_cast<uint8_t>(pixel))); break;
      }
    }
  }
}

std::pair<unsigned, unsigned> Vga::size() const {
  if (linear()) return {state_.vbe[vbe_width], state_.vbe[vbe_height]};
  if (const auto shape = text_shape()) return {shape->columns * shape->width, shape->rows * shape->height};
  return {(state_.crtc[crtc_columns] + 1u) * 8, lines()};
}

Picture Vga::picture() const {
  const auto [width, height] = size();
  Picture out = blank(width, height);
  if (linear() && state_.vbe[vbe_depth] != 4) {
    draw_linear(out);
    return out;
  }
  const bool shown =
      (state_.attribute_index & attribute_video_on) != 0 && (state_.sequencer[seq_clocking] & clocking_screen_off) == 0;
  if (!shown) return out;
  if (const auto shape = text_shape()) {
    draw_text(out, *shape);
  } else {
    draw_graphics(out);
  }
  return out;
}

}  // namespace caisson::display
