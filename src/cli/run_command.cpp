#include "cli/run_command.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <optional>
#include <string>
#include <vector>

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <nlohmann/json.hpp>

#include "backend/disk_chain.h"
#include "base/log.h"
#include "base/tsc_reading.h"
#include "cli/exit_status.h"
#include "cli/image_build.h"
#include "cli/image_store.h"
#include "cli/screen_command.h"
#include "cli/session.h"
#include "cli/vmm_process.h"
#include "control/messages.h"
#include "kvm/device.h"
#include "store/files.h"

namespace caisson::cli {
namespace {

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

// <data>/caisson/vms/<name>: a machine that keeps its disk between runs.
struct VmFolder {
  Fd lock;  // as long as the machine runs
  std::string path;
};

Result<VmFolder> open_vm_folder(const std::string& name, const ImageName& image) {
  auto data = data_folder();
  if (!data) return std::unexpected(data.error());
  VmFolder folder;
  folder.path = *data + "/vms/" + name;
  if (auto ok = make_folders(folder.path); !ok) return std::unexpected(ok.error());
  auto lock = lock_file(folder.path + "/lock", false, "machine " + name);
  if (!lock) return fail("machine {} is running already; stop it first, or start another one with --name", name);
  folder.lock = std::move(*lock);
  const std::string disk = folder.path + "/" + disk_file;
  if (::access(disk.c_str(), F_OK) == 0) return folder;

  auto base = build_image(image, {});
  if (!base) return std::unexpected(base.error());
  // The disk last: a folder with a disk is whole.
  for (const char* file : {kernel_file, initrd_file, disk_file}) {
    if (auto ok = copy_sparse(*base + "/" + file, folder.path + "/" + file); !ok) return std::unexpected(ok.error());
  }
  return folder;
}

// The configuration and the descriptors it counts.
struct Machine {
  control::VmConfig config;
  std::vector<Fd> fds;
  std::optional<VmFolder> folder;

