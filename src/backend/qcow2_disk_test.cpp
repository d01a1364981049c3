#include "backend/qcow2_disk.h"

#include <cerrno>
#include <memory>
#include <random>

#include "backend/qcow2/test_images.h"
#include "backend/test_support.h"

namespace caisson {
namespace {

using qcow2::test::Bytes;

// Every test runs once on io_uring, where the host has it, and once on threads.
class Qcow2DiskTest : public test::LoopTest, public testing::WithParamInterface<bool> {
 protected:
  void make(uint64_t size, unsigned cluster_bits = 16) {
    qcow2::test::make_image(path, {.size = size, .cluster_bits = cluster_bits});
    open();
  }
  void open(bool read_only = false, std::unique_ptr<qcow2::Source> backing = nullptr) {
    auto image = qcow2::test::open_image(path, {.read_only = read_only, .backing = std::move(backing)});
    ASSERT_NE(image, nullptr);
    auto made = Qcow2Disk::create(*loop, std::move(image), {.name = path, .id = "serial", .use_io_uring = GetParam()});
    ASSERT_TRUE(made) << made.error().message;
    disk = std::move(*made);
  }
  void close() {
    const std::lock_guard lock{guard};
    disk.reset();
  }
  void TearDown() override { close(); }

  void submit(BlockOp op, uint64_t offset, uint64_t length, std::vector<iovec> buffers, std::function<void(int)> done) {
    const std::lock_guard lock{guard};
    disk->submit(
        {.op = op, .offset = offset, .length = length, .buffers = std::move(buffers), .done = std::move(done)});
  }
  int run(BlockOp op, uint64_t offset = 0, uint64_t length = 0, std::vector<iovec> buffers = {}) {
    int result = -1;
    submit(op, offset, length, std::move(buffers), [&](int error) { result = error; });
    EXPECT_EQ(result, -1) << "completed inside submit";
    EXPECT_TRUE(run_until([&] { return result != -1; }));
    return result;
  }
  int write(uint64_t offset, Bytes bytes) {
    return run(BlockOp::Write, offset, bytes.size(), {{bytes.data(), bytes.size()}});
  }
  Bytes read(uint64_t offset, size_t size) {
    Bytes bytes(size, 0xee);
    EXPECT_EQ(run(BlockOp::Read, offset, size, {{bytes.data(), size}}), 0);
    return bytes;
  }

