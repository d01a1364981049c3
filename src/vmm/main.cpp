// caisson-vmm: exactly one virtual machine in one process. Started by caisson with one socket, descriptor 3; everything
// else (configuration, kernel, disks, console) comes through it. Opens nothing by path.
//   Threads  main; the machine starts its own
#include <csignal>
#include <cstdlib>
#include <string_view>

#include <fcntl.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/log.h"
#include "control/channel.h"
#include "control/messages.h"
#include "machine/machine.h"

namespace caisson {
namespace {

constexpr int channel_fd = 3;
// Of a thread, bytes. Threads here go a few dozen calls deep. Where the host hands out huge pages unasked a stack of
// the usual 8 MiB takes two of them for a few kilobytes; one that is smaller than a huge page takes what it uses.
constexpr size_t stack_size = size_t{1} << 20;

void limit_stacks() {
  pthread_attr_t attributes;
  if (::pthread_attr_init(&attributes) != 0) return;
  ::pthread_attr_setstacksize(&attributes, stack_size);
  ::pthread_setattr_default_np(&attributes);
  ::pthread_attr_destroy(&attributes);
}

bool is_channel(int fd) {
  int type = 0;
  socklen_t size = sizeof type;
  return ::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_SEQPACKET;
}

int refuse(control::Channel& channel, const Error& error) {
  const control::Event event = control::Exited{control::ExitReason::Failure, 0, error.message};
  if (!channel.send(control::serialise(event))) log::error("{}", error.message);
  return EXIT_FAILURE;
}

int run() {
  if (!is_channel(channel_fd)) {
    log::error("caisson-vmm is started by caisson, not by hand; try: caisson run --help");
    return 2;
  }
  ::fcntl(channel_fd, F_SETFD, FD_CLOEXEC);
  ::signal(SIGPIPE, SIG_IGN);
  control::Channel channel{Fd{channel_fd}};

  auto packet = channel.receive();
  if (!packet) return refuse(channel, packet.error());
  if (!*packet) return EXIT_FAILURE;  // whoever started this process is gone
  auto request = control::parse_request((*packet)->text, (*packet)->fds.size());
  if (!request) return refuse(channel, request.error());
  const auto* start = std::get_if<control::Start>(&*request);
  if (start == nullptr) return refuse(channel, Error{"control message: the first request must be start"});
  if (start->config.detached) ::prctl(PR_SET_PDEATHSIG, 0);
  ::prctl(PR_SET_NAME, ("vm-" + start->config.name).substr(0, 15).c_str());
  return machine::run(start->config, std::move((*packet)->fds), channel);
}

}  // namespace
}  // namespace caisson

int main() {
  // Until it is told to be one that outlives its owner nobody could reach or end this VM: go with it, however it ends.
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  caisson::limit_stacks();
  return caisson::run();
}
