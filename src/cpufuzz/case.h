// One case of the differential test: code and state to start from, and what became of them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace caisson::cpufuzz {

// The same linear addresses on the host and in the guest. What lies around code and data is not mapped.
inline constexpr uint64_t code_address = 0x3010'0000, data_address = 0x3100'0000;
inline constexpr size_t code_size = 0x4000, data_size = 0x4000;
inline constexpr uint8_t filler = 0x06;     // what stands in code around the case: invalid in 64-bit mode
inline constexpr size_t xsave_size = 2696;  // legacy region, header, AVX, AVX-512: the standard form's offsets

// XCR0 of the host, as far as states here go; 3 where it has no XSAVE.
[[nodiscard]] uint64_t host_xcr0();

struct State {
  std::array<uint64_t, 16> gpr{};
  uint64_t rip = code_address;
  uint64_t rflags = 0x202;
  uint64_t fs_base = data_address, gs_base = data_address;
  std::array<uint8_t, data_size> data{};
  std::array<uint8_t, xsave_size> xsave{};
};

// Every case ends in an exception; where it runs to its end, in the #UD of the UD2 there.
struct Outcome {
  State state;
  int vector = -1;  // -1: did not end in time
  uint64_t error = 0;
  uint64_t cr2 = 0;
};

struct Case {
  std::vector<uint8_t> code;  // at state.rip
  State state;
};

}  // namespace caisson::cpufuzz
