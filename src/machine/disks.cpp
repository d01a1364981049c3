#include "machine/disks.h"

#include <optional>
#include <utility>

#include "backend/disk_chain.h"
#include "backend/qcow2_disk.h"
#include "backend/raw_image.h"
#include "devices/pci/host_bridge.h"
#include "devices/storage/ata_disk.h"
#include "devices/storage/attach.h"
#include "devices/storage/cdrom.h"

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

Result<> Disks::add(const control::VmConfig& config, std::vector<Fd>& fds, EventLoop& loop, pci::HostBridge& bridge,
                    const virtio::Services& services) {
  std::optional<storage::AddedAhci> ahci;
  std::vector<boot::firmware::BootDevice> cdroms;
  for (const control::DiskConfig& disk : config.disks) {
    auto image = open_image(disk, fds, loop);
    if (!image) return std::unexpected(image.error());
    images_.push_back(std::move(*image));
    BlockBackend& backend = *images_.back();
    if (disk.bus == control::DiskBus::Virtio) {
      const unsigned slot = *bridge.free_slot();
      virtio::add_blk(bridge, services, backend, {.serial = disk.serial}, slot);
      boot_order_.push_back({.slot = slot});
      continue;
    }
    if (disk.bus == control::DiskBus::Nvme) {
      const unsigned slot = storage::add_nvme(bridge, services.memory, services.msi, backend, disk.serial);
      boot_order_.push_back({.slot = slot, .nvme = true});
      continue;
    }
    if (!ahci) ahci.emplace(storage::add_ahci(bridge, services.memory));
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
  for (auto& image : images_) image->drain();
}

}  // namespace caisson::machine
