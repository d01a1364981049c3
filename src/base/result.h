// Errors that a host or a user can cause. One line: what failed, where, and the remedy.
// Guest errors never travel this way (devices answer as hardware would); our own bugs end in CAISSON_CHECK (check.h).
#pragma once

#include <expected>
#include <string>
#include <string_view>
#include <utility>

#include <fmt/core.h>

namespace caisson {

struct Error {
  std::string message;
};

template <class T = void>
using Result = std::expected<T, Error>;

template <class... Args>
[[nodiscard]] std::unexpected<Error> fail(fmt::format_string<Args...> format, Args&&... args) {
  return std::unexpected(Error{fmt::format(format, std::forward<Args>(args)...)});
}

// "<what>: <text of error number `number`>"; give `what` the name of the thing and, where there is one, the remedy.
[[nodiscard]] std::unexpected<Error> fail_errno(int number, std::string_view what);

// Puts "<where>: " before an error that is passed up one layer.
[[nodiscard]] std::unexpected<Error> with_context(std::string_view where, Error error);

}  // namespace caisson
