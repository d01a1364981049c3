#include "daemon/tokens.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <unistd.h>

#include "base/utc.h"
#include "control/json_fields.h"
#include "life/images.h"
#include "store/files.h"
#include "store/vm_spec.h"

namespace caisson::control {

template <>
struct EnumNames<api::Role> {
  static constexpr std::array<std::string_view, 3> names = api::role_names;
};
template <>
struct JsonTable<daemon::Token> {
  static constexpr auto fields() {
    using daemon::Token;
    return std::tuple{key("name", &Token::name, {1, 64}, true), key("role", &Token::role, {}, true),
                      key("sha256", &Token::sha256, {64, 64}, true), key("created_ms", &Token::created_ms),
                      key("expires_ms", &Token::expires_ms)};
  }
};

}  // namespace caisson::control

namespace caisson::daemon {
namespace {

constexpr size_t max_file = 1 << 20;

std::string sha256(std::string_view text) {
  std::array<unsigned char, 32> digest{};
  unsigned size = 0;
  ::EVP_Digest(text.data(), text.size(), digest.data(), &size, ::EVP_sha256(), nullptr);
  std::string out;
  for (const unsigned char byte : digest) out += fmt::format("{:02x}", byte);
  return out;
}

// RFC 4648, 5, without padding; of whole groups of three bytes.
std::string base64url(const std::array<unsigned char, 33>& bytes) {
  constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const unsigned group =
        static_cast<unsigned>(bytes[i]) << 16 | static_cast<unsigned>(bytes[i + 1]) << 8 | bytes[i + 2];
    for (const int shift : {18, 12, 6, 0}) out += digits[group >> shift & 63];
  }
  return out;
}

Result<Fd> lock(const std::string& path) {
  if (auto ok = make_folders(path.substr(0, path.rfind('/'))); !ok) return std::unexpected(ok.error());
  return life::lock_file(path + ".lock", path, [](std::string_view) {});
}

}  // namespace

Result<std::vector<Token>> Tokens::list() const {
  std::vector<Token> tokens;
  if (::access(path_.c_str(), F_OK) != 0 && errno == ENOENT) return tokens;
  auto text = read_file(path_, max_file);
  if (!text) return std::unexpected(text.error());
  const auto json = control::parse_json(*text);
  if (!json || !json->is_array()) return fail("{} is not valid; correct or remove it", path_);
  for (const auto& entry : *json) {
    Token token;
    auto ok = control::from_json(entry, token);
    if (ok) ok = control::check_bounds(token);
    if (!ok) return with_context(path_, ok.error());
    tokens.push_back(std::move(token));
  }
  return tokens;
}

Result<> Tokens::save(const std::vector<Token>& tokens) const {
  auto array = control::Json::array();
  for (const Token& token : tokens) array.push_back(control::to_json(token));
  return write_file(path_, array.dump(2) + "\n");
}

Result<std::string> Tokens::add(const std::string& name, api::Role role, std::optional<uint64_t> expires_ms) {
  if (auto ok = store::check_name("token", name); !ok) return std::unexpected(ok.error());
  const auto held = lock(path_);
  if (!held) return std::unexpected(held.error());
  auto tokens = list();
  if (!tokens) return std::unexpected(tokens.error());
  if (std::ranges::find(*tokens, name, &Token::name) != tokens->end()) {
    return fail("there is a token {} already; remove it with: caissond token remove {}", name, name);
  }
  std::array<unsigned char, 33> random{};
  if (::RAND_bytes(random.data(), static_cast<int>(random.size())) != 1) return fail("no random numbers can be had");
  std::string token = "cst_" + base64url(random);
  tokens->push_back({name, role, sha256(token), utc_ms(), expires_ms});
  if (auto ok = save(*tokens); !ok) return std::unexpected(ok.error());
  return token;
}

Result<> Tokens::remove(const std::string& name) {
  const auto held = lock(path_);
  if (!held) return std::unexpected(held.error());
  auto tokens = list();
  if (!tokens) return std::unexpected(tokens.error());
  if (std::erase_if(*tokens, [&](const Token& token) { return token.name == name; }) == 0) {
    return fail("there is no token {}; caissond token list shows those that there are", name);
  }
  return save(*tokens);
}

Result<api::Caller> Tokens::check(std::string_view token, uint64_t now_ms) const {
  const auto tokens = list();
  if (!tokens) return std::unexpected(tokens.error());
  const std::string sum = sha256(token);
  const Token* found = nullptr;
  for (const Token& one : *tokens) {
    // In the same time, whatever differs.
    if (one.sha256.size() == sum.size() && ::CRYPTO_memcmp(one.sha256.data(), sum.data(), sum.size()) == 0)
      found = &one;
  }
  if (found == nullptr) return fail("the token is wrong");
  if (found->expires_ms && *found->expires_ms <= now_ms) return fail("token {} has expired", found->name);
  return api::Caller{"token " + found->name, found->role};
}

Result<uint64_t> parse_span(std::string_view text) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view unit{end, static_cast<size_t>(text.data() + text.size() - end)};
  const uint64_t factor = unit == "d"   ? 86'400'000
                          : unit == "h" ? 3'600'000
                          : unit == "m" ? 60'000
                          : unit == "s" ? 1000
                                        : 0;
  if (error != std::errc{} || factor == 0 || number > 36'500)
    return fail("{}: not a time; write for example 30d or 12h", text);
  return number * factor;
}

}  // namespace caisson::daemon
