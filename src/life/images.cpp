#include "life/images.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>

#include <fcntl.h>
#include <fmt/ranges.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <nlohmann/json.hpp>

#include "backend/qcow2/check.h"
#include "life/host.h"
#include "store/files.h"
#include "store/store.h"

namespace caisson::life {
namespace {

using Json = nlohmann::json;

struct Release {
  std::string_view version;
  std::string_view suite;
};
constexpr std::array<Release, 5> releases{{
    {"11", "bullseye"},
    {"12", "bookworm"},
    {"13", "trixie"},
    {"14", "forky"},
    {"sid", "sid"},
}};
constexpr std::string_view default_version = "12";
constexpr std::array<std::string_view, 3> boot_names{"kernel", "bios", "uefi"};

std::string string_of(const Json& json, const char* key) {
  const auto found = json.find(key);
  return found != json.end() && found->is_string() ? found->get<std::string>() : std::string{};
}

// A machine's disk that has its backing file in that folder.
bool based_on(const std::string& disk, const std::string& image_folder) {
  const Fd fd{::open(disk.c_str(), O_RDONLY | O_CLOEXEC)};
  if (!fd.valid()) return false;
  const auto header = qcow2::read_header(fd.get());
  return header && header->backing_file && header->backing_file->starts_with(image_folder + "/");
}

uint64_t used_bytes(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 ? static_cast<uint64_t>(status.st_blocks) * 512 : 0;
}

}  // namespace

Result<ImageName> parse_image_name(std::string_view text) {
  std::string_view version;
  if (text == "debian") {
    version = default_version;
  } else if (text.starts_with("debian:")) {
    version = text.substr(7);
  } else {
    if (auto ok = store::check_name("image", text); !ok) {
      return fail("{}; or debian, debian:12 (or 11, 13, 14, sid), or a file with its path", ok.error().message);
    }
    return ImageName{"", "", std::string{text}};
  }
  for (const auto& release : releases) {
    if (version == release.version || version == release.suite) {
      return ImageName{std::string{release.version}, std::string{release.suite}};
    }
  }
  return fail("{}: no such release of Debian; write debian:11, 12, 13, 14 or sid", text);
}

Result<ImageName> new_image_name(std::string_view text) {
  auto name = parse_image_name(text);
  if (!name) return name;
  if (name->built_here()) return fail("image {}: that name is of one that is built here; choose another", text);
  // Such a folder's image would be found by another name, or be taken for a file.
  const bool taken =
      std::ranges::any_of(releases, [&](const Release& one) { return text == "debian-" + std::string{one.version}; });
  if (taken) return fail("image {}: that name is of the folder of one that is built here; choose another", text);
  for (const std::string_view end : {".iso", ".qcow2", ".raw", ".img", ".lock"}) {
    if (text.ends_with(end)) return fail("image {}: a name that ends in {} means a file; choose another", text, end);
  }
  return name;
}

std::string_view name_of(BootBy boot) { return boot_names[static_cast<size_t>(boot)]; }

std::optional<BootBy> boot_by_named(std::string_view name) {
  const auto found = std::ranges::find(boot_names, name);
  if (found == boot_names.end()) return std::nullopt;
  return static_cast<BootBy>(found - boot_names.begin());
}

std::string to_json_text(const Manifest& manifest) {
  Json files = Json::object();
  for (const auto& [name, file] : manifest.files) files[name] = Json{{"size", file.size}, {"sha256", file.sha256}};
  Json json{{"version", Manifest::newest_version}, {"image", manifest.image},   {"built", manifest.built},
            {"boot", name_of(manifest.boot)},      {"mirror", manifest.mirror}, {"files", files},
            {"packages", manifest.packages}};
  if (!manifest.append.empty()) json["append"] = manifest.append;
  if (!manifest.source.empty()) json["source"] = manifest.source;
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

Result<Manifest> parse_manifest(std::string_view text) {
  const auto json = Json::parse(text, nullptr, false);
  if (!json.is_object()) return fail("the manifest is not valid JSON");
  // Those of before there was a number are of the first version.
  if (const auto version = json.find("version"); version != json.end()) {
    if (!version->is_number_unsigned()) return fail("the manifest's version is no number");
    if (version->get<uint64_t>() > Manifest::newest_version) {
      return fail("the manifest was written by a newer version of caisson; update caisson");
    }
  }
  Manifest manifest;
  if (const auto boot = json.find("boot"); boot != json.end()) {
    const auto by = boot_by_named(string_of(json, "boot"));
    if (!by) return fail("the manifest's boot is unknown; known are kernel, bios and uefi");
    manifest.boot = *by;
  }
  manifest.append = string_of(json, "append");
  manifest.source = string_of(json, "source");
  manifest.image = string_of(json, "image");
  manifest.built = string_of(json, "built");
  manifest.mirror = string_of(json, "mirror");
  if (const auto files = json.find("files"); files != json.end() && files->is_object()) {
    for (const auto& [name, file] : files->items()) {
      if (!file.is_object()) return fail("the manifest's entry for {} is no object", name);
      const auto size = file.find("size");
      const bool number = size != file.end() && size->is_number_unsigned();
      manifest.files[name] = ManifestFile{number ? size->get<uint64_t>() : 0, string_of(file, "sha256")};
    }
  }
  if (const auto packages = json.find("packages"); packages != json.end() && packages->is_object()) {
    for (const auto& [name, version] : packages->items()) {
      if (version.is_string()) manifest.packages[name] = version.get<std::string>();
    }
  }
  return manifest;
}

Result<std::string> images_folder() {
  auto cache = cache_folder();
  if (!cache) return cache;
  return *cache + "/images";
}

Result<std::optional<std::string>> find_image(const ImageName& name) {
  auto images = images_folder();
  if (!images) return std::unexpected(images.error());
  const std::string folder = *images + "/" + name.folder();
  struct stat status {};
  if (::stat((folder + "/" + manifest_file).c_str(), &status) == 0) return folder;
  if (errno == ENOENT || errno == ENOTDIR) return std::nullopt;
  return fail_errno(errno, "image " + name.text() + " in " + folder);
}

Result<Manifest> manifest_of(const ImageName& name) {
  const auto folder = find_image(name);
  if (!folder) return std::unexpected(folder.error());
  if (!*folder) {
    if (name.built_here()) {
      return fail("image {} is not here; build it first with: caisson image build {}", name.text(), name.text());
    }
    return fail("image {} is not here; caisson image ls shows what is; a file is written with its path: ./{}",
                name.text(), name.text());
  }
  const std::string path = **folder + "/" + manifest_file;
  const auto text = read_file(path, Manifest::max_size);
  if (!text) return std::unexpected(text.error());
  auto manifest = parse_manifest(*text);
  if (!manifest) return fail("image {}: {}: {}", name.text(), path, manifest.error().message);
  return manifest;
}

std::string default_append(const std::string& image) {
  if (image.empty()) return "";
  const auto name = parse_image_name(image);
  const auto manifest = name ? manifest_of(*name) : std::unexpected(name.error());
  return manifest && !manifest->append.empty() ? manifest->append : std::string{image_command_line};
}

std::vector<std::string> machines_of(const ImageName& name) {
  std::vector<std::string> machines;
  const auto store = store::Store::open();
  const auto names = store ? store->names() : Result<std::vector<std::string>>{};
  const auto images = images_folder();
  if (!names || !images) return machines;
  for (const std::string& machine : *names) {
    const auto folder = store->find(machine);
    const auto spec = folder ? folder->spec() : std::unexpected(folder.error());
    // One whose disk is a copy needs no image.
    const bool said =
        spec && spec->image == name.text() && !spec->disks.empty() && spec->disks.front().format == "qcow2";
    if (said || (folder && based_on(folder->file(overlay_file), *images + "/" + name.folder()))) {
      machines.push_back(machine);
    }
  }
  return machines;
}

Result<Fd> lock_file(const std::string& path, std::string_view what, const Say& say) {
  Fd fd{::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)};
  if (!fd.valid()) return fail_errno(errno, "cannot open " + path);
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) == 0) return fd;
  if (errno != EWOULDBLOCK) return fail_errno(errno, "cannot lock " + path);
  if (!say) return fail("{} is in use", what);
  say(fmt::format("waiting for {}", what));
  while (::flock(fd.get(), LOCK_EX) != 0) {
    if (errno != EINTR) return fail_errno(errno, "cannot lock " + path);
  }
  return fd;
}

