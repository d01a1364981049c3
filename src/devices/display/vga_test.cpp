#include "devices/display/vga.h"

#include <gtest/gtest.h>

#include "bus/fake_clock.h"
#include "devices/device_test_support.h"
#include "devices/display/vga_registers.h"

namespace caisson::display {
namespace {

class VgaTest : public testing::Test {
 protected:
  void SetUp() override {
    vga.map_legacy(bus);
    out(0x3c2, 0x67);
  }
  void out(uint16_t port, uint8_t value) { bus.write(Space::Port, port, 1, value); }
  uint8_t in(uint16_t port) { return static_cast<uint8_t>(bus.read(Space::Port, port, 1)); }
  void indexed(uint16_t port, uint8_t index, uint8_t value) {
    out(port, index);
    out(static_cast<uint16_t>(port + 1), value);
  }
  void attribute(uint8_t index, uint8_t value) {
    (void)in(0x3da);
    out(0x3c0, index);
    out(0x3c0, value);
  }
  void screen_on() {
    (void)in(0x3da);
    out(0x3c0, 0x20);
  }
  void dac(uint8_t index, uint8_t red, uint8_t green, uint8_t blue) {
    out(0x3c8, index);
    for (const uint8_t value : {red, green, blue}) out(0x3c9, value);
  }
  void vbe(uint16_t index, uint16_t value) {
    bus.write(Space::Port, 0x1ce, 2, index);
    bus.write(Space::Port, 0x1cf, 2, value);
  }
  std::array<uint8_t, 3> pixel(const Picture& picture, unsigned x, unsigned y) {
    const auto at = 3 * (size_t{y} * picture.width + x);
    return {picture.rgb.at(at), picture.rgb.at(at + 1), picture.rgb.at(at + 2)};
  }
  // 4 columns and 2 rows of 8 × 16 dots.
  void text_mode() {
    indexed(0x3c4, vga::seq_clocking, 1);
    indexed(0x3c4, vga::seq_map_mask, 4);
    indexed(0x3c4, vga::seq_memory_mode, 7);
    indexed(0x3ce, vga::gfx_misc, 4);
    indexed(0x3ce, vga::gfx_bit_mask, 0xff);
    bus.write(Space::Memory, 0xa0000 + 'A' * 32, 1, 0x81);  // the first line of an A
    indexed(0x3c4, vga::seq_map_mask, 3);
    indexed(0x3c4, vga::seq_memory_mode, 3);
    indexed(0x3ce, vga::gfx_misc, 0x0e);
    indexed(0x3ce, vga::gfx_mode, 0x10);
    indexed(0x3d4, vga::crtc_columns, 3);
    indexed(0x3d4, vga::crtc_offset, 2);
    indexed(0x3d4, vga::crtc_cell_height, 15);
    indexed(0x3d4, vga::crtc_display_end, 31);
    indexed(0x3d4, vga::crtc_cursor_start, 0x20);
    for (uint8_t i = 0; i < 16; ++i) attribute(i, i);
    dac(7, 63, 63, 63);
    dac(1, 0, 0, 63);
    screen_on();
  }

