// Who may do what: each route (routes.h) names the least role that it takes.
//   Threads  constants
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace caisson::api {

enum class Role : uint8_t {
  Viewer,    // sees everything, changes nothing
  Operator,  // runs machines that are there: start, stop, pause, console …
  Admin,     // makes, changes and removes machines and images; names files of this host
};
inline constexpr std::array<std::string_view, 3> role_names{"viewer", "operator", "admin"};

[[nodiscard]] inline std::string name_of(Role role) { return std::string{role_names[static_cast<size_t>(role)]}; }
[[nodiscard]] inline std::optional<Role> role_named(std::string_view name) {
  for (size_t i = 0; i < role_names.size(); ++i) {
    if (role_names[i] == name) return static_cast<Role>(i);
  }
  return std::nullopt;
}

// Whoever asks, once it is known who that is.
struct Caller {
  std::string name;  // "uid 1000", "token ci", "certificate alice"
  Role role = Role::Viewer;
};

}  // namespace caisson::api
