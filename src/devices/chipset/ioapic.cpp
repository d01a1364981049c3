#include "devices/chipset/ioapic.h"

#include "devices/chipset/layout.h"

namespace caisson {
namespace {

// Memory-mapped registers (3.1).
enum Window : uint64_t { Select = 0x00, Data = 0x10, Eoi = 0x40 };
// Registers behind Select and Data (3.2).
enum Register : uint8_t { Id = 0, Version = 1, Arbitration = 2, RedirectionFirst = 0x10 };

constexpr uint32_t version_value = 0x20 | (IoApic::pin_count - 1) << 16;

// Redirection entry (3.2.4).
constexpr uint64_t entry_logical = 1u << 11;
constexpr uint64_t entry_delivery_status = 1u << 12;
constexpr uint64_t entry_remote_irr = 1u << 14;
constexpr uint64_t entry_level = 1u << 15;
constexpr uint64_t entry_mask = 1u << 16;
constexpr uint64_t entry_writable = 0xff00'0000'0001'afff;

ApicMessage message_of(uint64_t entry) {
  return {.destination = static_cast<uint32_t>(entry >> 56),
          .logical = (entry & entry_logical) != 0,
          .mode = static_cast<DeliveryMode>(entry >> 8 & 7),
          .vector = static_cast<uint8_t>(entry),
          .level = (entry & entry_level) != 0};
}

}  // namespace

IoApic::IoApic(ApicBus& bus) : bus_(bus) { reset(); }

void IoApic::reset() {
  const uint32_t lines = state_.lines;  // the wires are not ours
  state_ = State{};
  state_.id = chipset::ioapic_id;
  state_.redirection.fill(entry_mask);
  state_.lines = lines;
  announce_pins();
}

// A masked input too: its last interrupt may not have ended yet.
void IoApic::announce(unsigned pin) {
  const uint64_t entry = state_.redirection[pin];
  if ((entry & entry_level) != 0) {
    bus_.set_pin(pin, message_of(entry));
  } else {
    bus_.set_pin(pin, std::nullopt);
  }
}

void IoApic::announce_pins() {
  for (unsigned pin = 0; pin < pin_count; ++pin) announce(pin);
}

Result<> IoApic::restore(std::span<const uint8_t> in) {
  State state = state_;
  if (auto done = fields::restore(state, in); !done) return done;
  bool valid = state.id <= 0xf && state.lines >> pin_count == 0;
  for (const uint64_t entry : state.redirection) valid = valid && (entry & ~(entry_writable | entry_remote_irr)) == 0;
  if (!valid) return fail("ioapic: a saved register has reserved bits set; the snapshot is damaged");
  state_ = state;
  announce_pins();
  return {};
}

uint64_t IoApic::read(unsigned, uint64_t offset, unsigned) {
  switch (offset) {
    case Select: return state_.select;
    case Data: return read_selected();
    default: return 0;
  }
}

void IoApic::write(unsigned, uint64_t offset, unsigned, uint64_t value) {
  switch (offset) {
    case Select: state_.select = static_cast<uint8_t>(value); break;
    case Data: write_selected(static_cast<uint32_t>(value)); break;
    case Eoi: end_of_interrupt(static_cast<uint8_t>(value)); break;
    default: break;
  }
}

uint32_t IoApic::read_selected() const {
  switch (state_.select) {
    case Id:
    case Arbitration: return static_cast<uint32_t>(state_.id) << 24;
    case Version: return version_value;
    default: break;
  }
  const unsigned index = state_.select - unsigned{RedirectionFirst};
  if (index >= 2 * pin_count) return 0;
  return static_cast<uint32_t>(state_.redirection[index / 2] >> (index % 2 * 32));
}

void IoApic::write_selected(uint32_t value) {
  if (state_.select == Id) {
    state_.id = value >> 24 & 0xf;
    return;
  }
  const unsigned index = state_.select - unsigned{RedirectionFirst};
  if (index >= 2 * pin_count) return;
  const unsigned pin = index / 2;
  uint64_t& entry = state_.redirection[pin];
  const uint64_t half = index % 2 == 0 ? 0xffff'ffff : 0xffff'ffff'0000'0000;
  const uint64_t wanted = static_cast<uint64_t>(value) << (index % 2 * 32);
  entry = (entry & ~(half & entry_writable)) | (wanted & half & entry_writable);
  // Remote IRR has no meaning for edges; switching to edge and back is how software without the EOI register clears it.
  if ((entry & entry_level) == 0) entry &= ~entry_remote_irr;
  announce(pin);
  // An edge that came while masked is lost; a level that still stands is not.
  if ((entry & entry_level) != 0 && (state_.lines >> pin & 1) != 0) deliver(pin);
}

void IoApic::set_input(unsigned pin, bool asserted) {
  if (pin >= pin_count) return;
  const uint32_t bit = 1u << pin;
  const bool before = (state_.lines & bit) != 0;
  if (before == asserted) return;
  state_.lines ^= bit;
  if (asserted) deliver(pin);
}

void IoApic::deliver(unsigned pin) {
  uint64_t& entry = state_.redirection[pin];
  if ((entry & (entry_mask | entry_remote_irr)) != 0) return;
  const ApicMessage message = message_of(entry);
  const bool taken = bus_.deliver(message);
  // Only fixed and lowest-priority interrupts are answered by an EOI.
  if (message.level && taken && (entry >> 8 & 7) <= 1) entry |= entry_remote_irr;
}

void IoApic::end_of_interrupt(uint8_t vector) {
  for (unsigned pin = 0; pin < pin_count; ++pin) {
    uint64_t& entry = state_.redirection[pin];
    if (static_cast<uint8_t>(entry) != vector || (entry & entry_level) == 0) continue;
    entry &= ~entry_remote_irr;
    if ((state_.lines >> pin & 1) != 0) deliver(pin);
  }
}

}  // namespace caisson
