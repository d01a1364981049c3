#include "backend/disk_chain.h"

#include <filesystem>

#include <sys/stat.h>

#include "backend/qcow2/test_images.h"
#include "backend/test_support.h"

namespace caisson {
namespace {

using qcow2::test::Bytes;

class DiskChainTest : public testing::Test {
 protected:
  void image(const std::string& name, const std::string& backing, const std::string& format) {
    qcow2::CreateOptions options{.size = 65536};
    if (!backing.empty()) options.backing_file = backing;
    options.backing_format = format;
    qcow2::test::make_image(folder.file(name), options);
  }
  // "opened", or what is wrong.
  std::string open(const std::string& name, ChainOptions options = {}) {
    const auto chain = open_chain(folder.file(name), options);
    return chain ? fmt::format("opened {}", chain->size()) : chain.error().message;
  }
  void expect_error(const std::string& name, const std::string& part, ChainOptions options = {}) {
    const std::string message = open(name, options);
    EXPECT_NE(message.find(part), std::string::npos) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }
  test::TemporaryFolder folder;
};

TEST_F(DiskChainTest, OpensAndReadsAChain) {
  std::filesystem::create_directory(folder.file("below"));
  folder.make("below/base.raw", std::string(65536, 'x'));
  image("below/middle.qcow2", "base.raw", "raw");
  image("top.qcow2", "below/middle.qcow2", "qcow2");
  auto chain = open_chain(folder.file("top.qcow2"), {});
  ASSERT_TRUE(chain) << chain.error().message;
  ASSERT_EQ(chain->size(), 3u);
  EXPECT_FALSE((*chain)[0].read_only);
  EXPECT_TRUE((*chain)[1].read_only);
  EXPECT_TRUE((*chain)[2].read_only);
  EXPECT_EQ((*chain)[2].format, DiskFormat::Raw);
  auto disk = assemble(std::move(*chain));
  ASSERT_TRUE(disk) << disk.error().message;
  EXPECT_EQ(qcow2::test::read_all(**disk), Bytes(65536, 'x'));
}

TEST_F(DiskChainTest, BackingFilesLieBelowAllowedFolders) {
  const test::TemporaryFolder elsewhere;
  const auto secret = elsewhere.make("secret", std::string(65536, 's'));
  image("disk.qcow2", secret, "raw");
  expect_error("disk.qcow2", "its backing file " + secret + " is outside the allowed folders");
  EXPECT_EQ(open("disk.qcow2", {.backing_folders = {elsewhere.file("")}}), "opened 2");
  EXPECT_EQ(open("disk.qcow2", {.without_backing = true}), "opened 1");
  // Neither by a link, nor by way of the folder above, nor from a backing file.
  std::filesystem::create_symlink(secret, folder.file("link"));
  image("linked.qcow2", "link", "raw");
  expect_error("linked.qcow2", "outside the allowed folders");
  image("up.qcow2", "../" + std::filesystem::path{secret}.parent_path().filename().string() + "/secret", "raw");
  expect_error("up.qcow2", "outside the allowed folders");
  image("second.qcow2", "linked.qcow2", "qcow2");
  expect_error("second.qcow2", "outside the allowed folders");
  // Nor is a folder whose name only begins the same.
  const std::string twin = folder.file("").substr(0, folder.file("").size() - 1) + "-twin";
  std::filesystem::create_directory(twin);
  std::ofstream{twin + "/base"} << std::string(65536, 't');
  image("twin.qcow2", twin + "/base", "raw");
  expect_error("twin.qcow2", "outside the allowed folders");
  std::filesystem::remove_all(twin);
}

TEST_F(DiskChainTest, RefusesLoopsAndLongChains) {
  image("a.qcow2", "b.qcow2", "qcow2");
  image("b.qcow2", "a.qcow2", "qcow2");
  expect_error("a.qcow2", "its chain of backing files comes back to");
  image("self.qcow2", "self.qcow2", "qcow2");
  expect_error("self.qcow2", "its chain of backing files comes back to");
  folder.make("0.raw", std::string(65536, 'x'));
  image("1.qcow2", "0.raw", "raw");
  for (int i = 2; i <= 16; ++i) image(fmt::format("{}.qcow2", i), fmt::format("{}.qcow2", i - 1), "qcow2");
  EXPECT_EQ(open("15.qcow2"), "opened 16");
  expect_error("16.qcow2", "has more than 15 backing files");
}

TEST_F(DiskChainTest, RefusesWhatIsNoPlainFile) {
  image("net.qcow2", "nbd://localhost/x", "raw");
  expect_error("net.qcow2", "is not a plain file");
  image("json.qcow2", "json:{\"driver\":\"file\",\"filename\":\"/etc/passwd\"}", "raw");
  expect_error("json.qcow2", "is not a plain file");
  image("missing.qcow2", "missing.raw", "raw");
  expect_error("missing.qcow2", "No such file");
  ASSERT_EQ(::mkfifo(folder.file("pipe").c_str(), 0600), 0);
  image("pipe.qcow2", "pipe", "raw");
  expect_error("pipe.qcow2", "is neither a file nor a block device");
  folder.make("base.vmdk", std::string(65536, 'x'));
  image("vmdk.qcow2", "base.vmdk", "vmdk");
  expect_error("vmdk.qcow2", "only raw and qcow2 can be used");
}

TEST_F(DiskChainTest, AnUnsaidFormatIsRawUnlessItLooksOtherwise) {
  folder.make("base", std::string(65536, 'x'));
  image("plain.qcow2", "base", "");
  EXPECT_EQ(open("plain.qcow2"), "opened 2");
  image("inner.qcow2", "", "");
  image("unsaid.qcow2", "inner.qcow2", "");
  expect_error("unsaid.qcow2", "does not say what format its backing file");
}

TEST_F(DiskChainTest, AnImageInUseCanBeLookedAt) {
  image("used.qcow2", "", "");
  const auto used = open_chain(folder.file("used.qcow2"), {});
  ASSERT_TRUE(used);
  expect_error("used.qcow2", "in use by another virtual machine", {.read_only = true});
  EXPECT_EQ(open("used.qcow2", {.read_only = true, .without_backing = true, .unlocked = true}), "opened 1");
}

TEST_F(DiskChainTest, BackingFilesInUseAreShared) {
  image("base.qcow2", "", "");
  image("one.qcow2", "base.qcow2", "qcow2");
  image("two.qcow2", "base.qcow2", "qcow2");
  const auto one = open_chain(folder.file("one.qcow2"), {});
  ASSERT_TRUE(one);
  EXPECT_EQ(open("two.qcow2"), "opened 2");
  expect_error("base.qcow2", "in use by another virtual machine");
}

}  // namespace
}  // namespace caisson
