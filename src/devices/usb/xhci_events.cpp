// The event ring (4.9.4) and the one interrupter (4.17).
#include <atomic>
#include <cstddef>

#include "devices/usb/xhci.h"

namespace caisson::usb {

using namespace xhci;

namespace {

constexpr uint64_t with_low(uint64_t value, uint32_t part) { return (value & ~uint64_t{0xffff'ffff}) | part; }
constexpr uint64_t with_high(uint64_t value, uint32_t part) { return (value & 0xffff'ffff) | uint64_t{part} << 32; }

constexpr uint32_t least_segment = 16, most_segment = 4096;
// What one TRB or command can tell, and the change of a port beside it.
constexpr uint32_t events_of_a_step = 4;

}  // namespace

void Xhci::write_runtime(Runtime reg, uint32_t value) {
  switch (reg) {
    case Runtime::IMAN:
      if ((value & iman_pending) != 0) state_.management &= ~iman_pending;
      state_.management = (state_.management & ~iman_enable) | (value & iman_enable);
      update_interrupt();
      return;
    case Runtime::IMOD: state_.moderation = value; return;
    case Runtime::ERSTSZ: state_.table_size = value & 0xffff; return;
    case Runtime::ERSTBA:
      state_.table = with_low(state_.table, value & ~63u);
      load_segments();
      return;
    case Runtime::ERSTBA_high:
      state_.table = with_high(state_.table, value);
      load_segments();
      return;
    case Runtime::ERDP: {
      const uint32_t busy = (value & erdp_busy) != 0 ? 0 : static_cast<uint32_t>(state_.dequeue) & erdp_busy;
      state_.dequeue = with_low(state_.dequeue, (value & ~erdp_busy) | busy);
      consume();
      return;
    }
    case Runtime::ERDP_high:
      state_.dequeue = with_high(state_.dequeue, value);
      consume();
      return;
    case Runtime::MFINDEX: return;
  }
}

// The table is copied when its address is written (5.5.2.3.2), which begins the ring anew.
void Xhci::load_segments() {
  state_.segments = {};
  state_.events = state_.producer = state_.consumer = 0;
  state_.event_cycle = true;
  if (state_.table_size > most_segments) return;
  std::array<Segment, most_segments> segments{};
  uint32_t events = 0;
  for (uint32_t i = 0; i < state_.table_size; ++i) {
    SegmentEntry entry;
    if (!memory_.read_object(state_.table + i * sizeof entry, entry)) return;
    entry.size &= 0xffff;
    entry.base &= ~uint64_t{63};
    if (entry.size < least_segment || entry.size > most_segment ||
        !memory_.contains(entry.base, entry.size * sizeof(Trb))) {
      return;
    }
    segments[i] = {entry.base, entry.size};
    events += entry.size;
  }
  state_.segments = segments;
  state_.events = events;
  consume();
}

std::optional<uint32_t> Xhci::place_of(uint64_t address) const {
  uint32_t before = 0;
  for (const Segment& segment : state_.segments) {
    if (address >= segment.base && address - segment.base < segment.size * sizeof(Trb)) {
      return before + static_cast<uint32_t>((address - segment.base) / sizeof(Trb));
    }
    before += segment.size;
  }
  return {};
}

// The host has read events: up to ERDP.
void Xhci::consume() {
  const bool was_full = !room();
  if (const auto place = place_of(state_.dequeue & ~uint64_t{15})) state_.consumer = *place;
  if (state_.events == 0) return;
  if (was_full && room() && running()) {
    tell_ports();
    timer_->arm(clock_.now_ns());
  }
  if (state_.producer != state_.consumer && (state_.dequeue & erdp_busy) == 0) raise();
}

bool Xhci::room() const {
  if (state_.events == 0) return false;
  const uint32_t used = (state_.producer + state_.events - state_.consumer) % state_.events;
  return state_.events - 1 - used >= events_of_a_step;
}

// There is room().
void Xhci::post(uint64_t parameter, uint32_t status, uint32_t control, bool silent) {
  if (state_.events == 0) return;
  uint32_t place = state_.producer;
  size_t segment = 0;
  while (place >= state_.segments[segment].size) place -= state_.segments[segment++].size;
  const Trb event{parameter, status, control | (state_.event_cycle ? trb_cycle : 0)};
  const Gpa address = state_.segments[segment].base + uint64_t{place} * sizeof event;
  const std::span bytes{reinterpret_cast<const uint8_t*>(&event), sizeof event};
  // The cycle bit says that the rest is there.
  constexpr size_t last = offsetof(Trb, control);
  bool written = memory_.write(address, bytes.first(last));
  std::atomic_thread_fence(std::memory_order_release);
  written = written && memory_.write(address + last, bytes.subspan(last));
  if (!written) {
    host_error();
    return;
  }
  if (++state_.producer == state_.events) {
    state_.producer = 0;
    state_.event_cycle = !state_.event_cycle;
  }
  if (!silent) raise();
}

// 4.3 and 6.4.2.3
void Xhci::tell_ports() {
  for (unsigned i = 0; i < port_count; ++i) {
    if ((state_.told_later >> i & 1) == 0) continue;
    if (!running() || !room()) return;
    state_.told_later &= ~(1u << i);
    post(uint64_t{i + 1} << 24, static_cast<uint32_t>(Code::Success) << 24,
         static_cast<uint32_t>(TrbType::PortEvent) << trb_type_shift);
  }
}

void Xhci::raise() {
  state_.status |= sts_event;
  state_.management |= iman_pending;
  if ((state_.dequeue & erdp_busy) != 0) return;  // the host will look again
  state_.dequeue |= erdp_busy;
  update_interrupt();
}

void Xhci::update_interrupt() {
  const bool wanted = (state_.management & (iman_pending | iman_enable)) == (iman_pending | iman_enable) &&
                      (state_.command & cmd_interrupts) != 0;
  if (wanted && msix_.enabled()) {
    state_.management &= ~iman_pending;  // 5.5.2.1: by the message itself
    msix_.notify(0);
  }
  const bool asserted = wanted && !msix_.enabled();
  const bool before = (config_.get(pci::status, 2) & pci::status_interrupt) != 0;
  if (asserted != before) set_intx(asserted);
}

}  // namespace caisson::usb
