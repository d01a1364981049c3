#include "devices/firmware/flash.h"

#include <gtest/gtest.h>

#include <cstring>

#include "bus/bus.h"
#include "devices/device_test_support.h"

namespace caisson {
namespace {

constexpr uint64_t base = 0xffc0'0000, size = 132 * Flash::block_size;

class FlashTest : public testing::Test {
 protected:
  FlashTest() {
    std::vector<uint8_t> content(size, 0xff);
    for (size_t i = 0; i < 256; ++i) content[i] = static_cast<uint8_t>(i + 1);
    stored = content;
    make(content);
  }
  void make(const std::vector<uint8_t>& content) {
    flash.reset();
    flash = std::make_unique<Flash>(content, [this](uint64_t offset, std::span<const uint8_t> bytes) -> Result<> {
      if (broken) return fail("no room");
      ++stores;
      std::memcpy(&stored[offset], bytes.data(), bytes.size());
      return {};
    });
    flash->map(bus, base);
  }
  std::vector<uint8_t> content() const { return {flash->content().begin(), flash->content().end()}; }
  void put(uint64_t offset, std::initializer_list<uint8_t> bytes) {
    for (const uint8_t byte : bytes) bus.write(Space::Memory, base + offset, 1, byte);
  }
  uint8_t get(uint64_t offset) { return static_cast<uint8_t>(bus.read(Space::Memory, base + offset, 1)); }

