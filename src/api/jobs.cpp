#include "api/jobs.h"

#include <algorithm>

#include "base/utc.h"

namespace caisson::api {

Jobs::~Jobs() {
  std::list<std::unique_ptr<Entry>> all;
  {
    const std::lock_guard lock{mutex_};
    all.swap(entries_);
  }
  for (auto& entry : all) entry->thread.request_stop();
  for (auto& entry : all) {
    if (entry->thread.joinable()) entry->thread.join();
  }
}

void Jobs::run(Entry& entry, const Search& search, const Ended& ended, std::stop_token cancelled) {
  const life::Follow follow{[&](std::string_view text) {
                              const std::lock_guard lock{mutex_};
                              entry.job.message = text;
                            },
                            cancelled};
  control::Json result;
  const Result<> done = search(follow, result);
  Job job;
  {
    const std::lock_guard lock{mutex_};
    job = entry.job;
  }
  job.state = done ? JobState::Done : cancelled.stop_requested() ? JobState::Cancelled : JobState::Failed;
  if (!done) job.message = done.error().message;
  job.result = std::move(result);
  // Told before it shows as ended, so that who waits for that finds it told.
  if (ended) ended(job);
  job.ended_ms = utc_ms();
  const std::lock_guard lock{mutex_};
  entry.job = std::move(job);
}

// Under the lock; the threads of those that are forgotten have come to their ends, and are joined without it.
void Jobs::forget_old(std::list<std::unique_ptr<Entry>>& gone) {
  auto ended = static_cast<size_t>(
      std::ranges::count_if(entries_, [](const auto& entry) { return entry->job.ended_ms.has_value(); }));
  for (auto at = entries_.begin(); at != entries_.end() && ended >= most_ended;) {
    const auto next = std::next(at);
    if ((*at)->job.ended_ms) {
      gone.splice(gone.end(), entries_, at);
      --ended;
    }
    at = next;
  }
}

Result<Job> Jobs::start(std::string operation, std::string object, std::string who, Work work, Ended ended) {
  return search(
      std::move(operation), std::move(object), std::move(who),
      [work = std::move(work)](const life::Follow& follow, control::Json&) { return work(follow); }, std::move(ended));
}

Result<Job> Jobs::search(std::string operation, std::string object, std::string who, Search search, Ended ended) {
  std::list<std::unique_ptr<Entry>> gone;
  const std::lock_guard lock{mutex_};
  const auto running = static_cast<size_t>(
      std::ranges::count_if(entries_, [](const auto& entry) { return !entry->job.ended_ms.has_value(); }));
  if (running >= most_running) return fail("{} jobs are running already; wait for one to end", running);
  forget_old(gone);
  auto made = std::make_unique<Entry>();
  Entry& entry = *made;
  entry.job.id = ++last_id_;
  entry.job.operation = std::move(operation);
  entry.job.object = std::move(object);
  entry.job.who = std::move(who);
  entry.job.started_ms = utc_ms();
  entries_.push_back(std::move(made));
  entry.thread = std::jthread{[this, &entry, search = std::move(search), ended = std::move(ended)](
                                  std::stop_token token) { run(entry, search, ended, std::move(token)); }};
  return entry.job;
}

std::vector<Job> Jobs::list() const {
  const std::lock_guard lock{mutex_};
  std::vector<Job> list;
  for (const auto& entry : entries_) list.push_back(entry->job);
  return list;
}

std::optional<Job> Jobs::find(uint64_t id) const {
  const std::lock_guard lock{mutex_};
  const auto found = std::ranges::find_if(entries_, [&](const auto& entry) { return entry->job.id == id; });
  return found == entries_.end() ? std::nullopt : std::optional{(*found)->job};
}

Result<> Jobs::cancel(uint64_t id) {
  const std::lock_guard lock{mutex_};
  const auto found = std::ranges::find_if(entries_, [&](const auto& entry) { return entry->job.id == id; });
  if (found == entries_.end()) return fail("there is no job {}", id);
  if ((*found)->job.ended_ms) return fail("job {} has ended", id);
  (*found)->thread.request_stop();
  return {};
}

}  // namespace caisson::api
