#include "cli/image_import.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <optional>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/disk_chain.h"
#include "backend/qcow2/file_io.h"
#include "base/utc.h"
#include "base/write_all.h"
#include "cli/disk_copy.h"
#include "cli/foreign_image.h"
#include "cli/image_store.h"
#include "cli/transfer_progress.h"
#include "control/vm_config.h"
#include "life/disk_boot.h"
#include "life/new_folder.h"
#include "life/tar.h"
#include "store/files.h"

namespace caisson::cli {
namespace {

constexpr std::string_view tar_format = "tar";
constexpr const char* packed_disk = "disk.qcow2";    // in an archive
constexpr uint64_t most_kernel = uint64_t{1} << 30;  // bytes, of a kernel or initramfs in an archive

// A new, empty file of the folder.
Result<Fd> make_file(const std::string& path) {
  Fd fd{::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600)};
  if (!fd.valid()) return fail_errno(errno, "cannot make " + path);
  return fd;
}

Result<> copy_to_raw(const std::string& from, std::optional<DiskFormat> format, const std::string& to, bool json) {
  auto chain = open_chain(from, {.read_only = true, .format = format, .backing_folders = backing_folders({})});
  if (!chain) return std::unexpected(chain.error());
  auto disk = assemble(std::move(*chain));
  if (!disk) return std::unexpected(disk.error());
  auto file = make_file(to);
  if (!file) return std::unexpected(file.error());
  TransferProgress progress{"importing", json};
  return copy_disk(
      **disk, std::move(*file), to,
      {.format = DiskFormat::Raw, .progress = [&](uint64_t done, uint64_t all) { progress.update(done, all); }});
}

Result<> import_disk(const std::string& file, const ImportOptions& options, const life::NewFolder& folder) {
  const std::string disk = folder.file(life::disk_file);
  const auto foreign = options.format.empty() ? foreign_format_by_name(file) : foreign_format_named(options.format);
  if (!foreign) return copy_to_raw(file, format_named(options.format), disk, options.json);
  struct stat status {};
  if (::stat(file.c_str(), &status) != 0) return fail_errno(errno, "cannot open " + file);
  if (auto made = make_file(disk); !made) return std::unexpected(made.error());
  TransferProgress progress{"importing", options.json};
  const auto bytes = static_cast<uint64_t>(status.st_size);
  return convert_foreign(file, *foreign, disk, "raw", [&](double part) {
    progress.update(static_cast<uint64_t>(part * static_cast<double>(bytes)), bytes);
  });
}

Result<life::BootBy> boot_of(const std::string& file, const ImportOptions& options, const std::string& disk) {
  if (!options.kernel.empty()) return life::BootBy::Kernel;
  if (!options.firmware.empty()) return *life::boot_by_named(options.firmware);
  const Fd fd{::open(disk.c_str(), O_RDONLY | O_CLOEXEC)};
  if (!fd.valid()) return fail_errno(errno, "cannot open " + disk);
  const auto boot = life::boot_of_disk([&](uint64_t offset, std::span<uint8_t> bytes) {
    return ::pread(fd.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset)) ==
           static_cast<ssize_t>(bytes.size());
  });
  if (boot) return *boot;
  return fail("{}: no boot loader is on this disk; give its kernel with --kernel, or say --firmware bios or uefi",
              file);
}

// Sizes and sums of what is in the folder.
Result<> add_files(life::Manifest& manifest, const life::NewFolder& folder) {
  for (const char* name : {life::disk_file, life::kernel_file, life::initrd_file}) {
    struct stat status {};
    if (::stat(folder.file(name).c_str(), &status) != 0) continue;
    auto sum = sha256_file(folder.file(name));
    if (!sum) return std::unexpected(sum.error());
    manifest.files[name] = {static_cast<uint64_t>(status.st_size), *sum};
  }
  return {};
}

