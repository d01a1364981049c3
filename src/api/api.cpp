#include "api/api.h"

#include <charconv>

#include <sys/mman.h>

#include "api/handlers.h"
#include "base/log.h"
#include "base/tsc_reading.h"
#include "base/write_all.h"
#include "life/launch.h"
#include "store/store.h"

namespace caisson::api {
namespace {

// Not for the record: one who looks changes nothing.
bool changes(const Route& route) {
  return route.method != "GET" || route.kind == Kind::Console || route.kind == Kind::Screen ||
         route.kind == Kind::Download;  // out of a guest
}

std::string object_of(const Route& route, const Call& call) {
  for (const char* word : {"name", "image", "id"}) {
    if (const auto found = call.words.find(word); found != call.words.end()) return found->second;
  }
  // Of one that is to be made.
  for (const char* key : {"name", "image"}) {
    const auto found = call.body.find(key);
    if (route.method == "POST" && found != call.body.end() && found->is_string()) {
      return found->get<std::string>().substr(0, 80);
    }
  }
  return "";
}

std::optional<std::string> wrong_parameter(const Route& route, const std::string& name, const std::string& value) {
  for (const Parameter& one : route.query) {
    if (one.name != name) continue;
    if (one.of == Of::Text) {
      if (!value.empty() && value.size() <= one.most) return std::nullopt;
      return fmt::format("{} has {} bytes; 1 to {} are allowed", name, value.size(), one.most);
    }
    if (one.of == Of::Flag) {
      if (value == "true" || value == "false") return std::nullopt;
      return fmt::format("{} is {}; write true or false", name, value);
    }
    uint64_t number = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
    if (error == std::errc{} && end == value.data() + value.size() && number <= one.most) return std::nullopt;
    return fmt::format("{} is {}; write a whole number up to {}", name, value, one.most);
  }
  return fmt::format("the parameter {} is unknown", name);
}

// "application/json", parameters left out.
bool is_json(std::string_view type) {
  type = type.substr(0, type.find(';'));
  while (type.ends_with(' ')) type.remove_suffix(1);
  return type == json_type;
}

std::expected<control::Json, Answer> parse_body(const Route& route, const Request& request) {
  if (request.body.empty()) return control::Json::object();
  if (request.body.size() > max_body) return std::unexpected(problem(413, "the body is too large"));
  if (route.body.empty()) return std::unexpected(problem(422, "this takes no body"));
  if (!is_json(request.content_type)) {
    return std::unexpected(problem(415, "send the body with Content-Type: application/json"));
  }
  if (json_depth(request.body) > max_json_depth) return std::unexpected(problem(400, "the JSON is nested too deeply"));
  auto json = control::parse_json(request.body);
  if (!json) return std::unexpected(problem(400, "the body is not valid JSON"));
  if (!json->is_object()) return std::unexpected(problem(422, "the body is not a JSON object"));
  return std::move(*json);
}

}  // namespace

Api::Api(Audit& audit)
    : audit_(audit),
      services_{jobs_, children_,
                [this](const Job& job) {
                  audit_.write({.who = job.who,
                                .operation = job.operation,
                                .object = job.object,
                                .result = job.state == JobState::Done ? "ok" : job.message});
                  if (job.state == JobState::Failed) log::warning("{}", job.message);
                },
                guest_calls_, end_.get_token()} {}

std::expected<Api::Admitted, Answer> Api::admit(const Request& request, const std::optional<Caller>& caller) {
  const auto refuse = [&](const Answer& answer, std::string_view operation, std::string_view object,
                          std::string_view why) {
    audit_.write({caller ? std::string_view{caller->name} : "", caller ? name_of(caller->role) : "", operation, object,
                  answer.status, why});
    return std::unexpected(answer);
  };
  auto target = parse_target(request.target);
  if (!target) return std::unexpected(problem(400, target.error().message));
  const std::string path = request.target.substr(0, std::min<size_t>(request.target.find('?'), 200));
  Found found = find_route(request.method, target->path);
  const std::string_view operation = found.route != nullptr ? found.route->id : "";
  const auto name = found.words.find("name");
  const std::string object = name == found.words.end() ? path : name->second;
  if (!caller) {
    return refuse(problem(401, "who asks is not known; send a token, or use a client certificate"), operation, object,
                  "not authenticated");
  }
  if (found.route == nullptr && !found.allowed.empty()) {
    Answer answer = problem(405, fmt::format("{} takes {}", path, found.allowed));
    answer.headers.emplace_back("Allow", found.allowed);
    return std::unexpected(answer);
  }
  if (found.route == nullptr) {
    return std::unexpected(problem(404, fmt::format("there is no {}; /v1/openapi.json lists what there is", path)));
  }
  const Route& route = *found.route;
  if (caller->role < route.role) {
    const std::string why = fmt::format("{} needs the role {}", route.id, name_of(route.role));
    return refuse(problem(403, fmt::format("{}; {} has the role {}", why, caller->name, name_of(caller->role))),
                  operation, object, why);
  }
  for (const auto& [key, value] : target->query) {
    if (const auto wrong = wrong_parameter(route, key, value)) return std::unexpected(problem(422, *wrong));
  }
  for (const Parameter& one : route.query) {
    if (one.required && !target->query.contains(std::string{one.name})) {
      return std::unexpected(problem(422, fmt::format("the parameter {} is missing: {}", one.name, one.what)));
    }
  }
  auto body = route.kind == Kind::Upload ? control::Json::object() : parse_body(route, request);
  if (!body) return std::unexpected(body.error());
  return Admitted{&route, Call{services_, *caller, std::move(found.words), std::move(target->query), std::move(*body)}};
}

void Api::record(const Admitted& admitted, const Answer& answer) {
  const Route& route = *admitted.route;
  if (!changes(route)) return;
  std::string result = answer.status >= 300 ? "failed" : admitted.call.dry_run() ? "dry run" : "ok";
  if (answer.status >= 400) {
    const auto json = control::parse_json(answer.body);
    if (json && json->contains("detail")) result = json->at("detail").get<std::string>();
  }
  audit_.write({admitted.call.caller.name, name_of(admitted.call.caller.role), route.id,
                object_of(route, admitted.call), answer.status, result});
}

Answer Api::answer(Admitted& admitted) {
  Answer answer = admitted.route->kind == Kind::Answer ? admitted.route->handle(admitted.call)
                                                       : problem(426, "this is not answered by a plain request");
  record(admitted, answer);
  return answer;
}

std::expected<File, Answer> Api::fetch(Admitted& admitted) {
  auto file = admitted.route->fetch(admitted.call);
  record(admitted, file ? Answer{admitted.route->status, "", "", {}} : file.error());
  return file;
}

Answer Api::take(Admitted& admitted, const File& content) {
  Answer answer = admitted.route->take(admitted.call, content);
  record(admitted, answer);
  return answer;
}

Answer Api::handle(const Request& request, const std::optional<Caller>& caller) {
  auto admitted = admit(request, caller);
  if (!admitted) return admitted.error();
  if (admitted->route->kind == Kind::Download) {
    auto file = fetch(*admitted);
    return file ? Answer{admitted->route->status, "", std::string{admitted->route->type}, {}} : file.error();
  }
  if (admitted->route->kind == Kind::Upload) {
    File content{Fd{::memfd_create("content", MFD_CLOEXEC)}, request.body.size()};
    if (!content.fd.valid() || write_all(content.fd.get(), request.body) != 0) return problem(500, "no memory");
    return take(*admitted, content);
  }
  return answer(*admitted);
}

void Api::start_machines() {
  const auto start_all = [this](const life::Follow& follow) -> Result<> {
    const auto store = store::Store::open();
    const auto names = store ? store->names() : std::unexpected(store.error());
    if (!names) return std::unexpected(names.error());
    store->sweep();  // what an earlier one has left when it was killed
    std::string failed;
    for (const std::string& name : *names) {
      if (follow.cancelled.stop_requested()) return fail("the daemon ends");
      const auto folder = store->find(name);
      const auto spec = folder ? folder->spec() : std::unexpected(folder.error());
      if (!spec || !spec->autostart || folder->alive()) continue;
      const auto process = life::start_machine(*folder, read_tsc());
      if (process) children_.add(*process);
      audit_.write({.who = "caissond",
                    .operation = "autostart",
                    .object = name,
                    .result = process ? "ok" : process.error().message});
      if (!process) failed += (failed.empty() ? "" : "; ") + process.error().message;
    }
    return failed.empty() ? Result<>{} : fail("{}", failed);
  };
  const auto job = jobs_.start("autostart", "", "caissond", start_all, services_.job_ended);
  if (!job) log::error("{}", job.error().message);
}

}  // namespace caisson::api
