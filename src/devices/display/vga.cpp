#include "devices/display/vga.h"

#include <algorithm>
#include <utility>

#include "devices/display/vga_registers.h"

namespace caisson::display {

using namespace vga;

namespace {

constexpr pci::Identity identity{.vendor = 0x1234,
                                 .device = 0x1111,
                                 .revision = 2,
                                 .class_code = 0x030000,
                                 .subsystem_vendor = 0x1af4,
                                 .subsystem = 0x1100};

// Layout of BAR 2 (standard-vga.rst).
constexpr uint64_t registers_size = 0x1000, ports_at = 0x400, vbe_at = 0x500;
constexpr uint16_t ports_from = 0x3c0;

constexpr uint64_t frame_ns = 16'666'667, retrace_ns = 1'300'000, line_ns = 31'778, blank_ns = 6'000;

}  // namespace

Vga::Vga(Clock& clock) : PciDevice(identity), clock_(clock) {
  add_bar(frame_buffer, {.size = memory_size, .prefetchable = true});
  add_bar(registers, {.size = registers_size, .widths = {1, 4}});
  // Firmware switches I/O decode on and looks whether it stays; the ports are there in any case.
  config_.define(pci::command, 2, 0, pci::command_io | pci::command_memory | pci::command_bus_master);
  reset();
}

Vga::~Vga() {
  if (bus_ != nullptr) bus_->remove_direct(*this);
}

void Vga::map_legacy(Bus& bus) {
  bus.map(Space::Memory, GuestMemory::video_start, GuestMemory::video_end - GuestMemory::video_start, *this,
          legacy_memory);
  bus.map(Space::Port, first_port, port_count, *this, legacy_ports, {1, 1});
  bus.map(Space::Port, first_vbe_port, vbe_port_count, *this, vbe_ports, {1, 2});
  bus_ = &bus;
  bus.set_direct(*this, frame_buffer, memory_.bytes(), true);
}

void Vga::reset() {
  changed();
  state_ = State{};
  memory_.clear();
  state_.vbe[vbe_width] = 640;
  state_.vbe[vbe_height] = 480;
  state_.vbe[vbe_depth] = 8;
  reset_config();
}

void Vga::save(fields::Buffer& out) const {
  State state = state_;
  state.config = config_.state();
  state.memory.data.assign(memory_.bytes().begin(), memory_.bytes().end());
  fields::save(state, out);
}

Result<> Vga::restore(std::span<const uint8_t> in) {
  State state = state_;
  state.config = config_.state();
  if (auto done = fields::restore(state, in); !done) return done;
  if (state.memory.data.size() != memory_size || state.sequencer_index >= state.sequencer.size() ||
      state.graphics_index >= state.graphics.size() || state.crtc_index >= state.crtc.size() ||
      state.attribute_index >= 0x40 || state.dac_component > 2) {
    return fail("vga: a saved register has an impossible value; the snapshot is damaged");
  }
  if (auto done = restore_config(state.config); !done) return done;
  std::ranges::copy(std::exchange(state.memory.data, {}), memory_.bytes().begin());
  state_ = std::move(state);
  changed();
  return {};
}

uint64_t Vga::changes() {
  if (bus_ != nullptr && bus_->direct_written(*this, frame_buffer)) changed();
  return changes_;
}

void Vga::start_linear(uint16_t width, uint16_t height) {
  for (const auto& [index, value] :
       {std::pair{vbe_enable, uint16_t{0}}, std::pair{vbe_width, width}, std::pair{vbe_height, height},
        std::pair{vbe_depth, uint16_t{32}}, std::pair{vbe_enable, uint16_t{vbe_enabled}}}) {
    write_vbe(index, value);
  }
  config_write(pci::command, 2, pci::command_io | pci::command_memory);
  changed();
}

uint64_t Vga::read(unsigned region, uint64_t offset, unsigned size) {
  uint64_t value = 0;
  switch (region) {
    case frame_buffer:
      for (unsigned i = 0; i < size; ++i) value |= uint64_t{byte_at(offset + i)} << (8 * i);
      return value;
    case legacy_memory:
      for (unsigned i = 0; i < size; ++i) value |= uint64_t{read_byte(offset + i)} << (8 * i);
      return value;
    case legacy_ports: return read_port(static_cast<uint16_t>(first_port + offset));
    case vbe_ports:
      // The data register is at the odd port 0x1cf, and at 0x1d0 where ports must be even.
      if (offset == 0) return state_.vbe_index;
      return offset <= 2 ? read_vbe(state_.vbe_index) : 0xff;
    case registers:
      if (offset >= ports_at && offset < ports_at + 0x20) {
        for (unsigned i = 0; i < size; ++i) {
          value |= uint64_t{read_port(static_cast<uint16_t>(ports_from + offset - ports_at + i))} << (8 * i);
        }
        return value;
      }
      if (offset >= vbe_at && offset < vbe_at + 0x20) return read_vbe(static_cast<unsigned>(offset - vbe_at) / 2);
      return 0;
    default: return ~uint64_t{0};
  }
}

void Vga::write(unsigned region, uint64_t offset, unsigned size, uint64_t value) {
  changed();
  const auto byte = [&](unsigned i) { return static_cast<uint8_t>(value >> (8 * i)); };
  switch (region) {
    case frame_buffer:
      for (unsigned i = 0; i < size; ++i) memory_[(offset + i) % memory_size] = byte(i);
      break;
    case legacy_memory:
      for (unsigned i = 0; i < size; ++i) write_byte(offset + i, byte(i));
      break;
    case legacy_ports: write_port(static_cast<uint16_t>(first_port + offset), byte(0)); break;
    case vbe_ports:
      if (offset == 0) {
        state_.vbe_index = static_cast<uint16_t>(value);
      } else if (offset <= 2) {
        write_vbe(state_.vbe_index, static_cast<uint16_t>(value));
      }
      break;
    case registers:
      if (offset >= ports_at && offset < ports_at + 0x20) {
        for (unsigned i = 0; i < size; ++i) {
          write_port(static_cast<uint16_t>(ports_from + offset - ports_at + i), byte(i));
        }
      } else if (offset >= vbe_at && offset < vbe_at + 0x20 && size >= 2) {
        write_vbe(static_cast<unsigned>(offset - vbe_at) / 2, static_cast<uint16_t>(value));
      }
      break;
    default: break;
  }
}

// --- ports -----------------------------------------------------------------------------------------------------------

uint8_t Vga::read_port(uint16_t port) {
  // CRTC and status are at 0x3bx on monochrome displays, at 0x3dx on colour ones.
  const bool color = (state_.misc & misc_color) != 0;
  if ((port < 0x3c0 && color) || (port >= 0x3d0 && !color)) return 0xff;
  switch (port) {
    case 0x3c0: return state_.attribute_index;
    case 0x3c1: return state_.attribute[state_.attribute_index & 0x1f];
    case 0x3c2: return 0x10;  // switch sense: a colour display
    case 0x3c4: return state_.sequencer_index;
    case 0x3c5: return state_.sequencer[state_.sequencer_index];
    case 0x3c6: return state_.dac_mask;
    case 0x3c7: return state_.dac_reading ? 3 : 0;
    case 0x3c8: return state_.dac_write;
    case 0x3c9: {
      const uint8_t value = state_.dac[3u * state_.dac_read + state_.dac_component];
      if (++state_.dac_component == 3) {
        state_.dac_component = 0;
        ++state_.dac_read;
      }
      return value;
    }
    case 0x3ca: return state_.feature;
    case 0x3cc: return state_.misc;
    case 0x3ce: return state_.graphics_index;
    case 0x3cf: return state_.graphics[state_.graphics_index];
    case 0x3b4:
    case 0x3d4: return state_.crtc_index;
    case 0x3b5:
    case 0x3d5: return state_.crtc[state_.crtc_index];
    case 0x3ba:
    case 0x3da: {
      state_.attribute_data = false;
      const uint64_t now = clock_.now_ns();
      const bool retrace = now % frame_ns < retrace_ns;
      const bool blank = retrace || now % line_ns < blank_ns;
      return static_cast<uint8_t>((retrace ? 0x08 : 0) | (blank ? 0x01 : 0));
    }
    default: return 0xff;
  }
}

void Vga::write_port(uint16_t port, uint8_t value) {
  const bool color = (state_.misc & misc_color) != 0;
  if ((port < 0x3c0 && color) || (port >= 0x3d0 && !color)) return;
  switch (port) {
    case 0x3c0:
      if (!std::exchange(state_.attribute_data, !state_.attribute_data)) {
        state_.attribute_index = value & 0x3f;
      } else if (const unsigned index = state_.attribute_index & 0x1f; index < 0x15) {
        state_.attribute[index] = index < 0x10 ? value & 0x3f : value;
      }
      break;
    case 0x3c2: state_.misc = value; break;
    case 0x3c4: state_.sequencer_index = value & 7; break;
    case 0x3c5: state_.sequencer[state_.sequencer_index] = value; break;
    case 0x3c6: state_.dac_mask = value; break;
    case 0x3c7:
      state_.dac_read = value;
      state_.dac_component = 0;
      state_.dac_reading = true;
      break;
    case 0x3c8:
      state_.dac_write = value;
      state_.dac_component = 0;
      state_.dac_reading = false;
      break;
    case 0x3c9:
      state_.dac[3u * state_.dac_write + state_.dac_component] = value;
      if (++state_.dac_component == 3) {
        state_.dac_component = 0;
        ++state_.dac_write;
      }
      break;
    case 0x3ce: state_.graphics_index = value & 0xf; break;
    case 0x3cf: state_.graphics[state_.graphics_index] = value; break;
    case 0x3b4:
    case 0x3d4: state_.crtc_index = value & 0x1f; break;
    case 0x3b5:
    case 0x3d5: {
      // Vertical retrace end, bit 7, protects 0 to 7, but for the line compare bit.
      if (state_.crtc_index <= 7 && (state_.crtc[0x11] & 0x80) != 0) {
        if (state_.crtc_index == 7) state_.crtc[7] = static_cast<uint8_t>((state_.crtc[7] & 0xef) | (value & 0x10));
        break;
      }
      state_.crtc[state_.crtc_index] = value;
      break;
    }
    case 0x3ba:
    case 0x3da: state_.feature = value; break;
    default: break;
  }
}

// --- VBE registers ---------------------------------------------------------------------------------------------------

bool Vga::linear() const { return (state_.vbe[vbe_enable] & vbe_enabled) != 0; }

uint16_t Vga::read_vbe(unsigned index) const {
  const bool largest = (state_.vbe[vbe_enable] & vbe_capabilities) != 0;
  switch (index) {
    case vbe_id: return state_.vbe[vbe_id] != 0 ? state_.vbe[vbe_id] : vbe_newest_id;
    case vbe_width: return largest ? largest_width : state_.vbe[index];
    case vbe_height: return largest ? largest_height : state_.vbe[index];
    case vbe_depth: return largest ? 32 : state_.vbe[index];
    case vbe_virtual_height: {
      const uint32_t line = std::max<uint32_t>(1, state_.vbe[vbe_virtual_width] * ((state_.vbe[vbe_depth] + 7u) / 8));
      return static_cast<uint16_t>(std::min<uint64_t>(memory_size / line, 0xffff));
    }
    case vbe_memory: return memory_size >> 16;
    default: return index < state_.vbe.size() ? state_.vbe[index] : 0;
  }
}

void Vga::write_vbe(unsigned index, uint16_t value) {
  auto& vbe = state_.vbe;
  switch (index) {
    case vbe_id:
      if (value >= vbe_oldest_id && value <= vbe_newest_id) vbe[index] = value;
      break;
    case vbe_width:
    case vbe_height:
      if (!linear() && value != 0 && value <= largest_width) vbe[index] = value;
      break;
    case vbe_depth:
      if (linear()) break;
      if (value == 0) value = 8;
      if (value == 4 || value == 8 || value == 15 || value == 16 || value == 24 || value == 32) vbe[index] = value;
      break;
    case vbe_enable:
      if ((value & vbe_enabled) != 0 && !linear()) {
        vbe[vbe_virtual_width] = vbe[vbe_width];
        vbe[vbe_x_offset] = vbe[vbe_y_offset] = vbe[vbe_bank] = 0;
        if ((value & vbe_keep_memory) == 0) memory_.clear();
      }
      vbe[index] = value;
      break;
    case vbe_bank: vbe[index] = static_cast<uint16_t>(value % (memory_size >> 16)); break;
    case vbe_virtual_width:
      if (value >= vbe[vbe_width] && value <= 2 * largest_width) vbe[index] = value;
      break;
    case vbe_x_offset:
    case vbe_y_offset: vbe[index] = value; break;
    default: break;
  }
}

// --- legacy memory ---------------------------------------------------------------------------------------------------

std::optional<uint32_t> Vga::window(uint64_t offset) const {
  switch (state_.graphics[gfx_misc] >> 2 & 3) {
    case 0: return static_cast<uint32_t>(offset & 0x1'ffff);
    case 1: return offset < 0x1'0000 ? std::optional{static_cast<uint32_t>(offset)} : std::nullopt;
    case 2:
      return offset >= 0x1'0000 && offset < 0x1'8000 ? std::optional{static_cast<uint32_t>(offset - 0x1'0000)}
                                                     : std::nullopt;
    default: return offset >= 0x1'8000 ? std::optional{static_cast<uint32_t>(offset - 0x1'8000)} : std::nullopt;
  }
}

// Planes lie side by side: byte 4 × address + plane.
uint8_t Vga::read_byte(uint64_t offset) {
  if (linear() && offset < 0x1'0000) return byte_at(uint64_t{state_.vbe[vbe_bank]} << 16 | offset);
  const auto address = window(offset);
  if (!address) return 0xff;
  const auto& gfx = state_.graphics;
  if ((state_.sequencer[seq_memory_mode] & memory_chain4) != 0) return byte_at(*address);
  uint32_t at = *address;
  unsigned plane = gfx[gfx_read_map] & 3;
  if ((gfx[gfx_mode] & mode_odd_even) != 0) {
    plane = (plane & 2) | (at & 1);
    at &= ~1u;
  }
  for (unsigned i = 0; i < 4; ++i) state_.latch[i] = byte_at(uint64_t{at} * 4 + i);
  if ((gfx[gfx_mode] & mode_read_compare) == 0) return state_.latch[plane];
  uint8_t differs = 0;
  for (unsigned i = 0; i < 4; ++i) {
    if ((gfx[gfx_compare_care] >> i & 1) == 0) continue;
    differs = static_cast<uint8_t>(differs | (state_.latch[i] ^ ((gfx[gfx_compare] >> i & 1) != 0 ? 0xff : 0)));
  }
  return static_cast<uint8_t>(~differs);
}

void Vga::write_byte(uint64_t offset, uint8_t value) {
  if (linear() && offset < 0x1'0000) {
    memory_[(uint64_t{state_.vbe[vbe_bank]} << 16 | offset) % memory_size] = value;
    return;
  }
  const auto address = window(offset);
  if (!address) return;
  const auto& gfx = state_.graphics;
  uint8_t planes = state_.sequencer[seq_map_mask] & 0xf;
  uint32_t at = *address;
  if ((state_.sequencer[seq_memory_mode] & memory_chain4) != 0) {
    if ((planes >> (at & 3) & 1) != 0) memory_[at] = value;
    return;
  }
  if ((state_.sequencer[seq_memory_mode] & memory_sequential) == 0) {  // odd addresses to odd planes
    planes &= (at & 1) != 0 ? 0xa : 0x5;
    at &= ~1u;
  }
  const unsigned rotate = gfx[gfx_rotate] & 7;
  const auto rotated = static_cast<uint8_t>(value >> rotate | value << (8 - rotate));
  uint8_t mask = gfx[gfx_bit_mask];
  const unsigned mode = gfx[gfx_mode] & mode_write;
  if (mode == 3) mask &= rotated;
  for (unsigned plane = 0; plane < 4; ++plane) {
    if ((planes >> plane & 1) == 0) continue;
    const auto all = [&](uint8_t bits) { return (bits >> plane & 1) != 0 ? uint8_t{0xff} : uint8_t{0}; };
    const uint8_t latch = state_.latch[plane];
    uint8_t data = 0;
    switch (mode) {
      case 0: data = (gfx[gfx_enable_set_reset] >> plane & 1) != 0 ? all(gfx[gfx_set_reset]) : rotated; break;
      case 1: data = latch; break;
      case 2: data = all(value); break;
      default: data = all(gfx[gfx_set_reset]); break;
    }
    if (mode != 1) {
      switch (gfx[gfx_rotate] >> 3 & 3) {
        case 1: data &= latch; break;
        case 2: data |= latch; break;
        case 3: data ^= latch; break;
        default: break;
      }
      data = static_cast<uint8_t>((data & mask) | (latch & ~mask));
    }
    memory_[uint64_t{at} * 4 + plane] = data;
  }
}

}  // namespace caisson::display
