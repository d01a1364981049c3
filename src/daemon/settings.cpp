#include "daemon/settings.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include <grp.h>
#include <pwd.h>
#include <unistd.h>

#include "control/json_fields.h"
#include "store/files.h"

namespace caisson::daemon {
namespace {

using control::Json;

Result<std::string> text_of(const Json& json, std::string_view key) {
  if (!json.is_string()) return fail("{} is not a string", key);
  return json.get<std::string>();
}

// {NAME: ROLE}; `put` takes each, or says why not.
template <class Put>
Result<> read_roles(const Json& json, std::string_view key, const Put& put) {
  if (!json.is_object()) return fail("{} is not an object of names and roles", key);
  for (const auto& [name, value] : json.items()) {
    const auto role = value.is_string() ? api::role_named(value.template get<std::string>()) : std::nullopt;
    if (!role) return fail("{}: {}: no such role; write viewer, operator or admin", key, name);
    if (auto done = put(name, *role); !done) return done;
  }
  return {};
}

}  // namespace

Result<Settings> Settings::parse(std::string_view text) {
  auto json = control::parse_json(text);
  if (!json) return std::unexpected(json.error());
  if (!json->is_object()) return fail("not a JSON object");
  Settings settings;
  const std::array<std::pair<std::string_view, std::string*>, 5> texts{{{"socket", &settings.socket},
                                                                        {"listen", &settings.listen},
                                                                        {"certificate", &settings.certificate},
                                                                        {"key", &settings.key},
                                                                        {"client_ca", &settings.client_ca}}};
  for (const auto& [key, value] : json->items()) {
    const auto found = std::ranges::find(texts, key, &std::pair<std::string_view, std::string*>::first);
    Result<> done;
    if (found != texts.end()) {
      auto given = text_of(value, key);
      if (!given) return std::unexpected(given.error());
      *found->second = std::move(*given);
    } else if (key == "users") {
      done = read_roles(value, key, [&](const std::string& name, api::Role role) -> Result<> {
        const passwd* const user = ::getpwnam(name.c_str());
        if (user == nullptr) return fail("users: there is no user {}", name);
        settings.users[user->pw_uid] = role;
        return {};
      });
    } else if (key == "groups") {
      done = read_roles(value, key, [&](const std::string& name, api::Role role) -> Result<> {
        const group* const found_group = ::getgrnam(name.c_str());
        if (found_group == nullptr) return fail("groups: there is no group {}", name);
        settings.groups[found_group->gr_gid] = role;
        return {};
      });
    } else if (key == "certificates") {
      done = read_roles(value, key, [&](const std::string& name, api::Role role) -> Result<> {
        settings.clients[name] = role;
        return {};
      });
    } else {
      return fail("the key {} is unknown", key);
    }
    if (!done) return std::unexpected(done.error());
  }
  return settings;
}

Result<> Settings::validate() const {
  if (listen.empty()) return {};
  if (certificate.empty() || key.empty()) return fail("listen needs certificate and key: HTTPS only");
  if (!clients.empty() && client_ca.empty()) return fail("certificates need client_ca, which signs them");
  return {};
}

Result<Settings> Settings::load(const std::string& path, bool must) {
  if (!must && ::access(path.c_str(), F_OK) != 0 && errno == ENOENT) return Settings{};
  auto text = read_file(path, 256 * 1024);
  if (!text) return std::unexpected(text.error());
  auto settings = parse(*text);
  if (!settings) return with_context(path, settings.error());
  return settings;
}

Result<std::string> default_socket() {
  const char* const runtime = std::getenv("XDG_RUNTIME_DIR");
  if (runtime != nullptr && runtime[0] == '/') return std::string{runtime} + "/caisson/caissond.sock";
  auto data = data_folder();
  if (!data) return data;
  return *data + "/caissond.sock";
}

std::optional<api::Role> role_of(const Settings& settings, const Peer& peer, uid_t own) {
  if (peer.uid == own || peer.uid == 0) return api::Role::Admin;
  std::optional<api::Role> role;
  const auto raise = [&](const auto& map, auto id) {
    const auto found = map.find(id);
    if (found != map.end() && (!role || *role < found->second)) role = found->second;
  };
  raise(settings.users, peer.uid);
  raise(settings.groups, peer.gid);
  for (size_t at = 0; at + sizeof(gid_t) <= peer.groups.size(); at += sizeof(gid_t)) {
    gid_t group = 0;
    std::memcpy(&group, peer.groups.data() + at, sizeof group);
    raise(settings.groups, group);
  }
  return role;
}

}  // namespace caisson::daemon
