// Drives the network as a guest does, by hand-made frames, against sockets of this host.
#include "backend/user_network.h"

#include <cstring>
#include <deque>
#include <random>
#include <thread>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "backend/dns_test_support.h"
#include "backend/frame_queue.h"
#include "backend/ip_frame.h"
#include "backend/test_support.h"

namespace caisson {
namespace {

using Bytes = std::vector<uint8_t>;
using Outcome = HostResolver::Outcome;

const Mac guest_mac{0x52, 0x54, 0, 1, 2, 3};
const Mac gateway_mac{0x52, 0x55, 10, 0, 2, 2};
const Mac everybody{0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
const IpAddress guest = ipv4(10, 0, 2, 15), gateway = ipv4(10, 0, 2, 2), nameserver = ipv4(10, 0, 2, 3);

constexpr uint8_t fin = 1, syn = 2, rst = 4, psh = 8, ack = 16;

uint16_t get16(std::span<const uint8_t> bytes, size_t at) {
  return static_cast<uint16_t>(bytes[at] << 8 | bytes[at + 1]);
}
uint32_t get32(std::span<const uint8_t> bytes, size_t at) {
  return uint32_t{get16(bytes, at)} << 16 | get16(bytes, at + 2);
}
void put16(std::span<uint8_t> bytes, size_t at, uint32_t value) {
  bytes[at] = static_cast<uint8_t>(value >> 8);
  bytes[at + 1] = static_cast<uint8_t>(value);
}
void put32(std::span<uint8_t> bytes, size_t at, uint32_t value) {
  put16(bytes, at, value >> 16);
  put16(bytes, at + 2, value & 0xffff);
}

struct Segment {
  uint16_t source_port = 0, destination_port = 0;
  uint32_t sequence = 0, acknowledgement = 0;
  uint8_t flags = 0;
  Bytes data;
};

// Sums the TCP or UDP part with its pseudo-header; 0 when a checksum in it is right.
uint16_t transport_sum(std::span<const uint8_t> frame) {
  const size_t size = size_t{get16(frame, 16)} - 20;
  Bytes bytes{frame.begin() + 26, frame.begin() + 34};
  bytes.insert(bytes.end(), {0, frame[23], uint8_t(size >> 8), uint8_t(size)});
  bytes.insert(bytes.end(), frame.begin() + 34, frame.begin() + 34 + static_cast<ptrdiff_t>(size));
  return internet_checksum(bytes);
}

Bytes ip_frame(uint8_t protocol, const IpAddress& destination, std::span<const uint8_t> transport) {
  Bytes frame(34);
  std::ranges::copy(gateway_mac, frame.begin());
  std::ranges::copy(guest_mac, frame.begin() + 6);
  put16(frame, 12, ethertype_ipv4);
  frame[14] = 0x45;
  put16(frame, 16, static_cast<uint32_t>(20 + transport.size()));
  frame[22] = 64;
  frame[23] = protocol;
  std::ranges::copy(guest.span(), frame.begin() + 26);
  std::ranges::copy(destination.span(), frame.begin() + 30);
  put16(frame, 24, internet_checksum(std::span{frame}.subspan(14, 20)));
  frame.insert(frame.end(), transport.begin(), transport.end());
  return frame;
}

Bytes tcp_frame(const IpAddress& destination, const Segment& segment) {
  Bytes tcp(20);
  put16(tcp, 0, segment.source_port);
  put16(tcp, 2, segment.destination_port);
  put32(tcp, 4, segment.sequence);
  put32(tcp, 8, segment.acknowledgement);
  tcp[12] = 0x50;
  tcp[13] = segment.flags;
  put16(tcp, 14, 0xffff);
  tcp.insert(tcp.end(), segment.data.begin(), segment.data.end());
  Bytes frame = ip_frame(protocol_tcp, destination, tcp);
  put16(frame, 34 + 16, transport_sum(frame));
  return frame;
}

Bytes udp_frame(const IpAddress& destination, uint16_t from, uint16_t to, std::span<const uint8_t> payload) {
  return build_udp_frame({gateway_mac, guest_mac, guest, destination, from, to}, payload);
}

Bytes arp_frame(uint16_t operation, const IpAddress& target) {
  Bytes frame(42);
  std::ranges::copy(operation == 1 ? everybody : gateway_mac, frame.begin());
  std::ranges::copy(guest_mac, frame.begin() + 6);
  put16(frame, 12, ethertype_arp);
  put16(frame, 14, 1);
  put16(frame, 16, ethertype_ipv4);
  frame[18] = 6, frame[19] = 4;
  put16(frame, 20, operation);
  std::ranges::copy(guest_mac, frame.begin() + 22);
  std::ranges::copy(guest.span(), frame.begin() + 28);
  std::ranges::copy(target.span(), frame.begin() + 38);
  return frame;
}

Bytes dhcp_frame(uint8_t message_type) {
  Bytes bootp(300);
  bootp[0] = 1, bootp[1] = 1, bootp[2] = 6;
  put32(bootp, 4, 0x12345678);
  std::ranges::copy(guest_mac, bootp.begin() + 28);
  put32(bootp, 236, 0x63825363);
  const Bytes options = message_type == 1 ? Bytes{53, 1, 1, 255} : Bytes{53, 1, 3, 50, 4, 10, 0, 2, 15, 255};
  std::ranges::copy(options, bootp.begin() + 240);
  return build_udp_frame({everybody, guest_mac, ipv4(0, 0, 0, 0), ipv4(255, 255, 255, 255), 68, 67}, bootp);
}

// The value of an option in a DHCP reply's frame.
Bytes dhcp_option(const Bytes& frame, uint8_t wanted) {
  for (size_t at = 42 + 240; at + 1 < frame.size() && frame[at] != 255; at += 2 + size_t{frame[at + 1]}) {
    if (frame[at] != wanted) continue;
    const auto start = frame.begin() + static_cast<ptrdiff_t>(at) + 2;
    return {start, start + frame[at + 1]};
  }
  return {};
}

// A listening or bound socket of this host on 127.0.0.1.
struct HostSocket {
  explicit HostSocket(int type) : fd{::socket(AF_INET, type | SOCK_CLOEXEC, 0)} {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    EXPECT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
    EXPECT_TRUE(type != SOCK_STREAM || ::listen(fd.get(), 8) == 0);
    port = ntohs(address.sin_port);
  }
  Fd fd;
  uint16_t port = 0;
};

// A port that nobody uses just now.
uint16_t free_port(int type) { return HostSocket{type}.port; }

Bytes receive(const Fd& fd) {
  Bytes bytes(1 << 20);
  const ssize_t size = ::recv(fd.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
  bytes.resize(size > 0 ? static_cast<size_t>(size) : 0);
  return bytes;
}

class UserNetworkTest : public test::LoopTest {
 protected:
  void SetUp() override {
    resolver->hosts["host.example.com"] = {
        .outcome = Outcome::Found, .canonical = {}, .ipv4 = {{{192, 0, 2, 7}}}, .ipv6 = {}};
    auto& many = resolver->hosts["many.example.com"];
    many.outcome = Outcome::Found;
    for (uint8_t i = 0; i < 200; ++i) many.ipv4.push_back({{10, 0, 0, i}});
    open({});
  }
  void TearDown() override {
    const std::lock_guard lock{guard};
    network.reset();
  }
  void open(UserNetworkOptions options) {
    const std::lock_guard lock{guard};
    network.reset();
    options.resolver = resolver;
    if (!options.ipv6) options.ipv6 = false;
    if (!options.search_domains) options.search_domains = std::vector<std::string>{"corp.example.com"};
    auto made = UserNetwork::create(*loop, std::move(options));
    ASSERT_TRUE(made) << made.error().message;
    network = std::move(*made);
    network->set_receiver([this](std::span<const uint8_t> frame) {
      EXPECT_FALSE(sending) << "called from inside";
      if (!willing) return false;
      frames.emplace_back(frame.begin(), frame.end());
      return true;
    });
  }
  void send(const Bytes& frame) {
    const std::lock_guard lock{guard};
    sending = true;
    network->send(frame);
    sending = false;
  }
  // Waits for a frame that fits; forgets those before it. Answers ARP requests for the guest meanwhile.
  std::optional<Bytes> wait_for(const std::function<bool(const Bytes&)>& fits) {
    std::optional<Bytes> found;
    EXPECT_TRUE(run_until([&] {
      while (!found && !frames.empty()) {
        Bytes frame = std::move(frames.front());
        frames.pop_front();
        if (ethertype(frame) == ethertype_arp && get16(frame, 20) == 1) network->send(arp_frame(2, gateway));
        if (fits(frame)) found = std::move(frame);
      }
      return found.has_value();
    }));
    return found;
  }
  Bytes wait_for_udp(uint16_t from, uint16_t to) {
    const auto frame = wait_for([&](const Bytes& one) {
      const auto parsed = parse_ip_frame(one);
      return parsed && parsed->protocol == protocol_udp && parsed->source_port == from &&
             parsed->destination_port == to;
    });
    return frame.value_or(Bytes{});
  }
  std::pair<Segment, IpAddress> wait_for_tcp(uint16_t to, const std::function<bool(const Segment&)>& fits) {
    std::pair<Segment, IpAddress> found;
    wait_for([&](const Bytes& frame) {
      const auto parsed = parse_ip_frame(frame);
      if (!parsed || parsed->protocol != protocol_tcp || parsed->destination_port != to) return false;
      EXPECT_EQ(transport_sum(frame), 0);
      EXPECT_EQ(internet_checksum(std::span{frame}.subspan(14, 20)), 0);
      const auto tcp = std::span{frame}.subspan(34, get16(frame, 16) - 20u);
      const auto data = tcp.subspan(size_t{tcp[12]} / 16 * 4);
      Segment segment{get16(tcp, 0), get16(tcp, 2), get32(tcp, 4),
                      get32(tcp, 8), tcp[13],       Bytes{data.begin(), data.end()}};
      if (!fits(segment)) return false;
      found = {segment, parsed->source};
      return true;
    });
    return found;
  }

  // A guest's end of one TCP connection, as simple as can be: in order, nothing lost.
  struct Connection {
    IpAddress peer;
    uint16_t port, peer_port;
    uint32_t next, expected = 0;
  };
  Segment segment(const Connection& c, uint8_t flags, Bytes data = {}) {
    return {c.port, c.peer_port, c.next, c.expected, flags, std::move(data)};
  }
  void connect(Connection& c) {
    send(tcp_frame(c.peer, {c.port, c.peer_port, c.next, 0, syn, {}}));
    const auto [reply, from] = wait_for_tcp(c.port, [](const Segment& s) { return (s.flags & (syn | rst)) != 0; });
    ASSERT_EQ(reply.flags & (syn | ack | rst), syn | ack);
    EXPECT_EQ(from, c.peer);
    EXPECT_EQ(reply.source_port, c.peer_port);
    c.expected = reply.sequence + 1;
    ++c.next;
    send(tcp_frame(c.peer, segment(c, ack)));
  }
  void say(Connection& c, const Bytes& data) {
    send(tcp_frame(c.peer, segment(c, ack | psh, data)));
    c.next += static_cast<uint32_t>(data.size());
  }
  Bytes hear(Connection& c, size_t size) {
    Bytes all;
    while (all.size() < size && !HasFailure()) {
      const auto [got, from] =
          wait_for_tcp(c.port, [&](const Segment& s) { return !s.data.empty() && s.sequence == c.expected; });
      EXPECT_EQ(from, c.peer);
      all.insert(all.end(), got.data.begin(), got.data.end());
      c.expected += static_cast<uint32_t>(got.data.size());
      send(tcp_frame(c.peer, segment(c, ack)));
    }
    return all;
  }

  std::shared_ptr<test::FakeResolver> resolver = std::make_shared<test::FakeResolver>();
  std::unique_ptr<UserNetwork> network;
  std::deque<Bytes> frames;
  bool sending = false;
  bool willing = true;
};

TEST_F(UserNetworkTest, AnswersArpForGatewayAndNameServerOnly) {
  for (const auto& address : {gateway, nameserver}) {
    send(arp_frame(1, address));
    const auto reply =
        wait_for([](const Bytes& frame) { return ethertype(frame) == ethertype_arp && get16(frame, 20) == 2; });
    ASSERT_TRUE(reply);
    EXPECT_EQ(ip_address(std::span{*reply}.subspan(28, 4)), address);
  }
  send(arp_frame(1, ipv4(10, 0, 2, 9)));
  run_ready();
  EXPECT_TRUE(frames.empty());
}

TEST_F(UserNetworkTest, DhcpGivesAddressRouterNameServerAndDomains) {
  open({.forwards = {}, .hostname = "vm1", .ipv6 = {}, .resolver = {}, .search_domains = {}});
  send(dhcp_frame(1));
  const Bytes offer = wait_for_udp(67, 68);
  ASSERT_GT(offer.size(), 290u);
  EXPECT_EQ(ip_address(std::span{offer}.subspan(42 + 16, 4)), guest);
  EXPECT_EQ(dhcp_option(offer, 53), (Bytes{2}));
  EXPECT_EQ(dhcp_option(offer, 1), (Bytes{255, 255, 255, 0}));
  EXPECT_EQ(dhcp_option(offer, 3), (Bytes{10, 0, 2, 2}));
  EXPECT_EQ(dhcp_option(offer, 6), (Bytes{10, 0, 2, 3}));
  EXPECT_EQ(dhcp_option(offer, 12), (Bytes{'v', 'm', '1'}));
  const std::string domain = "corp.example.com";
  EXPECT_EQ(dhcp_option(offer, 15), Bytes(domain.begin(), domain.end()));
  EXPECT_EQ(dhcp_option(offer, 119), dns::from_text(domain).value());
  send(dhcp_frame(3));
  const Bytes acknowledged = wait_for_udp(67, 68);
  EXPECT_EQ(dhcp_option(acknowledged, 53), (Bytes{5}));
}

TEST_F(UserNetworkTest, UdpToTheHostAndBack) {
  const HostSocket server{SOCK_DGRAM};
  const Bytes ping{'p', 'i', 'n', 'g'}, pong{'p', 'o', 'n', 'g', '!'};
  send(udp_frame(gateway, 5000, server.port, ping));
  Bytes got(100);
  sockaddr_in from{};
  socklen_t from_size = sizeof from;
  ASSERT_EQ(::recvfrom(server.fd.get(), got.data(), got.size(), 0, reinterpret_cast<sockaddr*>(&from), &from_size), 4);
  got.resize(4);
  EXPECT_EQ(got, ping);
  ASSERT_EQ(::sendto(server.fd.get(), pong.data(), pong.size(), 0, reinterpret_cast<sockaddr*>(&from), from_size), 5);
  send(arp_frame(1, gateway));  // tells slirp who the guest is
  const Bytes frame = wait_for_udp(server.port, 5000);
  const auto parsed = parse_ip_frame(frame).value();
  EXPECT_EQ(Bytes(parsed.payload.begin(), parsed.payload.end()), pong);
  EXPECT_EQ(parsed.source, gateway);
}

TEST_F(UserNetworkTest, TcpToTheHostBothWays) {
  const HostSocket server{SOCK_STREAM};
  send(arp_frame(1, gateway));
  Connection c{gateway, 6000, server.port, 1000};
  connect(c);
  const Fd accepted{::accept4(server.fd.get(), nullptr, nullptr, SOCK_CLOEXEC)};
  ASSERT_TRUE(accepted.valid());
  say(c, {'h', 'e', 'l', 'l', 'o'});
  Bytes got;
  EXPECT_TRUE(run_until([&] {
    const Bytes more = receive(accepted);
    got.insert(got.end(), more.begin(), more.end());
    return got.size() == 5;
  }));
  EXPECT_EQ(got, (Bytes{'h', 'e', 'l', 'l', 'o'}));
  // More than any window, so that the flow has to stop and go on.
  Bytes bulk(300'000);
  for (size_t i = 0; i < bulk.size(); ++i) bulk[i] = static_cast<uint8_t>(i * 13 + i / 255);
  std::thread writer{[&] { EXPECT_EQ(::send(accepted.get(), bulk.data(), bulk.size(), 0), ssize_t(bulk.size())); }};
  EXPECT_EQ(hear(c, bulk.size()), bulk);
  writer.join();
  // Closing: the host sees the end, and the guest the host's.
  send(tcp_frame(gateway, segment(c, ack | fin)));
  ++c.next;
  EXPECT_TRUE(run_until([&] {
    char byte = 0;
    return ::recv(accepted.get(), &byte, 1, MSG_DONTWAIT) == 0;
  }));
  ::shutdown(accepted.get(), SHUT_WR);
  wait_for_tcp(c.port, [](const Segment& s) { return (s.flags & fin) != 0; });
}

TEST_F(UserNetworkTest, RefusedConnectionIsReset) {
  send(arp_frame(1, gateway));
  send(tcp_frame(gateway, {6001, free_port(SOCK_STREAM), 1, 0, syn, {}}));
  const auto [reply, from] = wait_for_tcp(6001, [](const Segment&) { return true; });
  EXPECT_TRUE(reply.flags & rst);
}

TEST_F(UserNetworkTest, PingOfTheGateway) {
  send(arp_frame(1, gateway));
  Bytes echo{8, 0, 0, 0, 0, 1, 0, 1, 'd', 'a', 't', 'a'};
  put16(echo, 2, internet_checksum(echo));
  send(ip_frame(1, gateway, echo));
  const auto reply = wait_for([](const Bytes& frame) { return ethertype(frame) == ethertype_ipv4 && frame[23] == 1; });
  ASSERT_TRUE(reply);
  EXPECT_EQ((*reply)[34], 0);
  EXPECT_EQ(Bytes(reply->begin() + 42, reply->begin() + 46), (Bytes{'d', 'a', 't', 'a'}));
}

TEST_F(UserNetworkTest, TcpForwardReachesTheGuest) {
  const uint16_t port = free_port(SOCK_STREAM);
  open({.forwards = {{.host_port = port, .guest_port = 22}},
        .hostname = {},
        .ipv6 = {},
        .resolver = {},
        .search_domains = {}});
  Fd client{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(::connect(client.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  // The first packet waits until the guest has told its address.
  const auto [first, from] = wait_for_tcp(22, [](const Segment& s) { return (s.flags & syn) != 0; });
  EXPECT_EQ(from, gateway);
  Connection c{gateway, 22, first.source_port, 5000, first.sequence + 1};
  send(tcp_frame(gateway, segment(c, syn | ack)));
  ++c.next;
  ASSERT_EQ(::send(client.get(), "hi", 2, 0), 2);
  EXPECT_EQ(hear(c, 2), (Bytes{'h', 'i'}));
  say(c, {'y', 'o'});
  Bytes got;
  EXPECT_TRUE(run_until([&] {
    const Bytes more = receive(client);
    got.insert(got.end(), more.begin(), more.end());
    return got.size() == 2;
  }));
}

TEST_F(UserNetworkTest, ForwardsComeAndGoWhileItRuns) {
  open({.forwards = {}, .hostname = {}, .ipv6 = {}, .resolver = {}, .search_domains = {}});
  const PortForward forward{.host_port = free_port(SOCK_STREAM), .guest_port = 22};
  const auto connects = [&] {
    const Fd client{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(forward.host_port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return ::connect(client.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  };
  EXPECT_FALSE(connects());
  for (unsigned round = 0; round < 3; ++round) {
    const auto added = network->add_forward(forward);
    ASSERT_TRUE(added) << added.error().message;
    EXPECT_FALSE(network->add_forward(forward));
    EXPECT_TRUE(connects());
    std::ignore = wait_for_tcp(22, [](const Segment& s) { return (s.flags & syn) != 0; });
    network->remove_forward(forward);
    EXPECT_FALSE(connects());
    network->remove_forward(forward);  // gone already
  }
}

TEST_F(UserNetworkTest, UdpForwardReachesTheGuest) {
  const uint16_t port = free_port(SOCK_DGRAM);
  open({.forwards = {{.host_port = port, .guest_port = 53, .udp = true}},
        .hostname = {},
        .ipv6 = {},
        .resolver = {},
        .search_domains = {}});
  const HostSocket client{SOCK_DGRAM};
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(::sendto(client.fd.get(), "x", 1, 0, reinterpret_cast<sockaddr*>(&address), sizeof address), 1);
  const Bytes frame = wait_for_udp(client.port, 53);
  const auto parsed = parse_ip_frame(frame).value();
  EXPECT_EQ(parsed.destination, guest);
  EXPECT_EQ(Bytes(parsed.payload.begin(), parsed.payload.end()), (Bytes{'x'}));
}

TEST_F(UserNetworkTest, PortInUseIsAnErrorBeforeTheGuestStarts) {
  for (const bool udp : {false, true}) {
    const HostSocket taken{udp ? SOCK_DGRAM : SOCK_STREAM};
    const std::lock_guard lock{guard};
    const PortForward forward{.host_port = taken.port, .guest_port = 22, .udp = udp};
    const auto made = UserNetwork::create(
        *loop, {.forwards = {forward}, .hostname = {}, .ipv6 = false, .resolver = resolver, .search_domains = {}});
    ASSERT_FALSE(made);
    EXPECT_NE(made.error().message.find("port " + std::to_string(taken.port) + " on 127.0.0.1 is already in use"),
              std::string::npos)
        << made.error().message;
  }
}

TEST_F(UserNetworkTest, SameForwardTwiceIsAnError) {
  const PortForward forward{.host_port = free_port(SOCK_STREAM), .guest_port = 22};
  const std::lock_guard lock{guard};
  const auto made = UserNetwork::create(
      *loop,
      {.forwards = {forward, forward}, .hostname = {}, .ipv6 = false, .resolver = resolver, .search_domains = {}});
  EXPECT_FALSE(made);
}

TEST_F(UserNetworkTest, DnsOverUdpGoesThroughTheHostsResolver) {
  send(udp_frame(nameserver, 7000, 53, test::dns_query("host.example.com", 1, 99)));
  const Bytes frame = wait_for_udp(53, 7000);
  EXPECT_EQ(transport_sum(frame), 0);
  const auto parsed = parse_ip_frame(frame).value();
  EXPECT_EQ(parsed.source, nameserver);
  EXPECT_EQ(parsed.destination, guest);
  EXPECT_EQ(parsed.destination_mac, guest_mac);
  const test::DnsAnswer answer{{parsed.payload.begin(), parsed.payload.end()}};
  EXPECT_EQ(answer.id, 99);
  EXPECT_EQ(answer.records, (std::vector<std::string>{"host.example.com 192.0.2.7"}));

  send(udp_frame(nameserver, 7001, 53, test::dns_query("none.example.com", 1)));
  const Bytes missing = wait_for_udp(53, 7001);
  const auto payload = parse_ip_frame(missing).value().payload;
  EXPECT_EQ((test::DnsAnswer{{payload.begin(), payload.end()}}.rcode), 3);
}

TEST_F(UserNetworkTest, DnsOverUdpStaysInsideTheMtu) {
  send(udp_frame(nameserver, 7000, 53, test::dns_query("many.example.com", 1, 1, 65000)));
  const Bytes frame = wait_for_udp(53, 7000);
  EXPECT_LE(frame.size(), 1514u);
  const auto payload = parse_ip_frame(frame).value().payload;
  EXPECT_TRUE((test::DnsAnswer{{payload.begin(), payload.end()}}.truncated));
}

TEST_F(UserNetworkTest, DnsOverTcp) {
  send(arp_frame(1, nameserver));
  // Two at once, to tell the connections apart.
  Connection one{nameserver, 7100, 53, 100}, two{nameserver, 7101, 53, 200};
  connect(one);
  connect(two);
  for (Connection* c : {&one, &two}) {
    const Bytes query = test::dns_query("many.example.com", 1, c->port);
    Bytes framed{uint8_t(query.size() >> 8), uint8_t(query.size())};
    framed.insert(framed.end(), query.begin(), query.end());
    say(*c, framed);
    Bytes reply = hear(*c, 2);
    const size_t size = get16(reply, 0);
    const Bytes rest = hear(*c, size + 2 > reply.size() ? size + 2 - reply.size() : 0);
    reply.insert(reply.end(), rest.begin(), rest.end());
    const test::DnsAnswer answer{{reply.begin() + 2, reply.end()}};
    EXPECT_EQ(answer.id, c->port);
    EXPECT_EQ(answer.records.size(), 200u);
  }
}

TEST_F(UserNetworkTest, OtherPortsOfTheNameServerAreUnreachable) {
  send(arp_frame(1, gateway));
  send(udp_frame(nameserver, 7000, 54, Bytes{1}));
  const auto reply = wait_for([](const Bytes& frame) { return ethertype(frame) == ethertype_ipv4 && frame[23] == 1; });
  ASSERT_TRUE(reply);
  EXPECT_EQ((*reply)[34], 3) << "ICMP destination unreachable";
}

TEST_F(UserNetworkTest, GuestWithoutBuffersGetsItsFramesLater) {
  const HostSocket server{SOCK_STREAM};
  send(arp_frame(1, gateway));
  Connection c{gateway, 6000, server.port, 1000};
  connect(c);
  const Fd accepted{::accept4(server.fd.get(), nullptr, nullptr, SOCK_CLOEXEC)};
  {
    const std::lock_guard lock{guard};
    willing = false;
    frames.clear();
  }
  ASSERT_EQ(::send(accepted.get(), "late", 4, 0), 4);
  run_ready();
  EXPECT_TRUE(frames.empty());
  {
    const std::lock_guard lock{guard};
    willing = true;
    sending = true;
    network->receive_ready();
    sending = false;
  }
  EXPECT_EQ(hear(c, 4), (Bytes{'l', 'a', 't', 'e'}));
}

TEST_F(UserNetworkTest, FramesForAGuestThatNeverReadsAreBounded) {
  willing = false;
  for (int i = 0; i < 5000; ++i) send(arp_frame(1, gateway));
  EXPECT_GE(network->dropped(), 5000 - FrameQueue::most_frames);
  run_ready();
  {
    const std::lock_guard lock{guard};
    willing = true;
    network->receive_ready();
  }
  EXPECT_TRUE(run_until([&] { return frames.size() == FrameQueue::most_frames; }));
  // And it works again.
  frames.clear();
  send(udp_frame(nameserver, 7000, 53, test::dns_query("host.example.com", 1)));
  EXPECT_FALSE(wait_for_udp(53, 7000).empty());
}

TEST_F(UserNetworkTest, ManySocketsAtOnce) {
  // More than the set that is looked through for each frame.
  const HostSocket server{SOCK_DGRAM};
  send(arp_frame(1, gateway));
  constexpr uint16_t count = 100;
  for (uint16_t i = 0; i < count; ++i) send(udp_frame(gateway, uint16_t(20'000 + i), server.port, Bytes{uint8_t(i)}));
  for (int i = 0; i < count; ++i) {
    sockaddr_in from{};
    socklen_t size = sizeof from;
    uint8_t byte = 0;
    ASSERT_EQ(::recvfrom(server.fd.get(), &byte, 1, 0, reinterpret_cast<sockaddr*>(&from), &size), 1);
    ASSERT_EQ(::sendto(server.fd.get(), &byte, 1, 0, reinterpret_cast<sockaddr*>(&from), size), 1);
  }
  std::vector<bool> seen(count);
  EXPECT_TRUE(run_until([&] {
    for (const Bytes& frame : frames) {
      const auto parsed = parse_ip_frame(frame);
      if (parsed && parsed->protocol == protocol_udp) seen.at(parsed->destination_port - 20'000u) = true;
    }
    frames.clear();
    return std::count(seen.begin(), seen.end(), true) == count;
  }));
}

TEST_F(UserNetworkTest, RubbishDoesNoHarm) {
  std::minstd_rand random{11};
  const HostSocket server{SOCK_DGRAM};
  const std::vector<Bytes> good{arp_frame(1, gateway), dhcp_frame(1), udp_frame(gateway, 5000, server.port, Bytes(40)),
                                udp_frame(nameserver, 5000, 53, test::dns_query("host.example.com", 1)),
                                tcp_frame(nameserver, {7100, 53, 1, 0, syn, {}})};
  for (int i = 0; i < 3000; ++i) {
    Bytes frame = good[random() % good.size()];
    // Not the addresses: nothing is to leave this host.
    for (int changes = 0; changes < 4; ++changes) {
      const size_t at = 14 + random() % (frame.size() - 14);
      if (at < 26 || at > 41) frame[at] = static_cast<uint8_t>(random());
    }
    if (random() % 4 == 0) frame.resize(random() % frame.size());
    send(frame);
    if (i % 100 == 0) run_ready();
  }
  send({});
  send(Bytes(NetBackend::max_frame + 1));
  frames.clear();
  send(arp_frame(1, nameserver));
  EXPECT_TRUE(wait_for([](const Bytes& frame) { return ethertype(frame) == ethertype_arp && get16(frame, 20) == 2; }));
}

TEST_F(UserNetworkTest, Ipv6NameServer) {
  open({.forwards = {}, .hostname = {}, .ipv6 = true, .resolver = {}, .search_domains = {}});
  IpAddress server{.bytes = {0xfe, 0xc0}, .size = 16}, us{.bytes = {0xfe, 0xc0}, .size = 16};
  server.bytes[15] = 3;
  us.bytes[15] = 0x15;
  send(build_udp_frame({gateway_mac, guest_mac, us, server, 7000, 53}, test::dns_query("host.example.com", 1)));
  const Bytes frame = wait_for_udp(53, 7000);
  const auto parsed = parse_ip_frame(frame).value();
  EXPECT_EQ(parsed.source, server);
  EXPECT_EQ(parsed.destination, us);
  EXPECT_EQ((test::DnsAnswer{{parsed.payload.begin(), parsed.payload.end()}}.records.size()), 1u);
}

TEST_F(UserNetworkTest, SetsUpAndGoesWithWorkUnderWay) {
  resolver->hold(true);
  for (int i = 0; i < 5; ++i) {
    open({.forwards = {{.host_port = free_port(SOCK_STREAM), .guest_port = 22}},
          .hostname = {},
          .ipv6 = true,
          .resolver = {},
          .search_domains = {}});
    send(udp_frame(nameserver, 7000, 53, test::dns_query("host.example.com", 1)));
    send(tcp_frame(nameserver, {7100, 53, 1, 0, syn, {}}));
    run_ready();
  }
  resolver->hold(false);
}

TEST(FrameQueue, BoundsBytesAndFrames) {
  FrameQueue queue;
  const Bytes large(65'000);
  size_t taken = 0;
  while (queue.push(large)) ++taken;
  EXPECT_EQ(taken, FrameQueue::most_bytes / large.size());
  EXPECT_TRUE(queue.high());
  EXPECT_EQ(queue.dropped(), 1u);
  while (!queue.empty()) queue.pop();
  EXPECT_TRUE(queue.low());
  for (size_t i = 0; i < FrameQueue::most_frames; ++i) EXPECT_TRUE(queue.push(Bytes{uint8_t(i)}));
  EXPECT_FALSE(queue.push(Bytes{1}));
  for (size_t i = 0; i < FrameQueue::most_frames; ++i) {
    ASSERT_EQ(queue.front()[0], uint8_t(i));
    queue.pop();
  }
}

}  // namespace
}  // namespace caisson
