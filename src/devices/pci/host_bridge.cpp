#include "devices/pci/host_bridge.h"

#include <algorithm>

#include "base/check.h"

namespace caisson::pci {
namespace {

constexpr uint32_t config_enable = 1u << 31;

// "PCIe host bridge" of the Red Hat virtual devices: an id that kernels know and have no quirks for.
constexpr Identity bridge_identity{
    .vendor = 0x1b36, .device = 0x0008, .class_code = 0x060000, .subsystem_vendor = 0x1af4, .subsystem = 0x1100};

// Intel 3 Series Express Chipset Family data sheet (316966), 5.1: what firmware looks for and at. The subsystem is the
// one by which SeaBIOS knows that fw_cfg is there.
constexpr Identity q35_identity{
    .vendor = 0x8086, .device = 0x29c0, .class_code = 0x060000, .subsystem_vendor = 0x1af4, .subsystem = 0x1100};
constexpr unsigned pciexbar = 0x60, pam0 = 0x90, pam1 = 0x91, pam_count = 7, smram = 0x9d;
constexpr uint32_t pciexbar_enable = 1, pciexbar_length = 6;  // 0: 256 MiB, 2: 128, 4: 64

constexpr bool disjoint(Gpa a, uint64_t a_size, Gpa b, uint64_t b_size) { return a + a_size <= b || b + b_size <= a; }

constexpr bool inside(Gpa base, uint64_t size, Gpa window, uint64_t window_size) {
  return base >= window && base - window < window_size && size <= window_size - (base - window);
}

constexpr uint64_t ones(unsigned size) { return size >= 8 ? ~uint64_t{0} : (uint64_t{1} << (8 * size)) - 1; }

}  // namespace

// The first gap that is large enough.
std::optional<Gpa> HostBridge::Allocator::take(const PciDevice& device, uint64_t size) {
  const auto aligned = [&](Gpa from) { return (from + size - 1) & ~(size - 1); };
  Gpa base = aligned(begin);
  auto next = taken.begin();
  // What begins before the gap would end does not leave room there.
  while (next != taken.end() && next->base < base + size) {
    base = std::max(base, aligned(next->base + next->size));
    ++next;
  }
  if (base < begin || base >= end || size > end - base) return {};
  taken.insert(next, {&device, base, size});
  return base;
}

void HostBridge::Allocator::release(const PciDevice& device) {
  std::erase_if(taken, [&](const Place& place) { return place.device == &device; });
}

HostBridge::HostBridge(Bus& bus, const Layout& layout, const LineFactory& lines, Kind kind)
    : PciDevice(kind == Kind::Q35 ? q35_identity : bridge_identity), bus_(bus), kind_(kind), layout_(layout) {
  CAISSON_CHECK(layout.mmio32_base + layout.mmio32_size <= 0x1'0000'0000);
  if (kind == Kind::Direct) {
    CAISSON_CHECK(layout.ecam_buses >= 1 && layout.ecam_buses <= 256 && layout.ecam_base % layout.ecam_size() == 0);
    CAISSON_CHECK(disjoint(layout.ecam_base, layout.ecam_size(), layout.mmio32_base, layout.mmio32_size));
  } else {
    config_.define(pciexbar, 4, 0, 0xf000'0000 | pciexbar_length | pciexbar_enable);
    config_.define(pciexbar + 4, 4, 0, 0xf);
    // RAM stands behind all of 0xC0000 to 0xFFFFF from the start, with the firmware in it.
    config_.define(pam0, 1, 0x30, 0x30);
    for (unsigned i = 0; i + 1 < pam_count; ++i) config_.define(pam1 + i, 1, 0x33, 0x33);
    config_.define(smram, 1, 0x02, 0);
    layout_.ecam_buses = 0;
  }
  free_io_ = {layout.io_first, layout.io_base + layout.io_size};
  free32_ = {layout.mmio32_base, layout.mmio32_base + layout.mmio32_size};
  free64_ = {layout.mmio64_base, layout.mmio64_base + layout.mmio64_size};
  for (unsigned i = 0; i < intx_gsi_count; ++i) lines_[i] = &lines(first_intx_gsi + i);
  for (unsigned i = 0; i < slot_count; ++i) {
    wiring_[i].bridge = this;
    wiring_[i].slot = i;
  }
  PciDevice::plug(wiring_[0]);
  bus_.map(Space::Port, port_base, 8, *this, config_ports, {.min = 1, .max = 4});
  if (kind == Kind::Direct) {
    bus_.map(Space::Memory, layout.ecam_base, layout.ecam_size(), *this, ecam, {.min = 1, .max = 8});
  }
}

HostBridge::~HostBridge() {
  for (const Window& window : windows_) bus_.unmap(window.space, *window.device, window.bar);
  windows_.clear();
  bus_.unmap(Space::Port, *this, config_ports);
  bus_.unmap(Space::Memory, *this, ecam);
}

std::optional<unsigned> HostBridge::free_slot() const {
  for (unsigned slot = 1; slot < slot_count; ++slot) {
    if (slots_[slot] == nullptr) return slot;
  }
  return {};
}

unsigned HostBridge::plug(std::unique_ptr<PciDevice> device, std::optional<unsigned> wanted) {
  if (!wanted) wanted = free_slot();
  CAISSON_CHECK(wanted && *wanted >= 1 && *wanted < slot_count && slots_[*wanted] == nullptr);
  if (kind_ == Kind::Direct) place_bars(*device);
  device->plug(wiring_[*wanted]);
  for (PciDevice::Doorbell& doorbell : device->doorbells()) {
    bus_.add_doorbell(*device, doorbell.bar, doorbell.offset, std::move(doorbell.ring));
  }
  slots_[*wanted] = std::move(device);
  return *wanted;
}

std::unique_ptr<PciDevice> HostBridge::unplug(unsigned slot) {
  if (slot == 0 || slot >= slot_count || slots_[slot] == nullptr) return nullptr;
  PciDevice& device = *slots_[slot];
  bus_.remove_doorbells(device);
  std::erase_if(windows_, [&](const Window& window) {
    if (window.device != &device) return false;
    bus_.unmap(window.space, device, window.bar);
    return true;
  });
  set_pin(slot, false);
  device.unplug();
  for (Allocator* allocator : {&free_io_, &free32_, &free64_}) allocator->release(device);
  auto taken = std::move(slots_[slot]);
  update_windows();  // another BAR may have had to wait for the place
  return taken;
}

uint32_t HostBridge::occupied() const {
  uint32_t slots = 0;
  for (unsigned slot = 1; slot < slot_count; ++slot) slots |= slots_[slot] != nullptr ? 1u << slot : 0;
  return slots;
}

std::vector<PciDevice*> HostBridge::functions() {
  std::vector<PciDevice*> all{this};
  for (const auto& device : slots_) {
    if (device != nullptr) all.push_back(device.get());
  }
  return all;
}

void HostBridge::place_bars(PciDevice& device) {
  for (unsigned bar = 0; bar < bar_count; ++bar) {
    const Bar& description = device.bars()[bar];
    if (description.size == 0) continue;
    std::optional<Gpa> base;
    if (description.wide) base = free64_.take(device, description.size);
    if (description.io) {
      base = free_io_.take(device, description.size);
    } else if (!base) {
      base = free32_.take(device, description.size);
    }
    // Without room the BAR stays at 0, which is not decoded, as firmware leaves it that found no room.
    if (base) device.place_bar(bar, *base);
  }
}

void HostBridge::config_write(unsigned offset, unsigned size, uint32_t value) {
  PciDevice::config_write(offset, size, value);
  if (kind_ == Kind::Q35 && offset < pciexbar + 8 && offset + size > pciexbar) update_ecam();
}

// Puts the memory-mapped window where PCIEXBAR says. It must be where BARs may be, which is where no RAM is.
void HostBridge::update_ecam() {
  if (kind_ != Kind::Q35) return;
  const uint32_t low = config_.get(pciexbar, 4);
  const unsigned length = low & pciexbar_length;
  const unsigned buses = (low & pciexbar_enable) == 0 || length == pciexbar_length ? 0 : 256u >> (length / 2);
  const uint64_t size = uint64_t{buses} << 20;
  const Gpa base = (uint64_t{config_.get(pciexbar + 4, 4)} << 32 | (low & 0xf000'0000)) & ~(size - 1);
  bus_.unmap(Space::Memory, *this, ecam);
  layout_.ecam_buses = 0;
  if (buses != 0 && inside(base, size, layout_.mmio32_base, layout_.mmio32_size)) {
    layout_.ecam_base = base;
    layout_.ecam_buses = buses;
    // BARs that lie there are not decoded: the processor's access never leaves the MCH (5.1.16).
    bus_.map(Space::Memory, base, size, *this, ecam, {.min = 1, .max = 8});
  }
  update_windows();
}

bool HostBridge::possible(Space space, uint64_t base, uint64_t size) const {
  if (space == Space::Port) {
    if (!inside(base, size, layout_.io_base, layout_.io_size)) return false;
  } else if (kind_ == Kind::Q35 && !disjoint(base, size, layout_.ecam_base, layout_.ecam_size())) {
    return false;
  } else if (!inside(base, size, layout_.mmio32_base, layout_.mmio32_size) &&
             !inside(base, size, layout_.mmio64_base, layout_.mmio64_size)) {
    return false;
  }
  return std::ranges::all_of(windows_, [&](const Window& window) {
    return window.space != space || disjoint(base, size, window.base, window.size);
  });
}

void HostBridge::update_windows() {
  // What has left its place goes first, so that two BARs can change places.
  std::erase_if(windows_, [&](const Window& window) {
    const bool stays = window.device->decodes(window.device->bars()[window.bar]) &&
                       window.device->bar_address(window.bar) == window.base &&
                       (kind_ == Kind::Direct || window.space == Space::Port ||
                        disjoint(window.base, window.size, layout_.ecam_base, layout_.ecam_size()));
    if (!stays) bus_.unmap(window.space, *window.device, window.bar);
    return !stays;
  });
  for (const auto& device : slots_) {
    if (device == nullptr) continue;
    for (unsigned bar = 0; bar < bar_count; ++bar) {
      const Bar& description = device->bars()[bar];
      if (description.size == 0 || !device->decodes(description)) continue;
      const bool mapped = std::ranges::any_of(
          windows_, [&](const Window& window) { return window.device == device.get() && window.bar == bar; });
      const uint64_t base = device->bar_address(bar);
      const Space space = description.io ? Space::Port : Space::Memory;
      if (mapped || !possible(space, base, description.size)) continue;
      windows_.push_back({device.get(), bar, space, base, description.size});
      bus_.map(space, base, description.size, *device, bar, description.widths);
    }
  }
}

void HostBridge::set_pin(unsigned slot, bool asserted) {
  const PciDevice* device = slots_[slot].get();
  if (device == nullptr) return;
  const unsigned wire = intx_gsi(slot, device->pin() - 1u) - first_intx_gsi;
  const uint32_t bit = 1u << slot;
  asserted_[wire] = asserted ? asserted_[wire] | bit : asserted_[wire] & ~bit;
  lines_[wire]->set(asserted_[wire] != 0);
}

PciDevice* HostBridge::function(unsigned bus, unsigned slot, unsigned number) {
  if (bus != 0 || number != 0) return nullptr;
  return slot == 0 ? this : slots_[slot].get();
}

uint64_t HostBridge::read(unsigned region, uint64_t offset, unsigned size) {
  if (region == ecam) {
    PciDevice* target = function(static_cast<unsigned>(offset >> 20), offset >> 15 & 31, offset >> 12 & 7);
    const unsigned at = offset & 0xfff;
    if (size <= 4) return config_access_read(target, at, size);
    return config_access_read(target, at, 4) | uint64_t{config_access_read(target, at + 4, 4)} << 32;
  }
  // Only whole dwords at 0xCF8 reach CONFIG_ADDRESS (3.2.2.3.2); others would go to other devices.
  if (offset < 4) return offset == 0 && size == 4 ? config_address_ : ones(size);
  if ((config_address_ & config_enable) == 0 || offset + size > 8) return ones(size);
  PciDevice* target = function(config_address_ >> 16 & 0xff, config_address_ >> 11 & 31, config_address_ >> 8 & 7);
  return config_access_read(target, (config_address_ & 0xfc) + static_cast<unsigned>(offset - 4), size);
}

uint32_t HostBridge::config_access_read(PciDevice* target, unsigned offset, unsigned size) {
  // An absent function's configuration reads as ones: master abort.
  if (target == nullptr) return static_cast<uint32_t>(ones(size));
  return target->config_read(offset, size);
}

void HostBridge::write(unsigned region, uint64_t offset, unsigned size, uint64_t value) {
  if (region == ecam) {
    PciDevice* target = function(static_cast<unsigned>(offset >> 20), offset >> 15 & 31, offset >> 12 & 7);
    if (target == nullptr) return;
    const unsigned at = offset & 0xfff;
    target->config_write(at, std::min(size, 4u), static_cast<uint32_t>(value));
    if (size == 8) target->config_write(at + 4, 4, static_cast<uint32_t>(value >> 32));
    return;
  }
  if (offset < 4) {
    if (offset == 0 && size == 4) config_address_ = static_cast<uint32_t>(value) & (config_enable | 0x00ff'fffc);
    return;
  }
  if ((config_address_ & config_enable) == 0 || offset + size > 8) return;
  PciDevice* target = function(config_address_ >> 16 & 0xff, config_address_ >> 11 & 31, config_address_ >> 8 & 7);
  if (target == nullptr) return;
  target->config_write((config_address_ & 0xfc) + static_cast<unsigned>(offset - 4), size,
                       static_cast<uint32_t>(value));
}

void HostBridge::reset() {
  config_address_ = 0;
  reset_config();
  update_ecam();
}

void HostBridge::save(fields::Buffer& out) const { fields::save(State{config_.state(), config_address_}, out); }

Result<> HostBridge::restore(std::span<const uint8_t> in) {
  State state{config_.state(), config_address_};
  if (auto done = fields::restore(state, in); !done) return done;
  if (auto done = restore_config(state.config); !done) return done;
  update_ecam();
  config_address_ = state.config_address & (config_enable | 0x00ff'fffc);
  return {};
}

}  // namespace caisson::pci
