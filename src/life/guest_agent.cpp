#include "life/guest_agent.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <ctime>
#include <optional>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/frames.h"
#include "agent/tree.h"
#include "base/event_loop.h"
#include "base/utc.h"
#include "base/write_all.h"
#include "life/agent_link.h"
#include "life/vm_client.h"

namespace caisson::life {
namespace {

using agent::Frame;
using agent::Type;

constexpr uint64_t second_ns = 1'000'000'000;
constexpr uint64_t start_patience_s = 30;
constexpr uint64_t still_ms = 30'000;        // a transfer may stand still so long
constexpr size_t most_waiting = 256 * 1024;  // bytes on their way to the guest

std::unexpected<Error> nobody_waits() { return fail("the daemon ends"); }

// A connection to the agent, of a machine that may still be starting.
Result<Fd> agent_of(const store::VmFolder& folder, uint64_t patience_s, const std::stop_token& ended) {
  const std::string& name = folder.name();
  const uint64_t start = EventLoop::now_ns();
  auto client = VmClient::connect(folder);
  if (!client) return std::unexpected(client.error());
  auto answer = client->ask(control::Query{});
  if (!answer) return std::unexpected(answer.error());
  const auto* status = std::get_if<control::Status>(&answer->event);
  if (status == nullptr) return fail("machine {} has not said what it does", name);
  if (status->state == control::RunState::Paused) return fail("machine {} is paused; resume it first", name);
  if (!status->vsock) {
    return fail("machine {} has no way in: it is neither made from an image nor with vsock", name);
  }
  for (;;) {
    if (auto connection = connect_agent(*client)) return std::move(*connection);
    if (ended.stop_requested()) return nobody_waits();
    if (!folder.alive()) return fail("machine {} has ended", name);
    const uint64_t waited = EventLoop::now_ns() - start;
    if (waited >= patience_s * second_ns) {
      return fail(
          "machine {}: waited {} s, and its agent does not answer yet; the machine is still starting, or its system "
          "has none: its console's log shows how far it is, then try again",
          name, waited / second_ns);
    }
    const timespec pause{0, 100'000'000};
    ::nanosleep(&pause, nullptr);
  }
}

class Running {
 public:
  Running(const Fd& connection, std::string to_guest) : connection_(connection.get()), to_guest_(std::move(to_guest)) {}

  // Some of the conversation; at most a quarter of a second.
  Result<> round() {
    pollfd ready{connection_, static_cast<short>(POLLIN | (to_guest_.size() > sent_ ? POLLOUT : 0)), 0};
    if (::poll(&ready, 1, 250) < 0) return errno == EINTR ? Result<>{} : fail_errno(errno, "cannot wait");
    if ((ready.revents & POLLOUT) != 0) {
      const size_t left = std::min(to_guest_.size() - sent_, most_waiting);
      const ssize_t size = ::send(connection_, to_guest_.data() + sent_, left, MSG_NOSIGNAL);
      if (size > 0) sent_ += static_cast<size_t>(size);
      // Gone: what it has said before comes first.
      if (size < 0 && errno != EAGAIN && errno != EINTR) sent_ = to_guest_.size();
    }
    if ((ready.revents & ~POLLOUT) == 0) return {};
    if (auto ok = feed(reader_, connection_); !ok) return ok;
    while (!done_) {
      auto frame = reader_.next();
      if (!frame) return std::unexpected(frame.error());
      if (!*frame) return {};
      if (auto ok = take(**frame); !ok) return ok;
    }
    return {};
  }

  [[nodiscard]] bool done() const { return done_; }
  [[nodiscard]] GuestOutput output() { return std::move(output_); }

 private:
  Result<> take(const Frame& frame) {
    if (frame.type == Type::Output || frame.type == Type::Errors) {
      std::string& text = frame.type == Type::Output ? output_.out : output_.errors;
      const size_t room = GuestOutput::max_text - text.size();
      text.append(frame.payload, 0, room);
      output_.truncated = output_.truncated || frame.payload.size() > room;
      return {};
    }
    if (frame.type == Type::Failed) return fail("{}", agent::plain(frame.payload));
    if (frame.type != Type::Exit) return fail("the agent in the guest sent what was not asked for");
    const auto status = agent::unpack_number(frame.payload);
    if (!status) return std::unexpected(status.error());
    output_.status = static_cast<uint32_t>(*status & 0xff);
    done_ = true;
    return {};
  }

