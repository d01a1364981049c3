#include "control/vm_config.h"

#include <algorithm>
#include <vector>

#include <arpa/inet.h>

#include "control/vm_config_table.h"

namespace caisson::control {
namespace {

// Which of those that came are named already: each stands for itself alone.
struct Descriptors {
  std::vector<bool> used;

  Result<> take(uint32_t index, std::string_view what) {
    if (index >= used.size())
      return fail("VM configuration: {} is {} but {} descriptors came", what, index, used.size());
    if (used[index]) return fail("VM configuration: {} names descriptor {} a second time", what, index);
    used[index] = true;
    return {};
  }
};

Result<> check_disk(const DiskConfig& disk, Descriptors& taken) {
  if (disk.bus == DiskBus::Cdrom && !disk.read_only) return fail("VM configuration: a CD-ROM that can be written");
  if (auto ok = taken.take(disk.image_fd, "image_fd"); !ok) return ok;
  if (!disk.backing.empty() && disk.format == DiskImage::Raw) {
    return fail("VM configuration: a raw disk with a backing file");
  }
  for (const auto& layer : disk.backing) {
    if (auto ok = taken.take(layer.image_fd, "image_fd"); !ok) return ok;
  }
  return {};
}

}  // namespace

Result<> DiskConfig::validate(size_t descriptors) const {
  Descriptors taken{std::vector<bool>(descriptors)};
  if (auto ok = check_disk(*this, taken); !ok) return ok;
  if (std::ranges::find(taken.used, false) != taken.used.end()) return fail("descriptors came that no disk has");
  return {};
}

Result<> VmConfig::validate(size_t descriptors) const {
  if (auto ok = check_bounds(*this); !ok) return with_context("VM configuration", ok.error());
  if (memory_bytes % (uint64_t{1} << 20) != 0) return fail("VM configuration: memory_bytes is not a multiple of 1 MiB");
  for (const auto& forward : forwards) {
    in_addr address{};
    if (inet_pton(AF_INET, forward.host_address.c_str(), &address) != 1) {
      return fail("VM configuration: {} is not an IPv4 address", forward.host_address);
    }
  }
  if (!forwards.empty() && net == NetKind::None) return fail("VM configuration: forwards without a network");
  if (net_limit && net == NetKind::None) return fail("VM configuration: net_limit without a network");
  Descriptors taken{std::vector<bool>(descriptors)};
  const auto take = [&](uint32_t index, std::string_view what) { return taken.take(index, what); };
  const auto take_given = [&](const std::optional<uint32_t>& index, std::string_view what) -> Result<> {
    return index ? take(*index, what) : Result<>{};
  };
  if (firmware == FirmwareKind::None) {
    if (!kernel_fd) return fail("VM configuration: neither kernel_fd nor firmware");
    if (firmware_fd || vga_bios_fd || firmware_log_fd) {
      return fail("VM configuration: descriptors for firmware without firmware");
    }
  } else {
    if (kernel_fd || initrd_fd) return fail("VM configuration: a kernel or initrd with firmware");
    if (!firmware_fd) return fail("VM configuration: firmware without firmware_fd");
  }
  if (firmware_vars_fd.has_value() != (firmware == FirmwareKind::Uefi)) {
    return fail("VM configuration: firmware_vars_fd and firmware uefi go together");
  }
  if (auto ok = take_given(kernel_fd, "kernel_fd"); !ok) return ok;
  if (auto ok = take_given(firmware_fd, "firmware_fd"); !ok) return ok;
  if (auto ok = take_given(firmware_vars_fd, "firmware_vars_fd"); !ok) return ok;
  if (auto ok = take_given(vga_bios_fd, "vga_bios_fd"); !ok) return ok;
  if (auto ok = take_given(control_fd, "control_fd"); !ok) return ok;
  if (auto ok = take_given(firmware_log_fd, "firmware_log_fd"); !ok) return ok;
  if (initrd_fd) {
    if (auto ok = take(*initrd_fd, "initrd_fd"); !ok) return ok;
  }
  if (kvm_fd) {
    if (engine == EngineChoice::Jit) return fail("VM configuration: kvm_fd with the jit engine");
    if (auto ok = take(*kvm_fd, "kvm_fd"); !ok) return ok;
  } else if (engine == EngineChoice::Kvm) {
    return fail("VM configuration: the kvm engine without kvm_fd");
  }
  const std::pair<const std::optional<uint32_t>&, std::string_view> others[]{
      {dump_fd, "dump_fd"},       {alive_fd, "alive_fd"}, {listen_fd, "listen_fd"},   {events_fd, "events_fd"},
      {serial2_fd, "serial2_fd"}, {log_fd, "log_fd"},     {old_log_fd, "old_log_fd"}, {vnc_fd, "vnc_fd"}};
  for (const auto& [index, what] : others) {
    if (!index) continue;
    if (auto ok = take(*index, what); !ok) return ok;
  }
  if (log_fd.has_value() != old_log_fd.has_value()) return fail("VM configuration: log_fd and old_log_fd go together");
  if (graphics == Graphics::Virtio && firmware == FirmwareKind::Bios) {
    return fail("VM configuration: virtio graphics with BIOS firmware, which needs a VGA");
  }
  if (vnc_fd && !display && firmware == FirmwareKind::None) return fail("VM configuration: vnc_fd without a display");
  if (!vnc_password.empty() && !vnc_fd) return fail("VM configuration: vnc_password without vnc_fd");
  if (auto ok = take(console_fd, "console_fd"); !ok) return ok;
  if (std::ranges::count_if(disks, [](const DiskConfig& disk) { return is_sata(disk.bus); }) >
      static_cast<std::ptrdiff_t>(max_sata)) {
    return fail("VM configuration: more than {} Serial ATA disks", max_sata);
  }
  if (std::ranges::count(disks, DiskBus::Usb, &DiskConfig::bus) > static_cast<std::ptrdiff_t>(max_usb)) {
    return fail("VM configuration: more than {} USB sticks", max_usb);
  }
  for (const auto& disk : disks) {
    if (auto ok = check_disk(disk, taken); !ok) return ok;
  }
  return {};
}

Result<VmConfig> VmConfig::parse(std::string_view text, size_t descriptors) {
  auto json = parse_json(text);
  if (!json) return with_context("VM configuration", json.error());
  VmConfig config;
  if (auto ok = from_json(*json, config); !ok) return with_context("VM configuration", ok.error());
  if (auto ok = config.validate(descriptors); !ok) return std::unexpected(ok.error());
  return config;
}

std::string VmConfig::serialise() const { return dump_json(to_json(*this)); }

}  // namespace caisson::control
