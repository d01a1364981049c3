#include "life/seed.h"

#include <algorithm>
#include <array>
#include <cctype>

#include <nlohmann/json.hpp>

#include "life/iso9660.h"
#include "life/setup_script.h"

namespace caisson::life {
namespace {

using Json = nlohmann::json;

constexpr size_t most_items = 100;

// A label of RFC 1123, 2.1, or several with points between.
bool is_host(std::string_view text) {
  if (text.empty() || text.size() > 253) return false;
  for (size_t start = 0; start <= text.size();) {
    const size_t end = std::min(text.find('.', start), text.size());
    const std::string_view label = text.substr(start, end - start);
    const auto fits = [](unsigned char c) { return std::isalnum(c) != 0 || c == '-'; };
    if (label.empty() || label.size() > 63 || label.front() == '-' || label.back() == '-') return false;
    if (!std::ranges::all_of(label, fits)) return false;
    start = end + 1;
  }
  return true;
}

// As useradd takes it.
bool is_user(std::string_view text) {
  const auto fits = [](unsigned char c) {
    return std::islower(c) != 0 || std::isdigit(c) != 0 || c == '_' || c == '-';
  };
  return !text.empty() && text.size() <= 32 && std::isdigit(static_cast<unsigned char>(text.front())) == 0 &&
         text.front() != '-' && std::ranges::all_of(text, fits);
}

bool is_package(std::string_view text) {
  const auto fits = [](unsigned char c) {
    return std::isalnum(c) != 0 || std::string_view{"+-._:=~/"}.find(static_cast<char>(c)) != std::string_view::npos;
  };
  return !text.empty() && text.size() <= 128 && text.front() != '-' && std::ranges::all_of(text, fits);
}

bool is_plain(std::string_view text) {
  return std::ranges::all_of(text, [](unsigned char c) { return c >= 0x20 && c != 0x7f; });
}

bool is_key(std::string_view text) {
  constexpr std::array<std::string_view, 5> kinds{"ssh-", "ecdsa-", "sk-ssh-", "sk-ecdsa-", "cert-authority "};
  const bool known = std::ranges::any_of(kinds, [&](std::string_view kind) { return text.starts_with(kind); });
  return known && text.find(' ') != std::string_view::npos && text.size() <= 16384 && is_plain(text);
}

// Names of machines may have what those of hosts may not.
std::string host_of(std::string_view machine) {
  std::string host;
  for (const char c : machine) host += c == '_' || c == '.' ? '-' : c;
  while (host.ends_with('-')) host.pop_back();
  return host.substr(0, 63);
}

std::string cloud_config(const Seed& seed, std::string_view root_key) {
  Json users = Json::array();
  users.push_back("default");
  if (!seed.user.empty()) {
    users.push_back({{"name", seed.user},
                     {"shell", "/bin/bash"},
                     {"sudo", "ALL=(ALL) NOPASSWD:ALL"},
                     {"lock_passwd", true},
                     {"ssh_authorized_keys", seed.keys}});
  }
  Json config{{"users", users}};
  if (!root_key.empty()) {
    config["disable_root"] = false;
    config["users"].push_back({{"name", "root"}, {"ssh_authorized_keys", {std::string{root_key}}}});
  }
  if (seed.user.empty() && !seed.keys.empty()) config["ssh_authorized_keys"] = seed.keys;
  if (!seed.packages.empty()) {
    config["package_update"] = true;
    config["packages"] = seed.packages;
  }
  for (const SeedFile& file : seed.files) {
    config["write_files"].push_back({{"path", file.path}, {"encoding", "b64"}, {"content", base64(file.content)}});
  }
  return "#cloud-config\n" + config.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace

Result<> check(const Seed& seed) {
  const bool made = !seed.user.empty() || !seed.keys.empty() || !seed.packages.empty() || !seed.files.empty();
  if (!seed.user_data.empty()) {
    if (made) return fail("--cloud-init: has all of it; leave out --user, --ssh-key, --packages and --file");
    // What cloud-init tells by their first lines; gzip as well.
    constexpr std::array<std::string_view, 6> starts{
        "#cloud-config", "#!", "#include", "## template:", "Content-Type:", "\x1f\x8b"};
    const bool known =
        std::ranges::any_of(starts, [&](std::string_view start) { return seed.user_data.starts_with(start); });
    if (!known)
      return fail("--cloud-init: cloud-init does not take that; begin its first line with #cloud-config or #!");
  }
  if (seed.user_data.size() > Seed::max_user_data) return fail("--cloud-init: more than {} bytes", Seed::max_user_data);
  if (!seed.user.empty() && !is_user(seed.user)) {
    return fail("--user {}: use 1 to 32 small letters, digits, '-' and '_', starting with a letter or '_'", seed.user);
  }
  if (!seed.user.empty() && seed.user == "root") return fail("--user root: is there already; leave it out");
  if (!seed.hostname.empty() && !is_host(seed.hostname)) {
    return fail("--hostname {}: use letters, digits and '-', with points between names", seed.hostname);
  }
  if (seed.keys.size() > most_items || seed.packages.size() > most_items || seed.files.size() > most_items) {
    return fail("--ssh-key, --packages, --file: at most {} of each", most_items);
  }
  for (const std::string& key : seed.keys) {
    if (!is_key(key)) return fail("--ssh-key: not a public key of ssh; name a file like ~/.ssh/id_ed25519.pub");
  }
  for (const std::string& package : seed.packages) {
    if (!is_package(package)) return fail("--packages {}: not a package's name", package.substr(0, 80));
  }
  size_t bytes = 0;
  for (const SeedFile& file : seed.files) {
    if (file.path.size() < 2 || file.path.front() != '/' || file.path.size() > 4096 || !is_plain(file.path)) {
      return fail("--file: {} is no absolute path in the guest; write FILE:/path", file.path.substr(0, 80));
    }
    bytes += file.content.size();
    if (bytes > Seed::max_user_data / 2)
      return fail("--file: more than {} bytes together; use caisson cp later", Seed::max_user_data / 2);
  }
  return {};
}

Result<std::string> make_seed(const Seed& seed, std::string_view machine, std::string_view root_key, uint64_t made_ms) {
  if (auto ok = check(seed); !ok) return std::unexpected(ok.error());
  const std::string host = seed.hostname.empty() ? host_of(machine) : seed.hostname;
  const Json meta{{"instance-id", fmt::format("caisson-{}-{}", machine, made_ms)}, {"local-hostname", host}};
  const std::string user_data = seed.user_data.empty() ? cloud_config(seed, root_key) : seed.user_data;
  return make_iso("CIDATA",
                  {{"meta-data", meta.dump(2) + "\n"}, {"user-data", user_data}, {"caisson-setup", setup_script(seed)}},
                  made_ms);
}

}  // namespace caisson::life
