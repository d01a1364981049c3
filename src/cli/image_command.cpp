#include "cli/image_command.h"

#include <string>

#include <fmt/core.h>
#include <unistd.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "cli/disk_report.h"
#include "cli/exit_status.h"
#include "cli/image_build.h"
#include "cli/image_export.h"
#include "cli/image_import.h"
#include "cli/image_pull.h"
#include "cli/image_store.h"
#include "life/catalogue.h"
#include "life/images.h"
#include "store/files.h"

namespace caisson::cli {

struct ImageCommand {
  CLI::App* build = nullptr;
  CLI::App* import = nullptr;
  CLI::App* exported = nullptr;
  CLI::App* pull = nullptr;
  CLI::App* catalogue = nullptr;
  CLI::App* list = nullptr;
  CLI::App* remove = nullptr;

  std::string name;
  std::string file;
  BuildOptions building;
  ImportOptions importing;
  PullOptions pulling;
  life::CatalogueEntry address{};  // of what is pulled without being in the catalogue
  bool no_checksum = false;
  bool json = false;
  bool force = false;
  bool dry_run = false;
};

namespace {

using Json = nlohmann::json;

int fail_with(const ImageCommand& command, const Error& error) {
  return report_disk_error(error, command.json, exit_failure);
}
int misused(const ImageCommand& command, const Error& error) {
  return report_disk_error(error, command.json, exit_usage);
}

// --dry-run of what makes an image.
int say_dry(const ImageCommand& command, const life::ImageName& name, const std::string& from) {
  if (const auto ok = check_replaced(name, command.force); !ok) return fail_with(command, ok.error());
  fmt::print("would make image {} of {}\n", name.text(), from);
  return exit_ok;
}

// What a command has made: for people, or as JSON.
int say_done(const ImageCommand& command, const char* key, const std::string& path) {
  if (command.json) {
    fmt::print("{}\n", Json{{"image", command.name}, {key, path}}.dump(2, ' ', false, Json::error_handler_t::replace));
  } else {
    fmt::print("{}\n", path);
  }
  return exit_ok;
}

int run_build(const ImageCommand& command) {
  const auto name = life::parse_image_name(command.name);
  if (!name) return misused(command, name.error());
  if (!name->built_here()) {
    return misused(command, {command.name + ": only Debian is built; write debian:11, 12, 13, 14 or sid"});
  }
  const auto folder = build_image(*name, command.building);
  if (!folder) return fail_with(command, folder.error());
  if (command.building.dry_run) return exit_ok;
  fmt::print("{}\n", *folder);
  return exit_ok;
}

int run_import(ImageCommand& command) {
  const auto name = life::new_image_name(command.name);
  if (!name) return misused(command, name.error());
  command.importing.json = command.json;
  command.importing.force = command.force;
  if (const auto ok = check_import(command.importing); !ok) return misused(command, ok.error());
  if (command.dry_run) {
    if (const auto file = open_input("import", command.file); !file) return fail_with(command, file.error());
    return say_dry(command, *name, command.file);
  }
  const auto folder = import_image(*name, command.file, command.importing);
  if (!folder) return fail_with(command, folder.error());
  return say_done(command, "folder", *folder);
}

// "debian.raw.xz" → "debian"
std::string name_of_address(const std::string& url) {
  const std::string name = life::packed_name(url).name;
  const size_t dot = name.rfind('.');
  return dot == std::string::npos || dot == 0 ? name : name.substr(0, dot);
}

Result<life::CatalogueEntry> to_pull(ImageCommand& command) {
  const std::string& wanted = command.name;
  if (wanted.find("://") == std::string::npos) {
    const auto name = life::parse_image_name(wanted);
    if (!name) return std::unexpected(name.error());
    if (command.no_checksum || !command.address.sha256.empty() || !command.address.name.empty()) {
      return fail("--name, --sha256 and --no-checksum are for addresses; what is in the catalogue has them there");
    }
    return life::catalogue_entry(*name);
  }
  life::CatalogueEntry entry = command.address;
  entry.url = wanted;
  if (entry.name.empty()) entry.name = name_of_address(wanted);
  if (entry.sha256.empty() != command.no_checksum) {
    return fail("{}: say with --sha256 what the file must be, or --no-checksum to take whatever is there", wanted);
  }
  life::CatalogueEntry checked = entry;
  if (command.no_checksum) checked.sha256 = std::string(64, '0');
  if (auto ok = life::check(checked); !ok) return std::unexpected(ok.error());
  return entry;
}

int run_pull(ImageCommand& command) {
  command.pulling.json = command.json;
  command.pulling.force = command.force;
  const auto entry = to_pull(command);
  if (!entry) return misused(command, entry.error());
  if (command.dry_run) {
    const auto name = entry->recipe.empty() ? life::new_image_name(entry->name) : life::parse_image_name(entry->name);
    if (!name) return misused(command, name.error());
    return say_dry(command, *name, entry->recipe.empty() ? entry->url : "packages");
  }
  const auto folder = pull_image(*entry, command.pulling);
  if (!folder) return fail_with(command, folder.error());
  command.name = entry->name;
  return say_done(command, "folder", *folder);
}

int run_export(const ImageCommand& command) {
  const auto name = life::parse_image_name(command.name);
  if (!name) return misused(command, name.error());
  if (const auto ok = check_export(command.file); !ok) return misused(command, ok.error());
  if (command.dry_run) {
    if (const auto manifest = life::manifest_of(*name); !manifest) return fail_with(command, manifest.error());
    if (!command.force && ::access(command.file.c_str(), F_OK) == 0)
      return fail_with(command, {command.file + ": is there already; --force replaces it"});
    fmt::print("would write image {} into {}\n", name->text(), command.file);
    return exit_ok;
  }
  if (const auto ok = export_image(*name, command.file, {command.force, command.json}); !ok) {
    return fail_with(command, ok.error());
  }
  return say_done(command, "file", command.file);
}

// --dry-run of image rm.
int say_remove(const ImageCommand& command) {
  const auto name = life::parse_image_name(command.name);
  if (!name) return misused(command, name.error());
  const auto here = life::find_image(*name);
  if (!here) return fail_with(command, here.error());
  if (!*here)
    return fail_with(command, {fmt::format("image {} is not here; caisson image ls shows what is", name->text())});
  if (const auto machines = life::machines_of(*name); !machines.empty()) {
    return fail_with(
        command, {fmt::format("image {} is what the disk of machine {} is based on", name->text(), machines.front())});
  }
  fmt::print("would remove {}\n", **here);
  return exit_ok;
}

}  // namespace

std::shared_ptr<ImageCommand> add_image(CLI::App& app) {
  auto command = std::make_shared<ImageCommand>();
  ImageCommand& given = *command;
  auto* image = app.add_subcommand("image", "Build, pull, import, export, list and remove images");
  image->require_subcommand(1);
  const auto json = [&](CLI::App* sub) {
    sub->add_flag("--json", given.json, "as JSON; progress and errors as JSON lines on standard error");
  };

  const auto dry = [&](CLI::App* sub) {
    sub->add_flag("--dry-run", given.dry_run, "say what would be done, and whether it could be, and do nothing");
  };

  given.build = image->add_subcommand("build", "Build a minimal Debian disk image; needs no root");
  given.build->add_option("IMAGE", given.name, "debian:12 (or 11, 13, 14, sid)")->required();
  given.build->add_option("--size", given.building.size, "of the disk; only what is used takes room")
      ->type_name("SIZE")
      ->capture_default_str();
  given.build->add_option("--mirror", given.building.mirror, "default: this host's apt sources, else deb.debian.org")
      ->type_name("URL");
  given.build->add_flag("--force", given.building.force, "build again although the image is there");
  given.build->add_flag("--dry-run", given.building.dry_run,
                        "say what would be done, and whether it could be, and do nothing");
  given.build->add_flag("--verbose", given.building.verbose, "show everything the tools print");
  given.build->footer("Examples:\n  caisson image build debian:12\n  caisson image build debian:13 --size 20G --force");

  given.import = image->add_subcommand("import", "Make an image of a disk, or of what image export has written");
  given.import->add_option("NAME", given.name, "what it shall be called")->required();
  given.import->add_option("FILE", given.file, "a disk: raw, *.qcow2, *.vmdk, *.vhdx, *.vdi; or *.tar of image export")
      ->required();
  given.import->add_option("--format", given.importing.format, "of FILE; default: as its name says, else raw")
      ->type_name("NAME");
  given.import
      ->add_option("--firmware", given.importing.firmware,
                   "what starts it: bios or uefi; default: by the boot loader on the disk")
      ->type_name("KIND");
  given.import->add_option("--kernel", given.importing.kernel, "start this kernel instead, for a disk that has none")
      ->type_name("FILE");
  given.import->add_option("--initrd", given.importing.initrd, "initial RAM disk of that kernel")->type_name("FILE");
  given.import->add_option("--append", given.importing.append, "that kernel's command line; default root=/dev/vda rw")
      ->type_name("TEXT");
  given.import->add_flag("--force", given.force, "replace an image that no machine needs");
  json(given.import);
  dry(given.import);
  given.import->footer(
      "Examples:\n  caisson image import fedora Fedora-Cloud.qcow2\n"
      "  caisson image import mine disk.raw --kernel vmlinuz --initrd initrd.img --append 'root=/dev/vda1 rw'\n"
      "  caisson run fedora");

  given.exported = image->add_subcommand("export", "Write an image into one file");
  given.exported->add_option("NAME", given.name, "the image")->required();
  given.exported
      ->add_option("FILE", given.file,
                   "*.qcow2: its disk alone, for other hypervisors as well; *.tar: all of it, for image import")
      ->required();
  given.exported->add_flag("--force", given.force, "replace a file that is there");
  json(given.exported);
  dry(given.exported);
  given.exported->footer(
      "Examples:\n  caisson image export debian:12 debian.tar\n  caisson image export fedora f.qcow2");

  given.pull = image->add_subcommand("pull", "Get an image of the catalogue, or from an address");
  given.pull->add_option("IMAGE", given.name, "a name of the catalogue, or https://…, http://…, file:///…")
      ->required()
      ->type_name("NAME|URL");
  given.pull->add_option("--name", given.address.name, "what it shall be called; default: as the address says")
      ->type_name("NAME");
  given.pull->add_option("--sha256", given.address.sha256, "what the SHA-256 of the file at the address must be")
      ->type_name("HEX");
  given.pull->add_flag("--no-checksum", given.no_checksum, "take whatever is at the address");
  given.pull->add_option("--key", given.address.key, "minisign's public key; the signature is at URL.minisig")
      ->type_name("KEY");
  given.pull
      ->add_option("--format", given.address.format, "raw, qcow2, vmdk, vhdx, vdi or tar; default: as its name says")
      ->type_name("NAME");
  given.pull
      ->add_option("--firmware", given.address.boot, "what starts it: bios or uefi; default: by what is on the disk")
      ->type_name("KIND");
  given.pull->add_option("--tries", given.pulling.tries, "of a download, each going on where the last was cut off")
      ->type_name("N")
      ->check(CLI::Range(1u, 1000u))
      ->capture_default_str();
  given.pull->add_option("--stall", given.pulling.stall_s, "seconds without a byte that end a try")
      ->type_name("SECONDS")
      ->check(CLI::Range(1u, 86400u))
      ->capture_default_str();
  given.pull->add_flag("--force", given.force, "replace an image that no machine needs");
  json(given.pull);
  dry(given.pull);
  given.pull->footer(
      "Disks packed by gzip, xz or zstd (*.gz, *.xz, *.zst) are unpacked. A download that was cut off goes on by the "
      "same "
      "command.\n\n"
      "Examples:\n  caisson image pull debian:13\n"
      "  caisson image pull https://example.org/disk.qcow2 --name mine --sha256 2c26b46b…");
  given.catalogue =
      image->add_subcommand("catalogue", "List what image pull knows; ~/.config/caisson/catalogue.json adds");
  given.catalogue->add_flag("--json", given.json, "as JSON");
  given.list = image->add_subcommand("ls", "List images");
  given.list->add_flag("--json", given.json, "as JSON");
  given.remove = image->add_subcommand("rm", "Remove an image that no machine's disk is based on");
  given.remove->add_option("IMAGE", given.name, "debian:12")->required();
  dry(given.remove);
  return command;
}

int run_image(ImageCommand& command) {
  if (*command.build) return run_build(command);
  if (*command.import) return run_import(command);
  if (*command.exported) return run_export(command);
  if (*command.pull) return run_pull(command);
  if (*command.catalogue) return show_catalogue(command.json);
  if (*command.list) return image_list(command.json);
  return command.dry_run ? say_remove(command) : image_remove(command.name);
}

}  // namespace caisson::cli
