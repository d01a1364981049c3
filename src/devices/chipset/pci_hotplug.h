// The registers by which the guest's ACPI learns that a device came into a slot of PCI bus 0, or is to leave it.
//   Spec     ACPI 6.5, 5.6.4 (general-purpose events), 5.6.6 (Notify), 6.3.3 (_EJ0), 6.3.7 (_STA). The registers are
//   our
//            own: only the AML that we write ourselves knows them (boot/acpi/hotplug.cpp)
//   Models   four registers of 32 bits, a bit for each slot:
//              0  up       devices that came; read, cleared by writing 1
//              4  down     devices that the host wants back; read, cleared by writing 1
//              8  eject    reads 0; writing 1: the guest has let go of the device
//             12  present  slots with a device; read only
//            Each request raises GPE chipset::hotplug_gpe.
//   Threads  none of its own; called under the device lock
//   Regions  0: the registers, 16 bytes, widths 1 to 4
#pragma once

#include <cstdint>

#include "bus/device.h"
#include "devices/chipset/acpi_pm.h"

namespace caisson {

// The slots of a bus, as the registers see them.
class HotPlugSlots {
 public:
  virtual ~HotPlugSlots() = default;
  // Bit n: there is a device in slot n.
  [[nodiscard]] virtual uint32_t occupied() const = 0;
  // The guest has let go of what is there; comes for any slot, with or without a device, asked for or not. Called from
  // within a write of the guest.
  virtual void ejected(unsigned slot) = 0;
};

class PciHotPlug final : public Device {
 public:
  struct State {
    uint32_t up = 0;
    uint32_t down = 0;
    static constexpr auto fields() {
      return fields::table<State>(fields::row<1>("up", &State::up), fields::row<2>("down", &State::down));
    }
  };

  explicit PciHotPlug(AcpiPm& acpi) : acpi_(acpi) {}

  // Null: a bus without slots. The slots must outlive this or be taken away again.
  void connect(HotPlugSlots* slots) { slots_ = slots; }

  // Tells the guest; `slot` is 0 to 31.
  void inserted(unsigned slot);
  void want_back(unsigned slot);
  void want_no_more(unsigned slot);  // takes want_back() back, as far as the guest has not seen it

  [[nodiscard]] std::string_view name() const override { return "pci-hotplug"; }
  uint64_t read(unsigned region, uint64_t offset, unsigned size) override;
  void write(unsigned region, uint64_t offset, unsigned size, uint64_t value) override;
  void reset() override { state_ = State{}; }
  void save(fields::Buffer& out) const override { fields::save(state_, out); }
  [[nodiscard]] Result<> restore(std::span<const uint8_t> in) override { return fields::restore(state_, in); }

 private:
  AcpiPm& acpi_;
  HotPlugSlots* slots_ = nullptr;
  State state_;
};

}  // namespace caisson
