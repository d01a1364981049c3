// What a machine may use, changed while it runs.
//   Threads  the event loop's, under the device lock
#pragma once

#include "backend/token_bucket.h"
#include "base/result.h"
#include "control/limits.h"
#include "control/messages.h"
#include "devices/virtio/balloon.h"
#include "machine/cpu_limits.h"
#include "machine/disks.h"
#include "machine/network.h"

namespace caisson::machine {

[[nodiscard]] inline RateLimit to_backend(const control::RateLimit& limit) {
  return {limit.bytes_per_s, limit.ops_per_s};
}

// What there is of a machine that has limits.
struct Limited {
  Disks& disks;
  Network* network;  // null: none
  CpuLimits& cpus;
  virtio::Balloon* balloon;  // null: none
};

// All of it or, with the error, nothing.
[[nodiscard]] Result<> set_limits(const control::SetLimits& limits, const Limited& machine);
// What the balloon and the guest say; they are asked to say it anew.
[[nodiscard]] control::BalloonStatus balloon_status(virtio::Balloon& balloon);

}  // namespace caisson::machine
