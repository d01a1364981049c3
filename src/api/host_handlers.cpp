#include <charconv>

#include "api/bodies.h"
#include "api/handlers.h"
#include "life/host.h"
#include "store/store.h"

namespace caisson::api {
namespace {

using control::Json;

std::optional<uint64_t> job_id(const Call& call) {
  const std::string& text = call.word("id");
  uint64_t id = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return id;
}

Answer no_job(const Call& call) {
  return problem(404, fmt::format("there is no job {}; /v1/jobs lists those that there are", call.word("id")));
}

}  // namespace

Json job_json(const Job& job) {
  Json json = control::to_json(job);
  if (job.result.is_object()) json["result"] = job.result;
  return json;
}

Answer would(const Result<std::string>& text) {
  if (!text) return conflict(text.error());
  return json_answer(200, control::to_json(DryRun{*text}));
}

Answer start_job(Call& call, std::string_view operation, const std::string& object, Jobs::Work work) {
  return start_search(call, operation, object,
                      [work = std::move(work)](const life::Follow& follow, Json&) { return work(follow); });
}

Answer start_search(Call& call, std::string_view operation, const std::string& object, Jobs::Search search) {
  auto job = call.services.jobs.search(std::string{operation}, object, call.caller.name, std::move(search),
                                       call.services.job_ended);
  if (!job) return problem(429, job.error().message);
  Answer answer = json_answer(202, job_json(*job));
  answer.headers.emplace_back("Location", fmt::format("/v1/jobs/{}", job->id));
  return answer;
}

Answer list_jobs(Call& call) {
  Json list = Json::array();
  for (const Job& job : call.services.jobs.list()) list.push_back(job_json(job));
  return json_answer(200, {{"jobs", list}});
}

Answer get_job(Call& call) {
  const auto id = job_id(call);
  const auto job = id ? call.services.jobs.find(*id) : std::nullopt;
  return job ? json_answer(200, job_json(*job)) : no_job(call);
}

Answer cancel_job(Call& call) {
  const auto id = job_id(call);
  if (!id || !call.services.jobs.find(*id)) return no_job(call);
  if (auto done = call.services.jobs.cancel(*id); !done) return problem(409, done.error().message);
  return {204, "", "", {}};
}

Answer get_host(Call&) {
  const Host host{CAISSON_VERSION, life::host_cpus(), life::host_memory_bytes(), host_available_bytes()};
  return json_answer(200, control::to_json(host));
}

Answer get_metrics(Call&) {
  auto store = store::Store::open();
  const auto names = store ? store->names() : std::unexpected(store.error());
  if (!names) return problem(500, names.error().message);
  return {200, metrics_text(life::look(*store, *names)), "text/plain; version=0.0.4; charset=utf-8", {}};
}

Answer get_openapi(Call&) { return json_answer(200, openapi()); }

}  // namespace caisson::api
