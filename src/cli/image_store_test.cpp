#include "cli/image_store.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/exit_status.h"
#include "life/images.h"
#include "store/files.h"

namespace caisson::cli {
namespace {

class InFolder : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "caisson-store-XXXXXX";
    folder_ = ::mkdtemp(pattern.data());
    ::setenv("XDG_CACHE_HOME", folder_.c_str(), 1);
  }
  void TearDown() override {
    ::unsetenv("XDG_CACHE_HOME");
    std::filesystem::remove_all(folder_);
  }
  void put(const std::string& name, std::string_view text) {
    std::filesystem::create_directories(std::filesystem::path{folder_ + "/" + name}.parent_path());
    std::ofstream{folder_ + "/" + name} << text;
  }
  std::string folder_;
};
using ImageStore = InFolder;
using Files = InFolder;

TEST(ImageName, Parses) {
  for (const char* text : {"debian", "debian:12", "debian:bookworm"}) {
    const auto name = life::parse_image_name(text);
    ASSERT_TRUE(name) << text;
    EXPECT_EQ(name->folder(), "debian-12");
    EXPECT_EQ(name->suite, "bookworm");
  }
  EXPECT_EQ(life::parse_image_name("debian:sid")->suite, "sid");
  for (const char* text : {"", "debian:", "debian:3", "ubuntu:22", "-x", "a/b", "debian:../x", "debian:12 "}) {
    EXPECT_FALSE(life::parse_image_name(text)) << text;
  }
}

TEST(ImageName, OfImportedOnes) {
  const auto name = life::parse_image_name("fedora-41");
  ASSERT_TRUE(name);
  EXPECT_FALSE(name->built_here());
  EXPECT_EQ(name->folder(), "fedora-41");
  EXPECT_EQ(name->text(), "fedora-41");
  EXPECT_TRUE(life::new_image_name("debian-12-genericcloud"));
  // Names that mean a file, an image that is built here, or a file of the store.
  for (const char* text : {"debian", "debian:12", "debian-12", "x.iso", "x.qcow2", "x.raw", "x.img", "x.lock", ".x"}) {
    EXPECT_FALSE(life::new_image_name(text)) << text;
  }
}

TEST(Manifest, SaysHowItStarts) {
  life::Manifest manifest{"x", "now", "", {}, {}, life::BootBy::Uefi, "root=/dev/vda1", "https://host/x"};
  const auto again = life::parse_manifest(life::to_json_text(manifest));
  ASSERT_TRUE(again);
  EXPECT_EQ(again->boot, life::BootBy::Uefi);
  EXPECT_EQ(again->append, "root=/dev/vda1");
  EXPECT_EQ(again->source, "https://host/x");
  // One of before there were others than those with a kernel.
  EXPECT_EQ(life::parse_manifest("{\"image\":\"debian:12\"}")->boot, life::BootBy::Kernel);
  EXPECT_FALSE(life::parse_manifest("{\"boot\":\"magic\"}"));
  EXPECT_FALSE(life::parse_manifest("{\"version\":\"1\"}"));
  const auto newer = life::parse_manifest("{\"version\":2}");
  ASSERT_FALSE(newer);
  EXPECT_NE(newer.error().message.find("newer version"), std::string::npos);
}

TEST(Manifest, ComesBackFromItsText) {
  life::Manifest manifest{
      "debian:12", "2026-01-02T03:04:05Z", "deb x y main\n", {{"disk.raw", {4096, "abc"}}}, {{"bash", "5.2"}}};
  const auto again = life::parse_manifest(life::to_json_text(manifest));
  ASSERT_TRUE(again);
  EXPECT_EQ(again->built, manifest.built);
  EXPECT_EQ(again->files.at("disk.raw").size, 4096u);
  EXPECT_EQ(again->packages.at("bash"), "5.2");
  for (const char* bad : {"", "[]", "{\"files\":{\"a\":1}}"}) EXPECT_FALSE(life::parse_manifest(bad)) << bad;
}

TEST_F(ImageStore, FindsAndRemoves) {
  const auto name = life::parse_image_name("debian:12");
  EXPECT_FALSE(*life::find_image(*name));
  put("caisson/images/debian-12/disk.raw", "half");
  EXPECT_FALSE(*life::find_image(*name)) << "a folder without a manifest is not whole";
  put("caisson/images/debian-12/manifest.json", life::to_json_text({"debian:12", "now", "", {}, {}}));
  EXPECT_EQ(**life::find_image(*name), folder_ + "/caisson/images/debian-12");
  EXPECT_EQ(image_remove("debian:12"), exit_ok);
  EXPECT_FALSE(*life::find_image(*name));
  EXPECT_EQ(image_remove("debian:12"), exit_failure);
  EXPECT_EQ(image_remove("debian:99"), exit_usage);
}

TEST_F(ImageStore, LocksAgainstASecondUser) {
  const std::string path = folder_ + "/lock";
  auto first = life::lock_file(path, "it", nullptr);
  ASSERT_TRUE(first);
  EXPECT_FALSE(life::lock_file(path, "it", nullptr));
  first->reset();
  EXPECT_TRUE(life::lock_file(path, "it", nullptr));
}

TEST_F(ImageStore, Checksum) {
  put("abc", "abc");
  EXPECT_EQ(sha256_file(folder_ + "/abc").value_or(""),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_FALSE(sha256_file(folder_ + "/missing"));
}

TEST_F(Files, CopyKeepsDataAndHoles) {
  const std::string from = folder_ + "/from";
  put("from", "start");
  ASSERT_EQ(::truncate(from.c_str(), 64 << 20), 0);
  {
    std::fstream file{from, std::ios::in | std::ios::out};
    file.seekp(40 << 20);
    file << "middle";
  }
  ASSERT_TRUE(copy_sparse(from, folder_ + "/to"));
  EXPECT_EQ(sha256_file(from).value_or("a"), sha256_file(folder_ + "/to").value_or("b"));
  struct stat status {};
  ASSERT_EQ(::stat((folder_ + "/to").c_str(), &status), 0);
  EXPECT_LT(status.st_blocks * 512, 8 << 20);
  EXPECT_FALSE(copy_sparse(folder_ + "/missing", folder_ + "/x"));
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/x"));
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/to.new"));
}

TEST_F(Files, OpenInputRefusesWhatIsNoFile) {
  put("empty", "");
  put("fine", "x");
  EXPECT_TRUE(open_input("kernel", folder_ + "/fine"));
  for (const char* bad : {"/empty", "/missing", ""}) {
    const auto fd = open_input("kernel", folder_ + bad);
    ASSERT_FALSE(fd) << bad;
    EXPECT_EQ(fd.error().message.find("kernel "), 0u);
  }
}

TEST_F(Files, WriteReplacesWhole) {
  ASSERT_TRUE(write_file(folder_ + "/f", "one"));
  ASSERT_TRUE(write_file(folder_ + "/f", "two"));
  EXPECT_EQ(read_file(folder_ + "/f", 100).value_or(""), "two");
  EXPECT_FALSE(read_file(folder_ + "/f", 2));
  EXPECT_FALSE(write_file(folder_ + "/missing/f", "x"));
}

}  // namespace
}  // namespace caisson::cli
