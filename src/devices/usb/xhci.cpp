#include "devices/usb/xhci.h"

#include <algorithm>
#include <utility>

namespace caisson::usb {
namespace {

using namespace xhci;

// The ids of QEMU's controller, which drivers know as one without quirks; they look for the class.
constexpr pci::Identity identity{.vendor = 0x1b36,
                                 .device = 0x000d,
                                 .revision = 1,
                                 .class_code = 0x0c0330,
                                 .subsystem_vendor = 0x1af4,
                                 .subsystem = 0x1100,
                                 .interrupt_pin = 1};
// 5.2.3 and 5.2.4: the serial bus' release and the length of frames.
constexpr unsigned release_number = 0x60, frame_length = 0x61;

constexpr uint32_t low(uint64_t value) { return static_cast<uint32_t>(value); }
constexpr uint32_t high(uint64_t value) { return static_cast<uint32_t>(value >> 32); }
constexpr uint64_t with_low(uint64_t value, uint32_t part) { return (value & ~uint64_t{0xffff'ffff}) | part; }
constexpr uint64_t with_high(uint64_t value, uint32_t part) { return low(value) | uint64_t{part} << 32; }
constexpr uint32_t with_link(uint32_t port, Link link) {
  return (port & ~port_link) | static_cast<uint32_t>(link) << port_link_shift;
}
constexpr Link link_of(uint32_t port) { return static_cast<Link>((port & port_link) >> port_link_shift); }
constexpr bool is_3(unsigned port) { return port < Xhci::ports_3; }  // counted from 0

constexpr uint64_t microframe_ns = 125'000;
constexpr uint32_t most_segments_log2 = 4;
static_assert(1u << most_segments_log2 == Xhci::most_segments);

}  // namespace

Xhci::Xhci(GuestMemory& memory, MsiSink& msi, Clock& clock)
    : PciDevice(identity),
      memory_(memory),
      clock_(clock),
      msix_(msi, config_, 1, msix_bar),
      timer_(clock.create_timer([this] { go_on(); })) {
  config_.define(release_number, 1, 0x30, 0);
  config_.define(frame_length, 1, 0x20, 0x3f);
  add_bar(register_bar, {.size = register_size, .wide = true, .widths = {.min = 4, .max = 4}});
  add_bar(msix_bar, {.size = pci::Msix::bar_size});
  for (unsigned i = 0; i < port_count; ++i) {
    ports_[i].controller = this;
    ports_[i].number = i + 1;
  }
  power_on();
}

std::optional<unsigned> Xhci::connect(std::unique_ptr<UsbDevice> device) {
  const bool super = device->speed() == Speed::Super;
  for (unsigned i = super ? 0 : ports_3; i < (super ? ports_3 : port_count); ++i) {
    if (ports_[i].device) continue;
    device->plug(&ports_[i]);
    device->reset();
    ports_[i].device = std::move(device);
    reset_link(i);
    change_port(i, port_connect_change);
    return i + 1;
  }
  return {};
}

// --- Registers, 5 ---

uint64_t Xhci::read(unsigned region, uint64_t offset, unsigned size) {
  return region == msix_bar ? msix_.read(offset, size) : read_register(offset);
}

void Xhci::write(unsigned region, uint64_t offset, unsigned size, uint64_t value) {
  if (region == msix_bar) {
    msix_.write(offset, size, value);
  } else {
    write_register(offset, low(value));
  }
}

uint32_t Xhci::read_extended(uint64_t offset) const {
  // 7.2: what the ports are.
  const bool second = offset >= 0x10;
  switch (offset % 0x10) {
    case 0x0: return 2 | (second ? 0u : 0x10u / 4 << 8) | (second ? 0x0200u : 0x0300u) << 16;
    case 0x4: return 0x2042'5355;  // "USB "
    case 0x8: return second ? (ports_3 + 1) | ports_2 << 8 : 1 | ports_3 << 8;
    default: return 0;
  }
}

uint32_t Xhci::read_register(uint64_t offset) const {
  if (offset >= doorbell_registers) return 0;
  if (offset >= runtime) {
    switch (static_cast<Runtime>(offset - runtime)) {
      case Runtime::MFINDEX: return low(clock_.now_ns() / microframe_ns) & 0x3fff;
      case Runtime::IMAN: return state_.management;
      case Runtime::IMOD: return state_.moderation;
      case Runtime::ERSTSZ: return state_.table_size;
      case Runtime::ERSTBA: return low(state_.table);
      case Runtime::ERSTBA_high: return high(state_.table);
      case Runtime::ERDP: return low(state_.dequeue);
      case Runtime::ERDP_high: return high(state_.dequeue);
    }
    return 0;
  }
  if (offset >= port_registers) {
    const uint64_t index = (offset - port_registers) / 16;
    return offset % 16 == 0 && index < port_count ? state_.ports[index] : 0;
  }
  if (offset >= operational) {
    switch (static_cast<Operational>(offset - operational)) {
      case Operational::USBCMD: return state_.command;
      case Operational::USBSTS: return state_.status;
      case Operational::PAGESIZE: return 1;  // 4 KiB
      case Operational::DNCTRL: return state_.notifications;
      case Operational::CRCR: return state_.command_running ? crcr_running : 0;
      case Operational::CRCR_high: return 0;
      case Operational::DCBAAP: return low(state_.contexts);
      case Operational::DCBAAP_high: return high(state_.contexts);
      case Operational::CONFIG: return state_.configure;
    }
    return 0;
  }
  if (offset >= extended) return read_extended(offset - extended);
  switch (static_cast<Capability>(offset)) {
    case Capability::CAPLENGTH: return static_cast<uint32_t>(operational) | version << 16;
    case Capability::HCSPARAMS1: return slot_count | 1 << 8 | port_count << 24;
    case Capability::HCSPARAMS2: return most_segments_log2 << 4;
    case Capability::HCSPARAMS3: return 0;
    case Capability::HCCPARAMS1: return hcc_64_bits | static_cast<uint32_t>(extended / 4) << 16;
    case Capability::DBOFF: return static_cast<uint32_t>(doorbell_registers);
    case Capability::RTSOFF: return static_cast<uint32_t>(runtime);
    case Capability::HCCPARAMS2: return 0;
  }
  return 0;
}

void Xhci::write_register(uint64_t offset, uint32_t value) {
  if (offset >= doorbell_registers) {
    const uint64_t slot = (offset - doorbell_registers) / 4;
    if (slot <= slot_count) ring(static_cast<unsigned>(slot), value);
  } else if (offset >= runtime) {
    write_runtime(static_cast<Runtime>(offset - runtime), value);
  } else if (offset >= port_registers) {
    const uint64_t index = (offset - port_registers) / 16;
    if (offset % 16 == 0 && index < port_count) write_port(static_cast<unsigned>(index), value);
  } else if (offset >= operational) {
    write_operational(static_cast<Operational>(offset - operational), value);
  }
}

void Xhci::write_operational(Operational reg, uint32_t value) {
  switch (reg) {
    case Operational::USBCMD: write_command(value); return;
    case Operational::USBSTS: state_.status &= ~(value & (sts_host_error | sts_event | sts_port)); return;
    case Operational::DNCTRL: state_.notifications = value & 0xffff; return;
    case Operational::CRCR: write_ring(value, false); return;
    case Operational::CRCR_high: write_ring(value, true); return;
    case Operational::DCBAAP: state_.contexts = with_low(state_.contexts, value & ~63u); return;
    case Operational::DCBAAP_high: state_.contexts = with_high(state_.contexts, value); return;
    case Operational::CONFIG: state_.configure = value & 0xff; return;
    case Operational::PAGESIZE: return;
  }
}

void Xhci::write_command(uint32_t value) {
  if ((value & cmd_reset) != 0) {
    power_on();
    return;
  }
  const uint32_t before = state_.command;
  state_.command = value & (cmd_run | cmd_interrupts | cmd_host_error | cmd_wrap);
  if ((~before & value & cmd_run) != 0) {
    if ((state_.status & sts_host_error) != 0) return;  // until a reset
    state_.status &= ~sts_halted;
    everything();
    tell_ports();
  } else if ((before & ~value & cmd_run) != 0) {
    state_.status |= sts_halted;
    state_.command_running = false;
  }
  update_interrupt();
}

// 5.4.5
void Xhci::write_ring(uint32_t value, bool is_high) {
  if (!is_high && (value & (crcr_stop | crcr_abort)) != 0) {
    if (!std::exchange(state_.command_running, false)) return;
    if (running() && room()) {
      post(state_.command_ring, static_cast<uint32_t>(Code::RingStopped) << 24,
           static_cast<uint32_t>(TrbType::CompletionEvent) << trb_type_shift);
    }
    return;
  }
  if (state_.command_running) return;
  if (is_high) {
    state_.command_ring = with_high(state_.command_ring, value);
  } else {
    state_.command_ring = with_low(state_.command_ring, value & ~63u);
    state_.command_cycle = (value & crcr_cycle) != 0;
  }
}

// --- Ports, 4.19 and 5.4.8 ---

// As after power-on: a USB 3 link trains by itself, a USB 2 port waits for its reset.
void Xhci::reset_link(unsigned index) {
  uint32_t& port = state_.ports[index];
  const UsbDevice* const device = ports_[index].device.get();
  port = (port & port_changes) | port_power;
  if (device == nullptr) {
    port = with_link(port, Link::RxDetect);
    return;
  }
  port |= port_connected | static_cast<uint32_t>(device->speed()) << port_speed_shift;
  port = is_3(index) ? with_link(port | port_enabled, Link::U0) : with_link(port, Link::Polling);
}

void Xhci::change_port(unsigned index, uint32_t changes) {
  const bool told = (state_.ports[index] & port_changes) != 0;
  state_.ports[index] |= changes;
  state_.status |= sts_port;
  if (told) return;  // 4.19.2: an event for the first change alone
  state_.told_later |= 1u << index;
  tell_ports();
}

void Xhci::reset_port(unsigned index, bool warm) {
  UsbDevice* const device = ports_[index].device.get();
  if (device == nullptr) return;
  device->reset();
  state_.ports[index] = with_link(state_.ports[index] | port_enabled, Link::U0);
  change_port(index, port_reset_change | (warm ? port_warm_reset_change : 0));
}

void Xhci::write_port(unsigned index, uint32_t value) {
  uint32_t& port = state_.ports[index];
  port &= ~(value & port_changes);
  constexpr uint32_t plain = port_indicator | port_wake;
  port = (port & ~plain) | (value & plain);
  const bool warm = is_3(index) && (value & port_warm_reset) != 0;
  if (warm || (value & port_reset) != 0) {
    reset_port(index, warm);
    return;
  }
  if ((value & port & port_enabled) != 0) {
    port = with_link(port & ~port_enabled, is_3(index) ? Link::Disabled : Link::Polling);
    return;
  }
  if ((value & port_link_write) == 0 || (port & port_connected) == 0) return;
  const Link wanted = link_of(value), before = link_of(port);
  switch (wanted) {
    case Link::U0:
      if (before != Link::U3 && before != Link::Resume) return;
      port = with_link(port, wanted);
      change_port(index, port_link_change);
      return;
    case Link::U3:
      if ((port & port_enabled) != 0) port = with_link(port, wanted);
      return;
    case Link::Resume:
      if (!is_3(index) && before == Link::U3) port = with_link(port, wanted);
      return;
    case Link::RxDetect:
      if (is_3(index) && before == Link::Disabled) reset_link(index);
      return;
    default: return;
  }
}

// --- Life cycle ---

// 4.2: everything but the PCI registers.
void Xhci::power_on() {
  State fresh;
  fresh.config = {};
  state_ = std::move(fresh);
  state_.status = sts_halted;
  wanting_ = {};
  commands_wanting_ = false;
  timer_->cancel();
  for (unsigned i = 0; i < port_count; ++i) {
    if (ports_[i].device) ports_[i].device->reset();
    reset_link(i);
    if (ports_[i].device) change_port(i, port_connect_change);
  }
  update_interrupt();
}

void Xhci::host_error() {
  state_.status |= sts_host_error | sts_halted;
  state_.command &= ~cmd_run;
  state_.command_running = false;
}

void Xhci::config_write(unsigned offset, unsigned size, uint32_t value) {
  PciDevice::config_write(offset, size, value);
  msix_.update();
  update_interrupt();
  if (offset < pci::command + 2 && offset + size > pci::command) {
    everything();
    if (running()) tell_ports();
  }
}

void Xhci::reset() {
  power_on();
  msix_.reset();
  reset_config();
}

void Xhci::device_ready(unsigned port, unsigned index) {
  for (unsigned id = 1; id <= slot_count; ++id) {
    if (state_.slots[id].port == port) wanting_[id] |= 1u << index;
  }
  timer_->arm(clock_.now_ns());
}

// Every ring may have something.
void Xhci::everything() {
  commands_wanting_ = true;
  wanting_.fill(~0u);
  timer_->arm(clock_.now_ns());
}

void Xhci::go_on() {
  if (!running()) return;
  if (std::exchange(commands_wanting_, false)) run_commands();
  for (unsigned id = 1; id <= slot_count; ++id) {
    const uint32_t wanting = std::exchange(wanting_[id], 0);
    for (unsigned index = 1; index < endpoint_count; ++index) {
      if ((wanting >> index & 1) != 0) run(id, index);
    }
  }
}

// --- Saving ---

void Xhci::quiesce() {
  for (Port& port : ports_) {
    if (port.device) port.device->quiesce();
  }
}

void Xhci::save(fields::Buffer& out) const {
  State state = state_;
  state.config = config_.state();
  state.msix = msix_.state();
  for (unsigned i = 0; i < port_count; ++i) {
    if (ports_[i].device) ports_[i].device->save(state.devices[i].data);
  }
  fields::save(state, out);
}

Result<> Xhci::check(const State& state) const {
  uint64_t events = 0;
  for (const Segment& segment : state.segments) {
    if (segment.size > 4096) return fail("saved xHCI event ring has a segment that is too long");
    events += segment.size;
  }
  if (state.events != events || (events != 0 && (state.producer >= events || state.consumer >= events))) {
    return fail("saved xHCI event ring is none that a guest could make");
  }
  for (unsigned id = 0; id <= slot_count; ++id) {
    const Slot& slot = state.slots[id];
    bool sound = slot.port <= port_count && slot.state <= SlotState::Enabled &&
                 slot.control_done <= slot.control.data.size() && (id != 0 || slot.state == SlotState::Disabled);
    for (const Endpoint& endpoint : slot.endpoints) {
      sound = sound && endpoint.state <= EndpointState::Error && endpoint.type <= EndpointType::InterruptIn &&
              endpoint.done <= longest_trb;
    }
    if (!sound) return fail("saved xHCI slot {} is none that a guest could make", id);
  }
  return {};
}

Result<> Xhci::restore(std::span<const uint8_t> in) {
  State state = state_;
  state.config = config_.state();
  state.msix = msix_.state();
  for (unsigned i = 0; i < port_count; ++i) {
    if (ports_[i].device) ports_[i].device->save(state.devices[i].data);
  }
  if (auto done = fields::restore(state, in); !done) return done;
  if (auto done = check(state); !done) return done;
  for (unsigned i = 0; i < port_count; ++i) {
    if (ports_[i].device == nullptr) {
      if (!state.devices[i].data.empty()) return fail("saved xHCI port {} has a device that is not there", i + 1);
    } else if (auto done = ports_[i].device->restore(state.devices[i].data); !done) {
      return done;
    }
  }
  if (auto done = msix_.restore(state.msix); !done) return done;
  if (auto done = restore_config(state.config); !done) return done;
  state_ = std::move(state);
  for (auto& device : state_.devices) device = {};
  update_interrupt();
  everything();
  return {};
}

}  // namespace caisson::usb
