// The host loses power at random moments: what was synced is on the disk, of the rest some sectors are and some are
// not. The writes are recorded by functions that stand before the C library's.
#include <algorithm>
#include <array>
#include <cerrno>

#include <dlfcn.h>
#include <linux/falloc.h>
#include <sys/uio.h>

#include "backend/qcow2/test_images.h"

namespace {

struct Event {
  enum class Kind { Write, Sync, Hole, Mark } kind;
  uint64_t offset = 0;
  std::vector<uint8_t> bytes{};
  uint64_t length = 0;
};
struct Recorder {
  int fd = -1;
  std::vector<Event> events{};
  // Every so many writes and syncs fail, one in `failing`; 0: none.
  unsigned failing = 0;
  std::mt19937 random{1};
  bool fails() { return failing != 0 && random() % failing == 0; }
};
Recorder recorder;

template <class Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

}  // namespace

extern "C" {

ssize_t pwritev(int fd, const iovec* buffers, int count, off_t offset) {
  static const auto real = next<ssize_t(int, const iovec*, int, off_t)>("pwritev");
  if (fd == recorder.fd && recorder.fails()) {
    errno = ENOSPC;
    return -1;
  }
  const ssize_t size = real(fd, buffers, count, offset);
  if (fd == recorder.fd && size > 0) {
    Event event{Event::Kind::Write, static_cast<uint64_t>(offset)};
    for (int i = 0; i < count; ++i) {
      const auto* const bytes = static_cast<const uint8_t*>(buffers[i].iov_base);
      event.bytes.insert(event.bytes.end(), bytes, bytes + buffers[i].iov_len);
    }
    event.bytes.resize(static_cast<size_t>(size));
    recorder.events.push_back(std::move(event));
  }
  return size;
}

int fdatasync(int fd) {
  static const auto real = next<int(int)>("fdatasync");
  if (fd == recorder.fd) {
    if (recorder.fails()) {
      errno = EIO;
      return -1;
    }
    recorder.events.push_back({Event::Kind::Sync});
    return 0;
  }
  return real(fd);
}

int fallocate(int fd, int mode, off_t offset, off_t length) {
  static const auto real = next<int(int, int, off_t, off_t)>("fallocate");
  if (fd == recorder.fd && (mode & FALLOC_FL_PUNCH_HOLE) != 0) {
    recorder.events.push_back({Event::Kind::Hole, static_cast<uint64_t>(offset), {}, static_cast<uint64_t>(length)});
  }
  return real(fd, mode, offset, length);
}

}  // extern "C"

namespace caisson::qcow2 {
namespace {

using namespace test;

constexpr uint64_t sector_bytes = 512;

// A disk of sectors that each hold a number.
constexpr uint64_t disk_sectors = 4096;

class PowerCut {
 public:
  explicit PowerCut(unsigned seed) : random_(seed) {
    const unsigned order = std::array{4u, 6u, 3u}[seed % 3];
    make_image(path_, {.size = disk_sectors * sector_bytes,
                       .cluster_bits = std::array{9u, 12u, 10u, 16u}[seed % 4],
                       .refcount_order = order});
    if (have_qemu() && seed % 2 == 1) {
      // A snapshot has all that is there: every write copies, and nothing of it may change.
      const auto image = open_image(path_);
      for (uint64_t first = 0; first + 100 < disk_sectors; first += 150) {
        Bytes bytes(100 * sector_bytes);
        for (uint64_t at = 0; at < bytes.size(); at += 8) std::memcpy(&bytes[at], &number_, 8);
        std::fill_n(initial_.begin() + static_cast<ptrdiff_t>(first), 100, number_++);
        EXPECT_EQ(write(*image, first * sector_bytes, bytes), 0);
      }
      EXPECT_EQ(image->flush(), 0);
      EXPECT_EQ(shell("qemu-img snapshot -c before " + path_).status, 0);
      snapshot_ = true;
    }
    const std::string content = caisson::test::content_of(path_);
    start_.assign(content.begin(), content.end());
  }

