#include <array>
#include <cerrno>
#include <charconv>
#include <csignal>

#include <poll.h>
#include <unistd.h>

#include "api/bodies.h"
#include "api/handlers.h"
#include "life/catalogue.h"
#include "life/child.h"
#include "life/host.h"
#include "life/images.h"
#include "life/vmm_process.h"
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

// What makes images has a process of its own, the command line's: it takes user namespaces, signals, standard streams
// and the network. `words`: of caisson image.
Result<> run_image(std::vector<std::string> words, const life::Follow& follow) {
  auto program = life::sibling_program("caisson", "makes images");
  if (!program) return std::unexpected(program.error());
  auto said = life::make_pipe();
  if (!said) return std::unexpected(said.error());
  words.insert(words.begin(), {*program, "image"});
  auto child = life::Child::start(words, {-1, -1, said->write.get()});
  if (!child) return std::unexpected(child.error());
  said->write.reset();
  std::string line;
  std::string last;
  bool told = false;
  for (;;) {
    pollfd ready{said->read.get(), POLLIN, 0};
    if (::poll(&ready, 1, 250) < 0 && errno != EINTR) break;
    if (follow.cancelled.stop_requested() && !told) {
      child->signal(SIGTERM);
      told = true;
    }
    if (ready.revents == 0) continue;
    std::array<char, 4096> buffer;
    const ssize_t size = ::read(said->read.get(), buffer.data(), buffer.size());
    if (size <= 0) break;
    for (const char c : std::string_view{buffer.data(), static_cast<size_t>(size)}) {
      if (c != '\n' && line.size() < 1024) line += c;
      if (c != '\n' || line.empty()) continue;
      follow.say(line);
      last = std::exchange(line, "");
    }
  }
  if (child->wait() == 0) return {};
  constexpr std::string_view prefix = "caisson: error: ";
  if (last.starts_with(prefix)) last.erase(0, prefix.size());
  return fail("{}", last.empty() ? "caisson image failed without saying why" : last);
}

}  // namespace

Answer start_job(Call& call, std::string_view operation, const std::string& object, Jobs::Work work) {
  auto job = call.services.jobs.start(std::string{operation}, object, call.caller.name, std::move(work),
                                      call.services.job_ended);
  if (!job) return problem(429, job.error().message);
  Answer answer = json_answer(202, control::to_json(*job));
  answer.headers.emplace_back("Location", fmt::format("/v1/jobs/{}", job->id));
  return answer;
}

Answer list_images(Call&) {
  auto images = life::list_images();
  if (!images) return problem(500, images.error().message);
  Json list = Json::array();
  for (life::Image& image : *images) {
    ImageEntry entry{.image = std::move(image.name),
                     .built = std::move(image.built),
                     .folder = std::move(image.folder),
                     .size_bytes = image.size_bytes,
                     .used_bytes = image.used_bytes,
                     .boot = std::string{name_of(image.boot)},
                     .problem = {}};
    if (!image.problem.empty()) entry.problem = std::move(image.problem);
    list.push_back(control::to_json(entry));
  }
  return json_answer(200, {{"images", list}});
}

Answer build_image(Call& call) {
  auto wish = body_as<BuildImage>(call);
  if (!wish) return wish.error();
  const auto name = life::parse_image_name(wish->image);
  if (!name) return problem(422, name.error().message);
  if (!name->built_here())
    return problem(422, fmt::format("image {}: only Debian is built; write debian:12", name->text()));
  wish->image = name->text();
  std::vector<std::string> words{"build"};
  if (!wish->size.empty()) words.push_back("--size=" + wish->size);
  if (wish->force) words.emplace_back("--force");
  words.insert(words.end(), {"--", wish->image});
  return start_job(call, "buildImage", wish->image,
                   [words](const life::Follow& follow) { return run_image(words, follow); });
}

Answer pull_image(Call& call) {
  const auto name = life::parse_image_name(call.word("image"));
  if (!name) return problem(404, name.error().message);
  const auto entry = life::catalogue_entry(*name);
  if (!entry) return problem(404, entry.error().message);
  return start_job(call, "pullImage", name->text(), [text = name->text()](const life::Follow& follow) {
    return run_image({"pull", "--", text}, follow);
  });
}

Answer import_image(Call& call) {
  const auto name = life::new_image_name(call.word("image"));
  if (!name) return problem(422, name.error().message);
  auto wish = body_as<ImportImage>(call);
  if (!wish) return wish.error();
  std::vector<std::string> words{"import"};
  for (const auto& [option, value] : {std::pair{"--format", &wish->format}, std::pair{"--firmware", &wish->firmware},
                                      std::pair{"--kernel", &wish->kernel}, std::pair{"--initrd", &wish->initrd},
                                      std::pair{"--append", &wish->append}}) {
    if (!value->empty()) words.push_back(fmt::format("{}={}", option, *value));
  }
  for (const std::string* path : {&wish->file, &wish->kernel, &wish->initrd}) {
    if (!path->empty() && path->front() != '/') return problem(422, *path + ": write an absolute path of the host");
  }
  if (wish->force) words.emplace_back("--force");
  words.insert(words.end(), {"--", name->text(), wish->file});
  return start_job(call, "importImage", name->text(),
                   [words](const life::Follow& follow) { return run_image(words, follow); });
}

Answer list_catalogue(Call&) {
  auto all = life::catalogue();
  if (!all) return problem(409, all.error().message);
  Json list = Json::array();
  for (life::CatalogueEntry& entry : *all) {
    list.push_back(control::to_json(CatalogueImage{std::move(entry.name), std::move(entry.arch), std::move(entry.about),
                                                   std::move(entry.recipe), std::move(entry.url), !entry.key.empty()}));
  }
  return json_answer(200, {{"images", list}});
}

Answer remove_image(Call& call) {
  const auto name = life::parse_image_name(call.word("image"));
  if (!name) return problem(404, name.error().message);
  const auto there = life::find_image(*name);
  if (there && !*there) return problem(404, fmt::format("image {} is not here", name->text()));
  if (auto done = life::remove_image(*name); !done) return problem(409, done.error().message);
  return {204, "", "", {}};
}

Answer list_jobs(Call& call) {
  Json list = Json::array();
  for (const Job& job : call.services.jobs.list()) list.push_back(control::to_json(job));
  return json_answer(200, {{"jobs", list}});
}

Answer get_job(Call& call) {
  const auto id = job_id(call);
  const auto job = id ? call.services.jobs.find(*id) : std::nullopt;
  return job ? json_answer(200, control::to_json(*job)) : no_job(call);
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
