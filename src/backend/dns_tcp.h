// DNS over TCP on a port of the loopback interface, for a guest whose connections the user network leads there.
//   Spec     RFC 1035 section 4.2.2, RFC 7766
//   Bounds   32 connections; 16 queries of one at a time; 10 seconds without traffic end a connection
//   Threads  the event loop, under the device lock
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <vector>

#include "backend/dns_server.h"
#include "base/event_loop.h"
#include "base/fd.h"

namespace caisson {

class DnsTcp {
 public:
  static constexpr size_t most_connections = 32;

  // Null where the host has no such loopback address.
  [[nodiscard]] static std::unique_ptr<DnsTcp> listen(EventLoop& loop, DnsServer& server, bool ipv6);
  ~DnsTcp();
  DnsTcp(const DnsTcp&) = delete;
  DnsTcp& operator=(const DnsTcp&) = delete;

  [[nodiscard]] uint16_t port() const { return port_; }
  [[nodiscard]] size_t connections() const { return connections_.size(); }

 private:
  struct Connection;

  DnsTcp(EventLoop& loop, DnsServer& server, Fd listener, uint16_t port);
  void accept();
  void ready(const std::shared_ptr<Connection>& connection, uint32_t events);
  void read(const std::shared_ptr<Connection>& connection);
  void answer_queries(const std::shared_ptr<Connection>& connection);
  void write(const std::shared_ptr<Connection>& connection);
  void watch(const std::shared_ptr<Connection>& connection);
  void close(const std::shared_ptr<Connection>& connection);

  EventLoop& loop_;
  DnsServer& server_;
  Fd listener_;
  uint16_t port_;
  std::list<std::shared_ptr<Connection>> connections_;
};

}  // namespace caisson
