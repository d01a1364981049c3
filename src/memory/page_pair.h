// Two pages of guest RAM seen side by side, wherever they lie: for one atomic access to the end of one and the start of
// the other.
//   Threads  the owner's
#pragma once

#include <cstdint>

#include "memory/guest_memory.h"

namespace caisson {

class PagePair {
 public:
  PagePair() = default;
  ~PagePair();
  PagePair(const PagePair&) = delete;
  PagePair& operator=(const PagePair&) = delete;

  // Host address of the first of 8192 bytes: page `first`, then page `second` (guest-physical addresses of RAM pages).
  // Good until the next call. Null where the host has no address space left.
  [[nodiscard]] uint8_t* map(const GuestMemory& memory, Gpa first, Gpa second);

 private:
  uint8_t* base_ = nullptr;
};

}  // namespace caisson