  std::vector<uint8_t> stored;
  unsigned stores = 0;
  bool broken = false;
  Bus bus;
  std::unique_ptr<Flash> flash;
};

TEST_F(FlashTest, IsReadAsMemoryAtFirst) {
  EXPECT_EQ(get(0), 1);
  EXPECT_EQ(bus.read(Space::Memory, base + 7, 8), 0x0f0e'0d0c'0b0a'0908u);
  EXPECT_EQ(bus.read(Space::Memory, base + size - 8, 8), ~uint64_t{0});
  put(5, {0x12});  // no command
  EXPECT_EQ(get(5), 6);
}

// Engines may read the array themselves while that is what reads give, and see what is in the store then.
TEST_F(FlashTest, EnginesReadTheArrayOnlyWhileItIsRead) {
  class Binder final : public DirectBinder {
   public:
    bool bind(uint64_t address, std::span<uint8_t> memory, bool writable) override {
      EXPECT_EQ(address, base);
      EXPECT_FALSE(writable);
      shown = memory;
      return true;
    }
    void unbind(uint64_t) override { shown = {}; }
    bool written(uint64_t) override { return false; }
    std::span<uint8_t> shown;
  } binder;
  bus.set_direct_binder(&binder);
  ASSERT_EQ(binder.shown.size(), size);
  EXPECT_EQ(binder.shown[5], 6);
  for (const unsigned command : {0x10u, 0x20u, 0x60u, 0x70u, 0x90u, 0x98u, 0xe8u}) {
    put(0x2000, {static_cast<uint8_t>(command)});
    EXPECT_TRUE(binder.shown.empty()) << command;
    make(content());
    EXPECT_FALSE(binder.shown.empty()) << command;
  }
  put(0x2000, {0x10, 0x00});
  EXPECT_TRUE(binder.shown.empty());
  EXPECT_EQ(stored[0x2000], 0xff);
  put(0x2000, {0xff});
  ASSERT_FALSE(binder.shown.empty());
  EXPECT_EQ(binder.shown[0x2000], 0x00);
  EXPECT_EQ(stored[0x2000], 0x00);
  put(0x2000, {0x70});
  EXPECT_TRUE(binder.shown.empty());
  flash->reset();
  EXPECT_FALSE(binder.shown.empty());
  bus.set_direct_binder(nullptr);
  EXPECT_TRUE(binder.shown.empty());
}

// As OVMF finds out whether there is a flash memory, RAM or ROM.
TEST_F(FlashTest, IsKnownByItsClearedStatus) {
  put(0, {0x50});
  EXPECT_EQ(get(0), 1);
  put(0, {0x70});
  EXPECT_EQ(get(0), 0);
  put(0, {0xff});
  EXPECT_EQ(get(0), 1);
}

TEST_F(FlashTest, ProgrammingClearsBitsAndErasingSetsThem) {
  put(0x1003, {0x10, 0x5a});
  EXPECT_EQ(get(0x1003), 0x80);  // its status
  put(0, {0xff});
  EXPECT_EQ(get(0x1003), 0x5a);
  put(0x1003, {0x40, 0xa5, 0xff});
  EXPECT_EQ(get(0x1003), 0x00);
  EXPECT_EQ(get(0x1002), 0xff);
  put(0x1fff, {0x20, 0xd0, 0xff});
  EXPECT_EQ(get(0x1003), 0xff);
  EXPECT_EQ(get(0xfff), 0xff);
  EXPECT_EQ(get(0), 1);
  EXPECT_EQ(stored, content());
}

TEST_F(FlashTest, WhatIsDoneIsStoredBeforeTheGuestSeesIt) {
  for (unsigned i = 0; i < 16; ++i) put(0x2000 + i, {0x10, static_cast<uint8_t>(i)});
  EXPECT_EQ(stores, 0u);
  put(0x2000, {0xff});
  EXPECT_EQ(stores, 1u);
  EXPECT_EQ(stored, content());
  put(0x2000, {0x20, 0xd0});
  EXPECT_EQ(stores, 1u);
  EXPECT_EQ(get(0), 0x80);
  EXPECT_EQ(stores, 2u);
  EXPECT_EQ(stored, content());
  put(0x3000, {0x10, 0});
  flash->reset();
  EXPECT_EQ(stored[0x3000], 0);
  EXPECT_EQ(get(0), 1);
  put(0x3000, {0x10, 0xff, 0xff});  // changes nothing
  EXPECT_EQ(stores, 3u);
  put(0x3001, {0x10, 0});
  make(stored);  // the end of the first
  EXPECT_EQ(stored[0x3001], 0);
}

TEST_F(FlashTest, WhatCannotBeStoredIsAnErrorAndIsTriedAgain) {
  broken = true;
  put(0x2000, {0x10, 0});
  EXPECT_EQ(get(0x2000), 0x80 | 0x38);
  broken = false;
  put(0x2000, {0x50, 0x70});
  EXPECT_EQ(get(0x2000), 0);
  EXPECT_EQ(stored[0x2000], 0);
}

TEST_F(FlashTest, ABufferIsProgrammedAtOnce) {
  put(0x2040, {0xe8});
  EXPECT_EQ(get(0x2040), 0x80);
  put(0x2040, {3});
  for (uint8_t i = 0; i < 4; ++i) put(0x2050u + i, {i});
  put(0x2040, {0xd0});
  EXPECT_EQ(get(0x2040), 0x80);
  put(0x2040, {0xff});
  EXPECT_EQ(bus.read(Space::Memory, base + 0x2050, 4), 0x0302'0100u);
  EXPECT_EQ(get(0x204f), 0xff);
  EXPECT_EQ(get(0x2054), 0xff);
  // As many bytes as there are, by writes of 8.
  put(0x2080, {0xe8, Flash::buffer_size - 1});
  for (unsigned i = 0; i < Flash::buffer_size; i += 8) bus.write(Space::Memory, base + 0x2080 + i, 8, 0);
  put(0x2080, {0xd0, 0xff});
  EXPECT_EQ(bus.read(Space::Memory, base + 0x20b8, 8), 0u);
  EXPECT_EQ(get(0x20c0), 0xff);
}

TEST_F(FlashTest, WrongSequencesAreErrorsAndChangeNothing) {
  const auto before = content();
  const auto expect_refused = [&](const char* what) {
    EXPECT_EQ(get(0) & 0xb0, 0xb0) << what;
    put(0, {0x50});
    EXPECT_EQ(content(), before) << what;
  };
  put(0x2000, {0x20, 0x10});
  expect_refused("an erase that is not confirmed");
  put(0x2000, {0xe8, Flash::buffer_size});
  expect_refused("too large a buffer");
  put(0x2000, {0xe8, 1});
  put(0x203f, {0});
  put(0x2040, {0});
  expect_refused("a buffer in two parts");
  put(0x2000, {0xe8, 0});
  put(0x3000, {0});
  expect_refused("a buffer in another block");
  put(0x2000, {0xe8, 0, 0, 0x11});
  expect_refused("a buffer that is not confirmed");
  put(0x2000, {0x60, 0x33});
  expect_refused("no kind of lock");
}

TEST_F(FlashTest, LocksProtectABlock) {
  put(0x1000, {0x60, 0x01});
  put(0x1002, {0x90});
  EXPECT_EQ(get(0x1002), 1);
  EXPECT_EQ(get(0x2002), 0);
  EXPECT_EQ(get(0x1000), 0x89);
  put(0x1000, {0x10, 0});
  EXPECT_EQ(get(0), 0x92);
  put(0, {0x50});
  put(0x1000, {0x20, 0xd0});
  EXPECT_EQ(get(0), 0xa2);
  put(0, {0x50});
  put(0x1000, {0xe8, 0, 0, 0xd0});
  EXPECT_EQ(get(0), 0x92);
  put(0, {0x50});
  EXPECT_EQ(get(0x1000), 0xff);
  put(0x1fff, {0x60, 0xd0});
  put(0x1000, {0x10, 0x77, 0xff});
  EXPECT_EQ(get(0x1000), 0x77);
}

TEST_F(FlashTest, TellsOfItselfByCfi) {
  put(0x55, {0x98});
  EXPECT_EQ(get(0x10), 'Q');
  EXPECT_EQ(get(0x11), 'R');
  EXPECT_EQ(get(0x12), 'Y');
  EXPECT_EQ(get(0x13), 1);
  EXPECT_GE(uint64_t{1} << get(0x27), size);
  EXPECT_LT(uint64_t{1} << (get(0x27) - 1), size);
  EXPECT_EQ(1u << get(0x2a), Flash::buffer_size);
  EXPECT_EQ(get(0x2d) + 256 * get(0x2e) + 1, 132);
  EXPECT_EQ(256 * (get(0x2f) + 256 * get(0x30)), int{Flash::block_size});
  EXPECT_EQ(get(get(0x15)), 'P');
}

TEST_F(FlashTest, RoundTrip) {
  put(0, {0xe8, 3});
  test_support::expect_round_trip<Flash>(*flash, [](Flash::State& state) {
    state.mode = Flash::Mode::Query;
    state.next = Flash::Next::BufferData;
    state.block = 0x3000;
    state.buffer_at = 0x3040;
    state.buffered = 5;
  });
  Flash::State wrong;
  for (const auto spoil :
       {+[](Flash::State& s) { s.mode = static_cast<Flash::Mode>(4); },
        +[](Flash::State& s) { s.next = static_cast<Flash::Next>(7); }, +[](Flash::State& s) { s.block = 0x1001; },
        +[](Flash::State& s) { s.block = size; }, +[](Flash::State& s) { s.buffered = Flash::buffer_size; },
        +[](Flash::State& s) { s.buffer_at = 0x1000; }, +[](Flash::State& s) { s.buffer_at = size; }}) {
    wrong = {};
    spoil(wrong);
    fields::Buffer bytes;
    fields::save(wrong, bytes);
    EXPECT_FALSE(flash->restore(bytes));
  }
}

}  // namespace
}  // namespace caisson
