// Ethernet frames with IP: looking at them, changing their ends, building UDP ones.
//   Spec     RFC 791 (IPv4), RFC 8200 (IPv6), RFC 768 (UDP), RFC 9293 (TCP), RFC 1624 (changing a checksum)
//   Omits    IPv6 extension headers: such frames are not looked into
//   Threads  none of its own
//   Input    comes from the guest: nothing in it is trusted
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace caisson {

using Mac = std::array<uint8_t, 6>;

// 4 or 16 bytes.
struct IpAddress {
  std::array<uint8_t, 16> bytes{};
  uint8_t size = 0;
  bool operator==(const IpAddress&) const = default;
  [[nodiscard]] std::span<const uint8_t> span() const { return std::span{bytes}.first(size); }
};
[[nodiscard]] IpAddress ipv4(uint8_t a, uint8_t b, uint8_t c, uint8_t d);
[[nodiscard]] IpAddress ip_address(std::span<const uint8_t> bytes);  // 4 or 16 of them

constexpr uint16_t ethertype_ipv4 = 0x0800;
constexpr uint16_t ethertype_arp = 0x0806;
constexpr uint16_t ethertype_ipv6 = 0x86dd;
constexpr size_t ethernet_header = 14;
constexpr uint8_t protocol_tcp = 6;
constexpr uint8_t protocol_udp = 17;

[[nodiscard]] uint16_t ethertype(std::span<const uint8_t> frame);  // 0 for a frame that is too short

// What a frame with TCP or UDP holds; positions are checked to lie inside the frame.
struct IpFrame {
  Mac destination_mac{};
  Mac source_mac{};
  IpAddress source;
  IpAddress destination;
  uint8_t protocol = 0;
  bool fragment = false;  // then there are no ports and no payload
  uint16_t source_port = 0;
  uint16_t destination_port = 0;
  size_t transport_at = 0;           // where the TCP or UDP header starts
  std::span<const uint8_t> payload;  // UDP only
};
// None for anything else.
[[nodiscard]] std::optional<IpFrame> parse_ip_frame(std::span<const uint8_t> frame);

// Gives an unfragmented TCP frame, as parsed, another destination or source; checksums follow.
void change_destination(std::span<uint8_t> frame, const IpFrame& parsed, const IpAddress& address, uint16_t port);
void change_source(std::span<uint8_t> frame, const IpFrame& parsed, const IpAddress& address, uint16_t port);

// Both addresses are of one size.
struct UdpEnds {
  Mac destination_mac{};
  Mac source_mac{};
  IpAddress source;
  IpAddress destination;
  uint16_t source_port = 0;
  uint16_t destination_port = 0;
};
[[nodiscard]] std::vector<uint8_t> build_udp_frame(const UdpEnds& ends, std::span<const uint8_t> payload);

// The Internet checksum, RFC 1071, of bytes that hold 0 where it goes; `sum` starts from a pseudo-header.
[[nodiscard]] uint16_t internet_checksum(std::span<const uint8_t> bytes, uint32_t sum = 0);

}  // namespace caisson
