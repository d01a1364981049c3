// Bearer tokens: <config>/caisson/tokens.json, mode 0600, holds of each its name, role and SHA-256.
//   Token    256 random bits in base64url behind "cst_": what is hashed cannot be guessed, so no slow hash is needed
//   Threads  any; writers are kept apart by a lock file
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/role.h"
#include "base/result.h"

namespace caisson::daemon {

struct Token {
  std::string name;
  api::Role role = api::Role::Viewer;
  std::string sha256;  // hexadecimal
  uint64_t created_ms = 0;
  std::optional<uint64_t> expires_ms;
};

class Tokens {
 public:
  explicit Tokens(std::string path) : path_(std::move(path)) {}

  [[nodiscard]] Result<std::vector<Token>> list() const;
  // Gives the token itself, which is nowhere else from then on. An error where there is one of that name.
  [[nodiscard]] Result<std::string> add(const std::string& name, api::Role role, std::optional<uint64_t> expires_ms);
  [[nodiscard]] Result<> remove(const std::string& name);

  // Whose it is, or why it is refused: for the record, not for who sent it.
  [[nodiscard]] Result<api::Caller> check(std::string_view token, uint64_t now_ms) const;

 private:
  [[nodiscard]] Result<> save(const std::vector<Token>& tokens) const;
  std::string path_;
};

// "30d", "12h", "45m" in milliseconds.
[[nodiscard]] Result<uint64_t> parse_span(std::string_view text);

}  // namespace caisson::daemon
