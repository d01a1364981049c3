#include "machine/limits.h"

#include <utility>
#include <vector>

namespace caisson::machine {

Result<> set_limits(const control::SetLimits& limits, const Limited& machine) {
  std::vector<std::pair<LimitedDisk*, RateLimit>> disks;
  for (const control::DiskLimit& one : limits.disks) {
    const auto disk = machine.disks.find(one.disk);
    if (!disk) return std::unexpected(disk.error());
    disks.emplace_back((*disk)->image.get(), to_backend(one.limit));
  }
  if (limits.net && machine.network == nullptr && !limits.net->none()) {
    return fail("this machine has no network that could be limited; it was started with --net none");
  }
  if (limits.memory_now_bytes && machine.balloon == nullptr) {
    return fail("this machine has no balloon; it was started with --no-balloon");
  }
  if (limits.cpu_share || limits.cpu_cap_percent) {
    if (auto done = machine.cpus.set(limits.cpu_cap_percent, limits.cpu_share, limits.cpu_group); !done) return done;
  }
  if (limits.memory_now_bytes) machine.balloon->set_target(*limits.memory_now_bytes);
  for (const auto& [disk, limit] : disks) disk->set_limit(limit);
  if (limits.net && machine.network != nullptr) machine.network->backend().set_limit(to_backend(*limits.net));
  return {};
}

control::BalloonStatus balloon_status(virtio::Balloon& balloon) {
  const auto& says = balloon.statistics();
  balloon.refresh_statistics();
  return {balloon.target(), balloon.memory_bytes(), balloon.reported_bytes(), says.total, says.free, says.available};
}

}  // namespace caisson::machine
