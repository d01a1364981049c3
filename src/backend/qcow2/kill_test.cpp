// A process that writes an image is killed at random moments: what was flushed is there, and the image is whole.
// CAISSON_QCOW2_KILLS says how many times (default: a few).
#include <array>
#include <atomic>
#include <csignal>
#include <thread>

#include <sys/mman.h>

#include "backend/qcow2/test_images.h"

namespace caisson::qcow2 {
namespace {

using namespace test;

constexpr uint64_t slot_bytes = 4096, slots = 2048;
constexpr unsigned threads = 3;
constexpr uint64_t base_mark = UINT64_MAX;  // what the backing file has

// What the writer says before and after each request, in memory that outlives it.
struct Shared {
  // Every write to a slot has a number, rising; odd ones are data that carry it, even ones zeroes.
  std::array<std::atomic<uint64_t>, slots> issued;
  std::array<std::atomic<uint64_t>, slots> flushed;
  std::atomic<uint64_t> flushes;
};

Bytes block(uint64_t slot, uint64_t number) {
  Bytes bytes(slot_bytes);
  for (size_t i = 0; i < bytes.size(); i += 16) {
    std::memcpy(&bytes[i], &slot, 8);
    std::memcpy(&bytes[i + 8], &number, 8);
  }
  return bytes;
}

// Each thread has the slots of its own; they lie side by side.
void write_for_ever(Image& image, Shared& shared, unsigned thread, unsigned seed) {
  std::mt19937_64 random{seed * threads + thread};
  std::vector<uint64_t> since_flush;
  for (;;) {
    const uint64_t slot = random() % (slots / threads) * threads + thread;
    const unsigned what = random() % 16;
    if (what == 0) {
      if (image.flush() != 0) ::_exit(2);
      for (const uint64_t done : since_flush) shared.flushed[done] = shared.issued[done].load();
      since_flush.clear();
      ++shared.flushes;
      continue;
    }
    const bool data = what > 3;
    uint64_t number = shared.issued[slot] + 1;
    if ((number % 2 == 1) != data) ++number;
    shared.issued[slot] = number;
    int error = 0;
    if (data) {
      const Bytes bytes = block(slot, number);
      error = write(image, slot * slot_bytes, bytes);
    } else {
      error = image.write_zeroes(slot * slot_bytes, slot_bytes, what % 2 == 0);
    }
    if (error != 0) ::_exit(2);
    since_flush.push_back(slot);
  }
}

// The numbers of a slot's sectors: a write that was not flushed may be there in part. Zeroes: 0.
constexpr uint64_t sector_bytes = 512, sectors = slot_bytes / sector_bytes;
std::array<uint64_t, sectors> numbers_in(const Bytes& disk, uint64_t slot) {
  std::array<uint64_t, sectors> numbers{};
  for (uint64_t i = 0; i < sectors; ++i) {
    const uint8_t* const at = &disk[slot * slot_bytes + i * sector_bytes];
    std::memcpy(&numbers[i], at + 8, 8);
    const Bytes wanted = numbers[i] == 0 ? Bytes(slot_bytes) : block(slot, numbers[i]);
    EXPECT_EQ(std::memcmp(at, wanted.data(), sector_bytes), 0) << "a sector of slot " << slot << " is a mixture";
  }
  return numbers;
}

TEST(Qcow2Kill, LosesNothingThatWasFlushed) {
  const char* const text = std::getenv("CAISSON_QCOW2_KILLS");
  const unsigned kills = text == nullptr ? 12 : static_cast<unsigned>(std::strtoul(text, nullptr, 10));
  auto* const shared =
      static_cast<Shared*>(::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(static_cast<void*>(shared), MAP_FAILED);
  std::mt19937 random{kills};
  uint64_t flushes = 0, leaks = 0;
  for (unsigned round = 0; round < kills && !testing::Test::HasFailure(); ++round) {
    const TemporaryFolder folder;
    const std::string path = folder.file("disk.qcow2"), base = folder.file("base.raw");
    Bytes old(slots * slot_bytes);
    for (uint64_t slot = 0; slot < slots; ++slot) {
      std::ranges::copy(block(slot, base_mark), old.begin() + static_cast<ptrdiff_t>(slot * slot_bytes));
    }
    const bool backed = round % 2 == 1;
    if (backed) folder.make("base.raw", {old.begin(), old.end()});
    CreateOptions options{.size = slots * slot_bytes,
                          .cluster_bits = std::array{16u, 9u, 12u, 14u, 21u}[round % 5],
                          .refcount_order = std::array{4u, 6u, 0u}[round % 3]};
    if (backed) options.backing_file = "base.raw";
    if (backed) options.backing_format = "raw";
    make_image(path, options);
    const auto open_it = [&](bool read_only) {
      OpenOptions how{.read_only = read_only, .cache_bytes = round % 4 == 0 ? uint64_t{16384} : uint64_t{1} << 20};
      if (backed) how.backing = std::move(*RawSource::open(open_file(base, O_RDONLY), base));
      return open_image(path, std::move(how));
    };
    for (uint64_t slot = 0; slot < slots; ++slot) shared->issued[slot] = shared->flushed[slot] = 0;
    shared->flushes = 0;
    // The same image is killed several times over.
    for (unsigned life = 0; life < 3 && !testing::Test::HasFailure(); ++life) {
      const pid_t child = ::fork();
      ASSERT_GE(child, 0);
      if (child == 0) {
        const auto image = open_it(false);
        if (image == nullptr) ::_exit(1);
        for (unsigned i = 1; i < threads; ++i) {
          std::thread{[&, i] { write_for_ever(*image, *shared, i, round * 8 + life); }}.detach();
        }
        write_for_ever(*image, *shared, 0, round * 8 + life);
      }
      ::usleep(static_cast<useconds_t>(2000 + random() % 150000));
      ::kill(child, SIGKILL);
      int status = 0;
      ASSERT_EQ(::waitpid(child, &status, 0), child);
      ASSERT_TRUE(WIFSIGNALED(status)) << "the writer ended by itself: " << status;

      const CheckReport report = check_file(path);
      EXPECT_EQ(report.corruptions, 0u) << report.messages.front();
      leaks += report.leaks;
      if (have_qemu()) {
        const Outcome outcome = shell("qemu-img check -f qcow2 " + path);
        EXPECT_TRUE(outcome.status == 0 || outcome.status == 3) << outcome.out.substr(0, 2000);
      }
      const auto image = open_it(true);
      ASSERT_NE(image, nullptr);
      const Bytes disk = read_all(*image);
      for (uint64_t slot = 0; slot < slots; ++slot) {
        const uint64_t flushed = shared->flushed[slot], issued = shared->issued[slot];
        // Zeroes do not say which they are.
        const bool zeroes_may_be = issued - flushed > 1 || issued % 2 == 0 || flushed % 2 == 0;
        uint64_t least = UINT64_MAX;
        for (const uint64_t number : numbers_in(disk, slot)) {
          const bool untouched = flushed == 0 && number == (backed ? base_mark : 0);
          EXPECT_TRUE(untouched || (number == 0 ? zeroes_may_be : number >= flushed && number <= issued))
              << "slot " << slot << " holds " << number << ", flushed " << flushed << ", issued " << issued;
          least = std::min(least, number == base_mark ? 0 : number);
        }
        // Whatever is there now is what the next life begins with.
        shared->flushed[slot] = least;
      }
      if (life == 1) {
        const Fd fd = open_file(path);
        const auto mended = repair(fd.get());
        ASSERT_TRUE(mended) << mended.error().message;
        expect_clean(path);
      }
    }
    flushes += shared->flushes;
  }
  ::munmap(shared, sizeof(Shared));
  EXPECT_GT(flushes, 0u);
  RecordProperty("flushes", static_cast<int>(flushes));
  fmt::print("{} images, {} flushes, {} clusters lost\n", kills, flushes, leaks);
}

}  // namespace
}  // namespace caisson::qcow2
