#include "store/vm_spec.h"

#include <gtest/gtest.h>

namespace caisson::store {
namespace {

VmSpec example() {
  VmSpec spec;
  spec.created_ms = 1'700'000'000'000;
  spec.image = "debian:12";
  spec.kernel = "vmlinuz";
  spec.initrd = "/boot/initrd.img";
  spec.append = "console=ttyS0";
  spec.cpus = 3;
  spec.memory_bytes = uint64_t{512} << 20;
  spec.disks = {{"disk.qcow2", false, "qcow2"}, {"/srv/data.raw", true, ""}};
  spec.backing_folders = {"/srv/images"};
  spec.forwards = {{control::Protocol::Udp, "0.0.0.0", 5353, 53}};
  spec.net = control::NetKind::User;
  spec.serial2 = "/tmp/com2.log";
  spec.stop_timeout_s = 7;
  return spec;
}

TEST(VmSpec, IsReadAsItWasWritten) {
  const auto again = VmSpec::parse(example().serialise());
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(*again, example());
}

TEST(VmSpec, SaysWhatIsWrong) {
  const auto error_of = [](std::string_view from, std::string_view to) {
    std::string text = example().serialise();
    const size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    text.replace(at, from.size(), to);
    const auto spec = VmSpec::parse(text);
    return spec ? "" : spec.error().message;
  };
  EXPECT_NE(error_of("\"cpus\": 3", "\"cpus\": 0").find("cpus is 0, allowed are 1 to 64"), std::string::npos);
  EXPECT_NE(error_of("\"cpus\": 3", "\"cpus\": \"3\"").find("cpus is not a whole number"), std::string::npos);
  EXPECT_NE(error_of("\"cpus\"", "\"cpu\"").find("cpus is missing"), std::string::npos);
  EXPECT_NE(error_of("\"image\"", "\"imagine\"").find("the key \"imagine\" is unknown"), std::string::npos);
  EXPECT_NE(error_of("\"version\": 1", "\"version\": 2").find("newer version"), std::string::npos);
  EXPECT_NE(error_of("\"vmlinuz\"", "\"\"").find("either kernel or firmware"), std::string::npos);
  EXPECT_NE(error_of("\"disk.qcow2\"", "\"../disk.qcow2\"").find("neither an absolute path"), std::string::npos);
  EXPECT_NE(error_of("\"qcow2\"", "\"vdi\"").find("known are raw and qcow2"), std::string::npos);
  EXPECT_NE(error_of("\"/tmp/com2.log\"", "\"com2.log\"").find("serial2 com2.log is not an absolute path"),
            std::string::npos);
  EXPECT_NE(error_of("\"user\"", "\"none\"").find("forwards need a network"), std::string::npos);
  EXPECT_FALSE(VmSpec::parse(""));
  EXPECT_FALSE(VmSpec::parse("[]"));
  // What a newer version has written need not look like ours.
  const auto newer = VmSpec::parse("{\"version\":99,\"what\":[1]}");
  ASSERT_FALSE(newer);
  EXPECT_NE(newer.error().message.find("newer version"), std::string::npos);
}

TEST(VmSpec, Names) {
  for (const char* good : {"vm", "debian-13", "a.b_c", "1"}) EXPECT_TRUE(check_name("machine", good)) << good;
  for (const char* bad : {"", ".", "..", ".a", "-a", "a/b", "a b", "ä", "a\nb", "a\x1b[31m"}) {
    const auto checked = check_name("machine", bad);
    ASSERT_FALSE(checked) << bad;
    for (const char c : checked.error().message) EXPECT_GE(static_cast<unsigned char>(c), 0x20);
  }
  EXPECT_TRUE(check_name("machine", std::string(64, 'a')));
  EXPECT_FALSE(check_name("machine", std::string(65, 'a')));
}

}  // namespace
}  // namespace caisson::store
