// Looks names up exactly as the host's own programs do: nsswitch, /etc/hosts, split DNS, search domains.
//   Models   getaddrinfo and getnameinfo for addresses and their names, libresolv for every other type
//   Threads  any, several at once; every call may block for as long as the host's resolver does
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backend/dns_message.h"

namespace caisson {

class HostResolver {
 public:
  virtual ~HostResolver() = default;

  enum class Outcome : uint8_t { Found, NoData, NoName, Failed };

  struct Addresses {
    Outcome outcome = Outcome::Failed;
    std::string canonical;  // empty: the name asked for
    std::vector<dns::Ipv4> ipv4;
    std::vector<dns::Ipv6> ipv6;
  };
  // Of `name` without a final dot. A name of one label is looked up with the host's search domains, others as they are:
  // a guest appends search domains itself where it has been told them.
  [[nodiscard]] virtual Addresses addresses(const std::string& name) = 0;

  struct NameOf {
    Outcome outcome = Outcome::Failed;
    std::string name;
  };
  // `address` is 4 or 16 bytes.
  [[nodiscard]] virtual NameOf name_of(std::span<const uint8_t> address) = 0;

  // Sends a DNS message to the host's name server; its whole answer, or none.
  [[nodiscard]] virtual std::optional<std::vector<uint8_t>> ask(std::span<const uint8_t> query) = 0;
};

class SystemResolver final : public HostResolver {
 public:
  [[nodiscard]] Addresses addresses(const std::string& name) override;
  [[nodiscard]] NameOf name_of(std::span<const uint8_t> address) override;
  [[nodiscard]] std::optional<std::vector<uint8_t>> ask(std::span<const uint8_t> query) override;
};

// The host's search domains (resolv.conf's `search` or `domain`), to be told to the guest.
[[nodiscard]] std::vector<std::string> host_search_domains();

}  // namespace caisson
