#include "backend/rfb/palette.h"

namespace caisson::rfb {

// Where a colour is in the table, or has its place.
size_t Palette::slot_of(uint32_t colour) const {
  size_t slot = (colour * 0x9e37'79b1u) >> (32 - table_bits);
  while (table_[slot] != 0 && colours_[table_[slot] - 1u] != colour) slot = (slot + 1) % table_.size();
  return slot;
}

bool Palette::gather(std::span<const uint32_t> pixels, size_t most) {
  colours_.clear();
  table_.fill(0);
  uint32_t last = ~pixels[0];
  for (const uint32_t colour : pixels) {
    if (colour == last) continue;
    last = colour;
    const size_t slot = slot_of(colour);
    if (table_[slot] != 0) continue;
    if (colours_.size() == most) return false;
    colours_.push_back(colour);
    table_[slot] = static_cast<uint16_t>(colours_.size());
  }
  return true;
}

}  // namespace caisson::rfb
