#include "life/launch.h"

#include "store/cpu_group.h"

namespace caisson::life {
namespace {

// What ties the VMM to the machine's folder.
Result<> add_folder(Machine& machine, const store::VmFolder& folder, bool detached) {
  using store::VmFolder;
  auto life = folder.take_life();
  if (!life) return std::unexpected(life.error());
  if (!*life) return fail("machine {} is running already; caisson ps shows it", folder.name());
  machine.config.alive_fd = machine.add(std::move(**life));
  store::remove_cpu_group(folder, 1000);  // of the life before
  auto control = folder.bind_control();
  if (!control) return std::unexpected(control.error());
  machine.config.listen_fd = machine.add(std::move(*control));
  auto events = folder.open_events();
  if (!events) return std::unexpected(events.error());
  machine.config.events_fd = machine.add(std::move(*events));
  auto log = folder.open_log(VmFolder::console_log);
  if (!log) return std::unexpected(log.error());
  auto old_log = folder.open_log(VmFolder::old_console_log);
  if (!old_log) return std::unexpected(old_log.error());
  machine.config.log_fd = machine.add(std::move(*log));
  machine.config.old_log_fd = machine.add(std::move(*old_log));
  machine.config.detached = detached;
  return {};
}

// Where it can be; else the VMM keeps its limits itself.
bool limit_by_group(const store::VmFolder& folder, const control::VmConfig& config, pid_t process) {
  const store::CpuLimit limit{config.cpu_cap_percent, config.cpu_share};
  if (limit.none()) return false;
  const auto place = store::find_cpu_groups();
  return place && store::limit_by_cpu_group(folder, *place, process, limit);
}

std::vector<control::Event> first_events(control::Channel& channel) {
  std::vector<control::Event> events;
  for (;;) {
    auto packet = channel.receive();
    if (!packet || !*packet) return events;
    auto event = control::parse_event((*packet)->text);
    if (!event) continue;
    events.push_back(std::move(*event));
    const control::Event& last = events.back();
    if (std::holds_alternative<control::Started>(last) || std::holds_alternative<control::Exited>(last)) return events;
  }
}

}  // namespace

Result<Launch> launch(Machine machine, const store::VmFolder* folder, bool detached, const TscReading& before) {
  const auto program = vmm_program();
  if (!program) return std::unexpected(program.error());
  Fd log;
  if (folder != nullptr) {
    if (auto added = add_folder(machine, *folder, detached); !added) return std::unexpected(added.error());
    if (detached) {
      auto opened = folder->open_log(store::VmFolder::vmm_log);
      if (!opened) return std::unexpected(opened.error());
      log = std::move(*opened);
    }
  }
  auto vmm = VmmProcess::start(*program, log.valid() ? &log : nullptr);
  if (!vmm) return std::unexpected(vmm.error());
  if (folder != nullptr) machine.config.cpu_group = limit_by_group(*folder, machine.config, vmm->process.pid());
  machine.config.tsc_before = before.tsc;
  machine.config.tsc_before_ns = before.ns;
  machine.config.console_fd = machine.add(std::move(vmm->guest_console));
  std::vector<int> numbers;
  for (const auto& fd : machine.fds) numbers.push_back(fd.get());
  const control::Request start = control::Start{machine.config};
  if (const auto sent = vmm->link.channel.send(control::serialise(start), numbers); !sent) {
    return std::unexpected(sent.error());
  }
  // From here on the VMM alone holds the disks, their locks, and its life.
  machine.fds.clear();
  if (detached) vmm->link.console.reset();
  Launch done{std::move(vmm->process), std::move(vmm->link), {}};
  done.events = first_events(done.link.channel);
  return done;
}

Result<pid_t> leave_running(Launch launch, const std::string& name) {
  const bool said = !launch.events.empty();
  if (said && std::holds_alternative<control::Started>(launch.events.back())) {
    const pid_t process = launch.process.pid();
    launch.process.release();
    return process;
  }
  if (said) {
    if (const auto* exited = std::get_if<control::Exited>(&launch.events.back())) return fail("{}", exited->message);
  }
  return fail("machine {}: caisson-vmm ended without saying why; its folder's vmm.log may tell", name);
}

Result<pid_t> start_locked(const store::VmFolder& folder, const TscReading& before) {
  auto spec = folder.spec();
  if (!spec) return std::unexpected(spec.error());
  if (folder.alive()) return fail("machine {} is running already; caisson ps shows it", folder.name());
  auto machine = open_machine(*spec, to_config(*spec, folder.name()), folder.path());
  if (!machine) return with_context("machine " + folder.name(), machine.error());
  auto launched = launch(std::move(*machine), &folder, true, before);
  if (!launched) return std::unexpected(launched.error());
  auto process = leave_running(std::move(*launched), folder.name());
  if (!process) return with_context("machine " + folder.name(), process.error());
  return process;
}

Result<pid_t> start_machine(const store::VmFolder& folder, const TscReading& before) {
  const auto lock = folder.lock();
  if (!lock) return std::unexpected(lock.error());
  return start_locked(folder, before);
}

}  // namespace caisson::life
