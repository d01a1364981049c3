// Requests and answers as the routes see them, whatever brought them.
//   Errors   Problem: {"title", "detail", "status"} as application/problem+json (RFC 9457)
//   Threads  plain data
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace caisson::api {

// What is taken at most; more is refused with 431 and 413.
inline constexpr size_t max_header = 8 * 1024;
inline constexpr size_t max_body = 64 * 1024;
inline constexpr size_t max_json_depth = 16;

struct Request {
  std::string method;
  std::string target;  // path and query, as sent
  std::string content_type;
  std::string body;
};

struct Answer {
  unsigned status = 200;
  std::string body{};
  std::string type = "application/json";
  std::vector<std::pair<std::string, std::string>> headers{};
};

[[nodiscard]] std::string_view title_of(unsigned status);
[[nodiscard]] Answer problem(unsigned status, std::string_view detail);

struct Target {
  std::vector<std::string> path;  // its parts, decoded
  std::map<std::string, std::string> query;
};
[[nodiscard]] Result<Target> parse_target(std::string_view text);

// How deep brackets nest in JSON text, strings left out; the text need not be valid.
[[nodiscard]] size_t json_depth(std::string_view text);

}  // namespace caisson::api
