#include "backend/dns_server.h"

#include <algorithm>

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "backend/dns_tcp.h"
#include "backend/dns_test_support.h"
#include "backend/test_support.h"

namespace caisson {
namespace {

using Bytes = std::vector<uint8_t>;
using Records = std::vector<std::string>;
using Transport = DnsServer::Transport;
using Outcome = HostResolver::Outcome;
using test::DnsAnswer;

constexpr uint16_t type_a = 1, type_ptr = 12, type_mx = 15, type_txt = 16, type_aaaa = 28, type_srv = 33;
constexpr int noerror = 0, servfail = 2, nxdomain = 3, notimp = 4;

class DnsServerTest : public test::LoopTest {
 protected:
  void SetUp() override {
    resolver->hosts["both.example.com"] = {.outcome = Outcome::Found,
                                           .canonical = {},
                                           .ipv4 = {{{1, 2, 3, 4}}, {{5, 6, 7, 8}}},
                                           .ipv6 = {dns::Ipv6{{0x20, 1}}}};
    resolver->hosts["four"] = {
        .outcome = Outcome::Found, .canonical = "four.example.com", .ipv4 = {{{127, 0, 1, 1}}}, .ipv6 = {}};
    resolver->hosts["empty.example.com"] = {.outcome = Outcome::NoData, .canonical = {}, .ipv4 = {}, .ipv6 = {}};
    resolver->hosts["broken.example.com"] = {.outcome = Outcome::Failed, .canonical = {}, .ipv4 = {}, .ipv6 = {}};
    auto& many = resolver->hosts["many.example.com"];
    many.outcome = Outcome::Found;
    for (uint8_t i = 0; i < 100; ++i) many.ipv4.push_back({{10, 0, 0, i}});
    server = std::make_unique<DnsServer>(*loop, resolver);
  }
  void TearDown() override {
    resolver->hold(false);
    const std::lock_guard lock{guard};
    server.reset();
  }

  Bytes ask_bytes(const Bytes& query, Transport transport = Transport::Udp, size_t limit = 1472) {
    std::optional<Bytes> answer;
    {
      const std::lock_guard lock{guard};
      server->resolve(query, transport, limit, [&](Bytes message) { answer = std::move(message); });
      EXPECT_FALSE(answer) << "replied from inside";
    }
    EXPECT_TRUE(run_until([&] { return answer.has_value(); }));
    return answer.value_or(Bytes{});
  }
  DnsAnswer ask(std::string_view name, uint16_t type, Transport transport = Transport::Udp, uint16_t payload = 0) {
    const size_t limit = transport == Transport::Udp ? 1472 : dns::max_message;
    DnsAnswer answer{ask_bytes(test::dns_query(name, type, 0x4242, payload), transport, limit)};
    EXPECT_EQ(answer.id, 0x4242);
    return answer;
  }

