// The words of `caisson run`, from text to values. Each parser answers with one line that names the option and the
// remedy.
//   Threads  pure functions
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backend/disk_format.h"
#include "base/result.h"
#include "control/vm_config.h"
#include "life/forwards.h"
#include "life/seed.h"
#include "store/vm_spec.h"

namespace caisson::cli {

struct DiskOption {
  std::string path;
  bool read_only = false;
  std::optional<DiskFormat> format{};
  control::DiskBus bus = control::DiskBus::Virtio;
  std::optional<control::RateLimit> limit{};
  bool operator==(const DiskOption&) const = default;
};

// As given on the command line.
struct RunOptions {
  std::string target;  // "debian", "debian:13", …; a file, see take_file(); empty with --kernel
  std::string kernel;
  std::string initrd;
  std::string append;
  std::string firmware;       // "bios", "uefi"; empty: a kernel is started directly
  std::string firmware_vars;  // file of UEFI's variables; empty: one in the machine's folder
  std::string firmware_log;
  bool display = false;
  std::string graphics;  // "vga", "virtio"; empty: vga
  std::string tablet;    // "virtio", "usb"; empty: virtio
  std::string vnc;       // as life/vnc_socket.h has it; empty: nobody can look
  std::string vnc_password_file;
  std::string keyboard_layout;  // empty: us
  std::string serial2;
  std::string control;  // path of a socket for requests
  std::vector<std::string> disks;
  std::vector<std::string> cdroms;
  std::string boot;  // what firmware tries first: "disk", "cdrom"; empty: disk
  std::vector<std::string> backing_folders;
  std::string cpus;    // empty: default
  std::string memory;  // empty: default
  std::string net = "user";
  std::string net_limit;                 // "bps=10M,pps=5000", "none"; empty: as --net says
  std::vector<std::string> disk_limits;  // "DISK,bps=50M,iops=1000"
  std::string cpu_cap;                   // "50%", "none"
  std::string cpu_share;                 // "100"
  std::optional<bool> balloon;
  std::vector<std::string> forwards;
  bool vsock = false;
  std::string engine = "auto";
  std::string cpu_model = "auto";
  std::string name;
  std::vector<std::string> jit_off;  // names from control::jit_classes, several by commas
  bool lockstep = false;
  bool profile = false;
  std::string dump_blocks;           // file
  std::vector<std::string> dump_at;  // hexadecimal addresses, several by commas
  unsigned stop_timeout = 30;
  bool no_reboot = false;
  bool debug_exit = false;
  bool json = false;
  bool detached = false;
  bool remove = false;  // a detached machine goes when it ends
  bool autostart = false;
  bool dry_run = false;               // say what would be made or started
  std::string cloud_init;             // a file with user-data
  std::string user;                   // what cloud-init shall make, see life/seed.h
  std::vector<std::string> ssh_keys;  // lines, or files with them
  std::string hostname;
  std::vector<std::string> packages;  // several by commas
  std::vector<std::string> files;     // "FILE:/path"
};

// "512M", "2G", "1048576K"; a bare number counts MiB. Whole MiB within VmConfig's bounds and the host's memory.
[[nodiscard]] Result<uint64_t> parse_memory(std::string_view text, uint64_t host_bytes);
// "4G" for a disk: like memory, but bounded by what ext4 can use here.
[[nodiscard]] Result<uint64_t> parse_size(std::string_view option, std::string_view text);
// The same for any disk: 512 bytes at least, whole sectors; a bare number counts MiB, "512B" bytes.
[[nodiscard]] Result<uint64_t> parse_disk_size(std::string_view option, std::string_view text);
[[nodiscard]] Result<uint32_t> parse_cpus(std::string_view text);
// "FILE", then any of ",ro", ",format=raw|qcow2", ",bus=virtio|sata|nvme|usb", ",bps=50M" and ",iops=1000"
[[nodiscard]] Result<DiskOption> parse_disk(std::string_view text);
// As a machine's configuration has it, by an absolute path.
[[nodiscard]] store::DiskSpec to_spec(const DiskOption& disk);
// As --net has it.
struct NetOption {
  control::NetKind kind = control::NetKind::User;
  control::NetCard card = control::NetCard::Virtio;
  std::optional<control::RateLimit> limit{};
};
// "user[,model=virtio|e1000][,bps=RATE][,pps=RATE]" or "none"
[[nodiscard]] Result<NetOption> parse_net(std::string_view text);
// "[tcp:|udp:][ADDRESS:]HOST:GUEST"
[[nodiscard]] Result<control::PortForward> parse_forward(std::string_view text);
// "8080", "udp:5353" or "0.0.0.0:80": what a forward listens on.
[[nodiscard]] Result<life::HostPort> parse_host_port(std::string_view text);
// "CLASS,CLASS…", each a name in control::jit_classes; every name once.
[[nodiscard]] Result<std::vector<std::string>> parse_jit_off(const std::vector<std::string>& given);

// Where the target is a file, and not an image's name, it becomes a disc (*.iso) to start from, or the first disk
// (anything else, with the words of --disk), under BIOS firmware unless another was asked for. A file has a slash in
// its name or ends in .iso, .qcow2, .raw or .img; what files are in the working folder makes no difference.
[[nodiscard]] Result<> take_file(RunOptions& options);

// What cloud-init shall find, where anything was given for it; reads the files that are named.
[[nodiscard]] Result<std::optional<life::Seed>> to_seed(const RunOptions& options);

// Everything of `options` that needs no file opened; the *_fd members are left 0.
[[nodiscard]] Result<control::VmConfig> to_config(const RunOptions& options, std::string_view default_append);

}  // namespace caisson::cli
