// VNC's password check.
//   Spec     RFC 6143, 7.2.2; FIPS 46-3 for DES, whose keys VNC takes with the bits of each byte the other way round
//   Strength little: 8 characters, and a cipher of 56 bits. It is for the host's own loopback; nothing else is offered
//   it. Threads  pure functions
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace caisson::rfb {

using Challenge = std::array<uint8_t, 16>;

// What a client that knows the password answers. Characters beyond the eighth do not count.
[[nodiscard]] Challenge answer_to(const Challenge& challenge, std::string_view password);

// One block. The key's parity bits are not looked at.
[[nodiscard]] uint64_t des_encrypt(uint64_t block, uint64_t key);

}  // namespace caisson::rfb
