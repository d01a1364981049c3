// Two cascaded 8259A interrupt controllers with edge/level control.
//   Spec     Intel 8259A data sheet (231468-003); ELCR: Intel 82371AB (PIIX4), section 7.1.4.14
//   Models   ICW1-4, OCW1-3, fully nested, specially nested, special mask, rotation, automatic EOI, poll
//   Omits    MCS-80/85 mode, buffered mode
//   Threads  none of its own; called under the device lock
//   Regions  0: primary, 2 ports; 1: secondary, 2 ports; 2: ELCR, 2 ports
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "bus/device.h"
#include "bus/interrupt.h"
#include "devices/chipset/apic_bus.h"

namespace caisson {

class Pic final : public Device, public ExtIntSource {
 public:
  struct Chip {
    uint8_t lines = 0;    // input levels
    uint8_t latched = 0;  // edges seen on inputs that are still high
    uint8_t isr = 0;
    uint8_t imr = 0;
    uint8_t elcr = 0;  // 1: level
    uint8_t vector_base = 0;
    uint8_t lowest = 7;     // the input with the lowest priority
    uint8_t init_step = 0;  // 0: ready; 2-4: the ICW that comes next
    bool needs_icw4 = false;
    bool single = false;
    bool auto_eoi = false;
    bool rotate_on_auto_eoi = false;
    bool special_mask = false;
    bool special_nested = false;
    bool read_isr = false;
    bool poll = false;

    static constexpr auto fields() {
      using fields::row;
      return fields::table<Chip>(
          row<1>("lines", &Chip::lines), row<2>("latched", &Chip::latched), row<3>("isr", &Chip::isr),
          row<4>("imr", &Chip::imr), row<5>("elcr", &Chip::elcr), row<6>("vector_base", &Chip::vector_base),
          row<7>("lowest", &Chip::lowest), row<8>("init_step", &Chip::init_step),
          row<9>("needs_icw4", &Chip::needs_icw4), row<10>("single", &Chip::single),
          row<11>("auto_eoi", &Chip::auto_eoi), row<12>("rotate_on_auto_eoi", &Chip::rotate_on_auto_eoi),
          row<13>("special_mask", &Chip::special_mask), row<14>("special_nested", &Chip::special_nested),
          row<15>("read_isr", &Chip::read_isr), row<16>("poll", &Chip::poll));
    }
  };
  struct State {
    std::array<Chip, 2> chips{};
    static constexpr auto fields() { return fields::table<State>(fields::row<1>("chips", &State::chips)); }
  };

  // `output`: the primary's INT pin.
  explicit Pic(InterruptLine& output);

  [[nodiscard]] std::string_view name() const override { return "pic"; }
  uint64_t read(unsigned region, uint64_t offset, unsigned size) override;
  void write(unsigned region, uint64_t offset, unsigned size, uint64_t value) override;
  void reset() override;
  void save(fields::Buffer& out) const override { fields::save(state_, out); }
  [[nodiscard]] Result<> restore(std::span<const uint8_t> in) override;

  // ISA interrupt 0 … 15; 2 is the cascade and has no input.
  void set_input(unsigned irq, bool high);
  // The CPU's INTA cycles: the vector, or a spurious one where a request has gone away.
  [[nodiscard]] uint8_t acknowledge();
  [[nodiscard]] std::optional<uint8_t> acknowledge_ext_int() override;

 private:
  void write_command(unsigned which, uint8_t value);
  void write_data(unsigned which, uint8_t value);
  void end_of_interrupt(Chip& chip, uint8_t command);
  [[nodiscard]] uint8_t poll(unsigned which);
  [[nodiscard]] uint8_t requests(unsigned which) const;
  [[nodiscard]] int pending(unsigned which) const;
  void begin_service(Chip& chip, unsigned input);
  void set_chip_input(Chip& chip, unsigned input, bool high);
  void update();

  InterruptLine& output_;
  State state_;
};

}  // namespace caisson
