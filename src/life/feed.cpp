#include "life/feed.h"

#include <algorithm>

#include <fcntl.h>
#include <sys/stat.h>

#include "base/utc.h"
#include "control/messages.h"

namespace caisson::life {
namespace {

using control::Json;

Json event(const std::string& machine, const char* type, Json detail = {}) {
  Json json{{"at_ms", utc_ms()}, {"machine", machine}, {"type", type}};
  if (!detail.empty()) json["detail"] = std::move(detail);
  return json;
}

uint64_t inode_of(int folder, const char* name, uint64_t* size = nullptr) {
  struct stat status {};
  if (::fstatat(folder, name, &status, 0) != 0) return 0;
  if (size != nullptr) *size = static_cast<uint64_t>(status.st_size);
  return status.st_ino;
}

}  // namespace

Json event_json(std::string_view machine, const store::TimedEvent& event) {
  Json detail = Json::parse(control::serialise(event.event), nullptr, false);
  const std::string type = detail.value("type", "");
  detail.erase("type");
  Json json{{"at_ms", event.at_ms}, {"machine", std::string{machine}}, {"type", type}};
  if (!detail.empty()) json["detail"] = std::move(detail);
  return json;
}

void Feed::look_at(const store::VmFolder& folder, Seen& seen, bool tell, std::vector<Json>& events) {
  using store::VmFolder;
  // First: what it writes between this and the reading of its record is told before its end.
  const bool alive = folder.alive();
  const uint64_t config = inode_of(folder.fd(), VmFolder::config_file);
  if (config != seen.config_inode && tell) events.push_back(event(folder.name(), "changed"));
  seen.config_inode = config;

  uint64_t bytes = 0;
  const uint64_t inode = inode_of(folder.fd(), VmFolder::events_log, &bytes);
  if (inode != seen.record_inode || bytes != seen.record_bytes) {
    Fd file{::openat(folder.fd(), VmFolder::events_log, O_RDONLY | O_CLOEXEC)};
    // One that was cut is read from its start; what was told already is older than what comes.
    const bool anew = inode != seen.record_inode || bytes < seen.record_bytes;
    uint64_t at = anew ? 0 : seen.record_bytes;
    constexpr uint64_t most = 1 << 20;
    if (!tell || bytes - at > most) at = bytes > most ? bytes - most : 0;
    std::string text(bytes - at, '\0');
    const ssize_t size = file.valid() ? ::pread(file.get(), text.data(), text.size(), static_cast<off_t>(at)) : 0;
    text.resize(size > 0 ? static_cast<size_t>(size) : 0);
    // A line that is not whole yet is for the next look.
    text.resize(text.rfind('\n') + 1);
    const uint64_t told = seen.last_at_ms;
    for (size_t start = 0; start < text.size();) {
      const size_t end = text.find('\n', start);
      const auto one = store::parse_event_line(std::string_view{text}.substr(start, end - start));
      start = end + 1;
      if (!one || (anew && one->at_ms <= told)) continue;
      seen.last_at_ms = std::max(seen.last_at_ms, one->at_ms);
      if (std::holds_alternative<control::Started>(one->event)) seen.ended = false;
      if (std::holds_alternative<control::Exited>(one->event)) seen.ended = true;
      if (tell) events.push_back(event_json(folder.name(), *one));
    }
    seen.record_inode = inode;
    seen.record_bytes = at + text.size();
  }
  if (seen.alive && !alive && !seen.ended) {
    if (tell) events.push_back(event(folder.name(), "killed"));
    seen.ended = true;
  }
  seen.alive = alive;
}

std::vector<Json> Feed::look() {
  std::vector<Json> events;
  const auto store = store::Store::open();
  const auto names = store ? store->names() : std::unexpected(store.error());
  if (!names) return events;
  std::map<std::string, Seen> now;
  std::vector<std::pair<std::string, store::VmFolder>> fresh;
  for (const std::string& name : *names) {
    auto folder = store->find(name);
    struct stat status {};
    if (!folder || ::fstat(folder->fd(), &status) != 0) continue;
    const auto old = machines_.find(name);
    if (old != machines_.end() && old->second.inode == status.st_ino) {
      look_at(*folder, old->second, true, events);
      now.insert(machines_.extract(old));
      continue;
    }
    fresh.emplace_back(name, std::move(*folder));
  }
  // What is left in machines_ is not under its name any more.
  for (const auto& [name, folder] : fresh) {
    struct stat status {};
    if (::fstat(folder.fd(), &status) != 0) continue;
    const auto old =
        std::ranges::find_if(machines_, [&](const auto& entry) { return entry.second.inode == status.st_ino; });
    if (old != machines_.end()) {
      events.push_back(event(old->first, "renamed", {{"name", name}}));
      auto node = machines_.extract(old);
      node.key() = name;
      look_at(folder, node.mapped(), true, events);
      now.insert(std::move(node));
      continue;
    }
    Seen seen;
    seen.inode = status.st_ino;
    seen.config_inode = inode_of(folder.fd(), store::VmFolder::config_file);
    if (!first_) events.push_back(event(name, "created"));
    look_at(folder, seen, !first_, events);
    now.emplace(name, seen);
  }
  for (const auto& [name, seen] : machines_) events.push_back(event(name, "removed"));
  machines_ = std::move(now);
  first_ = false;
  return events;
}

}  // namespace caisson::life
