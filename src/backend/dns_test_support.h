// For the tests of DNS: a resolver that knows a few names, queries, and a reader of answers (libresolv's).
#pragma once

#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <gtest/gtest.h>

#include "backend/host_resolver.h"

namespace caisson::test {

class FakeResolver final : public HostResolver {
 public:
  Addresses addresses(const std::string& name) override {
    ++calls;
    {
      std::unique_lock lock{mutex};
      changed.wait(lock, [this] { return !held; });
    }
    const auto found = hosts.find(name);
    return found != hosts.end() ? found->second
                                : Addresses{.outcome = Outcome::NoName, .canonical = {}, .ipv4 = {}, .ipv6 = {}};
  }
  NameOf name_of(std::span<const uint8_t> address) override {
    ++calls;
    if (address.size() == 4 && address[0] == 10) return {.outcome = Outcome::Found, .name = "ten.example.com"};
    if (address.size() == 16) return {.outcome = Outcome::Found, .name = "six.example.com"};
    if (address[0] == 11) return {.outcome = Outcome::Failed, .name = {}};
    return {.outcome = Outcome::NoName, .name = {}};
  }
  // Answers with its question and as many bytes of filling as the text record asks for; knows nothing of SRV.
  std::optional<std::vector<uint8_t>> ask(std::span<const uint8_t> query) override {
    ++calls;
    std::vector<uint8_t> answer{query.begin(), query.end()};
    if (answer[answer.size() - 3] == 33) return std::nullopt;
    answer[2] |= 0x80;
    answer.insert(answer.end(), filling, 0);
    return answer;
  }

  void hold(bool yes) {
    {
      const std::lock_guard lock{mutex};
      held = yes;
    }
    changed.notify_all();
  }

  std::map<std::string, Addresses> hosts;
  std::atomic<int> calls{0};
  size_t filling = 0;

 private:
  std::mutex mutex;
  std::condition_variable changed;
  bool held = false;
};

inline std::vector<uint8_t> dns_query(std::string_view name, uint16_t type, uint16_t id = 0x4242,
                                      uint16_t payload = 0) {
  dns::Query query;
  query.name = dns::from_text(name).value();
  query.type = type;
  query.qclass = 1;
  auto bytes = dns::build_query(query, id);
  if (payload != 0) {
    bytes[11] = 1;
    for (const int byte : {0, 0, 41, payload >> 8, payload & 0xff, 0, 0, 0, 0, 0, 0})
      bytes.push_back(static_cast<uint8_t>(byte));
  }
  return bytes;
}

struct DnsAnswer {
  explicit DnsAnswer(std::vector<uint8_t> bytes) : message(std::move(bytes)) {
    ns_msg handle{};
    if (::ns_initparse(message.data(), static_cast<int>(message.size()), &handle) != 0) {
      ADD_FAILURE() << "not a DNS message";
      return;
    }
    id = ns_msg_id(handle);
    rcode = ns_msg_getflag(handle, ns_f_rcode);
    truncated = ns_msg_getflag(handle, ns_f_tc) != 0;
    for (int i = 0; i < ns_msg_count(handle, ns_s_an); ++i) {
      ns_rr record;
      if (::ns_parserr(&handle, ns_s_an, i, &record) != 0) {
        ADD_FAILURE() << "bad record " << i;
        return;
      }
      std::string text = std::string{ns_rr_name(record)} + " ";
      std::array<char, 300> buffer{};
      if (ns_rr_type(record) == 1) {
        text += ::inet_ntop(AF_INET, ns_rr_rdata(record), buffer.data(), buffer.size());
      } else if (ns_rr_type(record) == 28) {
        text += ::inet_ntop(AF_INET6, ns_rr_rdata(record), buffer.data(), buffer.size());
      } else {
        ::ns_name_uncompress(message.data(), message.data() + message.size(), ns_rr_rdata(record), buffer.data(),
                             buffer.size());
        text += buffer.data();
      }
      records.push_back(text);
    }
  }

  std::vector<uint8_t> message;
  uint16_t id = 0;
  int rcode = -1;
  bool truncated = false;
  std::vector<std::string> records;
};

}  // namespace caisson::test
