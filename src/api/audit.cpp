#include "api/audit.h"

#include <cerrno>
#include <cstdio>

#include <fcntl.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/utc.h"
#include "base/write_all.h"
#include "control/json_fields.h"

namespace caisson::api {
namespace {

Fd open_file(const std::string& path) {
  return Fd{::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600)};
}

}  // namespace

Result<Audit> Audit::open(std::string path) {
  Fd fd = open_file(path);
  if (!fd.valid()) return fail_errno(errno, "cannot open " + path);
  return Audit{std::move(path), std::move(fd)};
}

void Audit::write(const Entry& entry) {
  control::Json json{{"at_ms", utc_ms()},
                     {"who", std::string{entry.who}},
                     {"operation", std::string{entry.operation}},
                     {"object", std::string{entry.object}},
                     {"result", std::string{entry.result}}};
  if (!entry.role.empty()) json["role"] = std::string{entry.role};
  if (entry.status != 0) json["status"] = entry.status;
  const std::string line = control::dump_json(json) + "\n";
  const std::lock_guard lock{mutex_};
  struct stat status {};
  if (::fstat(fd_.get(), &status) == 0 && static_cast<uint64_t>(status.st_size) + line.size() > max_bytes) {
    if (::rename(path_.c_str(), (path_ + ".1").c_str()) == 0) {
      if (Fd fresh = open_file(path_); fresh.valid()) fd_ = std::move(fresh);
    }
  }
  if (const int error = write_all(fd_.get(), line); error != 0) {
    log::error("{}; not recorded: {}", fail_errno(error, "cannot write " + path_).error().message, line);
  }
}

}  // namespace caisson::api
