// Address space for mappings that the host may back with huge pages: those must begin where a huge page does.
#pragma once

#include <cstddef>
#include <cstdint>

namespace caisson {

inline constexpr size_t huge_page_size = size_t{2} << 20;

// `size` bytes of inaccessible address space from a multiple of huge_page_size on, to be mapped over with MAP_FIXED and
// given back with munmap(). Null, with errno set, where there is none.
[[nodiscard]] uint8_t* reserve_address_space(size_t size);

}  // namespace caisson
