#include "life/machine_files.h"

#include <algorithm>
#include <cerrno>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "backend/disk_chain.h"
#include "control/channel.h"
#include "kvm/device.h"
#include "life/firmware_files.h"
#include "life/ssh_key.h"
#include "life/vnc_socket.h"
#include "store/files.h"

namespace caisson::life {
namespace {

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

Result<> add_files(Machine& machine, const std::string& path, const store::DiskSpec& spec,
                   const ChainOptions& options) {
  auto chain = open_chain(path, options);
  if (!chain) return std::unexpected(chain.error());
  // Some are needed for what every machine has.
  if (machine.fds.size() + chain->size() + 11 > control::Channel::max_fds) {
    return fail("--disk: the disks have too many backing files together; join some with 'caisson disk convert'");
  }
  if (spec.bus == control::DiskBus::Cdrom) {
    if (auto ok = check_disc(chain->front()); !ok) return ok;
  }
  control::DiskConfig disk;
  disk.bus = spec.bus;
  for (size_t layer = 0; layer < chain->size(); ++layer) {
    DiskFile& file = (*chain)[layer];
    const auto format = file.format == DiskFormat::Raw ? control::DiskImage::Raw : control::DiskImage::Qcow2;
    const uint32_t number = machine.add(std::move(file.fd));
    if (layer == 0) {
      disk.image_fd = number;
      disk.format = format;
      disk.label = label(path);
    } else {
      disk.backing.push_back({number, format, label(file.path)});
    }
  }
  disk.read_only = spec.read_only;
  disk.limit = spec.limit;
  disk.serial = fmt::format("caisson-{}", machine.config.disks.size());
  machine.config.disks.push_back(std::move(disk));
  return {};
}

// What stands at the path says what is meant: who has a terminal program listen on a socket wants both ways, all else
// is a log, which a restart goes on with.
Result<> add_serial2(Machine& machine, const std::string& path) {
  const auto failed = [&](int error) { return fail_errno(error, "--serial2 " + path); };
  struct stat info {};
  const bool there = ::stat(path.c_str(), &info) == 0;
  Fd fd;
  if (there && S_ISSOCK(info.st_mode)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path) return failed(ENAMETOOLONG);
    std::ranges::copy(path, address.sun_path);
    fd = Fd{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    if (!fd.valid()) return failed(errno);
    if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
      return fail("--serial2 {}: nobody listens on this socket; start what is to listen first, or remove it", path);
    }
  } else if (there && S_ISCHR(info.st_mode)) {
    fd = Fd{::open(path.c_str(), O_RDWR | O_NOCTTY | O_CLOEXEC)};
  } else if (there && !S_ISREG(info.st_mode)) {
    return fail("--serial2 {}: write a file, a socket that listens, or a terminal", path);
  } else {
    fd = Fd{::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644)};
  }
  if (!fd.valid()) return failed(errno);
  machine.config.serial2_fd = machine.add(std::move(fd));
  machine.config.serial2_label = label("--serial2 " + path);
  return {};
}

std::string place_of(const std::string& path, const std::string& folder) {
  return path.find('/') == std::string::npos ? folder + "/" + path : path;
}

// What a machine's configuration in the store and the one that its VMM gets have both.
template <class From, class To>
void copy_common(const From& from, To& to) {
  to.append = from.append;
  to.firmware = from.firmware;
  to.cpus = from.cpus;
  to.memory_bytes = from.memory_bytes;
  to.cpu_model = from.cpu_model;
  to.engine = from.engine;
  to.net = from.net;
  to.net_card = from.net_card;
  to.forwards = from.forwards;
  to.net_limit = from.net_limit;
  to.cpu_cap_percent = from.cpu_cap_percent;
  to.cpu_share = from.cpu_share;
  to.balloon = from.balloon;
  to.vsock = from.vsock;
  to.boot_first = from.boot_first;
  to.display = from.display;
  to.graphics = from.graphics;
  to.tablet = from.tablet;
  to.keyboard_layout = from.keyboard_layout;
  to.no_reboot = from.no_reboot;
  to.debug_exit = from.debug_exit;
}

}  // namespace

std::string label(std::string path) {
  if (path.size() > control::VmConfig::max_label) path.erase(0, path.size() - control::VmConfig::max_label);
  for (char& c : path) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return path;
}

store::VmSpec to_spec(const control::VmConfig& config) {
  store::VmSpec spec;
  copy_common(config, spec);
  return spec;
}

control::VmConfig to_config(const store::VmSpec& spec, const std::string& name) {
  control::VmConfig config;
  config.name = name;
  copy_common(spec, config);
  return config;
}

Result<> add_disk(Machine& machine, const store::VmSpec& spec, const store::DiskSpec& disk, const std::string& folder) {
  return add_files(machine, place_of(disk.path, folder), disk,
                   {.read_only = disk.read_only,
                    .format = format_named(disk.format),
                    .backing_folders = backing_folders(spec.backing_folders)});
}

Result<Machine> open_machine(const store::VmSpec& spec, control::VmConfig config, const std::string& folder) {
  Machine machine;
  machine.config = std::move(config);
  const auto in_folder = [&](const std::string& path) { return place_of(path, folder); };
  if (spec.firmware != control::FirmwareKind::None) {
    const std::string vars = !spec.firmware_vars.empty() ? in_folder(spec.firmware_vars)
                             : folder.empty()            ? ""
                                                         : in_folder(firmware_vars_file);
    if (auto added = add_firmware(machine, spec.firmware, vars); !added) return std::unexpected(added.error());
  } else {
    auto kernel = open_input("kernel", in_folder(spec.kernel));
    if (!kernel) return std::unexpected(kernel.error());
    machine.config.kernel_fd = machine.add(std::move(*kernel));
    machine.config.kernel_label = label("kernel " + spec.kernel);
  }
  if (!spec.initrd.empty()) {
    auto initrd = open_input("initrd", in_folder(spec.initrd));
    if (!initrd) return std::unexpected(initrd.error());
    machine.config.initrd_fd = machine.add(std::move(*initrd));
    machine.config.initrd_label = label("initrd " + spec.initrd);
  }
  if (!spec.serial2.empty()) {
    if (auto added = add_serial2(machine, spec.serial2); !added) return std::unexpected(added.error());
  }
  for (const store::DiskSpec& disk : spec.disks) {
    if (auto added = add_disk(machine, spec, disk, folder); !added) return std::unexpected(added.error());
  }
  if (!spec.vnc.empty()) {
    if (auto added = add_vnc(machine, spec, folder); !added) return std::unexpected(added.error());
  }
  if (!spec.image.empty()) {
    machine.config.vsock = true;  // for the agent that the image has
    add_name(machine.config);
    add_ssh(machine.config);
  }
  if (auto added = add_kvm(machine); !added) return std::unexpected(added.error());
  return machine;
}

}  // namespace caisson::life
