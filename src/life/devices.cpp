#include "life/devices.h"

#include <algorithm>
#include <utility>

#include <sys/stat.h>

#include "control/messages.h"
#include "life/machine_files.h"
#include "life/vm_client.h"
#include "store/store.h"

namespace caisson::life {
namespace {

using store::DiskSpec;
using store::VmFolder;
using store::VmSpec;

constexpr uint64_t detach_timeout_ms = control::detach_patience_ms + 10'000;

std::string full_path(const VmFolder& folder, const DiskSpec& disk) {
  return disk.path.find('/') == std::string::npos ? folder.file(disk.path) : disk.path;
}

bool same_file(const std::string& left, const std::string& right) {
  struct stat one {
  }, other{};
  if (left == right) return true;
  if (::stat(left.c_str(), &one) != 0 || ::stat(right.c_str(), &other) != 0) return false;
  return one.st_dev == other.st_dev && one.st_ino == other.st_ino;
}

// Its index in the configuration.
Result<size_t> find_disk(const VmFolder& folder, const VmSpec& spec, const std::string& item) {
  const auto file_name = [](const std::string& path) { return path.substr(path.rfind('/') + 1); };
  for (size_t i = 0; i < spec.disks.size(); ++i) {
    if (spec.disks[i].path == item || same_file(full_path(folder, spec.disks[i]), item)) return i;
  }
  std::optional<size_t> found;
  for (size_t i = 0; i < spec.disks.size(); ++i) {
    if (file_name(spec.disks[i].path) != item) continue;
    if (found) return fail("machine {} has several disks named {}; write the path", folder.name(), item);
    found = i;
  }
  if (!found) {
    return fail("machine {} has no disk {}; caisson inspect {} shows what it has", folder.name(), item, folder.name());
  }
  return *found;
}

std::string label_of(const VmFolder& folder, const DiskSpec& disk) { return label(full_path(folder, disk)); }

Result<> check_room(const VmFolder& folder, const VmSpec& spec, const DiskSpec& disk) {
  for (const DiskSpec& one : spec.disks) {
    if (same_file(full_path(folder, one), disk.path)) {
      return fail("machine {} has the disk {} already", folder.name(), disk.path);
    }
  }
  if (spec.disks.size() >= control::VmConfig::max_disks) {
    return fail("machine {} has {} disks, which is the most it can have", folder.name(), spec.disks.size());
  }
  const auto sata = std::ranges::count_if(spec.disks, [](const DiskSpec& one) { return control::is_sata(one.bus); });
  if (control::is_sata(disk.bus) && sata >= static_cast<std::ptrdiff_t>(control::VmConfig::max_sata)) {
    return fail("machine {} has {} Serial ATA disks and discs, which is the most it can have", folder.name(), sata);
  }
  const auto sticks = std::ranges::count(spec.disks, control::DiskBus::Usb, &DiskSpec::bus);
  if (disk.bus == control::DiskBus::Usb && sticks >= static_cast<std::ptrdiff_t>(control::VmConfig::max_usb)) {
    return fail("machine {} has {} USB sticks, which is the most it can have", folder.name(), sticks);
  }
  return {};
}

}  // namespace

Result<> attach_disk(const VmFolder& folder, const DiskSpec& disk, Really really) {
  const auto lock = folder.lock();
  if (!lock) return std::unexpected(lock.error());
  auto spec = folder.spec();
  if (!spec) return std::unexpected(spec.error());
  if (auto ok = check_room(folder, *spec, disk); !ok) return ok;
  const bool alive = folder.alive();
  if (alive && !control::comes_and_goes(disk.bus)) {
    return fail("machine {} runs, and Serial ATA and USB disks cannot be added then; stop it first, or use bus=virtio",
                folder.name());
  }
  // With the locks by which no other machine has it.
  Machine opened;
  if (auto added = add_disk(opened, *spec, disk, folder.path()); !added) return added;
  spec->disks.push_back(disk);
  if (auto ok = spec->validate(); !ok) return ok;
  if (really == Really::No) return {};
  if (!alive) return folder.save(*spec);
  auto client = VmClient::connect(folder);
  if (!client) return std::unexpected(client.error());
  std::vector<int> numbers;
  for (const Fd& fd : opened.fds) numbers.push_back(fd.get());
  // First where it can fail. Killed in between it is there until the machine's end.
  const control::DiskConfig& config = opened.config.disks.back();
  if (auto answer = client->ask(control::AttachDisk{config}, VmClient::patience_ms, numbers); !answer) {
    return std::unexpected(answer.error());
  }
  auto saved = folder.save(*spec);
  if (!saved) (void)client->ask(control::DetachDisk{config.label}, detach_timeout_ms);
  return saved;
}

Result<> attach_net(const VmFolder& folder, control::NetCard card, std::optional<control::RateLimit> limit,
                    Really really) {
  const auto lock = folder.lock();
  if (!lock) return std::unexpected(lock.error());
  auto spec = folder.spec();
  if (!spec) return std::unexpected(spec.error());
  if (spec->net != control::NetKind::None) {
    return fail("machine {} has a network card, and can have one only; take it away first with: caisson detach {} net",
                folder.name(), folder.name());
  }
  spec->net = control::NetKind::User;
  spec->net_card = card;
  if (limit) spec->net_limit = limit;
  if (really == Really::No) return {};
  if (!folder.alive()) return folder.save(*spec);
  auto client = VmClient::connect(folder);
  if (!client) return std::unexpected(client.error());
  if (auto answer = client->ask(control::AttachNet{card, spec->forwards}); !answer) {
    return std::unexpected(answer.error());
  }
  Result<> done;
  if (spec->net_limit) {
    control::SetLimits limits;
    limits.net = spec->net_limit;
    if (auto answer = client->ask(limits); !answer) done = std::unexpected(answer.error());
  }
  if (done) done = folder.save(*spec);
  if (!done) (void)client->ask(control::DetachNet{}, detach_timeout_ms);
  return done;
}

Result<> detach_disk(const VmFolder& folder, const std::string& item, Really really) {
  const auto lock = folder.lock();
  if (!lock) return std::unexpected(lock.error());
  auto spec = folder.spec();
  if (!spec) return std::unexpected(spec.error());
  const auto index = find_disk(folder, *spec, item);
  if (!index) return std::unexpected(index.error());
  const DiskSpec disk = spec->disks[*index];
  const bool starts_from_it = *index == 0 && (!spec->image.empty() || spec->firmware != control::FirmwareKind::None);
  if (starts_from_it) {
    return fail("machine {} starts from the disk {}, so it stays; caisson rm {} removes the machine", folder.name(),
                item, folder.name());
  }
  const bool alive = folder.alive();
  if (alive && !control::comes_and_goes(disk.bus)) {
    return fail("machine {} runs, and Serial ATA disks, discs and USB sticks stay then; stop it first", folder.name());
  }
  spec->disks.erase(spec->disks.begin() + static_cast<std::ptrdiff_t>(*index));
  if (really == Really::No) return {};
  if (alive) {
    auto client = VmClient::connect(folder);
    if (!client) return std::unexpected(client.error());
    auto answer = client->ask(control::DetachDisk{label_of(folder, disk)}, detach_timeout_ms);
    if (!answer) return std::unexpected(answer.error());
  }
  return folder.save(*spec);
}

Result<> detach_net(const VmFolder& folder, Really really) {
  const auto lock = folder.lock();
  if (!lock) return std::unexpected(lock.error());
  auto spec = folder.spec();
  if (!spec) return std::unexpected(spec.error());
  if (spec->net == control::NetKind::None) return fail("machine {} has no network card", folder.name());
  if (!spec->forwards.empty()) {
    return fail(
        "machine {} has port forwards, which need its network card; take them away first with: caisson port {} "
        "--rm {}",
        folder.name(), folder.name(), spec->forwards.front().host_port);
  }
  spec->net = control::NetKind::None;
  spec->net_limit.reset();
  if (really == Really::No) return {};
  if (folder.alive()) {
    auto client = VmClient::connect(folder);
    if (!client) return std::unexpected(client.error());
    if (auto answer = client->ask(control::DetachNet{}, detach_timeout_ms); !answer) {
      return std::unexpected(answer.error());
    }
  }
  return folder.save(*spec);
}

Result<> grow_disk(const VmFolder& folder, const std::string& item, uint64_t bytes, bool by, Really really) {
  const auto lock = folder.lock();
  if (!lock) return std::unexpected(lock.error());
  const auto spec = folder.spec();
  if (!spec) return std::unexpected(spec.error());
  const auto index = find_disk(folder, *spec, item);
  if (!index) return std::unexpected(index.error());
  const DiskSpec& disk = spec->disks[*index];
  if (disk.read_only) return fail("machine {} has the disk {} read-only", folder.name(), item);
  if (really == Really::No) return folder.alive() ? Result<>{} : fail("machine {} is not running", folder.name());
  auto client = VmClient::connect(folder);
  if (!client) return std::unexpected(client.error());
  auto answer = client->ask(control::GrowDisk{label_of(folder, disk), bytes, by});
  if (!answer) return std::unexpected(answer.error());
  return {};
}

std::optional<VmFolder> user_of_disk(const std::string& path) {
  auto store = store::Store::open();
  if (!store) return std::nullopt;
  const auto names = store->names();
  if (!names) return std::nullopt;
  for (const std::string& name : *names) {
    auto folder = store->find(name);
    if (!folder || !folder->alive()) continue;
    const auto spec = folder->spec();
    if (!spec) continue;
    for (const DiskSpec& disk : spec->disks) {
      if (!disk.read_only && same_file(full_path(*folder, disk), path)) return std::move(*folder);
    }
  }
  return std::nullopt;
}

}  // namespace caisson::life
