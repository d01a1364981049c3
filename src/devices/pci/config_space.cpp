#include "devices/pci/config_space.h"

#include "base/check.h"

namespace caisson::pci {

ConfigSpace::ConfigSpace(const Identity& identity) {
  struct Field {
    uint8_t offset;
    uint8_t width;
    uint32_t reset_value;
    uint32_t writable;
  };
  const Field fields[] = {
      {vendor_id, 2, identity.vendor, 0},
      {device_id, 2, identity.device, 0},
      {command, 2, 0, command_writable},
      {status, 2, 0, 0},
      {revision_id, 1, identity.revision, 0},
      {class_code, 1, identity.class_code & 0xff, 0},
      {class_code + 1, 2, identity.class_code >> 8, 0},
      {cache_line_size, 1, 0, 0xff},
      {latency_timer, 1, 0, 0xff},
      {header_type, 1, 0, 0},
      {subsystem_vendor_id, 2, identity.subsystem_vendor, 0},
      {subsystem_id, 2, identity.subsystem, 0},
      {interrupt_line, 1, 0, 0xff},
      {interrupt_pin, 1, identity.interrupt_pin, 0},
  };
  for (const Field& field : fields) define(field.offset, field.width, field.reset_value, field.writable);
}

void ConfigSpace::define(unsigned offset, unsigned width, uint32_t reset_value, uint32_t writable) {
  CAISSON_CHECK(width <= 4 && offset + width <= size);
  for (unsigned i = 0; i < width; ++i) {
    reset_[offset + i] = static_cast<uint8_t>(reset_value >> (8 * i));
    writable_[offset + i] = static_cast<uint8_t>(writable >> (8 * i));
  }
  reset();
}

unsigned ConfigSpace::add_capability(uint8_t id, std::span<const uint8_t> body, std::span<const uint8_t> writable) {
  const unsigned offset = free_;
  CAISSON_CHECK(offset + 2 + body.size() <= size && (writable.empty() || writable.size() == body.size()));
  define(last_link_, 1, offset, 0);
  define(offset, 1, id, 0);
  define(offset + 1, 1, 0, 0);
  for (unsigned i = 0; i < body.size(); ++i) define(offset + 2 + i, 1, body[i], writable.empty() ? 0 : writable[i]);
  define(status, 2, status_capabilities, 0);
  last_link_ = offset + 1;
  free_ = static_cast<unsigned>(offset + 2 + body.size() + 3) & ~3u;
  return offset;
}

uint32_t ConfigSpace::read(unsigned offset, unsigned width) const {
  uint32_t value = 0;
  for (unsigned i = 0; i < width; ++i) {
    const uint32_t byte = offset + i < size ? state_.bytes[offset + i] : 0xff;
    value |= byte << (8 * i);
  }
  return value;
}

void ConfigSpace::write(unsigned offset, unsigned width, uint32_t value) {
  for (unsigned i = 0; i < width && offset + i < size; ++i) {
    uint8_t& byte = state_.bytes[offset + i];
    const uint8_t mask = writable_[offset + i];
    byte = static_cast<uint8_t>((byte & ~mask) | (value >> (8 * i) & mask));
  }
}

void ConfigSpace::set(unsigned offset, unsigned width, uint32_t value) {
  for (unsigned i = 0; i < width; ++i) state_.bytes[offset + i] = static_cast<uint8_t>(value >> (8 * i));
}

Result<> ConfigSpace::restore(const State& state) {
  for (unsigned i = 0; i < size; ++i) {
    // The interrupt status bit is the device's to say.
    const unsigned constant = 0xff & ~writable_[i] & (i == status ? ~unsigned{status_interrupt} : ~0u);
    if (((state.bytes[i] ^ reset_[i]) & constant) != 0) {
      return fail(
          "PCI configuration byte {:#x} is {:#04x} where this device has {:#04x}: the saved state is of another "
          "device; use the configuration that it was saved with",
          i, state.bytes[i], reset_[i]);
    }
  }
  state_ = state;
  return {};
}

}  // namespace caisson::pci
