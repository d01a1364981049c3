#include "life/firmware_files.h"

#include <cerrno>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/files.h"

namespace caisson::life {
namespace {

constexpr const char* bios_image = "/usr/share/seabios/bios-256k.bin";
constexpr const char* vga_bios_image = "/usr/share/seabios/vgabios-stdvga.bin";
// Without SMM, which this machine does not have.
constexpr const char* uefi_image = "/usr/share/OVMF/OVMF_CODE_4M.fd";
constexpr const char* uefi_template = "/usr/share/OVMF/OVMF_VARS_4M.fd";
constexpr size_t most_vars = size_t{4} << 20;

Result<Fd> open_installed(const char* what, const char* path, const char* package) {
  auto file = open_input(what, path);
  if (!file) return fail("{}; install the package {}", file.error().message, package);
  return file;
}

// Whole, or an error that leaves the file empty.
Result<> fill(int fd, const std::string& path, std::string_view content) {
  for (size_t done = 0; done < content.size();) {
    const ssize_t now = ::pwrite(fd, content.data() + done, content.size() - done, static_cast<off_t>(done));
    if (now < 0 && errno == EINTR) continue;
    if (now < 0) {
      const int error = errno;
      (void)::ftruncate(fd, 0);
      return fail_errno(error, "firmware variables " + path);
    }
    done += static_cast<size_t>(now);
  }
  return {};
}

Result<Fd> open_vars(const std::string& path, std::string_view content) {
  if (path.empty()) {
    Fd file{::memfd_create("caisson-firmware-vars", MFD_CLOEXEC)};
    if (!file.valid()) return fail_errno(errno, "firmware variables");
    if (auto done = fill(file.get(), "in memory", content); !done) return std::unexpected(done.error());
    return file;
  }
  // O_NONBLOCK so that a named pipe cannot hold us up.
  Fd file{::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0644)};
  if (!file.valid()) return fail_errno(errno, "--firmware-vars " + path);
  struct flock whole {};
  whole.l_type = F_WRLCK;
  whole.l_whence = SEEK_SET;
  if (::fcntl(file.get(), F_OFD_SETLK, &whole) != 0 && (errno == EAGAIN || errno == EACCES)) {
    return fail("--firmware-vars {}: in use by another virtual machine; stop that one first, or give another file",
                path);
  }
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) return fail_errno(errno, "--firmware-vars " + path);
  if (!S_ISREG(status.st_mode)) return fail("--firmware-vars {}: not a file", path);
  if (status.st_size == 0) {
    if (auto done = fill(file.get(), path, content); !done) return std::unexpected(done.error());
  } else if (static_cast<size_t>(status.st_size) != content.size()) {
    return fail(
        "--firmware-vars {}: has {} bytes where this firmware's variables take {}; give a file of this firmware, "
        "or one that is not there yet",
        path, status.st_size, content.size());
  }
  return file;
}

}  // namespace

Result<> add_firmware(Machine& machine, control::FirmwareKind kind, const std::string& vars) {
  const bool uefi = kind == control::FirmwareKind::Uefi;
  const char* path = uefi ? uefi_image : bios_image;
  auto image = open_installed("firmware", path, uefi ? "ovmf" : "seabios");
  if (!image) return std::unexpected(image.error());
  machine.config.firmware_fd = machine.add(std::move(*image));
  machine.config.firmware_label = label(std::string{"firmware "} + path);
  if (uefi) {
    const auto content = read_file(uefi_template, most_vars);
    if (!content) return fail("{}; install the package ovmf", content.error().message);
    auto file = open_vars(vars, *content);
    if (!file) return std::unexpected(file.error());
    machine.config.firmware_vars_fd = machine.add(std::move(*file));
    machine.config.firmware_vars_label = label("firmware variables " + vars);
  }
  auto vga = open_installed("VGA BIOS", vga_bios_image, "seabios");
  if (!vga) return std::unexpected(vga.error());
  machine.config.vga_bios_fd = machine.add(std::move(*vga));
  return {};
}

}  // namespace caisson::life
