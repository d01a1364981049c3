#include "devices/pci/lpc_bridge.h"

namespace caisson::pci {
namespace {

constexpr Identity identity{.vendor = 0x8086,
                            .device = 0x2918,
                            .revision = 2,
                            .class_code = 0x060100,
                            .subsystem_vendor = 0x1af4,
                            .subsystem = 0x1100};

// 13.1.13 … 13.1.34
enum Offset : uint8_t {
  pm_base = 0x40,
  acpi_control = 0x44,
  pirq_a_to_d = 0x60,
  pirq_e_to_h = 0x68,
  gen_pmcon_1 = 0xa0,
  gen_pmcon_3 = 0xa4,
  rcba = 0xf0,
};
constexpr uint32_t io_space = 1;
constexpr uint32_t not_routed = 0x8080'8080;

}  // namespace

LpcBridge::LpcBridge() : PciDevice(identity) {
  // What is behind it is always there (13.1.3); OVMF starts no driver for it otherwise.
  config_.define(command, 2, command_io | command_memory | command_bus_master, 0);
  config_.define(pm_base, 4, io_space, 0xff80);
  config_.define(acpi_control, 1, 0, 0x87);
  config_.define(pirq_a_to_d, 4, not_routed, 0x8f8f'8f8f);
  config_.define(pirq_e_to_h, 4, not_routed, 0x8f8f'8f8f);
  config_.define(gen_pmcon_1, 2, 0, 0x06ff);
  config_.define(gen_pmcon_3, 1, 0, 0xff);
  config_.define(rcba, 4, 0, 0xffff'c001);
}

Result<> LpcBridge::restore(std::span<const uint8_t> in) {
  State state = config_.state();
  if (auto done = fields::restore(state, in); !done) return done;
  return restore_config(state);
}

}  // namespace caisson::pci
