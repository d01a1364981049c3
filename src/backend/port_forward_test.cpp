#include "backend/port_forward.h"

#include <cerrno>

#include <gtest/gtest.h>

namespace caisson {
namespace {

TEST(PortForward, AllForms) {
  EXPECT_EQ(parse_port_forward("2222:22").value(), (PortForward{.host_port = 2222, .guest_port = 22}));
  EXPECT_EQ(parse_port_forward("2222:22/tcp").value(), (PortForward{.host_port = 2222, .guest_port = 22}));
  EXPECT_EQ(parse_port_forward("0.0.0.0:5353:53/udp").value(),
            (PortForward{.address = {0, 0, 0, 0}, .host_port = 5353, .guest_port = 53, .udp = true}));
  EXPECT_EQ(parse_port_forward("192.168.1.2:1:65535").value(),
            (PortForward{.address = {192, 168, 1, 2}, .host_port = 1, .guest_port = 65535}));
}

TEST(PortForward, ToStringIsReadBack) {
  for (const auto* text : {"127.0.0.1:2222:22/tcp", "0.0.0.0:5353:53/udp"}) {
    EXPECT_EQ(to_string(parse_port_forward(text).value()), text);
  }
}

TEST(PortForward, BadFormsNameTheProblemAndTheRemedy) {
  const auto error = [](std::string_view text) {
    const auto forward = parse_port_forward(text);
    return forward ? "accepted" : forward.error().message;
  };
  const std::string form = "; write [ADDRESS:]HOST:GUEST[/udp], for instance 2222:22";
  EXPECT_EQ(error("2222"), "port forward '2222': has no guest port" + form);
  EXPECT_EQ(error(""), "port forward '': has no guest port" + form);
  EXPECT_EQ(error(":22"), "port forward ':22': '' is not a host port" + form);
  EXPECT_EQ(error("22:"), "port forward '22:': '' is not a guest port" + form);
  EXPECT_EQ(error("a:22"), "port forward 'a:22': 'a' is not a host port" + form);
  EXPECT_EQ(error("22:22x"), "port forward '22:22x': '22x' is not a guest port" + form);
  EXPECT_EQ(error("-1:22"), "port forward '-1:22': '-1' is not a host port" + form);
  EXPECT_EQ(error("0:22"), "port forward '0:22': host port 0 is out of range; ports go from 1 to 65535");
  EXPECT_EQ(error("22:65536"), "port forward '22:65536': guest port 65536 is out of range; ports go from 1 to 65535");
  EXPECT_EQ(error("99999999999999999999:22"),
            "port forward '99999999999999999999:22': host port 99999999999999999999 is out of range; ports go from 1 "
            "to 65535");
  EXPECT_EQ(error("22:22/sctp"), "port forward '22:22/sctp': unknown protocol 'sctp'; use /tcp or /udp");
  EXPECT_EQ(error("host:22:22"), "port forward 'host:22:22': 'host' is not an IPv4 address such as 127.0.0.1" + form);
  EXPECT_EQ(error("[::1]:22:22"), "port forward '[::1]:22:22': forwards listen on IPv4 addresses only" + form);
}

TEST(PortForward, ReasonsNotToListen) {
  const PortForward forward{.host_port = 2222, .guest_port = 22};
  EXPECT_EQ(
      cannot_listen(forward, EADDRINUSE).message,
      "port forward 127.0.0.1:2222:22/tcp: TCP port 2222 on 127.0.0.1 is already in use on this host; choose another "
      "host port, for instance -p 12222:22");
  EXPECT_NE(cannot_listen(forward, EACCES).message.find("from 1024"), std::string::npos);
  EXPECT_NE(cannot_listen(forward, EADDRNOTAVAIL).message.find("not an address of this host"), std::string::npos);
}

}  // namespace
}  // namespace caisson
