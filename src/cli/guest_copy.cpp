#include "cli/guest_copy.h"

#include <cstdio>

#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/frames.h"
#include "agent/tree.h"
#include "base/log.h"
#include "cli/exit_status.h"
#include "cli/ssh_access.h"
#include "cli/transfer_progress.h"
#include "cli/way_in.h"
#include "life/agent_link.h"
#include "life/machines.h"

namespace caisson::cli {
namespace {

using agent::Type;

Result<> copy_in(agent::Stream& stream, const Copy& copy, TransferProgress& progress) {
  if (auto sent = stream.send(Type::Put, agent::pack(agent::Place{copy.inside, copy.recursive})); !sent) return sent;
  uint64_t total = 0, done = 0;
  agent::Sending sending;
  bool broken = false;
  sending.send = [&](Type type, std::string_view payload) -> Result<> {
    if (type == Type::Total) total = agent::unpack_number(payload).value_or(0);
    auto sent = stream.send(type, payload);
    broken = !sent;
    return sent;
  };
  sending.moved = [&](uint64_t bytes) { progress.update(done += bytes, total); };
  sending.left_out = [](std::string_view path) {
    log::warning("{} is neither file nor folder nor link: left out", path);
  };
  auto sent = agent::send_tree(copy.outside, copy.recursive, sending);
  // Where the guest did not go on it has said why.
  if (!sent && !broken) return sent;
  auto answer = stream.receive();
  if (!answer) return sent ? std::unexpected(answer.error()) : sent;
  if (!sent && !*answer) return sent;
  return life::last_word(*answer);
}

Result<> copy_out(agent::Stream& stream, const Copy& copy, TransferProgress& progress) {
  auto receiver = agent::TreeReceiver::create(copy.outside);
  if (!receiver) return std::unexpected(receiver.error());
  if (auto sent = stream.send(Type::Get, agent::pack(agent::Place{copy.inside, copy.recursive})); !sent) return sent;
  bool whole = false;
  for (;;) {
    auto frame = stream.receive();
    if (!frame) return std::unexpected(frame.error());
    if (whole || !*frame || (*frame)->type == Type::Failed) return life::last_word(*frame);
    auto end = receiver->take(**frame);
    if (!end) return std::unexpected(end.error());
    whole = *end;
    progress.update(receiver->moved(), receiver->total());
  }
}

// --dry-run: whether the machine runs, and what this host has of it.
int say_dry(const std::string& name, const Copy& copy, const std::string& from, const std::string& to) {
  const auto folder = life::find(name);
  Result<> ok = folder ? Result<>{} : std::unexpected(folder.error());
  if (ok && !folder->alive()) ok = fail("machine {} is not running; start it with: caisson start {}", name, name);
  struct stat status {};
  if (ok && copy.into && ::stat(copy.outside.c_str(), &status) != 0) ok = fail_errno(errno, copy.outside);
  if (ok && copy.into && S_ISDIR(status.st_mode) && !copy.recursive) ok = fail("{} is a folder; add -r", copy.outside);
  if (!ok) {
    log::error("cp {} {}: {}", from, to, ok.error().message);
    return exit_failure;
  }
  fmt::print("would copy {} to {}\n", from, to);
  return exit_ok;
}

}  // namespace

int copy_command(const std::string& from, const std::string& to, bool recursive, bool dry_run) {
  // NAME:PATH, as with scp: a slash before the colon makes it a path of this host.
  const auto machine_in = [](const std::string& text) -> std::string {
    const size_t colon = text.find(':');
    return colon == std::string::npos || colon == 0 || text.find('/') < colon ? "" : text.substr(0, colon);
  };
  const std::string source = machine_in(from);
  const std::string target = machine_in(to);
  if (source.empty() == target.empty()) {
    log::error("write caisson cp FILE NAME:PATH, or caisson cp NAME:PATH FILE");
    return exit_usage;
  }
  const std::string& name = source.empty() ? target : source;
  Copy copy{source.empty() ? from : to, (source.empty() ? to : from).substr(name.size() + 1), source.empty(),
            recursive};
  if (copy.inside.empty()) copy.inside = ".";
  if (dry_run) return say_dry(name, copy, from, to);
  const auto way = way_in(name, Ways::AgentOrSsh);
  if (!way) {
    log::error("{}", way.error().message);
    return exit_unreachable;
  }
  if (!way->agent.valid()) return copy_by_ssh(way->ssh_port, copy);
  agent::Stream stream{way->agent.get()};
  Result<> done;
  {
    TransferProgress progress{"copying", false};
    done = copy.into ? copy_in(stream, copy, progress) : copy_out(stream, copy, progress);
  }
  if (done) return exit_ok;
  log::error("cp {} {}: {}", from, to, done.error().message);
  return exit_failure;
}

}  // namespace caisson::cli
