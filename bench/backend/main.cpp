// caisson-disk-bench FOLDER: how fast the host's side of a disk is, raw and qcow2, side by side in the same run. No
// guest: requests go straight to the backend, as a device would send them, and the rates are relative to the raw
// image's.
#include <array>
#include <chrono>
#include <cstdio>
#include <functional>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include "backend/qcow2/create.h"
#include "backend/qcow2/raw_source.h"
#include "backend/qcow2_disk.h"
#include "backend/raw_image.h"

namespace {

using namespace caisson;

constexpr uint64_t disk_bytes = uint64_t{1} << 30;
constexpr double seconds = 1.5;

struct Pattern {
  const char* name;
  BlockOp op;
  uint64_t length;
  bool random;
  unsigned depth;
};
constexpr std::array patterns{
    Pattern{"4 KiB random read, 1 at once", BlockOp::Read, 4096, true, 1},
    Pattern{"4 KiB random read, 32 at once", BlockOp::Read, 4096, true, 32},
    Pattern{"4 KiB random write, 32 at once", BlockOp::Write, 4096, true, 32},
    Pattern{"1 MiB read in order, 4 at once", BlockOp::Read, 1 << 20, false, 4},
    Pattern{"1 MiB write in order, 4 at once", BlockOp::Write, 1 << 20, false, 4},
};

template <class T>
T must(Result<T> result) {
  if (result) return std::move(*result);
  fmt::print(stderr, "{}\n", result.error().message);
  std::exit(1);
}

Fd file(const std::string& path, bool fresh) {
  Fd fd{::open(path.c_str(), O_RDWR | O_CLOEXEC | (fresh ? O_CREAT | O_TRUNC : 0), 0600)};
  if (!fd.valid()) must<int>(fail_errno(errno, path));
  return fd;
}

class Bench {
 public:
  explicit Bench(std::string folder) : folder_(std::move(folder)) {
    for (auto& buffer : buffers_) buffer.assign(1 << 20, 0x5a);
  }
  ~Bench() {
    for (const char* name : {"raw", "qcow2", "overlay"}) ::unlink(path(name).c_str());
  }

  std::unique_ptr<BlockBackend> raw(bool fresh) {
    Fd fd = file(path("raw"), fresh);
    if (fresh && ::ftruncate(fd.get(), disk_bytes) != 0) must<int>(fail_errno(errno, "ftruncate"));
    return must(RawImage::create(*loop_, std::move(fd), {.name = "raw", .id = "raw"}));
  }
  std::unique_ptr<BlockBackend> qcow2(bool fresh) {
    Fd fd = file(path("qcow2"), fresh);
    if (fresh && !qcow2::create(fd.get(), {.size = disk_bytes})) std::exit(1);
    return disk(must(qcow2::Image::open(std::move(fd), {.name = "qcow2"})));
  }
  // An empty image on top of the raw one.
  std::unique_ptr<BlockBackend> overlay() {
    Fd fd = file(path("overlay"), true);
    if (!qcow2::create(fd.get(), {.size = disk_bytes, .backing_file = "raw", .backing_format = "raw"})) std::exit(1);
    auto backing = must(qcow2::RawSource::open(file(path("raw"), false), "raw"));
    return disk(must(qcow2::Image::open(std::move(fd), {.name = "overlay", .backing = std::move(backing)})));
  }

