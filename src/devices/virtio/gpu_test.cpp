// The screen as Linux's virtio_gpu driver draws to it.
#include "devices/virtio/gpu.h"

#include <gtest/gtest.h>

#include <numeric>
#include <string>

#include "devices/device_test_support.h"
#include "devices/virtio/test_machine.h"

namespace caisson::virtio {
namespace {

using namespace gpu;
using Pixel = std::array<uint8_t, 3>;

constexpr unsigned slot = 1;
constexpr Gpa request_at = 0x50'0000, answer_at = 0x50'8000, data = 0x60'0000;

class GpuTest : public EachRing {
 protected:
  GpuTest() {
    driver.emplace(machine, slot);
    driver->enable_msix();
    driver->start(GetParam().features | feature_edid, 2);
    EXPECT_EQ(driver->status() & status::needs_reset, 0);
  }
  // The type of the answer, whose bytes are in `answer`.
  template <class Body>
  Answer send(Command command, const Body& body, std::span<const MemoryEntry> entries = {}, unsigned queue = 0) {
    std::vector<uint8_t> bytes(sizeof(Header) + sizeof body + entries.size_bytes());
    const Header header{.type = static_cast<uint32_t>(command), .flags = flag_fence, .fence = ++fence};
    std::memcpy(bytes.data(), &header, sizeof header);
    std::memcpy(bytes.data() + sizeof header, &body, sizeof body);
    if (!entries.empty()) {
      std::memcpy(bytes.data() + sizeof header + sizeof body, entries.data(), entries.size_bytes());
    }
    DriverQueue& ring = driver->queues[queue];
    ring.put_bytes(request_at, bytes);
    // In two pieces, as a driver may.
    ring.add({{request_at, 20, false},
              {request_at + 20, static_cast<uint32_t>(bytes.size() - 20), false},
              {answer_at, 2048, true}},
             GetParam().indirect);
    driver->kick(queue);
    machine.run_posted();
    const auto used = ring.take_used();
    EXPECT_TRUE(used.has_value());
    if (!used) return Answer::unspecified;
    answer.resize(used->length);
    EXPECT_TRUE(machine.memory->read(answer_at, answer));
    Header back;
    std::memcpy(&back, answer.data(), sizeof back);
    EXPECT_EQ(back.flags, flag_fence);
    EXPECT_EQ(back.fence, fence);
    return static_cast<Answer>(back.type);
  }
  struct Nothing {};
  uint32_t word(size_t index) {
    uint32_t value = 0;
    std::memcpy(&value, answer.data() + sizeof(Header) + 4 * index, 4);
    return value;
  }
  Answer create(uint32_t id, uint32_t width, uint32_t height, Format format = Format::B8G8R8X8) {
    return send(Command::resource_create_2d, Create2d{id, static_cast<uint32_t>(format), width, height});
  }
  // Pixels one after the other in pieces of 1000 bytes.
  Answer attach(uint32_t id, uint32_t bytes) {
    std::vector<MemoryEntry> entries;
    for (uint32_t at = 0; at < bytes; at += 1000) entries.push_back({data + at, std::min(1000u, bytes - at), 0});
    return send(Command::resource_attach_backing, AttachBacking{id, static_cast<uint32_t>(entries.size())}, entries);
  }
  void fill(uint32_t bytes) {
    std::vector<uint8_t> pixels(bytes);
    for (uint32_t i = 0; i < bytes; ++i) pixels[i] = static_cast<uint8_t>(i * 7 + i / 256);
    ASSERT_TRUE(machine.memory->write(data, pixels));
  }
  static uint8_t filled(uint32_t at) { return static_cast<uint8_t>(at * 7 + at / 256); }
  Pixel pixel(unsigned x, unsigned y) {
    const auto picture = device.picture();
    const size_t at = 3 * (size_t{y} * picture.width + x);
    return {picture.rgb.at(at), picture.rgb.at(at + 1), picture.rgb.at(at + 2)};
  }

