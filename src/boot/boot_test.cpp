#include "boot/boot.h"

#include <array>
#include <numeric>

#include <gtest/gtest.h>
#include <zstd.h>

#include "boot/low_memory.h"
#include "boot/test_images.h"
#include "x86/registers.h"

namespace caisson::boot {
namespace {

using test::BzImageSpec;
using test::ElfSpec;
using test::Image;
using test::make_bzimage;
using test::make_cpio;
using test::make_elf;
using test::make_file;

constexpr uint64_t mib = 1u << 20;

struct Machine {
  explicit Machine(uint64_t size) : memory(std::move(*GuestMemory::create(size))) {
    config.acpi.pci.emplace();
    config.acpi.pci->ecam_base = 0xe000'0000;
    config.acpi.pci->buses = 256;
    config.command_line = "console=ttyS0";
  }
  void kernel(const Image& image) {
    kernel_file = make_file(image);
    config.kernel = kernel_file.get();
  }
  void initrd(const Image& image) {
    initrd_file = make_file(image);
    config.initrd = initrd_file.get();
  }
  template <class T>
  T at(Gpa gpa) const {
    T value{};
    EXPECT_TRUE(memory->read_object(gpa, value)) << std::hex << gpa;
    return value;
  }
  std::string error() {
    const auto entry = load(*memory, config);
    return entry ? "" : entry.error().message;
  }