  uint32_t add(Fd fd) {
    fds.push_back(std::move(fd));
    return static_cast<uint32_t>(fds.size() - 1);
  }
};

// A path for messages: short enough, and with nothing that could break a line.
std::string label(std::string path) {
  if (path.size() > control::VmConfig::max_label) path.erase(0, path.size() - control::VmConfig::max_label);
  for (char& c : path) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return path;
}

// /dev/kvm for the VMM, which opens nothing by path. Without it only --engine kvm fails.
Result<> add_kvm(Machine& machine) {
  if (machine.config.engine == control::EngineChoice::Jit) return {};
  auto device = kvm::open_device();
  if (device) {
    machine.config.kvm_fd = machine.add(std::move(*device));
    return {};
  }
  if (machine.config.engine == control::EngineChoice::Kvm) return with_context("--engine kvm", device.error());
  machine.config.kvm_missing = device.error().message.substr(0, control::VmConfig::max_reason);
  return {};
}

// Firmware as Debian's packages install it.
Result<> add_firmware(Machine& machine, const RunOptions& options) {
  constexpr const char* bios = "/usr/share/seabios/bios-256k.bin";
  auto image = open_input("firmware", bios);
  if (!image) return fail("{}; install the package seabios", image.error().message);
  machine.config.firmware_fd = machine.add(std::move(*image));
  machine.config.firmware_label = label(std::string{"firmware "} + bios);
  auto vga = open_input("VGA BIOS", "/usr/share/seabios/vgabios-stdvga.bin");
  if (!vga) return fail("{}; install the package seabios", vga.error().message);
  machine.config.vga_bios_fd = machine.add(std::move(*vga));
  if (!options.firmware_log.empty()) {
    Fd file{::open(options.firmware_log.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)};
    if (!file.valid()) return fail_errno(errno, "--firmware-log " + options.firmware_log);
    machine.config.firmware_log_fd = machine.add(std::move(file));
  }
  return {};
}

// A disc's file systems say so in the volume structures from its 17th block on (ECMA-119, 8.1; ECMA-167 2/9.1.2).
Result<> check_disc(const DiskFile& file) {
  constexpr off_t first = 16 * 2048;
  char identifier[6] = {};
  if (::pread(file.fd.get(), identifier, 6, first) == 6) {
    const std::string_view text{identifier + 1, 5};
    if (text == "CD001" || text == "BEA01" || text == "CDROM") return {};
  }
  return fail("--cdrom {}: not an image of a disc, it has neither an ISO 9660 nor a UDF file system", file.path);
}

std::expected<Machine, Failure> prepare(RunOptions& options) {
  const auto usage = [](const Error& error) { return std::unexpected(Failure{error, exit_usage}); };
  const auto failure = [](const Error& error) { return std::unexpected(Failure{error, exit_failure}); };

  Machine machine;
  std::optional<ImageName> image;
  if (!options.target.empty()) {
    auto name = parse_image_name(options.target);
    if (!name) return usage(name.error());
    image = *name;
    if (options.name.empty()) options.name = options.target == "debian" ? "debian" : name->folder();
    if (!options.firmware.empty()) return usage(Error{"--firmware starts what is on --disk; leave out the image"});
  } else if (options.kernel.empty() && options.firmware.empty()) {
    return usage(Error{"nothing to run; write caisson run debian, caisson run --kernel FILE or --firmware bios"});
  }
  auto config = to_config(options, image ? "root=/dev/vda rw" : "");
  if (!config) return usage(config.error());
  machine.config = *config;
  std::vector<DiskOption> disks;
  for (const auto& text : options.disks) {
    auto disk = parse_disk(text);
    if (!disk) return usage(disk.error());
    disks.push_back(*disk);
  }
  for (const auto& path : options.cdroms) {
    disks.push_back({path, true, DiskFormat::Raw, control::DiskBus::Cdrom});
  }
  const auto sata =
      std::ranges::count_if(disks, [](const DiskOption& disk) { return disk.bus != control::DiskBus::Virtio; });
  if (sata > static_cast<std::ptrdiff_t>(control::VmConfig::max_sata)) {
    return usage(Error{fmt::format("--disk, --cdrom: {} on the Serial ATA controller, which has {} ports", sata,
                                   control::VmConfig::max_sata)});
  }
  if (image) {
    if (disks.size() == control::VmConfig::max_disks) return usage(Error{"--disk: too many disks"});
    auto folder = open_vm_folder(machine.config.name, *image);
    if (!folder) return failure(folder.error());
    machine.folder = std::move(*folder);
    disks.insert(disks.begin(), DiskOption{machine.folder->path + "/" + disk_file, false, DiskFormat::Raw});
    // With a kernel of the user's own the image's initrd, made for another version, is of no use.
    if (options.kernel.empty()) {
      options.kernel = machine.folder->path + "/" + kernel_file;
      if (options.initrd.empty()) options.initrd = machine.folder->path + "/" + initrd_file;
    }
  }

  if (machine.config.firmware != control::FirmwareKind::None) {
    if (auto added = add_firmware(machine, options); !added) return failure(added.error());
  } else {
    auto kernel = open_input("kernel", options.kernel);
    if (!kernel) return failure(kernel.error());
    machine.config.kernel_fd = machine.add(std::move(*kernel));
    machine.config.kernel_label = label("kernel " + options.kernel);
  }
  if (!options.initrd.empty()) {
    auto initrd = open_input("initrd", options.initrd);
    if (!initrd) return failure(initrd.error());
    machine.config.initrd_fd = machine.add(std::move(*initrd));
    machine.config.initrd_label = label("initrd " + options.initrd);
  }
  for (size_t i = 0; i < disks.size(); ++i) {
    auto chain = open_chain(disks[i].path, {.read_only = disks[i].read_only,
                                            .format = disks[i].format,
                                            .backing_folders = backing_folders(options.backing_folders)});
    if (!chain) return failure(chain.error());
    if (disks[i].bus == control::DiskBus::Cdrom) {
      if (auto ok = check_disc(chain->front()); !ok) return failure(ok.error());
    }
    if (machine.fds.size() + chain->size() + 4 > control::Channel::max_fds) {
      return failure(
          Error{"--disk: the disks have too many backing files together; join some with 'caisson disk convert'"});
    }
    control::DiskConfig disk;
    for (size_t layer = 0; layer < chain->size(); ++layer) {
      DiskFile& file = (*chain)[layer];
      const auto format = file.format == DiskFormat::Raw ? control::DiskImage::Raw : control::DiskImage::Qcow2;
      const uint32_t number = machine.add(std::move(file.fd));
      if (layer == 0) {
        disk.image_fd = number;
        disk.format = format;
        disk.label = label(disks[i].path);
      } else {
        disk.backing.push_back({number, format, label(file.path)});
      }
    }
    disk.bus = disks[i].bus;
    disk.read_only = disks[i].read_only;
    disk.serial = fmt::format("caisson-{}", i);
    machine.config.disks.push_back(std::move(disk));
  }
  if (!options.control.empty()) {
    auto listener = listen_for_requests(options.control);
    if (!listener) return failure(listener.error());
    machine.config.control_fd = machine.add(std::move(*listener));
  }
  if (auto added = add_kvm(machine); !added) return failure(added.error());
  if (!options.dump_blocks.empty()) {
    Fd file{::open(options.dump_blocks.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)};
    if (!file.valid()) return failure(fail_errno(errno, "--dump-blocks " + options.dump_blocks).error());
    machine.config.dump_fd = machine.add(std::move(file));
  }
  return machine;
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
    case ExitReason::PowerOff: return exit_ok;
    case ExitReason::Panic: tell("the guest ended after its kernel's panic"); return exit_panic;
    case ExitReason::Reset: tell("the guest reset itself"); return exit_reset;
    case ExitReason::DebugExit:
      tell(fmt::format("the guest ended with debug-exit code {}", exited.code));
      return debug_exit_status(exited.code);
    case ExitReason::Stopped: tell("the guest was stopped"); return exit_stopped;
    case ExitReason::Failure: break;
  }
  if (!options.json)
    log::error("{}", exited.message.empty() ? "caisson-vmm failed without saying why" : exited.message);
  return exit_failure;
}

}  // namespace

