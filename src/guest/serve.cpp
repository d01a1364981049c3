#include "guest/serve.h"

#include <array>
#include <cerrno>
#include <cstdlib>
#include <ctime>

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/frames.h"
#include "agent/tree.h"
#include "guest/command.h"

namespace caisson::guest {
namespace {

using agent::Stream;
using agent::Type;

Result<> put(Stream& stream, const agent::Place& place) {
  auto receiver = agent::TreeReceiver::create(place.path);
  if (!receiver) return std::unexpected(receiver.error());
  for (;;) {
    auto frame = stream.receive();
    if (!frame) return std::unexpected(frame.error());
    if (!*frame) return fail("the host has gone");
    auto end = receiver->take(**frame);
    if (!end) return std::unexpected(end.error());
    if (*end) return {};
  }
}

Result<> get(Stream& stream, const agent::Place& place) {
  agent::Sending sending;
  sending.send = [&](Type type, std::string_view payload) { return stream.send(type, payload); };
  return agent::send_tree(place.path, place.folders, sending);
}

// By whatever this system shuts down with.
Result<> power_off() {
  constexpr std::array<const char*, 3> ways{"/bin/systemctl", "/usr/bin/systemctl", "/sbin/poweroff"};
  for (const char* way : ways) {
    if (::access(way, X_OK) != 0) continue;
    const bool systemd = way != ways.back();
    std::array<char*, 3> words{const_cast<char*>(way), systemd ? const_cast<char*>("poweroff") : nullptr, nullptr};
    pid_t child = -1;
    if (::posix_spawn(&child, way, nullptr, nullptr, words.data(), environ) != 0) continue;
    int status = 0;
    if (::waitpid(child, &status, 0) == child && status == 0) return {};
  }
  return fail("neither systemctl nor poweroff works here");
}

Result<> set_clock(std::string_view payload) {
  auto now = agent::unpack_number(payload);
  if (!now) return std::unexpected(now.error());
  const timespec time{static_cast<time_t>(*now / 1'000'000'000), static_cast<long>(*now % 1'000'000'000)};
  if (::clock_settime(CLOCK_REALTIME, &time) != 0) return fail_errno(errno, "cannot set the clock");
  return {};
}

Result<uint64_t> answer(int connection, Stream& stream) {
  auto request = stream.receive();
  if (!request) return std::unexpected(request.error());
  if (!*request) return fail("the host has gone");
  const auto status_of = [](Result<> done) -> Result<uint64_t> {
    if (!done) return std::unexpected(done.error());
    return uint64_t{0};
  };
  const std::string& payload = (*request)->payload;
  switch ((*request)->type) {
    case Type::Execute: {
      auto wanted = agent::unpack_execution(payload);
      if (!wanted) return std::unexpected(wanted.error());
      return run_command(connection, stream.reader(), *wanted);
    }
    case Type::Put:
    case Type::Get: {
      auto place = agent::unpack_place(payload);
      if (!place) return std::unexpected(place.error());
      const bool gets = (*request)->type == Type::Get;
      return status_of(gets ? get(stream, *place) : put(stream, *place));
    }
    case Type::PowerOff: return status_of(power_off());
    case Type::SetClock: return status_of(set_clock(payload));
    default: return fail("this agent (version {}) does not know what was asked; build the image again", agent::version);
  }
}

}  // namespace

void serve(int connection) {
  Stream stream{connection};
  if (!stream.send(Type::Hello, agent::pack(agent::version))) return;
  // Paths of the host's user are relative to the home that a login would have.
  if (::chdir("/root") != 0 && ::chdir("/") != 0) return;
  const auto status = answer(connection, stream);
  if (status) {
    (void)stream.send(Type::Exit, agent::pack(*status));
  } else {
    (void)stream.send(Type::Failed, agent::plain(status.error().message));
  }
}

}  // namespace caisson::guest
