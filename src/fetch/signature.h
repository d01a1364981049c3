// Detached signatures as minisign writes them: ed25519 over a file's BLAKE2b-512, or over the file itself.
//   Manual   https://jedisct1.github.io/minisign/ ("Signature format", "Public key format"); RFC 8032
//   Threads  pure functions
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace caisson::fetch {

struct PublicKey {
  std::array<uint8_t, 8> id{};
  std::array<uint8_t, 32> key{};
};
// The 56 characters that minisign prints, or the file that it writes.
[[nodiscard]] Result<PublicKey> parse_key(std::string_view text);

// Four lines: a comment, the signature, a trusted comment, the signature of both.
struct Signature {
  bool hashed = false;  // over the BLAKE2b-512
  std::array<uint8_t, 8> id{};
  std::array<uint8_t, 64> bytes{};
  std::string trusted_comment{};
  std::array<uint8_t, 64> of_comment{};
};
[[nodiscard]] Result<Signature> parse_signature(std::string_view text);

// `file`: open for reading; all of it is read. Where the signature is over the file itself it must fit into memory: at
// most 1 GiB. Returns the trusted comment.
[[nodiscard]] Result<std::string> verify(const PublicKey& key, const Signature& signature, int file);

}  // namespace caisson::fetch
