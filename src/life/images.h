// Images on this host: <cache>/caisson/images/<name>/ holds disk.raw, vmlinuz, initrd.img and manifest.json, all made
// in one go and renamed into place, so a folder that is there is whole.
//   Threads  any; other processes are kept off by a lock file per image
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "life/follow.h"

namespace caisson::life {

// "debian", "debian:12", "debian:bookworm" → the same release.
struct ImageName {
  std::string version;  // "12", "sid"
  std::string suite;    // "bookworm", "sid"
  [[nodiscard]] std::string folder() const { return "debian-" + version; }
  [[nodiscard]] std::string text() const { return "debian:" + version; }
};
[[nodiscard]] Result<ImageName> parse_image_name(std::string_view text);

struct ManifestFile {
  uint64_t size = 0;
  std::string sha256;
};
struct Manifest {
  std::string image;   // "debian:12"
  std::string built;   // UTC, ISO 8601
  std::string mirror;  // sources.list lines it was built from
  std::map<std::string, ManifestFile> files;
  std::map<std::string, std::string> packages;
};
[[nodiscard]] std::string to_json_text(const Manifest& manifest);
[[nodiscard]] Result<Manifest> parse_manifest(std::string_view text);

inline constexpr const char* disk_file = "disk.raw";
inline constexpr const char* kernel_file = "vmlinuz";
inline constexpr const char* initrd_file = "initrd.img";
inline constexpr const char* manifest_file = "manifest.json";

[[nodiscard]] Result<std::string> images_folder();
// The image's folder, if it is there.
[[nodiscard]] Result<std::optional<std::string>> find_image(const ImageName& name);

struct Image {
  std::string name;  // "debian:12"
  std::string built;
  std::string folder;
  uint64_t size_bytes = 0;  // of its disk
  uint64_t used_bytes = 0;  // of that, on this host's disk
};
// Those that are here, oldest release first.
[[nodiscard]] Result<std::vector<Image>> list_images();
// An error where a machine's disk is based on it.
[[nodiscard]] Result<> remove_image(const ImageName& name);

// The machines of this user whose disks are based on the image: it must stay as it is.
[[nodiscard]] std::vector<std::string> machines_of(const ImageName& name);

// Exclusive. Where another process has it: with `say` it tells that it waits for `what`, and waits; without, an error.
// Kept as long as the descriptor.
[[nodiscard]] Result<Fd> lock_file(const std::string& path, std::string_view what, const Say& say);

}  // namespace caisson::life
