#include "life/forwards.h"

#include <algorithm>

#include "life/vm_client.h"

namespace caisson::life {
namespace {

bool listens_on(const control::PortForward& forward, const HostPort& which) {
  return forward.protocol == which.protocol && forward.host_port == which.port &&
         (!which.address || forward.host_address == *which.address);
}

// What a running machine has at the moment; one that was not asked for, that of ssh, included.
Result<std::vector<control::PortForward>> forwards_now(VmClient& client) {
  auto answer = client.ask(control::Query{});
  if (!answer) return std::unexpected(answer.error());
  const auto* status = std::get_if<control::Status>(&answer->event);
  if (status == nullptr) return fail("the machine has not said what it does");
  return status->forwards;
}

}  // namespace

Result<> add_forward(const store::VmFolder& folder, const control::PortForward& forward, Really really) {
  const auto lock = folder.lock();
  if (!lock) return std::unexpected(lock.error());
  auto spec = folder.spec();
  if (!spec) return std::unexpected(spec.error());
  const HostPort same{forward.protocol, forward.host_address, forward.host_port};
  if (std::ranges::any_of(spec->forwards, [&](const auto& one) { return listens_on(one, same); })) {
    return fail("machine {} has a forward of {}:{} already; take it away first with: caisson port {} --rm {}",
                folder.name(), forward.host_address, forward.host_port, folder.name(), forward.host_port);
  }
  spec->forwards.push_back(forward);
  if (auto ok = spec->validate(); !ok) return ok;
  if (really == Really::No) return {};
  if (!folder.alive()) return folder.save(*spec);
  auto client = VmClient::connect(folder);
  if (!client) return std::unexpected(client.error());
  // First where it can fail. Killed in between it is there until the machine's end.
  if (auto answer = client->ask(control::AddForward{forward}); !answer) return std::unexpected(answer.error());
  auto saved = folder.save(*spec);
  if (!saved) (void)client->ask(control::RemoveForward{forward});
  return saved;
}

Result<> remove_forward(const store::VmFolder& folder, const HostPort& which, Really really) {
  const auto lock = folder.lock();
  if (!lock) return std::unexpected(lock.error());
  auto spec = folder.spec();
  if (!spec) return std::unexpected(spec.error());
  auto saved_ones = spec->forwards;
  const auto erased = std::erase_if(saved_ones, [&](const auto& one) { return listens_on(one, which); });
  bool found = erased > 0;
  if (folder.alive()) {
    auto client = VmClient::connect(folder);
    if (!client) return std::unexpected(client.error());
    auto now = forwards_now(*client);
    if (!now) return std::unexpected(now.error());
    for (const auto& one : *now) {
      if (!listens_on(one, which)) continue;
      found = true;
      if (really == Really::No) continue;
      if (auto answer = client->ask(control::RemoveForward{one}); !answer) return std::unexpected(answer.error());
    }
  }
  if (!found) {
    return fail("machine {} has no forward of port {}; see: caisson port {}", folder.name(), which.port, folder.name());
  }
  if (really == Really::No) return {};
  spec->forwards = std::move(saved_ones);
  return folder.save(*spec);
}

}  // namespace caisson::life
