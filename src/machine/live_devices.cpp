#include "machine/live_devices.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <utility>

#include <fcntl.h>
#include <fmt/core.h>

namespace caisson::machine {
namespace {

constexpr std::string_view card_name = "network card";

std::string disk_name(std::string_view label) { return fmt::format("disk {}", label); }

}  // namespace

LiveDevices::LiveDevices(Parts parts, Tell tell) : parts_(parts), tell_(std::move(tell)) {
  parts_.registers.connect(this);
}

LiveDevices::~LiveDevices() { parts_.registers.connect(nullptr); }

uint32_t LiveDevices::slots() const { return ~(parts_.fixed_slots | 1u); }

LiveDevices::Leaving* LiveDevices::leaving(unsigned slot) {
  const auto found = std::ranges::find(leaving_, slot, &Leaving::slot);
  return found == leaving_.end() ? nullptr : &*found;
}

Result<unsigned> LiveDevices::free_slot() const {
  // What is out of its slot but not gone yet has its backend still.
  uint32_t taken = occupied();
  for (const Leaving& one : leaving_) taken |= 1u << one.slot;
  const uint32_t free = slots() & ~taken;
  if (free == 0) return fail("all slots of the machine are taken; detach something first");
  return static_cast<unsigned>(std::countr_zero(free));
}

void LiveDevices::arrived(unsigned slot, std::string device) {
  parts_.registers.inserted(slot);
  tell_(control::DeviceAttached{std::move(device)});
}

Result<> LiveDevices::attach_disk(const control::AttachDisk& request, const std::vector<Fd>& fds) {
  if (!control::comes_and_goes(request.disk.bus)) {
    return fail(
        "Serial ATA disks, discs and USB sticks cannot be added while a machine runs; stop it first, or use "
        "bus=virtio");
  }
  if (parts_.disks.count() >= control::VmConfig::max_disks) {
    return fail("the machine has {} disks, which is the most it can have", parts_.disks.count());
  }
  if (parts_.disks.find(request.disk.label)) return fail("the machine has the disk {} already", request.disk.label);
  const auto slot = free_slot();
  if (!slot) return std::unexpected(slot.error());
  // The lock on the file is the open file's, which these share.
  std::vector<Fd> own;
  for (const Fd& fd : fds) {
    own.emplace_back(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 0));
    if (!own.back().valid()) return fail_errno(errno, "cannot keep the disk's files");
  }
  control::DiskConfig config = request.disk;
  config.serial.clear();
  if (auto added = parts_.disks.add_one(std::move(config), own, parts_.loop, parts_.bridge, parts_.services, *slot);
      !added) {
    return added;
  }
  arrived(*slot, disk_name(request.disk.label));
  return {};
}

Result<> LiveDevices::attach_net(const control::AttachNet& request) {
  if (parts_.network) return fail("the machine has a network card already");
  const auto slot = free_slot();
  if (!slot) return std::unexpected(slot.error());
  auto network = Network::create(parts_.loop, request.forwards);
  if (!network) return std::unexpected(network.error());
  parts_.network = std::move(*network);
  parts_.network->plug(request.card, parts_.bridge, parts_.services, parts_.clock, *slot);
  arrived(*slot, std::string{card_name});
  return {};
}

Result<> LiveDevices::grow_disk(const control::GrowDisk& request) {
  auto found = parts_.disks.find(request.label);
  if (!found) return std::unexpected(found.error());
  Disks::Disk& disk = **found;
  if (leaving(disk.slot) != nullptr) return fail("the disk {} is being detached", request.label);
  if (disk.virtio == nullptr) {
    return fail("the disk {} is not a virtio one, and only those grow while a machine runs; stop it first",
                request.label);
  }
  const uint64_t now = disk.image->size();
  if (request.bytes % 512 != 0) return fail("{} bytes are not whole sectors of 512 bytes", request.bytes);
  const uint64_t bytes = request.by ? now + request.bytes : request.bytes;
  if (bytes < now) {
    return fail("the disk {} has {} bytes and cannot become smaller while a machine runs; stop it first", request.label,
                now);
  }
  if (bytes == now) return {};
  parts_.bridge.in_slot(disk.slot)->quiesce();
  if (auto grown = disk.image->grow(bytes); !grown) return with_context(disk_name(request.label), grown.error());
  disk.virtio->size_changed();
  tell_(control::DiskGrown{disk_name(request.label), bytes});
  return {};
}

