#include "machine/disks.h"

#include <algorithm>
#include <optional>
#include <tuple>
#include <utility>

#include <fmt/core.h>

#include "backend/disk_chain.h"
#include "backend/qcow2_disk.h"
#include "backend/raw_image.h"
#include "devices/pci/host_bridge.h"
#include "devices/storage/ata_disk.h"
#include "devices/storage/attach.h"
#include "devices/storage/cdrom.h"
#include "machine/limits.h"

namespace caisson::machine {
namespace {

Result<std::unique_ptr<BlockBackend>> open_image(const control::DiskConfig& disk, std::vector<Fd>& fds,
                                                 EventLoop& loop) {
  const auto take = [&](uint32_t index) { return std::move(fds[index]); };
  if (disk.format == control::DiskImage::Raw) {
    return RawImage::create(loop, take(disk.image_fd),
                            {.name = disk.label, .id = disk.serial, .read_only = disk.read_only});
  }
  std::vector<DiskLayer> layers;
  for (const control::DiskLayerConfig& layer : disk.backing) {
    layers.push_back({take(layer.image_fd),
                      layer.format == control::DiskImage::Raw ? DiskFormat::Raw : DiskFormat::Qcow2, layer.label});
  }
  auto backing = assemble_backing(std::move(layers));
  if (!backing) return std::unexpected(backing.error());
  auto image = qcow2::Image::open(take(disk.image_fd),
                                  {.name = disk.label, .read_only = disk.read_only, .backing = std::move(*backing)});
  if (!image) return std::unexpected(image.error());
  return Qcow2Disk::create(loop, std::move(*image), {.name = disk.label, .id = disk.serial});
}

}  // namespace

Result<> Disks::add_one(control::DiskConfig config, std::vector<Fd>& fds, EventLoop& loop, pci::HostBridge& bridge,
                        const virtio::Services& services, unsigned slot) {
  for (unsigned number = 0; config.serial.empty(); ++number) {
    std::string serial = fmt::format("caisson-{}", number);
    if (std::ranges::none_of(disks_, [&](const Disk& disk) { return disk.serial == serial; })) config.serial = serial;
  }
  auto image = open_image(config, fds, loop);
  if (!image) return std::unexpected(image.error());
  Disk& disk = disks_.emplace_back(
      Disk{config.label, config.serial, config.bus, std::make_unique<LimitedDisk>(loop, std::move(*image)), slot});
  if (config.limit) disk.image->set_limit(to_backend(*config.limit));
  if (config.bus == control::DiskBus::Virtio) {
    disk.virtio = &virtio::add_blk(bridge, services, *disk.image, {.serial = config.serial}, slot);
  } else {
    std::ignore = storage::add_nvme(bridge, services.memory, services.msi, *disk.image, config.serial, slot);
  }
  return {};
}

Result<Disks::Disk*> Disks::find(std::string_view label) {
  Disk* found = nullptr;
  for (Disk& disk : disks_) {
    // A file of the machine's folder by its name alone: the folder may have been renamed since the start.
    const bool in_folder = label.find('/') == std::string_view::npos && disk.label.ends_with(fmt::format("/{}", label));
    if (disk.label != label && !in_folder) continue;
    if (found != nullptr) return fail("the machine has the disk {} several times; stop it first", label);
    found = &disk;
  }
  if (found == nullptr) return fail("the running machine has no disk {}", label);
  return found;
}

void Disks::close(unsigned slot) {
  std::erase_if(disks_, [&](const Disk& disk) { return disk.slot == slot; });
}

Result<> Disks::add(const control::VmConfig& config, std::vector<Fd>& fds, EventLoop& loop, pci::HostBridge& bridge,
                    const virtio::Services& services, UsbPorts& usb) {
  std::optional<storage::AddedAhci> ahci;
  std::vector<boot::firmware::BootDevice> cdroms;
  for (const control::DiskConfig& disk : config.disks) {
    if (control::comes_and_goes(disk.bus)) {
      const unsigned slot = *bridge.free_slot();
      if (auto added = add_one(disk, fds, loop, bridge, services, slot); !added) return added;
      boot_order_.push_back({.slot = slot, .nvme = disk.bus == control::DiskBus::Nvme});
      continue;
    }
    auto image = open_image(disk, fds, loop);
    if (!image) return std::unexpected(image.error());
    auto limited = std::make_unique<LimitedDisk>(loop, std::move(*image));
    Disk& added = disks_.emplace_back(Disk{disk.label, disk.serial, disk.bus, std::move(limited)});
    LimitedDisk& backend = *added.image;
    if (disk.limit) backend.set_limit(to_backend(*disk.limit));
    if (disk.bus == control::DiskBus::Usb) {
      // As many as VmConfig::max_usb.
      const auto place = usb.connect(std::make_unique<usb::Stick>(backend, disk.serial));
      if (!place) return fail("{}: all USB ports are taken", disk.label);
      added.slot = place->slot;
      boot_order_.push_back({.slot = place->slot, .usb_port = place->port});
      continue;
    }
    if (!ahci) ahci.emplace(storage::add_ahci(bridge, services.memory));
    added.slot = ahci->slot;
    const unsigned port = *ahci->controller.free_port();
    const bool cdrom = disk.bus == control::DiskBus::Cdrom;
    if (cdrom) {
      ahci->controller.connect(port, std::make_unique<storage::Cdrom>(&backend), &backend);
    } else {
      ahci->controller.connect(port, std::make_unique<storage::AtaDisk>(backend, disk.serial), &backend);
    }
    (cdrom ? cdroms : boot_order_).push_back({.slot = ahci->slot, .port = static_cast<int>(port)});
  }
  const bool first = config.boot_first == control::BootFirst::Cdrom;
  boot_order_.insert(first ? boot_order_.begin() : boot_order_.end(), cdroms.begin(), cdroms.end());
  return {};
}

void Disks::drain() {
  for (Disk& disk : disks_) disk.image->drain();
}

}  // namespace caisson::machine
