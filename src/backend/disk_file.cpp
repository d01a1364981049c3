#include "backend/disk_file.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <span>
#include <string_view>

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "backend/qcow2/header.h"
#include "base/log.h"

namespace caisson {
namespace {

constexpr uint64_t sector = 512;

// Image formats with a header: taken for raw, a guest would find garbage and might overwrite it.
struct Format {
  std::string_view magic;
  std::string_view name;
};
constexpr std::array other_formats{
    Format{"KDMV", "VMDK"},
    Format{"vhdxfile", "VHDX"},
};

// Sets the format, by what is said before what is there.
Result<> check_format(DiskFile& disk, std::optional<DiskFormat> given) {
  const auto said = given ? given : format_by_name(disk.path);
  disk.format = said.value_or(DiskFormat::Raw);
  if (said == DiskFormat::Raw) return {};
  std::array<char, 8> bytes{};
  const ssize_t size = ::pread(disk.fd.get(), bytes.data(), bytes.size(), 0);
  const std::string_view start{bytes.data(), static_cast<size_t>(std::max<ssize_t>(size, 0))};
  const bool is_qcow2 = qcow2::has_magic(std::span{reinterpret_cast<const uint8_t*>(start.data()), start.size()});
  if (said == DiskFormat::Qcow2) {
    if (!is_qcow2) {
      return fail("disk {}: is no qcow2 image; if it is a raw one say so with '--disk {},format=raw'", disk.path,
                  disk.path);
    }
    if (disk.block_device) return fail("disk {}: qcow2 images on block devices cannot be used; give a file", disk.path);
    return {};
  }
  if (is_qcow2) {
    return fail("disk {}: begins as a qcow2 image does; say what it is with '--disk {},format=qcow2' or format=raw",
                disk.path, disk.path);
  }
  for (const Format& format : other_formats) {
    if (start.starts_with(format.magic)) {
      return fail("disk {}: this is a {} image; convert it with 'caisson disk convert {} NEW.qcow2'", disk.path,
                  format.name, disk.path);
    }
  }
  return {};
}

Result<> lock(const DiskFile& disk) {
  struct flock region {};
  region.l_type = static_cast<short>(disk.read_only ? F_RDLCK : F_WRLCK);
  region.l_whence = SEEK_SET;  // length 0: to the end, wherever that is
  if (::fcntl(disk.fd.get(), F_OFD_SETLK, &region) == 0) return {};
  if (errno == EAGAIN || errno == EACCES) {
    return fail(
        "disk {}: in use by another virtual machine; stop that one first, or give it to both read-only with "
        "'--disk {},ro'",
        disk.path, disk.path);
  }
  // Some network file systems have no locks: no reason to refuse the disk.
  log::warning("disk {}: the file system cannot lock it ({}); do not use it in two machines at once", disk.path,
               std::strerror(errno));
  return {};
}

std::unexpected<Error> cannot_open(int error, const std::string& path, bool read_only) {
  switch (error) {
    case ENOENT:
      return fail("disk {}: no such file; check the path, or make an empty disk with 'truncate -s 8G {}'", path, path);
    case EACCES:
    case EPERM:
    case EROFS:
      if (!read_only && ::access(path.c_str(), R_OK) == 0) {
        return fail(
            "disk {}: may be read but not written; use it read-only with '--disk {},ro', or change its permissions",
            path, path);
      }
      return fail("disk {}: no permission to {} it; change its permissions", path, read_only ? "read" : "use");
    case EISDIR: return fail("disk {}: is a directory; give an image file or a block device", path);
    case ETXTBSY: return fail("disk {}: is being run as a program; give a copy of it", path);
    default: return fail_errno(error, "cannot open disk " + path);
  }
}

}  // namespace

Result<DiskFile> open_disk(const std::string& path, bool read_only, std::optional<DiskFormat> format, bool unlocked) {
  DiskFile disk;
  disk.path = path;
  disk.read_only = read_only;
  // O_NONBLOCK so that a named pipe or a device cannot hold us up.
  disk.fd = Fd{::open(path.c_str(), (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)};
  if (!disk.fd.valid()) return cannot_open(errno, path, read_only);

  struct stat status {};
  if (::fstat(disk.fd.get(), &status) != 0) return fail_errno(errno, "cannot read the size of disk " + path);
  if (S_ISDIR(status.st_mode)) return cannot_open(EISDIR, path, read_only);
  disk.block_device = S_ISBLK(status.st_mode);
  if (disk.block_device) {
    if (::ioctl(disk.fd.get(), BLKGETSIZE64, &disk.size) != 0) {
      return fail_errno(errno, "cannot read the size of disk " + path);
    }
    int device_is_read_only = 0;
    if (!read_only && ::ioctl(disk.fd.get(), BLKROGET, &device_is_read_only) == 0 && device_is_read_only != 0) {
      return fail("disk {}: the device is read-only; use it with '--disk {},ro'", path, path);
    }
  } else if (S_ISREG(status.st_mode)) {
    disk.size = static_cast<uint64_t>(status.st_size);
  } else {
    return fail("disk {}: is neither a file nor a block device; give one of these", path);
  }
  if (disk.size < sector) {
    return fail(
        "disk {}: has {} bytes, less than one sector; it may be truncated; make a disk with 'truncate -s 8G {}'", path,
        disk.size, path);
  }
  // io_uring would hand EAGAIN to us instead of waiting for the disk.
  const int flags = ::fcntl(disk.fd.get(), F_GETFL);
  if (flags < 0 || ::fcntl(disk.fd.get(), F_SETFL, flags & ~O_NONBLOCK) != 0) {
    return fail_errno(errno, "cannot set up disk " + path);
  }
  if (!unlocked) {
    if (auto done = lock(disk); !done) return std::unexpected(done.error());
  }
  if (auto done = check_format(disk, format); !done) return std::unexpected(done.error());
  return disk;
}

}  // namespace caisson
