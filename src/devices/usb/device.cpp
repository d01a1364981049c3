#include "devices/usb/device.h"

#include <algorithm>
#include <utility>

namespace caisson::usb {
namespace {

constexpr uint8_t the_configuration = 1;
constexpr uint8_t string_maker = 1, string_name = 2, string_serial = 3;
constexpr uint16_t english = 0x0409;
constexpr uint8_t attributes_reserved = 0x80;  // bmAttributes: "must be one"
constexpr uint8_t most_power_2 = 50, most_power_3 = 12;

void put16(std::vector<uint8_t>& out, unsigned value) {
  out.push_back(static_cast<uint8_t>(value));
  out.push_back(static_cast<uint8_t>(value >> 8));
}

uint8_t type(Descriptor which) { return static_cast<uint8_t>(which); }

// An endpoint of a request's index.
unsigned endpoint_of(uint16_t index) { return index & 15u; }
bool in_of(uint16_t index) { return (index & type_in) != 0; }

}  // namespace

bool UsbDevice::has(unsigned endpoint, bool in) const {
  const unsigned address = endpoint | (in ? type_in : 0u);
  return std::ranges::any_of(description_.endpoints, [&](const Endpoint& one) { return one.address == address; });
}

// --- Descriptors, USB 2.0, 9.6 ---

std::vector<uint8_t> UsbDevice::configuration() const {
  const bool super = description_.speed == Speed::Super;
  std::vector<uint8_t> out{9,
                           type(Descriptor::configuration),
                           0,
                           0,
                           1,
                           the_configuration,
                           0,
                           attributes_reserved,
                           super ? most_power_3 : most_power_2};
  out.insert(out.end(),
             {9, type(Descriptor::interface), 0, 0, static_cast<uint8_t>(description_.endpoints.size()),
              description_.interface_class, description_.interface_subclass, description_.interface_protocol, 0});
  out.insert(out.end(), description_.of_class.begin(), description_.of_class.end());
  for (const Endpoint& endpoint : description_.endpoints) {
    out.insert(out.end(), {7, type(Descriptor::endpoint), endpoint.address, endpoint.attributes});
    put16(out, endpoint.packet);
    out.push_back(endpoint.interval);
    // USB 3.2, 9.6.7
    if (super) out.insert(out.end(), {6, type(Descriptor::companion), endpoint.burst, 0, 0, 0});
  }
  out[2] = static_cast<uint8_t>(out.size());
  out[3] = static_cast<uint8_t>(out.size() >> 8);
  return out;
}

std::optional<std::vector<uint8_t>> UsbDevice::string(uint8_t index) const {
  std::vector<uint8_t> out{0, type(Descriptor::string)};
  if (index == 0) {
    put16(out, english);
  } else {
    std::string_view text;
    switch (index) {
      case string_maker: text = description_.maker; break;
      case string_name: text = description_.name; break;
      case string_serial: text = description_.serial; break;
      default: return {};
    }
    for (const char letter : text.substr(0, 126)) put16(out, static_cast<unsigned char>(letter));
  }
  out[0] = static_cast<uint8_t>(out.size());
  return out;
}

std::optional<std::vector<uint8_t>> UsbDevice::descriptor(uint8_t wanted, uint8_t index) const {
  const bool super = description_.speed == Speed::Super;
  switch (static_cast<Descriptor>(wanted)) {
    case Descriptor::device: {
      std::vector<uint8_t> out{18, type(Descriptor::device)};
      put16(out, super ? 0x0300 : 0x0200);
      // SuperSpeed has an exponent of 2 for the control pipe's packets (USB 3.2, 9.6.1).
      out.insert(out.end(), {0, 0, 0, static_cast<uint8_t>(super ? 9 : 64)});
      put16(out, description_.vendor);
      put16(out, description_.product);
      put16(out, 0x0100);
      out.insert(out.end(), {string_maker, string_name, description_.serial.empty() ? uint8_t{0} : string_serial, 1});
      return out;
    }
    case Descriptor::configuration:
      if (index != 0) return {};
      return configuration();
    case Descriptor::string: return string(index);
    case Descriptor::qualifier:
      // For the other of high and full speed, at which these devices say the same.
      if (description_.speed != Speed::High) return {};
      return std::vector<uint8_t>{10, type(Descriptor::qualifier), 0, 2, 0, 0, 0, 64, 1, 0};
    case Descriptor::object_store:
      if (!super) return {};
      // USB 3.2, 9.6.2: USB 2.0 extension without link power management; SuperSpeed at 5 Gbit/s alone.
      return std::vector<uint8_t>{5,  type(Descriptor::object_store), 22, 0, 2,           //
                                  7,  type(Descriptor::capability),   2,  0, 0,    0, 0,  //
                                  10, type(Descriptor::capability),   3,  0, 0x08, 0, 3, 0, 0, 0};
    default: return {};
  }
}

// --- Requests, 9.4 ---

std::optional<std::vector<uint8_t>> UsbDevice::control_in(const Setup& setup) {
  const auto answer = [&]() -> std::optional<std::vector<uint8_t>> {
    if ((setup.type & type_kind) != kind_standard) return class_in(setup);
    const uint8_t recipient = setup.type & type_recipient;
    switch (static_cast<Request>(setup.request)) {
      case Request::get_status:
        if (recipient == to_device) return std::vector<uint8_t>{1, 0};  // powered by itself
        if (recipient == to_interface && setup.index == 0) return std::vector<uint8_t>{0, 0};
        if (recipient == to_endpoint) {
          const unsigned endpoint = endpoint_of(setup.index);
          const bool in = in_of(setup.index);
          if (endpoint != 0 && !has(endpoint, in)) return {};
          return std::vector<uint8_t>{(state_.halted & bit(endpoint, in)) != 0 ? uint8_t{1} : uint8_t{0}, 0};
        }
        return {};
      case Request::get_descriptor:
        if (recipient != to_device) return class_in(setup);
        return descriptor(static_cast<uint8_t>(setup.value >> 8), static_cast<uint8_t>(setup.value));
      case Request::get_configuration: return std::vector<uint8_t>{state_.configuration};
      case Request::get_interface:
        if (!configured() || setup.index != 0) return {};
        return std::vector<uint8_t>{0};
      default: return {};
    }
  }();
  if (!answer || answer->size() <= setup.length) return answer;
  return std::vector<uint8_t>(answer->begin(), answer->begin() + setup.length);
}

bool UsbDevice::control_out(const Setup& setup, std::span<const uint8_t> data) {
  return (setup.type & type_kind) == kind_standard ? standard_out(setup) : class_out(setup, data);
}

bool UsbDevice::standard_out(const Setup& setup) {
  const uint8_t recipient = setup.type & type_recipient;
  const auto request = static_cast<Request>(setup.request);
  switch (request) {
    case Request::set_address: return true;  // which the host controller knows anyhow
    case Request::set_configuration:
      if (setup.value > the_configuration) return false;
      state_ = {.configuration = static_cast<uint8_t>(setup.value), .halted = 0};
      forget();
      return true;
    case Request::set_interface:
      if (!configured() || setup.value != 0 || setup.index != 0) return false;
      state_.halted = 0;  // 9.4.10
      return true;
    case Request::clear_feature:
    case Request::set_feature: {
      const bool sets = request == Request::set_feature;
      if (recipient == to_endpoint && setup.value == feature_halt) {
        const unsigned endpoint = endpoint_of(setup.index);
        const bool in = in_of(setup.index);
        if (endpoint == 0) return true;
        if (!has(endpoint, in)) return false;
        if (sets) {
          halt(endpoint, in);
        } else if (may_go_on(endpoint, in)) {
          state_.halted &= ~bit(endpoint, in);
        }
        return true;
      }
      if (description_.speed != Speed::Super) return false;
      return recipient == to_device ? setup.value == feature_u1 || setup.value == feature_u2
                                    : recipient == to_interface && setup.value == feature_function_suspend;
    }
    case Request::set_sel:
    case Request::set_isochronous_delay: return description_.speed == Speed::Super;
    default: return false;
  }
}

// --- Pipes ---

Moved UsbDevice::in(unsigned endpoint, std::span<uint8_t> into) {
  if (!configured() || !has(endpoint, true) || (state_.halted & bit(endpoint, true)) != 0) {
    return {.kind = Moved::Kind::Stall};
  }
  return send(endpoint, into);
}

Moved UsbDevice::out(unsigned endpoint, std::span<const uint8_t> bytes, bool last) {
  if (!configured() || !has(endpoint, false) || (state_.halted & bit(endpoint, false)) != 0) {
    return {.kind = Moved::Kind::Stall};
  }
  return take(endpoint, bytes, last);
}

void UsbDevice::reset() {
  state_ = {};
  forget();
}

}  // namespace caisson::usb
