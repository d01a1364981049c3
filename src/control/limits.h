// What a machine may use at most, and how that is changed while it runs.
//   Threads  plain data
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace caisson::control {

// Of a disk or network card; each direction of a card has it for itself. 0: no limit.
struct RateLimit {
  static constexpr uint64_t most = uint64_t{1} << 50;
  uint64_t bytes_per_s = 0;
  uint64_t ops_per_s = 0;  // a card's packets
  bool operator==(const RateLimit&) const = default;
  [[nodiscard]] bool none() const { return bytes_per_s == 0 && ops_per_s == 0; }
};

struct DiskLimit {
  std::string disk;  // its file, as the configuration has it; as a user says it: see life/limits.h
  RateLimit limit;
  bool operator==(const DiskLimit&) const = default;
};

// Of the host's CPUs.
inline constexpr uint32_t max_cpu_cap_percent = 64 * 100;  // of one CPU
inline constexpr uint32_t usual_cpu_share = 100;
inline constexpr uint32_t max_cpu_share = 10000;  // twice the share, twice the time where CPUs are scarce

// A machine's memory as its balloon has it, and as the guest itself says (virtio 1.2, 5.5.6.3); 0: not said.
struct BalloonStatus {
  uint64_t target_bytes = 0;     // what the guest is to be left with
  uint64_t memory_bytes = 0;     // what it has
  uint64_t reported_bytes = 0;   // free pages that went back to the host since the start, all together
  uint64_t total_bytes = 0;      // what the guest counts as memory
  uint64_t free_bytes = 0;       // unused
  uint64_t available_bytes = 0;  // what programs could have
  bool operator==(const BalloonStatus&) const = default;
};

// Request to a running machine: what is there takes the place of what it has, all of it or, where it is refused, none.
struct SetLimits {
  std::vector<DiskLimit> disks;
  std::optional<RateLimit> net;
  std::optional<uint32_t> cpu_cap_percent;  // 0: none
  std::optional<uint32_t> cpu_share;
  bool cpu_group = false;                    // a control group keeps these two by now
  std::optional<uint64_t> memory_now_bytes;  // what the guest is to be left with, by its balloon
  bool operator==(const SetLimits&) const = default;
};

}  // namespace caisson::control
