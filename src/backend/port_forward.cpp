#include "backend/port_forward.h"

#include <cerrno>
#include <charconv>
#include <cstring>
#include <optional>

#include <arpa/inet.h>

namespace caisson {
namespace {

constexpr std::string_view form = "write [ADDRESS:]HOST:GUEST[/udp], for instance 2222:22";

Result<uint16_t> parse_port(std::string_view text, std::string_view whole, std::string_view which) {
  unsigned value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || end != text.data() + text.size() || error == std::errc::invalid_argument) {
    return fail("port forward '{}': '{}' is not a {} port; {}", whole, text, which, form);
  }
  if (error != std::errc{} || value < 1 || value > 65535) {
    return fail("port forward '{}': {} port {} is out of range; ports go from 1 to 65535", whole, which, text);
  }
  return static_cast<uint16_t>(value);
}

std::string address_text(const PortForward& forward) {
  const auto& a = forward.address;
  return fmt::format("{}.{}.{}.{}", a[0], a[1], a[2], a[3]);
}

}  // namespace

Result<PortForward> parse_port_forward(std::string_view text) {
  PortForward forward;
  std::string_view rest = text;
  if (const size_t slash = rest.rfind('/'); slash != std::string_view::npos) {
    const std::string_view protocol = rest.substr(slash + 1);
    if (protocol != "tcp" && protocol != "udp") {
      return fail("port forward '{}': unknown protocol '{}'; use /tcp or /udp", text, protocol);
    }
    forward.udp = protocol == "udp";
    rest = rest.substr(0, slash);
  }
  const size_t last = rest.rfind(':');
  if (last == std::string_view::npos) return fail("port forward '{}': has no guest port; {}", text, form);
  const auto guest = parse_port(rest.substr(last + 1), text, "guest");
  if (!guest) return std::unexpected(guest.error());
  forward.guest_port = *guest;
  rest = rest.substr(0, last);

  if (const size_t colon = rest.rfind(':'); colon != std::string_view::npos) {
    const std::string address{rest.substr(0, colon)};
    if (address.find(':') != std::string::npos) {
      return fail("port forward '{}': forwards listen on IPv4 addresses only; {}", text, form);
    }
    if (::inet_pton(AF_INET, address.c_str(), forward.address.data()) != 1) {
      return fail("port forward '{}': '{}' is not an IPv4 address such as 127.0.0.1; {}", text, address, form);
    }
    rest = rest.substr(colon + 1);
  }
  const auto host = parse_port(rest, text, "host");
  if (!host) return std::unexpected(host.error());
  forward.host_port = *host;
  return forward;
}

std::string to_string(const PortForward& forward) {
  return fmt::format("{}:{}:{}/{}", address_text(forward), forward.host_port, forward.guest_port,
                     forward.udp ? "udp" : "tcp");
}

Error cannot_listen(const PortForward& forward, int error) {
  const std::string what = fmt::format("port forward {}: ", to_string(forward));
  const std::string protocol = forward.udp ? "UDP" : "TCP";
  switch (error) {
    case EADDRINUSE:
      return {fmt::format(
          "{}{} port {} on {} is already in use on this host; choose another host port, for instance -p {}:{}{}", what,
          protocol, forward.host_port, address_text(forward),
          forward.host_port < 55536 ? forward.host_port + 10000 : forward.host_port - 10000, forward.guest_port,
          forward.udp ? "/udp" : "")};
    case EACCES:
    case EPERM:
      return {fmt::format("{}no permission to use port {} on this host; choose a host port from 1024", what,
                          forward.host_port)};
    case EADDRNOTAVAIL:
      return {fmt::format("{}{} is not an address of this host; use one of its own, 127.0.0.1 or 0.0.0.0", what,
                          address_text(forward))};
    default: return {fmt::format("{}cannot listen: {}", what, std::strerror(error))};
  }
}

}  // namespace caisson
