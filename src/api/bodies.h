// What requests carry and answers say, each with the one table of its keys and bounds.
//   Threads  plain data
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "api/http.h"
#include "api/jobs.h"
#include "control/json_schema.h"
#include "control/messages_table.h"
#include "life/guest_agent.h"
#include "life/machines.h"
#include "life/seed.h"
#include "store/vm_spec_table.h"

namespace caisson::api {

// What is left out is as the command line has it.
struct CreateMachine : life::Change {
  std::string name;
  std::string image;   // one that is here
  std::string kernel;  // absolute paths of this host
  std::string initrd;
  control::FirmwareKind firmware = control::FirmwareKind::None;
  std::string firmware_vars;  // empty: in the machine's folder
  std::vector<store::DiskSpec> disks;
  std::optional<life::Seed> seed;  // what cloud-init finds at the first start
  std::vector<std::string> backing_folders;
  control::BootFirst boot_first = control::BootFirst::Disk;
  bool transient = false;  // it is started at once, and goes when it ends
};

struct StopMachine {
  std::optional<uint32_t> timeout_s;
};
struct GrowDisk {
  uint64_t bytes = 0;  // its new size
};
struct AttachNetwork {
  control::NetCard card = control::NetCard::Virtio;
  std::optional<control::RateLimit> limit;
};
struct RenameMachine {
  std::string name;
};
struct TypeText {
  std::string text;
};
struct BuildImage {
  std::string image;
  std::string size;  // as of caisson image build; empty: its default
  bool force = false;
};

struct ImportImage {
  std::string file;      // absolute paths of this host
  std::string kernel;    //
  std::string initrd;    //
  std::string append;    // the rest as of caisson image import
  std::string format;    //
  std::string firmware;  //
  bool force = false;
};

struct ExportImage {
  std::string file;  // an absolute path of this host, *.qcow2 or *.tar
  bool force = false;
};

// Of caisson disk; paths are absolute ones of this host. What is left out is as there.
struct CreateDisk {
  std::string path;
  std::optional<uint64_t> bytes;
  std::string format;
  std::string backing;
  std::string backing_format;
  std::optional<uint64_t> cluster_bytes;
  bool force = false;
  std::vector<std::string> backing_folders;
};
struct ResizeDisk {
  std::string path;
  uint64_t bytes = 0;
  std::string format;
  bool shrink = false;
  std::vector<std::string> backing_folders;
};
struct ConvertDisk {
  std::string path;
  std::string to;
  std::string format;  // of the new one
  std::string from_format;
  std::string snapshot;
  bool force = false;
  std::vector<std::string> backing_folders;
};
struct CheckDisk {
  std::string path;
  std::string format;
  bool repair = false;
};
struct InspectDisk {
  std::string path;
  std::string format;
};

struct RunCommand {
  std::vector<std::string> command;
  std::string directory;
  std::string input;
  uint32_t timeout_s = 60;
};
struct CommandResult {
  uint32_t status = 0;
  std::string out;  // bytes that are no UTF-8 are U+FFFD
  std::string errors;
  bool truncated = false;
};

struct DryRun {
  std::string would;
};

// One event of a machine's life, of the stream and of its record.
struct EventHead {
  uint64_t at_ms = 0;
  std::string machine;
  std::string type;
};

struct ImageEntry {
  std::string image;
  std::string built;
  std::string folder;
  uint64_t size_bytes = 0;
  uint64_t used_bytes = 0;
  std::string boot;                    // "kernel", "bios" or "uefi": what starts its system
  std::optional<std::string> problem;  // why it cannot be used
};

struct CatalogueImage {
  std::string name;
  std::string arch;
  std::string about;
  std::string recipe;  // what builds it here; empty: it comes from `url`
  std::string url;
  bool is_signed = false;
};

struct Host {
  std::string version;
  uint32_t cpus = 0;
  uint64_t memory_bytes = 0;
  uint64_t memory_available_bytes = 0;
};

}  // namespace caisson::api

