#include "backend/ip_frame.h"

#include <algorithm>

namespace caisson {
namespace {

constexpr size_t ipv4_header = 20;
constexpr size_t ipv6_header = 40;
constexpr size_t udp_header = 8;
constexpr size_t tcp_header = 20;
constexpr size_t tcp_checksum = 16;  // RFC 9293 section 3.1
constexpr uint8_t time_to_live = 64;

uint16_t get16(std::span<const uint8_t> bytes, size_t at) {
  return static_cast<uint16_t>(bytes[at] << 8 | bytes[at + 1]);
}

void set16(std::span<uint8_t> bytes, size_t at, size_t value) {
  bytes[at] = static_cast<uint8_t>(value >> 8);
  bytes[at + 1] = static_cast<uint8_t>(value);
}

uint32_t add_words(std::span<const uint8_t> bytes, uint32_t sum) {
  for (size_t i = 0; i + 1 < bytes.size(); i += 2) sum += get16(bytes, i);
  if (bytes.size() % 2 != 0) sum += uint32_t{bytes.back()} << 8;
  return sum;
}

uint16_t fold(uint32_t sum) {
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(sum);
}

// RFC 1624, equation 3: HC' = ~(~HC + ~m + m'). `at` is the checksum's place.
void adjust_checksum(std::span<uint8_t> frame, size_t at, std::span<const uint8_t> before,
                     std::span<const uint8_t> after) {
  uint32_t sum = static_cast<uint16_t>(~get16(frame, at));
  for (size_t i = 0; i + 1 < before.size(); i += 2) sum += static_cast<uint16_t>(~get16(before, i));
  sum = add_words(after, sum);
  set16(frame, at, static_cast<uint16_t>(~fold(sum)));
}

void change_end(std::span<uint8_t> frame, const IpFrame& parsed, bool source, const IpAddress& address, uint16_t port) {
  const IpAddress& old_address = source ? parsed.source : parsed.destination;
  const bool v4 = address.size == 4;
  const size_t address_at = ethernet_header + (v4 ? 12 : 8) + (source ? 0 : address.size);
  const size_t port_at = parsed.transport_at + (source ? 0 : 2);
  const size_t checksum_at = parsed.transport_at + tcp_checksum;
  const std::array<uint8_t, 2> old_port{frame[port_at], frame[port_at + 1]};
  set16(frame, port_at, port);
  adjust_checksum(frame, checksum_at, old_port, frame.subspan(port_at, 2));
  adjust_checksum(frame, checksum_at, old_address.span(), address.span());
  if (v4) adjust_checksum(frame, ethernet_header + 10, old_address.span(), address.span());
  std::copy_n(address.bytes.begin(), address.size, frame.begin() + static_cast<ptrdiff_t>(address_at));
}

}  // namespace

IpAddress ipv4(uint8_t a, uint8_t b, uint8_t c, uint8_t d) { return {.bytes = {a, b, c, d}, .size = 4}; }

IpAddress ip_address(std::span<const uint8_t> bytes) {
  IpAddress address;
  address.size = static_cast<uint8_t>(std::min(bytes.size(), address.bytes.size()));
  std::copy_n(bytes.begin(), address.size, address.bytes.begin());
  return address;
}

uint16_t ethertype(std::span<const uint8_t> frame) { return frame.size() < ethernet_header ? 0 : get16(frame, 12); }

uint16_t internet_checksum(std::span<const uint8_t> bytes, uint32_t sum) {
  return static_cast<uint16_t>(~fold(add_words(bytes, sum)));
}

std::optional<IpFrame> parse_ip_frame(std::span<const uint8_t> frame) {
  const uint16_t type = ethertype(frame);
  const auto ip = frame.subspan(std::min(frame.size(), ethernet_header));
  IpFrame parsed;
  size_t header = 0, total = 0;
  if (type == ethertype_ipv4) {
    if (ip.size() < ipv4_header || ip[0] >> 4 != 4) return std::nullopt;
    header = size_t{ip[0] & 0xfu} * 4;
    total = get16(ip, 2);
    if (header < ipv4_header || total < header || total > ip.size()) return std::nullopt;
    parsed.fragment = (get16(ip, 6) & 0x3fff) != 0;  // more fragments, or an offset
    parsed.protocol = ip[9];
    parsed.source = ip_address(ip.subspan(12, 4));
    parsed.destination = ip_address(ip.subspan(16, 4));
  } else if (type == ethertype_ipv6) {
    if (ip.size() < ipv6_header || ip[0] >> 4 != 6) return std::nullopt;
    header = ipv6_header;
    total = header + get16(ip, 4);
    if (total > ip.size()) return std::nullopt;
    parsed.protocol = ip[6];
    parsed.source = ip_address(ip.subspan(8, 16));
    parsed.destination = ip_address(ip.subspan(24, 16));
  } else {
    return std::nullopt;
  }
  if (parsed.protocol != protocol_tcp && parsed.protocol != protocol_udp) return std::nullopt;
  std::copy_n(frame.begin(), 6, parsed.destination_mac.begin());
  std::copy_n(frame.begin() + 6, 6, parsed.source_mac.begin());
  parsed.transport_at = ethernet_header + header;
  if (parsed.fragment) return parsed;

  const auto transport = ip.subspan(header, total - header);
  if (transport.size() < (parsed.protocol == protocol_tcp ? tcp_header : udp_header)) return std::nullopt;
  parsed.source_port = get16(transport, 0);
  parsed.destination_port = get16(transport, 2);
  if (parsed.protocol == protocol_udp) {
    const size_t length = get16(transport, 4);
    if (length < udp_header || length > transport.size()) return std::nullopt;
    parsed.payload = transport.subspan(udp_header, length - udp_header);
  }
  return parsed;
}

void change_destination(std::span<uint8_t> frame, const IpFrame& parsed, const IpAddress& address, uint16_t port) {
  change_end(frame, parsed, false, address, port);
}

void change_source(std::span<uint8_t> frame, const IpFrame& parsed, const IpAddress& address, uint16_t port) {
  change_end(frame, parsed, true, address, port);
}

std::vector<uint8_t> build_udp_frame(const UdpEnds& ends, std::span<const uint8_t> payload) {
  const bool v4 = ends.source.size == 4;
  const size_t header = v4 ? ipv4_header : ipv6_header;
  const size_t udp_size = udp_header + payload.size();
  std::vector<uint8_t> frame(ethernet_header + header + udp_size);
  const std::span<uint8_t> ip = std::span{frame}.subspan(ethernet_header);
  const std::span<uint8_t> udp = ip.subspan(header);
  std::ranges::copy(ends.destination_mac, frame.begin());
  std::ranges::copy(ends.source_mac, frame.begin() + 6);
  set16(frame, 12, v4 ? ethertype_ipv4 : ethertype_ipv6);
  if (v4) {
    ip[0] = 0x45;
    set16(ip, 2, header + udp_size);
    ip[6] = 0x40;  // do not fragment
    ip[8] = time_to_live;
    ip[9] = protocol_udp;
  } else {
    ip[0] = 0x60;
    set16(ip, 4, udp_size);
    ip[6] = protocol_udp;
    ip[7] = time_to_live;
  }
  const size_t addresses_at = v4 ? 12 : 8;
  std::ranges::copy(ends.source.span(), ip.begin() + static_cast<ptrdiff_t>(addresses_at));
  std::ranges::copy(ends.destination.span(), ip.begin() + static_cast<ptrdiff_t>(addresses_at + ends.source.size));
  if (v4) set16(ip, 10, internet_checksum(ip.first(header)));
  set16(udp, 0, ends.source_port);
  set16(udp, 2, ends.destination_port);
  set16(udp, 4, udp_size);
  std::ranges::copy(payload, udp.begin() + udp_header);
  uint32_t pseudo = protocol_udp + static_cast<uint32_t>(udp_size);
  pseudo = add_words(ends.destination.span(), add_words(ends.source.span(), pseudo));
  const uint16_t checksum = internet_checksum(udp, pseudo);
  set16(udp, 6, checksum == 0 ? 0xffff : checksum);  // RFC 768: 0 means none
  return frame;
}

}  // namespace caisson
