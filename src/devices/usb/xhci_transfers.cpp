// Doorbells and transfer rings, 4.10 and 4.11.
#include <algorithm>
#include <cstring>

#include "devices/usb/xhci.h"

namespace caisson::usb {

using namespace xhci;

namespace {

constexpr uint64_t pause_ns = 1'000'000;
constexpr uint32_t total_mask = 0xff'ffff;

Setup setup_of(const Xhci::Slot& slot) {
  Setup setup;
  std::memcpy(&setup, slot.setup.data(), sizeof setup);
  return setup;
}

bool to_host(const Xhci::Slot& slot, const Xhci::Endpoint& endpoint) {
  if (endpoint.type == EndpointType::Control) return (slot.setup[0] & type_in) != 0;
  return endpoint.type == EndpointType::BulkIn || endpoint.type == EndpointType::InterruptIn;
}

}  // namespace

UsbDevice* Xhci::device_of(const Slot& slot) const {
  return slot.port == 0 ? nullptr : ports_[slot.port - 1u].device.get();
}

// 4.7
void Xhci::ring(unsigned id, uint32_t value) {
  if ((state_.status & sts_halted) != 0) return;
  const unsigned target = value & 0xff;
  if (id == 0) {
    if (target != 0) return;
    state_.command_running = true;
    run_commands();
    return;
  }
  if (target == 0 || target >= endpoint_count) return;
  Endpoint& endpoint = state_.slots[id].endpoints[target];
  if (endpoint.state == EndpointState::Stopped) set_state(id, target, EndpointState::Running);
  run(id, target);
}

void Xhci::run(unsigned id, unsigned index) {
  Position at{state_.slots[id], id, index, state_.slots[id].endpoints[index]};
  Endpoint& endpoint = at.endpoint;
  unsigned links = 0;
  for (unsigned i = 0; i < most_at_once; ++i) {
    if (!running() || endpoint.state != EndpointState::Running) return;
    if (!room()) {
      wanting_[id] |= 1u << index;
      return;
    }
    Trb trb;
    if (!memory_.read_object(endpoint.dequeue, trb)) return host_error();
    if (((trb.control & trb_cycle) != 0) != endpoint.cycle) return;
    if (type_of(trb) == TrbType::Link) {
      if (++links > most_links) {
        halt(at, trb, Code::TrbError, 0);
        return;
      }
      endpoint.dequeue = trb.parameter & ~uint64_t{15};
      if ((trb.control & trb_toggle) != 0) endpoint.cycle = !endpoint.cycle;
      continue;
    }
    links = 0;
    if (step(at, trb) != Outcome::Next) return;
    endpoint.dequeue += sizeof trb;
    endpoint.done = 0;
    endpoint.chained = (trb.control & trb_chain) != 0;
    if (!endpoint.chained) {
      endpoint.skips = endpoint.told = false;
      endpoint.total = 0;
    }
  }
  wanting_[id] |= 1u << index;
  timer_->arm(clock_.now_ns() + pause_ns);
}

Xhci::Outcome Xhci::step(Position& at, const Trb& trb) {
  Endpoint& endpoint = at.endpoint;
  const bool interrupts = (trb.control & trb_interrupt) != 0;
  const TrbType type = type_of(trb);
  if (type == TrbType::EventData) {
    // 4.11.5.2. The data before it was a whole transfer, which could not be seen there.
    if ((trb.control & trb_chain) == 0 && endpoint.chained && !to_host(at.slot, endpoint) &&
        endpoint.type != EndpointType::Control) {
      if (push(at, {}, true).kind == Moved::Kind::Stall) return halt(at, trb, Code::StallError, 0);
    }
    if (interrupts) {
      report(at, trb.parameter, endpoint.skips ? Code::ShortPacket : Code::Success, endpoint.total & total_mask, true,
             (trb.control & trb_block_event) != 0);
      endpoint.told = true;
    }
    endpoint.total = 0;
    return Outcome::Next;
  }
  if (endpoint.skips) {
    // 4.10.1.1: an event at the end, if there was none before.
    if (interrupts && !endpoint.told) {
      report(at, endpoint.dequeue, Code::ShortPacket, trb.status & trb_length, false,
             (trb.control & trb_block_event) != 0);
      endpoint.told = true;
    }
    return Outcome::Next;
  }
  if (type == TrbType::NoOp) {
    if (interrupts) report(at, endpoint.dequeue, Code::Success, 0, false, (trb.control & trb_block_event) != 0);
    return Outcome::Next;
  }
  if (device_of(at.slot) == nullptr) return halt(at, trb, Code::TransactionError, trb.status & trb_length);
  if (endpoint.type != EndpointType::Control) {
    return type == TrbType::Normal ? move(at, trb) : halt(at, trb, Code::TrbError, trb.status & trb_length);
  }
  switch (type) {
    case TrbType::SetupStage: return begin_control(at, trb);
    case TrbType::DataStage:
      if (((trb.control & trb_in) != 0) != to_host(at.slot, endpoint)) break;
      return move(at, trb);
    case TrbType::Normal:
      if (!endpoint.chained) break;
      return move(at, trb);
    case TrbType::StatusStage: return end_control(at, trb);
    default: break;
  }
  return halt(at, trb, Code::TrbError, trb.status & trb_length);
}

// --- Control transfers: USB 2.0, 8.5.3 ---

Xhci::Outcome Xhci::begin_control(Position& at, const Trb& trb) {
  Slot& slot = at.slot;
  if ((trb.control & trb_immediate) == 0 || (trb.status & trb_length) != sizeof(Setup)) {
    return halt(at, trb, Code::TrbError, trb.status & trb_length);
  }
  std::memcpy(slot.setup.data(), &trb.parameter, sizeof(Setup));
  slot.control.data.clear();
  slot.control_done = 0;
  slot.stalled = false;
  const Setup setup = setup_of(slot);
  if ((setup.type & type_in) != 0) {
    auto answer = device_of(slot)->control_in(setup);
    slot.stalled = !answer || answer->size() > most_control;
    if (!slot.stalled) slot.control.data = std::move(*answer);
  } else {
    slot.stalled = setup.length > most_control;
  }
  finished(at, trb, 0, false);
  return Outcome::Next;
}

Xhci::Outcome Xhci::end_control(Position& at, const Trb& trb) {
  Slot& slot = at.slot;
  const Setup setup = setup_of(slot);
  if (!slot.stalled && (setup.type & type_in) == 0) {
    slot.stalled = !device_of(slot)->control_out(setup, slot.control.data);
  }
  if (slot.stalled) return halt(at, trb, Code::StallError, 0);
  slot.control.data.clear();
  slot.control_done = 0;
  finished(at, trb, 0, false);
  return Outcome::Next;
}

// --- Data ---

Moved Xhci::pull(Position& at, std::span<uint8_t> into) {
  Slot& slot = at.slot;
  if (at.index != 1) return device_of(slot)->in(at.index / 2, into);
  if (slot.stalled) return {.kind = Moved::Kind::Stall};
  const auto rest = std::span(slot.control.data).subspan(slot.control_done);
  const size_t count = std::min(rest.size(), into.size());
  std::copy_n(rest.begin(), count, into.begin());
  slot.control_done += static_cast<uint32_t>(count);
  return {.count = count, .ends = count == rest.size()};
}

Moved Xhci::push(Position& at, std::span<const uint8_t> bytes, bool last) {
  Slot& slot = at.slot;
  if (at.index != 1) return device_of(slot)->out(at.index / 2, bytes, last);
  std::vector<uint8_t>& data = slot.control.data;
  if (slot.stalled || bytes.size() > setup_of(slot).length - std::min<size_t>(data.size(), setup_of(slot).length)) {
    return {.kind = Moved::Kind::Stall};
  }
  data.insert(data.end(), bytes.begin(), bytes.end());
  return {.count = bytes.size()};
}

Xhci::Outcome Xhci::move(Position& at, const Trb& trb) {
  const uint32_t length = trb.status & trb_length;
  const bool in = to_host(at.slot, at.endpoint);
  const bool immediate = (trb.control & trb_immediate) != 0;
  if (length > longest_trb || (immediate && (in || length > sizeof trb.parameter))) {
    return halt(at, trb, Code::TrbError, length);
  }
  // The host may have changed what is there while it waited.
  at.endpoint.done = std::min(at.endpoint.done, length);
  bytes_.resize(longest_trb);
  return in ? move_in(at, trb, length) : move_out(at, trb, length);
}

Xhci::Outcome Xhci::move_in(Position& at, const Trb& trb, uint32_t length) {
  Endpoint& endpoint = at.endpoint;
  while (endpoint.done < length) {
    const uint32_t left = length - endpoint.done;
    const Gpa address = trb.parameter + endpoint.done;
    // Before the device gives what would be lost.
    if (!memory_.contains(address, left)) return halt(at, trb, Code::DataBufferError, left);
    const Moved moved = pull(at, std::span(bytes_).first(left));
    if (moved.kind == Moved::Kind::Stall) return halt(at, trb, Code::StallError, left);
    if (moved.kind == Moved::Kind::TooLong) return halt(at, trb, Code::Babble, left);
    if (moved.kind == Moved::Kind::Later || (moved.count == 0 && !moved.ends)) return Outcome::Later;
    std::ignore = memory_.write(address, std::span(bytes_).first(moved.count));
    endpoint.done += static_cast<uint32_t>(moved.count);
    endpoint.total += static_cast<uint32_t>(moved.count);
    if (!moved.ends) continue;
    if (endpoint.done < length || (trb.control & trb_chain) != 0) {
      endpoint.skips = true;
      finished(at, trb, length - endpoint.done, true);
      return Outcome::Next;
    }
  }
  finished(at, trb, 0, false);
  return Outcome::Next;
}

Xhci::Outcome Xhci::move_out(Position& at, const Trb& trb, uint32_t length) {
  Endpoint& endpoint = at.endpoint;
  const bool last = (trb.control & trb_chain) == 0;
  if (length == 0 && !last) {
    finished(at, trb, 0, false);
    return Outcome::Next;
  }
  do {
    const uint32_t left = length - endpoint.done;
    const std::span<uint8_t> bytes = std::span(bytes_).first(left);
    if ((trb.control & trb_immediate) != 0) {
      std::memcpy(bytes.data(), reinterpret_cast<const uint8_t*>(&trb.parameter) + endpoint.done, left);
    } else if (left != 0 && !memory_.read(trb.parameter + endpoint.done, bytes)) {
      return halt(at, trb, Code::DataBufferError, left);
    }
    const Moved moved = push(at, bytes, last);
    if (moved.kind == Moved::Kind::Stall) return halt(at, trb, Code::StallError, left);
    if (moved.kind != Moved::Kind::Bytes || (moved.count == 0 && left != 0)) return Outcome::Later;
    endpoint.done += static_cast<uint32_t>(moved.count);
    endpoint.total += static_cast<uint32_t>(moved.count);
  } while (endpoint.done < length);
  finished(at, trb, 0, false);
  return Outcome::Next;
}

// --- What is told of it, 4.11.3 and 6.4.2.1 ---

void Xhci::finished(Position& at, const Trb& trb, uint32_t left, bool short_packet) {
  const uint32_t wanted = trb_interrupt | (short_packet ? trb_short : 0);
  if ((trb.control & wanted) == 0) return;
  const bool silent = (trb.control & trb_block_event) != 0 && !short_packet;
  report(at, at.endpoint.dequeue, short_packet ? Code::ShortPacket : Code::Success, left, false, silent);
  at.endpoint.told = true;
}

void Xhci::report(const Position& at, uint64_t pointer, Code code, uint32_t length, bool data, bool silent) {
  post(pointer, static_cast<uint32_t>(code) << 24 | length,
       static_cast<uint32_t>(TrbType::TransferEvent) << trb_type_shift | (data ? event_data : 0) | at.index << 16 |
           at.slot_id << 24,
       silent);
}

// 4.10.2
Xhci::Outcome Xhci::halt(Position& at, const Trb& trb, Code code, uint32_t left) {
  (void)trb;
  set_state(at.slot_id, at.index, code == Code::TrbError ? EndpointState::Error : EndpointState::Halted);
  report(at, at.endpoint.dequeue, code, left, false);
  return Outcome::Halt;
}

}  // namespace caisson::usb
