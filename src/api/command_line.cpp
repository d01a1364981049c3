#include "api/command_line.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <functional>
#include <optional>
#include <string_view>
#include <utility>

#include <poll.h>
#include <unistd.h>

#include "api/handlers.h"
#include "life/child.h"
#include "life/vmm_process.h"

namespace caisson::api {
namespace {

using control::Json;

constexpr size_t max_out = 1 << 20;
constexpr size_t max_line = 1024;

struct Ended {
  int status = 0;
  std::string out;
  std::string last;  // line of standard error
};

// Cuts what comes into lines.
class Lines {
 public:
  explicit Lines(std::function<void(std::string_view)> each) : each_(std::move(each)) {}
  void feed(std::string_view bytes) {
    for (const char c : bytes) {
      if (c != '\n' && line_.size() < max_line) line_ += c;
      if (c != '\n' || line_.empty()) continue;
      each_(line_);
      line_.clear();
    }
  }

 private:
  std::function<void(std::string_view)> each_;
  std::string line_;
};

// False: it has ended.
bool read_some(const Fd& pipe, const std::function<void(std::string_view)>& take) {
  std::array<char, 4096> buffer;
  const ssize_t size = ::read(pipe.get(), buffer.data(), buffer.size());
  if (size > 0) take({buffer.data(), static_cast<size_t>(size)});
  return size > 0 || (size < 0 && errno == EINTR);
}

// A line as a person would be told it: with --json it is an object.
std::string plain_line(std::string_view line) {
  constexpr std::string_view prefix = "caisson: error: ";
  if (line.starts_with(prefix)) line.remove_prefix(prefix.size());
  if (!line.starts_with('{')) return std::string{line};
  const auto json = control::parse_json(line);
  if (!json || !json->is_object()) return std::string{line};
  if (const auto message = json->find("message"); message != json->end() && message->is_string()) {
    return message->get<std::string>();
  }
  const auto number = [&](const char* key) { return json->contains(key) ? json->at(key).dump() : "0"; };
  return fmt::format("{} of {} bytes, {} s left", number("done"), number("total"), number("seconds_left"));
}

Result<Ended> run(std::vector<std::string> words, const life::Follow& follow) {
  auto program = life::sibling_program("caisson", "does this");
  if (!program) return std::unexpected(program.error());
  auto out = life::make_pipe();
  if (!out) return std::unexpected(out.error());
  auto said = life::make_pipe();
  if (!said) return std::unexpected(said.error());
  words.insert(words.begin(), *program);
  auto child = life::Child::start(words, {-1, out->write.get(), said->write.get()});
  if (!child) return std::unexpected(child.error());
  out->write.reset();
  said->write.reset();
  Ended ended;
  Lines lines{[&](std::string_view line) {
    ended.last = plain_line(line);
    follow.say(ended.last);
  }};
  std::array<pollfd, 2> ready{{{out->read.get(), POLLIN, 0}, {said->read.get(), POLLIN, 0}}};
  bool told = false;
  while (ready[0].fd >= 0 || ready[1].fd >= 0) {
    if (::poll(ready.data(), ready.size(), 250) < 0 && errno != EINTR) break;
    if (follow.cancelled.stop_requested() && !told) {
      child->signal(SIGTERM);
      told = true;
    }
    const auto keep = [&](std::string_view bytes) {
      ended.out.append(bytes.substr(0, max_out - std::min(max_out, ended.out.size())));
    };
    if (ready[0].fd >= 0 && ready[0].revents != 0 && !read_some(out->read, keep)) ready[0].fd = -1;
    const auto cut = [&](std::string_view bytes) { lines.feed(bytes); };
    if (ready[1].fd >= 0 && ready[1].revents != 0 && !read_some(said->read, cut)) ready[1].fd = -1;
  }
  ended.status = child->wait();
  return ended;
}

std::unexpected<Error> failure(const Ended& ended) {
  return fail("{}", ended.last.empty() ? "caisson failed without saying why" : ended.last);
}

}  // namespace

Result<> run_caisson(std::vector<std::string> words, const life::Follow& follow) {
  const auto ended = run(std::move(words), follow);
  if (!ended) return std::unexpected(ended.error());
  return ended->status == 0 ? Result<>{} : failure(*ended);
}

Result<> search_by_caisson(std::vector<std::string> words, const life::Follow& follow, Json& result) {
  const auto ended = run(std::move(words), follow);
  if (!ended) return std::unexpected(ended.error());
  if (ended->out.empty()) return ended->status == 0 ? Result<>{} : failure(*ended);
  auto json = control::parse_json(ended->out);
  if (!json || !json->is_object()) return failure(*ended);
  result = std::move(*json);
  return {};
}

Answer dry_run_by_caisson(std::vector<std::string> words) {
  // Before what ends the options.
  words.insert(std::ranges::find(words, "--"), "--dry-run");
  const auto ended = run(std::move(words), {});
  if (!ended) return conflict(ended.error());
  if (ended->status != 0) return conflict(failure(*ended).error());
  std::string text;
  Lines{[&](std::string_view line) {
    constexpr std::string_view prefix = "would ";
    if (line.starts_with(prefix)) line.remove_prefix(prefix.size());
    if (!text.empty()) text += "; ";
    text += line;
  }}.feed(ended->out + "\n");
  return would(text);
}

}  // namespace caisson::api
