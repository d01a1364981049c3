#include "cli/run_options.h"

#include <gtest/gtest.h>

#include "life/host.h"

namespace caisson::cli {
namespace {

constexpr uint64_t gib = uint64_t{1} << 30;

TEST(RunOptions, Memory) {
  EXPECT_EQ(parse_memory("512M", 0).value_or(0), 512u << 20);
  EXPECT_EQ(parse_memory("512", 0).value_or(0), 512u << 20);
  EXPECT_EQ(parse_memory("2G", 0).value_or(0), 2 * gib);
  EXPECT_EQ(parse_memory("2GiB", 0).value_or(0), 2 * gib);
  EXPECT_EQ(parse_memory("1048576k", 0).value_or(0), gib);
  for (const char* bad :
       {"", "0", "0G", "x", "1.5G", "-1G", "1023K", "8M", "G", "1GG", "99999999999999999999", "17592186044416M"}) {
    const auto memory = parse_memory(bad, 0);
    ASSERT_FALSE(memory) << bad;
    EXPECT_EQ(memory.error().message.find("--memory"), 0u);
  }
  EXPECT_TRUE(parse_memory("4G", 4 * gib));
  EXPECT_FALSE(parse_memory("4097M", 4 * gib));
  EXPECT_EQ(life::usual_memory(0), gib);
  EXPECT_EQ(life::usual_memory(gib), gib);
  EXPECT_EQ(life::usual_memory((973u << 20) + 5000), 486u << 20);
  EXPECT_TRUE(parse_memory(std::to_string(life::usual_memory(1u << 20) >> 20), 0));  // never less than a machine needs
}

TEST(RunOptions, Cpus) {
  EXPECT_EQ(parse_cpus("1").value_or(0), 1u);
  EXPECT_EQ(parse_cpus("64").value_or(0), 64u);
  for (const char* bad : {"", "0", "65", "-1", "1x", "4294967297"}) EXPECT_FALSE(parse_cpus(bad)) << bad;
}

TEST(RunOptions, Disk) {
  EXPECT_EQ(parse_disk("a.raw").value_or(DiskOption{}), (DiskOption{"a.raw", false}));
  EXPECT_EQ(parse_disk("a,b.raw,ro").value_or(DiskOption{}), (DiskOption{"a,b.raw", true}));
  EXPECT_EQ(parse_disk("a.img,format=qcow2,ro").value_or(DiskOption{}), (DiskOption{"a.img", true, DiskFormat::Qcow2}));
  EXPECT_EQ(parse_disk("a,format=raw").value_or(DiskOption{}), (DiskOption{"a", false, DiskFormat::Raw}));
  EXPECT_EQ(parse_disk("a,bus=sata").value_or(DiskOption{}), (DiskOption{"a", false, {}, control::DiskBus::Sata}));
  EXPECT_FALSE(parse_disk("a,bus=ide"));
  EXPECT_EQ(parse_disk("a,ro,bus=nvme").value_or(DiskOption{}), (DiskOption{"a", true, {}, control::DiskBus::Nvme}));
  EXPECT_EQ(parse_disk("a,ro,bus=usb").value_or(DiskOption{}), (DiskOption{"a", true, {}, control::DiskBus::Usb}));
  EXPECT_FALSE(parse_disk("a,bus=sata,ro"));
  EXPECT_FALSE(parse_disk("a,format=vmdk"));
  EXPECT_FALSE(parse_disk(""));
  EXPECT_FALSE(parse_disk(",ro"));
}

TEST(RunOptions, Forward) {
  using control::PortForward;
  using control::Protocol;
  EXPECT_EQ(parse_forward("2222:22").value_or(PortForward{}), (PortForward{Protocol::Tcp, "127.0.0.1", 2222, 22}));
  EXPECT_EQ(parse_forward("udp:0.0.0.0:5353:53").value_or(PortForward{}),
            (PortForward{Protocol::Udp, "0.0.0.0", 5353, 53}));
  EXPECT_EQ(parse_forward("tcp:1:65535").value_or(PortForward{}), (PortForward{Protocol::Tcp, "127.0.0.1", 1, 65535}));
  for (const char* bad : {"", "22", ":", "0:1", "1:0", "1:65536", "x:1", "1:x", "1.2.3:4:5", "sctp:1:2", "1:2:3:4"}) {
    EXPECT_FALSE(parse_forward(bad)) << bad;
  }
}

TEST(RunOptions, HostPort) {
  const auto port = parse_host_port("udp:0.0.0.0:53");
  ASSERT_TRUE(port);
  EXPECT_EQ(port->protocol, control::Protocol::Udp);
  EXPECT_EQ(port->address, "0.0.0.0");
  EXPECT_EQ(port->port, 53u);
  EXPECT_FALSE(parse_host_port("8080").value().address);
  for (const char* bad : {"", "0", "65536", "x", "80:x", "localhost:80", "1:2:3"})
    EXPECT_FALSE(parse_host_port(bad)) << bad;
}

TEST(RunOptions, CommandLineGetsConsoleAndPanic) {
  EXPECT_EQ(life::command_line("", "").value_or(""), "console=ttyS0 panic=-1");
  EXPECT_EQ(life::command_line("root=/dev/vda", "quiet").value_or(""), "console=ttyS0 panic=-1 root=/dev/vda quiet");
  EXPECT_EQ(life::command_line("", "panic=10 x").value_or(""), "console=ttyS0 panic=10 x");
  EXPECT_EQ(life::command_line("", "console=hvc0").value_or(""), "panic=-1 console=hvc0");
  // Only whole words of the kernel's own part count.
  EXPECT_EQ(life::command_line("", "xpanic=1 a=\"b panic=2\"").value_or(""),
            "console=ttyS0 panic=-1 xpanic=1 a=\"b panic=2\"");
  EXPECT_EQ(life::command_line("", "init=/x -- panic=1").value_or(""), "console=ttyS0 panic=-1 init=/x -- panic=1");
  EXPECT_FALSE(life::command_line("", std::string(2048, 'x')));
  EXPECT_FALSE(life::command_line("", "a\nb"));
}

TEST(RunOptions, ToConfig) {
  RunOptions options;
  options.cpus = "3";
  options.memory = "64M";
  options.forwards = {"1:2", "udp:3:4"};
  options.no_reboot = true;
  const auto config = to_config(options, "");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->cpus, 3u);
  EXPECT_EQ(config->memory_bytes, 64u << 20);
  EXPECT_EQ(config->forwards.size(), 2u);
  EXPECT_TRUE(config->no_reboot);
  options.net = "user,model=e1000";
  EXPECT_EQ(to_config(options, "").value_or(control::VmConfig{}).net_card, control::NetCard::E1000);
  options.net = "user,model=ne2000";
  EXPECT_FALSE(to_config(options, ""));
  options.net = "none";
  EXPECT_FALSE(to_config(options, "")) << "a forward without a network";
  options = {};
  options.engine = "kvm";
  const auto kvm = to_config(options, "");
  ASSERT_TRUE(kvm);
  EXPECT_EQ(kvm->engine, control::EngineChoice::Kvm);
  options.jit_off = {"simd"};
  EXPECT_FALSE(to_config(options, ""));
  options.engine = "jit";
  options.jit_off = {"simd,flags", "flags"};
  EXPECT_EQ(to_config(options, "")->jit_off, (std::vector<std::string>{"simd", "flags"}));
  for (const char* wrong : {"", "simd,", ",", "mmx", "flags simd"}) {
    options.jit_off = {wrong};
    EXPECT_FALSE(to_config(options, "")) << wrong;
  }
  options.jit_off.clear();
  options.lockstep = true;
  EXPECT_TRUE(to_config(options, "")->lockstep);
  options.engine = "kvm";
  EXPECT_FALSE(to_config(options, ""));
  options.lockstep = false;
  options.engine = "magic";
  EXPECT_FALSE(to_config(options, ""));
  options = {};
  options.cpu_model = "486";
  EXPECT_FALSE(to_config(options, ""));
}

TEST(RunOptions, WhereViewersConnect) {
  RunOptions options;
  options.firmware = "bios";
  for (const char* good : {"unix", "none", "127.0.0.1:5901", "127.1.2.3:1"}) {
    options.vnc = good;
    EXPECT_TRUE(to_config(options, "")) << good;
  }
  for (const char* bad : {"5901", "localhost:5901", "0.0.0.0:5901", "192.168.1.1:5901", "127.0.0.1:0", "127.0.0.1:x"}) {
    options.vnc = bad;
    EXPECT_FALSE(to_config(options, "")) << bad;
  }
  options.vnc = "unix";
  options.keyboard_layout = "fr";
  EXPECT_EQ(to_config(options, "")->keyboard_layout, control::KeyboardLayout::Fr);
  options.keyboard_layout = "dvorak";
  EXPECT_FALSE(to_config(options, ""));
}

TEST(RunOptions, FilesToStartFrom) {
  const auto taken = [](const char* target, const char* firmware = "", const char* boot = "") {
    RunOptions options;
    options.target = target;
    options.firmware = firmware;
    options.boot = boot;
    EXPECT_TRUE(take_file(options)) << target;
    return options;
  };
  using Files = std::vector<std::string>;
  for (const char* disk : {"./disk", "a/b", "/dev/sdx", "x.qcow2", "x.raw", "x.img", "x.img,bus=sata", "./d,ro"}) {
    const RunOptions options = taken(disk);
    EXPECT_EQ(options.disks, Files{disk});
    EXPECT_EQ(options.target + options.boot, "") << disk;
    EXPECT_EQ(options.firmware, "bios") << disk;
  }
  const RunOptions disc = taken("x.iso", "uefi");
  EXPECT_EQ(disc.cdroms, Files{"x.iso"});
  EXPECT_EQ(disc.firmware, "uefi");
  EXPECT_EQ(disc.boot, "cdrom");
  EXPECT_EQ(taken("./x.iso", "", "disk").boot, "disk");
  for (const char* image : {"debian", "debian:12", "disk", "iso", ""}) EXPECT_EQ(taken(image).target, image);

  RunOptions twice;
  twice.target = "x.iso";
  twice.kernel = "vmlinuz";
  EXPECT_FALSE(take_file(twice));
  twice = {};
  twice.target = "x.iso,ro";
  EXPECT_FALSE(take_file(twice));
}

TEST(RunOptions, SizesOfDisksAreWholeSectors) {
  EXPECT_EQ(parse_disk_size("disk create", "20G").value_or(0), uint64_t{20} << 30);
  EXPECT_EQ(parse_disk_size("disk create", "3").value_or(0), uint64_t{3} << 20);
  EXPECT_EQ(parse_disk_size("disk create", "512B").value_or(0), 512u);
  EXPECT_EQ(parse_disk_size("disk create", "64KiB").value_or(0), 65536u);
  for (const char* wrong : {"", "0", "513B", "-1", "1X", "8388609T", "B", "G"}) {
    EXPECT_FALSE(parse_disk_size("disk create", wrong)) << wrong;
  }
}

}  // namespace
}  // namespace caisson::cli
