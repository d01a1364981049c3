// Routes port and memory-mapped accesses to devices, and holds the device lock.
//   Threads  read() and write() are called by vCPU threads and take the lock; map/unmap need it held (or no CPU
//   running). Widths   an access wider than the window's max is split, lowest address first; a read narrower than min
//   reads the
//            containing unit and extracts; a narrower write is dropped. Accesses that leave a window are split into
//            bytes.
//   Unclaimed reads give all ones, unclaimed writes vanish; both are counted.
#pragma once

#include <cstdint>
#include <mutex>
#include <vector>

#include "bus/device.h"

namespace caisson {

enum class Space : uint8_t { Port, Memory };

struct Widths {
  uint8_t min = 1;
  uint8_t max = 8;
};

class Bus {
 public:
  [[nodiscard]] std::mutex& lock() { return lock_; }

  // Later windows lie over earlier ones where they overlap. `device` must outlive the window.
  void map(Space space, uint64_t base, uint64_t length, Device& device, unsigned region, Widths widths = {});
  // Removes the window of (device, region) in `space`, if any.
  void unmap(Space space, const Device& device, unsigned region);

  [[nodiscard]] uint64_t read(Space space, uint64_t address, unsigned size);
  void write(Space space, uint64_t address, unsigned size, uint64_t value);

  [[nodiscard]] uint64_t unclaimed() const { return unclaimed_; }

 private:
  struct Window {
    uint64_t base;
    uint64_t length;
    Device* device;
    unsigned region;
    Widths widths;
  };

  [[nodiscard]] const Window* find(Space space, uint64_t address);
  uint64_t read_window(const Window& window, uint64_t offset, unsigned size);
  void write_window(const Window& window, uint64_t offset, unsigned size, uint64_t value);

  std::mutex lock_;
  std::vector<Window> windows_[2];
  uint64_t unclaimed_ = 0;
};

}  // namespace caisson
