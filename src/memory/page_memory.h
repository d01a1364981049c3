// Memory of a device, in whole pages of its own: zeroes that take no room until they are written.
//   Units    bytes; a multiple of the page size
//   Threads  plain memory
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace caisson {

class PageMemory {
 public:
  explicit PageMemory(size_t size);
  ~PageMemory();
  PageMemory(const PageMemory&) = delete;
  PageMemory& operator=(const PageMemory&) = delete;

  [[nodiscard]] std::span<uint8_t> bytes() const { return {at_, size_}; }
  [[nodiscard]] size_t size() const { return size_; }
  [[nodiscard]] uint8_t& operator[](size_t offset) const { return at_[offset]; }
  // Zeroes again; gives the pages back to the host.
  void clear();

 private:
  uint8_t* at_;
  size_t size_;
};

}  // namespace caisson
