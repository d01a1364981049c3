#include "devices/chipset/pic.h"

namespace caisson {
namespace {

enum Region : unsigned { Primary, Secondary, Elcr };

constexpr unsigned cascade_input = 2;
constexpr unsigned spurious_input = 7;

// ICW1 and ICW4 (figures 7 and 8).
constexpr uint8_t icw1_init = 0x10;
constexpr uint8_t icw1_single = 0x02;
constexpr uint8_t icw1_icw4 = 0x01;
constexpr uint8_t icw4_special_nested = 0x10;
constexpr uint8_t icw4_auto_eoi = 0x02;
// OCW3 (figure 9).
constexpr uint8_t ocw3_select = 0x08;
constexpr uint8_t ocw3_special_mask_enable = 0x40;
constexpr uint8_t ocw3_special_mask = 0x20;
constexpr uint8_t ocw3_poll = 0x04;
constexpr uint8_t ocw3_read_enable = 0x02;
constexpr uint8_t ocw3_read_isr = 0x01;

// Which inputs may be level-triggered: not the PIT, the keyboard, the cascade, the RTC, the coprocessor
// (PIIX4 7.1.4.14).
constexpr uint8_t elcr_writable[2] = {0xf8, 0xde};

// The set input with the highest priority, or -1: priority falls from lowest + 1 upwards.
int first_in_order(uint8_t bits, unsigned lowest) {
  for (unsigned step = 1; step <= 8; ++step) {
    const unsigned input = (lowest + step) & 7;
    if ((bits >> input & 1) != 0) return static_cast<int>(input);
  }
  return -1;
}

unsigned rank(unsigned input, unsigned lowest) { return (input - lowest - 1) & 7; }

}  // namespace

Pic::Pic(InterruptLine& output) : output_(output) { reset(); }

void Pic::reset() {
  for (Chip& chip : state_.chips) {
    const uint8_t lines = chip.lines;  // the wires are not ours
    chip = Chip{};
    chip.lines = lines;
  }
  update();
}

Result<> Pic::restore(std::span<const uint8_t> in) {
  State state = state_;
  if (auto done = fields::restore(state, in); !done) return done;
  for (unsigned which = 0; which < 2; ++which) {
    const Chip& chip = state.chips[which];
    const bool step_valid = chip.init_step == 0 || (chip.init_step >= 2 && chip.init_step <= 4);
    if (chip.lowest > 7 || !step_valid || (chip.vector_base & 7) != 0 || (chip.elcr & ~elcr_writable[which]) != 0) {
      return fail("pic: a saved register has an impossible value; the snapshot is damaged");
    }
  }
  state_ = state;
  output_.set(pending(0) >= 0);
  return {};
}

uint64_t Pic::read(unsigned region, uint64_t offset, unsigned) {
  if (region == Elcr) return state_.chips[offset & 1].elcr;
  Chip& chip = state_.chips[region & 1];
  if (chip.poll) return poll(region & 1);
  if ((offset & 1) != 0) return chip.imr;
  return chip.read_isr ? chip.isr : requests(region & 1);
}

void Pic::write(unsigned region, uint64_t offset, unsigned, uint64_t value) {
  const auto byte = static_cast<uint8_t>(value);
  if (region == Elcr) {
    state_.chips[offset & 1].elcr = byte & elcr_writable[offset & 1];
  } else if ((offset & 1) != 0) {
    write_data(region & 1, byte);
  } else {
    write_command(region & 1, byte);
  }
  update();
}

void Pic::write_command(unsigned which, uint8_t value) {
  Chip& chip = state_.chips[which];
  if ((value & icw1_init) != 0) {
    // The initialisation sequence: the edge latch, IMR and ISR are cleared, input 7 has the lowest priority.
    Chip fresh;
    fresh.lines = chip.lines;
    fresh.elcr = chip.elcr;
    fresh.vector_base = chip.vector_base;
    fresh.init_step = 2;
    fresh.needs_icw4 = (value & icw1_icw4) != 0;
    fresh.single = (value & icw1_single) != 0;
    chip = fresh;
  } else if ((value & ocw3_select) != 0) {
    if ((value & ocw3_poll) != 0) chip.poll = true;
    if ((value & ocw3_read_enable) != 0) chip.read_isr = (value & ocw3_read_isr) != 0;
    if ((value & ocw3_special_mask_enable) != 0) chip.special_mask = (value & ocw3_special_mask) != 0;
  } else {
    end_of_interrupt(chip, value);
  }
}

// OCW2: R, SL, EOI in bits 7:5.
void Pic::end_of_interrupt(Chip& chip, uint8_t command) {
  const uint8_t level = command & 7;
  const auto highest = [&] {
    // Inputs that special mask mode has masked do not count for a non-specific EOI.
    const auto in_service = static_cast<uint8_t>(chip.special_mask ? chip.isr & ~chip.imr : chip.isr);
    return first_in_order(in_service, chip.lowest);
  };
  switch (command >> 5) {
    case 0: chip.rotate_on_auto_eoi = false; break;
    case 1:  // non-specific EOI
      if (const int input = highest(); input >= 0) chip.isr &= static_cast<uint8_t>(~(1u << input));
      break;
    case 2: break;  // no operation
    case 3: chip.isr &= static_cast<uint8_t>(~(1u << level)); break;
    case 4: chip.rotate_on_auto_eoi = true; break;
    case 5:  // rotate on non-specific EOI
      if (const int input = highest(); input >= 0) {
        chip.isr &= static_cast<uint8_t>(~(1u << input));
        chip.lowest = static_cast<uint8_t>(input);
      }
      break;
    case 6: chip.lowest = level; break;
    case 7:
      chip.isr &= static_cast<uint8_t>(~(1u << level));
      chip.lowest = level;
      break;
    default: break;
  }
}

void Pic::write_data(unsigned which, uint8_t value) {
  Chip& chip = state_.chips[which];
  switch (chip.init_step) {
    case 2:
      chip.vector_base = value & 0xf8;
      chip.init_step = !chip.single ? 3 : chip.needs_icw4 ? 4 : 0;
      break;
    case 3:  // the cascade is wired as on every PC
      chip.init_step = chip.needs_icw4 ? 4 : 0;
      break;
    case 4:
      chip.special_nested = (value & icw4_special_nested) != 0;
      chip.auto_eoi = (value & icw4_auto_eoi) != 0;
      chip.init_step = 0;
      break;
    default: chip.imr = value; break;
  }
}

// IRR: level inputs show their level; an edge stays requested while its input is high (data sheet, "Edge and level
// triggered modes": the input has to stay high until the first INTA).
uint8_t Pic::requests(unsigned which) const {
  const Chip& chip = state_.chips[which];
  auto bits = static_cast<uint8_t>((chip.lines & chip.elcr) | (chip.latched & ~chip.elcr));
  if (which == 0) {
    bits &= static_cast<uint8_t>(~(1u << cascade_input));
    if (pending(1) >= 0) bits |= 1u << cascade_input;
  }
  return bits;
}

// The input that asks for service, or -1.
int Pic::pending(unsigned which) const {
  const Chip& chip = state_.chips[which];
  if (chip.init_step != 0) return -1;
  const int input = first_in_order(static_cast<uint8_t>(requests(which) & ~chip.imr), chip.lowest);
  if (input < 0) return -1;
  if (chip.special_mask) {
    // Everything but what is in service itself may interrupt.
    const auto open = static_cast<uint8_t>(requests(which) & ~chip.imr & ~chip.isr);
    return first_in_order(open, chip.lowest);
  }
  const int in_service = first_in_order(chip.isr, chip.lowest);
  if (in_service < 0) return input;
  const unsigned asked = rank(static_cast<unsigned>(input), chip.lowest);
  const unsigned busy = rank(static_cast<unsigned>(in_service), chip.lowest);
  if (asked < busy) return input;
  // Specially nested: the secondary may interrupt its own service.
  if (which == 0 && chip.special_nested && asked == busy && input == cascade_input) return input;
  return -1;
}

void Pic::begin_service(Chip& chip, unsigned input) {
  const auto bit = static_cast<uint8_t>(1u << input);
  chip.latched &= static_cast<uint8_t>(~bit);
  if (!chip.auto_eoi) {
    chip.isr |= bit;
  } else if (chip.rotate_on_auto_eoi) {
    chip.lowest = static_cast<uint8_t>(input);
  }
}

uint8_t Pic::acknowledge() {
  Chip& primary = state_.chips[0];
  const int input = pending(0);
  auto vector = static_cast<uint8_t>(primary.vector_base + spurious_input);
  if (input == static_cast<int>(cascade_input)) {
    Chip& secondary = state_.chips[1];
    const int secondary_input = pending(1);
    begin_service(primary, cascade_input);
    vector = static_cast<uint8_t>(secondary.vector_base +
                                  (secondary_input < 0 ? spurious_input : static_cast<unsigned>(secondary_input)));
    if (secondary_input >= 0) begin_service(secondary, static_cast<unsigned>(secondary_input));
  } else if (input >= 0) {
    vector = static_cast<uint8_t>(primary.vector_base + input);
    begin_service(primary, static_cast<unsigned>(input));
  }
  // The INT pin goes low between two interrupts.
  output_.set(false);
  update();
  return vector;
}

std::optional<uint8_t> Pic::acknowledge_ext_int() {
  if (pending(0) < 0) return std::nullopt;
  return acknowledge();
}

// OCW3 with P: the next read is an acknowledge, answered with bit 7 and the input (data sheet, "Poll command").
uint8_t Pic::poll(unsigned which) {
  Chip& chip = state_.chips[which];
  chip.poll = false;
  const int input = pending(which);
  if (input < 0) return spurious_input;
  begin_service(chip, static_cast<unsigned>(input));
  update();
  return static_cast<uint8_t>(0x80 | input);
}

void Pic::set_chip_input(Chip& chip, unsigned input, bool high) {
  const auto bit = static_cast<uint8_t>(1u << input);
  if (high) {
    if ((chip.lines & bit) == 0) chip.latched |= bit;
    chip.lines |= bit;
  } else {
    chip.lines &= static_cast<uint8_t>(~bit);
    chip.latched &= static_cast<uint8_t>(~bit);
  }
}

void Pic::set_input(unsigned irq, bool high) {
  if (irq >= 16 || irq == cascade_input) return;
  set_chip_input(state_.chips[irq / 8], irq % 8, high);
  update();
}

void Pic::update() { output_.set(pending(0) >= 0); }

}  // namespace caisson
