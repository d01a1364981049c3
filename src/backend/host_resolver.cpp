#include "backend/host_resolver.h"

#include <array>
#include <cstring>
#include <memory>

#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <netdb.h>
#include <netinet/in.h>
#include <resolv.h>
#include <sys/socket.h>

namespace caisson {
namespace {

using Outcome = HostResolver::Outcome;

Outcome outcome_of(int error) {
  switch (error) {
    case 0: return Outcome::Found;
    case EAI_NODATA: return Outcome::NoData;
    case EAI_NONAME: return Outcome::NoName;
    default: return Outcome::Failed;
  }
}

struct FreeAddresses {
  void operator()(addrinfo* list) const { ::freeaddrinfo(list); }
};

// A resolver state of one's own, closed at the end.
class ResolverState {
 public:
  ResolverState() : usable_(::res_ninit(&state_) == 0) {}
  ~ResolverState() {
    if (usable_) ::res_nclose(&state_);
  }
  ResolverState(const ResolverState&) = delete;
  ResolverState& operator=(const ResolverState&) = delete;

  [[nodiscard]] bool usable() const { return usable_; }
  [[nodiscard]] struct __res_state& get() { return state_; }

 private:
  struct __res_state state_ {};
  bool usable_;
};

}  // namespace

HostResolver::Addresses SystemResolver::addresses(const std::string& name) {
  // getaddrinfo also takes numbers in many forms; as names they do not exist.
  in_addr number{};
  if (::inet_aton(name.c_str(), &number) != 0)
    return {.outcome = Outcome::NoName, .canonical = {}, .ipv4 = {}, .ipv6 = {}};

  // getaddrinfo uses this thread's resolver state. res_init() reads the configuration again where it has changed.
  constexpr unsigned long search = RES_DEFNAMES | RES_DNSRCH;
  if (::res_init() == 0) {
    const bool one_label = name.find('.') == std::string::npos;
    _res.options = one_label ? _res.options | search : _res.options & ~search;
  }
  // Both families at once: whether a name exists does not depend on which one is asked for.
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_CANONNAME;
  addrinfo* list = nullptr;
  const int error = ::getaddrinfo(name.c_str(), nullptr, &hints, &list);
  const std::unique_ptr<addrinfo, FreeAddresses> owner{error == 0 ? list : nullptr};
  Addresses found;
  found.outcome = outcome_of(error);
  if (error != 0) return found;
  if (list->ai_canonname != nullptr && name != list->ai_canonname) found.canonical = list->ai_canonname;
  for (const addrinfo* entry = list; entry != nullptr; entry = entry->ai_next) {
    if (entry->ai_family == AF_INET) {
      dns::Ipv4 address;
      std::memcpy(address.bytes.data(), &reinterpret_cast<const sockaddr_in*>(entry->ai_addr)->sin_addr, 4);
      found.ipv4.push_back(address);
    } else if (entry->ai_family == AF_INET6) {
      dns::Ipv6 address;
      std::memcpy(address.bytes.data(), &reinterpret_cast<const sockaddr_in6*>(entry->ai_addr)->sin6_addr, 16);
      found.ipv6.push_back(address);
    }
  }
  return found;
}

HostResolver::NameOf SystemResolver::name_of(std::span<const uint8_t> address) {
  sockaddr_storage storage{};
  socklen_t size = 0;
  if (address.size() == 4) {
    auto& in = reinterpret_cast<sockaddr_in&>(storage);
    in.sin_family = AF_INET;
    std::memcpy(&in.sin_addr, address.data(), 4);
    size = sizeof in;
  } else if (address.size() == 16) {
    auto& in = reinterpret_cast<sockaddr_in6&>(storage);
    in.sin6_family = AF_INET6;
    std::memcpy(&in.sin6_addr, address.data(), 16);
    size = sizeof in;
  } else {
    return {};
  }
  std::array<char, NI_MAXHOST> name{};
  const int error = ::getnameinfo(reinterpret_cast<const sockaddr*>(&storage), size, name.data(), name.size(), nullptr,
                                  0, NI_NAMEREQD);
  return {.outcome = outcome_of(error), .name = error == 0 ? name.data() : ""};
}

std::optional<std::vector<uint8_t>> SystemResolver::ask(std::span<const uint8_t> query) {
  ResolverState state;
  if (!state.usable()) return std::nullopt;
  std::vector<uint8_t> answer(dns::max_message);
  // Goes over to TCP by itself where the answer is too long for UDP.
  const int size = ::res_nsend(&state.get(), query.data(), static_cast<int>(query.size()), answer.data(),
                               static_cast<int>(answer.size()));
  if (size < static_cast<int>(dns::header_size)) return std::nullopt;
  answer.resize(std::min(answer.size(), static_cast<size_t>(size)));
  return answer;
}

std::vector<std::string> host_search_domains() {
  ResolverState state;
  std::vector<std::string> domains;
  if (!state.usable()) return domains;
  for (const char* domain : state.get().dnsrch) {
    if (domain == nullptr) break;
    if (dns::from_text(domain)) domains.emplace_back(domain);
  }
  return domains;
}

}  // namespace caisson
