#include "cli/run_options.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <filesystem>

#include <arpa/inet.h>

#include "cli/limit_options.h"
#include "cli/numbers.h"
#include "life/host.h"
#include "life/vnc_socket.h"
#include "store/vm_spec.h"

namespace caisson::cli {
namespace {

using control::VmConfig;

constexpr uint64_t mib = uint64_t{1} << 20;

// The network that --net and --net-limit ask for.
Result<> take_net(const RunOptions& options, VmConfig& config) {
  const auto option = parse_net(options.net);
  if (!option) return std::unexpected(option.error());
  config.net = option->kind;
  config.net_card = option->card;
  auto limit = option->limit.value_or(control::RateLimit{});
  if (!options.net_limit.empty()) {
    const auto given = parse_net_limit(options.net_limit);
    if (!given) return std::unexpected(given.error());
    limit = *given;
  }
  if (limit.none()) return {};
  if (config.net == control::NetKind::None) return fail("--net-limit: there is no network with --net none");
  config.net_limit = limit;
  return {};
}

}  // namespace

Result<uint64_t> parse_memory(std::string_view text, uint64_t host_bytes) {
  const auto bytes = parse_bytes(text, 20);
  if (!bytes) return fail("--memory {}: not a size; write for example 512M or 2G", text);
  if (*bytes == 0) return fail("--memory {}: a machine needs memory; at least {}M", text, VmConfig::min_memory / mib);
  if (*bytes % mib != 0) return fail("--memory {}: not a whole number of MiB; write for example 512M", text);
  if (*bytes < VmConfig::min_memory)
    return fail("--memory {}: too little; at least {}M", text, VmConfig::min_memory / mib);
  if (host_bytes != 0 && *bytes > host_bytes) {
    return fail("--memory {}: more than this host has ({} MiB); use less", text, host_bytes / mib);
  }
  if (*bytes > VmConfig::max_memory) return fail("--memory {}: more than {} GiB", text, VmConfig::max_memory >> 30);
  return *bytes;
}

Result<uint64_t> parse_size(std::string_view option, std::string_view text) {
  const auto bytes = parse_bytes(text, 20);
  if (!bytes) return fail("{} {}: not a size; write for example 4G", option, text);
  if (*bytes < 1024 * mib) return fail("{} {}: too small for a Debian system; at least 1G", option, text);
  if (*bytes > (uint64_t{16} << 40)) return fail("{} {}: more than 16T", option, text);
  if (*bytes % mib != 0) return fail("{} {}: not a whole number of MiB", option, text);
  return *bytes;
}

Result<uint64_t> parse_disk_size(std::string_view option, std::string_view text) {
  // "512B": bytes; elsewhere a bare number counts MiB.
  const bool bytes_meant =
      text.size() > 1 && text.ends_with('B') && std::isdigit(static_cast<unsigned char>(text[text.size() - 2])) != 0;
  const auto bytes = parse_bytes(bytes_meant ? text.substr(0, text.size() - 1) : text, bytes_meant ? 0 : 20);
  if (!bytes || *bytes == 0) return fail("{} {}: not a size; write for example 20G or 512M", option, text);
  if (*bytes % 512 != 0) return fail("{} {}: not a whole number of sectors of 512 bytes", option, text);
  if (*bytes > uint64_t{1} << 62) return fail("{} {}: more than 4 EiB", option, text);
  return *bytes;
}

Result<uint32_t> parse_cpus(std::string_view text) {
  const auto count = parse_number<uint32_t>(text);
  if (!count) return fail("--cpus {}: not a number; write 1 to {}", text, VmConfig::max_cpus);
  if (*count == 0) return fail("--cpus 0: a machine needs a CPU; write 1 to {}", VmConfig::max_cpus);
  if (*count > VmConfig::max_cpus) return fail("--cpus {}: too many; write 1 to {}", text, VmConfig::max_cpus);
  return *count;
}

Result<NetOption> parse_net(std::string_view text) {
  const auto words = split(text);
  if (text == "none") return NetOption{.kind = control::NetKind::None};
  if (words.front() != "user") return fail("--net {}: unknown; write user, user,model=e1000 or none", text);
  NetOption option;
  control::RateLimit limit;
  for (size_t i = 1; i < words.size(); ++i) {
    const auto taken = take_rate("--net", "pps", words[i], limit);
    if (!taken) return std::unexpected(taken.error());
    if (*taken) continue;
    if (words[i] == "model=e1000") {
      option.card = control::NetCard::E1000;
    } else if (words[i] != "model=virtio") {
      return fail("--net: no such word: {}; write model=virtio, model=e1000, bps=10M or pps=5000", words[i]);
    }
  }
  if (!limit.none()) option.limit = limit;
  return option;
}

store::DiskSpec to_spec(const DiskOption& disk) {
  std::error_code error;
  return {std::filesystem::absolute(disk.path, error).string(), disk.read_only,
          disk.format ? std::string{name_of(*disk.format)} : "", disk.bus, disk.limit};
}

Result<DiskOption> parse_disk(std::string_view text) {
  DiskOption disk;
  constexpr std::string_view format = "format=";
  // Only what is known at the end: a file's name may have commas.
  for (auto comma = text.rfind(','); comma != std::string_view::npos; comma = text.rfind(',')) {
    const std::string_view word = text.substr(comma + 1);
    if (word == "ro") {
      disk.read_only = true;
    } else if (word.starts_with(format)) {
      disk.format = format_named(word.substr(format.size()));
      if (!disk.format) return fail("--disk: no such format: {}; write format=raw or format=qcow2", word);
    } else if (word.starts_with("bps=") || word.starts_with("iops=")) {
      control::RateLimit limit = disk.limit.value_or(control::RateLimit{});
      if (auto taken = take_rate("--disk", "iops", word, limit); !taken) return std::unexpected(taken.error());
      disk.limit = limit;
    } else if (word.starts_with("bus=")) {
      if (word == "bus=virtio") {
        disk.bus = control::DiskBus::Virtio;
      } else if (word == "bus=sata") {
        disk.bus = control::DiskBus::Sata;
      } else if (word == "bus=nvme") {
        disk.bus = control::DiskBus::Nvme;
      } else if (word == "bus=usb") {
        disk.bus = control::DiskBus::Usb;
      } else {
        return fail("--disk: no such bus: {}; write bus=virtio, bus=sata, bus=nvme or bus=usb", word);
      }
    } else {
      break;
    }
    text.remove_suffix(text.size() - comma);
  }
  if (disk.read_only && disk.bus == control::DiskBus::Sata) {
    return fail("--disk {}: a Serial ATA disk cannot tell the guest that it is read-only; leave out ro or bus=sata",
                text);
  }
  if (text.empty()) return fail("--disk: no file named; write FILE or FILE,ro");
  disk.path = text;
  return disk;
}

Result<life::HostPort> parse_host_port(std::string_view text) {
  life::HostPort host;
  std::string_view rest = text;
  if (rest.starts_with("tcp:")) {
    rest.remove_prefix(4);
  } else if (rest.starts_with("udp:")) {
    host.protocol = control::Protocol::Udp;
    rest.remove_prefix(4);
  }
  if (const auto colon = rest.rfind(':'); colon != std::string_view::npos) {
    host.address = rest.substr(0, colon);
    rest = rest.substr(colon + 1);
    in_addr address{};
    if (::inet_pton(AF_INET, host.address->c_str(), &address) != 1) {
      return fail("{}: {} is not an IPv4 address", text, *host.address);
    }
  }
  const auto port = parse_number<uint32_t>(rest);
  if (!port) return fail("{}: not a port; write for example 8080, udp:5353 or 0.0.0.0:80", text);
  if (*port == 0 || *port > 65535) return fail("{}: port {} does not exist; ports are 1 to 65535", text, *port);
  host.port = *port;
  return host;
}

Result<control::PortForward> parse_forward(std::string_view text) {
  const auto colon = text.rfind(':');
  const auto guest = colon == std::string_view::npos ? std::nullopt : parse_number<uint32_t>(text.substr(colon + 1));
  if (!guest) {
    return fail("-p {}: not a port forward; write HOST:GUEST, for example 2222:22 or udp:5353:53", text);
  }
  if (*guest == 0 || *guest > 65535) return fail("-p {}: port {} does not exist; ports are 1 to 65535", text, *guest);
  auto host = parse_host_port(text.substr(0, colon));
  if (!host) return with_context("-p", host.error());
  control::PortForward forward;
  forward.protocol = host->protocol;
  if (host->address) forward.host_address = *host->address;
  forward.host_port = host->port;
  forward.guest_port = *guest;
  return forward;
}

Result<std::vector<std::string>> parse_jit_off(const std::vector<std::string>& given) {
  std::vector<std::string> names;
  for (const std::string_view text : given) {
    for (const std::string_view name : split(text)) {
      if (std::ranges::find(control::jit_classes, name, &control::JitClass::name) == control::jit_classes.end()) {
        return fail("--jit-off {}: there is no such class; see caisson run --help", name);
      }
      if (std::ranges::find(names, name) == names.end()) names.emplace_back(name);
    }
  }
  return names;
}

Result<> take_file(RunOptions& options) {
  const auto disk = parse_disk(options.target);
  if (!disk) return {};  // no words of --disk, no file: an image's name, or what is wrong with that is said there
  const auto ends = [&](std::string_view suffix) { return disk->path.ends_with(suffix); };
  const bool disc = ends(".iso");
  if (!disc && disk->path.find('/') == std::string::npos && !ends(".qcow2") && !ends(".raw") && !ends(".img"))
    return {};
  if (!options.kernel.empty()) {
    return fail("{}: with --kernel give it as --disk or --cdrom", options.target);
  }
  if (options.firmware.empty()) options.firmware = "bios";
  if (disc) {
    if (options.target != disk->path) return fail("{}: a disc needs no more than its file's name", options.target);
    options.cdroms.insert(options.cdroms.begin(), options.target);
    if (options.boot.empty()) options.boot = "cdrom";
  } else {
    options.disks.insert(options.disks.begin(), options.target);
  }
  options.target.clear();
  return {};
}

Result<VmConfig> to_config(const RunOptions& options, std::string_view default_append) {
  VmConfig config;
  config.name = options.name.empty() ? "vm" : options.name;
  if (auto ok = store::check_name("--name", config.name); !ok) return std::unexpected(ok.error());

  config.cpus = std::min(2u, life::host_cpus());
  if (!options.cpus.empty()) {
    auto cpus = parse_cpus(options.cpus);
    if (!cpus) return std::unexpected(cpus.error());
    config.cpus = *cpus;
  }
  const uint64_t host_bytes = life::host_memory_bytes();
  if (options.memory.empty()) {
    config.memory_bytes = life::usual_memory(host_bytes);
  } else {
    auto memory = parse_memory(options.memory, host_bytes);
    if (!memory) return std::unexpected(memory.error());
    config.memory_bytes = *memory;
  }

  constexpr std::array<std::string_view, 5> models{"auto", "x86-64-v2", "x86-64-v3", "x86-64-v4", "host"};
  if (std::find(models.begin(), models.end(), options.cpu_model) == models.end()) {
    return fail("--cpu-model {}: unknown; write x86-64-v2, x86-64-v3, x86-64-v4, host or auto", options.cpu_model);
  }
  config.cpu_model = options.cpu_model;

  if (options.engine == "jit") {
    config.engine = control::EngineChoice::Jit;
  } else if (options.engine == "kvm") {
    config.engine = control::EngineChoice::Kvm;
  } else if (options.engine != "auto") {
    return fail("--engine {}: unknown; write auto, jit or kvm", options.engine);
  }
  if (auto ok = take_net(options, config); !ok) return std::unexpected(ok.error());
  if (options.firmware == "bios") {
    config.firmware = control::FirmwareKind::Bios;
  } else if (options.firmware == "uefi") {
    config.firmware = control::FirmwareKind::Uefi;
  } else if (!options.firmware.empty()) {
    return fail("--firmware {}: unknown; write bios or uefi", options.firmware);
  }
  if (config.firmware != control::FirmwareKind::None) {
    if (!options.kernel.empty() || !options.initrd.empty() || !options.append.empty()) {
      return fail("--firmware starts what is on the disks; leave out --kernel, --initrd and --append");
    }
  } else if (!options.firmware_log.empty()) {
    return fail("--firmware-log: there is no firmware without --firmware bios or uefi");
  }
  if (!options.firmware_vars.empty() && config.firmware != control::FirmwareKind::Uefi) {
    return fail("--firmware-vars: only --firmware uefi has variables");
  }
  config.vsock = options.vsock;
  if (!options.cpu_cap.empty()) {
    const auto cap = parse_cpu_cap(options.cpu_cap);
    if (!cap) return std::unexpected(cap.error());
    config.cpu_cap_percent = *cap;
  }
  if (!options.cpu_share.empty()) {
    const auto share = parse_cpu_share(options.cpu_share);
    if (!share) return std::unexpected(share.error());
    config.cpu_share = *share;
  }
  config.balloon = options.balloon.value_or(config.balloon);
  for (const auto& text : options.forwards) {
    auto forward = parse_forward(text);
    if (!forward) return std::unexpected(forward.error());
    if (config.net == control::NetKind::None) return fail("-p {}: needs a network; leave out --net none", text);
    config.forwards.push_back(*forward);
  }
  if (config.forwards.size() > VmConfig::max_forwards) {
    return fail("-p: {} forwards, at most {} are possible", config.forwards.size(), VmConfig::max_forwards);
  }
  if (options.disks.size() + options.cdroms.size() > VmConfig::max_disks) {
    return fail("--disk: {} disks, at most {} are possible", options.disks.size() + options.cdroms.size(),
                VmConfig::max_disks);
  }
  if (options.boot == "cdrom") {
    config.boot_first = control::BootFirst::Cdrom;
  } else if (!options.boot.empty() && options.boot != "disk") {
    return fail("--boot {}: unknown; write disk or cdrom", options.boot);
  }
  auto off = parse_jit_off(options.jit_off);
  if (!off) return std::unexpected(off.error());
  config.jit_off = std::move(*off);
  for (const std::string_view text : options.dump_at) {
    for (const std::string_view one : split(text)) {
      const std::string_view digits = one.starts_with("0x") ? one.substr(2) : one;
      uint64_t value = 0;
      const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
      if (error != std::errc{} || end != digits.data() + digits.size()) {
        return fail("--dump-at {}: not a hexadecimal address", text);
      }
      config.dump_at.push_back(fmt::format("{:x}", value));
    }
  }
  if (config.dump_at.size() > 64) return fail("--dump-at: at most 64 addresses");
  if (!config.dump_at.empty() && options.dump_blocks.empty()) {
    return fail("--dump-at says which blocks --dump-blocks writes; give that, too");
  }

  auto append = life::command_line(default_append, options.append);
  if (!append) return with_context("--append", append.error());
  config.append = *append;
  config.display = options.display;
  if (options.graphics == "virtio") {
    if (config.firmware == control::FirmwareKind::Bios) {
      return fail("--graphics virtio: BIOS firmware needs a VGA; use --firmware uefi, or leave it out");
    }
    config.graphics = control::Graphics::Virtio;
    config.display = true;
  } else if (!options.graphics.empty() && options.graphics != "vga") {
    return fail("--graphics {}: unknown; write vga or virtio", options.graphics);
  }
  if (options.tablet == "usb") {
    config.tablet = control::Tablet::Usb;
    config.display = true;
  } else if (!options.tablet.empty() && options.tablet != "virtio") {
    return fail("--tablet {}: unknown; write virtio or usb", options.tablet);
  }
  if (!options.vnc.empty() && options.vnc != "none") {
    if (auto ok = life::check_vnc(options.vnc); !ok) return std::unexpected(ok.error());
  } else if (!options.vnc_password_file.empty()) {
    return fail("--vnc-password-file: nobody is asked without --vnc");
  }
  if (!options.keyboard_layout.empty()) {
    constexpr auto& names = control::keyboard_layouts;
    const auto found = std::ranges::find(names, options.keyboard_layout);
    if (found == names.end())
      return fail("--keyboard-layout {}: unknown; write us, de, fr or uk", options.keyboard_layout);
    config.keyboard_layout = static_cast<control::KeyboardLayout>(found - names.begin());
  }
  config.no_reboot = options.no_reboot;
  config.debug_exit = options.debug_exit;
  config.lockstep = options.lockstep;
  config.profile = options.profile;
  const bool for_jit = !config.jit_off.empty() || config.lockstep || config.profile || !options.dump_blocks.empty();
  if (config.engine == control::EngineChoice::Kvm && for_jit) {
    return fail("--jit-off, --lockstep, --profile and --dump-blocks are for the jit engine; leave out --engine kvm");
  }
  return config;
}

}  // namespace caisson::cli
