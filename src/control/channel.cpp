#include "control/channel.h"

#include <array>
#include <cerrno>
#include <cstring>

#include <poll.h>
#include <sys/socket.h>

namespace caisson::control {

Result<std::pair<Channel, Channel>> Channel::create_pair() {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return fail_errno(errno, "cannot make a control channel");
  }
  return std::pair{Channel{Fd{ends[0]}}, Channel{Fd{ends[1]}}};
}

Result<> Channel::send(std::string_view text, std::span<const int> fds) { return send_with(text, fds, 0); }

Result<> Channel::try_send(std::string_view text, std::span<const int> fds) {
  return send_with(text, fds, MSG_DONTWAIT);
}

Result<> Channel::send_with(std::string_view text, std::span<const int> fds, int flags) {
  if (text.empty() || text.size() > max_text)
    return fail("control message of {} bytes, at most {} fit", text.size(), max_text);
  if (fds.size() > max_fds) return fail("control message with {} descriptors, at most {} fit", fds.size(), max_fds);
  iovec data{const_cast<char*>(text.data()), text.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * max_fds)> ancillary{};
  msghdr header{};
  header.msg_iov = &data;
  header.msg_iovlen = 1;
  if (!fds.empty()) {
    header.msg_control = ancillary.data();
    header.msg_controllen = CMSG_SPACE(fds.size_bytes());
    cmsghdr* rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(fds.size_bytes());
    std::memcpy(CMSG_DATA(rights), fds.data(), fds.size_bytes());
  }
  for (;;) {
    if (::sendmsg(socket_.get(), &header, MSG_NOSIGNAL | flags) >= 0) return {};
    if (errno == EINTR) continue;
    if (errno != EAGAIN || flags != 0) return fail_errno(errno, "cannot send on the control channel");
    pollfd wait{socket_.get(), POLLOUT, 0};
    if (::poll(&wait, 1, -1) < 0 && errno != EINTR) return fail_errno(errno, "cannot wait for the control channel");
  }
}

Result<std::optional<Packet>> Channel::receive() {
  std::string text(max_text, '\0');
  iovec data{text.data(), text.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * max_fds)> ancillary{};
  msghdr header{};
  header.msg_iov = &data;
  header.msg_iovlen = 1;
  header.msg_control = ancillary.data();
  header.msg_controllen = ancillary.size();
  ssize_t size;
  do {
    size = ::recvmsg(socket_.get(), &header, MSG_CMSG_CLOEXEC);
  } while (size < 0 && errno == EINTR);
  // A peer that died with unread data in its queue shows as ECONNRESET: gone all the same.
  if (size < 0 && errno == ECONNRESET) return std::nullopt;
  if (size < 0) return fail_errno(errno, "cannot receive on the control channel");

  Packet packet;
  for (cmsghdr* part = CMSG_FIRSTHDR(&header); part != nullptr; part = CMSG_NXTHDR(&header, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int number;
      std::memcpy(&number, CMSG_DATA(part) + i * sizeof(int), sizeof(int));
      packet.fds.emplace_back(number);
    }
  }
  if (size == 0) return std::nullopt;
  if (header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) {
    return fail("control message longer than {} bytes or with more than {} descriptors", max_text, max_fds);
  }
  text.resize(static_cast<size_t>(size));
  packet.text = std::move(text);
  return packet;
}

}  // namespace caisson::control
