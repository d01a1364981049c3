#include "devices/firmware/fw_cfg.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "base/check.h"

namespace caisson {
namespace {

enum Region : unsigned { Ports, Dma };

constexpr uint64_t selector_offset = 0;
constexpr uint64_t data_offset = 1;

constexpr uint32_t version_traditional = 1u << 0, version_dma = 1u << 1;
constexpr uint64_t dma_signature = 0x51454d5520434647;  // "QEMU CFG"

// The descriptor in guest memory, big-endian.
struct Descriptor {
  uint32_t control;
  uint32_t length;
  uint64_t address;
};
static_assert(sizeof(Descriptor) == 16);
constexpr uint32_t control_error = 1u << 0, control_read = 1u << 1, control_skip = 1u << 2, control_select = 1u << 3,
                   control_write = 1u << 4;
constexpr unsigned control_key_shift = 16;

void append_big(std::vector<uint8_t>& out, uint64_t value, unsigned size) {
  while (size-- > 0) out.push_back(static_cast<uint8_t>(value >> (8 * size)));
}

}  // namespace

FwCfg::FwCfg(GuestMemory& memory) : memory_(memory) {
  add(signature, {'Q', 'E', 'M', 'U'});
  add_number(interface_version, version_traditional | version_dma, 4);
  update_directory();
}

void FwCfg::add(uint16_t key, std::vector<uint8_t> content) { items_[key] = {std::move(content), {}}; }

void FwCfg::add_number(uint16_t key, uint64_t value, unsigned size) {
  std::vector<uint8_t> bytes;
  for (unsigned i = 0; i < size; ++i) bytes.push_back(static_cast<uint8_t>(value >> (8 * i)));
  add(key, std::move(bytes));
}

void FwCfg::add_file(std::string_view name, std::vector<uint8_t> content) {
  CAISSON_CHECK(!name.empty() && name.size() <= longest_name && names_.size() < most_files);
  CAISSON_CHECK(content.size() <= std::numeric_limits<uint32_t>::max());
  add(static_cast<uint16_t>(first_file + names_.size()), std::move(content));
  names_.emplace_back(name);
  update_directory();
}

void FwCfg::add_file(std::string_view name, std::function<std::vector<uint8_t>()> make) {
  add_file(name, make());
  items_[static_cast<uint16_t>(first_file + names_.size() - 1)].make = std::move(make);
}

// Sorted by name, as readers may search by halves.
void FwCfg::update_directory() {
  std::vector<uint16_t> order;
  for (size_t i = 0; i < names_.size(); ++i) order.push_back(static_cast<uint16_t>(i));
  std::ranges::sort(order, {}, [&](uint16_t i) { return names_[i]; });
  std::vector<uint8_t> bytes;
  append_big(bytes, order.size(), 4);
  for (const uint16_t i : order) {
    const auto key = static_cast<uint16_t>(first_file + i);
    append_big(bytes, items_[key].content.size(), 4);
    append_big(bytes, key, 2);
    append_big(bytes, 0, 2);
    const size_t end = bytes.size() + longest_name + 1;
    bytes.insert(bytes.end(), names_[i].begin(), names_[i].end());
    bytes.resize(end);
  }
  add(file_directory, std::move(bytes));
}

void FwCfg::select(uint16_t key) {
  state_.selected = key;
  state_.offset = 0;
  const auto item = items_.find(key);
  if (item == items_.end() || !item->second.make) return;
  const size_t size = item->second.content.size();
  item->second.content = item->second.make();
  CAISSON_CHECK(item->second.content.size() == size);
}

std::span<const uint8_t> FwCfg::rest() const {
  const auto item = items_.find(state_.selected);
  if (item == items_.end() || state_.offset >= item->second.content.size()) return {};
  return std::span{item->second.content}.subspan(state_.offset);
}

uint64_t FwCfg::read(unsigned region, uint64_t offset, unsigned size) {
  if (region == Dma) {
    const uint64_t value = __builtin_bswap64(dma_signature);
    return value >> (8 * offset);
  }
  if (offset != data_offset || size != 1) return 0;
  const auto bytes = rest();
  if (bytes.empty()) return 0;  // beyond an item's end, and of an unknown item
  ++state_.offset;
  return bytes[0];
}

void FwCfg::write(unsigned region, uint64_t offset, unsigned size, uint64_t value) {
  if (region == Ports) {
    if (offset == selector_offset && size == 2) select(static_cast<uint16_t>(value));
    return;
  }
  // The register is big-endian; writing its lower half starts the transfer.
  if (offset == 0 && size == 8) {
    transfer(__builtin_bswap64(value));
  } else if (offset == 0 && size == 4) {
    state_.dma_high = __builtin_bswap32(static_cast<uint32_t>(value));
  } else if (offset == 4 && size == 4) {
    const uint32_t high = std::exchange(state_.dma_high, 0);
    transfer(uint64_t{high} << 32 | __builtin_bswap32(static_cast<uint32_t>(value)));
  }
}

void FwCfg::transfer(Gpa at) {
  Descriptor descriptor;
  if (!memory_.read_object(at, descriptor)) return;
  const uint32_t control = __builtin_bswap32(descriptor.control);
  const uint32_t length = __builtin_bswap32(descriptor.length);
  const Gpa address = __builtin_bswap64(descriptor.address);
  if ((control & control_select) != 0) select(static_cast<uint16_t>(control >> control_key_shift));
  uint32_t result = 0;
  if ((control & control_read) != 0) {
    const auto to = memory_.span(address, length);
    if (to.size() != length) {
      result = control_error;
    } else if (length != 0) {
      const auto bytes = rest();
      const size_t copied = std::min<size_t>(bytes.size(), length);
      if (copied != 0) std::memcpy(to.data(), bytes.data(), copied);
      std::ranges::fill(to.subspan(copied), uint8_t{0});
      memory_.written(address, length);
    }
  } else if ((control & control_write) != 0) {
    result = control_error;
  }
  if (result == 0 && (control & (control_read | control_skip)) != 0) {
    state_.offset = static_cast<uint32_t>(std::min<uint64_t>(uint64_t{state_.offset} + length, 0xffff'ffff));
  }
  (void)memory_.write_object(at, __builtin_bswap32(result));
}

Result<> FwCfg::restore(std::span<const uint8_t> in) {
  State state = state_;
  if (auto done = fields::restore(state, in); !done) return done;
  select(state.selected);
  state_ = state;
  return {};
}

}  // namespace caisson
