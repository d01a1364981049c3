#include "cli/disk_command.h"

#include <bit>
#include <cerrno>
#include <cstdio>
#include <string>
#include <vector>

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>
#include <CLI/CLI.hpp>

#include "backend/disk_chain.h"
#include "backend/qcow2/create.h"
#include "backend/qcow2/file_io.h"
#include "cli/disk_copy.h"
#include "cli/disk_report.h"
#include "cli/exit_status.h"
#include "cli/foreign_image.h"
#include "cli/run_options.h"
#include "cli/transfer_progress.h"
#include "life/devices.h"
#include "life/new_file.h"
#include "store/files.h"

namespace caisson::cli {

struct DiskCommand {
  CLI::App* create = nullptr;
  CLI::App* info = nullptr;
  CLI::App* check = nullptr;
  CLI::App* resize = nullptr;
  CLI::App* convert = nullptr;
  CLI::App* map = nullptr;

  std::string path;
  std::string to;
  std::string size;
  std::string format;
  std::string from_format;
  std::string backing;
  std::string backing_format;
  std::string cluster_size = "64K";
  unsigned refcount_bits = 16;
  unsigned version = 3;
  std::string snapshot;
  std::vector<std::string> backing_folders;
  bool json = false;
  bool repair = false;
  bool force = false;
  bool shrink = false;
  bool dry_run = false;
};

namespace {

Result<std::optional<DiskFormat>> given_format(const std::string& name) {
  if (name.empty()) return std::nullopt;
  const auto format = format_named(name);
  if (!format) return fail("no such format: {}; write raw or qcow2", name);
  return format;
}

// Of a new image: as given, or by its name.
Result<std::string> new_format(const DiskCommand& command, const std::string& path) {
  if (!command.format.empty()) {
    if (format_named(command.format) || foreign_format_named(command.format)) return command.format;
    return fail("--format {}: no such format; write raw, qcow2, vmdk, vhdx or vdi", command.format);
  }
  if (const auto format = format_by_name(path)) return std::string{name_of(*format)};
  if (const auto format = foreign_format_by_name(path)) return std::string{*format};
  return fail("{}: its name says no format; add --format raw or --format qcow2", path);
}

Result<unsigned> cluster_bits(const std::string& text) {
  const auto bytes = parse_disk_size("--cluster-size", text);
  if (!bytes || !std::has_single_bit(*bytes) || *bytes < 512 || *bytes > (uint64_t{2} << 20)) {
    return fail("--cluster-size {}: clusters have 512 bytes to 2M, a power of two", text);
  }
  return static_cast<unsigned>(std::countr_zero(*bytes));
}

int fail_with(const DiskCommand& command, const Error& error) {
  return report_disk_error(error, command.json, exit_failure);
}
int misused(const DiskCommand& command, const Error& error) {
  return report_disk_error(error, command.json, exit_usage);
}

ChainOptions reading(const DiskCommand& command, std::optional<DiskFormat> format) {
  return {.read_only = true, .format = format, .backing_folders = backing_folders(command.backing_folders)};
}

std::string folder_prefix(const std::string& path) {
  const auto slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash + 1);
}

// --dry-run: what stands where something would be made, and what that would be.
int say_new(const DiskCommand& command, const std::string& path, std::string_view what) {
  if (!command.force && ::access(path.c_str(), F_OK) == 0)
    return fail_with(command, {path + ": is there already; --force replaces it"});
  fmt::print("would make {}, {}\n", path, what);
  return exit_ok;
}
int say_resize(const DiskCommand& command, uint64_t now, uint64_t then) {
  fmt::print("would make disk {} of {} bytes one of {}\n", command.path, now, then);
  return exit_ok;
}

int run_create(const DiskCommand& command) {
  const auto name = new_format(command, command.path);
  if (!name) return misused(command, name.error());
  const auto format = format_named(*name);
  if (!format) return misused(command, Error{"--format " + *name + ": make a qcow2 image, then convert it"});
  qcow2::CreateOptions options{.version = command.version,
                               .refcount_order = static_cast<unsigned>(std::countr_zero(command.refcount_bits))};
  if (!std::has_single_bit(command.refcount_bits) || options.refcount_order > 6) {
    return misused(command, Error{"--refcount-bits: refcounts have 1, 2, 4, 8, 16, 32 or 64 bits"});
  }
  const auto bits = cluster_bits(command.cluster_size);
  if (!bits) return misused(command, bits.error());
  options.cluster_bits = *bits;
  if (command.size.empty() && command.backing.empty()) {
    return misused(command,
                   Error{"how large shall the disk be? Add a size: caisson disk create " + command.path + " 8G"});
  }
  if (!command.size.empty()) {
    const auto size = parse_disk_size("disk create", command.size);
    if (!size) return misused(command, size.error());
    options.size = *size;
  }
  if (!command.backing.empty()) {
    if (*format == DiskFormat::Raw)
      return misused(command, Error{"--backing: a raw image has no backing file; use --format qcow2"});
    const auto backing_format = given_format(command.backing_format);
    if (!backing_format) return misused(command, backing_format.error());
    // Relative to the image, as it will be found later.
    const std::string path =
        command.backing.starts_with('/') ? command.backing : folder_prefix(command.path) + command.backing;
    auto chain = open_chain(path, reading(command, *backing_format));
    if (!chain) return fail_with(command, chain.error());
    options.backing_file = command.backing;
    options.backing_format = name_of(chain->front().format);
    auto disk = assemble(std::move(*chain));
    if (!disk) return fail_with(command, disk.error());
    if (options.size == 0) options.size = qcow2::round_up((*disk)->size(), 512);
  }
  if (command.dry_run) return say_new(command, command.path, fmt::format("{} of {} bytes", *name, options.size));
  auto file = life::NewFile::make(command.path, command.force);
  if (!file) return fail_with(command, file.error());
  Result<> made;
  if (*format == DiskFormat::Qcow2) {
    made = qcow2::create(file->fd().get(), options);
  } else if (::ftruncate(file->fd().get(), static_cast<off_t>(options.size)) != 0) {
    made = fail_errno(errno, "cannot make an image of that size");
  }
  if (made && !command.backing.empty()) {
    // As a machine will open it: the backing file must be where it may be.
    const auto chain = open_chain(file->temporary(), reading(command, DiskFormat::Qcow2));
    if (!chain) made = std::unexpected(chain.error());
  }
  if (made) made = file->finish();
  if (!made) return fail_with(command, {fmt::format("disk {}: {}", command.path, made.error().message)});
  if (!command.json) return exit_ok;
  return disk_info(command.path, *format, true);
}

int run_resize(const DiskCommand& command) {
  const auto format = given_format(command.format);
  if (!format) return misused(command, format.error());
  const bool relative = command.size.starts_with('+');
  const auto given = parse_disk_size("disk resize", command.size.substr(relative ? 1 : 0));
  if (!given) return misused(command, given.error());
  // A machine that runs has the file to itself; its disk grows there.
  if (const auto user = life::user_of_disk(command.path)) {
    if (command.dry_run) {
      fmt::print("would ask machine {}, which has it, to make its disk {} larger\n", user->name(), command.path);
      return exit_ok;
    }
    if (auto grown = life::grow_disk(*user, command.path, *given, relative); !grown) {
      return fail_with(command, grown.error());
    }
    return exit_ok;
  }
  ChainOptions options{
      .read_only = command.dry_run, .format = *format, .backing_folders = backing_folders(command.backing_folders)};
  auto chain = open_chain(command.path, options);
  if (!chain) return fail_with(command, chain.error());
  const auto target = [&](uint64_t now) { return relative ? now + *given : *given; };
  const auto too_small = [&](uint64_t now) { return target(now) < now && !command.shrink; };
  const Error shrinks{
      fmt::format("disk {}: would become smaller, and what is behind its new end is lost; say --shrink", command.path)};
  const DiskFormat kind = chain->front().format;
  if (kind == DiskFormat::Raw) {
    const DiskFile& file = chain->front();
    if (file.block_device)
      return fail_with(command, {"disk " + command.path + ": is a block device, which has the size it has"});
    if (too_small(file.size)) return misused(command, shrinks);
    if (command.dry_run) return say_resize(command, file.size, target(file.size));
    if (::ftruncate(file.fd.get(), static_cast<off_t>(target(file.size))) != 0 || ::fsync(file.fd.get()) != 0) {
      return fail_with(command, fail_errno(errno, "cannot resize disk " + command.path).error());
    }
  } else if (command.dry_run) {
    auto disk = assemble(std::move(*chain));
    if (!disk) return fail_with(command, disk.error());
    const uint64_t now = (*disk)->size();
    return too_small(now) ? misused(command, shrinks) : say_resize(command, now, target(now));
  } else {
    auto image = assemble_image(std::move(*chain), {});
    if (!image) return fail_with(command, image.error());
    const uint64_t now = (*image)->size();
    if (too_small(now)) return misused(command, shrinks);
    if (const int error = (*image)->resize(target(now))) {
      if (error == ENOTSUP) {
        return fail_with(
            command, {fmt::format("disk {}: its snapshots stand against this; delete them with 'qemu-img snapshot -d'",
                                  command.path)});
      }
      if (error == EFBIG)
        return fail_with(
            command,
            {fmt::format(
                "disk {}: its clusters are too small for a disk of that size; convert it with a larger --cluster-size",
                command.path)});
      return fail_with(command, fail_errno(error, "cannot resize disk " + command.path).error());
    }
  }
  chain->clear();
  return command.json ? disk_info(command.path, kind, true) : exit_ok;
}

// From any format into a raw or a qcow2 image of ours.
Result<> copy_into(const DiskCommand& command, const std::string& from, std::optional<DiskFormat> from_format, Fd to,
                   DiskFormat format) {
  auto chain = open_chain(from, reading(command, from_format));
  if (!chain) return std::unexpected(chain.error());
  auto disk = assemble(std::move(*chain), command.snapshot);
  if (!disk) return std::unexpected(disk.error());
  const auto bits = cluster_bits(command.cluster_size);
  if (!bits) return std::unexpected(bits.error());
  TransferProgress progress{"converting", command.json};
  return copy_disk(**disk, std::move(to), command.to,
                   {.format = format, .cluster_bits = *bits, .progress = [&](uint64_t done, uint64_t total) {
                      progress.update(done, total);
                    }});
}

int run_convert(const DiskCommand& command) {
  const auto to_name = new_format(command, command.to);
  if (!to_name) return misused(command, to_name.error());
  auto foreign_from =
      command.from_format.empty() ? foreign_format_by_name(command.path) : foreign_format_named(command.from_format);
  std::optional<DiskFormat> from;
  if (!foreign_from) {
    const auto format = given_format(command.from_format);
    if (!format) return misused(command, format.error());
    from = *format;
  }
  if (foreign_from && !command.snapshot.empty())
    return misused(command, Error{"--snapshot: only qcow2 images have them here"});
  const auto own_to = format_named(*to_name);
  if (command.dry_run) {
    if (const auto source = open_input("disk", command.path); !source) return fail_with(command, source.error());
    return say_new(command, command.to, fmt::format("{}, of what is in {}", *to_name, command.path));
  }
  auto file = life::NewFile::make(command.to, command.force);
  if (!file) return fail_with(command, file.error());
  Result<> done;
  if (!foreign_from && own_to) {
    done = copy_into(command, command.path, from, file->take_fd(), *own_to);
  } else {
    // By way of a raw image: one side is ours, the other the child's.
    std::string raw = file->temporary();
    std::optional<life::NewFile> between;
    const bool to_raw = own_to == DiskFormat::Raw;
    if (!to_raw) {
      auto made = life::NewFile::make(command.to + ".raw", false);
      if (!made) return fail_with(command, made.error());
      between.emplace(std::move(*made));
      raw = between->temporary();
    }
    const auto child = [&](const std::string& in, std::string_view in_format, const std::string& out,
                           std::string_view out_format) {
      TransferProgress progress{"converting", command.json};
      struct stat status {};
      const uint64_t bytes = ::stat(in.c_str(), &status) == 0 ? static_cast<uint64_t>(status.st_size) : 0;
      return convert_foreign(in, in_format, out, out_format, [&](double part) {
        progress.update(static_cast<uint64_t>(part * static_cast<double>(bytes)), bytes);
      });
    };
    if (foreign_from) {
      done = child(command.path, *foreign_from, raw, "raw");
    } else {
      done = copy_into(command, command.path, from, between->take_fd(), DiskFormat::Raw);
    }
    if (done && !to_raw) {
      done = own_to ? copy_into(command, raw, DiskFormat::Raw, file->take_fd(), *own_to)
                    : child(raw, "raw", file->temporary(), *to_name);
    }
    if (done) done = sync_path(file->temporary());
  }
  if (done) done = file->finish();
  if (!done) return fail_with(command, done.error());
  return command.json && own_to ? disk_info(command.to, *own_to, true) : exit_ok;
}

int run_info(const DiskCommand& command) {
  const auto foreign =
      command.format.empty() ? foreign_format_by_name(command.path) : foreign_format_named(command.format);
  if (foreign) {
    const auto text = foreign_info(command.path, *foreign, command.json);
    if (!text) return fail_with(command, text.error());
    fmt::print("{}", *text);
    return exit_ok;
  }
  const auto format = given_format(command.format);
  if (!format) return misused(command, format.error());
  return disk_info(command.path, *format, command.json);
}

}  // namespace