// One entry of an archive into a file.
Result<> unpack_entry(int archive, uint64_t offset, uint64_t size, const std::string& to, TransferProgress& progress,
                      uint64_t total) {
  auto file = make_file(to);
  if (!file) return std::unexpected(file.error());
  std::vector<uint8_t> bytes(1 << 20);
  for (uint64_t done = 0; done < size;) {
    const auto length = static_cast<size_t>(std::min<uint64_t>(bytes.size(), size - done));
    if (const int error = qcow2::read_at(archive, offset + done, {bytes.data(), length})) {
      return fail_errno(error, "cannot read the archive");
    }
    const std::string_view text{reinterpret_cast<const char*>(bytes.data()), length};
    if (const int error = write_all(file->get(), text)) return fail_errno(error, "cannot write " + to);
    done += length;
    progress.update(offset + done, total);
  }
  return {};
}

// All of an exported image. Returns the manifest that came with it, whose sums hold.
Result<life::Manifest> unpack(const std::string& path, const ImportOptions& options, const life::NewFolder& folder) {
  const auto archive = open_input("image", path);
  if (!archive) return std::unexpected(archive.error());
  struct stat status {};
  if (::fstat(archive->get(), &status) != 0) return fail_errno(errno, "cannot read " + path);
  const auto total = static_cast<uint64_t>(status.st_size);
  const auto damaged = [&](std::string_view why) { return fail("image {}: {}", path, why); };
  std::optional<life::Manifest> manifest;
  {
    TransferProgress progress{"unpacking", options.json};
    std::array<bool, 4> seen{};
    const std::array<std::string_view, 4> names{life::manifest_file, life::kernel_file, life::initrd_file, packed_disk};
    for (uint64_t offset = 0;;) {
      life::TarBlock block;
      if (offset + life::tar_block > total || qcow2::read_at(archive->get(), offset, block) != 0) {
        return damaged("the archive is cut off; get it again");
      }
      offset += life::tar_block;
      const auto entry = life::parse_tar_header(block);
      if (!entry) return damaged(entry.error().message);
      if (!*entry) break;
      const auto& [name, size] = **entry;
      if (name.empty()) continue;
      const auto known = std::ranges::find(names, name);
      if (known == names.end())
        return damaged(fmt::format("holds no image: there is a file {} in it", name.substr(0, 80)));
      if (std::exchange(seen[static_cast<size_t>(known - names.begin())], true)) return damaged("it has a file twice");
      if (size > total - offset) return damaged("the archive is cut off; get it again");
      const uint64_t most = name == life::manifest_file ? life::Manifest::max_size
                            : name == packed_disk       ? total
                                                        : most_kernel;
      if (size > most) return damaged(fmt::format("{} is too large", name));
      if (auto ok = unpack_entry(archive->get(), offset, size, folder.file(name), progress, total); !ok) {
        return std::unexpected(ok.error());
      }
      offset += (size + life::tar_block - 1) / life::tar_block * life::tar_block;
    }
  }
  const auto text = read_file(folder.file(life::manifest_file), life::Manifest::max_size);
  if (!text) return damaged("there is no manifest.json in it");
  auto parsed = life::parse_manifest(*text);
  if (!parsed) return damaged(parsed.error().message);
  if (auto ok = copy_to_raw(folder.file(packed_disk), DiskFormat::Qcow2, folder.file(life::disk_file), options.json);
      !ok) {
    return damaged(ok.error().message);
  }
  ::unlink(folder.file(packed_disk).c_str());
  const auto said = std::exchange(parsed->files, {});
  if (auto ok = add_files(*parsed, folder); !ok) return std::unexpected(ok.error());
  for (const auto& [name, file] : parsed->files) {
    const auto found = said.find(name);
    if (found == said.end() || found->second.size != file.size || found->second.sha256 != file.sha256) {
      return damaged(fmt::format("{} is not what its manifest says; get the archive again", name));
    }
  }
  if (parsed->boot == life::BootBy::Kernel && !parsed->files.contains(life::kernel_file)) {
    return damaged("there is no kernel in it");
  }
  return std::move(*parsed);
}

