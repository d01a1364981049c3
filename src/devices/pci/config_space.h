// The 256 bytes of a function's configuration space: type 0 header, capability list, and which bits a guest can write.
//   Spec     PCI Local Bus Specification 3.0, 6.1 (header), 6.2.5 (BARs), 6.7 (capability list)
//   Models   header, BAR registers with their sizes, capabilities
//   Omits    extended configuration space (the functions are conventional ones), expansion ROM
//   Threads  under the device lock
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "base/fields.h"
#include "base/result.h"

namespace caisson::pci {

// Offsets in the header, 6.1.
enum HeaderOffset : uint8_t {
  vendor_id = 0x00,
  device_id = 0x02,
  command = 0x04,
  status = 0x06,
  revision_id = 0x08,
  class_code = 0x09,
  cache_line_size = 0x0c,
  latency_timer = 0x0d,
  header_type = 0x0e,
  base_address = 0x10,
  subsystem_vendor_id = 0x2c,
  subsystem_id = 0x2e,
  capabilities_pointer = 0x34,
  interrupt_line = 0x3c,
  interrupt_pin = 0x3d,
};

// Bits of the command and status registers, 6.2.2 and 6.2.3.
inline constexpr uint16_t command_io = 1 << 0;
inline constexpr uint16_t command_memory = 1 << 1;
inline constexpr uint16_t command_bus_master = 1 << 2;
inline constexpr uint16_t command_parity = 1 << 6;
inline constexpr uint16_t command_serr = 1 << 8;
inline constexpr uint16_t command_intx_disable = 1 << 10;
// What a guest can write of a function without I/O BARs.
inline constexpr uint16_t command_writable =
    command_memory | command_bus_master | command_parity | command_serr | command_intx_disable;
inline constexpr uint16_t status_interrupt = 1 << 3;
inline constexpr uint16_t status_capabilities = 1 << 4;

struct Identity {
  uint16_t vendor = 0;
  uint16_t device = 0;
  uint8_t revision = 0;
  uint32_t class_code = 0;  // base class, sub-class, interface: 24 bits
  uint16_t subsystem_vendor = 0;
  uint16_t subsystem = 0;
  uint8_t interrupt_pin = 0;  // 1 is INTA#, 0 none
};

class ConfigSpace {
 public:
  static constexpr unsigned size = 256;

  struct State {
    std::array<uint8_t, size> bytes{};
    static constexpr auto fields() { return fields::table<State>(fields::row<1>("bytes", &State::bytes)); }
  };

  explicit ConfigSpace(const Identity& identity);

  // Building, before the guest runs. A field of 1 to 4 bytes: its value at reset and the bits a guest can write.
  void define(unsigned offset, unsigned width, uint32_t reset_value, uint32_t writable);
  // Appends a capability; `body` follows its id and next pointer; `writable` has as many bytes, or none. Returns its
  // offset.
  unsigned add_capability(uint8_t id, std::span<const uint8_t> body, std::span<const uint8_t> writable = {});

  // As the guest: any size of 1, 2 or 4 at any offset; beyond the end reads give ones and writes vanish.
  [[nodiscard]] uint32_t read(unsigned offset, unsigned width) const;
  void write(unsigned offset, unsigned width, uint32_t value);

  // As the device: without regard to masks.
  [[nodiscard]] uint32_t get(unsigned offset, unsigned width) const { return read(offset, width); }
  void set(unsigned offset, unsigned width, uint32_t value);

  void reset() { state_.bytes = reset_; }
  [[nodiscard]] const State& state() const { return state_; }
  // Refuses a state of another device: one whose constant bits differ.
  [[nodiscard]] Result<> restore(const State& state);

 private:
  State state_;
  std::array<uint8_t, size> reset_{};
  std::array<uint8_t, size> writable_{};
  unsigned last_link_ = capabilities_pointer;  // where the next capability's offset goes
  unsigned free_ = 0x40;
};

}  // namespace caisson::pci
