#include "backend/dns_message.h"

#include <random>

#include <arpa/nameser.h>
#include <gtest/gtest.h>
#include <resolv.h>

namespace caisson::dns {
namespace {

using Bytes = std::vector<uint8_t>;

Bytes query_bytes(std::string_view name, uint16_t type, uint16_t flags = 0x0100, const Bytes& more = {},
                  uint8_t additional = 0) {
  Bytes bytes{0x12, 0x34, uint8_t(flags >> 8), uint8_t(flags), 0, 1, 0, 0, 0, 0, 0, additional};
  const Name wire = from_text(name).value();
  bytes.insert(bytes.end(), wire.begin(), wire.end());
  for (const int byte : {type >> 8, type & 0xff, 0, 1}) bytes.push_back(static_cast<uint8_t>(byte));
  bytes.insert(bytes.end(), more.begin(), more.end());
  return bytes;
}

const Bytes opt{0, 0, 41, 0x04, 0xd0, 0, 0, 0x80, 0, 0, 0};  // payload 1232, DO

Query parsed(const Bytes& bytes) { return parse_query(bytes).value().query; }
std::optional<Rcode> refusal(const Bytes& bytes) { return parse_query(bytes).value().refusal; }

TEST(DnsMessage, ReadsAQuery) {
  const auto result = parse_query(query_bytes("WWW.Example.com", 28)).value();
  EXPECT_FALSE(result.refusal);
  EXPECT_EQ(result.query.id, 0x1234);
  EXPECT_TRUE(result.query.recursion_desired);
  EXPECT_EQ(to_text(result.query.name), "www.example.com");
  EXPECT_EQ(result.query.type, 28);
  EXPECT_EQ(result.query.qclass, class_in);
  EXPECT_FALSE(result.query.edns);
  EXPECT_EQ(result.query.payload_size, 512);
}

TEST(DnsMessage, ReadsEdns) {
  const auto result = parse_query(query_bytes("a.b", 1, 0x0110, opt, 1)).value();
  EXPECT_FALSE(result.refusal);
  EXPECT_TRUE(result.query.edns);
  EXPECT_TRUE(result.query.dnssec_ok);
  EXPECT_TRUE(result.query.checking_disabled);
  EXPECT_EQ(result.query.payload_size, 1232);
  Bytes small = opt;
  small[3] = 0, small[4] = 100;
  EXPECT_EQ(parsed(query_bytes("a.b", 1, 0x0100, small, 1)).payload_size, 512);
}

TEST(DnsMessage, EdnsVersionsAboveZeroAreAnsweredWithBadVersion) {
  Bytes version = opt;
  version[6] = 1;
  const auto result = parse_query(query_bytes("a.b", 1, 0x0100, version, 1)).value();
  EXPECT_TRUE(result.bad_version);
  EXPECT_TRUE(result.refusal);
  AnswerBuilder builder{result.query, *result.refusal, 512};
  builder.set_bad_version();
  const auto answer = builder.finish();
  EXPECT_EQ(answer[answer.size() - 6], 1);
}

TEST(DnsMessage, WhatIsNoQueryIsDropped) {
  EXPECT_FALSE(parse_query({}));
  EXPECT_FALSE(parse_query(Bytes(11)));
  EXPECT_FALSE(parse_query(query_bytes("a.b", 1, 0x8100)));
  EXPECT_FALSE(parse_query(Bytes(65536)));
}

TEST(DnsMessage, BadQueriesAreRefused) {
  EXPECT_EQ(refusal(Bytes(12)), Rcode::FormErr) << "no question";
  EXPECT_EQ(refusal(query_bytes("a.b", 1, 0x2100)), Rcode::NotImp) << "NOTIFY";
  EXPECT_EQ(refusal(query_bytes("a.b", 252)), Rcode::Refused);
  EXPECT_EQ(refusal(query_bytes("a.b", 41)), Rcode::FormErr);
  EXPECT_EQ(refusal(query_bytes("a.b", 1, 0x0100, {0})), Rcode::FormErr) << "bytes after the end";
  Bytes twice = opt;
  twice.insert(twice.end(), opt.begin(), opt.end());
  EXPECT_EQ(refusal(query_bytes("a.b", 1, 0x0100, twice, 2)), Rcode::FormErr) << "two OPT records";
  Bytes many = query_bytes("a.b", 1);
  many[6] = 0xff;
  EXPECT_EQ(refusal(many), Rcode::FormErr) << "65280 answers";
  Bytes two = query_bytes("a.b", 1);
  two[5] = 2;
  EXPECT_EQ(refusal(two), Rcode::FormErr);
  Bytes compressed{0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 1, 0, 1};
  EXPECT_EQ(refusal(compressed), Rcode::FormErr) << "a name that points at itself";
  Bytes long_label{0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 64};
  long_label.resize(long_label.size() + 64 + 5);
  EXPECT_EQ(refusal(long_label), Rcode::FormErr);
  Bytes long_name{0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0};
  for (int i = 0; i < 128; ++i) long_name.insert(long_name.end(), {1, 'a'});
  long_name.insert(long_name.end(), {0, 0, 1, 0, 1});
  EXPECT_EQ(refusal(long_name), Rcode::FormErr) << "257 bytes";
}

TEST(DnsMessage, EveryCutOfAQueryIsHandled) {
  const Bytes whole = query_bytes("www.example.com", 1, 0x0100, opt, 1);
  for (size_t size = 0; size < whole.size(); ++size) {
    const auto result = parse_query(std::span{whole}.first(size));
    if (size < 12) {
      EXPECT_FALSE(result);
    } else {
      EXPECT_EQ(result.value().refusal, Rcode::FormErr) << size;
    }
  }
}

TEST(DnsMessage, RandomChangesAreHandled) {
  std::minstd_rand random{3};
  const Bytes whole = query_bytes("www.example.com", 1, 0x0100, opt, 1);
  for (int i = 0; i < 20'000; ++i) {
    Bytes bytes = whole;
    for (int changes = 0; changes < 3; ++changes) bytes[random() % bytes.size()] = static_cast<uint8_t>(random());
    const auto result = parse_query(bytes);
    if (!result) continue;
    AnswerBuilder builder{result->query, Rcode::NoError, 512};
    builder.add_address(Ipv4{}, 1);
    EXPECT_LE(builder.finish().size(), 512u);
  }
}

TEST(DnsMessage, NamesAndText) {
  EXPECT_EQ(to_text(from_text("a-b_c.D.e.").value()), "a-b_c.d.e");
  EXPECT_EQ(from_text("ab.c").value(), (Name{2, 'a', 'b', 1, 'c', 0}));
  EXPECT_FALSE(from_text(""));
  EXPECT_FALSE(from_text("."));
  EXPECT_FALSE(from_text("a..b"));
  EXPECT_FALSE(from_text("a.."));
  EXPECT_FALSE(from_text(".a"));
  EXPECT_TRUE(from_text(std::string(63, 'x')));
  EXPECT_FALSE(from_text(std::string(64, 'x')));
  std::string longest;
  for (int i = 0; i < 126; ++i) longest += "a.";
  EXPECT_TRUE(from_text(longest + "b"));
  EXPECT_FALSE(from_text(longest + "bc"));
  EXPECT_FALSE(to_text({0}));
  EXPECT_FALSE(to_text({1, '.', 0}));
  EXPECT_FALSE(to_text({2, 'a', 0, 0}));
  EXPECT_FALSE(to_text({1, ' ', 0}));
}

TEST(DnsMessage, ReverseNames) {
  const auto reverse = [](std::string_view text) { return reverse_address(from_text(text).value()); };
  EXPECT_EQ(reverse("4.3.2.1.in-addr.arpa"), (Bytes{1, 2, 3, 4}));
  EXPECT_EQ(reverse("4.3.2.1.IN-ADDR.ARPA"), (Bytes{1, 2, 3, 4}));
  EXPECT_EQ(reverse("1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"),
            (Bytes{0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}));
  for (const auto* bad :
       {"3.2.1.in-addr.arpa", "256.3.2.1.in-addr.arpa", "04.3.2.1.in-addr.arpa", "x.3.2.1.in-addr.arpa",
        "0.4.3.2.1.in-addr.arpa", "1.ip6.arpa", "4.3.2.1.in-addr.arp", "arpa", "in-addr.arpa",
        "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.20.ip6.arpa"}) {
    EXPECT_TRUE(reverse(bad).empty()) << bad;
  }
}

// libresolv's own parser is the judge of what we build.
struct Judged {
  explicit Judged(const Bytes& answer) : bytes(answer) {
    EXPECT_EQ(::ns_initparse(bytes.data(), static_cast<int>(bytes.size()), &message), 0);
  }
  int count(ns_sect section) { return ns_msg_count(message, section); }
  std::string owner(int index) {
    ns_rr record;
    EXPECT_EQ(::ns_parserr(&message, ns_s_an, index, &record), 0);
    return ns_rr_name(record);
  }
  int flag(ns_flag which) { return ns_msg_getflag(message, which); }
  Bytes bytes;
  ns_msg message{};
};

TEST(DnsMessage, BuildsAddressAnswers) {
  const Query query = parsed(query_bytes("www.Example.com", 1));
  AnswerBuilder builder{query, Rcode::NoError, 512};
  builder.add_cname(from_text("real.example.org").value(), 7);
  builder.add_address(Ipv4{{1, 2, 3, 4}}, 7);
  builder.add_address(Ipv4{{5, 6, 7, 8}}, 7);
  Judged judged{builder.finish()};
  EXPECT_EQ(ns_msg_id(judged.message), 0x1234);
  EXPECT_EQ(judged.flag(ns_f_qr), 1);
  EXPECT_EQ(judged.flag(ns_f_rd), 1);
  EXPECT_EQ(judged.flag(ns_f_ra), 1);
  EXPECT_EQ(judged.flag(ns_f_tc), 0);
  EXPECT_EQ(judged.flag(ns_f_rcode), 0);
  EXPECT_EQ(judged.count(ns_s_qd), 1);
  EXPECT_EQ(judged.count(ns_s_an), 3);
  EXPECT_EQ(judged.count(ns_s_ar), 0);
  EXPECT_EQ(judged.owner(0), "www.Example.com");
  EXPECT_EQ(judged.owner(1), "real.example.org");
  EXPECT_EQ(judged.owner(2), "real.example.org");
  ns_rr record;
  ASSERT_EQ(::ns_parserr(&judged.message, ns_s_an, 2, &record), 0);
  EXPECT_EQ(Bytes(ns_rr_rdata(record), ns_rr_rdata(record) + ns_rr_rdlen(record)), (Bytes{5, 6, 7, 8}));
  EXPECT_EQ(ns_rr_ttl(record), 7u);
}

TEST(DnsMessage, TruncatesAtTheLimit) {
  for (const bool edns : {false, true}) {
    const Query query = parsed(edns ? query_bytes("a.b", 28, 0x0100, opt, 1) : query_bytes("a.b", 28));
    AnswerBuilder builder{query, Rcode::NoError, 512};
    for (int i = 0; i < 100; ++i) builder.add_address(Ipv6{}, 1);
    builder.add_ptr(from_text("a").value(), 1);  // would fit, but comes after one that did not
    const Bytes answer = builder.finish();
    EXPECT_LE(answer.size(), 512u);
    Judged judged{answer};
    EXPECT_EQ(judged.flag(ns_f_tc), 1);
    EXPECT_EQ(judged.count(ns_s_an), (512 - 21 - (edns ? 11 : 0)) / 28);
    EXPECT_EQ(judged.count(ns_s_ar), edns ? 1 : 0);
  }
}

TEST(DnsMessage, AnswerWithoutAQuestion) {
  const auto result = parse_query(Bytes(12)).value();
  const Bytes answer = AnswerBuilder{result.query, *result.refusal, 512}.finish();
  EXPECT_EQ(answer.size(), 12u);
  EXPECT_EQ(Judged{answer}.flag(ns_f_rcode), 1);
}

TEST(DnsMessage, RelaysWithTheAskersId) {
  const Query query = parsed(query_bytes("a.b", 15));
  Bytes upstream = build_query(query, 0xbeef);
  EXPECT_EQ(upstream[0], 0xbe);
  EXPECT_FALSE(relay(query, upstream, 512)) << "a query is no answer";
  upstream[2] |= 0x80;
  const auto answer = relay(query, upstream, 512).value();
  EXPECT_EQ(answer[0], 0x12);
  EXPECT_EQ(answer[1], 0x34);
  EXPECT_TRUE(std::equal(answer.begin() + 2, answer.end(), upstream.begin() + 2));
  EXPECT_FALSE(relay(query, std::span{upstream}.first(11), 512));
}

TEST(DnsMessage, RelayTruncatesWhatIsTooLong) {
  const Query query = parsed(query_bytes("a.b", 16));
  Bytes upstream = build_query(query, 1);
  upstream[2] |= 0x80;
  upstream[3] |= 3;
  upstream.resize(600);
  Judged judged{relay(query, upstream, 512).value()};
  EXPECT_EQ(judged.flag(ns_f_tc), 1);
  EXPECT_EQ(judged.flag(ns_f_rcode), 3);
  EXPECT_EQ(judged.count(ns_s_qd), 1);
  EXPECT_EQ(relay(query, upstream, 600).value().size(), 600u);
}

}  // namespace
}  // namespace caisson::dns