namespace caisson::control {

template <>
struct EnumNames<api::JobState> {
  static constexpr std::array<std::string_view, 4> names{"running", "done", "failed", "cancelled"};
};

template <>
struct JsonTable<life::Change> {
  static constexpr auto fields() {
    using life::Change;
    return std::tuple{key("cpus", &Change::cpus, {1, VmConfig::max_cpus}),
                      key("memory_bytes", &Change::memory_bytes, {VmConfig::min_memory, VmConfig::max_memory}),
                      key("forwards", &Change::forwards, {0, VmConfig::max_forwards}),
                      key("append", &Change::append, {0, VmConfig::max_append}),
                      key("engine", &Change::engine),
                      key("cpu_model", &Change::cpu_model, {1, 32}),
                      key("net", &Change::net),
                      key("display", &Change::display),
                      key("graphics", &Change::graphics),
                      key("tablet", &Change::tablet),
                      key("net_card", &Change::net_card),
                      key("vnc", &Change::vnc, {0, 64}),
                      key("vnc_password_file", &Change::vnc_password_file, {0, store::VmSpec::max_path}),
                      key("keyboard_layout", &Change::keyboard_layout),
                      key("disk_limits", &Change::disk_limits, {0, VmConfig::max_disks}),
                      key("net_limit", &Change::net_limit),
                      key("cpu_cap_percent", &Change::cpu_cap_percent, {0, max_cpu_cap_percent}),
                      key("cpu_share", &Change::cpu_share, {1, max_cpu_share}),
                      key("memory_now_bytes", &Change::memory_now_bytes, {VmConfig::min_memory, VmConfig::max_memory}),
                      key("balloon", &Change::balloon),
                      key("vsock", &Change::vsock),
                      key("serial2", &Change::serial2, {0, store::VmSpec::max_path}),
                      key("no_reboot", &Change::no_reboot),
                      key("debug_exit", &Change::debug_exit),
                      key("autostart", &Change::autostart),
                      key("stop_timeout_s", &Change::stop_timeout_s, {0, 86400})};
  }
};

template <>
struct JsonTable<life::SeedFile> {
  static constexpr auto fields() {
    return std::tuple{key("path", &life::SeedFile::path, {1, 4096}, true),
                      key("content", &life::SeedFile::content, {0, api::max_body, 0, true}, true)};
  }
};
template <>
struct JsonTable<life::Seed> {
  static constexpr auto fields() {
    using life::Seed;
    return std::tuple{key("user_data", &Seed::user_data, {0, api::max_body, 0, true}),
                      key("user", &Seed::user, {0, 64}),
                      key("keys", &Seed::keys, {0, 64, 16 * 1024}),
                      key("hostname", &Seed::hostname, {0, 253}),
                      key("packages", &Seed::packages, {0, 256, 256}),
                      key("files", &Seed::files, {0, 64})};
  }
};

template <>
struct JsonTable<api::CreateMachine> {
  static constexpr auto fields() {
    using api::CreateMachine;
    return std::tuple_cat(
        std::tuple{key("name", &CreateMachine::name, {1, 64}, true), key("image", &CreateMachine::image, {0, 64}),
                   key("kernel", &CreateMachine::kernel, {0, store::VmSpec::max_path}),
                   key("initrd", &CreateMachine::initrd, {0, store::VmSpec::max_path}),
                   key("firmware", &CreateMachine::firmware),
                   key("firmware_vars", &CreateMachine::firmware_vars, {0, store::VmSpec::max_path}),
                   key("disks", &CreateMachine::disks, {0, VmConfig::max_disks}), key("seed", &CreateMachine::seed),
                   key("backing_folders", &CreateMachine::backing_folders, {0, 64, store::VmSpec::max_path}),
                   key("boot_first", &CreateMachine::boot_first), key("transient", &CreateMachine::transient)},
        JsonTable<life::Change>::fields());
  }
};

template <>
struct JsonTable<api::StopMachine> {
  static constexpr auto fields() { return std::tuple{key("timeout_s", &api::StopMachine::timeout_s, {0, 86400})}; }
};
template <>
struct JsonTable<api::GrowDisk> {
  static constexpr auto fields() {
    return std::tuple{key("bytes", &api::GrowDisk::bytes, {512, uint64_t{1} << 62}, true)};
  }
};
template <>
struct JsonTable<api::AttachNetwork> {
  static constexpr auto fields() {
    return std::tuple{key("card", &api::AttachNetwork::card), key("limit", &api::AttachNetwork::limit)};
  }
};
template <>
struct JsonTable<api::RenameMachine> {
  static constexpr auto fields() { return std::tuple{key("name", &api::RenameMachine::name, {1, 64}, true)}; }
};
template <>
struct JsonTable<api::TypeText> {
  static constexpr auto fields() { return std::tuple{key("text", &api::TypeText::text, {1, Type::max_text}, true)}; }
};
template <>
struct JsonTable<api::BuildImage> {
  static constexpr auto fields() {
    return std::tuple{key("image", &api::BuildImage::image, {1, 64}, true),
                      key("size", &api::BuildImage::size, {0, 32}), key("force", &api::BuildImage::force)};
  }
};
template <>
struct JsonTable<api::ImportImage> {
  static constexpr auto fields() {
    using api::ImportImage;
    constexpr auto most = store::VmSpec::max_path;
    return std::tuple{key("file", &ImportImage::file, {1, most}, true),
                      key("kernel", &ImportImage::kernel, {0, most}),
                      key("initrd", &ImportImage::initrd, {0, most}),
                      key("append", &ImportImage::append, {0, VmConfig::max_append}),
                      key("format", &ImportImage::format, {0, 8}),
                      key("firmware", &ImportImage::firmware, {0, 8}),
                      key("force", &ImportImage::force)};
  }
};
template <>
struct JsonTable<api::ExportImage> {
  static constexpr auto fields() {
    return std::tuple{key("file", &api::ExportImage::file, {1, store::VmSpec::max_path}, true),
                      key("force", &api::ExportImage::force)};
  }
};
template <>
struct JsonTable<api::CreateDisk> {
  static constexpr auto fields() {
    using api::CreateDisk;
    constexpr auto most = store::VmSpec::max_path;
    return std::tuple{key("path", &CreateDisk::path, {1, most}, true),
                      key("bytes", &CreateDisk::bytes, {512, uint64_t{1} << 62}),
                      key("format", &CreateDisk::format, {0, 8}),
                      key("backing", &CreateDisk::backing, {0, most}),
                      key("backing_format", &CreateDisk::backing_format, {0, 8}),
                      key("cluster_bytes", &CreateDisk::cluster_bytes, {512, 2 << 20}),
                      key("force", &CreateDisk::force),
                      key("backing_folders", &CreateDisk::backing_folders, {0, 64, most})};
  }
};
template <>
struct JsonTable<api::ResizeDisk> {
  static constexpr auto fields() {
    using api::ResizeDisk;
    constexpr auto most = store::VmSpec::max_path;
    return std::tuple{key("path", &ResizeDisk::path, {1, most}, true),
                      key("bytes", &ResizeDisk::bytes, {512, uint64_t{1} << 62}, true),
                      key("format", &ResizeDisk::format, {0, 8}), key("shrink", &ResizeDisk::shrink),
                      key("backing_folders", &ResizeDisk::backing_folders, {0, 64, most})};
  }
};
template <>
struct JsonTable<api::ConvertDisk> {
  static constexpr auto fields() {
    using api::ConvertDisk;
    constexpr auto most = store::VmSpec::max_path;
    return std::tuple{key("path", &ConvertDisk::path, {1, most}, true),
                      key("to", &ConvertDisk::to, {1, most}, true),
                      key("format", &ConvertDisk::format, {0, 8}),
                      key("from_format", &ConvertDisk::from_format, {0, 8}),
                      key("snapshot", &ConvertDisk::snapshot, {0, 256}),
                      key("force", &ConvertDisk::force),
                      key("backing_folders", &ConvertDisk::backing_folders, {0, 64, most})};
  }
};
template <>
struct JsonTable<api::CheckDisk> {
  static constexpr auto fields() {
    using api::CheckDisk;
    return std::tuple{key("path", &CheckDisk::path, {1, store::VmSpec::max_path}, true),
                      key("format", &CheckDisk::format, {0, 8}), key("repair", &CheckDisk::repair)};
  }
};
template <>
struct JsonTable<api::InspectDisk> {
  static constexpr auto fields() {
    using api::InspectDisk;
    return std::tuple{key("path", &InspectDisk::path, {1, store::VmSpec::max_path}, true),
                      key("format", &InspectDisk::format, {0, 8})};
  }
};
template <>
struct JsonTable<api::RunCommand> {
  static constexpr auto fields() {
    using api::RunCommand;
    return std::tuple{key("command", &RunCommand::command, {1, 1024, 32 * 1024, true}, true),
                      key("directory", &RunCommand::directory, {0, 4096}),
                      key("input", &RunCommand::input, {0, api::max_body, 0, true}),
                      key("timeout_s", &RunCommand::timeout_s, {1, life::GuestCommand::max_timeout_s})};
  }
};
template <>
struct JsonTable<api::CommandResult> {
  static constexpr auto fields() {
    using api::CommandResult;
    return std::tuple{key("status", &CommandResult::status, {}, true), key("stdout", &CommandResult::out, {}, true),
                      key("stderr", &CommandResult::errors, {}, true),
                      key("truncated", &CommandResult::truncated, {}, true)};
  }
};
template <>
struct JsonTable<api::DryRun> {
  static constexpr auto fields() { return std::tuple{key("would", &api::DryRun::would, {}, true)}; }
};
template <>
struct JsonTable<api::CatalogueImage> {
  static constexpr auto fields() {
    using api::CatalogueImage;
    return std::tuple{
        key("name", &CatalogueImage::name, {}, true),   key("arch", &CatalogueImage::arch, {}, true),
        key("about", &CatalogueImage::about, {}, true), key("recipe", &CatalogueImage::recipe, {}, true),
        key("url", &CatalogueImage::url, {}, true),     key("signed", &CatalogueImage::is_signed, {}, true)};
  }
};
template <>
struct JsonTable<api::EventHead> {
  static constexpr auto fields() {
    return std::tuple{key("at_ms", &api::EventHead::at_ms, {}, true),
                      key("machine", &api::EventHead::machine, {1, 64}, true),
                      key("type", &api::EventHead::type, {1, 32}, true)};
  }
};
template <>
struct JsonTable<api::ImageEntry> {
  static constexpr auto fields() {
    using api::ImageEntry;
    return std::tuple{key("image", &ImageEntry::image, {}, true),
                      key("built", &ImageEntry::built, {}, true),
                      key("folder", &ImageEntry::folder, {}, true),
                      key("size_bytes", &ImageEntry::size_bytes, {}, true),
                      key("used_bytes", &ImageEntry::used_bytes, {}, true),
                      key("boot", &ImageEntry::boot, {}, true),
                      key("problem", &ImageEntry::problem)};
  }
};
template <>
struct JsonTable<api::Host> {
  static constexpr auto fields() {
    using api::Host;
    return std::tuple{key("version", &Host::version, {}, true), key("cpus", &Host::cpus, {}, true),
                      key("memory_bytes", &Host::memory_bytes, {}, true),
                      key("memory_available_bytes", &Host::memory_available_bytes, {}, true)};
  }
};
template <>
struct JsonTable<api::Job> {
  static constexpr auto fields() {
    using api::Job;
    return std::tuple{key("id", &Job::id, {}, true),
                      key("operation", &Job::operation, {}, true),
                      key("object", &Job::object, {}, true),
                      key("who", &Job::who, {}, true),
                      key("state", &Job::state, {}, true),
                      key("message", &Job::message, {}, true),
                      key("started_ms", &Job::started_ms, {}, true),
                      key("ended_ms", &Job::ended_ms)};
  }
};

}  // namespace caisson::control
