// Numbers of USB that devices and host controllers share.
//   Spec     USB 2.0 chapter 9, USB 3.2 chapter 9 (BOS and companion descriptors)
//   Threads  constants
#pragma once

#include <cstdint>

namespace caisson::usb {

// As xHCI's default speed ids are (xHCI 1.2, 7.2.2.1.1).
enum class Speed : uint8_t { Full = 1, Low = 2, High = 3, Super = 4 };

// The eight bytes that begin a control transfer, 9.3.
struct Setup {
  uint8_t type = 0;  // direction, kind, recipient
  uint8_t request = 0;
  uint16_t value = 0;
  uint16_t index = 0;
  uint16_t length = 0;
};
static_assert(sizeof(Setup) == 8);
inline constexpr uint8_t type_in = 0x80, type_kind = 0x60, type_recipient = 0x1f;
inline constexpr uint8_t to_device = 0, to_interface = 1, to_endpoint = 2;
inline constexpr uint8_t kind_standard = 0x00, kind_class = 0x20;

// 9.4; from set_sel on USB 3.2, 9.4.
enum class Request : uint8_t {
  get_status = 0,
  clear_feature = 1,
  set_feature = 3,
  set_address = 5,
  get_descriptor = 6,
  get_configuration = 8,
  set_configuration = 9,
  get_interface = 10,
  set_interface = 11,
  set_sel = 48,
  set_isochronous_delay = 49,
};
inline constexpr uint16_t feature_halt = 0, feature_u1 = 48, feature_u2 = 49;
inline constexpr uint16_t feature_function_suspend = 0;  // of an interface

enum class Descriptor : uint8_t {
  device = 1,
  configuration = 2,
  string = 3,
  interface = 4,
  endpoint = 5,
  qualifier = 6,
  object_store = 15,
  capability = 16,
  companion = 48,
};
// Attributes of an endpoint, 9.6.6.
inline constexpr uint8_t endpoint_bulk = 2, endpoint_interrupt = 3;

}  // namespace caisson::usb
