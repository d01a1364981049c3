// SMBIOS: what dmidecode, systemd and cloud tools read about the machine.
//   Spec     DMTF DSP0134; the 64-bit entry point as version 3.0, the 32-bit one as 2.8
//   Models   types 0, 1, 3, 4, 16, 17, 19, 32 and 127
//   Threads  none
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "memory/guest_memory.h"

namespace caisson::boot {

struct SmbiosConfig {
  std::string version = "1.0";
  std::string product = "Caisson Virtual Machine";
  std::string serial;              // shown to the guest; empty: "Not Specified"
  std::array<uint8_t, 16> uuid{};  // as RFC 4122 writes it
  std::string cpu_brand = "Caisson Virtual CPU";
  uint32_t cpu_signature = 0;  // CPUID 1 EAX
  uint32_t cpu_features = 0;   // CPUID 1 EDX
  uint32_t cpu_mhz = 0;
  unsigned cpus = 1;
};

namespace smbios {

inline constexpr Gpa address = 0xf'0000;

// All of it, for `address`: entry points at its start, structures behind them; at most 64 KiB.
[[nodiscard]] std::vector<uint8_t> build(const SmbiosConfig& config, const GuestMemory& memory);

// For firmware that places them itself: the 32-bit entry point, and the structures, whose address is left to it.
struct Pieces {
  std::vector<uint8_t> anchor;
  std::vector<uint8_t> tables;
};
[[nodiscard]] Pieces pieces(const SmbiosConfig& config, const GuestMemory& memory);

}  // namespace smbios
}  // namespace caisson::boot