  FakeClock clock;
  Bus bus;
  Vga vga{clock};
};

TEST_F(VgaTest, TextIsDrawnWithTheGuestsFont) {
  text_mode();
  bus.write(Space::Memory, 0xb8000 + 2 * 5, 2, 0x1700 | 'A');  // row 1, column 1: white on blue
  EXPECT_EQ(vga.text(), "\n A\n");
  EXPECT_EQ(bus.read(Space::Memory, 0xb8000 + 2 * 5, 2), 0x1700u | 'A');
  const Picture picture = vga.picture();
  ASSERT_EQ(picture.width, 32u);
  ASSERT_EQ(picture.height, 32u);
  using Rgb = std::array<uint8_t, 3>;
  EXPECT_EQ(pixel(picture, 8, 16), (Rgb{255, 255, 255}));
  EXPECT_EQ(pixel(picture, 9, 16), (Rgb{0, 0, 255}));
  EXPECT_EQ(pixel(picture, 15, 16), (Rgb{255, 255, 255}));
  EXPECT_EQ(pixel(picture, 8, 17), (Rgb{0, 0, 255}));
  EXPECT_EQ(pixel(picture, 0, 0), (Rgb{0, 0, 0}));
}

TEST_F(VgaTest, WriteModesWorkOnPlanes) {
  indexed(0x3ce, vga::gfx_misc, 5);
  indexed(0x3c4, vga::seq_memory_mode, 6);
  indexed(0x3c4, vga::seq_map_mask, 0xf);
  indexed(0x3ce, vga::gfx_bit_mask, 0xff);
  const auto plane = [&](uint8_t number) {
    indexed(0x3ce, vga::gfx_mode, 0);
    indexed(0x3ce, vga::gfx_read_map, number);
    return bus.read(Space::Memory, 0xa0000, 1);
  };
  bus.write(Space::Memory, 0xa0000, 1, 0x3c);
  EXPECT_EQ(plane(0), 0x3cu);
  EXPECT_EQ(plane(3), 0x3cu);
  indexed(0x3ce, vga::gfx_mode, 2);  // a colour into the pixels of the mask, others from the latches
  indexed(0x3ce, vga::gfx_bit_mask, 0x0f);
  bus.write(Space::Memory, 0xa0000, 1, 0x1);
  EXPECT_EQ(plane(0), 0x3fu);
  EXPECT_EQ(plane(1), 0x30u);
  indexed(0x3ce, vga::gfx_mode, 1);  // latches alone
  bus.write(Space::Memory, 0xa0001, 1, 0xff);
  indexed(0x3ce, vga::gfx_mode, 8);  // compare: which pixels have colour 1
  indexed(0x3ce, vga::gfx_compare, 1);
  indexed(0x3ce, vga::gfx_compare_care, 0xf);
  EXPECT_EQ(bus.read(Space::Memory, 0xa0000, 1), 0x0fu);
}

TEST_F(VgaTest, LinearModesOfAllDepths) {
  const auto set = [&](uint16_t depth) {
    vbe(vga::vbe_enable, 0);
    vbe(vga::vbe_width, 16);
    vbe(vga::vbe_height, 4);
    vbe(vga::vbe_depth, depth);
    vbe(vga::vbe_enable, 0x41);
  };
  using Rgb = std::array<uint8_t, 3>;
  set(32);
  vga.write(Vga::frame_buffer, 4 * (16 * 2 + 3), 4, 0x00a1b2c3);
  EXPECT_EQ(pixel(vga.picture(), 3, 2), (Rgb{0xa1, 0xb2, 0xc3}));
  set(16);
  vga.write(Vga::frame_buffer, 2, 2, 0xf800);
  EXPECT_EQ(pixel(vga.picture(), 1, 0), (Rgb{255, 0, 0}));
  EXPECT_EQ(pixel(vga.picture(), 3, 2), (Rgb{0, 0, 0}));  // cleared by the change of mode
  set(15);
  vga.write(Vga::frame_buffer, 0, 2, 0x03e0);
  EXPECT_EQ(pixel(vga.picture(), 0, 0), (Rgb{0, 255, 0}));
  set(8);
  dac(9, 63, 0, 0);
  vga.write(Vga::frame_buffer, 5, 1, 9);
  EXPECT_EQ(pixel(vga.picture(), 5, 0), (Rgb{255, 0, 0}));
  // By BAR 2 as by ports.
  EXPECT_EQ(vga.read(Vga::registers, 0x500 + 2 * vga::vbe_width, 2), 16u);
}

TEST_F(VgaTest, EveryRegisterAtItsWorstGivesAPicture) {
  for (const unsigned pattern : {0x00u, 0x55u, 0xaau, 0xffu}) {
    const auto value = static_cast<uint8_t>(pattern);
    for (uint8_t i = 0; i < 32; ++i) {
      for (const unsigned port : {0x3c4u, 0x3ceu, 0x3d4u}) indexed(static_cast<uint16_t>(port), i, value);
      attribute(i, value);
    }
    screen_on();
    for (uint16_t i = 0; i < 16; ++i) vbe(i, value == 0xff ? 0xffff : static_cast<uint16_t>(value << 4));
    const Picture picture = vga.picture();
    EXPECT_EQ(picture.rgb.size(), size_t{3} * picture.width * picture.height);
    vbe(vga::vbe_enable, 0);
    (void)vga.picture();
    (void)vga.text();
    for (uint64_t at = 0xa0000; at < 0xc0000; at += 0x0fff) {
      bus.write(Space::Memory, at, 8, at);
      (void)bus.read(Space::Memory, at, 8);
    }
  }
}

TEST_F(VgaTest, WhatAnEngineWritesPastItIsAChange) {
  class Binder final : public DirectBinder {
   public:
    bool bind(uint64_t, std::span<uint8_t> given, bool writable) override {
      EXPECT_TRUE(writable);
      memory = given;
      return true;
    }
    void unbind(uint64_t) override { memory = {}; }
    bool written(uint64_t) override { return std::exchange(dirty, false); }
    std::span<uint8_t> memory;
    bool dirty = false;
  } binder;
  bus.set_direct_binder(&binder);
  bus.map(Space::Memory, 0xd000'0000, Vga::memory_size, vga, Vga::frame_buffer);
  ASSERT_EQ(binder.memory.size(), Vga::memory_size);
  vga.start_linear(64, 64);
  const uint64_t before = vga.changes();
  EXPECT_EQ(vga.changes(), before);
  binder.memory[64 * 4 + 5] = 0x66;
  binder.dirty = true;
  EXPECT_GT(vga.changes(), before);
  EXPECT_EQ(pixel(vga.picture(), 1, 1), (std::array<uint8_t, 3>{0, 0x66, 0}));
  vga.reset();
  EXPECT_EQ(binder.memory[64 * 4 + 5], 0);
  bus.set_direct_binder(nullptr);
}

TEST_F(VgaTest, RoundTrip) {
  test_support::expect_round_trip<Vga>(vga, [](Vga::State& state) {
    fields::Buffer config;
    FakeClock other_clock;
    Vga fresh(other_clock);
    Vga::State good;
    ASSERT_TRUE(fields::restore(good, test_support::saved(fresh)));
    state.config = good.config;
    state.config.bytes[pci::interrupt_line] = 5;
    state.memory.data.resize(Vga::memory_size);
    state.memory.data[77] = 1;
  });
}

TEST_F(VgaTest, StartsWithALinearPictureForAKernel) {
  const uint64_t before = vga.changes();
  vga.start_linear(1024, 768);
  EXPECT_GT(vga.changes(), before);
  EXPECT_EQ(vga.size(), (std::pair{1024u, 768u}));
  vga.write(Vga::frame_buffer, 4096 + 4, 4, 0x00112233);
  const Picture picture = vga.picture();
  EXPECT_EQ(pixel(picture, 1, 1), (std::array<uint8_t, 3>{0x11, 0x22, 0x33}));
  EXPECT_EQ(pixel(picture, 0, 1), (std::array<uint8_t, 3>{0, 0, 0}));
  EXPECT_EQ(vga.config_read(pci::command, 2) & pci::command_memory, pci::command_memory);
  EXPECT_TRUE(vga.text().empty());
  vga.reset();
  EXPECT_NE(vga.size(), (std::pair{1024u, 768u}));
}

}  // namespace
}  // namespace caisson::display
