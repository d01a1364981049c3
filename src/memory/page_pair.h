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
  // Good until the next call; always of the same `memory`. Null where the host has no address space left. The pair
  // asked for last is kept: new mappings cost a system call and a page fault each, milliseconds on nested hosts.
  [[nodiscard]] uint8_t* map(const GuestMemory& memory, Gpa first, Gpa second);

 private:
  static constexpr uint64_t none = ~uint64_t{0};

  uint8_t* base_ = nullptr;
  uint64_t mapped_[2] = {none, none};  // page indices in the memory's file
};

}  // namespace caisson
