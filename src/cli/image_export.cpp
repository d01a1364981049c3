#include "cli/image_export.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <span>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/disk_chain.h"
#include "backend/qcow2/file_io.h"
#include "base/utc.h"
#include "base/write_all.h"
#include "cli/disk_copy.h"
#include "cli/transfer_progress.h"
#include "life/new_file.h"
#include "life/tar.h"
#include "store/files.h"

namespace caisson::cli {
namespace {

Result<> copy_to_qcow2(const std::string& disk, Fd to, const std::string& name, bool json) {
  auto chain = open_chain(disk, {.read_only = true, .format = DiskFormat::Raw});
  if (!chain) return std::unexpected(chain.error());
  auto source = assemble(std::move(*chain));
  if (!source) return std::unexpected(source.error());
  TransferProgress progress{"exporting", json};
  return copy_disk(**source, std::move(to), name,
                   {.progress = [&](uint64_t done, uint64_t all) { progress.update(done, all); }});
}

std::string_view as_text(std::span<const uint8_t> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// One file into the archive, padded to whole blocks.
Result<> pack(int archive, const char* name, const std::string& path) {
  const Fd from{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  struct stat status {};
  if (!from.valid() || ::fstat(from.get(), &status) != 0) return fail_errno(errno, "cannot open " + path);
  const auto size = static_cast<uint64_t>(status.st_size);
  int error = write_all(archive, as_text(life::tar_header(name, size, utc_ms() / 1000)));
  std::vector<uint8_t> bytes(1 << 20);
  for (uint64_t done = 0; error == 0 && done < size;) {
    const auto length = static_cast<size_t>(std::min<uint64_t>(bytes.size(), size - done));
    error = qcow2::read_at(from.get(), done, {bytes.data(), length});
    if (error == 0) error = write_all(archive, as_text({bytes.data(), length}));
    done += length;
  }
  constexpr life::TarBlock zeroes{};
  if (error == 0 && size % life::tar_block != 0) {
    error = write_all(archive, as_text({zeroes.data(), life::tar_block - size % life::tar_block}));
  }
  if (error != 0) return fail_errno(error, std::string{"cannot pack "} + name);
  return {};
}

Result<> pack_all(const life::Manifest& manifest, const std::string& image, const life::NewFile& file, bool json) {
  // The disk as qcow2 has no holes, which not every tar keeps.
  auto disk = life::NewFile::make(file.temporary() + ".disk", true);
  if (!disk) return std::unexpected(disk.error());
  if (auto ok = copy_to_qcow2(image + "/" + life::disk_file, disk->take_fd(), disk->temporary(), json); !ok) return ok;
  const int archive = file.fd().get();
  if (auto ok = pack(archive, life::manifest_file, image + "/" + life::manifest_file); !ok) return ok;
  for (const char* name : {life::kernel_file, life::initrd_file}) {
    if (!manifest.files.contains(name)) continue;
    if (auto ok = pack(archive, name, image + "/" + name); !ok) return ok;
  }
  if (auto ok = pack(archive, "disk.qcow2", disk->temporary()); !ok) return ok;
  constexpr std::array<uint8_t, 2 * life::tar_block> end{};
  if (const int error = write_all(archive, as_text(end))) return fail_errno(error, "cannot write the archive");
  if (::fsync(archive) != 0) return fail_errno(errno, "cannot sync the archive");
  return {};
}

}  // namespace

Result<> check_export(const std::string& file) {
  if (file.ends_with(".qcow2") || file.ends_with(".tar")) return {};
  return fail("{}: end the name in .qcow2 for the disk alone, or in .tar for all that caisson image import takes",
              file);
}

Result<> export_image(const life::ImageName& name, const std::string& file, const ExportOptions& options) {
  if (auto ok = check_export(file); !ok) return ok;
  auto images = life::images_folder();
  if (!images) return std::unexpected(images.error());
  auto manifest = life::manifest_of(name);
  if (!manifest) return std::unexpected(manifest.error());
  const std::string folder = *images + "/" + name.folder();
  auto lock = life::lock_file(folder + ".lock", "image " + name.text(), nullptr);
  if (!lock) return std::unexpected(lock.error());
  manifest = life::manifest_of(name);
  if (!manifest) return std::unexpected(manifest.error());
  auto made = life::NewFile::make(file, options.force);
  if (!made) return std::unexpected(made.error());
  Result<> done = file.ends_with(".tar")
                      ? pack_all(*manifest, folder, *made, options.json)
                      : copy_to_qcow2(folder + "/" + life::disk_file, made->take_fd(), made->temporary(), options.json);
  if (done) done = made->finish();
  if (!done) return with_context(file, done.error());
  return {};
}

}  // namespace caisson::cli