  test::TemporaryFolder folder;
  std::string path = folder.file("disk.qcow2");
  std::unique_ptr<Qcow2Disk> disk;
};

TEST_P(Qcow2DiskTest, ReportsWhatItIs) {
  make(1 << 20);
  EXPECT_EQ(disk->size(), 1u << 20);
  EXPECT_FALSE(disk->read_only());
  EXPECT_EQ(disk->id(), "serial");
  EXPECT_EQ(disk->block_size(), 4096u);
}

TEST_P(Qcow2DiskTest, WritesAndReadsBack) {
  make(1 << 20);
  EXPECT_EQ(read(0, 8192), Bytes(8192, 0));
  EXPECT_EQ(write(4096, Bytes(200704, 7)), 0);
  EXPECT_EQ(write(8192, Bytes(512, 9)), 0);  // in place
  Bytes wanted(204800, 7);
  std::fill_n(wanted.begin(), 4096, uint8_t{0});
  std::fill_n(wanted.begin() + 8192, 512, uint8_t{9});
  EXPECT_EQ(read(0, wanted.size()), wanted);
  EXPECT_EQ(run(BlockOp::Discard, 65536, 65536), 0);
  EXPECT_EQ(run(BlockOp::WriteZeroes, 8192, 512), 0);
  std::fill_n(wanted.begin() + 65536, 65536, uint8_t{0});
  std::fill_n(wanted.begin() + 8192, 512, uint8_t{0});
  EXPECT_EQ(read(0, wanted.size()), wanted);
  EXPECT_EQ(run(BlockOp::Flush), 0);
  close();
  qcow2::test::expect_clean(path);
  open(true);
  EXPECT_EQ(read(0, wanted.size()), wanted);
}

TEST_P(Qcow2DiskTest, RefusesWhatIsOutside) {
  make(1 << 20);
  Bytes bytes(1024);
  EXPECT_EQ(run(BlockOp::Read, 1 << 20, 512, {{bytes.data(), 512}}), EINVAL);
  EXPECT_EQ(run(BlockOp::Write, (1 << 20) - 512, 1024, {{bytes.data(), 1024}}), EINVAL);
  EXPECT_EQ(run(BlockOp::Read, 1, 512, {{bytes.data(), 512}}), EINVAL);
  EXPECT_EQ(run(BlockOp::Discard, UINT64_MAX - 511, 512), EINVAL);
  close();
  open(true);
  EXPECT_EQ(run(BlockOp::Write, 0, 512, {{bytes.data(), 512}}), EROFS);
}

TEST_P(Qcow2DiskTest, GrowsAndIsThenAllThere) {
  make(1 << 20, 9);  // a larger L1 table is needed
  EXPECT_EQ(write(512, Bytes(1024, 'a')), 0);
  {
    const std::lock_guard lock{guard};
    const auto grown = disk->grow(8 << 20);
    ASSERT_TRUE(grown) << grown.error().message;
  }
  EXPECT_EQ(disk->size(), 8u << 20);
  EXPECT_EQ(write((8 << 20) - 512, Bytes(512, 'z')), 0);
  EXPECT_EQ(read(512, 1024), Bytes(1024, 'a'));
  EXPECT_EQ(read(4 << 20, 512), Bytes(512, 0));
  close();
  open();
  EXPECT_EQ(disk->size(), 8u << 20);
  EXPECT_EQ(read((8 << 20) - 512, 512), Bytes(512, 'z'));
}

TEST_P(Qcow2DiskTest, WhatIsDroppedAtTheEndIsWritten) {
  make(1 << 20);
  EXPECT_EQ(write(0, Bytes(4096, 1)), 0);
  close();  // no flush by the guest
  qcow2::test::expect_clean(path);
  open();
  EXPECT_EQ(read(0, 4096), Bytes(4096, 1));
}

TEST_P(Qcow2DiskTest, ReadsThroughItsBackingFile) {
  Bytes base(96 * 1024);
  for (size_t i = 0; i < base.size(); ++i) base[i] = static_cast<uint8_t>(i / 512);
  const auto raw = folder.make("base.raw", {base.begin(), base.end()});
  qcow2::test::make_image(path, {.size = 1 << 20, .backing_file = "base.raw", .backing_format = "raw"});
  open(false, std::move(*qcow2::RawSource::open(qcow2::test::open_file(raw, O_RDONLY), raw)));
  base.resize(256 * 1024);
  EXPECT_EQ(read(0, base.size()), base);
  EXPECT_EQ(write(1024, Bytes(512, 0xaa)), 0);
  std::fill_n(base.begin() + 1024, 512, uint8_t{0xaa});
  EXPECT_EQ(read(0, base.size()), base);
}

// Many requests at once, that overlap in clusters but not in sectors, with flushes and discards between.
TEST_P(Qcow2DiskTest, ManyAtOnce) {
  constexpr uint64_t sectors = 4096;
  make(sectors * 512, 12);
  std::mt19937 random{5};
  std::vector<uint8_t> model(sectors);  // the byte that each sector is full of
  std::vector<bool> busy(sectors);
  size_t in_flight = 0, finished = 0, wrong = 0;
  struct Request {
    uint64_t first, count;
    uint8_t value;
    BlockOp op;
    Bytes bytes;
  };
  for (int step = 0; step < 3000; ++step) {
    auto request = std::make_shared<Request>();
    request->first = random() % sectors;
    request->count = 1 + random() % std::min<uint64_t>(24, sectors - request->first);
    const unsigned what = random() % 16;
    request->op = what < 8    ? BlockOp::Write
                  : what < 13 ? BlockOp::Read
                  : what < 14 ? BlockOp::WriteZeroes
                              : BlockOp::Flush;
    if (request->op == BlockOp::Flush) {
      ++in_flight;
      submit(BlockOp::Flush, 0, 0, {}, [&](int error) {
        wrong += error != 0;
        --in_flight;
        ++finished;
      });
      continue;
    }
    bool free = true;
    for (uint64_t i = 0; i < request->count; ++i) free = free && !busy[request->first + i];
    if (!free) continue;
    for (uint64_t i = 0; i < request->count; ++i) busy[request->first + i] = true;
    request->value = request->op == BlockOp::WriteZeroes ? uint8_t{0} : static_cast<uint8_t>(random());
    std::vector<iovec> buffers;
    if (request->op != BlockOp::WriteZeroes) {
      request->bytes.assign(request->count * 512, request->op == BlockOp::Write ? request->value : uint8_t{0xee});
      buffers.push_back({request->bytes.data(), request->bytes.size()});
    }
    ++in_flight;
    submit(request->op, request->first * 512, request->count * 512, buffers, [&, request](int error) {
      wrong += error != 0;
      for (uint64_t i = 0; i < request->count; ++i) {
        const uint64_t sector = request->first + i;
        busy[sector] = false;
        if (request->op == BlockOp::Read) {
          wrong += request->bytes[i * 512] != model[sector] || request->bytes[i * 512 + 511] != model[sector];
        } else {
          model[sector] = request->value;
        }
      }
      --in_flight;
      ++finished;
    });
    if (in_flight > 20 || step % 50 == 0) {
      const size_t before = finished;
      ASSERT_TRUE(run_until([&] { return finished > before || in_flight == 0; }));
    }
    if (step % 700 == 699) {
      const std::lock_guard lock{guard};
      disk->drain();
      EXPECT_EQ(in_flight, 0u);
    }
  }
  ASSERT_TRUE(run_until([&] { return in_flight == 0; }));
  EXPECT_EQ(wrong, 0u);
  const Bytes all = read(0, sectors * 512);
  for (uint64_t sector = 0; sector < sectors; ++sector) ASSERT_EQ(all[sector * 512], model[sector]) << sector;
  close();
  qcow2::test::expect_clean(path);
}

// Requests that change a cluster's place wait for threads, and one in place is submitted behind them: nobody may wait
// for one that waits for a thread.
TEST_P(Qcow2DiskTest, RequestsOnOneClusterDoNotWaitForEachOtherForEver) {
  make(64 << 20);
  ASSERT_EQ(write(0, Bytes(65536, 1)), 0);
  Bytes large(8 << 20, 2), small(4096, 3);
  size_t finished = 0, wrong = 0;
  const auto done = [&](int error) {
    wrong += error != 0;
    ++finished;
  };
  for (uint64_t i = 0; i < 4; ++i) {
    submit(BlockOp::Write, (8 + i * 8) << 20, large.size(), {{large.data(), large.size()}}, done);
  }
  for (int i = 0; i < 8; ++i) submit(BlockOp::WriteZeroes, 32768, 512, {}, done);
  for (int i = 0; i < 8; ++i) submit(BlockOp::Write, 0, small.size(), {{small.data(), small.size()}}, done);
  ASSERT_TRUE(run_until([&] { return finished == 20; }));
  EXPECT_EQ(wrong, 0u);
  Bytes wanted(65536, 1);
  std::fill_n(wanted.begin(), 4096, uint8_t{3});
  std::fill_n(wanted.begin() + 32768, 512, uint8_t{0});
  EXPECT_EQ(read(0, wanted.size()), wanted);
}

INSTANTIATE_TEST_SUITE_P(Ways, Qcow2DiskTest, testing::Bool(),
                         [](const auto& way) { return way.param ? "Ring" : "Threads"; });

}  // namespace
}  // namespace caisson
