#include "backend/dns_message.h"

#include <algorithm>

namespace caisson::dns {
namespace {

// The header's second word, RFC 1035 section 4.1.1 and RFC 4035 section 3.2.
constexpr uint16_t flag_response = 1 << 15;
constexpr uint16_t opcode_mask = 0xf << 11;
constexpr uint16_t flag_truncated = 1 << 9;
constexpr uint16_t flag_recursion_desired = 1 << 8;
constexpr uint16_t flag_recursion_available = 1 << 7;
constexpr uint16_t flag_authentic_data = 1 << 5;
constexpr uint16_t flag_checking_disabled = 1 << 4;

constexpr uint16_t pointer_to_question = 0xc000 | header_size;
constexpr size_t opt_size = 11;  // RFC 6891 section 6.1.2, without options
constexpr uint32_t opt_dnssec_ok = 1 << 15;
constexpr uint8_t extended_bad_version = 1;  // the upper eight bits of BADVERS, 16
constexpr uint16_t our_payload_size = 4096;
constexpr size_t max_records = 32;  // in the sections after the question; a query has one or two

uint16_t get16(std::span<const uint8_t> bytes, size_t at) {
  return static_cast<uint16_t>(bytes[at] << 8 | bytes[at + 1]);
}

void put16(std::vector<uint8_t>& out, uint16_t value) {
  out.push_back(static_cast<uint8_t>(value >> 8));
  out.push_back(static_cast<uint8_t>(value));
}

void put32(std::vector<uint8_t>& out, uint32_t value) {
  put16(out, static_cast<uint16_t>(value >> 16));
  put16(out, static_cast<uint16_t>(value));
}

void set16(std::vector<uint8_t>& out, size_t at, uint16_t value) {
  out[at] = static_cast<uint8_t>(value >> 8);
  out[at + 1] = static_cast<uint8_t>(value);
}

void put_opt(std::vector<uint8_t>& out, bool dnssec_ok, uint8_t extended_rcode) {
  out.push_back(0);  // the root
  put16(out, static_cast<uint16_t>(Type::Opt));
  put16(out, our_payload_size);
  put32(out, uint32_t{extended_rcode} << 24 | (dnssec_ok ? opt_dnssec_ok : 0));
  put16(out, 0);  // no options
}

// Where a name without compression ends; none when it is cut short, too long or compressed.
std::optional<size_t> plain_name_end(std::span<const uint8_t> message, size_t start) {
  size_t at = start;
  for (;;) {
    if (at >= message.size()) return std::nullopt;
    const size_t length = message[at];
    if (length > max_label) return std::nullopt;
    at += 1 + length;
    if (at - start > max_name) return std::nullopt;
    if (length == 0) return at;
  }
}

// The same for a name which may end in a pointer: that is only skipped, never followed.
std::optional<size_t> any_name_end(std::span<const uint8_t> message, size_t start) {
  size_t at = start;
  for (;;) {
    if (at >= message.size() || at - start > max_name) return std::nullopt;
    const size_t length = message[at];
    if (length >= 0xc0) return at + 2 <= message.size() ? std::optional{at + 2} : std::nullopt;
    if (length > max_label) return std::nullopt;
    at += 1 + length;
    if (length == 0) return at;
  }
}

uint8_t lower(uint8_t byte) { return byte >= 'A' && byte <= 'Z' ? static_cast<uint8_t>(byte + ('a' - 'A')) : byte; }

std::vector<std::string> labels_of(const Name& name) {
  std::vector<std::string> labels;
  for (size_t at = 0; at < name.size() && name[at] != 0; at += 1 + size_t{name[at]}) {
    std::string label;
    for (size_t i = 1; i <= name[at] && at + i < name.size(); ++i) label += static_cast<char>(lower(name[at + i]));
    labels.push_back(std::move(label));
  }
  return labels;
}

}  // namespace

std::optional<std::string> to_text(const Name& name) {
  std::string text;
  for (const std::string& label : labels_of(name)) {
    for (const char c : label) {
      if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_')) return std::nullopt;
    }
    if (!text.empty()) text += '.';
    text += label;
  }
  if (text.empty()) return std::nullopt;
  return text;
}

std::optional<Name> from_text(std::string_view text) {
  if (text.ends_with('.')) text.remove_suffix(1);
  Name name;
  while (!text.empty()) {
    const size_t dot = std::min(text.find('.'), text.size());
    if (dot == 0 || dot > max_label || dot + 1 == text.size()) return std::nullopt;
    name.push_back(static_cast<uint8_t>(dot));
    name.insert(name.end(), text.begin(), text.begin() + static_cast<ptrdiff_t>(dot));
    text.remove_prefix(std::min(dot + 1, text.size()));
  }
  if (name.empty() || name.size() + 1 > max_name) return std::nullopt;
  name.push_back(0);
  return name;
}

std::vector<uint8_t> reverse_address(const Name& name) {
  const auto labels = labels_of(name);
  const size_t count = labels.size();
  std::vector<uint8_t> address;
  if (count < 2 || labels[count - 1] != "arpa") return {};
  if (labels[count - 2] == "in-addr" && count == 6) {
    for (size_t i = 4; i-- > 0;) {
      const std::string& label = labels[i];
      if (label.empty() || label.size() > 3 || (label.size() > 1 && label[0] == '0')) return {};
      unsigned value = 0;
      for (const char c : label) {
        if (c < '0' || c > '9') return {};
        value = value * 10 + static_cast<unsigned>(c - '0');
      }
      if (value > 255) return {};
      address.push_back(static_cast<uint8_t>(value));
    }
  } else if (labels[count - 2] == "ip6" && count == 34) {
    for (size_t i = 32; i-- > 0;) {
      static constexpr std::string_view digits = "0123456789abcdef";
      const size_t value = labels[i].size() == 1 ? digits.find(labels[i][0]) : std::string_view::npos;
      if (value == std::string_view::npos) return {};
      if (i % 2 == 1) address.push_back(0);
      address.back() = static_cast<uint8_t>(address.back() << 4 | value);
    }
  }
  return address;
}

std::optional<ParsedQuery> parse_query(std::span<const uint8_t> message) {
  if (message.size() < header_size || message.size() > max_message) return std::nullopt;
  const uint16_t flags = get16(message, 2);
  if ((flags & flag_response) != 0) return std::nullopt;
  ParsedQuery parsed;
  Query& query = parsed.query;
  query.id = get16(message, 0);
  query.recursion_desired = (flags & flag_recursion_desired) != 0;
  query.checking_disabled = (flags & flag_checking_disabled) != 0;
  query.authentic_data = (flags & flag_authentic_data) != 0;
  const auto refuse = [&](Rcode rcode) {
    parsed.refusal = rcode;
    return parsed;
  };
  if ((flags & opcode_mask) != 0) return refuse(Rcode::NotImp);

  const size_t records = size_t{get16(message, 6)} + get16(message, 8) + get16(message, 10);
  if (get16(message, 4) != 1 || records > max_records) return refuse(Rcode::FormErr);
  const auto name_end = plain_name_end(message, header_size);
  if (!name_end || message.size() - *name_end < 4) return refuse(Rcode::FormErr);
  query.name.assign(message.begin() + header_size, message.begin() + static_cast<ptrdiff_t>(*name_end));
  query.type = get16(message, *name_end);
  query.qclass = get16(message, *name_end + 2);

  size_t at = *name_end + 4;
  for (size_t i = 0; i < records; ++i) {
    const bool root = at < message.size() && message[at] == 0;
    const auto end = any_name_end(message, at);
    if (!end || message.size() - *end < 10) return refuse(Rcode::FormErr);
    const size_t size = get16(message, *end + 8);
    if (message.size() - *end - 10 < size) return refuse(Rcode::FormErr);
    if (get16(message, *end) == static_cast<uint16_t>(Type::Opt)) {
      if (!root || query.edns) return refuse(Rcode::FormErr);  // RFC 6891 section 6.1.1
      query.edns = true;
      query.payload_size = std::max<uint16_t>(get16(message, *end + 2), plain_limit);
      query.dnssec_ok = (get16(message, *end + 6) & opt_dnssec_ok) != 0;
      parsed.bad_version = message[*end + 5] != 0;
    }
    at = *end + 10 + size;
  }
  if (at != message.size()) return refuse(Rcode::FormErr);
  if (parsed.bad_version) return refuse(Rcode::NoError);
  const auto type = static_cast<Type>(query.type);
  if (type == Type::Axfr || type == Type::Ixfr) return refuse(Rcode::Refused);
  if (type == Type::Opt) return refuse(Rcode::FormErr);
  return parsed;
}

std::vector<uint8_t> build_query(const Query& query, uint16_t id) {
  std::vector<uint8_t> out;
  put16(out, id);
  put16(out, static_cast<uint16_t>(flag_recursion_desired | (query.checking_disabled ? flag_checking_disabled : 0) |
                                   (query.authentic_data ? flag_authentic_data : 0)));
  put16(out, 1);
  put16(out, 0);
  put16(out, 0);
  put16(out, query.edns ? 1 : 0);
  out.insert(out.end(), query.name.begin(), query.name.end());
  put16(out, query.type);
  put16(out, query.qclass);
  if (query.edns) put_opt(out, query.dnssec_ok, 0);
  return out;
}

AnswerBuilder::AnswerBuilder(const Query& query, Rcode rcode, size_t limit)
    : edns_(query.edns), dnssec_ok_(query.dnssec_ok), limit_(limit), owner_(pointer_to_question) {
  put16(message_, query.id);
  put16(message_,
        static_cast<uint16_t>(flag_response | flag_recursion_available |
                              (query.recursion_desired ? flag_recursion_desired : 0) |
                              (query.checking_disabled ? flag_checking_disabled : 0) | static_cast<uint16_t>(rcode)));
  put16(message_, query.name.empty() ? 0 : 1);
  put16(message_, 0);
  put16(message_, 0);
  put16(message_, 0);
  if (query.name.empty()) return;
  message_.insert(message_.end(), query.name.begin(), query.name.end());
  put16(message_, query.type);
  put16(message_, query.qclass);
}

bool AnswerBuilder::add(Type type, uint32_t ttl, std::span<const uint8_t> data) {
  if ((message_[2] & flag_truncated >> 8) != 0) return false;
  const size_t size = 12 + data.size();
  if (message_.size() + size + (edns_ ? opt_size : 0) > std::min(limit_, max_message)) {
    truncate();
    return false;
  }
  put16(message_, owner_);
  put16(message_, static_cast<uint16_t>(type));
  put16(message_, class_in);
  put32(message_, ttl);
  put16(message_, static_cast<uint16_t>(data.size()));
  message_.insert(message_.end(), data.begin(), data.end());
  ++answers_;
  return true;
}

void AnswerBuilder::add_address(const Ipv4& address, uint32_t ttl) { add(Type::A, ttl, address.bytes); }
void AnswerBuilder::add_address(const Ipv6& address, uint32_t ttl) { add(Type::Aaaa, ttl, address.bytes); }
void AnswerBuilder::add_ptr(const Name& target, uint32_t ttl) { add(Type::Ptr, ttl, target); }

void AnswerBuilder::add_cname(const Name& target, uint32_t ttl) {
  if (!add(Type::Cname, ttl, target)) return;
  // Always among the first records, where a pointer's 14 bits reach.
  owner_ = static_cast<uint16_t>(0xc000 | (message_.size() - target.size()));
}

void AnswerBuilder::truncate() { message_[2] |= flag_truncated >> 8; }

std::vector<uint8_t> AnswerBuilder::finish() {
  set16(message_, 6, answers_);
  if (edns_) {
    set16(message_, 10, 1);
    put_opt(message_, dnssec_ok_, bad_version_ ? extended_bad_version : 0);
  }
  return std::move(message_);
}

std::optional<std::vector<uint8_t>> relay(const Query& query, std::span<const uint8_t> answer, size_t limit) {
  if (answer.size() < header_size || answer.size() > max_message) return std::nullopt;
  if ((get16(answer, 2) & flag_response) == 0) return std::nullopt;
  if (answer.size() > limit) {
    AnswerBuilder builder{query, static_cast<Rcode>(answer[3] & 0xf), limit};
    builder.truncate();
    return builder.finish();
  }
  std::vector<uint8_t> out{answer.begin(), answer.end()};
  set16(out, 0, query.id);
  return out;
}

}  // namespace caisson::dns
