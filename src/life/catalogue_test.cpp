#include "life/catalogue.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>

#include <gtest/gtest.h>
#include <unistd.h>

namespace caisson::life {
namespace {

const std::string sum(64, 'a');
const std::string good =
    R"({"version": 1, "images": [{"name": "mine", "url": "https://host/x.qcow2", "sha256": ")" + sum + R"("}]})";

std::string with(const std::string& from, const std::string& to) {
  std::string text = good;
  text.replace(text.find(from), from.size(), to);
  return text;
}

TEST(Catalogue, Parses) {
  const auto all = parse_catalogue(good);
  ASSERT_TRUE(all) << all.error().message;
  ASSERT_EQ(all->images.size(), 1u);
  EXPECT_EQ(all->images[0].name, "mine");
  EXPECT_EQ(all->images[0].most_bytes, uint64_t{64} << 30);
}

TEST(Catalogue, SaysWhatIsWrong) {
  const auto message = [](const std::string& text) {
    const auto all = parse_catalogue(text);
    EXPECT_FALSE(all) << text;
    return all ? "" : all.error().message;
  };
  EXPECT_NE(message(with("https", "ftp")).find("https://"), std::string::npos);
  EXPECT_NE(message(with("https://host/x", "https://host/a b")).find("no address"), std::string::npos);
  EXPECT_NE(message(with(sum, sum.substr(1))).find("sha256sum"), std::string::npos);
  EXPECT_NE(message(with(sum, std::string(64, 'A'))).find("small letters"), std::string::npos);
  EXPECT_NE(message(with("\"url\"", "\"recipe\": \"debian\", \"url\"")).find("either url or recipe"),
            std::string::npos);
  EXPECT_NE(message(with("\"url\"", "\"arch\": \"vax\", \"url\"")).find("arch"), std::string::npos);
  EXPECT_NE(message(with("\"url\"", "\"format\": \"zip\", \"url\"")).find("format"), std::string::npos);
  EXPECT_NE(message(with("\"url\"", "\"boot\": \"coreboot\", \"url\"")).find("boot"), std::string::npos);
  EXPECT_NE(message(with("\"url\"", "\"signature\": \"https://x/y\", \"url\"")).find("key"), std::string::npos);
  EXPECT_NE(message(with("\"url\"", "\"mystery\": 1, \"url\"")).find("mystery"), std::string::npos);
  EXPECT_NE(message(with("\"mine\"", "\"debian-12\"")), "");
  EXPECT_NE(message(with("\"mine\"", "\"../mine\"")), "");
  EXPECT_NE(message(with("\"version\": 1", "\"version\": 2, \"new\": []")).find("newer version"), std::string::npos);
  EXPECT_NE(message("{\"version\": 1, \"images\": [{\"name\": \"x\", \"recipe\": \"debian\"}]}"), "");
  EXPECT_NE(message(with("}]", "}," + good.substr(good.find("[{") + 1))), "");
  for (const char* bad : {"", "[]", "{", "{\"version\": 1}", "null"}) EXPECT_FALSE(parse_catalogue(bad)) << bad;
}

TEST(Catalogue, TakesAnything) {
  std::minstd_rand random{1};
  for (int round = 0; round < 3000; ++round) {
    std::string text = good;
    for (int change = 0; change < 3; ++change) text[random() % text.size()] = static_cast<char>(random() >> 4);
    const auto all = parse_catalogue(text);
    if (!all) {
      EXPECT_EQ(all.error().message.find('\n'), std::string::npos) << all.error().message;
    }
  }
}

TEST(Catalogue, TheUsersComeInTheirPlaces) {
  std::string pattern = testing::TempDir() + "caisson-catalogue-XXXXXX";
  const std::string folder = ::mkdtemp(pattern.data());
  ::setenv("XDG_CONFIG_HOME", folder.c_str(), 1);
  EXPECT_EQ(catalogue()->size(), 3u);
  EXPECT_EQ(catalogue_entry(*parse_image_name("debian:sid"))->recipe, "debian");
  const auto missing = catalogue_entry(*parse_image_name("mine"));
  ASSERT_FALSE(missing);
  EXPECT_NE(missing.error().message.find(folder + "/caisson/catalogue.json"), std::string::npos);
  std::filesystem::create_directories(folder + "/caisson");
  std::ofstream{folder + "/caisson/catalogue.json"} << good;
  EXPECT_EQ(catalogue()->size(), 4u);
  EXPECT_EQ(catalogue_entry(*parse_image_name("mine"))->url, "https://host/x.qcow2");
  std::ofstream{folder + "/caisson/catalogue.json"} << "nonsense";
  EXPECT_NE(catalogue().error().message.find("correct that file"), std::string::npos);
  ::unsetenv("XDG_CONFIG_HOME");
  std::filesystem::remove_all(folder);
}

TEST(PackedName, IsWhatTheAddressEndsIn) {
  const auto both = [](std::string_view url) {
    const auto packed = packed_name(url);
    return packed.name + " " + packed.compression;
  };
  EXPECT_EQ(both("https://host/a/disk.raw.xz"), "disk.raw xz");
  EXPECT_EQ(both("https://host/disk.qcow2?token=a/b.gz#x"), "disk.qcow2 none");
  EXPECT_EQ(both("/folder/disk.img.zst"), "disk.img zst");
  EXPECT_EQ(both("gz"), "gz none");
  EXPECT_EQ(both(".gz"), ".gz none");
  EXPECT_EQ(both("https://host/"), " none");
}

}  // namespace
}  // namespace caisson::life
