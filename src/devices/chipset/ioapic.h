// I/O APIC with 24 inputs.
//   Spec     Intel 82093AA data sheet (290566-001), section 3; version 0x20 with the EOI register of the 82801 (ICH)
//   parts Models   redirection table, edge and level inputs, remote IRR, masks, EOI by register and by broadcast Omits
//   input polarity (a line's level is "asserted" whatever the polarity bit says), ExtINT and SMI delivery,
//            the APIC bus's arbitration id
//   Threads  none of its own; called under the device lock
//   Regions  0: memory, 4 KiB
#pragma once

#include <array>
#include <cstdint>

#include "bus/device.h"
#include "devices/chipset/apic_bus.h"

namespace caisson {

class IoApic final : public Device, public EoiListener {
 public:
  static constexpr unsigned pin_count = 24;

  struct State {
    uint8_t id = 0;
    uint8_t select = 0;
    std::array<uint64_t, pin_count> redirection{};
    uint32_t lines = 0;  // input levels

    static constexpr auto fields() {
      using fields::row;
      return fields::table<State>(row<1>("id", &State::id), row<2>("select", &State::select),
                                  row<3>("redirection", &State::redirection), row<4>("lines", &State::lines));
    }
  };

  explicit IoApic(ApicBus& bus);

  [[nodiscard]] std::string_view name() const override { return "ioapic"; }
  uint64_t read(unsigned region, uint64_t offset, unsigned size) override;
  void write(unsigned region, uint64_t offset, unsigned size, uint64_t value) override;
  void reset() override;
  void save(fields::Buffer& out) const override { fields::save(state_, out); }
  [[nodiscard]] Result<> restore(std::span<const uint8_t> in) override;

  void set_input(unsigned pin, bool asserted);
  void end_of_interrupt(uint8_t vector) override;
  void announce_pins() override;

 private:
  [[nodiscard]] uint32_t read_selected() const;
  void write_selected(uint32_t value);
  void deliver(unsigned pin);
  void announce(unsigned pin);

  ApicBus& bus_;
  State state_;
};

}  // namespace caisson
