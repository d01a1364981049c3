// Registers, bits and structures in memory of an AHCI controller.
//   Spec     Serial ATA AHCI 1.3.1, 3 (registers), 4.2 (memory); Serial ATA 3.1, 10.3 (frames)
//   Threads  constants
#pragma once

#include <cstdint>

#include "memory/guest_memory.h"

namespace caisson::storage {

// 3.1
enum class HostRegister : uint32_t { CAP = 0x00, GHC = 0x04, IS = 0x08, PI = 0x0c, VS = 0x10, CAP2 = 0x24 };
inline constexpr unsigned cap_slots_shift = 8;
inline constexpr uint32_t cap_ahci_only = 1u << 18;
inline constexpr uint32_t cap_gen3 = 3u << 20;
inline constexpr uint32_t cap_clo = 1u << 24;
inline constexpr uint32_t cap_64_bit = 1u << 31;
inline constexpr uint32_t ghc_reset = 1u << 0;
inline constexpr uint32_t ghc_interrupt_enable = 1u << 1;
inline constexpr uint32_t ghc_ahci_enable = 1u << 31;

// 3.3
inline constexpr unsigned ports_offset = 0x100, port_size = 0x80;
enum class PortRegister : uint32_t {
  CLB = 0x00,
  CLBU = 0x04,
  FB = 0x08,
  FBU = 0x0c,
  IS = 0x10,
  IE = 0x14,
  CMD = 0x18,
  TFD = 0x20,
  SIG = 0x24,
  SSTS = 0x28,
  SCTL = 0x2c,
  SERR = 0x30,
  SACT = 0x34,
  CI = 0x38,
};
// PxIS and PxIE, 3.3.5
inline constexpr uint32_t is_registers = 1u << 0;
inline constexpr uint32_t is_pio_setup = 1u << 1;
inline constexpr uint32_t is_connect_change = 1u << 6;
inline constexpr uint32_t is_phy_change = 1u << 22;
inline constexpr uint32_t is_overflow = 1u << 24;
inline constexpr uint32_t is_interface_fatal = 1u << 27;
inline constexpr uint32_t is_bus_fatal = 1u << 29;
inline constexpr uint32_t is_task_file_error = 1u << 30;
inline constexpr uint32_t ie_writable = 0xfdc0'00ff;
// PxCMD, 3.3.7
inline constexpr uint32_t cmd_start = 1u << 0;
inline constexpr uint32_t cmd_spin_up = 1u << 1;
inline constexpr uint32_t cmd_power_on = 1u << 2;
inline constexpr uint32_t cmd_list_override = 1u << 3;
inline constexpr uint32_t cmd_receive_enable = 1u << 4;
inline constexpr unsigned cmd_slot_shift = 8;
inline constexpr uint32_t cmd_receive_running = 1u << 14;
inline constexpr uint32_t cmd_list_running = 1u << 15;
inline constexpr uint32_t cmd_atapi = 1u << 24;
inline constexpr uint32_t cmd_led_on_atapi = 1u << 25;
inline constexpr uint32_t cmd_writable = cmd_start | cmd_receive_enable | cmd_atapi | cmd_led_on_atapi;
// PxSCTL, 3.3.11; PxSERR, 3.3.12
inline constexpr uint32_t sctl_detection = 0xf;
inline constexpr uint32_t sctl_offline = 4;
inline constexpr uint32_t sctl_writable = 0xfff;
inline constexpr uint32_t serr_exchanged = 1u << 26;

// 4.2.2
struct CommandHeader {
  uint16_t flags = 0;
  uint16_t descriptors = 0;
  uint32_t transferred = 0;
  uint32_t table_low = 0;
  uint32_t table_high = 0;
  uint32_t reserved[4] = {};
  [[nodiscard]] Gpa table() const { return uint64_t{table_high} << 32 | table_low; }
};
static_assert(sizeof(CommandHeader) == 32);
inline constexpr uint16_t header_packet = 1u << 5;
inline constexpr uint16_t header_clear_busy = 1u << 10;
inline constexpr unsigned header_transferred = 4;

// 4.2.3: frame, packet, then descriptors.
inline constexpr unsigned packet_offset = 0x40, command_table_fixed = 0x80;
struct Descriptor {
  uint32_t address_low = 0;
  uint32_t address_high = 0;
  uint32_t reserved = 0;
  uint32_t count = 0;  // less one
};
static_assert(sizeof(Descriptor) == 16);
inline constexpr uint32_t descriptor_count = 0x3f'ffff;

// 4.2.1
inline constexpr unsigned received_pio_setup = 0x20, received_registers = 0x40;

// Frames. The second byte of one from the host says whether it carries a command.
inline constexpr uint8_t fis_host_registers = 0x27, fis_registers = 0x34, fis_pio_setup = 0x5f;
inline constexpr uint8_t fis_is_command = 0x80, fis_interrupt = 0x40, fis_to_host = 0x20;
inline constexpr uint8_t control_reset = 1u << 2;

}  // namespace caisson::storage
