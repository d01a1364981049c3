#include "life/seed.h"

#include <cstdlib>
#include <cstring>
#include <fstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "life/iso9660.h"
#include "life/setup_script.h"

namespace caisson::life {
namespace {

uint32_t little(const std::string& disc, size_t at) {
  uint32_t value = 0;
  std::memcpy(&value, &disc[at], sizeof value);
  return value;
}

// By the real names, from the root folder's records.
std::string file_on(const std::string& disc, const std::string& name) {
  constexpr size_t sector = 2048;
  const size_t root = little(disc, 16 * sector + 156 + 2) * sector;
  for (size_t at = root; disc[at] != 0; at += static_cast<uint8_t>(disc[at])) {
    const std::string record = disc.substr(at, static_cast<uint8_t>(disc[at]));
    const std::string entry = std::string{"NM"} + static_cast<char>(5 + name.size()) + '\1' + '\0' + name;
    if (record.find(entry) != std::string::npos) return disc.substr(little(record, 2) * sector, little(record, 10));
  }
  return "none";
}

constexpr uint64_t time_ms = 1'700'000'000'000;

TEST(Iso9660, HasItsFiles) {
  const std::string large(5000, 'x');
  const auto disc = make_iso("CIDATA", {{"user-data", "one"}, {"empty", ""}, {"large", large}}, time_ms);
  ASSERT_TRUE(disc);
  EXPECT_EQ(disc->size() % 2048, 0u);
  EXPECT_EQ(disc->size() / 2048, little(*disc, 16 * 2048 + 80));
  EXPECT_EQ(disc->substr(16 * 2048 + 1, 5), "CD001");
  EXPECT_EQ(disc->substr(16 * 2048 + 40, 8), "CIDATA  ");
  EXPECT_EQ(disc->substr(17 * 2048, 6),
            "\xff"
            "CD001");
  EXPECT_EQ(file_on(*disc, "user-data"), "one");
  EXPECT_EQ(file_on(*disc, "empty"), "");
  EXPECT_EQ(file_on(*disc, "large"), large);
}

TEST(Iso9660, Bounds) {
  EXPECT_FALSE(make_iso("cidata", {}, time_ms));
  EXPECT_FALSE(make_iso("", {}, time_ms));
  EXPECT_FALSE(make_iso("X", {{"a/b", ""}}, time_ms));
  EXPECT_FALSE(make_iso("X", {{"", ""}}, time_ms));
  EXPECT_FALSE(make_iso("X", {{std::string(65, 'n'), ""}}, time_ms));
  EXPECT_FALSE(make_iso("X", std::vector<IsoFile>(9, {"a", ""}), time_ms));
  EXPECT_TRUE(make_iso("X", std::vector<IsoFile>(8, {std::string(64, 'n'), ""}), time_ms));
  EXPECT_FALSE(make_iso("X", {{"a", std::string(max_iso_bytes + 1, ' ')}}, time_ms));
}

TEST(Seed, SaysWhatWasAsked) {
  const Seed seed{.user = "ann",
                  .keys = {"ssh-ed25519 AAAA ann@\"home\""},
                  .packages = {"nginx", "curl"},
                  .files = {{"/etc/motd", "hello\n"}, {"/srv/b", std::string("\0\xff", 2)}}};
  const auto disc = make_seed(seed, "web_1", "ssh-ed25519 BBBB caisson", time_ms);
  ASSERT_TRUE(disc) << disc.error().message;
  const auto meta = nlohmann::json::parse(file_on(*disc, "meta-data"));
  EXPECT_EQ(meta["local-hostname"], "web-1");
  EXPECT_EQ(meta["instance-id"], "caisson-web_1-1700000000000");
  const std::string user_data = file_on(*disc, "user-data");
  ASSERT_TRUE(user_data.starts_with("#cloud-config\n"));
  const auto config = nlohmann::json::parse(user_data.substr(user_data.find('\n')));
  EXPECT_EQ(config["users"][0], "default");
  EXPECT_EQ(config["users"][1]["name"], "ann");
  EXPECT_EQ(config["users"][1]["ssh_authorized_keys"][0], seed.keys[0]);
  EXPECT_EQ(config["users"][2]["name"], "root");
  EXPECT_EQ(config["packages"][1], "curl");
  EXPECT_EQ(config["write_files"][0]["content"], "aGVsbG8K");
  EXPECT_EQ(config["write_files"][1]["content"], "AP8=");
  EXPECT_FALSE(config.contains("ssh_authorized_keys"));
}

TEST(Seed, IsAScriptForSystemsWithoutCloudInit) {
  const Seed seed{.user = "ann",
                  .keys = {"ssh-ed25519 AAAA it's ann"},
                  .hostname = "a.example.org",
                  .packages = {"nginx"},
                  .files = {{"/srv/it's", "hello\n"}}};
  const auto disc = make_seed(seed, "web", "", time_ms);
  ASSERT_TRUE(disc);
  const std::string script = file_on(*disc, "caisson-setup");
  for (const char* text : {"\n  name 'a.example.org'\n  user 'ann'\n  key 'ann' 'ssh-ed25519 AAAA it'\\''s ann'\n",
                           "\n  file '/srv/it'\\''s' <<'END'\naGVsbG8K\nEND\n", " install -- 'nginx'\n"}) {
    EXPECT_NE(script.find(text), std::string::npos) << text << script;
  }
  EXPECT_EQ(script.find("user-script"), std::string::npos);
  // A script of the user's own is run.
  EXPECT_NE(setup_script({.user_data = "#!/bin/sh\n"}).find("user-script"), std::string::npos);
  EXPECT_EQ(setup_script({.user_data = "#cloud-config\n"}).find("user-script"), std::string::npos);
  for (const Seed& one : {Seed{}, seed, Seed{.user_data = "#!/bin/sh\n"}}) {
    const std::string path = testing::TempDir() + "setup-script";
    std::ofstream{path} << setup_script(one);
    EXPECT_EQ(std::system(("sh -n " + path).c_str()), 0);
    EXPECT_EQ(std::system(("sh " + path + " neither").c_str()), 0);
  }
}

TEST(Seed, OfTheUsersOwnIsAsItIs) {
  const auto disc = make_seed({.user_data = "#!/bin/sh\necho\n", .hostname = "a.example.org"}, "x", "key", time_ms);
  ASSERT_TRUE(disc);
  EXPECT_EQ(file_on(*disc, "user-data"), "#!/bin/sh\necho\n");
  EXPECT_EQ(nlohmann::json::parse(file_on(*disc, "meta-data"))["local-hostname"], "a.example.org");
}

TEST(Seed, SaysWhatIsWrong) {
  EXPECT_FALSE(check({.user_data = "hostname: x"}));
  EXPECT_FALSE(check({.user_data = "#cloud-config", .user = "ann"}));
  EXPECT_FALSE(check({.user_data = "#!" + std::string(Seed::max_user_data, ' ')}));
  for (const char* user : {"Ann", "1a", "-a", "a b", "root", "a\nb"}) EXPECT_FALSE(check({.user = user})) << user;
  for (const char* host : {"-a", "a..b", "a_b", "a.", "a b"}) EXPECT_FALSE(check({.hostname = host})) << host;
  for (const char* key : {"AAAA", "-----BEGIN OPENSSH PRIVATE KEY-----", "ssh-ed25519", "ssh-rsa A\nB"}) {
    EXPECT_FALSE(check({.keys = {key}})) << key;
  }
  for (const char* package : {"", "-y", "a b", "a;b"}) EXPECT_FALSE(check({.packages = {package}})) << package;
  for (const char* path : {"", "/", "etc/motd", "/a\nb"}) EXPECT_FALSE(check({.files = {{path, ""}}})) << path;
  EXPECT_FALSE(check({.files = {{"/a", std::string(3 << 20, 'x')}}}));
  EXPECT_TRUE(check({}));
}

}  // namespace
}  // namespace caisson::life
