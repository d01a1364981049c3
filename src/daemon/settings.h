// What caissond is told by its file: <config>/caisson/caissond.json, all of it optional.
//   Form     {"socket": PATH, "users": {NAME: ROLE}, "groups": {NAME: ROLE},
//             "listen": "ADDRESS:PORT", "certificate": FILE, "key": FILE, "client_ca": FILE, "certificates": {NAME:
//             ROLE}}
//   Checks   strict: unknown keys, roles, users and groups are errors
//   Threads  plain data
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include <sys/types.h>

#include "api/role.h"
#include "base/result.h"

namespace caisson::daemon {

struct Settings {
  std::string socket;                        // empty: the default (default_socket)
  std::map<uid_t, api::Role> users;          // besides this user and root, who are admins
  std::map<gid_t, api::Role> groups;         // primary and supplementary; the highest role counts
  std::string listen;                        // "127.0.0.1:8443", "[::1]:8443"; empty: no HTTPS
  std::string certificate;                   // PEM, the chain
  std::string key;                           // PEM
  std::string client_ca;                     // PEM: who may sign clients' certificates; empty: none are asked for
  std::map<std::string, api::Role> clients;  // by a certificate's common name

  [[nodiscard]] static Result<Settings> parse(std::string_view text);
  // Of the file; without one, and where `must` is false, the defaults.
  [[nodiscard]] static Result<Settings> load(const std::string& path, bool must);
  [[nodiscard]] Result<> validate() const;
};
// <XDG_RUNTIME_DIR>/caisson/caissond.sock; without that variable in the data folder.
[[nodiscard]] Result<std::string> default_socket();

// A user of this host by peer credentials.
struct Peer {
  uid_t uid = 0;
  gid_t gid = 0;
  std::string groups;  // what SO_PEERGROUPS gave: gid_t after gid_t
};
[[nodiscard]] std::optional<api::Role> role_of(const Settings& settings, const Peer& peer, uid_t own);

}  // namespace caisson::daemon
