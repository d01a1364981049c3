#include "cli/apt_host.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <map>

#include <fmt/core.h>

#include "life/child.h"
#include "store/files.h"

namespace caisson::cli {
namespace {

constexpr size_t file_limit = 1024 * 1024;

std::string lower(std::string_view text) {
  std::string result{text};
  for (char& c : result) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return result;
}

std::vector<std::string> split(std::string_view text, std::string_view separators) {
  std::vector<std::string> parts;
  size_t start = 0;
  while ((start = text.find_first_not_of(separators, start)) != std::string_view::npos) {
    const size_t end = std::min(text.find_first_of(separators, start), text.size());
    parts.emplace_back(text.substr(start, end - start));
    start = end;
  }
  return parts;
}

// Options that say how a repository is verified or read; architectures are looked at and dropped.
bool keep_option(std::string_view name) {
  constexpr std::array<std::string_view, 6> kept{"signed-by",  "trusted",        "check-valid-until",
                                                 "check-date", "allow-insecure", "allow-weak"};
  return std::find(kept.begin(), kept.end(), name) != kept.end();
}

bool for_amd64(std::string_view architectures) {
  const auto list = split(architectures, ", \t");
  return list.empty() || std::find(list.begin(), list.end(), "amd64") != list.end();
}

constexpr std::string_view debian_keyring = "debian-archive-keyring";

// "bookworm-security" → {"bookworm", "-security"}; nothing else that is Debian's has a suite of these forms.
std::pair<std::string, std::string> split_suite(std::string_view suite) {
  if (suite.ends_with("/updates")) return {std::string{suite.substr(0, suite.size() - 8)}, "-security"};
  for (const std::string_view tail : {"-security", "-updates"}) {
    if (suite.ends_with(tail)) return {std::string{suite.substr(0, suite.size() - tail.size())}, std::string{tail}};
  }
  return {std::string{suite}, ""};
}

bool is_debian_release(std::string_view name) {
  constexpr std::array<std::string_view, 13> names{"buster", "bullseye",     "bookworm", "trixie",   "forky",
                                                   "sid",    "stable",       "testing",  "unstable", "oldstable",
                                                   "duke",   "oldoldstable", "rc-buggy"};
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

std::vector<AptSource> parse_one_line_sources(std::string_view text) {
  std::vector<AptSource> sources;
  for (auto line : split(text, "\n")) {
    line = line.substr(0, line.find('#'));
    AptSource source;
    bool fits = true;
    if (const size_t open = line.find('['); open != std::string::npos) {
      const size_t close = line.find(']', open);
      if (close == std::string::npos) continue;
      for (const auto& option : split(std::string_view{line}.substr(open + 1, close - open - 1), " \t")) {
        const size_t equals = option.find('=');
        if (equals == std::string::npos) continue;
        const std::string name = lower(option.substr(0, equals));
        const std::string value = option.substr(equals + 1);
        if (name == "arch") fits = for_amd64(value);
        if (keep_option(name)) source.options.emplace_back(name, value);
      }
      line.erase(open, close - open + 1);
    }
    const auto words = split(line, " \t\r");
    if (words.size() < 3 || words[0] != "deb" || !fits) continue;
    source.uri = words[1];
    source.suite = words[2];
    source.components.assign(words.begin() + 3, words.end());
    sources.push_back(std::move(source));
  }
  return sources;
}

std::vector<AptSource> parse_deb822_sources(std::string_view text) {
  std::vector<AptSource> sources;
  std::map<std::string, std::string> stanza;
  const auto finish = [&] {
    const auto field = [&](const char* name) {
      const auto found = stanza.find(name);
      return found == stanza.end() ? std::string{} : found->second;
    };
    const auto types = split(field("types"), " \t\n");
    const auto enabled_words = split(lower(field("enabled")), " \t\r\n");
    const bool enabled =
        enabled_words.empty() || (enabled_words[0] != "no" && enabled_words[0] != "false" && enabled_words[0] != "0");
    if (enabled && std::find(types.begin(), types.end(), "deb") != types.end() && for_amd64(field("architectures"))) {
      AptSource source;
      source.components = split(field("components"), " \t\n");
      for (const auto& [name, value] : stanza) {
        // A key written into the file itself has line breaks and no one-line form.
        if (keep_option(name) && value.find('\n') == std::string::npos) {
          const auto words = split(value, " \t");
          if (!words.empty()) source.options.emplace_back(name, words.front());
        }
      }
      for (const auto& uri : split(field("uris"), " \t\n")) {
        for (const auto& suite : split(field("suites"), " \t\n")) {
          source.uri = uri;
          source.suite = suite;
          sources.push_back(source);
        }
      }
    }
    stanza.clear();
  };
  std::string key;
  size_t start = 0;
  while (start <= text.size()) {
    const size_t end = std::min(text.find('\n', start), text.size());
    const std::string_view line = text.substr(start, end - start);
    start = end + 1;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) {
      finish();
      key.clear();
    } else if (line.front() == '#') {
      continue;
    } else if (line.front() == ' ' || line.front() == '\t') {
      if (!key.empty()) stanza[key] += '\n' + std::string{line};
    } else if (const size_t colon = line.find(':'); colon != std::string_view::npos) {
      key = lower(line.substr(0, colon));
      stanza[key] = line.substr(colon + 1);
    }
  }
  finish();
  return sources;
}

std::vector<AptSource> host_sources(const std::string& folder) {
  std::vector<std::string> paths;
  std::error_code error;
  std::filesystem::directory_iterator entry{folder + "/sources.list.d", error};
  for (; !error && entry != std::filesystem::directory_iterator{}; entry.increment(error)) {
    paths.push_back(entry->path().string());
  }
  std::sort(paths.begin(), paths.end());
  paths.insert(paths.begin(), folder + "/sources.list");
  std::vector<AptSource> all;
  for (const auto& path : paths) {
    const bool deb822 = path.ends_with(".sources");
    if (!deb822 && !path.ends_with(".list")) continue;
    const auto text = read_file(path, file_limit);
    if (!text) continue;
    const auto some = deb822 ? parse_deb822_sources(*text) : parse_one_line_sources(*text);
    all.insert(all.end(), some.begin(), some.end());
  }
  return all;
}

std::vector<AptSource> sources_for(const std::vector<AptSource>& sources, std::string_view suite) {
  std::vector<AptSource> result;
  bool base = false;
  for (const auto& source : sources) {
    const auto [release, tail] = split_suite(source.suite);
    const bool reachable = source.uri.starts_with("http://") || source.uri.starts_with("https://");
    const bool main = std::find(source.components.begin(), source.components.end(), "main") != source.components.end();
    if (!is_debian_release(release) || !reachable || !main) continue;
    if (!tail.empty() && (suite == "sid" || suite == "unstable")) continue;  // has no updates and no security suite
    AptSource translated = source;
    // Debian 10 and before named it differently; those are not built here.
    translated.suite = std::string{suite} + tail;
    std::erase_if(translated.options, [](const auto& option) {
      // The image has Debian's keys itself, and in another release they may be in another file.
      return option.first == "signed-by" && option.second.find(debian_keyring) != std::string::npos;
    });
    if (std::find(result.begin(), result.end(), translated) != result.end()) continue;
    base = base || tail.empty();
    result.push_back(std::move(translated));
  }
  if (!base) result.clear();
  return result;
}

std::string to_lines(const std::vector<AptSource>& sources) {
  std::string text;
  for (const auto& source : sources) {
    text += "deb ";
    if (!source.options.empty()) {
      text += '[';
      for (const auto& [name, value] : source.options)
        text += fmt::format("{}{}={}", text.back() == '[' ? "" : " ", name, value);
      text += "] ";
    }
    text += source.uri + ' ' + source.suite;
    for (const auto& component : source.components) text += ' ' + component;
    text += '\n';
  }
  return text;
}

std::vector<AptOption> select_options(std::string_view dump) {
  const auto wanted = [](const std::string& name) {
    constexpr std::array<std::string_view, 7> exact{
        "acquire::check-valid-until", "acquire::check-date",    "acquire::retries", "acquire::forceipv4",
        "acquire::forceipv6",         "acquire::max-validtime", "acquire::by-hash"};
    if (std::find(exact.begin(), exact.end(), name) != exact.end()) return true;
    for (const std::string_view method : {"acquire::http::", "acquire::https::"}) {
      if (!name.starts_with(method)) continue;
      const std::string rest = name.substr(method.size());
      constexpr std::array<std::string_view, 6> starts{"proxy",   "verify-peer", "verify-host",
                                                       "timeout", "user-agent",  "allowredirect"};
      for (const auto start : starts) {
        if (rest == start || rest.starts_with(std::string{start} + "::")) return true;
      }
    }
    return false;
  };
  std::vector<AptOption> options;
  for (const auto& line : split(dump, "\n")) {
    const size_t space = line.find(" \"");
    if (space == std::string::npos || !line.ends_with("\";")) continue;
    const std::string name = line.substr(0, space);
    const std::string value = line.substr(space + 2, line.size() - space - 4);
    if (!value.empty() && wanted(lower(name))) options.emplace_back(name, value);
  }
  return options;
}

std::vector<AptOption> host_options() {
  std::vector<AptOption> options;
  if (const auto dump = life::capture({"apt-config", "dump"}); dump && dump->status == 0)
    options = select_options(dump->out);
  for (const char* method : {"http", "https"}) {
    const std::string name = fmt::format("Acquire::{}::Proxy", method);
    const auto same = [&](const AptOption& option) { return lower(option.first) == lower(name); };
    const char* proxy = std::getenv(fmt::format("{}_proxy", method).c_str());
    if (proxy == nullptr || *proxy == '\0' || std::any_of(options.begin(), options.end(), same)) continue;
    options.emplace_back(name, proxy);
  }
  return options;
}

std::string to_conf(const std::vector<AptOption>& options) {
  std::string text;
  for (const auto& [name, value] : options) {
    if (value.find_first_of("\"\n") == std::string::npos) text += fmt::format("{} \"{}\";\n", name, value);
  }
  return text;
}

std::string for_guest(std::string_view url) {
  const size_t scheme = url.find("://");
  if (scheme == std::string_view::npos) return std::string{url};
  size_t host = scheme + 3;
  const size_t authority_end = std::min(url.find_first_of("/?#", host), url.size());
  if (const size_t at = url.substr(0, authority_end).rfind('@'); at != std::string_view::npos && at >= host)
    host = at + 1;
  size_t end = std::min(url.find(':', host), authority_end);
  if (host < url.size() && url[host] == '[') end = std::min(url.find(']', host) + 1, authority_end);
  const std::string name = lower(url.substr(host, end - host));
  if (name != "localhost" && name != "[::1]" && !(name.starts_with("127.") && split(name, ".").size() == 4)) {
    return std::string{url};
  }
  return std::string{url.substr(0, host)} + "10.0.2.2" + std::string{url.substr(end)};
}

}  // namespace caisson::cli
