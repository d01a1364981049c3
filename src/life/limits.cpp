#include "life/limits.h"

#include <charconv>

#include "life/machine_files.h"
#include "life/vm_client.h"
#include "store/cpu_group.h"

namespace caisson::life {
namespace {

std::string_view file_name(std::string_view path) { return path.substr(path.rfind('/') + 1); }

}  // namespace

Result<size_t> disk_named(const store::VmSpec& spec, std::string_view disk) {
  const auto& disks = spec.disks;
  for (size_t i = 0; i < disks.size(); ++i) {
    if (disks[i].path == disk) return i;
  }
  size_t number = 0;
  const auto [end, error] = std::from_chars(disk.data(), disk.data() + disk.size(), number);
  if (error == std::errc{} && end == disk.data() + disk.size() && number < disks.size()) return number;
  std::optional<size_t> found;
  for (size_t i = 0; i < disks.size(); ++i) {
    if (file_name(disks[i].path) != disk) continue;
    if (found) return fail("there are several disks {}; name it by its number, {} or {}", disk, *found, i);
    found = i;
  }
  if (found) return *found;
  if (disks.empty()) return fail("there is no disk {}; the machine has none", disk);
  std::string list;
  for (size_t i = 0; i < disks.size(); ++i)
    list += fmt::format("{}{} ({})", i == 0 ? "" : ", ", i, file_name(disks[i].path));
  return fail("there is no disk {}; there are: {}", disk, list);
}

Result<> apply_disk_limits(const std::vector<control::DiskLimit>& limits, store::VmSpec& spec) {
  for (const control::DiskLimit& one : limits) {
    const auto index = disk_named(spec, one.disk);
    if (!index) return std::unexpected(index.error());
    auto& limit = spec.disks[*index].limit;
    limit = one.limit.none() ? std::nullopt : std::optional{one.limit};
  }
  return {};
}

Result<> apply_limits(const Change& change, store::VmSpec& spec) {
  if (auto done = apply_disk_limits(change.disk_limits, spec); !done) return done;
  if (change.net_limit) spec.net_limit = change.net_limit->none() ? std::nullopt : change.net_limit;
  if (change.cpu_cap_percent) spec.cpu_cap_percent = *change.cpu_cap_percent;
  if (change.cpu_share) spec.cpu_share = *change.cpu_share;
  return {};
}

std::optional<control::SetLimits> live_limits(const Change& change, const store::VmSpec& spec) {
  control::SetLimits limits;
  for (const control::DiskLimit& one : change.disk_limits) {
    const auto index = disk_named(spec, one.disk);
    if (index) limits.disks.push_back({label(spec.disks[*index].path), one.limit});
  }
  limits.net = change.net_limit;
  limits.cpu_cap_percent = change.cpu_cap_percent;
  limits.cpu_share = change.cpu_share;
  limits.memory_now_bytes = change.memory_now_bytes;
  if (limits == control::SetLimits{}) return std::nullopt;
  return limits;
}

namespace {

store::CpuLimit cpu_limit(const store::VmSpec& spec) { return {spec.cpu_cap_percent, spec.cpu_share}; }

// Whether a control group keeps the limits of that configuration by now; false: the VMM is to keep them.
Result<bool> limit_by_group(const store::VmFolder& folder, VmClient& client, const store::VmSpec& spec) {
  const auto answer = client.ask(control::Query{});
  if (!answer) return std::unexpected(answer.error());
  const auto* status = std::get_if<control::Status>(&answer->event);
  const std::string by = status != nullptr ? status->cpu_limits_by : "vmm";
  if (by == "vmm") return false;
  if (by == "cgroup") {
    if (auto changed = store::change_cpu_group(folder, cpu_limit(spec)); !changed)
      return with_context("--cpu-cap, --cpu-share", changed.error());
    return true;
  }
  const auto place = store::find_cpu_groups();
  return place && store::limit_by_cpu_group(folder, *place, client.pid(), cpu_limit(spec));
}

}  // namespace

Result<> tell_limits(const store::VmFolder& folder, control::SetLimits limits, const store::VmSpec& spec,
                     const store::VmSpec& before) {
  auto client = VmClient::connect(folder);
  if (!client) return std::unexpected(client.error());
  if (limits.cpu_cap_percent || limits.cpu_share) {
    const auto by_group = limit_by_group(folder, *client, spec);
    if (!by_group) return std::unexpected(by_group.error());
    limits.cpu_group = *by_group;
  }
  auto answer = client->ask(limits);
  if (answer) return {};
  if (limits.cpu_group) (void)store::change_cpu_group(folder, cpu_limit(before));
  return std::unexpected(answer.error());
}

}  // namespace caisson::life
