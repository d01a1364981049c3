// Work that takes longer than a caller wants to wait for an answer: each has a thread of its own.
//   Bounds   so many at once; of those that have ended the last ones are remembered
//   Threads  any; what a job does runs on its own
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/result.h"
#include "control/json_fields.h"
#include "life/follow.h"

namespace caisson::api {

enum class JobState : uint8_t { Running, Done, Failed, Cancelled };

struct Job {
  uint64_t id = 0;
  std::string operation;  // of the table of routes
  std::string object;     // the machine or image
  std::string who;
  JobState state = JobState::Running;
  std::string message;  // the last that it said; why it failed
  uint64_t started_ms = 0;
  std::optional<uint64_t> ended_ms;
  control::Json result{};  // an object, of one that finds something out; null before its end, and of others
};

class Jobs {
 public:
  static constexpr size_t most_running = 32;
  static constexpr size_t most_ended = 256;

  using Work = std::function<Result<>(const life::Follow& follow)>;
  // The same of one that finds something out: the job's result.
  using Search = std::function<Result<>(const life::Follow& follow, control::Json& result)>;
  // Called at its end, on its thread.
  using Ended = std::function<void(const Job& job)>;

  Jobs() = default;
  ~Jobs();  // asks all to stop, and waits for them

  // An error where too many run.
  [[nodiscard]] Result<Job> start(std::string operation, std::string object, std::string who, Work work, Ended ended);
  [[nodiscard]] Result<Job> search(std::string operation, std::string object, std::string who, Search search,
                                   Ended ended);
  [[nodiscard]] std::vector<Job> list() const;
  [[nodiscard]] std::optional<Job> find(uint64_t id) const;
  // An error where there is none, or it has ended. It ends when it has noticed.
  [[nodiscard]] Result<> cancel(uint64_t id);

 private:
  struct Entry {
    Job job;
    std::jthread thread;
  };
  void forget_old(std::list<std::unique_ptr<Entry>>& gone);
  void run(Entry& entry, const Search& search, const Ended& ended, std::stop_token cancelled);

  mutable std::mutex mutex_;  // of the list and of the jobs in it
  std::list<std::unique_ptr<Entry>> entries_;
  uint64_t last_id_ = 0;
};

}  // namespace caisson::api
