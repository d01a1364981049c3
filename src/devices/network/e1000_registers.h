// Registers, bits and structures in memory of an Intel 82540EM network controller.
//   Spec     Intel PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual (317453): 3
//            (descriptors), 5.6 (EEPROM), 13 (registers)
//   Threads  constants
#pragma once

#include <cstdint>

namespace caisson::network::e1000 {

// 13.4
enum class Register : uint32_t {
  CTRL = 0x0000,
  STATUS = 0x0008,
  EECD = 0x0010,
  EERD = 0x0014,
  CTRL_EXT = 0x0018,
  MDIC = 0x0020,
  FCAL = 0x0028,
  FCAH = 0x002c,
  FCT = 0x0030,
  VET = 0x0038,
  ICR = 0x00c0,
  ITR = 0x00c4,
  ICS = 0x00c8,
  IMS = 0x00d0,
  IMC = 0x00d8,
  RCTL = 0x0100,
  FCTTV = 0x0170,
  TXCW = 0x0178,
  TCTL = 0x0400,
  TIPG = 0x0410,
  AIT = 0x0458,
  LEDCTL = 0x0e00,
  PBA = 0x1000,
  FCRTL = 0x2160,
  FCRTH = 0x2168,
  RDBAL = 0x2800,
  RDBAH = 0x2804,
  RDLEN = 0x2808,
  RDH = 0x2810,
  RDT = 0x2818,
  RDTR = 0x2820,
  RXDCTL = 0x2828,
  RADV = 0x282c,
  RSRPD = 0x2c00,
  TDBAL = 0x3800,
  TDBAH = 0x3804,
  TDLEN = 0x3808,
  TDH = 0x3810,
  TDT = 0x3818,
  TIDV = 0x3820,
  TXDCTL = 0x3828,
  TADV = 0x382c,
  TSPMT = 0x3830,
  RXCSUM = 0x5000,
  WUC = 0x5800,
  WUFC = 0x5808,
  MANC = 0x5820,
};
inline constexpr uint32_t multicast_table = 0x5200, receive_addresses = 0x5400, vlan_table = 0x5600;
inline constexpr unsigned table_words = 128, address_count = 16;

// Statistics, 13.7: cleared by reading. Those that are counted here; octets are 64 bits, low dword first.
inline constexpr uint32_t statistics = 0x4000, statistics_words = 64;
enum class Statistic : uint32_t {
  MPC = 0x4010,
  PRC64 = 0x405c,  // five more classes of sizes follow
  GPRC = 0x4074,
  BPRC = 0x4078,
  MPRC = 0x407c,
  GPTC = 0x4080,
  GORC = 0x4088,
  GOTC = 0x4090,
  ROC = 0x40ac,
  TOR = 0x40c0,
  TOT = 0x40c8,
  TPR = 0x40d0,
  TPT = 0x40d4,
  PTC64 = 0x40d8,
  MPTC = 0x40f0,
  BPTC = 0x40f4,
  TSCTC = 0x40f8,
};

inline constexpr uint32_t ctrl_full_duplex = 1u << 0, ctrl_set_link_up = 1u << 6, ctrl_reset = 1u << 26,
                          ctrl_vlan_mode = 1u << 30, ctrl_phy_reset = 1u << 31;
inline constexpr uint32_t ctrl_gigabit = 2u << 8;
inline constexpr uint32_t status_full_duplex = 1u << 0, status_link_up = 1u << 1, status_gigabit = 2u << 6;
inline constexpr uint32_t ctrl_ext_eeprom_reset = 1u << 13;

// 13.4.3 and 13.4.4
inline constexpr uint32_t eecd_clock = 1u << 0, eecd_select = 1u << 1, eecd_in = 1u << 2, eecd_out = 1u << 3,
                          eecd_request = 1u << 6, eecd_grant = 1u << 7, eecd_present = 1u << 8;
inline constexpr uint32_t eecd_writable = eecd_clock | eecd_select | eecd_in | 3u << 4 | eecd_request;
inline constexpr uint32_t eerd_start = 1u << 0, eerd_done = 1u << 4;
inline constexpr unsigned eeprom_words = 64, eeprom_address_bits = 6;
inline constexpr uint16_t eeprom_sum = 0xbaba;

// 13.4.6
inline constexpr unsigned mdic_register_shift = 16, mdic_phy_shift = 21, mdic_operation_shift = 26;
inline constexpr uint32_t mdic_write = 1, mdic_read = 2, mdic_ready = 1u << 28, mdic_interrupt = 1u << 29,
                          mdic_error = 1u << 30;

// Causes of interrupts, 13.4.17.
inline constexpr uint32_t cause_transmit_written = 1u << 0, cause_transmit_empty = 1u << 1, cause_link = 1u << 2,
                          cause_receive_low = 1u << 4, cause_receive_overrun = 1u << 6, cause_received = 1u << 7,
                          cause_mdio = 1u << 9;
inline constexpr uint32_t all_causes = 0x1'ffff;

// 13.4.22
inline constexpr uint32_t rctl_enable = 1u << 1, rctl_unicast_all = 1u << 3, rctl_multicast_all = 1u << 4,
                          rctl_long = 1u << 5, rctl_broadcast = 1u << 15, rctl_vlan_filter = 1u << 18,
                          rctl_size_extended = 1u << 25, rctl_strip_crc = 1u << 26;
inline constexpr unsigned rctl_threshold_shift = 8, rctl_multicast_shift = 12, rctl_size_shift = 16;
inline constexpr uint32_t tctl_enable = 1u << 1, tctl_pad = 1u << 3;
inline constexpr uint32_t rxcsum_ip = 1u << 8, rxcsum_tcp_udp = 1u << 9;
inline constexpr uint32_t address_valid = 1u << 31;

// 3.2.3: what a received frame leaves in its descriptors.
struct ReceiveDescriptor {
  uint64_t address = 0;
  uint16_t length = 0;
  uint16_t checksum = 0;
  uint8_t status = 0;
  uint8_t errors = 0;
  uint16_t special = 0;
};
static_assert(sizeof(ReceiveDescriptor) == 16);
inline constexpr uint8_t received_done = 1 << 0, received_end = 1 << 1, received_no_checksum = 1 << 2,
                         received_vlan = 1 << 3, received_tcp_checked = 1 << 5, received_ip_checked = 1 << 6;
inline constexpr uint8_t received_tcp_wrong = 1 << 5, received_ip_wrong = 1 << 6;

// 3.3: three kinds, told apart by `command` and the type in bits 23:20 of `flags`. The legacy one's fields stand where
// the data descriptor's do, but for the length's 16 bits.
struct TransmitDescriptor {
  uint64_t address = 0;  // a context's: IPCSS, IPCSO, IPCSE, TUCSS, TUCSO, TUCSE
  uint32_t flags = 0;    // length, CSO or type, command
  uint32_t more = 0;     // status, CSS or POPTS or HDRLEN, special or MSS
};
static_assert(sizeof(TransmitDescriptor) == 16);
inline constexpr uint32_t command_end = 1u << 24, command_insert_checksum = 1u << 26, command_segment = 1u << 26,
                          command_report = 1u << 27, command_extended = 1u << 29, command_vlan = 1u << 30;
inline constexpr uint32_t command_tcp = 1u << 24, command_ipv4 = 1u << 25;  // of contexts
inline constexpr unsigned type_shift = 20, type_context = 0, type_data = 1;
inline constexpr uint32_t insert_ip_checksum = 1u << 8, insert_tcp_checksum = 1u << 9;  // POPTS
inline constexpr uint32_t descriptor_done = 1u << 0;

}  // namespace caisson::network::e1000
