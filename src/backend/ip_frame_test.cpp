#include "backend/ip_frame.h"

#include <random>

#include <gtest/gtest.h>

namespace caisson {
namespace {

using Bytes = std::vector<uint8_t>;

const Mac here{2, 0, 0, 0, 0, 1}, there{2, 0, 0, 0, 0, 2};

UdpEnds ends4() { return {here, there, ipv4(10, 0, 2, 3), ipv4(10, 0, 2, 15), 53, 4242}; }
UdpEnds ends6() {
  UdpEnds ends{here, there, {}, {}, 53, 4242};
  ends.source = ip_address(Bytes{0xfe, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3});
  ends.destination = ip_address(Bytes{0xfe, 0xc0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8});
  return ends;
}

// The checksum over pseudo-header and transport is right when everything sums to zero.
uint16_t transport_sum(const Bytes& frame) {
  const auto parsed = parse_ip_frame(frame).value();
  const auto transport = std::span{frame}.subspan(parsed.transport_at);
  Bytes pseudo{parsed.source.span().begin(), parsed.source.span().end()};
  pseudo.insert(pseudo.end(), parsed.destination.span().begin(), parsed.destination.span().end());
  const auto size = static_cast<uint16_t>(transport.size());
  pseudo.insert(pseudo.end(), {0, parsed.protocol, uint8_t(size >> 8), uint8_t(size)});
  pseudo.insert(pseudo.end(), transport.begin(), transport.end());
  return internet_checksum(pseudo);
}

// A TCP segment with a right checksum, made of a UDP frame of the same size.
Bytes tcp_frame(const UdpEnds& ends, const Bytes& data) {
  Bytes payload(12, 0);
  payload[4] = 0x50;
  payload.insert(payload.end(), data.begin(), data.end());
  Bytes frame = build_udp_frame(ends, payload);
  const bool v4 = ends.source.size == 4;
  frame[14 + (v4 ? 9 : 6)] = protocol_tcp;
  if (v4) {
    frame[24] = frame[25] = 0;
    const uint16_t sum = internet_checksum(std::span{frame}.subspan(14, 20));
    frame[24] = uint8_t(sum >> 8), frame[25] = uint8_t(sum);
  }
  const size_t at = 14 + (v4 ? 20 : 40);
  for (size_t i = 4; i < 8; ++i) frame[at + i] = 0;
  frame[at + 16] = frame[at + 17] = 0;
  const uint16_t sum = transport_sum(frame);
  frame[at + 16] = uint8_t(sum >> 8), frame[at + 17] = uint8_t(sum);
  return frame;
}

TEST(IpFrame, ChecksumOfTheStandard) {
  // RFC 1071 section 3.
  EXPECT_EQ(internet_checksum(Bytes{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}), 0x220d);
  EXPECT_EQ(internet_checksum(Bytes{0xff}), 0x00ff);
}

TEST(IpFrame, BuiltUdpIsParsedBack) {
  for (const UdpEnds& ends : {ends4(), ends6()}) {
    for (const size_t size : {0, 1, 2, 511}) {
      const Bytes payload(size, 0xab);
      const Bytes frame = build_udp_frame(ends, payload);
      const auto parsed = parse_ip_frame(frame).value();
      EXPECT_EQ(parsed.source, ends.source);
      EXPECT_EQ(parsed.destination, ends.destination);
      EXPECT_EQ(parsed.source_port, 53);
      EXPECT_EQ(parsed.destination_port, 4242);
      EXPECT_EQ(parsed.destination_mac, here);
      EXPECT_EQ(parsed.source_mac, there);
      EXPECT_EQ(parsed.protocol, protocol_udp);
      EXPECT_FALSE(parsed.fragment);
      EXPECT_EQ(Bytes(parsed.payload.begin(), parsed.payload.end()), payload);
      EXPECT_EQ(transport_sum(frame), 0);
      EXPECT_TRUE(ends.source.size != 4 || internet_checksum(std::span{frame}.subspan(14, 20)) == 0);
    }
  }
}

TEST(IpFrame, ChangedEndsHaveRightChecksums) {
  std::minstd_rand random{5};
  for (int i = 0; i < 2000; ++i) {
    UdpEnds ends = i % 2 == 0 ? ends4() : ends6();
    for (size_t byte = 0; byte < ends.source.size; ++byte) ends.source.bytes[byte] = static_cast<uint8_t>(random());
    ends.source_port = static_cast<uint16_t>(random());
    Bytes frame = tcp_frame(ends, Bytes(random() % 50, static_cast<uint8_t>(random())));
    ASSERT_EQ(transport_sum(frame), 0);
    IpAddress other = ends.source;
    for (size_t byte = 0; byte < other.size; ++byte) other.bytes[byte] = static_cast<uint8_t>(random());
    const auto port = static_cast<uint16_t>(random());
    if (i % 3 == 0) {
      change_source(frame, parse_ip_frame(frame).value(), other, port);
    } else {
      change_destination(frame, parse_ip_frame(frame).value(), other, port);
    }
    const auto parsed = parse_ip_frame(frame).value();
    EXPECT_EQ(i % 3 == 0 ? parsed.source : parsed.destination, other);
    EXPECT_EQ(i % 3 == 0 ? parsed.source_port : parsed.destination_port, port);
    ASSERT_EQ(transport_sum(frame), 0);
    ASSERT_TRUE(other.size != 4 || internet_checksum(std::span{frame}.subspan(14, 20)) == 0);
  }
}

TEST(IpFrame, CutAndChangedFramesAreHandled) {
  std::minstd_rand random{6};
  for (const Bytes& whole :
       {build_udp_frame(ends4(), Bytes(20)), build_udp_frame(ends6(), Bytes(20)), tcp_frame(ends4(), {})}) {
    for (size_t size = 0; size < whole.size(); ++size) EXPECT_FALSE(parse_ip_frame(std::span{whole}.first(size)));
    for (int i = 0; i < 20'000; ++i) {
      Bytes frame = whole;
      for (int changes = 0; changes < 3; ++changes) frame[random() % frame.size()] = static_cast<uint8_t>(random());
      const auto parsed = parse_ip_frame(frame);
      if (!parsed || parsed->fragment) continue;
      ASSERT_LE(parsed->transport_at + 8, frame.size());
      if (parsed->protocol == protocol_tcp) change_source(frame, *parsed, parsed->source, 1);
      if (parsed->payload.empty()) continue;
      ASSERT_GE(parsed->payload.data(), frame.data());
      ASSERT_LE(parsed->payload.data() + parsed->payload.size(), frame.data() + frame.size());
    }
  }
}

TEST(IpFrame, FragmentsHaveNoPorts) {
  Bytes frame = build_udp_frame(ends4(), Bytes(20));
  frame[14 + 6] = 0x20;
  EXPECT_TRUE(parse_ip_frame(frame).value().fragment);
  EXPECT_TRUE(parse_ip_frame(frame).value().payload.empty());
  frame[14 + 6] = 0;
  frame[14 + 7] = 1;
  EXPECT_TRUE(parse_ip_frame(frame).value().fragment);
}

}  // namespace
}  // namespace caisson
