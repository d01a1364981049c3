// Streams from the host to a port of the guest.
//   Threads  the event loop's, under the device lock
#pragma once

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/result.h"
#include "devices/virtio/vsock.h"

namespace caisson::machine {

// The other end of the stream, which ends at once where nobody listens. `device`: null where the machine has none.
[[nodiscard]] Result<Fd> connect_guest(EventLoop& loop, virtio::Vsock* device, uint32_t port, bool paused);

}  // namespace caisson::machine
