// Routes port and memory-mapped accesses to devices, and holds the device lock.
//   Threads  read() and write() are called by vCPU threads and take the lock; map/unmap need it held (or no CPU
//   running). Widths   an access wider than the window's max is split, lowest address first; a read narrower than min
//   reads the
//            containing unit and extracts; a narrower write is dropped. Accesses that leave a window are split into
//            bytes.
//   Unclaimed reads give all ones, unclaimed writes vanish; both are counted.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "bus/device.h"
#include "bus/direct_memory.h"
#include "bus/doorbell.h"

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

  // A write to `offset` of a memory window, once it is mapped, means no more than `ring`.
  void add_doorbell(const Device& device, unsigned region, uint64_t offset, std::function<void()> ring);
  // All of the device's. A ring that has come but was not passed on yet is passed on first.
  void remove_doorbells(const Device& device);
  // Who passes doorbells on; null: nobody, they are plain writes. Device lock held.
  void set_binder(DoorbellBinder* binder);

  // From here on what a memory window reads, and where `writable` what is written to it, is this memory: the device
  // gives and does nothing else. As long as the window, in whole pages; empty: the device is asked again. Said again it
  // changes nothing.
  void set_direct(const Device& device, unsigned region, std::span<uint8_t> memory, bool writable);
  void remove_direct(const Device& device);
  // Whether writable memory may have been written without the device, since this was asked last.
  [[nodiscard]] bool direct_written(const Device& device, unsigned region);
  // Who lets the guest at such memory; null: nobody, all accesses go to the device. Device lock held.
  void set_direct_binder(DirectBinder* binder);

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

  struct Doorbell {
    const Device* device;
    unsigned region;
    uint64_t offset;
    std::function<void()> ring;
    std::optional<uint64_t> bound;  // at this address
  };
  void bind(Doorbell& doorbell);
  void unbind(Doorbell& doorbell);

  struct Direct {
    const Device* device;
    unsigned region;
    std::span<uint8_t> memory{};
    bool writable = false;
    std::optional<uint64_t> bound{};  // at this address
    bool written = false;             // while it was bound before
  };
  [[nodiscard]] Direct* direct_of(const Device& device, unsigned region);
  [[nodiscard]] const Window* window_of(const Device& device, unsigned region) const;
  [[nodiscard]] std::optional<uint64_t> place_of(const Direct& direct) const;
  void unbind(Direct& direct);
  void place_directs();

  [[nodiscard]] const Window* find(Space space, uint64_t address);
  uint64_t read_window(const Window& window, uint64_t offset, unsigned size);
  void write_window(const Window& window, uint64_t offset, unsigned size, uint64_t value);

  std::mutex lock_;
  std::vector<Window> windows_[2];
  std::vector<Doorbell> doorbells_;
  DoorbellBinder* binder_ = nullptr;
  std::vector<Direct> directs_;
  DirectBinder* direct_binder_ = nullptr;
  uint64_t unclaimed_ = 0;
};

}  // namespace caisson
