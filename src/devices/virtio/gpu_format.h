// Requests and answers of a virtio GPU without 3D.
//   Spec     VIRTIO 1.2, 5.7.6
//   Threads  constants
#pragma once

#include <cstdint>

namespace caisson::virtio::gpu {

enum class Command : uint32_t {
  get_display_info = 0x0100,
  resource_create_2d = 0x0101,
  resource_unref = 0x0102,
  set_scanout = 0x0103,
  resource_flush = 0x0104,
  transfer_to_host_2d = 0x0105,
  resource_attach_backing = 0x0106,
  resource_detach_backing = 0x0107,
  get_edid = 0x010a,
  update_cursor = 0x0300,
  move_cursor = 0x0301,
};
enum class Answer : uint32_t {
  ok = 0x1100,
  ok_display_info = 0x1101,
  ok_edid = 0x1104,
  unspecified = 0x1200,
  out_of_memory = 0x1201,
  invalid_scanout = 0x1202,
  invalid_resource = 0x1203,
  invalid_parameter = 0x1205,
};

// Four bytes a pixel, named from the first byte on.
enum class Format : uint32_t {
  B8G8R8A8 = 1,
  B8G8R8X8 = 2,
  A8R8G8B8 = 3,
  X8R8G8B8 = 4,
  R8G8B8A8 = 67,
  X8B8G8R8 = 68,
  A8B8G8R8 = 121,
  R8G8B8X8 = 134,
};

inline constexpr uint32_t flag_fence = 1u << 0;
struct Header {
  uint32_t type = 0;
  uint32_t flags = 0;
  uint64_t fence = 0;
  uint32_t context = 0;
  uint32_t ring = 0;
};
struct Rect {
  uint32_t x = 0, y = 0, width = 0, height = 0;
};
struct ScanoutInfo {
  Rect rect;
  uint32_t enabled = 0;
  uint32_t flags = 0;
};
inline constexpr unsigned scanouts_told = 16;

struct Create2d {
  uint32_t resource = 0, format = 0, width = 0, height = 0;
};
struct OfResource {  // unref, detach backing
  uint32_t resource = 0, padding = 0;
};
struct SetScanout {
  Rect rect;
  uint32_t scanout = 0, resource = 0;
};
struct Flush {
  Rect rect;
  uint32_t resource = 0, padding = 0;
};
struct Transfer {
  Rect rect;
  uint64_t offset = 0;
  uint32_t resource = 0, padding = 0;
};
struct AttachBacking {
  uint32_t resource = 0, entries = 0;
};
struct MemoryEntry {
  uint64_t address = 0;
  uint32_t length = 0, padding = 0;
};
struct GetEdid {
  uint32_t scanout = 0, padding = 0;
};
struct Cursor {
  uint32_t scanout = 0, x = 0, y = 0, padding = 0;
  uint32_t resource = 0, hot_x = 0, hot_y = 0, padding2 = 0;
};
static_assert(sizeof(Header) == 24 && sizeof(SetScanout) == 24 && sizeof(Transfer) == 32 && sizeof(Cursor) == 32);

// Device configuration, 5.7.4.
inline constexpr uint32_t event_display = 1u << 0;
inline constexpr uint64_t feature_edid = uint64_t{1} << 1;

inline constexpr unsigned edid_room = 1024, edid_size = 128;

}  // namespace caisson::virtio::gpu
