#include "cli/download.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <functional>
#include <optional>
#include <vector>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "cli/transfer_progress.h"
#include "life/child.h"
#include "life/vmm_process.h"
#include "store/files.h"

namespace caisson::cli {
namespace {

using Json = nlohmann::json;

constexpr int not_now = 75;  // caisson-fetch's exit status: the same may work later
constexpr size_t most_line = 16 * 1024;

// What a file of the folder of downloads is a part of.
struct Origin {
  std::string url;
  std::string validator;
};
std::optional<Origin> read_origin(const std::string& path) {
  const auto text = read_file(path, 16 * 1024);
  if (!text) return std::nullopt;
  const Json json = Json::parse(*text, nullptr, false);
  if (!json.is_object() || !json.contains("url") || !json.contains("validator")) return std::nullopt;
  if (!json["url"].is_string() || !json["validator"].is_string()) return std::nullopt;
  return Origin{json["url"], json["validator"]};
}
Result<> write_origin(const std::string& path, const Origin& origin) {
  const Json json{{"url", origin.url}, {"validator", origin.validator}};
  return write_file(path, json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

uint64_t size_of(int fd) {
  struct stat status {};
  return ::fstat(fd, &status) == 0 ? static_cast<uint64_t>(status.st_size) : 0;
}

// Runs it with `file` as its standard input; its lines one by one. The exit status.
Result<int> run_fetch(std::vector<std::string> words, int file, const std::function<void(const Json&)>& line) {
  auto program = life::sibling_program("caisson-fetch", "downloads images");
  if (!program) return std::unexpected(program.error());
  words.insert(words.begin(), *program);
  auto said = life::make_pipe();
  if (!said) return std::unexpected(said.error());
  auto child = life::Child::start(words, {file, said->write.get(), STDERR_FILENO});
  if (!child) return std::unexpected(child.error());
  said->write.reset();
  std::string text;
  std::array<char, 4096> buffer;
  for (;;) {
    const ssize_t size = ::read(said->read.get(), buffer.data(), buffer.size());
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) break;
    for (const char c : std::string_view{buffer.data(), static_cast<size_t>(size)}) {
      if (c != '\n') {
        if (text.size() < most_line) text += c;
        continue;
      }
      const Json json = Json::parse(text, nullptr, false);
      text.clear();
      if (json.is_object() && json.contains("type") && json["type"].is_string()) line(json);
    }
  }
  return child->wait();
}

}  // namespace

Result<Download> Download::begin(const std::string& name) {
  auto cache = cache_folder();
  if (!cache) return std::unexpected(cache.error());
  const std::string folder = *cache + "/downloads";
  if (auto ok = make_folders(folder); !ok) return std::unexpected(ok.error());
  Download one;
  one.path_ = folder + "/" + name;
  one.file_ = Fd{::open(one.path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)};
  if (!one.file_.valid()) return fail_errno(errno, "cannot make " + one.path_);
  if (::flock(one.file_.get(), LOCK_EX | LOCK_NB) != 0) {
    return fail("another command downloads {}; wait for that one", one.path_);
  }
  // It may have been finished and removed by another command between the two.
  if (struct stat status{}; ::fstat(one.file_.get(), &status) != 0 || status.st_nlink == 0) {
    return fail("another command has just downloaded {}; try again", one.path_);
  }
  return one;
}

Result<> Download::get(const std::string& url, const DownloadOptions& options) {
  const std::string beside = path_ + ".json";
  TransferProgress progress{"downloading", options.json};
  std::string last;
  for (unsigned fruitless = 0;;) {
    const auto origin = read_origin(beside);
    const bool goes_on = origin && origin->url == url && !origin->validator.empty();
    const uint64_t from = goes_on ? size_of(file_.get()) : 0;
    if (from != 0) progress.begin_at(from);
    std::optional<Error> unsaved;
    const auto status =
        run_fetch({"get", std::to_string(from), std::to_string(options.most_bytes), std::to_string(options.stall_s),
                   goes_on ? origin->validator : "", url},
                  file_.get(), [&](const Json& line) {
                    if (line["type"] == "begins") {
                      const auto saved = write_origin(beside, {url, line.value("validator", "")});
                      if (!saved) unsaved = saved.error();
                    } else if (line["type"] == "progress") {
                      progress.update(line.value("done", uint64_t{0}), line.value("total", uint64_t{0}));
                    } else if (line["type"] == "error") {
                      last = line.value("message", "");
                    }
                  });
    if (!status) return std::unexpected(status.error());
    if (*status == 0) return {};
    if (last.empty()) last = fmt::format("caisson-fetch ended with status {}", *status);
    if (*status != not_now) {
      const auto failure = fail("{}: {}", url, last);
      if (unsaved) return std::unexpected(*unsaved);
      return failure;
    }
    const uint64_t now = size_of(file_.get());
    fruitless = now > from ? 0 : fruitless + 1;
    if (fruitless >= options.tries) {
      const auto kept = read_origin(beside);
      if (now == 0 || !kept || kept->validator.empty()) return fail("{}: {}; try again later", url, last);
      return fail("{}: {}; the same command goes on from {}", url, last, human_bytes(now));
    }
    if (!options.json) log::warning("{}: {}; trying again", url, last);
    ::sleep(1u << std::min(fruitless, 4u) >> 1);
  }
}

void Download::remove() {
  ::unlink((path_ + ".json").c_str());
  ::unlink(path_.c_str());
}

Result<std::string> check_signature(const std::string& key, const std::string& signature, int file) {
  if (::lseek(file, 0, SEEK_SET) != 0) return fail_errno(errno, "cannot read the download");
  std::string message, comment;
  const auto status = run_fetch({"verify", key, signature}, file, [&](const Json& line) {
    if (line["type"] == "error") message = line.value("message", "");
    if (line["type"] == "signed") comment = line.value("comment", "");
  });
  if (!status) return std::unexpected(status.error());
  if (*status != 0) return fail("{}", message.empty() ? "the signature could not be checked" : message);
  return comment;
}

}  // namespace caisson::cli
