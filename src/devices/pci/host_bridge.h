// Host bridge and root of PCI bus 0.
//   Spec     PCI Local Bus Specification 3.0, 3.2.2.3.2 (configuration mechanism #1); PCI Firmware
//   Specification 3.3, 4.1
//            (memory-mapped configuration)
//   Models   ports 0xCF8 and 0xCFC, the memory-mapped window, slots 0 to 31 with one function each, placing and moving
//   of
//            BARs, wired-or of interrupt pins
//   Omits    bridges to further buses, PIRQ routing to the 8259s
//   Threads  under the device lock
//
// No firmware runs before a kernel that is booted directly, so every BAR has an address from reset on; nothing is
// decoded until the guest turns memory decode on. A BAR that the guest moves to where it cannot be (outside the
// windows, as while it is being sized, or onto another) is not decoded there; nothing else is disturbed, its registers
// keep what was written, and it is decoded again as soon as they name a possible address. The reset control register
// 0xCF9 lies inside the ports: its device must be mapped on the bus after this one.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "bus/bus.h"
#include "bus/interrupt.h"
#include "devices/pci/layout.h"
#include "devices/pci/pci_device.h"

namespace caisson::pci {

class HostBridge final : public PciDevice {
 public:
  enum Region : uint8_t { config_ports, ecam };
  static constexpr uint16_t port_base = 0xcf8;

  struct State {
    ConfigSpace::State config;
    uint32_t config_address = 0;
    static constexpr auto fields() {
      return fields::table<State>(fields::row<1>("config", &State::config),
                                  fields::row<2>("config_address", &State::config_address));
    }
  };

  // Gives the wire of an IOAPIC input; asked for each of first_intx_gsi … once. The wires outlive the bridge.
  using LineFactory = std::function<InterruptLine&(unsigned gsi)>;

  // Which bridge it says it is. Direct: none that firmware knows; BARs have addresses from reset on. Q35: Intel's MCH,
  // for firmware, which assigns the BARs and moves the memory-mapped window by PCIEXBAR (docs/decisions/0015).
  enum class Kind : uint8_t { Direct, Q35 };

  // Maps itself on the bus, which must outlive it. `layout` must be sound (windows disjoint, aligned; with Q35 the
  // memory-mapped window may lie in mmio32, which gives way to it).
  HostBridge(Bus& bus, const Layout& layout, const LineFactory& lines, Kind kind = Kind::Direct);
  ~HostBridge() override;

  // Puts a function into a slot (1 to 31) that must be free, and places its BARs; the bridge owns it from now on.
  // Without a slot: into the first free one.
  unsigned plug(std::unique_ptr<PciDevice> device, std::optional<unsigned> slot = {});
  [[nodiscard]] std::optional<unsigned> free_slot() const;
  // The function, out of its slot: nothing of it is decoded any more, its pin is released, its doorbells are gone.
  // None where the slot is empty. May be called from within a guest's access to another device.
  [[nodiscard]] std::unique_ptr<PciDevice> unplug(unsigned slot);
  // Bit n: there is a function in slot n, the bridge itself not counted.
  [[nodiscard]] uint32_t occupied() const;
  [[nodiscard]] PciDevice* in_slot(unsigned slot) { return slot < slot_count ? slots_[slot].get() : nullptr; }
  // Every function in slot order, this bridge first: for reset, save and restore.
  [[nodiscard]] std::vector<PciDevice*> functions();
  // Where things stand now; with Q35 ecam_buses is 0 while the window is off.
  [[nodiscard]] const Layout& layout() const { return layout_; }
  void config_write(unsigned offset, unsigned size, uint32_t value) override;

  [[nodiscard]] std::string_view name() const override { return "pci-host-bridge"; }
  uint64_t read(unsigned region, uint64_t offset, unsigned size) override;
  void write(unsigned region, uint64_t offset, unsigned size, uint64_t value) override;
  void reset() override;
  void save(fields::Buffer& out) const override;
  [[nodiscard]] Result<> restore(std::span<const uint8_t> in) override;

 private:
  class SlotWiring final : public Slot {
   public:
    void bars_changed() override { bridge->update_windows(); }
    void set_intx(bool asserted) override { bridge->set_pin(slot, asserted); }
    HostBridge* bridge = nullptr;
    unsigned slot = 0;
  };
  struct Window {
    PciDevice* device;
    unsigned bar;
    Space space;
    uint64_t base;
    uint64_t size;
  };
  // Addresses that BARs have from reset on.
  struct Place {
    const PciDevice* device;
    Gpa base;
    uint64_t size;
  };
  struct Allocator {
    Gpa begin = 0;
    Gpa end = 0;
    std::vector<Place> taken{};  // in rising order
    [[nodiscard]] std::optional<Gpa> take(const PciDevice& device, uint64_t size);
    void release(const PciDevice& device);
  };

  [[nodiscard]] PciDevice* function(unsigned bus, unsigned slot, unsigned number);
  uint32_t config_access_read(PciDevice* target, unsigned offset, unsigned size);
  void place_bars(PciDevice& device);
  void update_windows();
  void update_ecam();
  [[nodiscard]] bool possible(Space space, uint64_t base, uint64_t size) const;
  void set_pin(unsigned slot, bool asserted);

  Bus& bus_;
  const Kind kind_;
  Layout layout_;
  std::array<InterruptLine*, intx_gsi_count> lines_{};
  std::array<uint32_t, intx_gsi_count> asserted_{};  // which slots pull each wire
  std::array<SlotWiring, slot_count> wiring_;
  std::array<std::unique_ptr<PciDevice>, slot_count> slots_;
  std::vector<Window> windows_;  // the BARs that are decoded now
  Allocator free_io_;
  Allocator free32_;
  Allocator free64_;
  uint32_t config_address_ = 0;
};

}  // namespace caisson::pci
