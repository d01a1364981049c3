#include "cli/events_command.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <ctime>
#include <iterator>

#include <fmt/core.h>
#include <poll.h>
#include <unistd.h>

#include "base/log.h"
#include "base/utc.h"
#include "cli/exit_status.h"
#include "life/feed.h"
#include "life/machines.h"
#include "store/store.h"

namespace caisson::cli {
namespace {

using control::Json;

constexpr timespec between_looks{0, 200'000'000};
constexpr size_t most_value = 200;

// "key=value" of what has one value; the rest is for --json.
std::string detail_text(const Json& event) {
  std::string text;
  const auto detail = event.find("detail");
  if (detail == event.end() || !detail->is_object()) return text;
  for (const auto& [key, value] : detail->items()) {
    if (value.is_structured() || value.is_null()) continue;
    const std::string shown = value.is_string() ? value.get<std::string>() : value.dump();
    if (shown.empty()) continue;
    text += fmt::format("  {}={}", key, shown.substr(0, most_value));
  }
  return text;
}

// False: nobody reads any more.
bool print(const Json& event, bool json) {
  if (json) {
    fmt::print("{}\n", control::dump_json(event));
  } else {
    fmt::print("{}  {:16}  {:10}{}\n", utc_text(event.value("at_ms", uint64_t{0})), event.value("machine", ""),
               event.value("type", ""), detail_text(event));
  }
  return std::fflush(stdout) == 0;
}

// Also where nothing happens that could be printed.
bool reader_is_there() {
  pollfd out{STDOUT_FILENO, 0, 0};
  return ::poll(&out, 1, 0) <= 0 || (out.revents & POLLERR) == 0;
}

int report(const Error& error, int status) {
  log::error("{}", error.message);
  return status;
}

// Of all these machines together, oldest first.
Result<std::vector<Json>> past(const store::Store& store, const std::vector<std::string>& names, uint64_t since_ms) {
  std::vector<Json> all;
  for (const std::string& name : names) {
    const auto folder = store.find(name);
    if (!folder) return std::unexpected(folder.error());
    for (const store::TimedEvent& event : folder->events()) {
      if (event.at_ms >= since_ms) all.push_back(life::event_json(name, event));
    }
  }
  std::ranges::stable_sort(all, {}, [](const Json& event) { return event.value("at_ms", uint64_t{0}); });
  return all;
}

}  // namespace

Result<uint64_t> parse_since(std::string_view text, uint64_t now_ms) {
  const auto bad = fail("--since {}: write for example 90s, 10m, 2h, 3d or 2026-01-02T03:04:05Z", text);
  uint64_t count = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
  if (error == std::errc{} && end + 1 == text.data() + text.size()) {
    constexpr std::string_view units = "smhd";
    constexpr uint64_t seconds[]{1, 60, 3600, 86400};
    const size_t unit = units.find(*end);
    if (unit == std::string_view::npos || count > now_ms / 1000 / seconds[unit]) return bad;
    return now_ms - count * seconds[unit] * 1000;
  }
  tm time{};
  const std::string whole{text};
  const char* const rest = ::strptime(whole.c_str(), "%Y-%m-%dT%H:%M:%SZ", &time);
  if (rest == nullptr || *rest != '\0') return bad;
  const time_t at = ::timegm(&time);
  if (at < 0) return bad;
  return static_cast<uint64_t>(at) * 1000;
}

int events_command(const EventsOptions& options) {
  uint64_t since_ms = 0;
  if (!options.since.empty()) {
    const auto since = parse_since(options.since, utc_ms());
    if (!since) return report(since.error(), exit_usage);
    since_ms = *since;
  }
  const auto store = store::Store::open();
  if (!store) return report(store.error(), exit_failure);
  // Before the records are read: what happens in between is told twice rather than not at all.
  life::Feed feed;
  if (options.follow) (void)feed.look();
  uint64_t told_ms = 0;
  if (!options.follow || !options.since.empty()) {
    auto names = options.names.empty() ? store->names() : options.names;
    if (!names) return report(names.error(), exit_failure);
    const auto all = past(*store, *names, since_ms);
    if (!all) return report(all.error(), exit_failure);
    for (const Json& event : *all) {
      if (!print(event, options.json)) return exit_ok;
      told_ms = event.value("at_ms", uint64_t{0});
    }
  }
  // Until a signal, or until nobody reads.
  while (options.follow && reader_is_there()) {
    for (const Json& event : feed.look()) {
      const bool wanted =
          options.names.empty() || std::ranges::find(options.names, event.value("machine", "")) != options.names.end();
      if (!wanted || event.value("at_ms", uint64_t{0}) <= told_ms) continue;
      if (!print(event, options.json)) return exit_ok;
    }
    ::nanosleep(&between_looks, nullptr);
  }
  return exit_ok;
}

}  // namespace caisson::cli