Result<std::vector<Image>> list_images() {
  std::vector<Image> list;
  const auto images = images_folder();
  if (!images) return std::unexpected(images.error());
  std::vector<ImageName> names;
  for (const auto& release : releases) names.push_back({std::string{release.version}, std::string{release.suite}});
  std::vector<std::string> others;
  std::error_code error;
  std::filesystem::directory_iterator entry{*images, error};
  for (; !error && entry != std::filesystem::directory_iterator{}; entry.increment(error)) {
    if (auto name = new_image_name(entry->path().filename().string()); name) others.push_back(name->other);
  }
  std::ranges::sort(others);
  for (std::string& other : others) names.push_back({"", "", std::move(other)});
  for (const ImageName& name : names) {
    const auto folder = find_image(name);
    if (!folder || !*folder) continue;
    Image image{.name = name.text(), .built = "", .folder = **folder};
    image.used_bytes = used_bytes(image.folder + "/" + disk_file);
    const auto manifest = manifest_of(name);
    if (manifest) {
      const auto disk = manifest->files.find(disk_file);
      image.built = manifest->built;
      image.size_bytes = disk != manifest->files.end() ? disk->second.size : 0;
      image.boot = manifest->boot;
    } else {
      image.problem = manifest.error().message;
    }
    list.push_back(std::move(image));
  }
  return list;
}

Result<> remove_image(const ImageName& name) {
  auto images = images_folder();
  if (!images) return std::unexpected(images.error());
  const auto folder = find_image(name);
  if (!folder) return std::unexpected(folder.error());
  if (!*folder) return fail("image {} is not here; caisson image ls shows what is", name.text());
  auto lock = lock_file(*images + "/" + name.folder() + ".lock", "image " + name.text(), nullptr);
  if (!lock) return std::unexpected(lock.error());
  if (const auto machines = machines_of(name); !machines.empty()) {
    return fail("image {} is what the disk of machine {} is based on; remove that first with: caisson rm {}",
                name.text(), machines.front(), fmt::join(machines, " "));
  }
  // Renamed first: a folder under its name is whole.
  const std::string doomed = *images + "/." + name.folder() + ".removed";
  if (auto ok = remove_tree(doomed); !ok) return ok;
  if (::rename((*folder)->c_str(), doomed.c_str()) != 0) return fail_errno(errno, "cannot remove " + **folder);
  return remove_tree(doomed);
}

}  // namespace caisson::life
