// What a machine is made of, as its folder keeps it: config.json. Everything but its name, which is its folder's.
//   Checks   strict: unknown keys, wrong types and values out of bounds are errors; so is a newer version's file
//   Paths    absolute, or names of files in the machine's own folder
//   Threads  plain data
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "control/vm_config.h"

namespace caisson::store {

struct DiskSpec {
  std::string path;
  bool read_only = false;
  std::string format{};  // "raw" or "qcow2"; empty: as the name says
  control::DiskBus bus = control::DiskBus::Virtio;
  std::optional<control::RateLimit> limit{};
  bool operator==(const DiskSpec&) const = default;
};

struct VmSpec {
  static constexpr uint32_t newest_version = 1;
  static constexpr size_t max_path = 4096;

  uint32_t version = newest_version;
  uint64_t created_ms = 0;  // UTC, milliseconds since 1970
  std::string image;        // what its disk was made from: "debian:12"; empty: nothing
  std::string kernel;       // file; empty with firmware
  std::string initrd;       // file; empty: none
  std::string append;       // the kernel's whole command line
  control::FirmwareKind firmware = control::FirmwareKind::None;
  std::string firmware_vars;  // with UEFI: the file of its variables; made at the first start where it is not there
  uint32_t cpus = 1;
  uint64_t memory_bytes = uint64_t{1} << 30;  // whole MiB
  std::string cpu_model = "auto";
  control::EngineChoice engine = control::EngineChoice::Auto;
  std::string serial2;  // COM2: the absolute path of a file, a socket that listens, or a terminal; empty: none
  std::vector<DiskSpec> disks;
  std::vector<std::string> backing_folders;  // where backing files may lie, too
  control::NetKind net = control::NetKind::User;
  control::NetCard net_card = control::NetCard::Virtio;
  std::vector<control::PortForward> forwards;
  std::optional<control::RateLimit> net_limit;
  uint32_t cpu_cap_percent = 0;  // of one CPU; 0: no cap
  uint32_t cpu_share = control::usual_cpu_share;
  bool balloon = true;
  bool vsock = false;  // a socket device; machines of an image have one anyway
  control::BootFirst boot_first = control::BootFirst::Disk;
  bool display = false;  // also without firmware
  control::Graphics graphics = control::Graphics::Vga;
  control::Tablet tablet = control::Tablet::Virtio;
  std::string vnc;  // where viewers connect: "unix", which is a socket in the folder, "127.0.0.1:5901", or nowhere
  std::string vnc_password_file;  // holds what they have to know; read at each start
  control::KeyboardLayout keyboard_layout = control::KeyboardLayout::Us;
  bool no_reboot = false;
  bool debug_exit = false;
  uint32_t stop_timeout_s = 30;
  bool autostart = false;  // started when the daemon starts
  bool transient = false;  // the machine goes when it ends
  bool operator==(const VmSpec&) const = default;

  // The errors name no file.
  [[nodiscard]] static Result<VmSpec> parse(std::string_view text);
  // An error where a newer version has written it, which is no fault of the file.
  [[nodiscard]] static Result<> not_newer(std::string_view text);
  [[nodiscard]] std::string serialise() const;
  [[nodiscard]] Result<> validate() const;
};

// 1 to 64 letters, digits, '-', '_' and '.', starting with a letter or digit. `what` begins the error: "--name".
[[nodiscard]] Result<> check_name(std::string_view what, std::string_view name);

}  // namespace caisson::store
