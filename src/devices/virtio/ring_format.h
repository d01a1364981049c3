// How virtqueues lie in memory.
//   Spec     VIRTIO 1.2, 2.7.5 to 2.7.8 (split), 2.8.13 to 2.8.14 (packed)
#pragma once

#include <cstdint>

namespace caisson::virtio {

// Descriptor flags.
inline constexpr uint16_t descriptor_next = 1;
inline constexpr uint16_t descriptor_write = 2;
inline constexpr uint16_t descriptor_indirect = 4;
inline constexpr uint16_t descriptor_available = 1 << 7;  // packed
inline constexpr uint16_t descriptor_used = 1 << 15;      // packed
inline constexpr uint64_t descriptor_size = 16;

// Split: both rings begin with 16 bits of flags and a 16-bit index.
inline constexpr uint64_t split_index = 2;
inline constexpr uint64_t split_header = 4;
inline constexpr uint64_t split_used_size = 8;
inline constexpr uint16_t split_no_interrupt = 1;  // in the available ring's flags
inline constexpr uint16_t split_no_notify = 1;     // in the used ring's flags

// Packed: where flags, id and length stand in a descriptor, and the event suppression structure: offset and wrap, then
// flags.
inline constexpr uint64_t packed_flags = 14;
inline constexpr uint64_t packed_id = 12;
inline constexpr uint64_t packed_length = 8;
inline constexpr uint64_t packed_event_length = 4;
inline constexpr uint16_t packed_event_disable = 1;
inline constexpr uint16_t packed_event_at = 2;

}  // namespace caisson::virtio