std::shared_ptr<DiskCommand> add_disk(CLI::App& app) {
  auto command = std::make_shared<DiskCommand>();
  DiskCommand& given = *command;
  auto* disk = app.add_subcommand("disk", "Make, look at, check, resize, convert and map disk images");
  disk->require_subcommand(1);
  disk->footer(
      "Formats: raw and qcow2 by Caisson; VMDK, VHDX and VDI by a confined qemu-img, for convert and info. A file's "
      "format\n"
      "is what its name or --format says, never guessed from what is in it.\n\n"
      "Examples:\n"
      "  caisson disk create disk.qcow2 20G\n"
      "  caisson disk create mine.qcow2 --backing base.qcow2\n"
      "  caisson disk convert appliance.vmdk appliance.qcow2\n"
      "  caisson disk resize disk.qcow2 +10G\n"
      "  caisson disk check disk.qcow2 --repair");
  const auto add = [&](const char* name, const char* what) {
    auto* sub = disk->add_subcommand(name, what);
    sub->add_option("IMAGE", given.path, "the image")->required();
    sub->add_flag("--json", given.json, "as JSON; progress and errors as JSON lines on standard error");
    return sub;
  };
  const auto folders = [&](CLI::App* sub) {
    sub->add_option("--backing-folder", given.backing_folders,
                    "backing files may lie below this folder, as below the image's own; again for more")
        ->type_name("FOLDER")
        ->take_all()
        ->allow_extra_args(false);
  };
  const auto format = [&](CLI::App* sub) {
    sub->add_option("--format", given.format, "raw, qcow2, …; default: as the name says")->type_name("NAME");
  };

  const auto dry = [&](CLI::App* sub) {
    sub->add_flag("--dry-run", given.dry_run, "say what would be done, and whether it could be, and do nothing");
  };

  given.create = add("create", "Make an empty disk, or one that is based on another");
  given.create->add_option("SIZE", given.size, "of the disk, for example 20G; default: that of --backing");
  format(given.create);
  given.create
      ->add_option("--backing", given.backing,
                   "image that the new one is based on; a relative path is seen from the new image")
      ->type_name("FILE");
  given.create->add_option("--backing-format", given.backing_format, "raw or qcow2; default: as its name says")
      ->type_name("NAME");
  given.create->add_option("--cluster-size", given.cluster_size, "of qcow2: 512 to 2M")
      ->type_name("SIZE")
      ->capture_default_str();
  given.create->add_option("--refcount-bits", given.refcount_bits, "of qcow2: 1 to 64")
      ->type_name("N")
      ->capture_default_str();
  given.create->add_option("--qcow2-version", given.version, "2 or 3")->type_name("N")->capture_default_str();
  given.create->add_flag("--force", given.force, "replace a file that is there");
  folders(given.create);
  dry(given.create);

  given.info = add("info", "Say what an image is");
  format(given.info);

  given.check = add("check", "Look for faults in a qcow2 image");
  given.check->add_flag("--repair", given.repair, "mend them");
  dry(given.check);
  format(given.check);
  given.check->footer(
      "Examples:\n  caisson disk check disk.qcow2\n  caisson disk check disk.qcow2 --repair\n\n"
      "Exit status: 0 clean or mended, 1 damaged or not readable, 3 only clusters that are lost.");

  given.resize = add("resize", "Change the size of a disk; in a machine that runs it can grow");
  given.resize->add_option("SIZE", given.size, "the new size, for example 20G, or +5G")->required();
  given.resize->add_flag("--shrink", given.shrink, "even where the disk becomes smaller");
  format(given.resize);
  folders(given.resize);
  dry(given.resize);

  given.convert = add("convert", "Copy a disk into an image of its own, of another format or not");
  given.convert->add_option("TO", given.to, "the new image")->required();
  format(given.convert);
  given.convert->add_option("--from-format", given.from_format, "of IMAGE; default: as its name says")
      ->type_name("NAME");
  given.convert->add_option("--snapshot", given.snapshot, "an internal snapshot of IMAGE instead of its disk")
      ->type_name("NAME");
  given.convert->add_option("--cluster-size", given.cluster_size, "of a new qcow2 image: 512 to 2M")
      ->type_name("SIZE")
      ->capture_default_str();
  given.convert->add_flag("--force", given.force, "replace a file that is there");
  folders(given.convert);
  dry(given.convert);

  given.map = add("map", "List where a disk's content is");
  format(given.map);
  given.map->add_option("--snapshot", given.snapshot, "an internal snapshot instead of the disk")->type_name("NAME");
  folders(given.map);
  return command;
}

int run_disk(DiskCommand& command) {
  if (*command.create) return run_create(command);
  if (*command.resize) return run_resize(command);
  if (*command.convert) return run_convert(command);
  if (*command.info) return run_info(command);
  const auto format = given_format(command.format);
  if (!format) return misused(command, format.error());
  if (*command.check) return disk_check(command.path, *format, command.repair && !command.dry_run, command.json);
  return disk_map(command.path, reading(command, *format), command.snapshot, command.json);
}

}  // namespace caisson::cli
