#include "boot/placement.h"

#include <algorithm>
#include <cstring>

#include "boot/initrd.h"
#include "boot/kernel_image.h"
#include "boot/memory_map.h"

namespace caisson::boot {

std::optional<Gpa> place_high(uint64_t size, Gpa lowest, Gpa end) {
  if (end < lowest || end - lowest < size) return std::nullopt;
  const Gpa base = (end - size) / page_size * page_size;
  if (base < lowest) return std::nullopt;
  return base;
}

Result<InitrdPlace> load_module(GuestMemory& memory, int fd, const InitrdLimits& limits) {
  if (fd < 0) return InitrdPlace{};
  const auto size = file_size(fd);
  if (!size) return std::unexpected(size.error());
  if (*size == 0) return fail("an empty file, no initial ramdisk");
  auto base = place_high(*size, limits.kernel_end, std::min(limits.low_end, limits.preferred_end));
  if (!base && limits.above_4g) {
    base = place_high(*size, limits.kernel_end, limits.low_end);
    if (!base && memory.high_size() != 0) base = place_high(*size, GuestMemory::high_start, memory.end());
  }
  if (!base) {
    return fail("the initial ramdisk's {} MiB do not fit beside the kernel into {} MiB of memory; give more --memory",
                (*size + (1u << 20) - 1) >> 20, memory.size() >> 20);
  }
  const auto target = memory.span(*base, *size);
  if (target.size() != *size) return fail("the initial ramdisk does not fit into memory; give more --memory");
  if (auto done = read_file(fd, target); !done) return std::unexpected(done.error());
  memory.written(*base, *size);
  return InitrdPlace{*base, *size};
}

Result<InitrdPlace> load_initrd(GuestMemory& memory, int fd, const InitrdLimits& limits) {
  const auto place = load_module(memory, fd, limits);
  if (!place || place->size == 0) return place;
  if (auto done = check_initrd(memory.span(place->base, place->size)); !done) return std::unexpected(done.error());
  return place;
}

Result<> load_bytes(GuestMemory& memory, Gpa base, std::span<const uint8_t> contents, uint64_t memory_size) {
  const auto target = memory.span(base, memory_size);
  if (memory_size == 0 || target.size() != memory_size || contents.size() > memory_size) {
    return fail("the kernel needs memory from {:#x} to {:#x}, which {} MiB do not have; give more --memory", base,
                base + memory_size, memory.size() >> 20);
  }
  if (!contents.empty()) std::memcpy(target.data(), contents.data(), contents.size());
  std::ranges::fill(target.subspan(contents.size()), uint8_t{0});
  memory.written(base, memory_size);
  return {};
}

Result<> load_segments(GuestMemory& memory, std::span<const ElfSegment> segments, Gpa lowest, Gpa end, Gpa low_end) {
  if (lowest < one_mib) {
    return fail("this kernel wants to be loaded at {:#x}, below 1 MiB, where firmware tables lie", lowest);
  }
  if (end > low_end) {
    return fail("{} MiB of memory are too little for this kernel, which needs {} MiB to start; give more --memory",
                memory.size() >> 20, (end >> 20) + 1);
  }
  for (const ElfSegment& segment : segments) {
    if (auto done = load_bytes(memory, segment.physical, segment.contents, segment.memory_size); !done) return done;
  }
  return {};
}

}  // namespace caisson::boot
