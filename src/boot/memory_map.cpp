#include "boot/memory_map.h"

#include <algorithm>

namespace caisson::boot {

MemoryMap::MemoryMap(const GuestMemory& memory) {
  set(0, memory.low_size(), MemoryType::Ram);
  if (memory.high_size() != 0) set(GuestMemory::high_start, memory.high_size(), MemoryType::Ram);
  std::erase_if(ranges_, [](const MemoryRange& range) { return range.size == 0; });
  set(ebda_base, vga_hole - ebda_base, MemoryType::Reserved);
  // 0xa0000…0xdffff is listed nowhere: legacy video memory and option ROMs.
  std::vector<MemoryRange> pieces;
  for (const MemoryRange& range : ranges_) {
    const Gpa end = range.base + range.size;
    if (range.base < vga_hole) pieces.push_back({range.base, std::min(end, vga_hole) - range.base, range.type});
    if (end > one_mib) {
      const Gpa base = std::max(range.base, one_mib);
      pieces.push_back({base, end - base, range.type});
    }
  }
  ranges_ = std::move(pieces);
  set(bios_base, one_mib - bios_base, MemoryType::Reserved);
}

void MemoryMap::set(Gpa base, uint64_t size, MemoryType type) {
  if (size == 0) return;
  const Gpa end = base + size;
  std::vector<MemoryRange> pieces;
  for (const MemoryRange& range : ranges_) {
    const Gpa range_end = range.base + range.size;
    if (range_end <= base || range.base >= end) {
      pieces.push_back(range);
      continue;
    }
    if (range.base < base) pieces.push_back({range.base, base - range.base, range.type});
    if (range_end > end) pieces.push_back({end, range_end - end, range.type});
  }
  pieces.push_back({base, size, type});
  std::ranges::sort(pieces, {}, &MemoryRange::base);
  ranges_.clear();
  for (const MemoryRange& piece : pieces) {
    if (!ranges_.empty() && ranges_.back().type == piece.type &&
        ranges_.back().base + ranges_.back().size == piece.base) {
      ranges_.back().size += piece.size;
    } else {
      ranges_.push_back(piece);
    }
  }
}

}  // namespace caisson::boot
