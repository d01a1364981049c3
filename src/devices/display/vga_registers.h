// The VGA's registers by name, as the IBM PS/2 reference orders them, and Bochs's VBE registers.
//   Threads  constants
#pragma once

#include <cstdint>

namespace caisson::display::vga {

inline constexpr uint8_t misc_color = 0x01;

enum Sequencer : uint8_t { seq_reset, seq_clocking, seq_map_mask, seq_fonts, seq_memory_mode };
inline constexpr uint8_t clocking_8_dots = 0x01, clocking_screen_off = 0x20;
inline constexpr uint8_t memory_sequential = 0x04, memory_chain4 = 0x08;

enum Graphics : uint8_t {
  gfx_set_reset,
  gfx_enable_set_reset,
  gfx_compare,
  gfx_rotate,
  gfx_read_map,
  gfx_mode,
  gfx_misc,
  gfx_compare_care,
  gfx_bit_mask,
};
inline constexpr uint8_t mode_write = 0x03, mode_read_compare = 0x08, mode_odd_even = 0x10, mode_cga = 0x20,
                         mode_256_colors = 0x40;
inline constexpr uint8_t gfx_misc_graphics = 0x01;

enum Crtc : uint8_t {
  crtc_overflow = 0x07,
  crtc_columns = 0x01,  // less one
  crtc_cell_height = 0x09,
  crtc_cursor_start = 0x0a,
  crtc_cursor_end = 0x0b,
  crtc_start_high = 0x0c,
  crtc_start_low = 0x0d,
  crtc_cursor_high = 0x0e,
  crtc_cursor_low = 0x0f,
  crtc_display_end = 0x12,
  crtc_offset = 0x13,
  crtc_mode = 0x17,
};
inline constexpr uint8_t cell_doubled = 0x80, cursor_off = 0x20;

enum Attribute : uint8_t { attr_mode = 0x10, attr_planes = 0x12, attr_color_select = 0x14 };
inline constexpr uint8_t attr_line_graphics = 0x04, attr_blink = 0x08, attr_palette_45 = 0x80;
inline constexpr uint8_t attribute_video_on = 0x20;  // in the index

enum Vbe : uint8_t {
  vbe_id,
  vbe_width,
  vbe_height,
  vbe_depth,
  vbe_enable,
  vbe_bank,
  vbe_virtual_width,
  vbe_virtual_height,
  vbe_x_offset,
  vbe_y_offset,
  vbe_memory,
};
inline constexpr uint16_t vbe_oldest_id = 0xb0c0, vbe_newest_id = 0xb0c5;
inline constexpr uint16_t vbe_enabled = 0x01, vbe_capabilities = 0x02, vbe_8bit_dac = 0x20, vbe_keep_memory = 0x80;

}  // namespace caisson::display::vga
