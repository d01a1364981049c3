// caisson-agent: runs in a guest and does what the machine's owner asks over its socket device: commands, files, a
// clean shutdown. A static program, so that any Linux can have it.
//   Rights   connections from the host alone (CID 2); what it does, it does as the user it runs as: root
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>

#include <linux/vm_sockets.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/frames.h"
#include "base/fd.h"
#include "guest/serve.h"

namespace {

int complain(const char* what) {
  std::fprintf(stderr, "caisson-agent: %s: %s\n", what, std::strerror(errno));
  return 1;
}

}  // namespace

int main(int count, char** words) {
  if (count > 1) {
    const bool help = std::strcmp(words[1], "--help") == 0;
    std::fprintf(
        help ? stdout : stderr,
        "caisson-agent: takes no arguments; serves the host's caisson exec, cp and stop over AF_VSOCK port %u\n",
        caisson::agent::port);
    return help ? 0 : 2;
  }
  ::signal(SIGCHLD, SIG_IGN);  // nobody asks how connections ended
  const caisson::Fd listener{::socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  if (!listener.valid()) return complain("no AF_VSOCK sockets here; the module vmw_vsock_virtio_transport is needed");
  sockaddr_vm address{};
  address.svm_family = AF_VSOCK;
  address.svm_cid = VMADDR_CID_ANY;
  address.svm_port = caisson::agent::port;
  if (::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return complain("bind");
  if (::listen(listener.get(), 16) != 0) return complain("listen");
  for (;;) {
    sockaddr_vm peer{};
    socklen_t size = sizeof peer;
    const caisson::Fd connection{::accept4(listener.get(), reinterpret_cast<sockaddr*>(&peer), &size, SOCK_CLOEXEC)};
    if (!connection.valid()) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      ::sleep(1);  // out of descriptors or memory: that passes
      continue;
    }
    if (peer.svm_cid != VMADDR_CID_HOST) continue;
    if (::fork() == 0) {
      ::signal(SIGCHLD, SIG_DFL);
      caisson::guest::serve(connection.get());
      ::_exit(0);
    }
  }
}
