#include "devices/storage/ahci.h"

#include <algorithm>
#include <bit>
#include <numeric>

#include "base/check.h"
#include "devices/storage/ahci_registers.h"

namespace caisson::storage {
namespace {

constexpr pci::Identity identity{.vendor = 0x8086,
                                 .device = 0x2922,
                                 .revision = 2,
                                 .class_code = 0x010601,
                                 .subsystem_vendor = 0x1af4,
                                 .subsystem = 0x1100,
                                 .interrupt_pin = 1};
// ICH9 data sheet (316972), 15.1.28: which kind of controller the ports are.
constexpr unsigned address_map = 0x90, address_map_ahci = 0x40;

constexpr uint32_t low(uint64_t value) { return static_cast<uint32_t>(value); }
constexpr uint32_t high(uint64_t value) { return static_cast<uint32_t>(value >> 32); }
constexpr uint64_t with_low(uint64_t value, uint32_t part, uint32_t align) {
  return (value & ~uint64_t{0xffff'ffff}) | (part & ~(align - 1));
}
constexpr uint64_t with_high(uint64_t value, uint32_t part) { return low(value) | uint64_t{part} << 32; }

constexpr uint32_t task_file(const AtaResult& result) { return result.status | uint32_t{result.error} << 8; }

}  // namespace

Ahci::Ahci(GuestMemory& memory) : PciDevice(identity), memory_(memory) {
  add_bar(register_bar, {.size = register_size, .widths = {.min = 4, .max = 4}});
  config_.define(address_map, 2, address_map_ahci, 0);
  power_on();
}

Ahci::~Ahci() {
  for (unsigned i = 0; i < port_count; ++i) abort(i);
}

void Ahci::connect(unsigned port, std::unique_ptr<AtaDevice> device, BlockBackend* image) {
  CAISSON_CHECK(port < port_count && ports_[port].device == nullptr);
  ports_[port].device = std::move(device);
  ports_[port].image = image;
  reset_port(port);
}

std::optional<unsigned> Ahci::free_port() const {
  for (unsigned i = 0; i < port_count; ++i) {
    if (ports_[i].device == nullptr) return i;
  }
  return {};
}

// --- Registers, 3 ---

uint64_t Ahci::read(unsigned, uint64_t offset, unsigned) {
  if (offset >= ports_offset) {
    const auto index = static_cast<unsigned>((offset - ports_offset) / port_size);
    return index < port_count ? read_port(index, static_cast<unsigned>(offset % port_size)) : 0;
  }
  switch (static_cast<HostRegister>(offset)) {
    case HostRegister::CAP:
      return cap_64_bit | cap_clo | cap_gen3 | cap_ahci_only | (slot_count - 1) << cap_slots_shift | (port_count - 1);
    case HostRegister::GHC: return state_.control | ghc_ahci_enable;
    case HostRegister::IS: return state_.interrupts;
    case HostRegister::PI: return (1u << port_count) - 1;
    case HostRegister::VS: return 0x0001'0301;
    default: return 0;
  }
}

void Ahci::write(unsigned, uint64_t offset, unsigned, uint64_t wide) {
  const auto value = static_cast<uint32_t>(wide);
  if (offset >= ports_offset) {
    const auto index = static_cast<unsigned>((offset - ports_offset) / port_size);
    if (index < port_count) write_port(index, static_cast<unsigned>(offset % port_size), value);
    return;
  }
  switch (static_cast<HostRegister>(offset)) {
    case HostRegister::GHC:
      if ((value & ghc_reset) != 0) {  // 10.4.3: done at once
        power_on();
        return;
      }
      state_.control = value & ghc_interrupt_enable;
      update_interrupt();
      return;
    case HostRegister::IS:
      state_.interrupts &= ~value;
      update_interrupt();
      return;
    default: return;
  }
}

uint32_t Ahci::read_port(unsigned index, unsigned offset) const {
  const PortState& port = state_.ports[index];
  switch (static_cast<PortRegister>(offset)) {
    case PortRegister::CLB: return low(port.command_list);
    case PortRegister::CLBU: return high(port.command_list);
    case PortRegister::FB: return low(port.received_fis);
    case PortRegister::FBU: return high(port.received_fis);
    case PortRegister::IS: return port.interrupts;
    case PortRegister::IE: return port.enabled;
    case PortRegister::CMD: {
      uint32_t value = port.command | cmd_spin_up | cmd_power_on;
      if ((value & cmd_start) != 0) {
        value |= cmd_list_running;
        if (ports_[index].active) value |= ports_[index].active->slot << cmd_slot_shift;
      }
      if ((value & cmd_receive_enable) != 0) value |= cmd_receive_running;
      return value;
    }
    case PortRegister::TFD: return port.task_file | (ports_[index].active ? status_busy : 0u);
    case PortRegister::SIG: return port.signature;
    case PortRegister::SSTS:
      // 3.3.10: active, 6 Gb/s, communication established; or offline, or nobody there.
      if ((port.control & sctl_detection) == sctl_offline) return sctl_offline;
      return ports_[index].device != nullptr && (port.control & sctl_detection) == 0 ? 0x133 : 0;
    case PortRegister::SCTL: return port.control;
    case PortRegister::SERR: return port.errors;
    case PortRegister::CI: return port.issued;
    default: return 0;
  }
}

void Ahci::write_port(unsigned index, unsigned offset, uint32_t value) {
  PortState& port = state_.ports[index];
  switch (static_cast<PortRegister>(offset)) {
    case PortRegister::CLB: port.command_list = with_low(port.command_list, value, 1024); return;
    case PortRegister::CLBU: port.command_list = with_high(port.command_list, value); return;
    case PortRegister::FB: port.received_fis = with_low(port.received_fis, value, 256); return;
    case PortRegister::FBU: port.received_fis = with_high(port.received_fis, value); return;
    case PortRegister::IS:
      // PCS and PRCS only show what PxSERR has.
      port.interrupts &= ~(value & ~(is_connect_change | is_phy_change));
      update_interrupt();
      return;
    case PortRegister::IE:
      port.enabled = value & ie_writable;
      update_interrupt();
      return;
    case PortRegister::CMD: write_command(index, value); return;
    case PortRegister::SCTL: write_control(index, value); return;
    case PortRegister::SERR:
      port.errors &= ~value;
      if ((port.errors & serr_exchanged) == 0) port.interrupts &= ~is_connect_change;
      update_interrupt();
      return;
    case PortRegister::CI:
      // 3.3.14: only while ST is set; software cannot clear bits.
      if ((port.command & cmd_start) == 0) return;
      port.issued |= value;
      pump(index);
      return;
    default: return;
  }
}

void Ahci::write_command(unsigned index, uint32_t value) {
  PortState& port = state_.ports[index];
  const uint32_t before = port.command;
  if ((value & cmd_list_override) != 0) port.task_file &= ~uint32_t{status_busy | status_data};
  port.command = value & cmd_writable;
  if ((before & ~port.command & cmd_start) != 0) {  // 10.3.2: what was issued is forgotten
    abort(index);
    port.issued = 0;
    port.halted = false;
    ports_[index].next_slot = 0;
  }
  if ((port.command & cmd_receive_enable) != 0 && port.first_frame) send_first_frame(index);
  pump(index);
}

// 10.4.2: DET 1 holds the device in COMRESET, back to 0 lets it go; 4 switches the interface off.
void Ahci::write_control(unsigned index, uint32_t value) {
  PortState& port = state_.ports[index];
  const uint32_t before = port.control & sctl_detection;
  port.control = value & sctl_writable;
  const uint32_t after = port.control & sctl_detection;
  if (before == after) return;
  if (after != 0) {
    abort(index);
    port.task_file = 0x7f;
    port.in_reset = false;
    port.first_frame = false;
    return;
  }
  if (ports_[index].device == nullptr) return;
  reset_port(index);
  port.errors |= serr_exchanged;
  raise(index, is_connect_change);
}

// The device's side of COMRESET; registers stay.
void Ahci::reset_port(unsigned index) {
  PortState& port = state_.ports[index];
  port.in_reset = false;
  port.task_file = 0x7f;
  port.signature = ~0u;
  if (ports_[index].device == nullptr) return;
  ports_[index].device->reset();
  port.first_frame = true;
  if ((port.command & cmd_receive_enable) != 0) send_first_frame(index);
}

void Ahci::power_on() {
  state_.control = 0;
  state_.interrupts = 0;
  for (unsigned i = 0; i < port_count; ++i) {
    abort(i);
    PortState& port = state_.ports[i];
    // 10.4.3: the addresses survive.
    port = {.command_list = port.command_list, .received_fis = port.received_fis};
    ports_[i].next_slot = 0;
    reset_port(i);
  }
  update_interrupt();
}

// The signature goes into PxSIG and PxTFD once frames are received (5.2.2.1, 3.3.9).
void Ahci::send_first_frame(unsigned index) {
  PortState& port = state_.ports[index];
  const AtaResult result = ports_[index].device->signature();
  port.first_frame = false;
  port.signature = static_cast<uint32_t>(result.count & 0xff) | low(result.lba) << 8;
  port.task_file = task_file(result);
  receive_registers(index, result);
}

// Forgets the command that the device is busy with.
void Ahci::abort(unsigned index) {
  Port& port = ports_[index];
  if (!port.active) return;
  if (port.image != nullptr) {
    port.draining = Draining::Discard;
    port.image->drain();
    port.draining = Draining::No;
  }
  port.ended_in_drain = false;
  port.active.reset();
}

void Ahci::config_write(unsigned offset, unsigned size, uint32_t value) {
  PciDevice::config_write(offset, size, value);
  if (offset < pci::command + 2 && offset + size > pci::command) pump_all();
}

void Ahci::reset() {
  for (PortState& port : state_.ports) port.command_list = port.received_fis = 0;
  power_on();
  reset_config();
}

// --- Interrupts, 5.6.2 ---

void Ahci::raise(unsigned index, uint32_t causes) {
  state_.ports[index].interrupts |= causes;
  update_interrupt();
}

void Ahci::update_interrupt() {
  for (unsigned i = 0; i < port_count; ++i) {
    if ((state_.ports[i].interrupts & state_.ports[i].enabled) != 0) state_.interrupts |= 1u << i;
  }
  set_intx((state_.control & ghc_interrupt_enable) != 0 && state_.interrupts != 0);
}

// --- Frames from the device, 4.2.1 ---

void Ahci::receive(unsigned index, unsigned offset, std::span<const uint8_t> frame) {
  const PortState& port = state_.ports[index];
  if ((port.command & cmd_receive_enable) == 0 || !bus_master()) return;
  if (!memory_.write(port.received_fis + offset, frame)) fatal(index, is_bus_fatal);
}

void Ahci::receive_registers(unsigned index, const AtaResult& result) {
  std::array<uint8_t, 20> frame{fis_registers, fis_interrupt, result.status, result.error};
  for (unsigned i = 0; i < 3; ++i) frame[4 + i] = static_cast<uint8_t>(result.lba >> (8 * i));
  frame[7] = result.device;
  for (unsigned i = 0; i < 3; ++i) frame[8 + i] = static_cast<uint8_t>(result.lba >> (24 + 8 * i));
  frame[12] = static_cast<uint8_t>(result.count);
  frame[13] = static_cast<uint8_t>(result.count >> 8);
  receive(index, received_registers, frame);
}

// One for the whole transfer, as if it were one block of data.
void Ahci::receive_pio_setup(unsigned index, const AtaResult& result, uint64_t length) {
  std::array<uint8_t, 20> frame{fis_pio_setup, fis_interrupt | fis_to_host, status_good | status_data, 0};
  for (unsigned i = 0; i < 3; ++i) frame[4 + i] = static_cast<uint8_t>(result.lba >> (8 * i));
  frame[7] = result.device;
  frame[12] = static_cast<uint8_t>(result.count);
  frame[15] = result.status;
  frame[16] = static_cast<uint8_t>(length);
  frame[17] = static_cast<uint8_t>(length >> 8);
  receive(index, received_pio_setup, frame);
}

// --- Commands, 5.3 ---

void Ahci::pump_all() {
  for (unsigned i = 0; i < port_count; ++i) pump(i);
}

void Ahci::pump(unsigned index) {
  PortState& state = state_.ports[index];
  Port& port = ports_[index];
  // A command may end at once: a loop, no recursion. Each round clears a bit or ends the loop.
  while ((state.command & cmd_start) != 0 && !state.halted && !port.active && state.issued != 0 && bus_master() &&
         port.device != nullptr && (state.control & sctl_detection) == 0 && port.draining == Draining::No) {
    const uint32_t turned = std::rotr(state.issued, static_cast<int>(port.next_slot));
    const unsigned slot = (port.next_slot + static_cast<unsigned>(std::countr_zero(turned))) % slot_count;
    port.next_slot = (slot + 1) % slot_count;
    issue(index, slot);
  }
}

void Ahci::issue(unsigned index, unsigned slot) {
  PortState& state = state_.ports[index];
  const Gpa address = state.command_list + slot * sizeof(CommandHeader);
  CommandHeader header;
  std::array<uint8_t, command_table_fixed> table{};
  const auto copied = [&] {
    if (!memory_.read_object(address, header)) return false;
    header.table_low &= ~0x7fu;
    return memory_.read(header.table(), table);
  };
  if (!copied()) {
    fatal(index, is_bus_fatal);
    return;
  }
  if (table[0] != fis_host_registers) {
    fatal(index, is_interface_fatal);
    return;
  }
  if ((table[1] & fis_is_command) == 0) {
    // The device control register: software reset by two frames, with SRST and without (10.4.1).
    const bool resets = (table[15] & control_reset) != 0;
    if (resets) {
      state.in_reset = true;
      state.task_file = (header.flags & header_clear_busy) != 0 ? uint32_t{status_good} : uint32_t{status_busy};
    } else if (state.in_reset) {
      state.in_reset = false;
      ports_[index].device->reset();
      send_first_frame(index);
    }
    complete_slot(index, slot);
    return;
  }
  auto active = std::make_unique<Active>();
  active->slot = slot;
  active->header = address;
  active->table = header.table();
  active->descriptors = header.descriptors;
  AtaCommand& command = active->command;
  const auto wide = [&](unsigned at) {
    return uint64_t{table[at]} | uint64_t{table[at + 1]} << 8 | uint64_t{table[at + 2]} << 16;
  };
  command.command = table[2];
  command.features = static_cast<uint16_t>(table[3] | table[11] << 8);
  command.lba = wide(4) | wide(8) << 24;
  command.device = table[7];
  command.count = static_cast<uint16_t>(table[12] | table[13] << 8);
  command.has_packet = (header.flags & header_packet) != 0;
  std::copy_n(table.begin() + packet_offset, command.packet.size(), command.packet.begin());
  active->plan = ports_[index].device->start(command);
  ports_[index].active = std::move(active);
  carry_out(index);
}

std::optional<std::vector<Ahci::Segment>> Ahci::gather(const Active& active, uint64_t length, uint64_t& found) const {
  std::vector<Segment> segments;
  found = 0;
  for (unsigned i = 0; i < active.descriptors && found < length; ++i) {
    Descriptor descriptor;
    if (!memory_.read_object(active.table + command_table_fixed + i * sizeof descriptor, descriptor)) return {};
    const uint64_t size = std::min<uint64_t>((descriptor.count & descriptor_count) + 1, length - found);
    const Gpa address = (uint64_t{descriptor.address_high} << 32 | descriptor.address_low) & ~Gpa{1};
    if (!memory_.contains(address, size)) return {};
    segments.push_back({address, size});
    found += size;
  }
  return segments;
}

void Ahci::carry_out(unsigned index) {
  using Kind = AtaPlan::Kind;
  Active& active = *ports_[index].active;
  AtaPlan& plan = active.plan;
  switch (plan.kind) {
    case Kind::Done: finish(index, plan.result); return;
    case Kind::Flush: submit(index, {.op = BlockOp::Flush}); return;
    case Kind::Discard: {
      const std::vector<AtaPlan::Range> ranges = std::move(plan.ranges);
      active.parts = 1;  // not done before the last is submitted
      for (const AtaPlan::Range& range : ranges) {
        submit(index, {.op = BlockOp::WriteZeroes, .may_unmap = true, .offset = range.offset, .length = range.length});
      }
      part_done(index, 0);
      return;
    }
    default: break;
  }
  const uint64_t length = plan.kind == Kind::DataIn ? plan.bytes.size() : plan.length;
  uint64_t found = 0;
  auto segments = gather(active, length, found);
  if (!segments) {
    ports_[index].active.reset();
    fatal(index, is_bus_fatal);
    return;
  }
  // 5.4.1: the device has more than the table takes. A packet device's answers may be cut; sectors may not.
  const bool cut = found < length;
  if (cut && plan.kind != Kind::DataIn) {
    ports_[index].active.reset();
    fatal(index, is_overflow);
    return;
  }
  active.segments = std::move(*segments);
  active.transferred = found;
  switch (plan.kind) {
    case Kind::DataIn: {
      uint64_t at = 0;
      for (const Segment& segment : active.segments) {
        // Checked by gather(); RAM does not go away.
        std::ignore = memory_.write(segment.address, std::span(plan.bytes).subspan(at, segment.length));
        at += segment.length;
      }
      if (cut) raise(index, is_overflow);
      finish(index, plan.result);
      return;
    }
    case Kind::DataOut: {
      std::vector<uint8_t> bytes(length);
      uint64_t at = 0;
      for (const Segment& segment : active.segments) {
        std::ignore = memory_.read(segment.address, std::span(bytes).subspan(at, segment.length));
        at += segment.length;
      }
      AtaPlan next = ports_[index].device->data_out(active.command, bytes);
      CAISSON_CHECK(next.kind != Kind::DataOut);
      active.plan = std::move(next);
      carry_out(index);
      return;
    }
    default: {
      BlockRequest request{
          .op = plan.kind == Kind::Read ? BlockOp::Read : BlockOp::Write, .offset = plan.offset, .length = plan.length};
      request.buffers.reserve(active.segments.size());
      for (const Segment& segment : active.segments) {
        request.buffers.push_back({memory_.base() + segment.address, segment.length});
      }
      submit(index, std::move(request));
      return;
    }
  }
}

// --- The image ---

void Ahci::submit(unsigned index, BlockRequest request) {
  CAISSON_CHECK(ports_[index].image != nullptr);
  ++ports_[index].active->parts;
  request.done = [this, index](int error) { part_done(index, error); };
  ports_[index].image->submit(std::move(request));
}

void Ahci::part_done(unsigned index, int error) {
  Port& port = ports_[index];
  Active& active = *port.active;
  if (active.plan.kind == AtaPlan::Kind::Read) {
    // The image wrote past written(); translations of these pages die now, whatever becomes of the command.
    for (const Segment& segment : active.segments) memory_.written(segment.address, segment.length);
  }
  if (error != 0) active.error = error;
  if (--active.parts != 0 || port.draining == Draining::Discard) return;
  if (port.draining == Draining::Complete) {
    port.ended_in_drain = true;  // a completion may submit nothing while the image drains
  } else {
    image_done(index);
    pump(index);
  }
}

void Ahci::image_done(unsigned index) {
  Active& active = *ports_[index].active;
  if (active.error != 0) {
    active.transferred = 0;
    finish(index, ports_[index].device->failed(active.command, active.error));
    return;
  }
  if (active.plan.kind == AtaPlan::Kind::Write && active.plan.flush_after) {
    active.plan.flush_after = false;
    submit(index, {.op = BlockOp::Flush});
    return;
  }
  finish(index, active.plan.result);
}

// 5.3.9 to 5.3.13, 6.2.2.1: registers, then the slot; after an error the slot stays issued, and the port stops.
void Ahci::finish(unsigned index, AtaResult result) {
  PortState& state = state_.ports[index];
  const auto active = std::move(ports_[index].active);
  const bool failed = (result.status & status_error) != 0;
  const auto transferred = static_cast<uint32_t>(active->transferred);
  if (!memory_.write_object(active->header + header_transferred, transferred)) {
    fatal(index, is_bus_fatal);
    return;
  }
  state.task_file = task_file(result);
  // The last word of data for the host is the PIO setup frame (ATA protocol PIO data-in); all else ends by registers.
  const bool pio = active->plan.pio && !failed && transferred != 0;
  const bool data_in = active->plan.kind == AtaPlan::Kind::DataIn || active->plan.kind == AtaPlan::Kind::Read;
  uint32_t causes = 0;
  if (pio && data_in) {
    receive_pio_setup(index, result, transferred);
    causes |= is_pio_setup;
  }
  if (!pio || !data_in || active->command.has_packet) {
    receive_registers(index, result);
    causes |= is_registers;
  }
  if (failed) {
    causes |= is_task_file_error;
    state.halted = true;
  } else {
    state.issued &= ~(1u << active->slot);
  }
  raise(index, causes);
}

void Ahci::complete_slot(unsigned index, unsigned slot) { state_.ports[index].issued &= ~(1u << slot); }

void Ahci::fatal(unsigned index, uint32_t cause) {
  state_.ports[index].halted = true;
  raise(index, cause);
}

// --- Saving ---

void Ahci::quiesce() {
  for (unsigned i = 0; i < port_count; ++i) {
    Port& port = ports_[i];
    while (port.active) {
      port.draining = Draining::Complete;
      port.image->drain();
      port.draining = Draining::No;
      if (std::exchange(port.ended_in_drain, false)) image_done(i);
      pump(i);
    }
  }
}

void Ahci::save(fields::Buffer& out) const {
  State state = state_;
  state.config = config_.state();
  for (unsigned i = 0; i < port_count; ++i) {
    if (ports_[i].device) state.ports[i].device = ports_[i].device->state();
  }
  fields::save(state, out);
}

Result<> Ahci::restore(std::span<const uint8_t> in) {
  State state = state_;
  state.config = config_.state();
  for (unsigned i = 0; i < port_count; ++i) {
    if (ports_[i].device) state.ports[i].device = ports_[i].device->state();
  }
  if (auto done = fields::restore(state, in); !done) return done;
  if (auto done = restore_config(state.config); !done) return done;
  for (unsigned i = 0; i < port_count; ++i) {
    abort(i);
    PortState& port = state.ports[i];
    port.command_list &= ~uint64_t{1023};
    port.received_fis &= ~uint64_t{255};
    port.enabled &= ie_writable;
    port.command &= cmd_writable;
    port.control &= sctl_writable;
    port.first_frame = port.first_frame && ports_[i].device != nullptr;
    if ((port.command & cmd_start) == 0) port.issued = 0;
    if (ports_[i].device) ports_[i].device->set_state(port.device);
    ports_[i].next_slot = 0;
  }
  state_ = state;
  state_.control &= ghc_interrupt_enable;
  state_.interrupts &= (1u << port_count) - 1;
  update_interrupt();
  return {};
}

}  // namespace caisson::storage
