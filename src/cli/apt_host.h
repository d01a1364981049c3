// How this host's apt reaches its mirrors, so that an image is built from the same place and the guest can use it too.
//   Source   sources.list(5) in both its forms, apt.conf(5), apt_auth.conf(5)
//   Guest    inside the guest the host's loopback addresses are reached at the gateway of the user-mode
//   network, 10.0.2.2 Threads  pure functions, but for host_*()
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace caisson::cli {

struct AptSource {
  std::string uri;
  std::string suite;
  std::vector<std::string> components;
  std::vector<std::pair<std::string, std::string>> options;  // one-line form's names: "signed-by", "trusted", …
  bool operator==(const AptSource&) const = default;
};

// Binary (deb) sources that are enabled and not for other architectures only. What cannot be read is left out.
[[nodiscard]] std::vector<AptSource> parse_one_line_sources(std::string_view text);
[[nodiscard]] std::vector<AptSource> parse_deb822_sources(std::string_view text);
[[nodiscard]] std::vector<AptSource> host_sources(const std::string& folder = "/etc/apt");

// Those of `sources` that carry Debian itself, translated to `suite` ("bookworm"); empty where there is none. Sources
// that a guest cannot reach (file:, cdrom:, …) are left out.
[[nodiscard]] std::vector<AptSource> sources_for(const std::vector<AptSource>& sources, std::string_view suite);
[[nodiscard]] std::string to_lines(const std::vector<AptSource>& sources);

using AptOption = std::pair<std::string, std::string>;  // "Acquire::http::Proxy", "http://…"
// From the output of `apt-config dump`: what matters for reaching a mirror (proxies, checks of dates and certificates).
[[nodiscard]] std::vector<AptOption> select_options(std::string_view dump);
// The host's, with http_proxy and https_proxy from the environment where apt itself names none.
[[nodiscard]] std::vector<AptOption> host_options();
[[nodiscard]] std::string to_conf(const std::vector<AptOption>& options);

// "http://localhost:3142/debian" → "http://10.0.2.2:3142/debian"; other URLs and texts stay as they are.
[[nodiscard]] std::string for_guest(std::string_view url);

}  // namespace caisson::cli