  const int connection_;
  std::string to_guest_;
  size_t sent_ = 0;
  agent::FrameReader reader_;
  GuestOutput output_;
  bool done_ = false;
};

}  // namespace

Result<GuestOutput> run_by_agent(const Fd& connection, const GuestCommand& command, const std::stop_token& ended) {
  const uint64_t start = EventLoop::now_ns();
  agent::Execution wanted;
  wanted.directory = command.directory;
  wanted.words = command.words;
  const std::string packed = agent::pack(wanted);
  if (command.words.empty() || command.words.size() > agent::Execution::max_words ||
      packed.size() > agent::max_payload) {
    return fail("the command has {} words and {} bytes; at most {} and about {}", command.words.size(), packed.size(),
                agent::Execution::max_words, agent::max_payload);
  }
  std::string to_guest = agent::encode(Type::Execute, packed);
  constexpr size_t piece = 32 * 1024;
  for (size_t at = 0; at < command.input.size(); at += piece) {
    to_guest += agent::encode(Type::Input, std::string_view{command.input}.substr(at, piece));
  }
  to_guest += agent::encode(Type::InputEnd, {});
  ::fcntl(connection.get(), F_SETFL, ::fcntl(connection.get(), F_GETFL) | O_NONBLOCK);
  Running running{connection, std::move(to_guest)};
  while (!running.done()) {
    if (auto ok = running.round(); !ok) return std::unexpected(ok.error());
    if (running.done()) break;
    if (ended.stop_requested()) return nobody_waits();
    if (EventLoop::now_ns() - start >= command.timeout_s * second_ns) {
      return fail("{} has not ended within {} s, and was hung up; give it a longer timeout_s", command.words.front(),
                  command.timeout_s);
    }
  }
  return running.output();
}

Result<GuestOutput> run_in_guest(const store::VmFolder& folder, const GuestCommand& command,
                                 const std::stop_token& ended) {
  const auto connection = agent_of(folder, command.timeout_s, ended);
  if (!connection) return std::unexpected(connection.error());
  return run_by_agent(*connection, command, ended);
}

Result<uint64_t> get_by_agent(const Fd& connection, const std::string& path, const Fd& to,
                              const std::stop_token& ended) {
  set_patience(connection, still_ms);
  agent::Stream stream{connection.get()};
  if (auto sent = stream.send(Type::Get, agent::pack(agent::Place{path, false})); !sent) {
    return std::unexpected(sent.error());
  }
  std::optional<uint64_t> left;
  uint64_t size = 0;
  const auto unexpected = [] { return fail("the agent in the guest sent what was not asked for"); };
  for (;;) {
    if (ended.stop_requested()) return nobody_waits();
    const auto frame = stream.receive();
    if (!frame) return std::unexpected(frame.error());
    if (!*frame || (*frame)->type == Type::Failed) {
      auto said = last_word(*frame);
      return std::unexpected(said ? Error{"the agent in the guest has gone"} : said.error());
    }
    const Frame& one = **frame;
    if (one.type == Type::Total && !left) continue;
    if (one.type == Type::Entry && !left) {
      const auto entry = agent::unpack_entry(one.payload);
      if (!entry) return std::unexpected(entry.error());
      if (entry->kind != agent::EntryKind::File) return fail("{} is no regular file", path);
      if (entry->size > max_guest_file) {
        return fail("{} has {} bytes, and at most {} are taken; use caisson cp", path, entry->size, max_guest_file);
      }
      left = size = entry->size;
    } else if (one.type == Type::Data && left && one.payload.size() <= *left) {
      if (const int error = write_all(to.get(), one.payload)) return fail_errno(error, "cannot keep " + path);
      *left -= one.payload.size();
    } else if (one.type == Type::TreeEnd && left == uint64_t{0}) {
      break;
    } else {
      return unexpected();
    }
  }
  const auto last = stream.receive();
  if (!last) return std::unexpected(last.error());
  if (auto ok = last_word(*last); !ok) return std::unexpected(ok.error());
  return size;
}

Result<uint64_t> get_guest_file(const store::VmFolder& folder, const std::string& path, const Fd& to,
                                const std::stop_token& ended) {
  const auto connection = agent_of(folder, start_patience_s, ended);
  if (!connection) return std::unexpected(connection.error());
  return get_by_agent(*connection, path, to, ended);
}

Result<> put_by_agent(const Fd& connection, const std::string& path, uint32_t mode, const Fd& from, uint64_t size,
                      const std::stop_token& ended) {
  agent::TreeEntry entry;
  entry.name = path.substr(path.rfind('/') + 1);
  entry.mode = mode;
  entry.size = size;
  entry.changed_ns = utc_ms() * 1'000'000;
  // As the agent will look at it.
  if (auto ok = agent::unpack_entry(agent::pack(entry)); !ok) {
    return fail("{}: end it in the name that the file shall have, of at most 255 bytes", path);
  }
  set_patience(connection, still_ms);
  agent::Stream stream{connection.get()};
  auto sent = stream.send(Type::Put, agent::pack(agent::Place{path, false}));
  if (sent) sent = stream.send(Type::Total, agent::pack(size));
  if (sent) sent = stream.send(Type::Entry, agent::pack(entry));
  std::array<char, agent::max_payload> bytes;
  for (uint64_t at = 0; sent && at < size;) {
    if (ended.stop_requested()) return nobody_waits();
    const ssize_t got =
        ::pread(from.get(), bytes.data(), std::min<uint64_t>(bytes.size(), size - at), static_cast<off_t>(at));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return fail_errno(got < 0 ? errno : EIO, "cannot read what was sent");
    sent = stream.send(Type::Data, {bytes.data(), static_cast<size_t>(got)});
    at += static_cast<uint64_t>(got);
  }
  if (sent) sent = stream.send(Type::TreeEnd, {});
  // Where the guest did not go on it has said why.
  const auto answer = stream.receive();
  if (!answer) return sent ? std::unexpected(answer.error()) : sent;
  if (!sent && !*answer) return sent;
  return last_word(*answer);
}

Result<> put_guest_file(const store::VmFolder& folder, const std::string& path, uint32_t mode, const Fd& from,
                        uint64_t size, const std::stop_token& ended) {
  const auto connection = agent_of(folder, start_patience_s, ended);
  if (!connection) return std::unexpected(connection.error());
  return put_by_agent(*connection, path, mode, from, size, ended);
}

}  // namespace caisson::life
