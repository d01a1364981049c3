// The one table of what can be asked for: each route's method, path, name, least role, bodies and work. The server
// finds routes in it, roles are checked by it, the OpenAPI document is generated from it.
//   Threads  the table is constant; handlers run on any thread, and may wait for seconds
#pragma once

#include <atomic>
#include <cstdint>
#include <expected>
#include <map>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>

#include "api/children.h"
#include "api/http.h"
#include "api/jobs.h"
#include "api/role.h"
#include "base/fd.h"
#include "control/json_fields.h"

namespace caisson::api {

// What handlers work with.
struct Services {
  Jobs& jobs;
  Children& children;
  Jobs::Ended job_ended;  // records how a job ended
  // Calls that wait for a guest. Guests may keep them waiting, and others want to be answered meanwhile.
  std::atomic<unsigned>& guest_calls;
  static constexpr unsigned most_guest_calls = 4;
  std::stop_token ended;  // nobody waits for answers any more
};

struct Call {
  Services& services;
  Caller caller;
  std::map<std::string, std::string> words;  // of the path: {name}
  std::map<std::string, std::string> query;  // those that the route has, checked
  control::Json body;                        // an object; empty where none came
  [[nodiscard]] const std::string& word(const char* name) const { return words.at(name); }
  [[nodiscard]] const std::string* parameter(const char* name) const {
    const auto found = query.find(name);
    return found == query.end() ? nullptr : &found->second;
  }
  [[nodiscard]] bool flag(const char* name) const {
    const std::string* const given = parameter(name);
    return given != nullptr && *given == "true";
  }
  [[nodiscard]] bool dry_run() const { return flag("dry_run"); }
};

// Content, from offset 0.
struct File {
  Fd fd;
  uint64_t size = 0;
};

enum class Of : uint8_t { Number, Flag, Text };

struct Parameter {
  std::string_view name;
  std::string_view what;
  Of of = Of::Number;  // a flag is "true" or "false"
  uint64_t most = 0;   // of a number; bytes of a text
  bool required = false;
};

enum class Kind : uint8_t {
  Answer,   // by `handle`
  Events,   // a stream of server-sent events
  Console,  // a WebSocket
  Screen,   // likewise
  // Content that is too large for an answer or a request in memory: of any kind, nothing looks into it.
  Download,  // the answer's is the file of `fetch`
  Upload,    // the request's is a file for `take`
};
[[nodiscard]] constexpr bool is_stream(Kind kind) {
  return kind == Kind::Events || kind == Kind::Console || kind == Kind::Screen;
}
inline constexpr std::string_view content_type = "application/octet-stream";
inline constexpr uint64_t max_upload = uint64_t{1} << 30;  // bytes; more is refused with 413

inline constexpr std::string_view json_type = "application/json";

struct Route {
  std::string_view method;
  std::string_view path;  // "/v1/machines/{name}"
  std::string_view id;    // of the operation
  std::string_view what;
  Role role;
  std::string_view body;    // the schema of what is sent; empty: nothing may be
  unsigned status;          // of success
  std::string_view answer;  // the schema of the answer, where it is JSON; empty: none
  Answer (*handle)(Call& call);
  std::span<const Parameter> query{};
  std::string_view type = json_type;  // of the answer
  Kind kind = Kind::Answer;
  std::expected<File, Answer> (*fetch)(Call& call) = nullptr;
  Answer (*take)(Call& call, const File& content) = nullptr;
};

[[nodiscard]] std::span<const Route> routes();

// A route by method and path, or why there is none.
struct Found {
  const Route* route = nullptr;
  std::map<std::string, std::string> words;
  std::string allowed;  // with another method: those that there are
};
[[nodiscard]] Found find_route(std::string_view method, const std::vector<std::string>& path);

// The schemas that bodies and answers name.
[[nodiscard]] const control::Json& schemas();
// OpenAPI 3.1.
[[nodiscard]] const control::Json& openapi();

}  // namespace caisson::api
