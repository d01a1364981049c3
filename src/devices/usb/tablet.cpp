#include "devices/usb/tablet.h"

#include <algorithm>

namespace caisson::usb {
namespace {

constexpr uint8_t events = 1;  // the endpoint
constexpr uint8_t class_hid = 3;
constexpr uint8_t descriptor_hid = 0x21, descriptor_report = 0x22;
// 7.2
constexpr uint8_t get_report = 1, get_idle = 2, get_protocol = 3, set_report = 9, set_idle = 10, set_protocol = 11;

// 6.2.2: the report as items.
constexpr uint8_t report_descriptor[]{
    0x05, 0x01,        // usage page: generic desktop
    0x09, 0x02,        // usage: mouse
    0xa1, 0x01,        // collection: application
    0x09, 0x01,        //   usage: pointer
    0xa1, 0x00,        //   collection: physical
    0x05, 0x09,        //     usage page: buttons
    0x19, 0x01,        //     from 1
    0x29, 0x05,        //     to 5
    0x15, 0x00,        //     0
    0x25, 0x01,        //     or 1
    0x95, 0x05,        //     five
    0x75, 0x01,        //     of a bit
    0x81, 0x02,        //     input: data, variable, absolute
    0x95, 0x01,        //     one
    0x75, 0x03,        //     of three bits
    0x81, 0x01,        //     input: constant
    0x05, 0x01,        //     usage page: generic desktop
    0x09, 0x30,        //     usage: X
    0x09, 0x31,        //     usage: Y
    0x16, 0x00, 0x00,  //     from 0
    0x26, 0xff, 0x7f,  //     to 32767
    0x36, 0x00, 0x00,  //     physically the same
    0x46, 0xff, 0x7f,  //
    0x75, 0x10,        //     16 bits
    0x95, 0x02,        //     twice
    0x81, 0x02,        //     input: data, variable, absolute
    0x09, 0x38,        //     usage: wheel
    0x15, 0x81,        //     from -127
    0x25, 0x7f,        //     to 127
    0x35, 0x00,        //     without a physical size
    0x45, 0x00,        //
    0x75, 0x08,        //     8 bits
    0x95, 0x01,        //     once
    0x81, 0x06,        //     input: data, variable, relative
    0xc0,              //   end
    0xc0,              // end
};
constexpr auto report_descriptor_size = static_cast<uint8_t>(sizeof report_descriptor);

// 6.2.1: HID 1.11, for no country, with one report descriptor.
constexpr uint8_t hid_descriptor[]{9, descriptor_hid, 0x11, 0x01, 0, 1, descriptor_report, report_descriptor_size, 0};

}  // namespace

Tablet::Tablet()
    : UsbDevice({.speed = Speed::High,
                 .vendor = 0x0627,  // the ids of QEMU's, which systems know as one without quirks
                 .product = 0x0001,
                 .maker = "Caisson",
                 .name = "USB Tablet",
                 .serial = {},
                 .interface_class = class_hid,
                 .interface_subclass = 0,
                 .interface_protocol = 0,
                 .of_class = {std::begin(hid_descriptor), std::end(hid_descriptor)},
                 // 2 to the power of (interval - 1) microframes: 4 ms.
                 .endpoints = {{events | type_in, endpoint_interrupt, 8, 6, 0}}}) {}

void Tablet::forget() { now_ = {}; }

bool Tablet::point(uint16_t x, uint16_t y, uint8_t buttons, int wheel) {
  if (!driven()) return false;
  x = std::min(x, most);
  y = std::min(y, most);
  const Report report{static_cast<uint8_t>(buttons & 0x1f), static_cast<uint8_t>(x),
                      static_cast<uint8_t>(x >> 8),         static_cast<uint8_t>(y),
                      static_cast<uint8_t>(y >> 8),         static_cast<uint8_t>(std::clamp(wheel, -127, 127))};
  if (now_.count == most_waiting) return false;
  std::ranges::copy(report, now_.waiting.begin() + static_cast<std::ptrdiff_t>(now_.count * report_size));
  ++now_.count;
  ready(events, true);
  return true;
}

Moved Tablet::send(unsigned, std::span<uint8_t> into) {
  if (now_.count == 0) return {.kind = Moved::Kind::Later};
  if (into.size() < report_size) return {.kind = Moved::Kind::TooLong};
  std::copy_n(now_.waiting.begin(), report_size, now_.last.begin());
  std::shift_left(now_.waiting.begin(), now_.waiting.end(), static_cast<std::ptrdiff_t>(report_size));
  --now_.count;
  std::ranges::copy(now_.last, into.begin());
  now_.last.back() = 0;  // a wheel's way is told once
  return {.count = report_size, .ends = true};
}

std::optional<std::vector<uint8_t>> Tablet::class_in(const Setup& setup) {
  if ((setup.type & type_recipient) != to_interface || setup.index != 0) return {};
  if ((setup.type & type_kind) == kind_standard) {
    // 7.1.1
    switch (setup.value >> 8) {
      case descriptor_hid: return std::vector<uint8_t>(std::begin(hid_descriptor), std::end(hid_descriptor));
      case descriptor_report: return std::vector<uint8_t>(std::begin(report_descriptor), std::end(report_descriptor));
      default: return {};
    }
  }
  switch (setup.request) {
    case get_report: return std::vector<uint8_t>(now_.last.begin(), now_.last.end());
    case get_idle: return std::vector<uint8_t>{now_.idle};
    case get_protocol: return std::vector<uint8_t>{1};  // reports
    default: return {};
  }
}

bool Tablet::class_out(const Setup& setup, std::span<const uint8_t>) {
  if ((setup.type & type_recipient) != to_interface || setup.index != 0) return false;
  switch (setup.request) {
    case set_idle: now_.idle = static_cast<uint8_t>(setup.value >> 8); return true;
    case set_report: return true;  // it has no output
    case set_protocol: return setup.value == 1;
    default: return false;
  }
}

void Tablet::save(fields::Buffer& out) const {
  State state = now_;
  state.device = state_;
  fields::save(state, out);
}

Result<> Tablet::restore(std::span<const uint8_t> in) {
  State state = now_;
  state.device = state_;
  if (auto done = fields::restore(state, in); !done) return done;
  if (!sound(state.device) || state.count > most_waiting) return fail("saved USB tablet is in no possible state");
  state_ = state.device;
  now_ = state;
  return {};
}

}  // namespace caisson::usb
