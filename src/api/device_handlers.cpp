// Disks and network cards of machines: a detach waits for the guest, so it is a job.
#include "api/bodies.h"
#include "api/handlers.h"
#include "life/devices.h"
#include "life/machines.h"

namespace caisson::api {
namespace {

life::Really really(const Call& call) { return call.dry_run() ? life::Really::No : life::Really::Yes; }

// Of what was done, or looked at.
Answer answer(Call& call, const Result<>& done, const store::VmFolder& folder, std::string_view what) {
  if (!done) return conflict(done.error());
  return call.dry_run() ? would(fmt::format("{} {}", what, folder.name())) : show(200, folder.name());
}

using Detach = Result<> (*)(const store::VmFolder&, const std::string&, life::Really);

Answer detach(Call& call, std::string_view operation, Detach work, const std::string& item) {
  const auto folder = machine_of(call);
  if (!folder) return folder.error();
  if (call.dry_run()) return answer(call, work(*folder, item, life::Really::No), *folder, "take a device from");
  return start_job(call, operation, folder->name(),
                   [name = folder->name(), item, work](const life::Follow&) -> Result<> {
                     auto found = life::find(name);
                     if (!found) return std::unexpected(found.error());
                     return work(*found, item, life::Really::Yes);
                   });
}

}  // namespace

Answer attach_disk(Call& call) {
  const auto folder = machine_of(call);
  if (!folder) return folder.error();
  const auto disk = body_as<store::DiskSpec>(call);
  if (!disk) return disk.error();
  if (disk->path.front() != '/') {
    return problem(422, fmt::format("path: {}: write an absolute path of the host", disk->path));
  }
  if (!disk->format.empty() && disk->format != "raw" && disk->format != "qcow2")
    return problem(422, "format: raw or qcow2");
  return answer(call, life::attach_disk(*folder, *disk, really(call)), *folder, "attach a disk to");
}

Answer detach_disk(Call& call) {
  return detach(
      call, "detachDisk",
      [](const store::VmFolder& folder, const std::string& item, life::Really really) {
        return life::detach_disk(folder, item, really);
      },
      call.word("disk"));
}

Answer grow_disk(Call& call) {
  const auto folder = machine_of(call);
  if (!folder) return folder.error();
  const auto body = body_as<GrowDisk>(call);
  if (!body) return body.error();
  if (body->bytes % 512 != 0) return problem(422, "bytes: not a whole number of sectors of 512 bytes");
  return answer(call, life::grow_disk(*folder, call.word("disk"), body->bytes, false, really(call)), *folder,
                "make a disk larger of");
}

Answer attach_network(Call& call) {
  const auto folder = machine_of(call);
  if (!folder) return folder.error();
  const auto body = body_as<AttachNetwork>(call);
  if (!body) return body.error();
  return answer(call, life::attach_net(*folder, body->card, body->limit, really(call)), *folder,
                "attach a network card to");
}

Answer detach_network(Call& call) {
  return detach(call, "detachNetwork",
                [](const store::VmFolder& folder, const std::string&, life::Really really) {
                  return life::detach_net(folder, really);
                },
                {});
}

}  // namespace caisson::api