  // Writes and flushes, all of it recorded; a Mark with the sectors' numbers follows each flush.
  void work() {
    const auto image = open_image(path_, {.cache_bytes = 8192});
    ASSERT_NE(image, nullptr);
    recorder = {image->fd()};
    std::vector<uint64_t> issued = initial_;
    for (int step = 0; step < 400; ++step) {
      const uint64_t first = random_() % disk_sectors,
                     count = 1 + random_() % std::min<uint64_t>(64, disk_sectors - first);
      const unsigned what = static_cast<unsigned>(random_() % 12);
      const uint64_t number = number_++;
      if (what < 8) {
        Bytes bytes(count * sector_bytes);
        for (uint64_t i = 0; i < count; ++i) {
          for (uint64_t at = 0; at < sector_bytes; at += 8) std::memcpy(&bytes[i * sector_bytes + at], &number, 8);
          issued[first + i] = number;
        }
        ASSERT_EQ(write(*image, first * sector_bytes, bytes), 0);
      } else if (what < 10) {
        ASSERT_EQ(image->write_zeroes(first * sector_bytes, count * sector_bytes, what == 8), 0);
        for (uint64_t i = 0; i < count; ++i) issued[first + i] = 0;
      } else {
        ASSERT_EQ(image->flush(), 0);
        recorder.events.push_back({Event::Kind::Mark});
        marks_.push_back(issued);
      }
      history_.push_back(issued);
      recorder.events.push_back({Event::Kind::Mark, UINT64_MAX});  // the step is over
    }
    recorder.fd = -1;
  }

  // The file as it may be after a power cut behind the first `count` events, and what must and may be in it.
  void cut(size_t count, const std::string& to) {
    size_t synced = 0, steps = 0, marks = 0;
    for (size_t i = 0; i < count; ++i) {
      const Event& event = recorder.events[i];
      if (event.kind == Event::Kind::Sync) synced = i;
      if (event.kind == Event::Kind::Mark) ++(event.offset == UINT64_MAX ? steps : marks);
    }
    std::vector<uint8_t> file = start_;
    const unsigned share = static_cast<unsigned>(random_() % 101);  // of what was not synced, in percent
    for (size_t i = 0; i < count; ++i) {
      const Event& event = recorder.events[i];
      const bool certain = i < synced;
      if (event.kind == Event::Kind::Write) {
        for (size_t at = 0; at < event.bytes.size();) {
          // Sectors of the file reach the disk whole.
          const uint64_t place = event.offset + at;
          const size_t size = std::min<size_t>(sector_bytes - place % sector_bytes, event.bytes.size() - at);
          if (certain || random_() % 100 < share) {
            if (file.size() < place + size) file.resize(place + size);
            std::copy_n(event.bytes.begin() + static_cast<ptrdiff_t>(at), size,
                        file.begin() + static_cast<ptrdiff_t>(place));
          } else if (file.size() < place + size && random_() % 2 == 0) {
            file.resize(place + size);
          }
          at += size;
        }
      } else if (event.kind == Event::Kind::Hole && (certain || random_() % 100 < share)) {
        for (uint64_t at = event.offset; at < std::min<uint64_t>(event.offset + event.length, file.size()); ++at) {
          file[at] = 0;
        }
      }
    }
    std::ofstream{to, std::ios::binary}.write(reinterpret_cast<const char*>(file.data()),
                                              static_cast<std::streamsize>(file.size()));
    const CheckReport report = check_file(to);
    EXPECT_EQ(report.corruptions, 0u) << (report.messages.empty() ? "" : report.messages.front());
    const auto image = open_image(to, {.read_only = true});
    ASSERT_NE(image, nullptr);
    const Bytes disk = read_all(*image);
    for (uint64_t sector = 0; sector < disk_sectors && !testing::Test::HasFailure(); ++sector) {
      uint64_t number = 0;
      std::memcpy(&number, &disk[sector * sector_bytes], 8);
      // What was flushed, or anything that was written later.
      const uint64_t flushed = marks == 0 ? initial_[sector] : marks_[marks - 1][sector];
      bool expected = number == flushed;
      for (size_t step = steps; step-- > 0 && !expected;) expected = history_[step][sector] == number;
      if (steps < history_.size()) expected = expected || history_[steps][sector] == number;
      expected = expected && (number == 0 || number >= flushed);
      if (number == 0 && flushed != 0) {
        // Zeroes must have been written since.
        bool zeroed = false;
        for (size_t step = 0; step <= steps && step < history_.size(); ++step) {
          zeroed = zeroed || (history_[step][sector] == 0 && step_after_flush(step, marks));
        }
        expected = expected && zeroed;
      }
      EXPECT_TRUE(expected) << "sector " << sector << " holds " << number << ", flushed was " << flushed;
    }
    if (snapshot_) {
      const auto before = open_image(to, {.read_only = true, .snapshot = "before"});
      ASSERT_NE(before, nullptr);
      const Bytes kept = read_all(*before);
      for (uint64_t sector = 0; sector < disk_sectors; ++sector) {
        ASSERT_EQ(std::memcmp(&kept[sector * sector_bytes], &initial_[sector], 8), 0) << "sector " << sector;
      }
    }
  }