Result<> LiveDevices::detach(unsigned slot, std::string device, bool network, const ControlServer::Reply& reply) {
  if ((slots() >> slot & 1) == 0) return fail("the {} cannot leave a running machine; stop it first", device);
  if (leaving(slot) != nullptr) return fail("the {} is being detached already", device);
  Leaving& one = leaving_.emplace_back(Leaving{slot, std::move(device), network, reply});
  one.timer = parts_.loop.create_timer([this, slot] { refused(slot); });
  one.timer->arm(EventLoop::now_ns() + control::detach_patience_ms * 1'000'000);
  parts_.registers.want_back(slot);
  return {};
}

void LiveDevices::ejected(unsigned slot) {
  if ((slots() >> slot & 1) == 0 || (occupied() >> slot & 1) == 0) return;
  Leaving* const one = leaving(slot);
  if (one == nullptr) {
    parts_.registers.inserted(slot);
    return;
  }
  one->function = parts_.bridge.unplug(slot);
  // Not here: what a backend leaves to do is the event loop's.
  parts_.loop.post([this, slot] { gone(slot); });
}

void LiveDevices::gone(unsigned slot) {
  const auto found = std::ranges::find(leaving_, slot, &Leaving::slot);
  if (found == leaving_.end() || !found->function) return;
  found->function.reset();
  if (found->network) {
    parts_.network.reset();
  } else {
    parts_.disks.close(slot);
  }
  const auto reply = std::move(found->reply);
  const control::DeviceDetached event{std::move(found->device)};
  leaving_.erase(found);
  tell_(event);
  reply(control::Done{}, {});
}

void LiveDevices::refused(unsigned slot) {
  const auto found = std::ranges::find(leaving_, slot, &Leaving::slot);
  if (found == leaving_.end() || found->function) return;
  parts_.registers.want_no_more(slot);
  const auto reply = std::move(found->reply);
  const control::Refused answer{
      fmt::format("the guest has not let go of the {} in {} s, so it stays; a guest without ACPI hot-plug cannot: stop "
                  "the machine first",
                  found->device, control::detach_patience_ms / 1000)};
  // Not from within its own handler.
  parts_.loop.post([timer = std::shared_ptr<EventLoop::Timer>(std::move(found->timer))] {});
  leaving_.erase(found);
  reply(answer, {});
}

void LiveDevices::was_reset() {
  std::vector<unsigned> slots;
  for (Leaving& one : leaving_) {
    if (!one.function) one.function = parts_.bridge.unplug(one.slot);
    slots.push_back(one.slot);
  }
  for (const unsigned slot : slots) gone(slot);
}

bool LiveDevices::handle(const control::Request& request, const std::vector<Fd>& fds, bool paused,
                         const ControlServer::Reply& reply) {
  const auto answer = [&](const Result<>& done) {
    reply(done ? control::Event{control::Done{}} : control::Refused{done.error().message}, {});
  };
  // Answered when the guest has let go.
  const auto leave = [&](Result<> asked) {
    if (!asked) answer(asked);
  };
  const auto* const detach_disk = std::get_if<control::DetachDisk>(&request);
  if (detach_disk != nullptr || std::holds_alternative<control::DetachNet>(request)) {
    if (paused) {
      answer(fail("the machine is paused and cannot let go of a device; resume it first"));
    } else if (detach_disk == nullptr) {
      leave(parts_.network ? detach(parts_.network->slot(), std::string{card_name}, true, reply)
                           : fail("the machine has no network card"));
    } else if (const auto disk = parts_.disks.find(detach_disk->label); !disk) {
      answer(std::unexpected(disk.error()));
    } else if (!control::comes_and_goes((*disk)->bus)) {
      answer(fail("Serial ATA disks, discs and USB sticks cannot leave a running machine; stop it first"));
    } else {
      leave(detach((*disk)->slot, disk_name(detach_disk->label), false, reply));
    }
  } else if (const auto* attach = std::get_if<control::AttachDisk>(&request)) {
    answer(attach_disk(*attach, fds));
  } else if (const auto* net = std::get_if<control::AttachNet>(&request)) {
    answer(attach_net(*net));
  } else if (const auto* grow = std::get_if<control::GrowDisk>(&request)) {
    answer(grow_disk(*grow));
  } else {
    return false;
  }
  return true;
}

}  // namespace caisson::machine
