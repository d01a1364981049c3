#include "devices/network/e1000.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace caisson::network {

using namespace e1000;

namespace {

constexpr pci::Identity identity{.vendor = 0x8086,
                                 .device = 0x100e,
                                 .revision = 2,
                                 .class_code = 0x020000,
                                 .subsystem_vendor = 0x1af4,
                                 .subsystem = 0x1100,
                                 .interrupt_pin = 1};

// Words of the EEPROM, 5.6.
constexpr unsigned word_subsystem = 0xb, word_subsystem_vendor = 0xc, word_device = 0xd, word_vendor = 0xe,
                   word_sum_place = 0x3f;
constexpr uint8_t eeprom_start_bits = 3 + eeprom_address_bits;  // start, opcode, address
constexpr unsigned eeprom_read_opcode = 0b110;                  // with the start bit

// The PHY's registers: IEEE 802.3, 22.2.4 and 40.5; from 16 on Marvell 88E1011 as 13.4.6 of the manual has them.
constexpr unsigned phy_address = 1;
enum Phy : uint8_t {
  phy_control = 0,
  phy_status = 1,
  phy_id1 = 2,
  phy_id2 = 3,
  phy_advertised = 4,
  phy_partner = 5,
  phy_expansion = 6,
  phy_gigabit_control = 9,
  phy_gigabit_status = 10,
  phy_extended_status = 15,
  phy_special_control = 16,
  phy_special_status = 17,
  phy_extended_control = 20,
};
constexpr uint16_t phy_control_reset = 1u << 15, phy_control_restart = 1u << 9, phy_control_normal = 0x1140;
// Negotiated, the link up: the partner can do all, at a gigabit and full duplex both ways.
constexpr uint16_t phy_status_base = 0x7949, phy_negotiated = 1u << 5, phy_link = 1u << 2;
constexpr uint16_t phy_special_up = 0xac00, phy_special_down = 0x8000;

constexpr uint32_t low(uint64_t value) { return static_cast<uint32_t>(value); }
constexpr uint64_t with_low(uint64_t value, uint32_t part) { return (value & ~uint64_t{0xffff'ffff}) | part; }
constexpr uint64_t with_high(uint64_t value, uint32_t part) { return low(value) | uint64_t{part} << 32; }

constexpr uint32_t ring_address_mask = ~0xfu, ring_length_mask = 0xf'ff80;

}  // namespace

// Registers that hold what is written and do nothing by themselves.
struct E1000::Plain {
  Register offset;
  uint32_t State::*member;
  uint32_t writable;
};
const E1000::Plain E1000::plain_registers[] = {
    {Register::FCAL, &State::flow_address_low, ~0u},
    {Register::FCAH, &State::flow_address_high, 0xffff},
    {Register::FCT, &State::flow_type, 0xffff},
    {Register::VET, &State::vlan_type, 0xffff},
    {Register::ITR, &State::throttle, 0xffff},
    {Register::FCTTV, &State::flow_time, 0xffff},
    {Register::TXCW, &State::transmit_word, ~0u},
    {Register::TIPG, &State::gap, 0x3fff'ffff},
    {Register::AIT, &State::adaptive, 0xffff},
    {Register::LEDCTL, &State::lights, ~0u},
    {Register::PBA, &State::buffer, 0xffff'ffff},
    {Register::FCRTL, &State::flow_low, 0x8000'fff8},
    {Register::FCRTH, &State::flow_high, 0xfff8},
    {Register::RDTR, &State::receive_delay, 0xffff},
    {Register::RXDCTL, &State::receive_descriptors, 0x013f'3f3f},
    {Register::RADV, &State::receive_absolute, 0xffff},
    {Register::RSRPD, &State::small_packets, 0xfff},
    {Register::TIDV, &State::transmit_delay, 0xffff},
    {Register::TXDCTL, &State::transmit_descriptors, 0xff3f'3f3f},
    {Register::TADV, &State::transmit_absolute, 0xffff},
    {Register::TSPMT, &State::segmentation_pad, ~0u},
    {Register::RXCSUM, &State::checksums, 0x7ff},
    {Register::WUC, &State::wake_control, 0xf},
    {Register::WUFC, &State::wake_filter, ~0u},
    {Register::MANC, &State::management, ~0u},
};

E1000::E1000(GuestMemory& memory, Clock& clock, NetBackend& backend, const Mac& mac)
    : PciDevice(identity), memory_(memory), clock_(clock), backend_(backend) {
  add_bar(register_bar, {.size = register_size, .widths = {.min = 4, .max = 4}});
  add_bar(io_bar, {.size = io_size, .io = true, .widths = {.min = 4, .max = 4}});
  for (unsigned i = 0; i < 3; ++i) eeprom_[i] = static_cast<uint16_t>(mac[2 * i] | mac[2 * i + 1] << 8);
  eeprom_[word_subsystem] = identity.subsystem;
  eeprom_[word_subsystem_vendor] = identity.subsystem_vendor;
  eeprom_[word_device] = identity.device;
  eeprom_[word_vendor] = identity.vendor;
  uint16_t sum = 0;
  for (const uint16_t word : eeprom_) sum = static_cast<uint16_t>(sum + word);
  eeprom_[word_sum_place] = static_cast<uint16_t>(eeprom_sum - sum);
  throttle_ = clock.create_timer([this] { update_interrupt(); });
  more_ = clock.create_timer([this] { pump(); });
  reset_phy();
  reset_card();
  backend_.set_receiver([this](std::span<const uint8_t> frame) { return receive(frame); });
}

E1000::~E1000() { backend_.set_receiver({}); }

// --- Registers, 13 ---

uint64_t E1000::read(unsigned region, uint64_t offset, unsigned) {
  if (region == register_bar) return read_register(low(offset));
  if (offset == 0) return state_.io_address;
  return offset == 4 && state_.io_address < register_size ? read_register(state_.io_address) : 0;
}

// The ports are an address and what stands there (13.3).
void E1000::write(unsigned region, uint64_t offset, unsigned, uint64_t value) {
  if (region == register_bar) {
    write_register(low(offset), low(value));
  } else if (offset == 0) {
    state_.io_address = low(value) & ~3u;
  } else if (offset == 4 && state_.io_address < register_size) {
    write_register(state_.io_address, low(value));
  }
}

uint32_t E1000::read_register(uint32_t offset) {
  const auto word = [&](auto& table, uint32_t base) -> auto* {
    const uint32_t index = (offset - base) / 4;
    return offset >= base && index < table.size() ? &table[index] : nullptr;
  };
  if (const uint32_t* found = word(state_.multicast, multicast_table)) return *found;
  if (const uint32_t* found = word(state_.addresses, receive_addresses)) return *found;
  if (const uint32_t* found = word(state_.vlans, vlan_table)) return *found;
  if (uint32_t* found = word(state_.statistics, statistics)) return std::exchange(*found, 0);
  for (const Plain& plain : plain_registers) {
    if (static_cast<uint32_t>(plain.offset) == offset) return state_.*plain.member;
  }
  const Ring &in = state_.receive_ring, &out = state_.transmit_ring;
  switch (static_cast<Register>(offset)) {
    case Register::CTRL: return state_.control;
    case Register::STATUS: return status_full_duplex | status_gigabit | (link_up() ? status_link_up : 0);
    case Register::EECD:
      return state_.eeprom.wires | eecd_present | (state_.eeprom.out ? eecd_out : 0) |
             ((state_.eeprom.wires & eecd_request) != 0 ? eecd_grant : 0);
    case Register::EERD: return state_.eeprom_read;
    case Register::CTRL_EXT: return state_.extended_control;
    case Register::MDIC: return state_.management_data;
    case Register::ICR: {
      const uint32_t causes = std::exchange(state_.causes, 0);
      update_interrupt();
      return causes;
    }
    case Register::IMS: return state_.enabled;
    case Register::RCTL: return state_.receive;
    case Register::TCTL: return state_.transmit;
    case Register::RDBAL: return low(in.base);
    case Register::RDBAH: return low(in.base >> 32);
    case Register::RDLEN: return in.length;
    case Register::RDH: return in.head;
    case Register::RDT: return in.tail;
    case Register::TDBAL: return low(out.base);
    case Register::TDBAH: return low(out.base >> 32);
    case Register::TDLEN: return out.length;
    case Register::TDH: return out.head;
    case Register::TDT: return out.tail;
    default: return 0;
  }
}

void E1000::write_register(uint32_t offset, uint32_t value) {
  const auto store = [&](auto& table, uint32_t base) {
    const uint32_t index = (offset - base) / 4;
    if (offset < base || index >= table.size()) return false;
    table[index] = value;
    return true;
  };
  if (store(state_.multicast, multicast_table) || store(state_.addresses, receive_addresses) ||
      store(state_.vlans, vlan_table)) {
    return;
  }
  for (const Plain& plain : plain_registers) {
    if (static_cast<uint32_t>(plain.offset) != offset) continue;
    state_.*plain.member = value & plain.writable;
    return;
  }
  Ring &in = state_.receive_ring, &out = state_.transmit_ring;
  switch (static_cast<Register>(offset)) {
    case Register::CTRL: write_control(value); return;
    case Register::EECD: write_wires(value); return;
    case Register::EERD:
      if ((value & eerd_start) != 0) {
        const unsigned address = value >> 8 & 0xff;
        const uint32_t word = address < eeprom_words ? eeprom_[address] : 0;
        state_.eeprom_read = (value & 0xff00) | eerd_done | word << 16;
      }
      return;
    case Register::CTRL_EXT:
      if ((value & ctrl_ext_eeprom_reset) != 0) load_address();
      state_.extended_control = value & ~ctrl_ext_eeprom_reset;
      return;
    case Register::MDIC: write_management_data(value); return;
    case Register::ICR:
      state_.causes &= ~value;
      update_interrupt();
      return;
    case Register::ICS: raise(value & all_causes); return;
    case Register::IMS:
      state_.enabled |= value & all_causes;
      update_interrupt();
      return;
    case Register::IMC:
      state_.enabled &= ~value;
      update_interrupt();
      return;
    case Register::RCTL:
      state_.receive = value;
      receive_again();
      return;
    case Register::RDBAL: in.base = with_low(in.base, value & ring_address_mask); return;
    case Register::RDBAH: in.base = with_high(in.base, value); return;
    case Register::RDLEN: in.length = value & ring_length_mask; return;
    case Register::RDH: in.head = value & 0xffff; return;
    case Register::RDT:
      in.tail = value & 0xffff;
      receive_again();
      return;
    case Register::TCTL:
      state_.transmit = value;
      pump();
      return;
    case Register::TDBAL: out.base = with_low(out.base, value & ring_address_mask); return;
    case Register::TDBAH: out.base = with_high(out.base, value); return;
    case Register::TDLEN: out.length = value & ring_length_mask; return;
    case Register::TDH: out.head = value & 0xffff; return;
    case Register::TDT:
      out.tail = value & 0xffff;
      pump();
      return;
    default: return;
  }
}

void E1000::config_write(unsigned offset, unsigned size, uint32_t value) {
  PciDevice::config_write(offset, size, value);
  if (offset < pci::command + 2 && offset + size > pci::command && bus_master()) {
    pump();
    receive_again();
  }
}

// --- Reset and link, 14 ---

void E1000::write_control(uint32_t value) {
  if ((value & ctrl_phy_reset) != 0) reset_phy();
  if ((value & ctrl_reset) != 0) {
    reset_card();
    return;
  }
  const bool before = link_up();
  state_.control = value & ~(ctrl_reset | ctrl_phy_reset);
  if (link_up() != before) link_changed();
}

// 14.2: all but the PHY, PCI's registers, and the place that the ports are at.
void E1000::reset_card() {
  State fresh;
  fresh.phy = state_.phy;
  fresh.cable = state_.cable;
  fresh.io_address = state_.io_address;
  state_ = std::move(fresh);
  state_.control = ctrl_full_duplex | ctrl_gigabit;
  state_.buffer = 0x0010'0030;  // 13.4.13: 48 KiB to receive
  state_.management_data = mdic_ready;
  starved_ = false;
  not_before_ = 0;
  throttle_->cancel();
  more_->cancel();
  load_address();
  update_interrupt();
}

void E1000::load_address() {
  state_.addresses[0] = eeprom_[0] | uint32_t{eeprom_[1]} << 16;
  state_.addresses[1] = eeprom_[2] | address_valid;
}

void E1000::reset() {
  const bool cable = state_.cable;
  state_ = {};
  state_.cable = cable;
  reset_phy();
  reset_card();
  state_.io_address = 0;
  reset_config();
}

bool E1000::link_up() const { return state_.cable && (state_.control & ctrl_set_link_up) != 0; }

void E1000::set_link(bool up) {
  if (up == state_.cable) return;
  const bool before = link_up();
  state_.cable = up;
  if (link_up() != before) link_changed();
}

void E1000::link_changed() { raise(cause_link); }

// --- PHY ---

void E1000::reset_phy() {
  state_.phy = {};
  state_.phy[phy_control] = phy_control_normal;
  state_.phy[phy_id1] = 0x0141;
  state_.phy[phy_id2] = 0x0c20;
  state_.phy[phy_advertised] = 0x01e1;
  state_.phy[phy_gigabit_control] = 0x0300;
  state_.phy[phy_extended_status] = 0x3000;
  state_.phy[phy_special_control] = 0x0068;
  state_.phy[phy_extended_control] = 0x0c60;
}

void E1000::write_management_data(uint32_t value) {
  const uint32_t operation = value >> mdic_operation_shift & 3;
  const unsigned index = value >> mdic_register_shift & 31;
  state_.management_data = (value & ~mdic_error) | mdic_ready;
  if ((value >> mdic_phy_shift & 31) != phy_address || (operation != mdic_read && operation != mdic_write)) {
    state_.management_data |= mdic_error;
  } else if (operation == mdic_write) {
    write_phy(index, static_cast<uint16_t>(value));
  } else {
    uint16_t data = state_.phy[index];
    // What follows from the cable; nobody takes time to negotiate.
    const bool up = state_.cable;
    if (index == phy_status) data = phy_status_base | (up ? phy_negotiated | phy_link : 0);
    if (index == phy_partner) data = up ? 0xc5e1 : 0;
    if (index == phy_expansion) data = up ? 1 : 0;
    if (index == phy_gigabit_status) data = up ? 0x7c00 : 0;
    if (index == phy_special_status) data = up ? phy_special_up : phy_special_down;
    state_.management_data = (state_.management_data & ~0xffffu) | data;
  }
  if ((value & mdic_interrupt) != 0) raise(cause_mdio);
}

void E1000::write_phy(unsigned index, uint16_t value) {
  switch (index) {
    case phy_control:
      if ((value & phy_control_reset) != 0) {
        reset_phy();
        return;
      }
      state_.phy[index] = static_cast<uint16_t>(value & ~phy_control_restart);
      if ((value & phy_control_restart) != 0 && link_up()) link_changed();
      return;
    case phy_status:
    case phy_id1:
    case phy_id2:
    case phy_extended_status: return;
    default: state_.phy[index] = value; return;
  }
}

// --- EEPROM by its wires: a Microwire part of 64 words, 5.5 ---

void E1000::write_wires(uint32_t value) {
  Eeprom& eeprom = state_.eeprom;
  const uint32_t before = std::exchange(eeprom.wires, value & eecd_writable);
  if ((value & eecd_select) == 0) {
    eeprom = {.wires = eeprom.wires};
    return;
  }
  if ((~before & value & eecd_clock) == 0) return;
  if (eeprom.bits < eeprom_start_bits) {
    const unsigned bit = (value & eecd_in) != 0 ? 1 : 0;
    if (eeprom.bits == 0 && bit == 0) return;  // it waits for the start bit
    eeprom.shifted = static_cast<uint16_t>(eeprom.shifted << 1 | bit);
    if (++eeprom.bits == eeprom_start_bits) {
      eeprom.address = eeprom.shifted & (eeprom_words - 1);
      eeprom.out_bit = 0;
    }
    eeprom.out = false;  // a zero comes before the word
    return;
  }
  if (eeprom.shifted >> eeprom_address_bits != eeprom_read_opcode) return;
  eeprom.out = (eeprom_[eeprom.address] >> (15 - eeprom.out_bit) & 1) != 0;
  if (++eeprom.out_bit == 16) {
    eeprom.out_bit = 0;
    eeprom.address = (eeprom.address + 1) % eeprom_words;
  }
}

// --- Interrupts, 13.4.17 to 13.4.21 ---

void E1000::raise(uint32_t causes) {
  state_.causes |= causes;
  update_interrupt();
}

void E1000::update_interrupt() {
  const bool wanted = (state_.causes & state_.enabled) != 0;
  if (wanted == interrupt_) return;
  if (wanted && state_.throttle != 0) {
    const uint64_t now = clock_.now_ns();
    if (now < not_before_) {
      throttle_->arm(not_before_);
      return;
    }
    not_before_ = now + uint64_t{state_.throttle} * 256;  // 13.4.18: in units of 256 ns
  }
  interrupt_ = wanted;
  set_intx(wanted);
}

// --- Statistics ---

void E1000::count(Statistic what, uint64_t by) {
  uint32_t& word = state_.statistics[(static_cast<uint32_t>(what) - statistics) / 4];
  word = low(std::min<uint64_t>(uint64_t{word} + by, ~0u));  // they stick at the top (13.7)
}

void E1000::count_octets(Statistic what, uint64_t by) {
  const uint32_t index = (static_cast<uint32_t>(what) - statistics) / 4;
  const uint64_t sum = (state_.statistics[index] | uint64_t{state_.statistics[index + 1]} << 32) + by;
  state_.statistics[index] = low(sum);
  state_.statistics[index + 1] = low(sum >> 32);
}

// --- Saving ---

void E1000::save(fields::Buffer& out) const {
  State state = state_;
  state.config = config_.state();
  fields::save(state, out);
}

Result<> E1000::restore(std::span<const uint8_t> in) {
  State state = state_;
  state.config = config_.state();
  if (auto done = fields::restore(state, in); !done) return done;
  if (state.eeprom.address >= eeprom_words || state.eeprom.out_bit >= 16 || state.eeprom.bits > eeprom_start_bits) {
    return fail("saved e1000 EEPROM is at word {}, bit {}, which it has not", state.eeprom.address,
                state.eeprom.out_bit);
  }
  if (auto done = restore_config(state.config); !done) return done;
  state_ = std::move(state);
  for (const Plain& plain : plain_registers) state_.*plain.member &= plain.writable;
  for (Ring* ring : {&state_.receive_ring, &state_.transmit_ring}) {
    ring->base &= ~uint64_t{0xf};
    ring->length &= ring_length_mask;
    ring->head &= 0xffff;
    ring->tail &= 0xffff;
  }
  state_.io_address &= ~3u;
  state_.causes &= all_causes;
  state_.enabled &= all_causes;
  not_before_ = 0;
  interrupt_ = !((state_.causes & state_.enabled) != 0);  // so that the pin is set anew
  update_interrupt();
  receive_again();
  more_->arm(clock_.now_ns());  // what the ring has waits for nothing but this
  return {};
}

}  // namespace caisson::network