  TestMachine machine;
  Gpu& device = add_gpu(machine.bridge, machine.services);
  std::optional<TestDriver> driver;
  std::vector<uint8_t> answer;
  uint64_t fence = 0;
};

INSTANTIATE_TEST_SUITE_P(Rings, GpuTest, testing::ValuesIn(ring_choices));

TEST_P(GpuTest, SaysHowLargeItWouldBe) {
  EXPECT_EQ(driver->read(VirtioPci::device_offset + 8, 4), 1u) << "scanouts";
  ASSERT_EQ(send(Command::get_display_info, Nothing{}), Answer::ok_display_info);
  EXPECT_EQ(answer.size(), 408u);
  EXPECT_EQ(word(2), 1024u);
  EXPECT_EQ(word(3), 768u);
  EXPECT_EQ(word(4), 1u);
  EXPECT_TRUE(device.want_size(800, 600));
  EXPECT_EQ(driver->read(VirtioPci::device_offset, 4), event_display);
  ASSERT_EQ(send(Command::get_display_info, Nothing{}), Answer::ok_display_info);
  EXPECT_EQ(word(2), 800u);
  driver->write(VirtioPci::device_offset + 4, 4, event_display);
  EXPECT_EQ(driver->read(VirtioPci::device_offset, 4), 0u);
  ASSERT_EQ(send(Command::get_edid, GetEdid{}), Answer::ok_edid);
  ASSERT_EQ(word(0), 128u);
  const auto edid = std::span(answer).subspan(sizeof(Header) + 8, 128);
  EXPECT_EQ(std::accumulate(edid.begin(), edid.end(), 0u) % 256, 0u);
  EXPECT_EQ(edid[54 + 2] | (edid[54 + 4] & 0xf0) << 4, 800);
  EXPECT_EQ(edid[54 + 5] | (edid[54 + 7] & 0xf0) << 4, 600);
  EXPECT_EQ(send(Command::get_edid, GetEdid{.scanout = 1}), Answer::invalid_scanout);
}

TEST_P(GpuTest, ShowsWhatTheDriverHasDrawn) {
  EXPECT_EQ(pixel(5, 5), (Pixel{0, 0, 0}));
  ASSERT_EQ(create(7, 40, 30), Answer::ok);
  fill(40 * 30 * 4);
  ASSERT_EQ(attach(7, 40 * 30 * 4), Answer::ok);
  ASSERT_EQ(send(Command::set_scanout, SetScanout{{0, 0, 40, 30}, 0, 7}), Answer::ok);
  EXPECT_EQ(device.size(), (std::pair{40u, 30u}));
  EXPECT_EQ(pixel(5, 5), (Pixel{0, 0, 0})) << "not taken over yet";
  ASSERT_EQ(send(Command::transfer_to_host_2d, Transfer{{0, 0, 40, 30}, 0, 7}), Answer::ok);
  const uint64_t before = device.changes();
  ASSERT_EQ(send(Command::resource_flush, Flush{{0, 0, 40, 30}, 7}), Answer::ok);
  EXPECT_GT(device.changes(), before);
  for (const auto& [x, y] : {std::pair{0u, 0u}, {39u, 29u}, {13u, 20u}}) {
    const uint32_t at = (y * 40 + x) * 4;
    EXPECT_EQ(pixel(x, y), (Pixel{filled(at + 2), filled(at + 1), filled(at)}));
  }
  // A part, whose first pixel is at its offset.
  const std::vector<uint8_t> white(40 * 30 * 4, 0xff);
  ASSERT_TRUE(machine.memory->write(data, white));
  ASSERT_EQ(send(Command::transfer_to_host_2d, Transfer{{10, 5, 3, 2}, (5 * 40 + 10) * 4, 7}), Answer::ok);
  EXPECT_EQ(pixel(10, 5), (Pixel{255, 255, 255}));
  EXPECT_EQ(pixel(12, 6), (Pixel{255, 255, 255}));
  EXPECT_NE(pixel(13, 6), (Pixel{255, 255, 255}));
  EXPECT_NE(pixel(9, 5), (Pixel{255, 255, 255}));
  EXPECT_NE(pixel(10, 7), (Pixel{255, 255, 255}));
  // A window of the resource, and nothing.
  ASSERT_EQ(send(Command::set_scanout, SetScanout{{10, 5, 16, 16}, 0, 7}), Answer::ok);
  EXPECT_EQ(device.size(), (std::pair{16u, 16u}));
  EXPECT_EQ(pixel(0, 0), (Pixel{255, 255, 255}));
  ASSERT_EQ(send(Command::resource_unref, OfResource{7}), Answer::ok);
  EXPECT_EQ(device.size(), (std::pair{1024u, 768u}));
}

TEST_P(GpuTest, FormatsAndTheCursor) {
  constexpr std::array<uint8_t, 4> bytes{10, 20, 30, 40};
  ASSERT_TRUE(machine.memory->write(data, bytes));
  const auto shows = [&](Format format) {
    EXPECT_EQ(create(1, 16, 16, format), Answer::ok);
    EXPECT_EQ(attach(1, 16 * 16 * 4), Answer::ok);
    EXPECT_EQ(send(Command::transfer_to_host_2d, Transfer{{0, 0, 1, 1}, 0, 1}), Answer::ok);
    EXPECT_EQ(send(Command::set_scanout, SetScanout{{0, 0, 16, 16}, 0, 1}), Answer::ok);
    const Pixel out = pixel(0, 0);
    EXPECT_EQ(send(Command::resource_unref, OfResource{1}), Answer::ok);
    return out;
  };
  EXPECT_EQ(shows(Format::B8G8R8A8), (Pixel{30, 20, 10}));
  EXPECT_EQ(shows(Format::X8R8G8B8), (Pixel{20, 30, 40}));
  EXPECT_EQ(shows(Format::R8G8B8X8), (Pixel{10, 20, 30}));
  EXPECT_EQ(shows(Format::A8B8G8R8), (Pixel{40, 30, 20}));

  std::vector<uint8_t> pixels(64 * 64 * 4);
  pixels[0] = 100, pixels[3] = 128;  // half of what is behind
  pixels[64 * 64 * 4 - 2] = 200, pixels[64 * 64 * 4 - 1] = 255;
  ASSERT_TRUE(machine.memory->write(data, pixels));
  ASSERT_EQ(create(2, 64, 64, Format::B8G8R8A8), Answer::ok);
  ASSERT_EQ(attach(2, 64 * 64 * 4), Answer::ok);
  ASSERT_EQ(send(Command::transfer_to_host_2d, Transfer{{0, 0, 64, 64}, 0, 2}), Answer::ok);
  ASSERT_EQ(create(3, 100, 100), Answer::ok);
  ASSERT_EQ(send(Command::set_scanout, SetScanout{{0, 0, 100, 100}, 0, 3}), Answer::ok);
  ASSERT_EQ(send(Command::update_cursor, Cursor{.x = 12, .y = 13, .resource = 2, .hot_x = 2, .hot_y = 3}, {}, 1),
            Answer::ok);
  EXPECT_EQ(pixel(10, 10), (Pixel{0, 0, 100}));
  EXPECT_EQ(pixel(73, 73), (Pixel{200, 0, 0}));
  EXPECT_EQ(pixel(74, 73), (Pixel{0, 0, 0}));
  // For viewers that draw it.
  const auto pointer = device.pointer();
  ASSERT_TRUE(pointer);
  EXPECT_EQ(pointer->hot_y, 3u);
  EXPECT_EQ(pointer->pixels.front(), 0x8000'0064u);
  EXPECT_EQ(pointer->pixels.back(), 0xffc8'0000u);
  EXPECT_EQ(device.picture_below_pointer().rgb, std::vector<uint8_t>(3 * 100 * 100));
  // Beyond the edges.
  ASSERT_EQ(send(Command::move_cursor, Cursor{.x = ~0u, .y = 99}, {}, 1), Answer::ok);
  (void)device.picture();
  ASSERT_EQ(send(Command::update_cursor, Cursor{.x = 12, .y = 13, .resource = 3}, {}, 1), Answer::ok);
  EXPECT_EQ(pixel(12, 13), (Pixel{0, 0, 0})) << "not the size of a cursor";
  EXPECT_FALSE(device.pointer());
}

TEST_P(GpuTest, RefusesWhatCannotBe) {
  EXPECT_EQ(send(static_cast<Command>(0x999), Nothing{}), Answer::unspecified);
  EXPECT_EQ(send(Command::resource_create_2d, Nothing{}), Answer::invalid_parameter) << "cut short";
  EXPECT_EQ(create(0, 16, 16), Answer::invalid_resource);
  EXPECT_EQ(create(1, 0, 16), Answer::invalid_parameter);
  EXPECT_EQ(create(1, 16, Gpu::largest + 1), Answer::invalid_parameter);
  EXPECT_EQ(create(1, 16, 16, static_cast<Format>(5)), Answer::invalid_parameter);
  ASSERT_EQ(create(1, 32, 32), Answer::ok);
  EXPECT_EQ(create(1, 32, 32), Answer::invalid_resource);
  EXPECT_EQ(send(Command::set_scanout, SetScanout{{0, 0, 32, 32}, 1, 1}), Answer::invalid_scanout);
  EXPECT_EQ(send(Command::set_scanout, SetScanout{{1, 0, 32, 32}, 0, 1}), Answer::invalid_parameter);
  EXPECT_EQ(send(Command::set_scanout, SetScanout{{~0u, 0, 32, 32}, 0, 1}), Answer::invalid_parameter);
  EXPECT_EQ(send(Command::set_scanout, SetScanout{{0, 0, 32, 32}, 0, 2}), Answer::invalid_resource);
  EXPECT_EQ(send(Command::transfer_to_host_2d, Transfer{{0, 0, 32, 32}, 0, 1}), Answer::invalid_parameter)
      << "no backing";
  ASSERT_EQ(attach(1, 32 * 32 * 4), Answer::ok);
  EXPECT_EQ(attach(1, 4), Answer::unspecified) << "it has one";
  EXPECT_EQ(send(Command::transfer_to_host_2d, Transfer{{0, 0, 32, 32}, 4, 1}), Answer::invalid_parameter);
  EXPECT_EQ(send(Command::transfer_to_host_2d, Transfer{{0, 0, 32, 32}, ~uint64_t{0} - 64, 1}),
            Answer::invalid_parameter);
  EXPECT_EQ(send(Command::transfer_to_host_2d, Transfer{{0, ~0u, 32, 2}, 0, 1}), Answer::invalid_parameter);
  ASSERT_EQ(send(Command::resource_detach_backing, OfResource{1}), Answer::ok);
  const std::array<MemoryEntry, 1> outside{MemoryEntry{uint64_t{1} << 50, 4096, 0}};
  EXPECT_EQ(send(Command::resource_attach_backing, AttachBacking{1, 1}, outside), Answer::invalid_parameter);
  EXPECT_EQ(send(Command::resource_attach_backing, AttachBacking{1, 2}, outside), Answer::invalid_parameter);
  EXPECT_EQ(send(Command::resource_attach_backing, AttachBacking{1, ~0u}), Answer::out_of_memory);
  // No more memory than is allowed, whatever was before.
  ASSERT_EQ(create(2, 4096, 4096), Answer::ok);
  EXPECT_EQ(create(3, 4096, 4096), Answer::out_of_memory);
  ASSERT_EQ(send(Command::resource_unref, OfResource{1}), Answer::ok);
  EXPECT_EQ(create(3, 4096, 4096), Answer::ok);
  EXPECT_EQ(create(4, 16, 16), Answer::out_of_memory);
  driver->set_status(0);
  driver->start(GetParam().features, 2);
  EXPECT_EQ(create(4, 4096, 4096), Answer::ok) << "a reset has freed all";
}

TEST_P(GpuTest, RoundTrip) {
  ASSERT_EQ(create(1, 64, 64), Answer::ok);
  ASSERT_EQ(attach(1, 64 * 64 * 4), Answer::ok);
  fill(64 * 64 * 4);
  ASSERT_EQ(send(Command::transfer_to_host_2d, Transfer{{0, 0, 64, 64}, 0, 1}), Answer::ok);
  ASSERT_EQ(send(Command::set_scanout, SetScanout{{0, 0, 64, 64}, 0, 1}), Answer::ok);
  const auto picture = device.picture().rgb;
  const auto saved = test_support::saved(device);
  Gpu::State state;
  ASSERT_TRUE(fields::restore(state, saved));
  test_support::expect_round_trip<Gpu>(device, [&](Gpu::State& changed) {
    changed.resources = state.resources;
    changed.wanted_width = 500;
    changed.wanted_height = 400;
    changed.shown = changed.cursor = 1;
    changed.x = changed.y = 1;
    changed.width = changed.height = 20;
  });
  device.stop();
  ASSERT_TRUE(device.restore(saved));
  EXPECT_EQ(device.picture().rgb, picture);
  // It goes on with its backing.
  ASSERT_EQ(send(Command::transfer_to_host_2d, Transfer{{0, 0, 64, 64}, 0, 1}), Answer::ok);
  const auto refused = [&](auto damage) {
    Gpu::State damaged = state;
    damage(damaged);
    fields::Buffer out;
    fields::save(damaged, out);
    return !device.restore(out).has_value();
  };
  EXPECT_TRUE(refused([](Gpu::State& it) { it.shown = 2; }));
  EXPECT_TRUE(refused([](Gpu::State& it) { it.x = 1; }));
  EXPECT_TRUE(refused([](Gpu::State& it) { it.wanted_width = 0; }));
  EXPECT_TRUE(refused([](Gpu::State& it) { it.resources.data.pop_back(); }));
  EXPECT_TRUE(refused([](Gpu::State& it) { it.resources.data[8] = 65; })) << "wider than its pixels";
  EXPECT_EQ(device.picture().rgb, picture);
}

}  // namespace
}  // namespace caisson::virtio