  // Requests a second.
  double rate(BlockBackend& target, const Pattern& pattern) {
    std::mt19937_64 random{1};
    const uint64_t places = disk_bytes / pattern.length;
    uint64_t next = 0, done = 0;
    unsigned in_flight = 0;
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
    bool over = false;
    const std::function<void(unsigned)> send = [&](unsigned slot) {
      const uint64_t place = pattern.random ? random() % places : next++ % places;
      ++in_flight;
      target.submit({.op = pattern.op,
                     .offset = place * pattern.length,
                     .length = pattern.length,
                     .buffers = {{buffers_[slot].data(), pattern.length}},
                     .done = [&, slot](int error) {
                       if (error != 0) std::exit(1);
                       --in_flight;
                       ++done;
                       over = over || std::chrono::steady_clock::now() > end;
                       if (!over) return send(slot);
                       if (in_flight == 0) loop_->stop();
                     }});
    };
    const auto start = std::chrono::steady_clock::now();
    {
      const std::lock_guard lock{guard_};
      for (unsigned slot = 0; slot < pattern.depth; ++slot) send(slot);
    }
    loop_->run();
    return static_cast<double>(done) / std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  // All of the disk once, in order, and a flush: seconds.
  double fill(BlockBackend& target) {
    const auto start = std::chrono::steady_clock::now();
    uint64_t next = 0;
    unsigned in_flight = 0;
    const std::function<void(unsigned)> send = [&](unsigned slot) {
      if (next == disk_bytes) {
        if (in_flight == 0) loop_->stop();
        return;
      }
      ++in_flight;
      const uint64_t place = next;
      next += 1 << 20;
      target.submit({.op = BlockOp::Write,
                     .offset = place,
                     .length = 1 << 20,
                     .buffers = {{buffers_[slot].data(), 1 << 20}},
                     .done = [&, slot](int error) {
                       if (error != 0) std::exit(1);
                       --in_flight;
                       send(slot);
                     }});
    };
    {
      const std::lock_guard lock{guard_};
      for (unsigned slot = 0; slot < 4; ++slot) send(slot);
    }
    loop_->run();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  void close(std::unique_ptr<BlockBackend>& target) {
    const std::lock_guard lock{guard_};
    target.reset();
  }

 private:
  std::unique_ptr<BlockBackend> disk(std::unique_ptr<qcow2::Image> image) {
    return must(Qcow2Disk::create(*loop_, std::move(image), {.name = "qcow2", .id = "qcow2"}));
  }
  std::string path(const char* name) const { return folder_ + "/bench." + name; }

  const std::string folder_;
  std::mutex guard_;
  std::unique_ptr<EventLoop> loop_ = must(EventLoop::create(&guard_));
  std::array<std::vector<uint8_t>, 32> buffers_;
};

}  // namespace

int main(int count, char** arguments) {
  if (count != 2) {
    fmt::print(stderr, "usage: caisson-disk-bench FOLDER\n");
    return 2;
  }
  Bench bench{arguments[1]};
  auto raw = bench.raw(true), qcow2 = bench.qcow2(true);
  const double raw_fill = bench.fill(*raw), qcow2_fill = bench.fill(*qcow2);
  constexpr double gib = 1024;
  fmt::print("{:34} {:>12} {:>12} {:>8} {:>12} {:>8}\n", "", "raw /s", "qcow2 /s", "of raw", "overlay /s", "of raw");
  fmt::print("{:34} {:12.0f} {:12.0f} {:8.2f}\n", "1 MiB write of a new disk", gib / raw_fill, gib / qcow2_fill,
             raw_fill / qcow2_fill);
  for (const Pattern& pattern : patterns) {
    std::array<std::vector<double>, 3> rates;
    auto overlay = bench.overlay();
    for (int round = 0; round < 3; ++round) {
      rates[0].push_back(bench.rate(*raw, pattern));
      rates[1].push_back(bench.rate(*qcow2, pattern));
      rates[2].push_back(bench.rate(*overlay, pattern));
    }
    bench.close(overlay);
    for (auto& of_one : rates) std::sort(of_one.begin(), of_one.end());
    fmt::print("{:34} {:12.0f} {:12.0f} {:8.2f} {:12.0f} {:8.2f}\n", pattern.name, rates[0][1], rates[1][1],
               rates[1][1] / rates[0][1], rates[2][1], rates[2][1] / rates[0][1]);
  }
  bench.close(raw);
  bench.close(qcow2);
  return 0;
}
