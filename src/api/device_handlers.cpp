// Disks and network cards of machines: a detach waits for the guest, so it is a job.
#include "api/bodies.h"
#include "api/handlers.h"
#include "life/devices.h"
#include "life/machines.h"

namespace caisson::api {
namespace {

Answer detach(Call& call, std::string_view operation, Result<> (*work)(const store::VmFolder&, const std::string&),
              const std::string& item) {
  const auto folder = machine_of(call);
  if (!folder) return folder.error();
  return start_job(call, operation, folder->name(),
                   [name = folder->name(), item, work](const life::Follow&) -> Result<> {
                     auto found = life::find(name);
                     if (!found) return std::unexpected(found.error());
                     return work(*found, item);
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
  if (auto done = life::attach_disk(*folder, *disk, life::Really::Yes); !done) return conflict(done.error());
  return show(200, folder->name());
}

Answer detach_disk(Call& call) {
  return detach(
      call, "detachDisk",
      [](const store::VmFolder& folder, const std::string& item) {
        return life::detach_disk(folder, item, life::Really::Yes);
      },
      call.word("disk"));
}

Answer grow_disk(Call& call) {
  const auto folder = machine_of(call);
  if (!folder) return folder.error();
  const auto body = body_as<GrowDisk>(call);
  if (!body) return body.error();
  if (body->bytes % 512 != 0) return problem(422, "bytes: not a whole number of sectors of 512 bytes");
  if (auto done = life::grow_disk(*folder, call.word("disk"), body->bytes, false); !done) {
    return conflict(done.error());
  }
  return show(200, folder->name());
}

Answer attach_network(Call& call) {
  const auto folder = machine_of(call);
  if (!folder) return folder.error();
  const auto body = body_as<AttachNetwork>(call);
  if (!body) return body.error();
  if (auto done = life::attach_net(*folder, body->card, body->limit, life::Really::Yes); !done)
    return conflict(done.error());
  return show(200, folder->name());
}

Answer detach_network(Call& call) {
  return detach(
      call, "detachNetwork",
      [](const store::VmFolder& folder, const std::string&) { return life::detach_net(folder, life::Really::Yes); },
      {});
}

}  // namespace caisson::api
