#include "cli/run_command.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <csignal>
#include <ctime>
#include <optional>
#include <string>
#include <vector>

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "base/tsc_reading.h"
#include "base/utc.h"
#include "cli/exit_status.h"
#include "cli/image_build.h"
#include "cli/image_pull.h"
#include "cli/limit_options.h"
#include "cli/screen_command.h"
#include "cli/session.h"
#include "life/creation.h"
#include "life/host.h"
#include "life/images.h"
#include "life/launch.h"
#include "life/limits.h"
#include "life/machines.h"
#include "store/files.h"
#include "store/store.h"

namespace caisson::cli {
namespace {

using store::VmSpec;

// The error and the exit status that goes with it.
struct Failure {
  Error error;
  int status = exit_failure;
};

int report(const RunOptions& options, const Failure& failure) {
  if (options.json) {
    const nlohmann::json line{
        {"type", "exited"}, {"reason", "failure"}, {"code", 0}, {"message", failure.error.message}};
    fmt::print(stderr, "{}\n", line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  } else {
    log::error("{}", failure.error.message);
  }
  return failure.status;
}

// Against this process's current folder.
std::string absolute(const std::string& path) {
  if (path.empty() || path.front() == '/') return path;
  std::array<char, PATH_MAX> folder{};
  if (::getcwd(folder.data(), folder.size()) == nullptr) return path;
  return std::string{folder.data()} + "/" + path;
}

// What was given takes the place of what the machine has; the rest stays.
life::Change change_of(const RunOptions& options, const VmSpec& given,
                       const std::vector<control::DiskLimit>& disk_limits) {
  life::Change change;
  if (!options.cpus.empty()) change.cpus = given.cpus;
  if (!options.memory.empty()) change.memory_bytes = given.memory_bytes;
  if (!options.forwards.empty()) change.forwards = given.forwards;
  if (!options.append.empty()) change.append = given.append;
  if (options.engine != "auto") change.engine = given.engine;
  if (options.cpu_model != "auto") change.cpu_model = given.cpu_model;
  if (given.net == control::NetKind::None) change.net = given.net, change.forwards = given.forwards;
  if (options.net.find("model=") != std::string::npos) change.net_card = given.net_card;
  if (given.net_limit) change.net_limit = given.net_limit;
  if (options.net_limit == "none") change.net_limit.emplace();
  change.disk_limits = disk_limits;
  if (!options.cpu_cap.empty()) change.cpu_cap_percent = given.cpu_cap_percent;
  if (!options.cpu_share.empty()) change.cpu_share = given.cpu_share;
  change.balloon = options.balloon;
  if (options.vsock) change.vsock = true;
  if (options.display || options.tablet == "usb" || options.graphics == "virtio") change.display = true;
  if (!options.graphics.empty()) change.graphics = given.graphics;
  if (!options.tablet.empty()) change.tablet = given.tablet;
  if (!options.vnc.empty()) change.vnc = options.vnc == "none" ? "" : options.vnc;
  if (!options.vnc_password_file.empty()) change.vnc_password_file = absolute(options.vnc_password_file);
  if (!options.keyboard_layout.empty()) change.keyboard_layout = given.keyboard_layout;
  if (!options.serial2.empty()) change.serial2 = given.serial2;
  if (options.no_reboot) change.no_reboot = true;
  if (options.debug_exit) change.debug_exit = true;
  if (options.autostart) change.autostart = true;
  return change;
}

Result<std::vector<control::DiskLimit>> parse_disk_limits(const RunOptions& options) {
  std::vector<control::DiskLimit> limits;
  for (const std::string& text : options.disk_limits) {
    auto limit = parse_disk_limit(text);
    if (!limit) return std::unexpected(limit.error());
    limits.push_back(std::move(*limit));
  }
  return limits;
}

// What the command line says.
struct Wish {
  VmSpec spec;
  control::VmConfig config;  // with what is for debugging
  std::optional<life::ImageName> image;
  std::optional<life::Seed> seed{};
  std::vector<control::DiskLimit> disk_limits{};
};

// An image that is not here, where the catalogue says how to get it.
std::expected<void, Failure> get_image(const life::ImageName& name, bool json, bool dry_run) {
  const auto here = life::find_image(name);
  if (here && *here) return {};
  const auto entry = life::catalogue_entry(name);
  if (!entry) return std::unexpected(Failure{entry.error(), exit_usage});
  if (dry_run) {
    return std::unexpected(Failure{
        Error{fmt::format("would get image {} from {} first; what follows depends on it", entry->name, entry->url)},
        exit_ok});
  }
  const auto folder = pull_image(*entry, {.json = json});
  if (!folder) return std::unexpected(Failure{folder.error()});
  return {};
}

std::expected<Wish, Failure> parse(RunOptions& options, bool kept) {
  const auto usage = [](const Error& error) { return std::unexpected(Failure{error, exit_usage}); };
  Wish wish;
  if (auto taken = take_file(options); !taken) return usage(taken.error());
  if (!options.target.empty()) {
    auto name = life::parse_image_name(options.target);
    if (!name) return usage(name.error());
    wish.image = *name;
    if (options.name.empty()) options.name = options.target == "debian" ? "debian" : name->folder();
    if (!options.firmware.empty()) return usage(Error{"--firmware starts what is on --disk; leave out the image"});
    if (!name->built_here()) {
      if (auto got = get_image(*name, options.json, options.dry_run); !got) return std::unexpected(got.error());
      const auto manifest = life::manifest_of(*name);
      if (!manifest) return usage(manifest.error());
      if (manifest->boot != life::BootBy::Kernel && options.kernel.empty()) options.firmware = name_of(manifest->boot);
    }
  } else if (options.kernel.empty() && options.firmware.empty()) {
    return usage(Error{"nothing to run; write caisson run debian, caisson run --kernel FILE, --firmware bios or uefi"});
  }
  auto config = to_config(options, wish.image ? life::default_append(wish.image->text()) : "");
  if (!config) return usage(config.error());
  if (options.name.empty()) config->name = options.name = fmt::format("vm-{}", ::getpid());
  wish.config = *config;
  wish.spec = life::to_spec(*config);
  wish.spec.created_ms = utc_ms();
  wish.spec.kernel = absolute(options.kernel);
  wish.spec.initrd = absolute(options.initrd);
  wish.spec.serial2 = absolute(options.serial2);
  wish.spec.firmware_vars = absolute(options.firmware_vars);
  wish.spec.vnc = options.vnc == "none" ? "" : options.vnc;
  wish.spec.vnc_password_file = absolute(options.vnc_password_file);
  wish.spec.stop_timeout_s = options.stop_timeout;
  wish.spec.autostart = options.autostart;
  wish.spec.transient = !wish.image && !kept;
  for (const auto& folder : options.backing_folders) wish.spec.backing_folders.push_back(absolute(folder));
  for (const auto& text : options.disks) {
    auto disk = parse_disk(text);
    if (!disk) return usage(disk.error());
    wish.spec.disks.push_back(to_spec(*disk));
  }
  for (const auto& path : options.cdroms) {
    wish.spec.disks.push_back({absolute(path), true, "raw", control::DiskBus::Cdrom});
  }
  const auto sata =
      std::ranges::count_if(wish.spec.disks, [](const store::DiskSpec& disk) { return control::is_sata(disk.bus); });
  if (sata > static_cast<std::ptrdiff_t>(control::VmConfig::max_sata)) {
    return usage(Error{fmt::format("--disk, --cdrom: {} on the Serial ATA controller, which has {} ports", sata,
                                   control::VmConfig::max_sata)});
  }
  const auto sticks = std::ranges::count(wish.spec.disks, control::DiskBus::Usb, &store::DiskSpec::bus);
  if (sticks > static_cast<std::ptrdiff_t>(control::VmConfig::max_usb)) {
    return usage(
        Error{fmt::format("--disk: {} USB sticks, at most {} are possible", sticks, control::VmConfig::max_usb)});
  }
  auto limits = parse_disk_limits(options);
  if (!limits) return usage(limits.error());
  wish.disk_limits = std::move(*limits);
  if (!wish.image) {
    auto ok = life::apply_disk_limits(std::exchange(wish.disk_limits, {}), wish.spec);
    if (!ok) return usage(Error{"--disk-limit: " + ok.error().message});
  }
  auto seed = to_seed(options);
  if (!seed) return usage(seed.error());
  wish.seed = std::move(*seed);
  if (wish.image && options.disks.size() == control::VmConfig::max_disks) return usage(Error{"--disk: too many disks"});
  return wish;
}

// The machine in the store, with its lock: made now, or for an image the one that is there. The spec is in it.
Result<store::Store::Draft> place(const store::Store& store, Wish& wish, const RunOptions& options, bool may_exist) {
  const std::string& name = wish.config.name;
  if (store.has(name) && may_exist) {
    auto folder = store::VmFolder::open(store.path() + "/" + name, name);
    if (!folder) return std::unexpected(folder.error());
    auto lock = folder->lock();
    if (!lock) return std::unexpected(lock.error());
    if (folder->alive())
      return fail("machine {} is running already; stop it first, or start another one with --name", name);
    if (wish.seed) {
      return fail("machine {} is there already, and cloud-init acts at a first start only; choose another --name",
                  name);
    }
    if (folder->has_spec()) {
      auto spec = folder->spec();
      if (!spec) return std::unexpected(spec.error());
      if (spec->image != wish.image->text()) {
        return fail("there is a machine {} already, and it is not made from {}; choose another --name", name,
                    wish.image->text());
      }
      const auto change = change_of(options, wish.spec, wish.disk_limits);
      if (auto ok = life::apply(change, *spec); !ok) return std::unexpected(ok.error());
      wish.spec = *spec;
    } else if (::access(folder->file(life::disk_file).c_str(), F_OK) == 0) {
      // Of a version that kept no configuration.
      wish.spec.image = wish.image->text();
      if (wish.spec.kernel.empty()) wish.spec.kernel = life::kernel_file, wish.spec.initrd = life::initrd_file;
      wish.spec.disks.insert(wish.spec.disks.begin(), {life::disk_file, false, "raw"});
    } else {
      return fail("{} is there, but holds no machine; remove it, or choose another --name", folder->path());
    }
    if (auto saved = folder->save(wish.spec); !saved) return std::unexpected(saved.error());
    return store::Store::Draft{std::move(*folder), std::move(*lock)};
  }
  // Before a long build rather than after.
  if (auto ok = life::check_new(store, name); !ok) return std::unexpected(ok.error());
  if (wish.image && wish.image->built_here()) {
    if (auto built = build_image(*wish.image, {}); !built) return std::unexpected(built.error());
  }
  const life::Follow follow{[](std::string_view text) { log::line(log::Level::Info, text); }, {}};
  auto made = life::create(store, {name, wish.spec, wish.image, wish.seed, wish.disk_limits}, follow);
  if (!made) return std::unexpected(made.error());
  wish.spec = std::move(made->spec);
  return std::move(made->draft);
}

// A file that the VMM writes to, made or emptied; `option` begins the error.
Result<uint32_t> add_output(life::Machine& machine, const std::string& path, const char* option) {
  Fd file{::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)};
  if (!file.valid()) return fail_errno(errno, std::string{option} + " " + path);
  return machine.add(std::move(file));
}

// What only this run has.
Result<> add_run_only(life::Machine& machine, const RunOptions& options, const control::VmConfig& given) {
  control::VmConfig& config = machine.config;
  config.jit_off = given.jit_off;
  config.lockstep = given.lockstep;
  config.profile = given.profile;
  config.dump_at = given.dump_at;
  const auto add = [&](const std::string& path, const char* option, std::optional<uint32_t>& index) -> Result<> {
    if (path.empty()) return {};
    auto number = add_output(machine, path, option);
    if (!number) return std::unexpected(number.error());
    index = *number;
    return {};
  };
  if (auto ok = add(options.firmware_log, "--firmware-log", config.firmware_log_fd); !ok) return ok;
  if (auto ok = add(options.dump_blocks, "--dump-blocks", config.dump_fd); !ok) return ok;
  if (options.control.empty()) return {};
  auto listener = listen_for_requests(options.control);
  if (!listener) return std::unexpected(listener.error());
  config.control_fd = machine.add(std::move(*listener));
  return {};
}

// A machine that goes with its run.
void forget(const store::Store& store, const store::VmFolder& folder) {
  // Its process is about to end, or has.
  if (!folder.wait_for_end(2000)) return;
  const auto lock = folder.try_lock();
  if (lock && *lock) (void)store.remove(folder, **lock);
}

// How a VMM ended that has not said so itself.
int report_silent_end(const RunOptions& options, std::optional<int> status) {
  if (status && WIFSIGNALED(*status)) {
    const int signal = WTERMSIG(*status);
    if (signal == SIGKILL || signal == SIGTERM || signal == SIGINT || signal == SIGHUP) {
      return report(options, {Error{fmt::format("caisson-vmm was killed (signal {})", signal)}, exit_stopped});
    }
    return report(
        options,
        {Error{fmt::format("caisson-vmm crashed (signal {}); please report this with what it printed", signal)}});
  }
  return report(
      options,
      {Error{fmt::format("caisson-vmm ended with status {} without saying why", status ? WEXITSTATUS(*status) : -1)}});
}

int report_end(const RunOptions& options, const control::Exited& exited) {
  using control::ExitReason;
  // As JSON the event itself was printed.
  const auto tell = [&](std::string_view text) {
    if (!options.json) fmt::print(stderr, "caisson: {}\n", text);
  };
  switch (exited.reason) {
    case ExitReason::PowerOff: break;
    case ExitReason::Panic: tell("the guest ended after its kernel's panic"); break;
    case ExitReason::Reset: tell("the guest reset itself"); break;
    case ExitReason::DebugExit: tell(fmt::format("the guest ended with debug-exit code {}", exited.code)); break;
    case ExitReason::Stopped: tell("the guest was stopped"); break;
    case ExitReason::Failure:
      if (!options.json)
        log::error("{}", exited.message.empty() ? "caisson-vmm failed without saying why" : exited.message);
      break;
  }
  return exit_status_of(exited);
}

// --dry-run: what would be got, made and started.
int tell(const RunOptions& options, const Wish& wish, bool starts) {
  const auto store = store::Store::open();
  if (!store) return report(options, {store.error()});
  const std::string& name = wish.config.name;
  const bool there = store->has(name);
  VmSpec spec = wish.spec;
  if (there && (!starts || !wish.image)) return report(options, {life::check_new(*store, name).error()});
  if (there) {
    const auto folder = store->find(name);
    const auto had = folder ? folder->spec() : std::unexpected(folder.error());
    if (!had) return report(options, {had.error()});
    if (folder->alive()) return report(options, {Error{"machine " + name + " is running already"}});
    if (wish.seed)
      return report(options,
                    {Error{"machine " + name + " is there already, and cloud-init acts at a first start only"}});
    spec = *had;
    const auto change = change_of(options, wish.spec, wish.disk_limits);
    if (auto ok = life::apply(change, spec); !ok) return report(options, {ok.error()});
  } else if (wish.image) {
    const auto here = life::find_image(*wish.image);
    if (here && !*here) fmt::print("would build image {}\n", wish.image->text());
    spec.image = wish.image->text();
  }
  for (const store::DiskSpec& disk : spec.disks) {
    if (disk.path.front() == '/' && ::access(disk.path.c_str(), F_OK) != 0) {
      return report(options, {fail_errno(errno, "--disk " + disk.path).error()});
    }
  }
  for (const auto& [what, file] : {std::pair{"kernel ", &wish.spec.kernel}, std::pair{"initrd ", &wish.spec.initrd}}) {
    if (!file->empty() && ::access(file->c_str(), R_OK) != 0) {
      return report(options, {fail_errno(errno, what + *file).error()});
    }
  }
  fmt::print("would {} {}{}\n{}",
             there    ? "start"
             : starts ? "make and start"
                      : "make",
             name, wish.seed ? ", with a disk for cloud-init" : "", spec.serialise());
  return exit_ok;
}

// One that is no failure is what --dry-run says.
int report_parse(const RunOptions& options, const Failure& failure) {
  if (failure.status != exit_ok) return report(options, failure);
  fmt::print("{}\n", failure.error.message);
  return exit_ok;
}

}  // namespace

int run(RunOptions options) {
  const TscReading before = read_tsc();
  auto wish = parse(options, options.detached && !options.remove);
  if (!wish) return report_parse(options, wish.error());
  if (options.dry_run) return tell(options, *wish, true);
  const auto fail_with = [&](const Error& error) { return report(options, {error}); };

  auto store = store::Store::open();
  std::optional<store::Store::Draft> place_of;
  const bool existed = store && store->has(wish->config.name);
  if (store) {
    auto placed = place(*store, *wish, options, wish->image.has_value());
    if (placed) {
      place_of = std::move(*placed);
    } else if (!wish->spec.transient || store->has(wish->config.name)) {
      return fail_with(placed.error());
    }
  } else if (!wish->spec.transient || options.detached) {
    return fail_with(store.error());
  }
  // A run in the foreground needs no folder; without one nobody else finds the machine.
  const store::VmFolder* const folder = place_of ? &place_of->folder : nullptr;
  if (folder == nullptr && wish->seed)
    return fail_with(Error{"no place for the machine's folder, where cloud-init's disk goes"});
  if (folder == nullptr && options.detached) return fail_with(Error{"no place for the machine's folder"});
  const auto launched = [&]() -> Result<life::Launch> {
    auto machine =
        life::open_machine(wish->spec, life::to_config(wish->spec, wish->config.name), folder ? folder->path() : "");
    if (!machine) return std::unexpected(machine.error());
    if (auto added = add_run_only(*machine, options, wish->config); !added) return std::unexpected(added.error());
    block_session_signals();
    return life::launch(std::move(*machine), folder, options.detached, before);
  };
  auto launch = launched();
  // What cannot start is not kept, where this command has made it.
  const bool goes = folder != nullptr && wish->spec.transient;
  const bool goes_unstarted = folder != nullptr && !existed;
  if (options.detached) {
    const auto running =
        launch ? life::leave_running(std::move(*launch), wish->config.name) : std::unexpected(launch.error());
    if (running) {
      fmt::print("{}\n", wish->config.name);
      return exit_ok;
    }
    place_of->lock.reset();
    if (goes_unstarted) forget(*store, *folder);
    return fail_with(running.error());
  }
  if (place_of) place_of->lock.reset();
  if (!launch) {
    if (goes_unstarted) forget(*store, *folder);
    return fail_with(launch.error());
  }

  Session::Settings settings;
  settings.stop_timeout_s = options.stop_timeout;
  settings.json = options.json;
  settings.kill = [&process = launch->process] { process.kill(); };
  settings.said = std::move(launch->events);
  Session session{std::move(launch->link), std::move(settings), STDIN_FILENO, STDOUT_FILENO};
  const SessionEnd end = session.run();
  const auto status = launch->process.wait();
  if (!options.control.empty()) ::unlink(options.control.c_str());
  if (goes) forget(*store, *folder);
  if (folder != nullptr && !goes) life::tidy(*folder);
  if (!end.exited) return report_silent_end(options, status);
  return report_end(options, *end.exited);
}

int set(const RunOptions& options, const SetOptions& more) {
  auto store = store::Store::open();
  if (!store) return report(options, {store.error()});
  auto folder = store->find(options.name);
  if (!folder) return report(options, {folder.error()});
  const auto spec = folder->spec();
  if (!spec) return report(options, {spec.error()});
  RunOptions given = options;
  // Checked against what it will be used with.
  if (spec->firmware != control::FirmwareKind::None) given.firmware = "bios";
  const auto config = to_config(given, life::default_append(spec->image));
  if (!config) return report(options, {config.error(), exit_usage});
  const auto disk_limits = parse_disk_limits(options);
  if (!disk_limits) return report(options, {disk_limits.error(), exit_usage});
  life::Change change = change_of(options, life::to_spec(*config), *disk_limits);
  change.stop_timeout_s = more.stop_timeout_s;
  change.autostart = more.autostart;
  if (!more.memory_now.empty()) {
    const auto now = parse_memory_now(more.memory_now);
    if (!now) return report(options, {now.error(), exit_usage});
    change.memory_now_bytes = *now;
  }
  if (more.dry_run) {
    VmSpec changed = *spec;
    auto ok = life::apply(change, changed);
    if (ok) ok = changed.validate();
    if (ok && change.memory_now_bytes && !folder->alive()) ok = fail("machine {} is not running", options.name);
    if (!ok) return report(options, {ok.error()});
    fmt::print("would change {}\n{}", options.name, changed.serialise());
    return exit_ok;
  }
  const auto runs = life::set(*folder, change);
  if (!runs) return report(options, {runs.error()});
  if (*runs)
    fmt::print(stderr, "caisson: {} runs on; this holds from its next start, but for limits, which hold now\n",
               options.name);
  return exit_ok;
}

int create(RunOptions options) {
  auto wish = parse(options, true);
  if (!wish) return report_parse(options, wish.error());
  if (options.dry_run) return tell(options, *wish, false);
  auto store = store::Store::open();
  if (!store) return report(options, {store.error()});
  auto placed = place(*store, *wish, options, false);
  if (!placed) return report(options, {placed.error()});
  fmt::print("{}\n", wish->config.name);
  return exit_ok;
}

}  // namespace caisson::cli