  [[nodiscard]] size_t events() const { return recorder.events.size(); }
  [[nodiscard]] std::string file(const std::string& name) const { return folder_.file(name); }

 private:
  // Was the step done after the flush number `marks`?
  [[nodiscard]] bool step_after_flush(size_t step, size_t marks) const {
    size_t steps = 0, seen = 0;
    for (const Event& event : recorder.events) {
      if (event.kind != Event::Kind::Mark) continue;
      if (event.offset != UINT64_MAX) {
        ++seen;
      } else if (steps++ == step) {
        return seen >= marks;
      }
    }
    return true;
  }

  std::mt19937_64 random_;
  TemporaryFolder folder_;
  const std::string path_ = folder_.file("disk.qcow2");
  std::vector<uint8_t> start_;
  uint64_t number_ = 1;
  bool snapshot_ = false;
  std::vector<uint64_t> initial_ = std::vector<uint64_t>(disk_sectors);
  std::vector<std::vector<uint64_t>> history_;  // numbers of the sectors after each step
  std::vector<std::vector<uint64_t>> marks_;    // after each flush
};

TEST(Qcow2Power, ACutLeavesTheImageWholeAndWhatWasFlushed) {
  const char* const text = std::getenv("CAISSON_QCOW2_CUTS");
  const unsigned images = text == nullptr ? 6 : static_cast<unsigned>(std::strtoul(text, nullptr, 10));
  std::mt19937 random{images};
  for (unsigned seed = 0; seed < images && !testing::Test::HasFailure(); ++seed) {
    PowerCut disk{seed};
    disk.work();
    ASSERT_GT(disk.events(), 500u);
    for (int i = 0; i < 25 && !testing::Test::HasFailure(); ++i) {
      disk.cut(random() % (disk.events() + 1), disk.file("cut.qcow2"));
    }
    if (testing::Test::HasFailure()) FAIL() << "image " << seed;
  }
}

// The host's disk is full now and then: what was said to be done is done, and the image stays whole.
TEST(Qcow2Power, FailedWritesLoseNothingElse) {
  for (unsigned seed = 0; seed < 12 && !testing::Test::HasFailure(); ++seed) {
    const TemporaryFolder folder;
    const std::string path = folder.file("disk.qcow2");
    make_image(path, {.size = disk_sectors * sector_bytes,
                      .cluster_bits = std::array{9u, 12u, 16u}[seed % 3],
                      .refcount_order = std::array{4u, 6u}[seed % 2]});
    std::mt19937_64 random{seed};
    std::vector<std::vector<uint8_t>> possible(disk_sectors, {0});  // what each sector may be full of
    unsigned failures = 0;
    {
      const auto image = open_image(path, {.cache_bytes = 8192});
      ASSERT_NE(image, nullptr);
      recorder = {image->fd()};
      recorder.failing = 10 + seed * 5;
      for (int step = 1; step < 600; ++step) {
        const uint64_t first = random() % disk_sectors,
                       count = 1 + random() % std::min<uint64_t>(64, disk_sectors - first);
        const unsigned what = static_cast<unsigned>(random() % 10);
        const auto value = what < 7 ? static_cast<uint8_t>(step) : uint8_t{0};
        int error = 0;
        if (what < 7) {
          error = write(*image, first * sector_bytes, Bytes(count * sector_bytes, value));
        } else if (what < 9) {
          error = image->write_zeroes(first * sector_bytes, count * sector_bytes, what == 7);
        } else {
          error = image->flush();
        }
        failures += error != 0 ? 1 : 0;
        if (what == 9) continue;
        for (uint64_t i = first; i < first + count; ++i) {
          if (error == 0) possible[i].clear();
          possible[i].push_back(value);
        }
      }
      recorder.failing = 0;
      ASSERT_EQ(image->flush(), 0);
      recorder.fd = -1;
    }
    EXPECT_GT(failures, 3u);
    const CheckReport report = check_file(path);
    EXPECT_EQ(report.corruptions, 0u) << (report.messages.empty() ? "" : report.messages.front());
    const Bytes disk = read_all(*open_image(path, {.read_only = true}));
    for (uint64_t sector = 0; sector < disk_sectors; ++sector) {
      const uint8_t* const at = &disk[sector * sector_bytes];
      ASSERT_EQ(std::memcmp(at, at + 1, sector_bytes - 1), 0) << "sector " << sector << " is a mixture";
      ASSERT_NE(std::ranges::find(possible[sector], *at), possible[sector].end())
          << "seed " << seed << " sector " << sector << " holds " << int{*at};
    }
  }
}

}  // namespace
}  // namespace caisson::qcow2
