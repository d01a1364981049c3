#include "cli/life_commands.h"

#include <algorithm>
#include <functional>

#include <fmt/core.h>
#include <unistd.h>

#include "base/event_loop.h"
#include "base/log.h"
#include "cli/exit_status.h"
#include "cli/launch.h"
#include "cli/session.h"
#include "cli/vm_client.h"
#include "store/store.h"

namespace caisson::cli {
namespace {

using store::Store;
using store::VmFolder;

// After it was told to end at once, or killed, until it must be gone.
constexpr uint64_t end_ms = 10'000;
constexpr uint64_t press_again_ms = 5'000;

int report(const Result<>& done) {
  if (done) return exit_ok;
  log::error("{}", done.error().message);
  return exit_failure;
}

Result<VmFolder> find(const std::string& name) {
  auto store = Store::open();
  if (!store) return std::unexpected(store.error());
  return store->find(name);
}

int for_each(const Names& names, const std::function<Result<>(const VmFolder&)>& work) {
  int status = exit_ok;
  for (const std::string& name : names) {
    auto folder = find(name);
    if (report(folder ? work(*folder) : std::unexpected(folder.error())) != exit_ok) status = exit_failure;
  }
  return status;
}

Result<> kill_process(VmClient& client, const VmFolder& folder) {
  if (auto killed = client.kill(); !killed) return killed;
  if (folder.wait_for_end(end_ms)) return {};
  return fail("machine {}: its process {} does not end although it was killed", folder.name(), client.pid());
}

// As pulling the plug; a process that does not obey is killed.
Result<> end_now(const VmFolder& folder) {
  auto client = VmClient::connect(folder);
  if (!client) return folder.alive() ? Result<>{std::unexpected(client.error())} : Result<>{};
  if (client->ask(control::Stop{}, end_ms) || client->gone()) {
    if (folder.wait_for_end(end_ms)) return {};
  }
  log::warning("machine {} does not answer; killing its process", folder.name());
  return kill_process(*client, folder);
}

Result<> stop(const VmFolder& folder, std::optional<unsigned> given_s) {
  auto client = VmClient::connect(folder);
  if (!client) return std::unexpected(client.error());
  unsigned timeout_s = 30;
  if (const auto spec = folder.spec()) timeout_s = spec->stop_timeout_s;
  if (given_s) timeout_s = *given_s;
  auto state = client->ask(control::Query{});
  if (state) {
    const auto* status = std::get_if<control::Status>(&state->event);
    if (status != nullptr && status->state == control::RunState::Paused) (void)client->ask(control::Resume{});
    state = client->ask(control::PowerButton{});
  }
  if (!state && !client->gone()) return end_now(folder);
  fmt::print(stderr, "caisson: {}: power button pressed; {} s to shut down\n", folder.name(), timeout_s);
  // A guest that has not booted far enough misses the button: it is pressed again every few seconds.
  const uint64_t deadline = EventLoop::now_ns() + uint64_t{timeout_s} * 1'000'000'000;
  for (uint64_t now = EventLoop::now_ns(); now < deadline; now = EventLoop::now_ns()) {
    if (folder.wait_for_end(std::min<uint64_t>((deadline - now) / 1'000'000, press_again_ms))) return {};
    (void)client->ask(control::PowerButton{}, 1000);
  }
  if (folder.wait_for_end(0)) return {};
  fmt::print(stderr, "caisson: {}: has not shut down in {} s; stopping it now\n", folder.name(), timeout_s);
  return end_now(folder);
}

Result<> ask(const VmFolder& folder, const control::Request& request) {
  auto client = VmClient::connect(folder);
  if (!client) return std::unexpected(client.error());
  auto answer = client->ask(request);
  if (!answer) return std::unexpected(answer.error());
  return {};
}

}  // namespace

int start_command(const Names& names) {
  const TscReading before = read_tsc();
  return for_each(names, [&](const VmFolder& folder) { return start_machine(folder, before); });
}

int stop_command(const Names& names, std::optional<unsigned> timeout_s) {
  return for_each(names, [&](const VmFolder& folder) { return stop(folder, timeout_s); });
}

int kill_command(const Names& names) {
  return for_each(names, [](const VmFolder& folder) -> Result<> {
    if (!folder.alive()) return fail("machine {} is not running", folder.name());
    return end_now(folder);
  });
}

int restart_command(const Names& names, std::optional<unsigned> timeout_s) {
  return for_each(names, [&](const VmFolder& folder) -> Result<> {
    // Before it is stopped: whether it could start again.
    if (auto spec = folder.spec(); !spec) return std::unexpected(spec.error());
    if (folder.alive()) {
      if (auto done = stop(folder, timeout_s); !done && folder.alive()) return done;
    }
    return start_machine(folder, read_tsc());
  });
}

int pause_command(const Names& names) {
  return for_each(names, [](const VmFolder& folder) { return ask(folder, control::Pause{}); });
}

int resume_command(const Names& names) {
  return for_each(names, [](const VmFolder& folder) { return ask(folder, control::Resume{}); });
}

int reset_command(const Names& names) {
  return for_each(names, [](const VmFolder& folder) { return ask(folder, control::Reset{}); });
}

int remove_command(const Names& names, bool force) {
  return for_each(names, [&](const VmFolder& folder) -> Result<> {
    auto lock = folder.lock();
    if (!lock) return std::unexpected(lock.error());
    if (folder.alive()) {
      if (!force) {
        return fail("machine {} is running; stop it first with: caisson stop {}, or use rm --force", folder.name(),
                    folder.name());
      }
      if (auto done = end_now(folder); !done) return done;
    }
    auto store = Store::open();
    if (!store) return std::unexpected(store.error());
    return store->remove(folder, *lock);
  });
}

int rename_command(const std::string& name, const std::string& to) {
  auto folder = find(name);
  if (!folder) return report(std::unexpected(folder.error()));
  auto lock = folder->lock();
  if (!lock) return report(std::unexpected(lock.error()));
  auto store = Store::open();
  if (!store) return report(std::unexpected(store.error()));
  return report(store->rename(*folder, *lock, to));
}

int wait_command(const std::string& name) {
  auto folder = find(name);
  if (!folder) return report(std::unexpected(folder.error()));
  while (folder->alive()) {
    auto client = VmClient::connect(*folder);
    // What it tells does not matter: its end closes the connection.
    while (client && !client->gone()) (void)client->next_event(60'000);
    (void)folder->wait_for_end(client ? 1000 : 50);
  }
  const auto life = folder->last_life();
  if (life.exited) {
    if (life.exited->reason == control::ExitReason::Failure) {
      return report(fail("machine {}: {}", name, life.exited->message));
    }
    return exit_status_of(*life.exited);
  }
  if (!life.started_ms) return report(fail("machine {} has never run", name));
  return exit_stopped;  // killed
}

int console_command(const std::string& name) {
  auto folder = find(name);
  if (!folder) return report(std::unexpected(folder.error()));
  auto client = VmClient::connect(*folder);
  if (!client) return report(std::unexpected(client.error()));
  block_session_signals();
  auto attached = client->ask(control::Attach{2048});
  if (!attached) return report(std::unexpected(attached.error()));
  if (!attached->fd.valid()) return report(fail("machine {} has given no console", name));
  if (auto watched = client->ask(control::Watch{}); !watched) return report(std::unexpected(watched.error()));
  Session::Settings settings;
  settings.attached = true;
  settings.kill = [] {};
  Session session{VmmLink{client->take_channel(), std::move(attached->fd), Fd{}}, std::move(settings), STDIN_FILENO,
                  STDOUT_FILENO};
  const SessionEnd end = session.run();
  if (end.left) fmt::print(stderr, "caisson: left {}; it goes on\n", name);
  return exit_ok;
}

}  // namespace caisson::cli
