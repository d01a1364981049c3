#include "backend/raw_image.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <random>
#include <thread>
#include <vector>

#include <sys/stat.h>

#include "backend/disk_io.h"
#include "backend/test_support.h"

namespace caisson {
namespace {

using Bytes = std::vector<uint8_t>;

Bytes pattern(size_t size, unsigned seed) {
  Bytes bytes(size);
  std::minstd_rand random{seed};
  for (auto& byte : bytes) byte = static_cast<uint8_t>(random() >> 8);
  return bytes;
}

// Every test runs once on io_uring, where the host has it, and once on threads.
class RawImageTest : public test::LoopTest, public testing::WithParamInterface<bool> {
 protected:
  void make(uint64_t size, bool read_only = false) {
    path = folder.make("disk", "");
    std::filesystem::resize_file(path, size);
    open(read_only);
  }
  void open(bool read_only = false) {
    const int fd = ::open(path.c_str(), (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
    ASSERT_GE(fd, 0);
    auto made = RawImage::create(*loop, Fd{fd},
                                 {.name = path, .id = "serial", .read_only = read_only, .use_io_uring = GetParam()});
    ASSERT_TRUE(made) << made.error().message;
    image = std::move(*made);
  }
  void TearDown() override {
    const std::lock_guard lock{guard};
    image.reset();
  }

  void submit(BlockOp op, uint64_t offset, uint64_t length, std::vector<iovec> buffers, int& result,
              bool may_unmap = false) {
    result = -1;
    const std::lock_guard lock{guard};
    image->submit({.op = op,
                   .may_unmap = may_unmap,
                   .offset = offset,
                   .length = length,
                   .buffers = std::move(buffers),
                   .done = [&result](int error) {
                     EXPECT_EQ(result, -1) << "completed twice";
                     result = error;
                   }});
    EXPECT_EQ(result, -1) << "completed inside submit";
  }
  int run(BlockOp op, uint64_t offset, uint64_t length, std::vector<iovec> buffers = {}, bool may_unmap = false) {
    int result = -1;
    submit(op, offset, length, std::move(buffers), result, may_unmap);
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
  std::string path;
  std::unique_ptr<RawImage> image;
};

TEST_P(RawImageTest, ReportsWhatItIs) {
  make(1 << 20);
  EXPECT_EQ(image->size(), 1u << 20);
  EXPECT_FALSE(image->read_only());
  EXPECT_EQ(image->id(), "serial");
  EXPECT_GE(image->block_size(), 512u);
  EXPECT_LE(image->block_size(), 4096u);
  EXPECT_FALSE(image->uses_io_uring() && !GetParam());
}

TEST_P(RawImageTest, WhatIsWrittenIsReadAndStandsInTheFile) {
  make(1 << 20);
  const Bytes bytes = pattern(3 * 512, 1);
  EXPECT_EQ(write(4096, bytes), 0);
  EXPECT_EQ(read(4096, bytes.size()), bytes);
  EXPECT_EQ(run(BlockOp::Flush, 0, 0), 0);
  const std::string file = test::content_of(path);
  EXPECT_EQ(std::memcmp(file.data() + 4096, bytes.data(), bytes.size()), 0);
  EXPECT_EQ(file.size(), 1u << 20);
}

TEST_P(RawImageTest, ScatteredUnalignedAndEmptyBuffers) {
  make(1 << 20);
  const Bytes bytes = pattern(8192, 2);
  Bytes from = bytes;
  EXPECT_EQ(run(BlockOp::Write, 512, 8192, {{from.data(), 0}, {from.data(), 1}, {from.data() + 1, 8191}, {nullptr, 0}}),
            0);
  // More pieces than one system call takes.
  Bytes to(8192);
  std::vector<iovec> pieces;
  for (size_t i = 0; i < to.size(); i += 2) pieces.push_back({to.data() + i, 2});
  EXPECT_EQ(run(BlockOp::Read, 512, 8192, pieces), 0);
  EXPECT_EQ(to, bytes);
  std::vector<iovec> mostly_empty(3000, iovec{to.data(), 0});
  to.assign(8192, 0);
  mostly_empty.push_back({to.data(), to.size()});
  EXPECT_EQ(run(BlockOp::Read, 512, 8192, mostly_empty), 0);
  EXPECT_EQ(to, bytes);
}

TEST_P(RawImageTest, WhatThePageCacheHasCompletesWithItsBatch) {
  make(1 << 20);
  Bytes bytes = pattern(8192, 4);
  EXPECT_EQ(write(4096, bytes), 0);
  const auto batch = [&](std::vector<int>& results, const std::function<void()>& submits) {
    {
      const std::lock_guard lock{guard};
      image->begin_batch();
    }
    submits();
    const std::lock_guard lock{guard};
    image->end_batch();
    return static_cast<size_t>(std::ranges::count(results, 0));
  };
  Bytes whole(8192), part(100), beyond(1024, 0xee);
  std::vector<int> results(4);
  const size_t done = batch(results, [&] {
    submit(BlockOp::Read, 4096, 8192, {{whole.data(), 8192}}, results[0]);
    submit(BlockOp::Read, 4096, 512, {{part.data(), 100}, {whole.data(), 412}}, results[1]);
    submit(BlockOp::Write, 65536, 8192, {{bytes.data(), 8192}}, results[2]);
    submit(BlockOp::Read, 1 << 20, 512, {{beyond.data(), 512}}, results[3]);
  });
  if (image->uses_io_uring()) {
    EXPECT_GE(done, 2u);
  }
  EXPECT_TRUE(run_until([&] { return std::ranges::count(results, -1) == 0; }));
  EXPECT_EQ(results, (std::vector<int>{0, 0, 0, EINVAL}));
  EXPECT_EQ(Bytes(whole.begin() + 412, whole.end()), Bytes(bytes.begin() + 412, bytes.end()));
  EXPECT_EQ(part, Bytes(bytes.begin(), bytes.begin() + 100));
  EXPECT_EQ(read(65536, 8192), bytes);
  // The file has become shorter behind our back: the rest is zeroes.
  std::filesystem::resize_file(path, 6144);
  batch(results, [&] { submit(BlockOp::Read, 4096, 8192, {{whole.data(), 8192}}, results[0]); });
  EXPECT_TRUE(run_until([&] { return results[0] != -1; }));
  EXPECT_EQ(Bytes(whole.begin(), whole.begin() + 2048), Bytes(bytes.begin(), bytes.begin() + 2048));
  EXPECT_EQ(Bytes(whole.begin() + 2048, whole.end()), Bytes(6144));
  // A drain in the middle of a batch reports all.
  results[0] = -1;
  const std::lock_guard lock{guard};
  image->begin_batch();
  image->submit(
      {.op = BlockOp::Read, .offset = 4096, .length = 512, .buffers = {{whole.data(), 512}}, .done = [&](int error) {
         results[0] = error;
       }});
  image->drain();
  EXPECT_EQ(results[0], 0);
  image->end_batch();
}

TEST_P(RawImageTest, ManyRequestsInFlightEachCompleteOnce) {
  make(8 << 20);
  constexpr size_t count = 1000, size = 4096;
  const Bytes bytes = pattern(count * size, 3);
  Bytes from = bytes, to(bytes.size());
  std::vector<int> results(count);
  size_t finished = 0;
  const auto all = [&](BlockOp op, Bytes& memory) {
    finished = 0;
    const std::lock_guard lock{guard};
    for (size_t i = 0; i < count; ++i) {
      image->submit({.op = op,
                     .offset = i * size,
                     .length = size,
                     .buffers = {{memory.data() + i * size, size}},
                     .done = [&, i](int error) { results[i] = error, ++finished; }});
    }
  };
  all(BlockOp::Write, from);
  ASSERT_TRUE(run_until([&] { return finished == count; }));
  all(BlockOp::Read, to);
  ASSERT_TRUE(run_until([&] { return finished == count; }));
  EXPECT_EQ(results, std::vector<int>(count, 0));
  EXPECT_EQ(to, bytes);
}

TEST_P(RawImageTest, CompletionMaySubmit) {
  make(1 << 20);
  Bytes bytes(512);
  int left = 500;
  std::function<void(int)> next = [&](int error) {
    EXPECT_EQ(error, 0);
    if (--left > 0) {
      image->submit({.op = left % 3 == 0 ? BlockOp::Discard : BlockOp::Read,
                     .offset = 0,
                     .length = 512,
                     .buffers = {{bytes.data(), 512}},
                     .done = next});
    }
  };
  {
    const std::lock_guard lock{guard};
    image->submit({.op = BlockOp::Read, .offset = 0, .length = 512, .buffers = {{bytes.data(), 512}}, .done = next});
  }
  EXPECT_TRUE(run_until([&] { return left == 0; }));
}

TEST_P(RawImageTest, DrainCompletesEverythingOnThisThread) {
  make(8 << 20);
  constexpr size_t size = 64 * 1024;
  Bytes bytes(300 * size);
  int finished = 0;
  const auto here = std::this_thread::get_id();
  const std::lock_guard lock{guard};
  for (unsigned i = 0; i < 300; ++i) {
    const auto op =
        std::array{BlockOp::Write, BlockOp::Flush, BlockOp::Discard, BlockOp::Read, BlockOp::WriteZeroes}[i % 5];
    const bool has_range = op != BlockOp::Flush;
    const bool has_data = op == BlockOp::Write || op == BlockOp::Read;
    image->submit({.op = op,
                   .offset = 0,
                   .length = has_range ? size : 0,
                   .buffers = has_data ? std::vector<iovec>{{bytes.data() + i * size, size}} : std::vector<iovec>{},
                   .done = [&](int error) {
                     EXPECT_EQ(error, 0);
                     EXPECT_EQ(std::this_thread::get_id(), here);
                     ++finished;
                   }});
  }
  image->drain();
  EXPECT_EQ(finished, 300);
}

TEST_P(RawImageTest, DestroyedWithRequestsInFlight) {
  make(8 << 20);
  constexpr size_t size = 64 * 1024;
  Bytes bytes(200 * size);
  bool reported = false;
  {
    const std::lock_guard lock{guard};
    for (size_t i = 0; i < 200; ++i) {
      image->submit({.op = i % 2 != 0 ? BlockOp::Discard : BlockOp::Read,
                     .offset = 0,
                     .length = size,
                     .buffers = {{bytes.data() + i * size, size}},
                     .done = [&](int) { reported = true; }});
    }
    image.reset();
  }
  run_ready();
  EXPECT_FALSE(reported);
}

TEST_P(RawImageTest, BadRequestsAreRefusedAndChangeNothing) {
  make(4096);
  Bytes bytes(8192, 0x55);
  const std::vector<iovec> one{{bytes.data(), 512}}, nine{{bytes.data(), 9 * 512}};
  for (const BlockOp op : {BlockOp::Read, BlockOp::Write}) {
    EXPECT_EQ(run(op, 1, 512, one), EINVAL);
    EXPECT_EQ(run(op, 0, 511, {{bytes.data(), 511}}), EINVAL);
    EXPECT_EQ(run(op, 4096, 512, one), EINVAL);
    EXPECT_EQ(run(op, 0, 9 * 512, nine), EINVAL);
    EXPECT_EQ(run(op, UINT64_MAX - 511, 512, one), EINVAL);
    EXPECT_EQ(run(op, 512, UINT64_MAX - 511, one), EINVAL);
    EXPECT_EQ(run(op, 0, 1024, one), EINVAL) << "buffers too small";
    EXPECT_EQ(run(op, 0, 512, {{bytes.data(), 512}, {bytes.data(), 512}}), EINVAL) << "buffers too large";
    EXPECT_EQ(run(op, 0, 512, {{bytes.data(), 1024}, {bytes.data(), SIZE_MAX - 511}}), EINVAL) << "sum overflows";
    EXPECT_EQ(run(op, 4096, 0), 0) << "nothing at the very end";
  }
  for (const BlockOp op : {BlockOp::Discard, BlockOp::WriteZeroes}) {
    EXPECT_EQ(run(op, 100, 512), EINVAL);
    EXPECT_EQ(run(op, 0, 8192), EINVAL);
  }
  EXPECT_EQ(run(BlockOp::Flush, 512, 0), EINVAL);
  EXPECT_EQ(test::content_of(path), std::string(4096, '\0'));
}

TEST_P(RawImageTest, ReadOnlyDiskTakesNoChange) {
  path = folder.make("disk", std::string(4096, 'x'));
  open(true);
  EXPECT_TRUE(image->read_only());
  EXPECT_EQ(read(0, 512), Bytes(512, 'x'));
  EXPECT_EQ(write(0, Bytes(512)), EROFS);
  EXPECT_EQ(run(BlockOp::Discard, 0, 512), EROFS);
  EXPECT_EQ(run(BlockOp::WriteZeroes, 0, 512), EROFS);
  EXPECT_EQ(run(BlockOp::Flush, 0, 0), 0);
  EXPECT_EQ(test::content_of(path), std::string(4096, 'x'));
}

TEST_P(RawImageTest, DiscardFreesTheRange) {
  make(4 << 20);
  EXPECT_EQ(write(0, pattern(4 << 20, 4)), 0);
  EXPECT_EQ(run(BlockOp::Flush, 0, 0), 0);
  struct stat before {
  }, after{};
  ASSERT_EQ(::stat(path.c_str(), &before), 0);
  EXPECT_EQ(run(BlockOp::Discard, 1 << 20, 2 << 20), 0);
  ASSERT_EQ(::stat(path.c_str(), &after), 0);
  EXPECT_LT(after.st_blocks, before.st_blocks);
  EXPECT_EQ(after.st_size, before.st_size);
  EXPECT_EQ(read(0, 512), Bytes(pattern(512, 4)));
  EXPECT_EQ(read(1 << 20, 4096), Bytes(4096));
}

TEST_P(RawImageTest, WriteZeroes) {
  make(1 << 20);
  for (const bool may_unmap : {false, true}) {
    EXPECT_EQ(write(0, Bytes(16 * 512, 0xff)), 0);
    EXPECT_EQ(run(BlockOp::WriteZeroes, 512, 14 * 512, {}, may_unmap), 0);
    EXPECT_EQ(read(0, 512), Bytes(512, 0xff));
    EXPECT_EQ(read(512, 14 * 512), Bytes(14 * 512));
    EXPECT_EQ(read(15 * 512, 512), Bytes(512, 0xff));
  }
}

TEST_P(RawImageTest, SizeThatIsNotWholeSectorsIsCut) {
  make(5 * 512 + 100);
  EXPECT_EQ(image->size(), 5u * 512);
  EXPECT_EQ(run(BlockOp::WriteZeroes, 5 * 512, 512), EINVAL);
}

TEST_P(RawImageTest, GrowsAndIsThenAllThere) {
  make(1 << 20);
  EXPECT_EQ(write(0, Bytes(512, 'a')), 0);
  {
    const std::lock_guard lock{guard};
    const auto grown = image->grow(3 << 20);
    ASSERT_TRUE(grown) << grown.error().message;
  }
  EXPECT_EQ(image->size(), 3u << 20);
  EXPECT_EQ(std::filesystem::file_size(path), 3u << 20);
  EXPECT_EQ(write((3 << 20) - 512, Bytes(512, 'z')), 0);
  EXPECT_EQ(read(0, 512), Bytes(512, 'a'));
  EXPECT_EQ(read(2 << 20, 512), Bytes(512, 0));
  EXPECT_EQ(read((3 << 20) - 512, 512), Bytes(512, 'z'));
  // What somebody made larger is not cut.
  std::filesystem::resize_file(path, 8 << 20);
  const std::lock_guard lock{guard};
  ASSERT_TRUE(image->grow(4 << 20));
  EXPECT_EQ(std::filesystem::file_size(path), 8u << 20);
}

TEST_P(RawImageTest, AReadOnlyDiskDoesNotGrow) {
  make(1 << 20, true);
  const std::lock_guard lock{guard};
  EXPECT_FALSE(image->grow(2 << 20));
  EXPECT_EQ(image->size(), 1u << 20);
}

TEST_P(RawImageTest, FileCutBehindOurBackReadsAsZeroes) {
  path = folder.make("disk", std::string(8192, 'x'));
  open();
  std::filesystem::resize_file(path, 700);
  Bytes expected(2048, 0);
  std::fill_n(expected.begin(), 700 - 512, 'x');
  EXPECT_EQ(read(512, 2048), expected);
  EXPECT_EQ(read(4096, 512), Bytes(512, 0));
}

TEST_P(RawImageTest, HostErrorsReachTheGuestAsErrno) {
  path = folder.make("disk", std::string(4096, 'x'));
  // Writing through a descriptor that is open for reading only.
  auto made = RawImage::create(*loop, Fd{::open(path.c_str(), O_RDONLY | O_CLOEXEC)},
                               {.name = path, .id = "", .use_io_uring = GetParam()});
  ASSERT_TRUE(made);
  image = std::move(*made);
  EXPECT_EQ(write(0, Bytes(512)), EBADF);
  EXPECT_EQ(run(BlockOp::WriteZeroes, 0, 512), EBADF);
}

TEST_P(RawImageTest, RefusesWhatIsNoDisk) {
  Fd null{::open("/dev/null", O_RDWR | O_CLOEXEC)};
  const auto made = RawImage::create(*loop, std::move(null), {.name = "null", .id = ""});
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().message, "disk null: is neither a file nor a block device; give one of these");
  path = folder.make("empty", "");
  const auto empty = RawImage::create(*loop, Fd{::open(path.c_str(), O_RDWR | O_CLOEXEC)}, {.name = "empty", .id = ""});
  ASSERT_FALSE(empty);
  EXPECT_NE(empty.error().message.find("less than one sector"), std::string::npos);
}

TEST_P(RawImageTest, RandomOperationsAgreeWithAModel) {
  constexpr size_t sectors = 256;
  make(sectors * 512);
  Bytes model(sectors * 512);
  std::minstd_rand random{7};
  for (unsigned i = 0; i < 300; ++i) {
    const size_t first = random() % sectors, count = 1 + random() % std::min<size_t>(sectors - first, 40);
    const size_t offset = first * 512, size = count * 512;
    const auto model_at = model.begin() + static_cast<ptrdiff_t>(offset);
    switch (random() % 4) {
      case 0: {
        const Bytes bytes = pattern(size, i);
        std::copy(bytes.begin(), bytes.end(), model_at);
        EXPECT_EQ(write(offset, bytes), 0);
        break;
      }
      case 1:
        std::fill_n(model_at, size, 0);
        EXPECT_EQ(run(BlockOp::WriteZeroes, offset, size, {}, i % 2 == 0), 0);
        break;
      case 2: EXPECT_EQ(run(BlockOp::Flush, 0, 0), 0); break;
      default: EXPECT_EQ(read(offset, size), Bytes(model_at, model_at + static_cast<ptrdiff_t>(size)));
    }
  }
  EXPECT_EQ(read(0, model.size()), model);
}

INSTANTIATE_TEST_SUITE_P(Engines, RawImageTest, testing::Bool(),
                         [](const auto& instance) { return instance.param ? "io_uring" : "threads"; });

TEST(Job, AdvancesThroughBuffers) {
  Bytes memory(100, 1);
  Job job{{.op = BlockOp::Read,
           .offset = 512,
           .length = 100,
           .buffers = {{memory.data(), 10}, {memory.data() + 10, 90}},
           .done = {}}};
  job.advance(3);
  EXPECT_EQ(job.buffer_count(), 2u);
  EXPECT_EQ(job.buffers()->iov_base, memory.data() + 3);
  job.advance(7);
  EXPECT_EQ(job.buffer_count(), 1u);
  job.advance(50);
  EXPECT_EQ(job.offset, 572u);
  EXPECT_EQ(job.left, 40u);
  job.zero_rest();
  EXPECT_EQ(job.left, 0u);
  EXPECT_EQ(memory[59], 1);
  EXPECT_EQ(memory[60], 0);
  EXPECT_EQ(memory[99], 0);
}

}  // namespace
}  // namespace caisson
