// Images on this host: <cache>/caisson/images/<name>/ holds disk.raw, manifest.json and, where the kernel is started
// from outside, vmlinuz and initrd.img, all made in one go and renamed into place, so a folder that is there is whole.
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

// "debian", "debian:12", "debian:bookworm" → the same release, which is built here; anything else is what the user has
// called an image that was imported.
struct ImageName {
  std::string version;  // of Debian: "12", "sid"; empty: one that was imported
  std::string suite;    // "bookworm", "sid"
  std::string other{};  // the name of one that was imported
  [[nodiscard]] bool built_here() const { return !version.empty(); }
  [[nodiscard]] std::string folder() const { return built_here() ? "debian-" + version : other; }
  [[nodiscard]] std::string text() const { return built_here() ? "debian:" + version : other; }
};
[[nodiscard]] Result<ImageName> parse_image_name(std::string_view text);
// The same for an image that is to come: not a name that means something else already.
[[nodiscard]] Result<ImageName> new_image_name(std::string_view text);

// What starts the system on an image's disk.
enum class BootBy { Kernel, Bios, Uefi };
// "kernel", "bios", "uefi"
[[nodiscard]] std::string_view name_of(BootBy boot);
[[nodiscard]] std::optional<BootBy> boot_by_named(std::string_view name);

struct ManifestFile {
  uint64_t size = 0;
  std::string sha256;
};
struct Manifest {
  static constexpr uint64_t newest_version = 1;
  static constexpr size_t max_size = 16 << 20;  // of its text, in bytes

  std::string image;   // "debian:12"
  std::string built;   // UTC, ISO 8601
  std::string mirror;  // sources.list lines it was built from
  std::map<std::string, ManifestFile> files;
  std::map<std::string, std::string> packages;
  BootBy boot = BootBy::Kernel;
  std::string append{};  // with a kernel: its command line; empty: image_command_line
  std::string source{};  // the file or address that it came from
};
[[nodiscard]] std::string to_json_text(const Manifest& manifest);
// An error also for the manifest of a newer version. It names no file.
[[nodiscard]] Result<Manifest> parse_manifest(std::string_view text);

inline constexpr const char* disk_file = "disk.raw";
inline constexpr const char* kernel_file = "vmlinuz";
inline constexpr const char* initrd_file = "initrd.img";
inline constexpr const char* manifest_file = "manifest.json";
// In a machine's folder: its own disk over its image's.
inline constexpr const char* overlay_file = "disk.qcow2";

[[nodiscard]] Result<std::string> images_folder();
// The image's folder, if it is there.
[[nodiscard]] Result<std::optional<std::string>> find_image(const ImageName& name);
// The manifest of one that is here; otherwise an error that says how to get it.
[[nodiscard]] Result<Manifest> manifest_of(const ImageName& name);

// The kernel command line that a machine of the image gets; `image`: as its configuration names it, empty: none.
[[nodiscard]] std::string default_append(const std::string& image);

struct Image {
  std::string name;  // "debian:12"
  std::string built;
  std::string folder;
  uint64_t size_bytes = 0;  // of its disk
  uint64_t used_bytes = 0;  // of that, on this host's disk
  BootBy boot = BootBy::Kernel;
  std::string problem{};  // why its manifest cannot be used; empty: it can
};
// Those that are here: Debian's, oldest release first, then others by name.
[[nodiscard]] Result<std::vector<Image>> list_images();
// An error where a machine's disk is based on it.
[[nodiscard]] Result<> remove_image(const ImageName& name);

// The machines of this user whose disks are based on the image: it must stay as it is. Also those whose configuration
// cannot be read: the disk itself says it.
[[nodiscard]] std::vector<std::string> machines_of(const ImageName& name);

// Exclusive. Where another process has it: with `say` it tells that it waits for `what`, and waits; without, an error.
// Kept as long as the descriptor.
[[nodiscard]] Result<Fd> lock_file(const std::string& path, std::string_view what, const Say& say);

}  // namespace caisson::life
