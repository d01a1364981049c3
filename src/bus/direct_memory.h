// Device memory that is memory and nothing else: a frame buffer, a flash that is read. An engine can let the guest at
// it, instead of leaving the guest for each access.
//   Threads  every call comes with the device lock held
#pragma once

#include <cstdint>
#include <span>

namespace caisson {

class DirectBinder {
 public:
  virtual ~DirectBinder() = default;
  // From here on reads at `address` and behind, and where `writable` writes, are of this memory, and reach no device.
  // Whole pages on both sides. False where that cannot be: accesses go to the device as before.
  [[nodiscard]] virtual bool bind(uint64_t address, std::span<uint8_t> memory, bool writable) = 0;
  // Accesses go to the device again.
  virtual void unbind(uint64_t address) = 0;
  // Whether the guest may have written to what is writable at `address`, since it was bound or asked for last.
  [[nodiscard]] virtual bool written(uint64_t address) = 0;
};

}  // namespace caisson
