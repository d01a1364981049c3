#include "cli/apt_host.h"

#include <gtest/gtest.h>

namespace caisson::cli {
namespace {

TEST(AptHost, OneLineSources) {
  const auto sources = parse_one_line_sources(
      "# comment\n"
      "deb http://a/debian bookworm main contrib # tail\n"
      "deb-src http://a/debian bookworm main\n"
      "deb [arch=arm64] http://b/debian bookworm main\n"
      "deb [ arch=amd64,arm64 signed-by=/k.gpg trusted=yes ] http://c/debian bookworm-updates main\n"
      "deb [broken http://d x main\n"
      "deb http://e\n");
  ASSERT_EQ(sources.size(), 2u);
  EXPECT_EQ(sources[0], (AptSource{"http://a/debian", "bookworm", {"main", "contrib"}, {}}));
  EXPECT_EQ(
      sources[1],
      (AptSource{"http://c/debian", "bookworm-updates", {"main"}, {{"signed-by", "/k.gpg"}, {"trusted", "yes"}}}));
}

TEST(AptHost, Deb822Sources) {
  const auto sources = parse_deb822_sources(
      "Types: deb deb-src\n# comment\nURIs: http://a/debian\n http://b/debian\nSuites: bookworm bookworm-updates\n"
      "Components: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n\n"
      "Types: deb\nEnabled: no\nURIs: http://c\nSuites: bookworm\nComponents: main\n\n"
      "Types: deb-src\nURIs: http://d\nSuites: bookworm\nComponents: main\n\n"
      "types: deb\nuris: http://e\nsuites: sid\ncomponents: main\nSigned-By:\n -----BEGIN PGP-----\n .\n xyz\n");
  ASSERT_EQ(sources.size(), 5u);
  EXPECT_EQ(sources[0].uri, "http://a/debian");
  EXPECT_EQ(sources[1].suite, "bookworm-updates");
  EXPECT_EQ(sources[2].uri, "http://b/debian");
  EXPECT_EQ(sources[0].options.size(), 1u);
  EXPECT_EQ(sources[4].uri, "http://e");
  EXPECT_TRUE(sources[4].options.empty()) << "a key inside the file has no one-line form";
}

TEST(AptHost, ChoosesDebianAndTranslatesTheRelease) {
  const std::vector<AptSource> host{
      {"http://m/debian", "bookworm", {"main"}, {{"signed-by", "/usr/share/keyrings/debian-archive-keyring.gpg"}}},
      {"http://m/debian", "bookworm-updates", {"main"}, {}},
      {"http://s/debian-security", "bookworm-security", {"main"}, {}},
      {"https://deb.nodesource.com/node_20.x", "nodistro", {"main"}, {}},
      {"https://packages.example/apt", "cloud-sdk-bookworm", {"main"}, {}},
      {"file:/srv/mirror", "bookworm", {"main"}, {}},
      {"http://m/debian", "bookworm", {"main"}, {}},
  };
  EXPECT_EQ(to_lines(sources_for(host, "trixie")),
            "deb http://m/debian trixie main\n"
            "deb http://m/debian trixie-updates main\n"
            "deb http://s/debian-security trixie-security main\n");
  EXPECT_EQ(to_lines(sources_for(host, "sid")), "deb http://m/debian sid main\n");
  EXPECT_TRUE(sources_for({host[2], host[3]}, "bookworm").empty()) << "security updates alone make no system";
  EXPECT_TRUE(sources_for({{"http://archive.ubuntu.com/ubuntu", "jammy", {"main"}, {}}}, "bookworm").empty());
}

TEST(AptHost, WritesOptions) {
  const AptSource source{"http://m", "sid", {"main", "contrib"}, {{"trusted", "yes"}, {"check-date", "no"}}};
  EXPECT_EQ(to_lines({source}), "deb [trusted=yes check-date=no] http://m sid main contrib\n");
  EXPECT_EQ(parse_one_line_sources(to_lines({source})).at(0), source);
}

TEST(AptHost, SelectsWhatMattersForReachingAMirror) {
  const auto options = select_options(
      "APT \"\";\n"
      "Acquire::http::Proxy \"http://127.0.0.1:3142\";\n"
      "Acquire::HTTPS::Proxy::deb.debian.org \"DIRECT\";\n"
      "Acquire::Check-Valid-Until \"false\";\n"
      "Acquire::http::Proxy-Auto-Detect \"/usr/bin/x\";\n"
      "Acquire::https::Verify-Peer \"false\";\n"
      "Acquire::Languages \"none\";\n"
      "DPkg::Post-Invoke:: \"rm -f x\";\n");
  ASSERT_EQ(options.size(), 4u);
  EXPECT_EQ(options[0].second, "http://127.0.0.1:3142");
  EXPECT_EQ(to_conf({options[1]}), "Acquire::HTTPS::Proxy::deb.debian.org \"DIRECT\";\n");
}

TEST(AptHost, LoopbackBecomesTheGateway) {
  EXPECT_EQ(for_guest("http://127.0.0.1:3142/debian"), "http://10.0.2.2:3142/debian");
  EXPECT_EQ(for_guest("http://localhost/debian"), "http://10.0.2.2/debian");
  EXPECT_EQ(for_guest("http://user:p@ss@LocalHost:1"), "http://user:p@ss@10.0.2.2:1");
  EXPECT_EQ(for_guest("https://[::1]:8080/"), "https://10.0.2.2:8080/");
  for (const char* same : {"http://deb.debian.org/debian", "http://127.0.0.1.example.org/", "http://localhost.example/",
                           "DIRECT", "false", "", "http://a/localhost"}) {
    EXPECT_EQ(for_guest(same), same);
  }
}

}  // namespace
}  // namespace caisson::cli
