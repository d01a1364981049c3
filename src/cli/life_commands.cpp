#include "cli/life_commands.h"

#include <functional>

#include <fmt/core.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/exit_status.h"
#include "cli/session.h"
#include "life/creation.h"
#include "life/launch.h"
#include "life/machines.h"
#include "life/vm_client.h"
#include "store/store.h"

namespace caisson::cli {
namespace {

using store::VmFolder;

int report(const Result<>& done) {
  if (done) return exit_ok;
  log::error("{}", done.error().message);
  return exit_failure;
}

int for_each(const Names& names, const std::function<Result<>(const VmFolder&)>& work) {
  int status = exit_ok;
  for (const std::string& name : names) {
    auto folder = life::find(name);
    if (report(folder ? work(*folder) : std::unexpected(folder.error())) != exit_ok) status = exit_failure;
  }
  return status;
}

// What is told of work that takes long.
life::Follow follow() {
  return {[](std::string_view text) { fmt::print(stderr, "caisson: {}\n", text); }, {}};
}

Result<> no_process(const Result<pid_t>& started) {
  if (!started) return std::unexpected(started.error());
  return {};
}

int ask_each(const Names& names, const control::Request& request) {
  return for_each(names, [&](const VmFolder& folder) { return life::ask(folder, request); });
}

}  // namespace

int would(Operation operation, const Names& names) {
  return for_each(names, [&](const VmFolder& folder) -> Result<> {
    const auto text = life::would(operation, folder);
    if (!text) return std::unexpected(text.error());
    fmt::print("would {}\n", *text);
    return {};
  });
}

int start_command(const Names& names) {
  const TscReading before = read_tsc();
  return for_each(names, [&](const VmFolder& folder) { return no_process(life::start_machine(folder, before)); });
}

int stop_command(const Names& names, std::optional<unsigned> timeout_s) {
  return for_each(names, [&](const VmFolder& folder) { return life::stop(folder, timeout_s, follow()); });
}

int kill_command(const Names& names) {
  return for_each(names, [](const VmFolder& folder) { return life::kill(folder, follow()); });
}

int restart_command(const Names& names, std::optional<unsigned> timeout_s) {
  return for_each(names,
                  [&](const VmFolder& folder) { return no_process(life::restart(folder, timeout_s, follow())); });
}

int pause_command(const Names& names) { return ask_each(names, control::Pause{}); }
int resume_command(const Names& names) { return ask_each(names, control::Resume{}); }
int reset_command(const Names& names) { return ask_each(names, control::Reset{}); }

int remove_command(const Names& names, bool force) {
  return for_each(names, [&](const VmFolder& folder) { return life::remove(folder, force, follow()); });
}

int rename_command(const std::string& name, const std::string& to, bool dry_run) {
  auto folder = life::find(name);
  if (folder && dry_run) {
    auto store = store::Store::open();
    if (!store) return report(std::unexpected(store.error()));
    if (auto ok = life::check_new(*store, to); !ok) return report(ok);
    fmt::print("would rename {} to {}\n", name, to);
    return exit_ok;
  }
  return report(folder ? life::rename(*folder, to) : std::unexpected(folder.error()));
}

int wait_command(const std::string& name) {
  auto folder = life::find(name);
  if (!folder) return report(std::unexpected(folder.error()));
  while (folder->alive()) {
    auto client = life::VmClient::connect(*folder);
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
  auto folder = life::find(name);
  if (!folder) return report(std::unexpected(folder.error()));
  auto client = life::VmClient::connect(*folder);
  if (!client) return report(std::unexpected(client.error()));
  block_session_signals();
  auto attached = client->ask(control::Attach{2048});
  if (!attached) return report(std::unexpected(attached.error()));
  if (!attached->fd.valid()) return report(fail("machine {} has given no console", name));
  if (auto watched = client->ask(control::Watch{}); !watched) return report(std::unexpected(watched.error()));
  Session::Settings settings;
  settings.attached = true;
  settings.kill = [] {};
  Session session{life::VmmLink{client->take_channel(), std::move(attached->fd), Fd{}}, std::move(settings),
                  STDIN_FILENO, STDOUT_FILENO};
  const SessionEnd end = session.run();
  if (end.left) fmt::print(stderr, "caisson: left {}; it goes on\n", name);
  return exit_ok;
}

}  // namespace caisson::cli