  std::unique_ptr<GuestMemory> memory;
  BootConfig config;
  Fd kernel_file, initrd_file;
};

bool mentions(const std::string& text, std::string_view word) { return text.find(word) != std::string::npos; }

// Walks the identity map as the CPU would.
std::optional<uint64_t> translate(const Machine& machine, uint64_t cr3, uint64_t address) {
  uint64_t table = cr3;
  for (unsigned shift = 39;; shift -= 9) {
    const auto entry = machine.at<uint64_t>(table + (address >> shift & 511) * 8);
    if ((entry & 1) == 0) return std::nullopt;
    const uint64_t base = entry & 0xf'ffff'ffff'f000;
    if (shift == 12 || (entry & 0x80) != 0) {
      const uint64_t mask = (uint64_t{1} << shift) - 1;
      EXPECT_EQ(base & mask, 0u);
      return base | (address & mask);
    }
    table = base;
  }
}

// Memory map as the guest reads it: in order, not overlapping, RAM where RAM is, tables not in RAM that is free.
void check_e820(const Machine& machine) {
  const auto count = machine.at<uint8_t>(low::zero_page + 0x1e8);
  ASSERT_GE(count, 6);
  uint64_t end = 0, ram = 0;
  bool acpi = false, nvs = false, ecam = false;
  for (unsigned i = 0; i < count; ++i) {
    const Gpa at = low::zero_page + 0x2d0 + 20 * i;
    const auto base = machine.at<uint64_t>(at), size = machine.at<uint64_t>(at + 8);
    const auto type = static_cast<MemoryType>(machine.at<uint32_t>(at + 16));
    EXPECT_GE(base, end);
    end = base + size;
    if (type == MemoryType::Ram) {
      EXPECT_TRUE(machine.memory->contains(base, size));
      ram += size;
    }
    acpi |= type == MemoryType::AcpiReclaim;
    nvs |= type == MemoryType::AcpiNvs;
    ecam |= type == MemoryType::Reserved && base == 0xe000'0000 && size == 256 * mib;
  }
  EXPECT_TRUE(acpi && nvs && ecam);
  EXPECT_GT(ram, machine.memory->size() - mib);
}

TEST(LinuxBoot, GuestUnpacks) {
  Machine machine(128 * mib);
  const Image image = make_bzimage({});  // its payload is no packed kernel
  machine.kernel(image);
  machine.initrd(make_cpio(100'000));
  const auto entry = load(*machine.memory, machine.config);
  ASSERT_TRUE(entry) << entry.error().message;
  EXPECT_EQ(entry->mode, EntryPoint::Mode::Long64);
  EXPECT_EQ(entry->rip, 0x100'0200u);
  EXPECT_EQ(entry->rsi, low::zero_page);
  EXPECT_EQ(entry->cr0 & (x86::cr0::pe | x86::cr0::pg), x86::cr0::pe | x86::cr0::pg);
  EXPECT_EQ(entry->efer, x86::efer::lme | x86::efer::lma);
  EXPECT_EQ(entry->rflags, 2u);
  EXPECT_EQ(entry->code.selector, 0x10);
  EXPECT_EQ(entry->data.selector, 0x18);
  for (const uint64_t address : {uint64_t{0}, uint64_t{low::zero_page}, entry->rip, uint64_t{0xffff'fff8}}) {
    EXPECT_EQ(translate(machine, entry->cr3, address), address);
  }
  EXPECT_EQ(translate(machine, entry->cr3, uint64_t{1} << 32), std::nullopt);
  // GDT descriptors: code64 present, L; data writable; the TSS busy.
  EXPECT_EQ(machine.at<uint64_t>(entry->gdt_base + 0x10), 0x00af'9b00'0000'ffffu);
  EXPECT_EQ(machine.at<uint64_t>(entry->gdt_base + 0x18), 0x00cf'9300'0000'ffffu);
  EXPECT_EQ(machine.at<uint64_t>(entry->gdt_base + 0x20), 0x0000'8b00'0000'0067u);
  // The kernel's body, and the zero page.
  EXPECT_EQ(machine.at<uint8_t>(0x100'0000), 0x90);
  EXPECT_EQ(machine.at<uint8_t>(0x100'0300), 0x33);
  const auto zero = [&](size_t offset) { return machine.at<uint32_t>(low::zero_page + offset); };
  EXPECT_EQ(zero(setup::header), 0x5372'6448u);
  EXPECT_EQ(zero(setup::type_of_loader) & 0xff, 0xffu);
  EXPECT_EQ(machine.at<uint64_t>(low::zero_page + setup::setup_data), 0u) << "the file's pointer must not survive";
  EXPECT_EQ(zero(setup::cmd_line_ptr), low::command_line);
  EXPECT_EQ(machine.at<uint64_t>(low::zero_page + 0x70), acpi::rsdp_address);
  const uint32_t initrd_at = zero(setup::ramdisk_image), initrd_size = zero(setup::ramdisk_size);
  EXPECT_EQ(initrd_size, make_cpio(100'000).size());
  EXPECT_EQ(machine.at<uint32_t>(initrd_at), 0x3730'3730u);
  EXPECT_GT(initrd_at, 120 * mib) << "high in memory";
  check_e820(machine);
  std::array<char, 14> line{};
  EXPECT_TRUE(machine.memory->read_object(low::command_line, line));
  EXPECT_STREQ(line.data(), "console=ttyS0");
}

TEST(LinuxBoot, HostUnpacks) {
  const Image vmlinux = make_elf({});
  Image payload(ZSTD_compressBound(vmlinux.size()));
  payload.resize(ZSTD_compress(payload.data(), payload.size(), vmlinux.data(), vmlinux.size(), 3));
  append_le(payload, static_cast<uint32_t>(vmlinux.size()));
  BzImageSpec spec;
  spec.payload = payload;
  Machine machine(64 * mib);
  machine.kernel(make_bzimage(spec));
  auto entry = load(*machine.memory, machine.config);
  ASSERT_TRUE(entry) << entry.error().message;
  EXPECT_EQ(entry->rip, 0x100'0010u);
  EXPECT_EQ(machine.at<uint8_t>(0x100'0000), 0x5a);
  EXPECT_EQ(machine.at<uint8_t>(0x100'1233), 0x5a);
  EXPECT_EQ(machine.at<uint8_t>(0x100'1234), 0);
  check_e820(machine);

  // A machine reset clears memory and loads again; the files are read from their beginning.
  ASSERT_TRUE(machine.memory->clear());
  machine.config.unpack = Unpack::Guest;
  entry = load(*machine.memory, machine.config);
  ASSERT_TRUE(entry) << entry.error().message;
  EXPECT_EQ(entry->rip, 0x100'0200u);
  EXPECT_EQ(machine.at<uint8_t>(0x100'0000), 0x90);
}

// An unpacked kernel that would lie over firmware tables or outside of RAM is left to the guest.
TEST(LinuxBoot, HostUnpackFallsBack) {
  for (const uint64_t physical : {uint64_t{0x1000}, 62 * mib, uint64_t{1} << 40}) {
    const Image vmlinux = make_elf({.physical = physical, .entry = physical, .memory_size = 3 * mib, .pvh_entry = {}});
    Image payload(ZSTD_compressBound(vmlinux.size()));
    payload.resize(ZSTD_compress(payload.data(), payload.size(), vmlinux.data(), vmlinux.size(), 3));
    BzImageSpec spec;
    spec.payload = payload;
    Machine machine(64 * mib);
    machine.kernel(make_bzimage(spec));
    const auto entry = load(*machine.memory, machine.config);
    ASSERT_TRUE(entry) << entry.error().message;
    EXPECT_EQ(entry->rip, 0x100'0200u);
  }
}

TEST(LinuxBoot, AScreenIsTold) {
  Machine machine(128 * mib);
  machine.kernel(make_bzimage({}));
  ASSERT_EQ(machine.error(), "");
  EXPECT_EQ(machine.at<uint8_t>(low::zero_page + 0x0f), 0) << "no screen";
  machine.config.screen = FrameBuffer{0x1'c000'0000, 1024, 768};
  ASSERT_EQ(machine.error(), "");
  EXPECT_EQ(machine.at<uint8_t>(low::zero_page + 0x0f), 0x70);
  EXPECT_EQ(machine.at<uint32_t>(low::zero_page + 0x12), 1024u | 768u << 16);
  EXPECT_EQ(machine.at<uint16_t>(low::zero_page + 0x16), 32);
  EXPECT_EQ(machine.at<uint32_t>(low::zero_page + 0x18), 0xc000'0000u);
  EXPECT_EQ(machine.at<uint32_t>(low::zero_page + 0x1c), 1024u * 768 * 4);
  EXPECT_EQ(machine.at<uint16_t>(low::zero_page + 0x24), 4096);
  EXPECT_EQ(machine.at<uint32_t>(low::zero_page + 0x36), 2u);
  EXPECT_EQ(machine.at<uint32_t>(low::zero_page + 0x3a), 1u);
}

TEST(LinuxBoot, InitrdGoesAsHighAsTheKernelAllows) {
  const Image cpio = make_cpio(1000);
  BzImageSpec spec;
  spec.initrd_addr_max = 0x37ff'ffff;
  Machine machine(2048 * mib);
  machine.kernel(make_bzimage(spec));
  machine.initrd(cpio);
  ASSERT_EQ(machine.error(), "");
  EXPECT_EQ(machine.at<uint32_t>(low::zero_page + setup::ramdisk_image), 0x37ff'f000u);

  // Below the limit there is no room: above it where the kernel can, also above 4 GiB; else an error.
  spec.initrd_addr_max = 0x11f'ffff;
  Machine above(2048 * mib);
  above.kernel(make_bzimage(spec));
  above.initrd(cpio);
  ASSERT_EQ(above.error(), "");
  EXPECT_GT(above.at<uint32_t>(low::zero_page + setup::ramdisk_image), 2000 * mib);
  spec.xloadflags = 1;
  above.kernel(make_bzimage(spec));
  EXPECT_TRUE(mentions(above.error(), "do not fit"));
}

TEST(LinuxBoot, BadInput) {
  Machine machine(32 * mib);
  EXPECT_TRUE(mentions(machine.error(), "kernel: "));
  BzImageSpec spec;
  machine.kernel(make_bzimage(spec));
  EXPECT_EQ(machine.error(), "");

  machine.config.command_line = std::string(256, 'x');
  EXPECT_TRUE(mentions(machine.error(), "256 bytes, this kernel takes at most 255"));
  machine.config.command_line = std::string(255, 'x');
  EXPECT_EQ(machine.error(), "");
  machine.config.command_line = std::string("a\0b", 3);
  EXPECT_TRUE(mentions(machine.error(), "zero byte"));
  machine.config.command_line = "";

  machine.initrd(make_cpio(20 * mib));
  EXPECT_TRUE(mentions(machine.error(), "initrd: the initial ramdisk's 21 MiB do not fit")) << machine.error();
  machine.initrd({});
  EXPECT_TRUE(mentions(machine.error(), "initrd: an empty file"));
  machine.initrd(Image(1000, 0x42));
  EXPECT_TRUE(mentions(machine.error(), "initrd: not an initial ramdisk"));
  machine.initrd(make_cpio(10));
  EXPECT_EQ(machine.error(), "");

  spec.init_size = 40 * mib;
  machine.kernel(make_bzimage(spec));
  EXPECT_TRUE(mentions(machine.error(), "needs 57 MiB")) << machine.error();
  spec.init_size = 0xffff'0000;
  machine.kernel(make_bzimage(spec));
  EXPECT_TRUE(mentions(machine.error(), "give more --memory"));

  Machine tiny(mib);
  tiny.kernel(make_bzimage({}));
  EXPECT_TRUE(mentions(tiny.error(), "too little"));
}

TEST(PvhBoot, StartInfoAndEntry) {
  ElfSpec spec;
  spec.pvh_entry = 0x100'0040;
  Machine machine(64 * mib);
  machine.kernel(make_elf(spec));
  machine.initrd(make_cpio(5000));
  const auto entry = load(*machine.memory, machine.config);
  ASSERT_TRUE(entry) << entry.error().message;
  EXPECT_EQ(entry->mode, EntryPoint::Mode::Protected32);
  EXPECT_EQ(entry->rip, 0x100'0040u);
  EXPECT_EQ(entry->rbx, low::hvm_start_info);
  EXPECT_EQ(entry->cr0 & (x86::cr0::pe | x86::cr0::pg), x86::cr0::pe);
  EXPECT_EQ(entry->cr4, 0u);
  EXPECT_EQ(entry->efer, 0u);
  EXPECT_EQ(entry->code.attributes, 0xc09bu);
  EXPECT_EQ(machine.at<uint64_t>(entry->gdt_base + 0x10), 0x00cf'9b00'0000'ffffu);
  const Gpa info = entry->rbx;
  EXPECT_EQ(machine.at<uint32_t>(info), 0x336e'c578u);
  EXPECT_EQ(machine.at<uint32_t>(info + 4), 1u);
  EXPECT_EQ(machine.at<uint32_t>(info + 12), 1u);
  const auto modules = machine.at<uint64_t>(info + 16);
  const auto initrd_at = machine.at<uint64_t>(modules);
  EXPECT_EQ(machine.at<uint64_t>(modules + 8), make_cpio(5000).size());
  EXPECT_EQ(machine.at<uint32_t>(initrd_at), 0x3730'3730u);
  EXPECT_EQ(machine.at<uint64_t>(info + 24), low::command_line);
  EXPECT_EQ(machine.at<uint64_t>(info + 32), acpi::rsdp_address);
  const auto map = machine.at<uint64_t>(info + 40);
  const auto count = machine.at<uint32_t>(info + 48);
  ASSERT_GE(count, 6u);
  EXPECT_EQ(machine.at<uint64_t>(map), 0u);
  EXPECT_EQ(machine.at<uint64_t>(map + 8), 0x9'fc00u);
  EXPECT_EQ(machine.at<uint32_t>(map + 16), 1u);
  EXPECT_EQ(machine.at<uint8_t>(0x100'0000), 0x5a);
  EXPECT_EQ(machine.at<uint8_t>(0x100'4fff), 0);
}

TEST(PvhBoot, BadInput) {
  ElfSpec spec;
  spec.pvh_entry = 0x100'0040;
  spec.physical = 0x1000;
  Machine machine(64 * mib);
  machine.kernel(make_elf(spec));
  EXPECT_TRUE(mentions(machine.error(), "below 1 MiB"));
  spec.physical = 62 * mib;
  spec.memory_size = 10 * mib;
  machine.kernel(make_elf(spec));
  EXPECT_TRUE(mentions(machine.error(), "needs 73 MiB")) << machine.error();
  spec.physical = uint64_t{1} << 40;
  machine.kernel(make_elf(spec));
  EXPECT_TRUE(mentions(machine.error(), "give more --memory"));
}

uint8_t sum(const Machine& machine, Gpa at, size_t size) {
  unsigned total = 0;
  for (size_t i = 0; i < size; ++i) total += machine.at<uint8_t>(at + i);
  return static_cast<uint8_t>(total);
}

TEST(Firmware, TablesStandWhereTheGuestLooks) {
  Machine machine(64 * mib);
  machine.kernel(make_bzimage({}));
  machine.config.smbios.serial = "S/N \x01 1234";
  machine.config.smbios.uuid = {0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0, 1, 2, 3, 4, 5, 6, 7, 8};
  ASSERT_EQ(machine.error(), "");
  EXPECT_EQ(machine.at<uint64_t>(acpi::rsdp_address), 0x2052'5450'2044'5352u);
  EXPECT_EQ(sum(machine, acpi::rsdp_address, 36), 0);
  EXPECT_EQ(machine.at<uint32_t>(64 * mib - 4096), 0x5343'4146u);  // FACS
  EXPECT_EQ(machine.at<uint16_t>(0x40e) << 4, 0x9'fc00);

  // SMBIOS: both entry points add up and name the same structures, which parse to the end marker.
  EXPECT_EQ(sum(machine, 0xf'0000, 0x18), 0);
  EXPECT_EQ(sum(machine, 0xf'0020, 0x1f), 0);
  EXPECT_EQ(sum(machine, 0xf'0030, 0xf), 0);
  const auto size = machine.at<uint32_t>(0xf'000c);
  Gpa at = machine.at<uint64_t>(0xf'0010);
  EXPECT_EQ(machine.at<uint32_t>(0xf'0038), at);
  EXPECT_EQ(machine.at<uint16_t>(0xf'0036), size);
  const Gpa end = at + size;
  std::vector<unsigned> types;
  while (at < end) {
    const auto type = machine.at<uint8_t>(at), length = machine.at<uint8_t>(at + 1);
    ASSERT_GE(length, 4);
    types.push_back(type);
    if (type == 0) {
      EXPECT_EQ(length, 0x1a);
    }
    if (type == 1) {
      EXPECT_EQ(length, 0x1b);
      EXPECT_EQ(machine.at<uint32_t>(at + 8), 0x1234'5678u);
      EXPECT_EQ(machine.at<uint8_t>(at + 16), 1);
    }
    if (type == 4) {
      EXPECT_EQ(length, 0x30);
    }
    if (type == 16) {
      EXPECT_EQ(length, 0x17);
    }
    if (type == 17) {
      EXPECT_EQ(length, 0x28);
    }
    if (type == 19) {
      EXPECT_EQ(length, 0x1f);
    }
    at += length;
    while (machine.at<uint16_t>(at) != 0) ++at;
    at += 2;
  }
  EXPECT_EQ(at, end);
  EXPECT_EQ(types, (std::vector<unsigned>{0, 1, 3, 4, 16, 17, 19, 32, 127}));
  EXPECT_EQ(machine.at<uint16_t>(0xf'003c), types.size());
}

// --- Multiboot ---

constexpr uint32_t multiboot_magic = 0x1bad'b002;

void put_multiboot_header(Image& image, size_t at, uint32_t flags) {
  test::poke(image, at, multiboot_magic);
  test::poke(image, at + 4, flags);
  test::poke(image, at + 8, uint32_t{0} - multiboot_magic - flags);
}

// A file with addresses in its header: from byte 16 on it goes to 2 MiB, with zeroes up to `end`.
Image make_multiboot(uint32_t end = 0x20'9000, size_t size = 0x1000) {
  Image image(size, 0x42);
  put_multiboot_header(image, 64, 0x1'0003);
  const std::array<uint32_t, 5> addresses{0x20'0030, 0x20'0000, 0, end, 0x20'0123};
  test::poke(image, 76, addresses);
  return image;
}

TEST(BootMultiboot, StartsAFileByTheAddressesInItsHeader) {
  Machine machine(64 * mib);
  machine.kernel(make_multiboot());
  machine.initrd(Image(5000, 0x99));  // anything
  const auto entry = load(*machine.memory, machine.config);
  ASSERT_TRUE(entry) << entry.error().message;
  EXPECT_EQ(entry->mode, EntryPoint::Mode::Protected32);
  EXPECT_EQ(entry->rip, 0x20'0123u);
  EXPECT_EQ(entry->rax, 0x2bad'b002u);
  EXPECT_EQ(entry->cr0 & (x86::cr0::pe | x86::cr0::pg), x86::cr0::pe);
  EXPECT_EQ(machine.at<uint32_t>(0x20'0030), multiboot_magic);
  EXPECT_EQ(machine.at<uint8_t>(0x20'0000 + 0x1000 - 17), 0x42);
  EXPECT_EQ(machine.at<uint8_t>(0x20'0000 + 0x1000 - 16), 0);

  const Gpa info = entry->rbx;
  EXPECT_EQ(machine.at<uint32_t>(info), 1u | 4u | 8u | 64u | 512u);
  EXPECT_EQ(machine.at<uint32_t>(info + 4), 639u);
  const uint32_t upper = machine.at<uint32_t>(info + 8);
  EXPECT_GT(upper, 62u * 1024);
  EXPECT_LT(upper, 63u * 1024);
  std::string text(13, 0);
  ASSERT_TRUE(machine.memory->read(machine.at<uint32_t>(info + 16), {reinterpret_cast<uint8_t*>(text.data()), 13}));
  EXPECT_STREQ(text.c_str(), "console=ttyS0");
  ASSERT_EQ(machine.at<uint32_t>(info + 20), 1u);
  const Gpa module = machine.at<uint32_t>(info + 24);
  const uint32_t start = machine.at<uint32_t>(module), end = machine.at<uint32_t>(module + 4);
  EXPECT_EQ(end - start, 5000u);
  EXPECT_EQ(start % 4096, 0u);
  EXPECT_EQ(machine.at<uint8_t>(end - 1), 0x99);
  // The map, whose entries say their own size; RAM above 1 MiB is as large as mem_upper.
  const uint32_t length = machine.at<uint32_t>(info + 44);
  Gpa at = machine.at<uint32_t>(info + 48);
  bool found = false;
  for (const Gpa stop = at + length; at < stop; at += machine.at<uint32_t>(at) + 4) {
    ASSERT_EQ(machine.at<uint32_t>(at), 20u);
    if (machine.at<uint64_t>(at + 4) != mib) continue;
    found = true;
    EXPECT_EQ(machine.at<uint64_t>(at + 12) >> 10, upper);
    EXPECT_EQ(machine.at<uint32_t>(at + 20), 1u);
  }
  EXPECT_TRUE(found);
}

TEST(BootMultiboot, StartsElfFilesWhereTheyAreLinked) {
  Machine machine(64 * mib);
  ElfSpec spec;
  spec.entry = 0xffff'ffff'8000'0000 + spec.physical + 0x10;  // as the kernel sees it
  Image image = make_elf(spec);
  put_multiboot_header(image, 0x300, 3);
  machine.kernel(image);
  const auto entry = load(*machine.memory, machine.config);
  ASSERT_TRUE(entry) << entry.error().message;
  EXPECT_EQ(entry->rip, spec.physical + 0x10);
  EXPECT_EQ(machine.at<uint8_t>(spec.physical), 0x5a);
  // With a PVH entry it is started by that.
  spec.pvh_entry = 0x100'0020;
  image = make_elf(spec);
  put_multiboot_header(image, 0x300, 3);
  machine.kernel(image);
  EXPECT_EQ(load(*machine.memory, machine.config)->rip, 0x100'0020u);
}

TEST(BootMultiboot, SaysWhatIsWrong) {
  Machine machine(64 * mib);
  const auto error_of = [&](Image image) {
    machine.kernel(image);
    return machine.error();
  };
  Image video = make_multiboot();
  put_multiboot_header(video, 64, 0x1'0007);
  EXPECT_TRUE(mentions(error_of(video), "video mode"));
  Image unknown = make_multiboot();
  put_multiboot_header(unknown, 64, 0x1'0083);
  EXPECT_TRUE(mentions(error_of(unknown), "flags 0x10083"));
  Image bare = make_multiboot();
  put_multiboot_header(bare, 64, 3);
  EXPECT_TRUE(mentions(error_of(bare), "no ELF file"));
  Image wrong = make_multiboot();
  test::poke(wrong, 72, uint32_t{1});  // the sum: then it is none
  EXPECT_TRUE(mentions(error_of(wrong), "not a kernel"));
  Image late(20000);
  put_multiboot_header(late, 8192, 0x1'0003);
  EXPECT_TRUE(mentions(error_of(late), "not a kernel"));
  Image cut(8192 - 4096 + 12);
  put_multiboot_header(cut, cut.size() - 12, 0x1'0003);
  EXPECT_TRUE(mentions(error_of(cut), "truncated"));
  const auto with = [&](size_t field, uint32_t value) {
    Image image = make_multiboot();
    test::poke(image, 64 + field, value);
    return error_of(image);
  };
  EXPECT_TRUE(mentions(with(12, 0x20'0050), "cannot be"));  // its load address would be before the file
  EXPECT_TRUE(mentions(with(16, 0x20'0031), "cannot be"));
  EXPECT_TRUE(mentions(with(20, 0x20'5000), "truncated"));
  EXPECT_TRUE(mentions(with(20, 0x1f'0000), "truncated"));
  EXPECT_TRUE(mentions(with(24, 0x4000'0000), "too little"));
  Image low = make_multiboot();
  const std::array<uint32_t, 5> addresses{0x8030, 0x8000, 0, 0, 0x8000};
  test::poke(low, 76, addresses);
  EXPECT_TRUE(mentions(error_of(low), "below 1 MiB"));
}

}  // namespace
}  // namespace caisson::boot