  std::shared_ptr<test::FakeResolver> resolver = std::make_shared<test::FakeResolver>();
  std::unique_ptr<DnsServer> server;
};

TEST_F(DnsServerTest, Addresses) {
  EXPECT_EQ(ask("both.example.com", type_a).records, (Records{"both.example.com 1.2.3.4", "both.example.com 5.6.7.8"}));
  EXPECT_EQ(ask("both.example.com", type_aaaa).records, (Records{"both.example.com 2001::"}));
  EXPECT_EQ(resolver->calls, 1) << "one lookup serves both families";
}

TEST_F(DnsServerTest, CanonicalNameAsTheHostKnowsIt) {
  EXPECT_EQ(ask("four", type_a).records, (Records{"four four.example.com", "four.example.com 127.0.1.1"}));
}

TEST_F(DnsServerTest, MissingNamesMissingDataAndFailures) {
  EXPECT_EQ(ask("none.example.com", type_a).rcode, nxdomain);
  EXPECT_EQ(ask("empty.example.com", type_a).rcode, noerror);
  EXPECT_EQ(ask("empty.example.com", type_a).records, Records{});
  EXPECT_EQ(ask("broken.example.com", type_a).rcode, servfail);
  // The name exists, only not with this type.
  const auto no_ipv6 = ask("four", type_aaaa);
  EXPECT_EQ(no_ipv6.rcode, noerror);
  EXPECT_EQ(no_ipv6.records, (Records{"four four.example.com"}));
}

TEST_F(DnsServerTest, FailuresAreNotKeptMissingNamesAre) {
  ask("broken.example.com", type_a);
  ask("broken.example.com", type_a);
  EXPECT_EQ(resolver->calls, 2);
  ask("none.example.com", type_a);
  ask("NONE.example.com", type_aaaa);
  EXPECT_EQ(resolver->calls, 3);
}

TEST_F(DnsServerTest, ReverseLookups) {
  EXPECT_EQ(ask("4.3.2.10.in-addr.arpa", type_ptr).records, (Records{"4.3.2.10.in-addr.arpa ten.example.com"}));
  EXPECT_EQ(ask("1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa", type_ptr).records.size(),
            1u);
  EXPECT_EQ(ask("4.3.2.11.in-addr.arpa", type_ptr).rcode, servfail);
  EXPECT_EQ(ask("4.3.2.12.in-addr.arpa", type_ptr).rcode, nxdomain);
}

TEST_F(DnsServerTest, OtherTypesGoToTheHostsNameServer) {
  const auto answer = ask("example.com", type_mx);
  EXPECT_EQ(answer.rcode, noerror);
  EXPECT_EQ(ask("example.com", type_srv).rcode, servfail) << "the name server does not answer";
}

TEST_F(DnsServerTest, TruncationOverUdpOnly) {
  EXPECT_TRUE(ask("many.example.com", type_a).truncated);
  EXPECT_LE(ask("many.example.com", type_a).message.size(), 512u);
  const auto edns = ask("many.example.com", type_a, Transport::Udp, 1000);
  EXPECT_TRUE(edns.truncated);
  EXPECT_GT(edns.message.size(), 512u);
  EXPECT_LE(edns.message.size(), 1000u);
  const auto limited = ask("many.example.com", type_a, Transport::Udp, 4096);
  EXPECT_LE(limited.message.size(), 1472u);
  const auto tcp = ask("many.example.com", type_a, Transport::Tcp);
  EXPECT_FALSE(tcp.truncated);
  EXPECT_EQ(tcp.records.size(), 100u);
  resolver->filling = 2000;
  EXPECT_TRUE(ask("example.com", type_txt).truncated);
}

TEST_F(DnsServerTest, BadQueries) {
  EXPECT_EQ(ask_bytes({}), Bytes{});
  EXPECT_EQ(ask_bytes(Bytes(11)), Bytes{});
  Bytes notify = test::dns_query("a.b", type_a);
  notify[2] |= 0x20;
  EXPECT_EQ(DnsAnswer{ask_bytes(notify)}.rcode, notimp);
}

TEST_F(DnsServerTest, SameQuestionAtOnceIsLookedUpOnce) {
  resolver->hold(true);
  int replies = 0;
  {
    const std::lock_guard lock{guard};
    for (int i = 0; i < 20; ++i) {
      server->resolve(test::dns_query("both.example.com", i % 2 == 0 ? type_a : type_aaaa), Transport::Udp, 512,
                      [&](const Bytes&) { ++replies; });
    }
  }
  resolver->hold(false);
  EXPECT_TRUE(run_until([&] { return replies == 20; }));
  EXPECT_EQ(resolver->calls, 1);
}

TEST_F(DnsServerTest, FloodIsBoundedAndEveryQueryAnswered) {
  resolver->hold(true);
  size_t failed = 0, replies = 0;
  constexpr size_t count = 2 * DnsServer::most_lookups;
  {
    const std::lock_guard lock{guard};
    for (size_t i = 0; i < count; ++i) {
      server->resolve(test::dns_query("n" + std::to_string(i), type_a), Transport::Udp, 512, [&](Bytes message) {
        ++replies;
        failed += DnsAnswer{std::move(message)}.rcode == servfail;
      });
    }
  }
  EXPECT_TRUE(run_until([&] { return replies == count - DnsServer::most_lookups; }));
  EXPECT_EQ(failed, replies);
  resolver->hold(false);
  EXPECT_TRUE(run_until([&] { return replies == count; }));
  EXPECT_EQ(failed, count - DnsServer::most_lookups);
}

TEST_F(DnsServerTest, DestroyedWhileLookingUp) {
  resolver->hold(true);
  bool replied = false;
  {
    const std::lock_guard lock{guard};
    server->resolve(test::dns_query("both.example.com", type_a), Transport::Udp, 512,
                    [&](const Bytes&) { replied = true; });
  }
  EXPECT_TRUE(run_until([&] { return resolver->calls == 1; }));
  {
    const std::lock_guard lock{guard};
    server.reset();  // does not wait for the lookup
  }
  resolver->hold(false);
  run_ready();
  EXPECT_FALSE(replied);
}

class DnsTcpTest : public DnsServerTest {
 protected:
  void SetUp() override {
    DnsServerTest::SetUp();
    const std::lock_guard lock{guard};
    tcp = DnsTcp::listen(*loop, *server, false);
    ASSERT_NE(tcp, nullptr);
  }
  void TearDown() override {
    {
      const std::lock_guard lock{guard};
      tcp.reset();
    }
    DnsServerTest::TearDown();
  }
  Fd connect() {
    Fd fd{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(tcp->port());
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    return fd;
  }
  static void say(const Fd& fd, const Bytes& bytes) {
    ASSERT_EQ(::send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  }
  static Bytes framed(const Bytes& message) {
    Bytes bytes{uint8_t(message.size() >> 8), uint8_t(message.size())};
    bytes.insert(bytes.end(), message.begin(), message.end());
    return bytes;
  }
  // Runs the loop until a whole message has come; empty when the connection has ended.
  Bytes hear(const Fd& fd) {
    bool ended = false;
    const auto whole = [&] { return heard.size() >= 2 && heard.size() >= 2u + (heard[0] << 8 | heard[1]); };
    EXPECT_TRUE(run_until([&] {
      Bytes part(65536);
      const ssize_t size = ::recv(fd.get(), part.data(), part.size(), MSG_DONTWAIT);
      if (size > 0) heard.insert(heard.end(), part.begin(), part.begin() + size);
      if (size == 0 || (size < 0 && errno != EAGAIN)) ended = true;
      return ended || whole();
    }));
    if (!whole()) return {};
    const ptrdiff_t size = heard[0] << 8 | heard[1];
    Bytes message{heard.begin() + 2, heard.begin() + 2 + size};
    heard.erase(heard.begin(), heard.begin() + 2 + size);
    return message;
  }

  std::unique_ptr<DnsTcp> tcp;
  Bytes heard;
};

TEST_F(DnsTcpTest, ManyQueriesOnOneConnection) {
  const Fd fd = connect();
  Bytes all;
  for (uint16_t id = 0; id < 100; ++id) {
    const Bytes one = framed(test::dns_query("many.example.com", type_a, id));
    all.insert(all.end(), one.begin(), one.end());
  }
  say(fd, all);
  std::vector<bool> seen(100);
  for (int i = 0; i < 100; ++i) {
    const DnsAnswer answer{hear(fd)};
    EXPECT_EQ(answer.records.size(), 100u);
    seen.at(answer.id) = true;
  }
  EXPECT_EQ(std::count(seen.begin(), seen.end(), true), 100);
}

TEST_F(DnsTcpTest, QueryInPiecesAndHalfClose) {
  const Fd fd = connect();
  const Bytes bytes = framed(test::dns_query("four", type_a));
  for (const uint8_t byte : bytes) {
    say(fd, {byte});
    run_ready();
  }
  ::shutdown(fd.get(), SHUT_WR);
  EXPECT_EQ(DnsAnswer{hear(fd)}.records.size(), 2u);
  EXPECT_EQ(hear(fd), Bytes{}) << "closed after the answer";
  EXPECT_EQ(tcp->connections(), 0u);
}

TEST_F(DnsTcpTest, RubbishEndsTheConnection) {
  const Fd fd = connect();
  say(fd, {0, 3, 1, 2, 3});
  EXPECT_EQ(hear(fd), Bytes{});
}

TEST_F(DnsTcpTest, ConnectionsAreBounded) {
  std::vector<Fd> all;
  for (size_t i = 0; i < DnsTcp::most_connections; ++i) {
    all.push_back(connect());
    ASSERT_TRUE(run_until([&] { return tcp->connections() == i + 1; }));
  }
  const Fd one_more = connect();
  EXPECT_EQ(hear(one_more), Bytes{});
  EXPECT_EQ(tcp->connections(), DnsTcp::most_connections);
}

TEST(SystemResolver, KnowsTheHostsOwnNames) {
  SystemResolver resolver;
  const auto localhost = resolver.addresses("localhost");
  ASSERT_EQ(localhost.outcome, Outcome::Found);
  const bool loopback = std::ranges::any_of(localhost.ipv4, [](const auto& a) { return a.bytes[0] == 127; }) ||
                        std::ranges::any_of(localhost.ipv6, [](const auto& a) { return a.bytes[15] == 1; });
  EXPECT_TRUE(loopback);
  // The host's own name resolves here exactly when it does for the host's programs.
  std::array<char, 256> name{};
  ASSERT_EQ(::gethostname(name.data(), name.size() - 1), 0);
  addrinfo* list = nullptr;
  const bool known = ::getaddrinfo(name.data(), nullptr, nullptr, &list) == 0;
  if (known) ::freeaddrinfo(list);
  if (std::string_view{name.data()}.find('.') == std::string_view::npos) {
    EXPECT_EQ(resolver.addresses(name.data()).outcome == Outcome::Found, known);
  }
  const std::array<uint8_t, 4> address{127, 0, 0, 1};
  EXPECT_EQ(resolver.name_of(address).outcome, Outcome::Found);
}

TEST(SystemResolver, NumbersAreNoNames) {
  SystemResolver resolver;
  for (const auto* number : {"127.0.0.1", "1", "0x7f.1"})
    EXPECT_EQ(resolver.addresses(number).outcome, Outcome::NoName);
}

}  // namespace
}  // namespace caisson