Result<life::Manifest> gather(const std::string& file, const ImportOptions& options, const life::NewFolder& folder) {
  life::Manifest manifest;
  if (auto ok = import_disk(file, options, folder); !ok) return std::unexpected(ok.error());
  const auto boot = boot_of(file, options, folder.file(life::disk_file));
  if (!boot) return std::unexpected(boot.error());
  manifest.boot = *boot;
  manifest.append = options.append;
  for (const auto& [given, what, name] : {std::tuple{&options.kernel, "--kernel", life::kernel_file},
                                          std::tuple{&options.initrd, "--initrd", life::initrd_file}}) {
    if (given->empty()) continue;
    if (auto ok = open_input(what, *given); !ok) return std::unexpected(ok.error());
    if (auto ok = copy_sparse(*given, folder.file(name)); !ok) return std::unexpected(ok.error());
  }
  if (auto ok = add_files(manifest, folder); !ok) return std::unexpected(ok.error());
  return manifest;
}

}  // namespace

Error with_remedy(Error error) {
  // A download's, by another program, is without the remedy.
  if (error.message.ends_with(std::strerror(ENOSPC)) || error.message.ends_with(std::strerror(EDQUOT)))
    error.message += "; make room there";
  if (error.message.ends_with("make room there")) error.message += ", or set XDG_CACHE_HOME to where there is some";
  return error;
}

Result<> check_import(const ImportOptions& options) {
  if (!options.firmware.empty()) {
    const auto boot = life::boot_by_named(options.firmware);
    if (!boot || *boot == life::BootBy::Kernel)
      return fail("--firmware {}: unknown; write bios or uefi", options.firmware);
    if (!options.kernel.empty()) return fail("--firmware starts what is on the disk; leave out that or --kernel");
  }
  if (options.kernel.empty() && (!options.initrd.empty() || !options.append.empty())) {
    return fail("--initrd and --append go with a --kernel");
  }
  if (options.append.size() > control::VmConfig::max_append) {
    return fail("--append: at most {} bytes", control::VmConfig::max_append);
  }
  const bool known = options.format.empty() || options.format == tar_format || format_named(options.format) ||
                     foreign_format_named(options.format);
  if (!known) return fail("--format {}: no such format; write raw, qcow2, vmdk, vhdx, vdi or tar", options.format);
  if (options.format == tar_format && (!options.kernel.empty() || !options.firmware.empty())) {
    return fail("--kernel, --firmware: an archive says itself how its image starts");
  }
  return {};
}

Result<> check_replaced(const life::ImageName& name, bool force) {
  const auto present = life::find_image(name);
  if (!present) return std::unexpected(present.error());
  if (*present && !force) {
    return fail("there is an image {} already; choose another name, or --force to replace it", name.text());
  }
  if (const auto machines = life::machines_of(name); *present && !machines.empty()) {
    return fail("image {} is what the disk of machine {} is based on, and cannot be replaced; remove that first",
                name.text(), machines.front());
  }
  return {};
}

Result<std::string> import_image(const life::ImageName& name, const std::string& file, const ImportOptions& options) {
  if (auto ok = check_import(options); !ok) return std::unexpected(ok.error());
  const bool archive = options.format.empty() ? file.ends_with(".tar") : options.format == tar_format;
  if (archive && (!options.kernel.empty() || !options.firmware.empty())) {
    return fail("--kernel, --firmware: an archive says itself how its image starts");
  }
  auto images = life::images_folder();
  if (!images) return images;
  if (auto ok = make_folders(*images); !ok) return std::unexpected(with_remedy(ok.error()));
  life::sweep_new_folders();
  auto lock = life::lock_file(*images + "/" + name.folder() + ".lock", "image " + name.text(), nullptr);
  if (!lock) return std::unexpected(lock.error());
  if (auto ok = check_replaced(name, options.force); !ok) return std::unexpected(ok.error());
  auto folder = life::NewFolder::make(name);
  if (!folder) return std::unexpected(with_remedy(folder.error()));
  auto manifest = archive ? unpack(file, options, *folder) : gather(file, options, *folder);
  if (!manifest) return std::unexpected(with_remedy(manifest.error()));
  manifest->image = name.text();
  manifest->built = utc_text(utc_ms());
  std::error_code error;
  manifest->source = options.source.empty() ? std::filesystem::absolute(file, error).string() : options.source;
  if (auto ok = write_file(folder->file(life::manifest_file), life::to_json_text(*manifest)); !ok) {
    return std::unexpected(with_remedy(ok.error()));
  }
  auto placed = folder->finish();
  if (!placed) return std::unexpected(with_remedy(placed.error()));
  return placed;
}

}  // namespace caisson::cli
