#include "life/agent_link.h"

#include <array>
#include <cerrno>
#include <ctime>

#include <sys/socket.h>
#include <sys/time.h>

namespace caisson::life {
namespace {

constexpr uint64_t hello_ms = 3000;

}  // namespace

void set_patience(const Fd& connection, uint64_t ms) {
  const timeval time{static_cast<time_t>(ms / 1000), static_cast<suseconds_t>(ms % 1000 * 1000)};
  ::setsockopt(connection.get(), SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
  ::setsockopt(connection.get(), SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time);
}

std::optional<Fd> connect_agent(VmClient& client) {
  auto answer = client.ask(control::Connect{agent::port});
  if (!answer || !std::holds_alternative<control::Attached>(answer->event) || !answer->fd.valid()) return std::nullopt;
  set_patience(answer->fd, hello_ms);
  agent::Stream stream{answer->fd.get()};
  const auto hello = stream.receive();
  if (!hello || !*hello || (*hello)->type != agent::Type::Hello) return std::nullopt;
  const auto version = agent::unpack_number((*hello)->payload);
  if (!version || *version < agent::version) return std::nullopt;
  set_patience(answer->fd, 0);
  return std::move(answer->fd);
}

Result<> feed(agent::FrameReader& reader, int connection) {
  std::array<char, 64 * 1024> bytes;
  const ssize_t size = ::recv(connection, bytes.data(), bytes.size(), 0);
  if (size < 0 && (errno == EAGAIN || errno == EINTR)) return {};
  if (size <= 0) return fail("the machine, or the agent in it, has gone before the command ended");
  reader.feed({bytes.data(), static_cast<size_t>(size)});
  return {};
}

Result<> last_word(const std::optional<agent::Frame>& frame) {
  if (!frame) return fail("the agent in the guest has gone");
  if (frame->type == agent::Type::Failed) return fail("{}", agent::plain(frame->payload));
  if (frame->type != agent::Type::Exit) return fail("the agent in the guest sent what was not asked for");
  return {};
}

Result<> ask_agent(const Fd& connection, agent::Type request, std::string_view payload, uint64_t timeout_ms) {
  set_patience(connection, timeout_ms);
  agent::Stream stream{connection.get()};
  if (auto sent = stream.send(request, payload); !sent) return sent;
  auto answer = stream.receive();
  if (!answer) return std::unexpected(answer.error());
  // A system that shuts down ends its agent before that has answered.
  if (!*answer && request == agent::Type::PowerOff) return {};
  return last_word(*answer);
}

void set_guest_clock(const store::VmFolder& folder) {
  auto client = VmClient::connect(folder);
  if (!client) return;
  const auto connection = connect_agent(*client);
  if (!connection) return;
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  const uint64_t ns = static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
  (void)ask_agent(*connection, agent::Type::SetClock, agent::pack(ns), hello_ms);
}

}  // namespace caisson::life
