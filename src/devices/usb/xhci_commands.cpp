// The command ring, 4.6.
#include <algorithm>
#include <bit>

#include "devices/usb/xhci.h"

namespace caisson::usb {

using namespace xhci;

namespace {

constexpr uint64_t pause_ns = 1'000'000;
constexpr uint32_t endpoint_state_mask = 7;
constexpr unsigned endpoint_type_shift = 3;

// 6.2.5.1, and the contexts that follow: slot, then endpoints by index.
struct InputControl {
  uint32_t drop = 0;
  uint32_t add = 0;
  uint32_t reserved[6] = {};
};
static_assert(sizeof(InputControl) == context_size);
constexpr Gpa input_slot(Gpa input) { return input + context_size; }
constexpr Gpa input_endpoint(Gpa input, unsigned index) { return input + context_size * (index + 1); }
constexpr Gpa input_of(const Trb& trb) { return trb.parameter & ~uint64_t{15}; }

void put_slot_state(SlotContext& context, SlotState state, uint32_t address) {
  context.address = static_cast<uint32_t>(state) << slot_state_shift | address;
}
void put_entries(SlotContext& context, uint32_t entries) {
  context.route = (context.route & ~(31u << entries_shift)) | entries << entries_shift;
}

}  // namespace

void Xhci::run_commands() {
  for (unsigned i = 0; i < most_at_once; ++i) {
    if (!running() || !state_.command_running) return;
    if (!room()) {
      commands_wanting_ = true;
      return;
    }
    Trb trb;
    const uint64_t address = state_.command_ring;
    if (!memory_.read_object(address, trb)) return host_error();
    if (((trb.control & trb_cycle) != 0) != state_.command_cycle) return;
    if (type_of(trb) == TrbType::Link) {
      state_.command_ring = trb.parameter & ~uint64_t{15};
      if ((trb.control & trb_toggle) != 0) state_.command_cycle = !state_.command_cycle;
      continue;
    }
    state_.command_ring += sizeof trb;
    unsigned slot = trb.control >> 24;
    const Code code = carry_out(trb, slot);
    post(address, static_cast<uint32_t>(code) << 24,
         static_cast<uint32_t>(TrbType::CompletionEvent) << trb_type_shift | slot << 24);
  }
  commands_wanting_ = true;
  timer_->arm(clock_.now_ns() + pause_ns);
}

Code Xhci::carry_out(const Trb& trb, unsigned& slot) {
  const TrbType type = type_of(trb);
  if (type == TrbType::NoOpCommand) return Code::Success;
  if (type == TrbType::EnableSlot) return enable_slot(slot);
  if (type < TrbType::DisableSlot || type > TrbType::ResetDevice) return Code::TrbError;
  if (slot == 0 || slot > slot_count || state_.slots[slot].state == SlotState::Disabled) return Code::SlotNotEnabled;
  const unsigned index = trb.control >> 16 & 31;
  switch (type) {
    case TrbType::DisableSlot: return disable_slot(slot);
    case TrbType::AddressDevice: return address_device(slot, trb);
    case TrbType::ConfigureEndpoint: return configure(slot, trb);
    case TrbType::EvaluateContext: return evaluate(slot, trb);
    case TrbType::ResetDevice: return reset_device(slot);
    default: break;
  }
  if (index == 0) return Code::TrbError;
  if (state_.slots[slot].endpoints[index].state == EndpointState::Disabled) return Code::EndpointNotEnabled;
  switch (type) {
    case TrbType::ResetEndpoint: return reset_endpoint(slot, index);
    case TrbType::StopEndpoint: return stop_endpoint(slot, index);
    default: return set_dequeue(slot, index, trb);
  }
}

// The slot's device context.
std::optional<Gpa> Xhci::output(unsigned id) const {
  uint64_t address = 0;
  if (!memory_.read_object(state_.contexts + uint64_t{id} * sizeof address, address)) return {};
  address &= ~uint64_t{63};
  if (!memory_.contains(address, context_size * endpoint_count)) return {};
  return address;
}

// 4.6.3
Code Xhci::enable_slot(unsigned& slot) {
  slot = 0;
  for (unsigned id = 1; id <= std::min<unsigned>(slot_count, state_.configure); ++id) {
    if (state_.slots[id].state != SlotState::Disabled) continue;
    state_.slots[id] = {};
    state_.slots[id].state = SlotState::Enabled;
    slot = id;
    return Code::Success;
  }
  return Code::NoSlots;
}

// 4.6.4
Code Xhci::disable_slot(unsigned id) {
  SlotContext context;
  if (const auto at = output(id); at && memory_.read_object(*at, context)) {
    put_slot_state(context, SlotState::Disabled, 0);
    std::ignore = memory_.write_object(*at, context);
  }
  state_.slots[id] = {};
  wanting_[id] = 0;
  return Code::Success;
}

// Whether an endpoint may be so.
bool Xhci::takes(unsigned index, const EndpointContext& context) {
  const auto type = static_cast<EndpointType>(context.kind >> endpoint_type_shift & 7);
  const bool in = (index & 1) != 0;
  if ((context.state >> 10 & 31) != 0) return false;  // MaxPStreams: there are none
  if (index == 1) return type == EndpointType::Control;
  return in ? type == EndpointType::BulkIn || type == EndpointType::InterruptIn
            : type == EndpointType::BulkOut || type == EndpointType::InterruptOut;
}

// 4.6.5
Code Xhci::address_device(unsigned id, const Trb& trb) {
  Slot& slot = state_.slots[id];
  const bool blocks = (trb.control & trb_block_address) != 0;
  if (slot.state != SlotState::Enabled && (blocks || slot.state != SlotState::Default)) return Code::ContextStateError;
  const Gpa input = input_of(trb);
  InputControl control;
  SlotContext context;
  EndpointContext endpoint;
  const auto at = output(id);
  if (!at || !memory_.read_object(input, control) || !memory_.read_object(input_slot(input), context) ||
      !memory_.read_object(input_endpoint(input, 1), endpoint)) {
    return Code::ParameterError;
  }
  const uint32_t port = context.port >> root_port_shift & 0xff;
  // No hubs, so no route.
  if ((control.add & 3) != 3 || port == 0 || port > port_count || (context.route & 0xf'ffff) != 0 ||
      !takes(1, endpoint)) {
    return Code::ParameterError;
  }
  const bool taken = std::ranges::any_of(state_.slots, [&](const Slot& other) {
    return &other != &slot && other.state != SlotState::Disabled && other.port == port;
  });
  if (taken || ports_[port - 1].device == nullptr || (state_.ports[port - 1] & port_enabled) == 0) {
    return Code::TransactionError;
  }
  slot.port = static_cast<uint8_t>(port);
  slot.state = blocks ? SlotState::Default : SlotState::Addressed;
  slot.endpoints[1] = {.state = EndpointState::Running,
                       .type = EndpointType::Control,
                       .dequeue = endpoint.dequeue & ~uint64_t{15},
                       .cycle = (endpoint.dequeue & 1) != 0};
  put_slot_state(context, slot.state, blocks ? 0 : id);
  put_entries(context, 1);
  endpoint.state = (endpoint.state & ~endpoint_state_mask) | static_cast<uint32_t>(EndpointState::Running);
  const bool written = memory_.write_object(*at, context) && memory_.write_object(*at + context_size, endpoint);
  return written ? Code::Success : Code::ParameterError;
}

// 4.6.6
Code Xhci::configure(unsigned id, const Trb& trb) {
  Slot& slot = state_.slots[id];
  if (slot.state != SlotState::Addressed && slot.state != SlotState::Configured) return Code::ContextStateError;
  const auto at = output(id);
  SlotContext context;
  if (!at || !memory_.read_object(*at, context)) return Code::ParameterError;
  InputControl control;
  std::array<EndpointContext, endpoint_count> added{};
  if ((trb.control & trb_deconfigure) != 0) {
    control.drop = ~3u;
    put_entries(context, 1);
  } else {
    const Gpa input = input_of(trb);
    SlotContext wanted;
    if (!memory_.read_object(input, control) || !memory_.read_object(input_slot(input), wanted)) {
      return Code::ParameterError;
    }
    if ((control.drop & 3) != 0 || (control.add & 2) != 0) return Code::ParameterError;
    for (unsigned index = 2; index < endpoint_count; ++index) {
      if ((control.add >> index & 1) == 0) continue;
      if (!memory_.read_object(input_endpoint(input, index), added[index]) || !takes(index, added[index])) {
        return Code::ParameterError;
      }
    }
    if ((control.add & 1) != 0) put_entries(context, wanted.route >> entries_shift);
  }
  bool written = true;
  bool any = false;
  for (unsigned index = 2; index < endpoint_count; ++index) {
    Endpoint& endpoint = slot.endpoints[index];
    const bool adds = (control.add >> index & 1) != 0;
    if (!adds && (control.drop >> index & 1) != 0 && endpoint.state != EndpointState::Disabled) {
      endpoint = {};
      written = memory_.write_object(*at + context_size * index, EndpointContext{}) && written;
    }
    if (adds) {
      EndpointContext& from = added[index];
      endpoint = {.state = EndpointState::Running,
                  .type = static_cast<EndpointType>(from.kind >> endpoint_type_shift & 7),
                  .dequeue = from.dequeue & ~uint64_t{15},
                  .cycle = (from.dequeue & 1) != 0};
      from.state = (from.state & ~endpoint_state_mask) | static_cast<uint32_t>(EndpointState::Running);
      written = memory_.write_object(*at + context_size * index, from) && written;
    }
    any = any || endpoint.state != EndpointState::Disabled;
  }
  slot.state = any ? SlotState::Configured : SlotState::Addressed;
  put_slot_state(context, slot.state, id);
  written = memory_.write_object(*at, context) && written;
  return written ? Code::Success : Code::ParameterError;
}

// 4.6.7: exit latency and interrupter, and the control endpoint's packets.
Code Xhci::evaluate(unsigned id, const Trb& trb) {
  if (state_.slots[id].state == SlotState::Enabled) return Code::ContextStateError;
  const Gpa input = input_of(trb);
  const auto at = output(id);
  InputControl control;
  SlotContext slot, wanted_slot;
  EndpointContext endpoint, wanted_endpoint;
  if (!at || !memory_.read_object(input, control) || !memory_.read_object(input_slot(input), wanted_slot) ||
      !memory_.read_object(input_endpoint(input, 1), wanted_endpoint) || !memory_.read_object(*at, slot) ||
      !memory_.read_object(*at + context_size, endpoint)) {
    return Code::ParameterError;
  }
  bool written = true;
  if ((control.add & 1) != 0) {
    slot.port = (slot.port & ~0xffffu) | (wanted_slot.port & 0xffff);
    slot.target = (slot.target & 0x3f'ffff) | (wanted_slot.target & ~0x3f'ffffu);
    written = memory_.write_object(*at, slot);
  }
  if ((control.add & 2) != 0) {
    endpoint.kind = (endpoint.kind & 0xffff) | (wanted_endpoint.kind & ~0xffffu);
    written = memory_.write_object(*at + context_size, endpoint) && written;
  }
  return written ? Code::Success : Code::ParameterError;
}

// State and place of an endpoint, for the host to read.
bool Xhci::put_state(unsigned id, unsigned index) {
  const Endpoint& endpoint = state_.slots[id].endpoints[index];
  const auto at = output(id);
  EndpointContext context;
  if (!at || !memory_.read_object(*at + context_size * index, context)) return false;
  context.state = (context.state & ~endpoint_state_mask) | static_cast<uint32_t>(endpoint.state);
  context.dequeue = endpoint.dequeue | (endpoint.cycle ? 1 : 0);
  return memory_.write_object(*at + context_size * index, context);
}

void Xhci::set_state(unsigned id, unsigned index, EndpointState state) {
  state_.slots[id].endpoints[index].state = state;
  std::ignore = put_state(id, index);
}

// 4.6.8
Code Xhci::reset_endpoint(unsigned id, unsigned index) {
  Endpoint& endpoint = state_.slots[id].endpoints[index];
  if (endpoint.state != EndpointState::Halted) return Code::ContextStateError;
  endpoint.done = endpoint.total = 0;
  endpoint.skips = endpoint.told = endpoint.chained = false;
  if (index == 1) state_.slots[id].stalled = false;
  set_state(id, index, EndpointState::Stopped);
  return Code::Success;
}

// 4.6.9
Code Xhci::stop_endpoint(unsigned id, unsigned index) {
  Slot& slot = state_.slots[id];
  Endpoint& endpoint = slot.endpoints[index];
  if (endpoint.state != EndpointState::Running) return Code::ContextStateError;
  set_state(id, index, EndpointState::Stopped);
  // What waits for the device has begun.
  Trb trb;
  if (memory_.read_object(endpoint.dequeue, trb) && ((trb.control & trb_cycle) != 0) == endpoint.cycle &&
      type_of(trb) != TrbType::Link) {
    const uint32_t length = std::min(trb.status & trb_length, longest_trb);
    report({slot, id, index, endpoint}, endpoint.dequeue, Code::Stopped, length - std::min(length, endpoint.done),
           false);
  }
  return Code::Success;
}

// 4.6.10
Code Xhci::set_dequeue(unsigned id, unsigned index, const Trb& trb) {
  Endpoint& endpoint = state_.slots[id].endpoints[index];
  if (endpoint.state != EndpointState::Stopped && endpoint.state != EndpointState::Error) {
    return Code::ContextStateError;
  }
  endpoint = {.state = EndpointState::Stopped,
              .type = endpoint.type,
              .dequeue = trb.parameter & ~uint64_t{15},
              .cycle = (trb.parameter & 1) != 0};
  return put_state(id, index) ? Code::Success : Code::ParameterError;
}

// 4.6.11
Code Xhci::reset_device(unsigned id) {
  Slot& slot = state_.slots[id];
  if (slot.state != SlotState::Addressed && slot.state != SlotState::Configured) return Code::ContextStateError;
  const auto at = output(id);
  SlotContext context;
  if (!at || !memory_.read_object(*at, context)) return Code::ParameterError;
  bool written = true;
  for (unsigned index = 2; index < endpoint_count; ++index) {
    if (slot.endpoints[index].state == EndpointState::Disabled) continue;
    slot.endpoints[index] = {};
    written = memory_.write_object(*at + context_size * index, EndpointContext{}) && written;
  }
  slot.state = SlotState::Default;
  put_slot_state(context, slot.state, 0);
  put_entries(context, 1);
  written = memory_.write_object(*at, context) && written;
  return written ? Code::Success : Code::ParameterError;
}

}  // namespace caisson::usb