int run(RunOptions options) {
  const TscReading before = read_tsc();
  auto machine = prepare(options);
  if (!machine) return report(options, machine.error());
  const auto program = vmm_program();
  if (!program) return report(options, {program.error()});

  block_session_signals();
  auto vmm = VmmProcess::start(*program);
  if (!vmm) return report(options, {vmm.error()});
  machine->config.tsc_before = before.tsc;
  machine->config.tsc_before_ns = before.ns;
  machine->config.console_fd = machine->add(std::move(vmm->guest_console));
  std::vector<int> numbers;
  for (const auto& fd : machine->fds) numbers.push_back(fd.get());
  const control::Request start = control::Start{machine->config};
  if (const auto sent = vmm->link.channel.send(control::serialise(start), numbers); !sent) {
    return report(options, {sent.error()});
  }
  // From here on the VMM alone holds the disks and their locks.
  machine->fds.clear();

  Session::Settings settings;
  settings.stop_timeout_s = options.stop_timeout;
  settings.json = options.json;
  settings.kill = [&process = vmm->process] { process.kill(); };
  Session session{std::move(vmm->link), std::move(settings), STDIN_FILENO, STDOUT_FILENO};
  const SessionEnd end = session.run();
  const auto status = vmm->process.wait();
  if (!options.control.empty()) ::unlink(options.control.c_str());
  if (!end.exited) return report_silent_end(options, status);
  return report_end(options, *end.exited);
}

}  // namespace caisson::cli
