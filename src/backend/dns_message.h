// DNS messages: reads queries, strictly and within bounds, and builds answers.
//   Spec     RFC 1035 section 4 (messages), RFC 2181 section 9 (truncation), RFC 3596 (AAAA, ip6.arpa), RFC 6891 (EDNS)
//   Models   standard queries with one question; answers of address, CNAME and PTR records; relaying whole answers
//   Omits    everything that only name servers need: zones, updates, notifications, zone transfers
//   Threads  none of its own
//   Input    comes from the guest: nothing in it is trusted
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace caisson::dns {

constexpr size_t header_size = 12;
constexpr size_t max_name = 255;     // RFC 1035 section 2.3.4
constexpr size_t max_label = 63;     // the same
constexpr size_t plain_limit = 512;  // of a message over UDP without EDNS
constexpr size_t max_message = 65535;

enum class Type : uint16_t { A = 1, Cname = 5, Ptr = 12, Aaaa = 28, Opt = 41, Ixfr = 251, Axfr = 252 };
enum class Rcode : uint8_t { NoError = 0, FormErr = 1, ServFail = 2, NxDomain = 3, NotImp = 4, Refused = 5 };
constexpr uint16_t class_in = 1;

// A domain name as it stands in a message, uncompressed: labels with their lengths and the empty label of the root.
using Name = std::vector<uint8_t>;

// "www.example.com", without a final dot; none when a label holds anything but letters, digits, '-' and '_', or for the
// root.
[[nodiscard]] std::optional<std::string> to_text(const Name& name);
// The reverse, for any text that makes a name; none for one that does not fit the limits.
[[nodiscard]] std::optional<Name> from_text(std::string_view text);

struct Ipv4 {
  std::array<uint8_t, 4> bytes{};
  bool operator==(const Ipv4&) const = default;
};
struct Ipv6 {
  std::array<uint8_t, 16> bytes{};
  bool operator==(const Ipv6&) const = default;
};
// The address that a complete name below in-addr.arpa or ip6.arpa stands for, as 4 or 16 bytes; empty for other names.
[[nodiscard]] std::vector<uint8_t> reverse_address(const Name& name);

struct Query {
  uint16_t id = 0;
  bool recursion_desired = false;
  bool checking_disabled = false;
  bool authentic_data = false;
  Name name;  // empty: the message had no question that could be read
  uint16_t type = 0;
  uint16_t qclass = 0;
  bool edns = false;
  bool dnssec_ok = false;
  uint16_t payload_size = plain_limit;  // what the asker takes over UDP
};

struct ParsedQuery {
  Query query;
  std::optional<Rcode> refusal;  // answer with it and look no further
  bool bad_version = false;      // an EDNS version above 0: answer with the extended code BADVERS
};
// None: not a query at all, to be dropped (anything else might answer an answer).
[[nodiscard]] std::optional<ParsedQuery> parse_query(std::span<const uint8_t> message);

// The query to send on to the host's name server: the same question and flags under a new id.
[[nodiscard]] std::vector<uint8_t> build_query(const Query& query, uint16_t id);

// Builds an answer of at most `limit` bytes; a record that does not fit sets TC and is left out, as are all later ones.
class AnswerBuilder {
 public:
  AnswerBuilder(const Query& query, Rcode rcode, size_t limit);

  // Every record belongs to the name that add_cname() gave last, or else to the question's.
  void add_address(const Ipv4& address, uint32_t ttl);
  void add_address(const Ipv6& address, uint32_t ttl);
  void add_cname(const Name& target, uint32_t ttl);
  void add_ptr(const Name& target, uint32_t ttl);
  void truncate();
  void set_bad_version() { bad_version_ = true; }

  [[nodiscard]] std::vector<uint8_t> finish();

 private:
  bool add(Type type, uint32_t ttl, std::span<const uint8_t> data);

  const bool edns_;
  const bool dnssec_ok_;
  const size_t limit_;
  bool bad_version_ = false;
  uint16_t owner_ = 0;  // where the records' name stands in the message
  uint16_t answers_ = 0;
  std::vector<uint8_t> message_;
};

// The answer of the host's name server, with the asker's id; truncated where it is too long. None: that is no answer.
[[nodiscard]] std::optional<std::vector<uint8_t>> relay(const Query& query, std::span<const uint8_t> answer,
                                                        size_t limit);

}  // namespace caisson::dns
