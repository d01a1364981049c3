#include "cli/stats_command.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <optional>
#include <thread>

#include <fmt/core.h>
#include <unistd.h>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "cli/exit_status.h"
#include "cli/table.h"
#include "control/limits.h"
#include "life/look.h"
#include "life/process_usage.h"
#include "store/store.h"

namespace caisson::cli {
namespace {

using Json = nlohmann::json;
using Clock = std::chrono::steady_clock;

struct Sample {
  Clock::time_point at;
  pid_t pid = 0;
  double cpu_s = 0;
};
using Samples = std::map<std::string, Sample>;

struct Row {
  std::string name, state;
  unsigned cpus = 0;
  uint64_t memory_bytes = 0;
  std::optional<life::ProcessUsage> usage;
  std::optional<double> cpu_percent;  // of one CPU of the host
  std::optional<control::BalloonStatus> balloon;
};

std::vector<Row> rows_of(const std::vector<life::Listed>& machines, Samples& samples) {
  std::vector<Row> rows;
  Samples now;
  for (const life::Listed& one : machines) {
    Row row;
    row.name = one.folder.name();
    row.state = life::state_of(one);
    if (one.spec) row.cpus = one.spec->cpus, row.memory_bytes = one.spec->memory_bytes;
    if (one.status) {
      row.balloon = one.status->balloon;
      const pid_t pid = one.client->pid();
      row.usage = life::usage_of(pid);
      if (row.usage) {
        const Sample sample{Clock::now(), pid, row.usage->cpu_s};
        const auto before = samples.find(row.name);
        if (before != samples.end() && before->second.pid == pid) {
          const std::chrono::duration<double> time = sample.at - before->second.at;
          if (time.count() > 0) row.cpu_percent = 100 * (sample.cpu_s - before->second.cpu_s) / time.count();
        }
        now[row.name] = sample;
      }
    }
    rows.push_back(std::move(row));
  }
  samples = std::move(now);
  return rows;
}

Json to_json(const std::vector<Row>& rows) {
  Json array = Json::array();
  for (const Row& row : rows) {
    Json one{{"name", row.name}, {"state", row.state}, {"cpus", row.cpus}, {"memory_bytes", row.memory_bytes}};
    if (row.usage) one["cpu_seconds"] = row.usage->cpu_s, one["resident_bytes"] = row.usage->resident_bytes;
    if (row.cpu_percent) one["cpu_percent"] = *row.cpu_percent;
    if (const auto& says = row.balloon) {
      one["balloon"] = Json{{"target_bytes", says->target_bytes},     {"memory_bytes", says->memory_bytes},
                            {"reported_bytes", says->reported_bytes}, {"total_bytes", says->total_bytes},
                            {"free_bytes", says->free_bytes},         {"available_bytes", says->available_bytes}};
    }
    array.push_back(std::move(one));
  }
  return array;
}

std::string table_of(const std::vector<Row>& rows) {
  std::vector<std::vector<std::string>> cells{
      {"NAME", "STATE", "CPU", "CPUS", "CPU TIME", "RESIDENT", "MEMORY", "AVAILABLE"}};
  for (const Row& row : rows) {
    cells.push_back({row.name, row.state, row.cpu_percent ? fmt::format("{:.1f} %", *row.cpu_percent) : "-",
                     fmt::format("{}", row.cpus), row.usage ? fmt::format("{:.1f} s", row.usage->cpu_s) : "-",
                     row.usage ? fmt::format("{} MiB", row.usage->resident_bytes >> 20) : "-",
                     fmt::format("{} MiB", (row.balloon ? row.balloon->memory_bytes : row.memory_bytes) >> 20),
                     row.balloon && row.balloon->total_bytes != 0
                         ? fmt::format("{} MiB", row.balloon->available_bytes >> 20)
                         : "-"});
  }
  return table_text(cells);
}

}  // namespace

int stats_command(const StatsOptions& options) {
  const auto failed = [](const Error& error) {
    log::error("{}", error.message);
    return exit_failure;
  };
  auto store = store::Store::open();
  if (!store) return failed(store.error());
  for (const std::string& name : options.names) {
    if (auto folder = store->find(name); !folder) return failed(folder.error());
  }
  Samples samples;
  const auto look = [&]() -> Result<std::vector<Row>> {
    auto names = options.names.empty() ? store->names() : Result<std::vector<std::string>>{options.names};
    if (!names) return std::unexpected(names.error());
    auto machines = life::look(*store, *names);
    if (options.names.empty()) std::erase_if(machines, [](const life::Listed& one) { return !one.alive; });
    auto rows = rows_of(machines, samples);
    if (options.by_use) {
      std::ranges::stable_sort(rows, [](const Row& a, const Row& b) { return a.cpu_percent > b.cpu_percent; });
    }
    return rows;
  };
  // CPU time is a difference: what was found first is shown at once only where one goes on looking.
  const bool in_place = options.follow && !options.json && ::isatty(STDOUT_FILENO) == 1;
  auto rows = look();
  for (bool first = !in_place; rows; first = false, rows = look()) {
    if (!first) {
      std::string text;
      if (options.json) {
        text = to_json(*rows).dump(options.follow ? -1 : 2, ' ', false, Json::error_handler_t::replace) + "\n";
      } else {
        if (in_place) text = "\x1b[H\x1b[J";  // home, and clear from there (ECMA-48, CUP and ED)
        text += table_of(*rows);
      }
      fmt::print("{}", text);
      if (std::fflush(stdout) != 0) return exit_ok;  // nobody reads it any more
      if (!options.follow) return exit_ok;
    }
    std::this_thread::sleep_for(std::chrono::seconds{options.follow && !first ? 2 : 1});
  }
  return failed(rows.error());
}

}  // namespace caisson::cli
