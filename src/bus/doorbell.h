// Doorbells: addresses in device memory whose writes say only "look at me". An engine can pass such a write to the
// event loop while the guest goes on, instead of leaving the guest for it.
//   Threads  every call comes with the device lock held
#pragma once

#include <cstdint>
#include <functional>

namespace caisson {

class DoorbellBinder {
 public:
  virtual ~DoorbellBinder() = default;
  // From here on writes of any size to exactly this address call `ring` on the event loop's thread with the device lock
  // held, and reach no device. False where that cannot be: writes go to the device as before.
  [[nodiscard]] virtual bool bind(uint64_t address, std::function<void()> ring) = 0;
  // Writes go to the device again. A ring that has come but was not passed on yet is passed on before this returns.
  virtual void unbind(uint64_t address) = 0;
};

}  // namespace caisson
