#include "devices/chipset/acpi_pm.h"

#include "devices/chipset/layout.h"
#include "devices/chipset/scale.h"

namespace caisson {
namespace {

enum Region : unsigned { Event, Control, Timer, GeneralEvents };

// PM1 status and enable (tables 4.11 and 4.12).
constexpr uint16_t status_timer = 1u << 0;
constexpr uint16_t status_power_button = 1u << 8;
constexpr uint16_t status_bits = 0x8731;  // TMR, BM, GBL, PWRBTN, SLPBTN, RTC, WAK
constexpr uint16_t enable_bits = 0x0721;
constexpr uint16_t interrupting_bits = status_timer | status_power_button;

// PM1 control (table 4.13). SLP_EN and GBL_RLS read 0.
constexpr uint16_t control_sci_enable = 1u << 0;
constexpr uint16_t control_kept = 0x1c02;  // BM_RLD, SLP_TYP
constexpr uint16_t control_sleep_enable = 1u << 13;
constexpr unsigned control_sleep_type_shift = 10;

constexpr unsigned timer_bits = 32;

// Replaces bytes [offset, offset + size) of a little-endian register.
uint32_t merge(uint32_t old, uint64_t offset, unsigned size, uint64_t value) {
  const uint64_t mask = ((uint64_t{1} << (8 * size)) - 1) << (8 * offset);
  return static_cast<uint32_t>((old & ~mask) | (value << (8 * offset) & mask));
}

}  // namespace

AcpiPm::AcpiPm(InterruptLine& sci, Clock& clock, PowerSink& power)
    : sci_(sci), clock_(clock), power_(power), timer_(clock.create_timer([this] { update(); })) {
  state_.seen_halves = timer_ticks() >> (timer_bits - 1);
}

void AcpiPm::reset() {
  state_ = State{};
  state_.seen_halves = timer_ticks() >> (timer_bits - 1);
  update();
}

Result<> AcpiPm::restore(std::span<const uint8_t> in) {
  State state = state_;
  if (auto done = fields::restore(state, in); !done) return done;
  if ((state.status & ~status_bits) != 0 || (state.enable & ~enable_bits) != 0 ||
      (state.control & ~control_kept) != 0) {
    return fail("acpi-pm: a saved register has reserved bits set; the snapshot is damaged");
  }
  state_ = state;
  drive();
  return {};
}

uint64_t AcpiPm::timer_ticks() const {
  return chipset::scale(clock_.now_ns(), chipset::pm_timer_hz, chipset::ns_per_s);
}

uint64_t AcpiPm::read(unsigned region, uint64_t offset, unsigned) {
  uint32_t value = 0;
  switch (region) {
    case Event:
      account();
      value = state_.status | static_cast<uint32_t>(state_.enable) << 16;
      break;
    case Control: value = state_.control | control_sci_enable; break;
    case Timer: value = static_cast<uint32_t>(timer_ticks()); break;
    case GeneralEvents: value = state_.gpe_status | static_cast<uint32_t>(state_.gpe_enable) << 16; break;
    default: break;
  }
  return value >> (8 * (offset & 3));
}

void AcpiPm::write(unsigned region, uint64_t offset, unsigned size, uint64_t value) {
  offset &= 3;
  switch (region) {
    case Event: {
      account();
      const uint32_t clear = merge(0, offset, size, value);  // status bits are cleared by writing 1
      const uint32_t whole = merge(static_cast<uint32_t>(state_.enable) << 16, offset, size, value);
      state_.status &= static_cast<uint16_t>(~clear);
      state_.enable = whole >> 16 & enable_bits;
      break;
    }
    case Control: write_control(static_cast<uint16_t>(merge(state_.control, offset, size, value))); break;
    case GeneralEvents: {
      const uint32_t clear = merge(0, offset, size, value);
      const uint32_t whole = merge(static_cast<uint32_t>(state_.gpe_enable) << 16, offset, size, value);
      state_.gpe_status &= static_cast<uint16_t>(~clear);
      state_.gpe_enable = static_cast<uint16_t>(whole >> 16);
      break;
    }
    default: break;  // the timer is read-only
  }
  update();
}

void AcpiPm::write_control(uint16_t value) {
  state_.control = value & control_kept;
  if ((value & control_sleep_enable) == 0) return;
  // Type 0 is S0, in which nobody sleeps: OVMF, which reads no tables, means S5 by it, as on QEMU's Q35.
  const unsigned type = value >> control_sleep_type_shift & 7;
  if (type == chipset::s5_sleep_type || type == 0) power_.request(PowerEvent::PowerOff);
}

// TMR_STS is set whenever the timer's top bit changes (4.8.3.1.1).
void AcpiPm::account() {
  const uint64_t halves = timer_ticks() >> (timer_bits - 1);
  if (halves != state_.seen_halves) state_.status |= status_timer;
  state_.seen_halves = halves;
}

void AcpiPm::update() {
  account();
  drive();
}

void AcpiPm::drive() {
  const bool fixed = (state_.status & state_.enable & interrupting_bits) != 0;
  const bool general = (state_.gpe_status & state_.gpe_enable) != 0;
  sci_.set(fixed || general);
  if ((state_.enable & status_timer) != 0 && (state_.status & status_timer) == 0) {
    const uint64_t next = (state_.seen_halves + 1) << (timer_bits - 1);
    timer_->arm(chipset::scale_up(next, chipset::ns_per_s, chipset::pm_timer_hz));
  } else {
    timer_->cancel();
  }
}

void AcpiPm::press_power_button() {
  state_.status |= status_power_button;
  update();
}

void AcpiPm::raise_gpe(unsigned number) {
  if (number >= 16) return;
  state_.gpe_status |= static_cast<uint16_t>(1u << number);
  update();
}

}  // namespace caisson
