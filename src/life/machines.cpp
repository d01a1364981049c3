#include "life/machines.h"

#include <algorithm>

#include "base/event_loop.h"
#include "base/tsc_reading.h"
#include "life/agent_link.h"
#include "life/host.h"
#include "life/launch.h"
#include "life/limits.h"
#include "life/vm_client.h"
#include "store/cpu_group.h"
#include "store/files.h"
#include "store/store.h"

namespace caisson::life {
namespace {

using store::Store;
using store::VmFolder;

// After it was told to end at once, or killed, until it must be gone.
constexpr uint64_t end_ms = 10'000;
constexpr uint64_t press_again_ms = 5'000;
// The agent answers once the guest's own command has; a guest that is on its way down may be slow to.
constexpr uint64_t shut_down_ms = 5'000;
// So often whoever waits is asked whether it still does.
constexpr uint64_t look_ms = 250;

Result<> kill_process(VmClient& client, const VmFolder& folder) {
  if (auto killed = client.kill(); !killed) return killed;
  if (folder.wait_for_end(end_ms)) return {};
  return fail("machine {}: its process {} does not end although it was killed", folder.name(), client.pid());
}

// As pulling the plug; a process that does not obey is killed.
Result<> end_now(const VmFolder& folder, const Follow& follow) {
  auto client = VmClient::connect(folder);
  if (!client) return folder.alive() ? Result<>{std::unexpected(client.error())} : Result<>{};
  if (client->ask(control::Stop{}, end_ms) || client->gone()) {
    if (folder.wait_for_end(end_ms)) return {};
  }
  follow.say(fmt::format("machine {} does not answer; killing its process", folder.name()));
  return kill_process(*client, folder);
}

bool ask_to_shut_down(VmClient& client) {
  const auto connection = connect_agent(client);
  if (!connection) return false;
  return ask_agent(*connection, agent::Type::PowerOff, {}, shut_down_ms).has_value();
}

Result<> ask_to_end(const VmFolder& folder, std::optional<unsigned> given_s, const Follow& follow) {
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
  if (!state && !client->gone()) return end_now(folder, follow);
  // A guest may have nobody who hears the button; the agent asks its system directly.
  const bool asked = state && ask_to_shut_down(*client);
  follow.say(fmt::format("{}: {}; {} s to shut down", folder.name(),
                         asked ? "its agent was told" : "power button pressed", timeout_s));
  // A guest that has not booted far enough misses the button: it is pressed again every few seconds.
  const uint64_t start = EventLoop::now_ns();
  const uint64_t deadline = start + uint64_t{timeout_s} * 1'000'000'000;
  uint64_t press = start + press_again_ms * 1'000'000;
  for (uint64_t now = start; now < deadline; now = EventLoop::now_ns()) {
    if (folder.wait_for_end(std::min<uint64_t>((deadline - now) / 1'000'000, look_ms))) return {};
    if (follow.cancelled.stop_requested()) {
      return fail("machine {}: nobody waits any more for it to shut down", folder.name());
    }
    if (EventLoop::now_ns() < press) continue;
    (void)client->ask(control::PowerButton{}, 1000);
    press += press_again_ms * 1'000'000;
  }
  if (folder.wait_for_end(0)) return {};
  follow.say(fmt::format("{}: has not shut down in {} s; stopping it now", folder.name(), timeout_s));
  return end_now(folder, follow);
}

std::string last_lines(const std::string& text, unsigned lines) {
  size_t at = text.size();
  if (at > 0 && text[at - 1] == '\n') --at;
  for (; lines > 0 && at != std::string::npos && at != 0; --lines) {
    const size_t end = text.rfind('\n', at - 1);
    if (end == std::string::npos) return text;
    at = end;
  }
  return at >= text.size() ? "" : text.substr(at + (text[at] == '\n' ? 1 : 0));
}

}  // namespace

void tidy(const VmFolder& folder) {
  if (store::cpu_group(folder).empty()) return;
  const auto lock = folder.try_lock();
  if (lock && *lock && !folder.alive()) store::remove_cpu_group(folder, 100);
}

Result<VmFolder> find(const std::string& name) {
  auto store = Store::open();
  if (!store) return std::unexpected(store.error());
  return store->find(name);
}

Result<> stop(const VmFolder& folder, std::optional<unsigned> timeout_s, const Follow& follow) {
  auto done = ask_to_end(folder, timeout_s, follow);
  tidy(folder);
  return done;
}

Result<> kill(const VmFolder& folder, const Follow& follow) {
  if (!folder.alive()) return fail("machine {} is not running", folder.name());
  auto done = end_now(folder, follow);
  tidy(folder);
  return done;
}

Result<pid_t> restart(const VmFolder& folder, std::optional<unsigned> timeout_s, const Follow& follow) {
  // Before it is stopped: whether it could start again.
  if (auto spec = folder.spec(); !spec) return std::unexpected(spec.error());
  if (folder.alive()) {
    if (auto done = stop(folder, timeout_s, follow); !done && folder.alive()) return std::unexpected(done.error());
  }
  return start_machine(folder, read_tsc());
}

Result<> ask(const VmFolder& folder, const control::Request& request, uint64_t timeout_ms) {
  auto client = VmClient::connect(folder);
  if (!client) return std::unexpected(client.error());
  auto answer = client->ask(request, timeout_ms);
  if (!answer) return std::unexpected(answer.error());
  if (std::holds_alternative<control::Resume>(request)) set_guest_clock(folder);
  return {};
}

Result<> remove(const VmFolder& folder, bool force, const Follow& follow) {
  auto lock = folder.lock();
  if (!lock) return std::unexpected(lock.error());
  if (folder.alive()) {
    if (!force) {
      return fail("machine {} is running; stop it first with: caisson stop {}, or use rm --force", folder.name(),
                  folder.name());
    }
    if (auto done = end_now(folder, follow); !done) return done;
  }
  auto store = Store::open();
  if (!store) return std::unexpected(store.error());
  return store->remove(folder, *lock);
}

Result<> rename(const VmFolder& folder, const std::string& to) {
  const auto lock = folder.lock();
  if (!lock) return std::unexpected(lock.error());
  auto store = Store::open();
  if (!store) return std::unexpected(store.error());
  return store->rename(folder, *lock, to);
}

Result<> apply(const Change& change, store::VmSpec& spec) {
  if (auto done = apply_limits(change, spec); !done) return done;
  const auto put = [](const auto& given, auto& member) {
    if (given) member = *given;
  };
  put(change.cpus, spec.cpus);
  put(change.memory_bytes, spec.memory_bytes);
  put(change.forwards, spec.forwards);
  put(change.append, spec.append);
  put(change.engine, spec.engine);
  put(change.cpu_model, spec.cpu_model);
  put(change.net, spec.net);
  if (spec.net == control::NetKind::None && !change.net_limit) spec.net_limit.reset();
  put(change.display, spec.display);
  put(change.graphics, spec.graphics);
  put(change.tablet, spec.tablet);
  put(change.net_card, spec.net_card);
  put(change.balloon, spec.balloon);
  put(change.vsock, spec.vsock);
  put(change.vnc, spec.vnc);
  put(change.vnc_password_file, spec.vnc_password_file);
  put(change.keyboard_layout, spec.keyboard_layout);
  put(change.serial2, spec.serial2);
  put(change.no_reboot, spec.no_reboot);
  put(change.debug_exit, spec.debug_exit);
  put(change.autostart, spec.autostart);
  put(change.stop_timeout_s, spec.stop_timeout_s);
  return {};
}

Result<bool> set(const VmFolder& folder, const Change& change) {
  const auto lock = folder.lock();
  if (!lock) return std::unexpected(lock.error());
  auto spec = folder.spec();
  if (!spec) return std::unexpected(spec.error());
  const store::VmSpec before = *spec;
  store::VmSpec limited = *spec;
  if (auto done = apply_limits(change, limited); !done) return std::unexpected(done.error());
  if (auto done = apply(change, *spec); !done) return std::unexpected(done.error());
  const bool alive = folder.alive();
  const auto live = live_limits(change, *spec);
  if (change.memory_now_bytes && !alive) {
    return fail("machine {} is not running; the memory that it starts with is changed by --memory", folder.name());
  }
  if (alive && live) {
    // First where it can fail.
    if (auto ok = spec->validate(); !ok) return std::unexpected(ok.error());
    if (auto told = tell_limits(folder, *live, *spec, before); !told) return std::unexpected(told.error());
  }
  if (auto saved = folder.save(*spec); !saved) return std::unexpected(saved.error());
  return alive && *spec != limited;
}

ConsoleText console_text(const VmFolder& folder, std::optional<unsigned> lines) {
  constexpr size_t most = 8 << 20;
  const auto old = read_file(folder.file(VmFolder::old_console_log), most);
  const auto now = read_file(folder.file(VmFolder::console_log), most);
  std::string text = (old ? *old : "") + (now ? *now : "");
  return {lines ? last_lines(text, *lines) : std::move(text), now ? now->size() : 0};
}

}  // namespace caisson::life
