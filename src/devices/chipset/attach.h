// The chipset of a PC: owns its devices and puts them at their standard ports and addresses (layout.h).
//   Order    Create the PCI host bridge's port window at 0xcf8 first, or call raise_reset_port() after it: port 0xcf9
//   lies
//            inside it, and later windows lie over earlier ones.
//   Threads  create() and reset(): no CPU runs. The local APICs' pages are not on the bus: engines ask CpuInterrupts.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/result.h"
#include "bus/bus.h"
#include "bus/clock.h"
#include "bus/interrupt.h"
#include "bus/power.h"
#include "devices/chipset/acpi_pm.h"
#include "devices/chipset/apic_bus.h"
#include "devices/chipset/debug_exit.h"
#include "devices/chipset/hpet.h"
#include "devices/chipset/interrupt_router.h"
#include "devices/chipset/keyboard_controller.h"
#include "devices/chipset/layout.h"
#include "devices/chipset/local_apic.h"
#include "devices/chipset/pci_hotplug.h"
#include "devices/chipset/pit.h"
#include "devices/chipset/pvpanic.h"
#include "devices/chipset/reset_control.h"
#include "devices/chipset/rtc.h"
#include "devices/chipset/uart.h"

namespace caisson {

struct ChipsetOptions {
  unsigned cpus = 1;
  unsigned physical_bits = 40;  // of the CPU model
  bool x2apic = true;           // the CPU model has it
  uint64_t low_memory = 0;      // GuestMemory::low_size() and high_size(), for the CMOS
  uint64_t high_memory = 0;
  bool debug_exit = false;
  bool pvpanic = true;
  bool keyboard = false;        // one is plugged in, and a mouse
  CharSink* serial2 = nullptr;  // gets what the guest writes to COM2; null: there is no COM2. Outlives the chipset
};

class Chipset {
 public:
  // `serial` gets what the guest writes to COM1.
  [[nodiscard]] static Result<std::unique_ptr<Chipset>> create(Bus& bus, Clock& clock, PowerSink& power,
                                                               CharSink& serial, const ChipsetOptions& options);
  Chipset(const Chipset&) = delete;
  Chipset& operator=(const Chipset&) = delete;

  [[nodiscard]] ApicBus& apic_bus() { return apic_bus_; }
  [[nodiscard]] MsiSink& msi() { return apic_bus_; }
  [[nodiscard]] LocalApic& local_apic(unsigned cpu) { return apic_bus_.local_apic(cpu); }
  [[nodiscard]] InterruptRouter& router() { return router_; }
  [[nodiscard]] Uart& com1() { return com1_; }
  [[nodiscard]] Uart* com2() { return com2_.get(); }
  [[nodiscard]] Rtc& rtc() { return rtc_; }
  [[nodiscard]] KeyboardController& keyboard() { return keyboard_controller_; }
  [[nodiscard]] AcpiPm& acpi_pm() { return acpi_pm_; }
  [[nodiscard]] PciHotPlug& hotplug() { return hotplug_; }

  // Everything with a saved state but the local APICs; restore in this order, after the local APICs.
  [[nodiscard]] const std::vector<Device*>& devices() const { return devices_; }

  // Puts port 0xcf9 over whatever was mapped there since.
  void raise_reset_port();
  // Power-on state of everything, local APICs included. Device lock held, no CPU runs.
  void reset();

 private:
  Chipset(Bus& bus, Clock& clock, PowerSink& power, CharSink& serial, const ChipsetOptions& options);

  Bus& bus_;
  ApicBus apic_bus_;
  InterruptRouter router_;
  GatedLine pit_gate_;
  GatedLine rtc_gate_;
  Pit pit_;
  Rtc rtc_;
  Hpet hpet_;
  Uart com1_;
  std::unique_ptr<Uart> com2_;
  AcpiPm acpi_pm_;
  PciHotPlug hotplug_;
  ResetControl reset_control_;
  KeyboardController keyboard_controller_;
  DebugExit debug_exit_;
  Pvpanic pvpanic_;
  std::vector<Device*> devices_;
};

}  // namespace caisson
