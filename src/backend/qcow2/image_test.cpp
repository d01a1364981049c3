#include "backend/qcow2/image.h"

#include <atomic>
#include <cerrno>
#include <filesystem>
#include <thread>

#include <sys/stat.h>

#include "backend/qcow2/test_images.h"

namespace caisson::qcow2 {
namespace {

using namespace test;

class ImageTest : public testing::Test {
 protected:
  void make(CreateOptions options) {
    make_image(path, options);
    image = open_image(path);
    ASSERT_NE(image, nullptr);
  }
  [[nodiscard]] uint64_t used_bytes() const {
    struct stat status {};
    EXPECT_EQ(::stat(path.c_str(), &status), 0);
    return static_cast<uint64_t>(status.st_blocks) * 512;
  }
  TemporaryFolder folder;
  std::string path = folder.file("disk.qcow2");
  std::unique_ptr<Image> image;
};

// With clusters of 512 bytes and refcounts of 64 bits a table of one cluster counts 2 MiB.
TEST_F(ImageTest, TheRefcountTableGrows) {
  make({.size = 12 << 20, .cluster_bits = 9, .refcount_order = 6});
  const uint64_t before = image->header().refcount_table_offset;
  Bytes bytes(1 << 20);
  for (uint64_t i = 0; i < 12; ++i) {
    std::ranges::fill(bytes, static_cast<uint8_t>(i + 1));
    ASSERT_EQ(write(*image, i << 20, bytes), 0);
    if (i % 5 == 0) {
      ASSERT_EQ(image->flush(), 0);
    }
  }
  EXPECT_NE(image->header().refcount_table_offset, before);
  ASSERT_EQ(image->flush(), 0);
  image.reset();
  expect_clean(path);
  const Bytes disk = read_all(*open_image(path));
  for (uint64_t i = 0; i < 12; ++i) {
    EXPECT_EQ(disk[i << 20], i + 1);
    EXPECT_EQ(disk[((i + 1) << 20) - 1], i + 1);
  }
}

TEST_F(ImageTest, DiscardedClustersGiveTheirRoomBackAndAreUsedAgain) {
  make({.size = 16 << 20});
  ASSERT_EQ(write(*image, 0, Bytes(4 << 20, 1)), 0);
  ASSERT_EQ(image->flush(), 0);
  const uint64_t full = used_bytes(), length = std::filesystem::file_size(path);
  ASSERT_EQ(image->discard(0, 4 << 20), 0);
  ASSERT_EQ(image->flush(), 0);
  EXPECT_LT(used_bytes(), full - (3 << 20));
  ASSERT_EQ(write(*image, 8 << 20, Bytes(4 << 20, 2)), 0);
  ASSERT_EQ(image->flush(), 0);
  EXPECT_EQ(std::filesystem::file_size(path), length);
  image.reset();
  expect_clean(path);
}

TEST_F(ImageTest, GrowsByALargerL1Table) {
  make({.size = 32768, .cluster_bits = 9});
  ASSERT_EQ(write(*image, 0, Bytes(32768, 1)), 0);
  ASSERT_EQ(image->resize(64 << 20), 0);
  EXPECT_EQ(image->size(), 64u << 20);
  ASSERT_EQ(write(*image, (64 << 20) - 512, Bytes(512, 2)), 0);
  ASSERT_EQ(image->resize(uint64_t{1} << 62), EFBIG);
  ASSERT_EQ(image->resize(1000), EINVAL);
  ASSERT_EQ(image->flush(), 0);
  image.reset();
  expect_clean(path);
  image = open_image(path);
  ASSERT_EQ(image->size(), 64u << 20);
  Bytes sector(512);
  EXPECT_EQ(image->read((64 << 20) - 512, 512, {{sector.data(), 512}}), 0);
  EXPECT_EQ(sector, Bytes(512, 2));
}

// What a smaller disk had lost does not come back from the backing file when it grows.
TEST_F(ImageTest, ShrinkingAndGrowingShowsZeroes) {
  const auto base = folder.make("base.raw", std::string(1 << 20, 'b'));
  make_image(path, {.size = 1 << 20, .backing_file = "base.raw", .backing_format = "raw"});
  const auto open_it = [&] {
    return open_image(path, {.backing = std::move(*RawSource::open(open_file(base, O_RDONLY), base))});
  };
  image = open_it();
  ASSERT_EQ(image->resize(300032), 0);
  ASSERT_EQ(image->resize(2 << 20), 0);
  image.reset();
  expect_clean(path);
  const Bytes disk = read_all(*open_it());
  EXPECT_EQ(Bytes(disk.begin(), disk.begin() + 300032), Bytes(300032, 'b'));
  EXPECT_EQ(Bytes(disk.begin() + 300032, disk.end()), Bytes((2 << 20) - 300032, 0));
}

TEST_F(ImageTest, ReadOnlyChangesNothing) {
  make({.size = 1 << 20});
  ASSERT_EQ(write(*image, 0, Bytes(4096, 1)), 0);
  ASSERT_EQ(image->flush(), 0);
  const auto before = caisson::test::content_of(path);
  image = open_image(path, {.read_only = true});
  EXPECT_EQ(write(*image, 0, Bytes(512, 1)), EROFS);
  EXPECT_EQ(image->discard(0, 65536), EROFS);
  EXPECT_EQ(image->write_zeroes(0, 65536, true), EROFS);
  EXPECT_EQ(image->resize(2 << 20), EROFS);
  EXPECT_EQ(image->flush(), 0);
  EXPECT_EQ(caisson::test::content_of(path), before);
}

// Threads that write next to each other, flush, and make the caches too small for all tables.
TEST_F(ImageTest, ManyThreads) {
  make_image(path, {.size = 4 << 20, .cluster_bits = 10});
  image = open_image(path, {.cache_bytes = 8192});
  constexpr uint64_t sectors = 8192, workers = 4;
  std::vector<std::thread> threads;
  std::atomic<unsigned> wrong = 0;
  for (uint64_t worker = 0; worker < workers; ++worker) {
    threads.emplace_back([&, worker] {
      std::mt19937 random{static_cast<unsigned>(worker)};
      std::vector<uint8_t> mine(sectors);
      for (int step = 0; step < 400; ++step) {
        const uint64_t sector = random() % (sectors / workers) * workers + worker;
        const auto value = static_cast<uint8_t>(random());
        Bytes bytes(512, value);
        const unsigned what = random() % 8;
        if (what < 5) {
          wrong += write(*image, sector * 512, bytes) != 0;
          mine[sector] = value;
        } else if (what == 5) {
          wrong += image->write_zeroes(sector * 512, 512, true) != 0;
          mine[sector] = 0;
        } else if (what == 6 && step % 10 == 0) {
          wrong += image->flush() != 0;
        } else {
          wrong += image->read(sector * 512, 512, {{bytes.data(), 512}}) != 0 || bytes != Bytes(512, mine[sector]);
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0u);
  EXPECT_EQ(image->flush(), 0);
  image.reset();
  expect_clean(path);
}

}  // namespace
}  // namespace caisson::qcow2
