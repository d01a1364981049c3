// Answers a guest's DNS queries through the host's resolver.
//   Models   A and AAAA by getaddrinfo, PTR by getnameinfo, so that nsswitch, /etc/hosts and split DNS apply; every
//   other
//            type by the host's name server. NXDOMAIN, NODATA and SERVFAIL are told apart as the host tells them apart.
//            A and AAAA of one name share one lookup; answers are kept for a few seconds.
//   Bounds   up to four threads and 256 lookups at once; beyond that queries are answered with SERVFAIL
//   Threads  resolve() under the device lock; replies come on the event loop under the same lock. The lookups run on
//            threads of their own, which a destroyed server leaves behind to end in their own time: the host's resolver
//            cannot be interrupted, and powering off must not wait for it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "backend/host_resolver.h"
#include "base/event_loop.h"

namespace caisson {

class DnsServer {
 public:
  static constexpr uint32_t ttl_seconds = 5;
  static constexpr size_t most_lookups = 256;

  DnsServer(EventLoop& loop, std::shared_ptr<HostResolver> resolver);
  ~DnsServer();  // under the device lock, before the loop
  DnsServer(const DnsServer&) = delete;
  DnsServer& operator=(const DnsServer&) = delete;

  // An empty message means: do not reply.
  using Reply = std::function<void(std::vector<uint8_t> message)>;
  // The reply has at most `limit` bytes, and over UDP no more than the asker takes. Never calls `reply` itself.
  enum class Transport : uint8_t { Udp, Tcp };
  void resolve(std::span<const uint8_t> query, Transport transport, size_t limit, Reply reply);

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace caisson
