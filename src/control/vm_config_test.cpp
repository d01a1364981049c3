#include "control/vm_config.h"

#include <gtest/gtest.h>

namespace caisson::control {
namespace {

VmConfig example() {
  VmConfig config;
  config.name = "web";
  config.cpus = 4;
  config.memory_bytes = uint64_t{512} << 20;
  config.cpu_model = "x86-64-v3";
  config.engine = EngineChoice::Jit;
  config.kernel_fd = 0;
  config.kernel_label = "kernel vmlinuz";
  config.initrd_fd = 1;
  config.console_fd = 2;
  config.append = "console=ttyS0 a=\"b c\" ä";
  config.disks = {{3, false, "one", "disk a.raw"}, {4, true, "", "disk b.raw"}};
  config.net = NetKind::User;
  config.forwards = {{Protocol::Udp, "0.0.0.0", 5353, 53}, {Protocol::Tcp, "127.0.0.1", 2222, 22}};
  config.no_reboot = true;
  config.jit_off = {"sse"};
  config.profile = true;
  config.lockstep = true;
  config.dump_at = {"ffffffff81000000"};
  config.tsc_before = 0x1234'5678'9abc;
  config.tsc_before_ns = 1;
  return config;
}

TEST(VmConfig, ComesBackFromItsOwnText) {
  const auto config = example();
  const auto again = VmConfig::parse(config.serialise(), 5);
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(*again, config);
}

TEST(VmConfig, BackingFilesComeWithQcow2Only) {
  auto config = example();
  config.disks[1].backing = {{5, DiskImage::Qcow2, "base"}, {6, DiskImage::Raw, "its base"}};
  EXPECT_FALSE(config.validate(7));
  config.disks[1].format = DiskImage::Qcow2;
  const auto again = VmConfig::parse(config.serialise(), 7);
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(*again, config);
  EXPECT_FALSE(config.validate(6));
  config.disks[1].backing[0].image_fd = 4;
  EXPECT_FALSE(config.validate(7)) << "one descriptor twice";
}

TEST(VmConfig, ViewersNeedADisplay) {
  auto config = example();
  config.vnc_fd = 5;
  config.vnc_password = "secret";
  config.keyboard_layout = KeyboardLayout::De;
  EXPECT_FALSE(config.validate(6));
  config.display = true;
  const auto again = VmConfig::parse(config.serialise(), 6);
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(*again, config);
  config.vnc_password = "morethan8";
  EXPECT_FALSE(config.validate(6));
  config.vnc_password = "secret";
  config.vnc_fd.reset();
  EXPECT_FALSE(config.validate(5)) << "a password for nobody";
}

TEST(VmConfig, LeavesOutAnAbsentInitrd) {
  auto config = example();
  config.initrd_fd.reset();
  const auto again = VmConfig::parse(config.serialise(), 5);
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_FALSE(again->initrd_fd);
}

TEST(VmConfig, DumpComesWithItsDescriptor) {
  auto config = example();
  config.dump_fd = 5;
  EXPECT_FALSE(config.validate(5)) << "dump_fd beyond what came";
  const auto again = VmConfig::parse(config.serialise(), 6);
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(*again, config);
  config.dump_fd = config.kernel_fd;
  EXPECT_FALSE(config.validate(6)) << "the kernel's descriptor";
}

TEST(VmConfig, KvmComesWithItsDescriptor) {
  auto config = example();
  config.engine = EngineChoice::Kvm;
  EXPECT_FALSE(config.validate(6)) << "no kvm_fd";
  config.kvm_fd = 5;
  EXPECT_TRUE(config.validate(6));
  EXPECT_FALSE(config.validate(5)) << "kvm_fd beyond what came";
  const auto again = VmConfig::parse(config.serialise(), 6);
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(*again, config);
  config.engine = EngineChoice::Jit;
  EXPECT_FALSE(config.validate(6)) << "kvm_fd for the jit engine";
  config.engine = EngineChoice::Auto;
  config.kvm_fd.reset();
  config.kvm_missing = "/dev/kvm is not there";
  EXPECT_TRUE(config.validate(5));
}

TEST(VmConfig, KvmStartsFirmwareToo) {
  auto config = example();
  config.engine = EngineChoice::Kvm;
  config.kvm_fd = 5;
  config.firmware = FirmwareKind::Bios;
  config.firmware_fd = config.kernel_fd;
  config.kernel_fd.reset();
  config.initrd_fd.reset();
  config.append.clear();
  const auto valid = config.validate(6);
  EXPECT_TRUE(valid) << valid.error().message;
}

struct Refused {
  const char* what;
  const char* json;
};
class VmConfigRefuses : public testing::TestWithParam<Refused> {};

TEST_P(VmConfigRefuses, WithOneLine) {
  const auto config = VmConfig::parse(GetParam().json, 3);
  ASSERT_FALSE(config);
  EXPECT_EQ(config.error().message.find('\n'), std::string::npos);
  EXPECT_NE(config.error().message.find(GetParam().what), std::string::npos) << config.error().message;
}

INSTANTIATE_TEST_SUITE_P(
    Texts, VmConfigRefuses,
    testing::Values(
        Refused{"JSON", ""}, Refused{"JSON", "{"}, Refused{"object", "[]"}, Refused{"missing", "{}"},
        Refused{"\"colour\" is unknown",
                R"({"cpus":1,"memory_bytes":16777216,"kernel_fd":0,"console_fd":1,"colour":1})"},
        Refused{"cpus", R"({"cpus":0,"memory_bytes":16777216,"kernel_fd":0,"console_fd":1})"},
        Refused{"cpus", R"({"cpus":65,"memory_bytes":16777216,"kernel_fd":0,"console_fd":1})"},
        Refused{"cpus", R"({"cpus":4294967297,"memory_bytes":16777216,"kernel_fd":0,"console_fd":1})"},
        Refused{"cpus", R"({"cpus":-1,"memory_bytes":16777216,"kernel_fd":0,"console_fd":1})"},
        Refused{"cpus", R"({"cpus":1.5,"memory_bytes":16777216,"kernel_fd":0,"console_fd":1})"},
        Refused{"cpus", R"({"cpus":"1","memory_bytes":16777216,"kernel_fd":0,"console_fd":1})"},
        Refused{"memory_bytes", R"({"cpus":1,"memory_bytes":0,"kernel_fd":0,"console_fd":1})"},
        Refused{"1 MiB", R"({"cpus":1,"memory_bytes":16777217,"kernel_fd":0,"console_fd":1})"},
        Refused{"descriptors", R"({"cpus":1,"memory_bytes":16777216,"kernel_fd":3,"console_fd":1})"},
        Refused{"second time", R"({"cpus":1,"memory_bytes":16777216,"kernel_fd":1,"console_fd":1})"},
        Refused{"engine", R"({"cpus":1,"memory_bytes":16777216,"kernel_fd":0,"console_fd":1,"engine":"magic"})"},
        Refused{"control characters",
                R"({"cpus":1,"memory_bytes":16777216,"kernel_fd":0,"console_fd":1,"append":"\n"})"},
        Refused{
            "without a network",
            R"({"cpus":1,"memory_bytes":16777216,"kernel_fd":0,"console_fd":1,"forwards":[{"host_port":1,"guest_port":1}]})"},
        Refused{"IPv4", R"({"cpus":1,"memory_bytes":16777216,"kernel_fd":0,"console_fd":1,"net":"user",
                           "forwards":[{"host_address":"300.0.0.1","host_port":1,"guest_port":1}]})"},
        Refused{"host_port", R"({"cpus":1,"memory_bytes":16777216,"kernel_fd":0,"console_fd":1,"net":"user",
                               "forwards":[{"host_port":65536,"guest_port":1}]})"}));

TEST(VmConfig, RefusesLongTexts) {
  auto config = example();
  config.append.assign(VmConfig::max_append + 1, 'x');
  EXPECT_FALSE(config.validate(5));
  config = example();
  config.disks[0].serial.assign(21, 'x');
  EXPECT_FALSE(config.validate(5));
  config = example();
  config.jit_off.assign(65, "x");
  EXPECT_FALSE(config.validate(5));
}

TEST(VmConfig, FitsIntoAMessageAtItsLargest) {
  VmConfig config;
  config.name.assign(64, 'n');
  config.append.assign(VmConfig::max_append, '"');
  config.kernel_label.assign(VmConfig::max_label, '\\');
  config.initrd_label.assign(VmConfig::max_label, '"');
  config.disks.assign(VmConfig::max_disks, {63, true, std::string(20, '"'), std::string(VmConfig::max_label, '"')});
  config.disks[0].backing.assign(40, {63, DiskImage::Qcow2, std::string(VmConfig::max_label, '"')});  // descriptors end
  config.forwards.assign(VmConfig::max_forwards, {Protocol::Udp, "255.255.255.255", 65535, 65535});
  config.jit_off.assign(64, std::string(32, '"'));
  config.dump_at.assign(64, std::string(16, '"'));
  EXPECT_LT(config.serialise().size(), 60000u);
}

}  // namespace
}  // namespace caisson::control
