#include "devices/pci/msix.h"

#include "base/check.h"

namespace caisson::pci {
namespace {

constexpr uint8_t msix_capability = 0x11;
constexpr uint16_t control_enable = 1 << 15;
constexpr uint16_t control_function_mask = 1 << 14;
constexpr uint32_t entry_masked = 1;
constexpr unsigned entry_size = 16;

// The members of an entry in table order, and what of each a guest can write: addresses are dword aligned and the
// vector control has one bit (6.8.2.9).
struct Column {
  uint32_t Msix::Entry::*member;
  uint32_t writable;
};
constexpr Column columns[] = {
    {&Msix::Entry::address_low, ~3u},
    {&Msix::Entry::address_high, ~0u},
    {&Msix::Entry::data, ~0u},
    {&Msix::Entry::control, entry_masked},
};

}  // namespace

Msix::Msix(MsiSink& sink, ConfigSpace& config, unsigned vectors, unsigned bar)
    : sink_(sink), config_(config), vectors_(vectors) {
  CAISSON_CHECK(vectors >= 1 && vectors <= max_vectors && bar < 6);
  const uint16_t control = static_cast<uint16_t>(vectors - 1);
  const uint32_t table = static_cast<uint32_t>(table_offset) | bar;
  const uint32_t pba = static_cast<uint32_t>(pba_offset) | bar;
  std::array<uint8_t, 10> body{};
  std::array<uint8_t, 10> writable{};
  for (unsigned i = 0; i < 2; ++i) body[i] = static_cast<uint8_t>(control >> (8 * i));
  for (unsigned i = 0; i < 4; ++i) body[2 + i] = static_cast<uint8_t>(table >> (8 * i));
  for (unsigned i = 0; i < 4; ++i) body[6 + i] = static_cast<uint8_t>(pba >> (8 * i));
  writable[1] = (control_enable | control_function_mask) >> 8;
  capability_ = config.add_capability(msix_capability, body, writable);
}

bool Msix::enabled() const { return (config_.get(capability_ + 2, 2) & control_enable) != 0; }

bool Msix::can_send(unsigned vector) const {
  // A message is a memory write, so it needs bus mastering.
  return (config_.get(capability_ + 2, 2) & control_function_mask) == 0 &&
         (state_.table[vector].control & entry_masked) == 0 && (config_.get(command, 2) & command_bus_master) != 0;
}

void Msix::send(unsigned vector) {
  const Entry& entry = state_.table[vector];
  sink_.send_msi(uint64_t{entry.address_high} << 32 | entry.address_low, entry.data);
}

void Msix::notify(unsigned vector) {
  if (vector >= vectors_ || !enabled()) return;
  if (can_send(vector)) {
    send(vector);
  } else {
    state_.pending |= uint64_t{1} << vector;
  }
}

void Msix::update() {
  if (!enabled() || state_.pending == 0) return;
  for (unsigned vector = 0; vector < vectors_; ++vector) {
    const uint64_t bit = uint64_t{1} << vector;
    if ((state_.pending & bit) == 0 || !can_send(vector)) continue;
    state_.pending &= ~bit;
    send(vector);
  }
}

uint8_t Msix::read_byte(uint64_t offset) const {
  if (offset < vectors_ * entry_size) {
    const Entry& entry = state_.table[offset / entry_size];
    return static_cast<uint8_t>(entry.*columns[offset / 4 % 4].member >> (8 * (offset % 4)));
  }
  if (offset >= pba_offset && offset < pba_offset + 8) {
    return static_cast<uint8_t>(state_.pending >> (8 * (offset - pba_offset)));
  }
  return 0;
}

uint64_t Msix::read(uint64_t offset, unsigned size) const {
  uint64_t value = 0;
  for (unsigned i = 0; i < size; ++i) value |= uint64_t{read_byte(offset + i)} << (8 * i);
  return value;
}

void Msix::write(uint64_t offset, unsigned size, uint64_t value) {
  for (unsigned i = 0; i < size; ++i) {
    const uint64_t at = offset + i;
    if (at >= vectors_ * entry_size) continue;  // the PBA and the rest are read-only
    const Column& column = columns[at / 4 % 4];
    const unsigned shift = 8 * static_cast<unsigned>(at % 4);
    const uint32_t mask = (0xffu << shift) & column.writable;
    uint32_t& word = state_.table[at / entry_size].*column.member;
    word = (word & ~mask) | (static_cast<uint32_t>(value >> (8 * i) & 0xff) << shift & mask);
  }
  update();
}

Result<> Msix::restore(const State& state) {
  for (const Entry& entry : state.table) {
    for (const Column& column : columns) {
      if ((entry.*column.member & ~column.writable) != 0) return fail("saved MSI-X table has reserved bits set");
    }
  }
  if (vectors_ < 64 && state.pending >> vectors_ != 0) {
    return fail("saved MSI-X pending bits {:#x} name vectors that a device with {} has not", state.pending, vectors_);
  }
  state_ = state;
  return {};
}

}  // namespace caisson::pci
