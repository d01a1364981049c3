#include "machine/guest_stream.h"

#include <cerrno>
#include <utility>

#include <sys/socket.h>

#include "backend/host_stream.h"

namespace caisson::machine {

Result<Fd> connect_guest(EventLoop& loop, virtio::Vsock* device, uint32_t port, bool paused) {
  if (device == nullptr) return fail("this machine has no socket device; start it with --vsock");
  if (paused) return fail("the machine is paused; resume it first");
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return fail_errno(errno, "cannot make a socket");
  Fd ours{ends[0]};
  Fd theirs{ends[1]};
  auto stream = socket_stream(loop, std::move(ours));
  if (!stream) return std::unexpected(stream.error());
  if (auto done = device->connect(port, std::move(*stream)); !done) return std::unexpected(done.error());
  return theirs;
}

}  // namespace caisson::machine
