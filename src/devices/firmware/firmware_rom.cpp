#include "devices/firmware/firmware_rom.h"

#include <algorithm>
#include <cstring>

namespace caisson {

uint64_t FirmwareRom::read(unsigned, uint64_t offset, unsigned size) {
  uint64_t value = ~uint64_t{0};
  if (offset < image_.size()) std::memcpy(&value, &image_[offset], std::min<size_t>(size, image_.size() - offset));
  return value;
}

Result<> FirmwareRom::restore(std::span<const uint8_t> in) {
  if (!in.empty()) return fail("firmware-rom: it has no state, but {} bytes are saved", in.size());
  return {};
}

}  // namespace caisson
