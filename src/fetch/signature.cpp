#include "fetch/signature.h"

#include <algorithm>
#include <cerrno>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include <openssl/evp.h>
#include <unistd.h>

namespace caisson::fetch {
namespace {

constexpr uint64_t most_unhashed = uint64_t{1} << 30;
constexpr size_t most_comment = 1024;

// Strict: the whole text, with its padding.
std::optional<std::vector<uint8_t>> base64(std::string_view text) {
  if (text.empty() || text.size() % 4 != 0 || text.size() > 1024) return std::nullopt;
  size_t padding = 0;
  while (padding < 2 && text[text.size() - 1 - padding] == '=') ++padding;
  const auto is_digit = [](unsigned char c) { return std::isalnum(c) != 0 || c == '+' || c == '/'; };
  if (!std::all_of(text.begin(), text.end() - static_cast<ptrdiff_t>(padding), is_digit)) return std::nullopt;
  std::vector<uint8_t> bytes(text.size() / 4 * 3);
  const int size = ::EVP_DecodeBlock(bytes.data(), reinterpret_cast<const unsigned char*>(text.data()),
                                     static_cast<int>(text.size()));
  if (size < 0) return std::nullopt;
  bytes.resize(static_cast<size_t>(size) - padding);
  return bytes;
}

// Takes the first line away, without its end.
std::string_view take_line(std::string_view& text) {
  const size_t end = std::min(text.find('\n'), text.size());
  std::string_view line = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  if (line.ends_with('\r')) line.remove_suffix(1);
  return line;
}

using Context = std::unique_ptr<EVP_MD_CTX, decltype(&::EVP_MD_CTX_free)>;

bool signed_by(const PublicKey& key, std::span<const uint8_t> message, const std::array<uint8_t, 64>& signature) {
  const std::unique_ptr<EVP_PKEY, decltype(&::EVP_PKEY_free)> pkey{
      ::EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr, key.key.data(), key.key.size()), ::EVP_PKEY_free};
  const Context context{::EVP_MD_CTX_new(), ::EVP_MD_CTX_free};
  return pkey && context && ::EVP_DigestVerifyInit(context.get(), nullptr, nullptr, nullptr, pkey.get()) == 1 &&
         ::EVP_DigestVerify(context.get(), signature.data(), signature.size(), message.data(), message.size()) == 1;
}

// What the signature is over.
Result<std::vector<uint8_t>> message_of(int file, bool hashed) {
  const Context context{::EVP_MD_CTX_new(), ::EVP_MD_CTX_free};
  if (!context || ::EVP_DigestInit_ex(context.get(), ::EVP_blake2b512(), nullptr) != 1) {
    return fail("OpenSSL has no BLAKE2b-512");
  }
  std::vector<uint8_t> whole;
  std::vector<uint8_t> piece(1 << 20);
  for (;;) {
    const ssize_t size = ::read(file, piece.data(), piece.size());
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) return fail_errno(errno, "cannot read what is signed");
    if (size == 0) break;
    if (hashed) {
      ::EVP_DigestUpdate(context.get(), piece.data(), static_cast<size_t>(size));
      continue;
    }
    whole.insert(whole.end(), piece.begin(), piece.begin() + size);
    if (whole.size() > most_unhashed) return fail("too large for a signature of its kind; sign it with minisign -H");
  }
  if (!hashed) return whole;
  std::vector<uint8_t> digest(64);
  ::EVP_DigestFinal_ex(context.get(), digest.data(), nullptr);
  return digest;
}

}  // namespace

Result<PublicKey> parse_key(std::string_view text) {
  std::string_view line = take_line(text);
  if (line.starts_with("untrusted comment:")) line = take_line(text);
  const auto bytes = base64(line);
  // "Ed", the key's id, the key.
  if (!bytes || bytes->size() != 42 || (*bytes)[0] != 'E' || (*bytes)[1] != 'd') {
    return fail("not a public key of minisign");
  }
  PublicKey key;
  std::copy_n(bytes->begin() + 2, 8, key.id.begin());
  std::copy_n(bytes->begin() + 10, 32, key.key.begin());
  return key;
}

Result<Signature> parse_signature(std::string_view text) {
  constexpr std::string_view trusted = "trusted comment: ";
  const auto bad = fail("not a signature of minisign");
  if (!take_line(text).starts_with("untrusted comment:")) return bad;
  const auto bytes = base64(take_line(text));
  // "Ed" over the file or "ED" over its hash, the key's id, the signature.
  if (!bytes || bytes->size() != 74 || (*bytes)[0] != 'E' || ((*bytes)[1] != 'd' && (*bytes)[1] != 'D')) return bad;
  std::string_view comment = take_line(text);
  if (!comment.starts_with(trusted) || comment.size() > most_comment) return bad;
  comment.remove_prefix(trusted.size());
  const auto global = base64(take_line(text));
  if (!global || global->size() != 64) return bad;
  Signature signature{.hashed = (*bytes)[1] == 'D', .trusted_comment = std::string{comment}};
  std::copy_n(bytes->begin() + 2, 8, signature.id.begin());
  std::copy_n(bytes->begin() + 10, 64, signature.bytes.begin());
  std::copy_n(global->begin(), 64, signature.of_comment.begin());
  return signature;
}

Result<std::string> verify(const PublicKey& key, const Signature& signature, int file) {
  if (key.id != signature.id) return fail("it is signed with another key");
  const auto message = message_of(file, signature.hashed);
  if (!message) return std::unexpected(message.error());
  if (!signed_by(key, *message, signature.bytes)) return fail("the signature does not hold for this file");
  std::vector<uint8_t> both(signature.bytes.begin(), signature.bytes.end());
  both.insert(both.end(), signature.trusted_comment.begin(), signature.trusted_comment.end());
  if (!signed_by(key, both, signature.of_comment)) return fail("the signature's comment has been changed");
  return signature.trusted_comment;
}

}  // namespace caisson::fetch
