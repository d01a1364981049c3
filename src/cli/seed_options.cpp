#include "cli/run_options.h"

#include <algorithm>
#include <string_view>

#include "store/files.h"

namespace caisson::cli {
namespace {

// Lines of a file of public keys, or the key itself.
Result<> add_keys(const std::string& given, std::vector<std::string>& keys) {
  if (given.find(' ') != std::string::npos) {
    keys.push_back(given);
    return {};
  }
  const auto text = read_file(given, 64 * 1024);
  if (!text) return with_context("--ssh-key", text.error());
  if (text->find("PRIVATE KEY") != std::string::npos) {
    return fail("--ssh-key {}: that is the private half, which stays with you; name {}.pub", given, given);
  }
  for (size_t start = 0; start < text->size();) {
    const size_t end = std::min(text->find('\n', start), text->size());
    std::string line = text->substr(start, end - start);
    if (line.ends_with('\r')) line.pop_back();
    start = end + 1;
    if (!line.empty() && line.front() != '#') keys.push_back(std::move(line));
  }
  return {};
}

}  // namespace

Result<std::optional<life::Seed>> to_seed(const RunOptions& options) {
  life::Seed seed{.user = options.user, .hostname = options.hostname};
  if (!options.cloud_init.empty()) {
    auto text = read_file(options.cloud_init, life::Seed::max_user_data);
    if (!text) return with_context("--cloud-init", text.error());
    if (text->empty()) return fail("--cloud-init {}: the file is empty", options.cloud_init);
    seed.user_data = std::move(*text);
  }
  for (const std::string& given : options.ssh_keys) {
    if (auto ok = add_keys(given, seed.keys); !ok) return std::unexpected(ok.error());
  }
  for (const std::string& given : options.packages) {
    for (size_t start = 0; start <= given.size();) {
      const size_t end = std::min(given.find(',', start), given.size());
      seed.packages.push_back(given.substr(start, end - start));
      start = end + 1;
    }
  }
  for (const std::string& given : options.files) {
    // The last one, since a host's file may have one in its name.
    const size_t colon = given.rfind(":/");
    if (colon == std::string::npos || colon == 0) return fail("--file {}: write FILE:/path/in/the/guest", given);
    auto content = read_file(given.substr(0, colon), life::Seed::max_user_data);
    if (!content) return with_context("--file", content.error());
    seed.files.push_back({given.substr(colon + 1), std::move(*content)});
  }
  const bool any = !options.cloud_init.empty() || !seed.user.empty() || !seed.keys.empty() || !seed.hostname.empty() ||
                   !seed.packages.empty() || !seed.files.empty();
  if (!any) return std::nullopt;
  if (auto ok = life::check(seed); !ok) return std::unexpected(ok.error());
  return seed;
}

}  // namespace caisson::cli
