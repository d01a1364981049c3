#include "boot/kernel_image.h"

#include <fcntl.h>

#include <gtest/gtest.h>

#include "boot/test_images.h"

namespace caisson::boot {
namespace {

using test::BzImageSpec;
using test::ElfSpec;
using test::Image;
using test::make_bzimage;
using test::make_elf;
using test::poke;

std::string error_of(const Image& image) {
  const auto kernel = parse_kernel(image);
  return kernel ? "" : kernel.error().message;
}

bool mentions(const std::string& text, std::string_view word) { return text.find(word) != std::string::npos; }

TEST(KernelImage, BzImage) {
  const Image image = make_bzimage({});
  const auto kernel = parse_kernel(image);
  ASSERT_TRUE(kernel) << kernel.error().message;
  const auto& linux = std::get<BzImage>(*kernel);
  EXPECT_EQ(linux.payload.size(), 100u);
  EXPECT_EQ(linux.payload[0], 0x33);
  EXPECT_EQ(linux.protected_mode.size(), image.size() - 2048);
  EXPECT_EQ(linux.protected_mode[0x200], 0x90);
  EXPECT_EQ(linux.cmdline_size, 255u);
  EXPECT_EQ(linux.pref_address, 0x100'0000u);
  EXPECT_TRUE(linux.relocatable);
  EXPECT_TRUE(linux.above_4g);
  EXPECT_EQ(linux.header.size(), 0x202u + 0x6a - 0x1f1);
}

TEST(KernelImage, TruncatedBzImageAtAnyLength) {
  const Image image = make_bzimage({});
  for (size_t size = 0; size < image.size(); size += 7) {
    const std::string error = error_of(Image(image.begin(), image.begin() + static_cast<ptrdiff_t>(size)));
    ASSERT_FALSE(error.empty()) << size;
    EXPECT_EQ(error.find('\n'), std::string::npos);
    if (size >= setup::version) {
      EXPECT_TRUE(mentions(error, "truncated")) << size << ": " << error;
    }
  }
}

TEST(KernelImage, OtherLinuxKernels) {
  BzImageSpec spec;
  spec.xloadflags = 0;
  EXPECT_TRUE(mentions(error_of(make_bzimage(spec)), "i386"));
  Image old = make_bzimage({});
  poke(old, setup::version, uint16_t{0x0206});
  EXPECT_TRUE(mentions(error_of(old), "2.06"));
  Image low = make_bzimage({});
  low[setup::loadflags] = 0;
  EXPECT_TRUE(mentions(error_of(low), "zImage"));
  Image arm64(4096);
  std::memcpy(arm64.data() + 0x38, "ARM\x64", 4);
  EXPECT_TRUE(mentions(error_of(arm64), "arm64"));
  Image efi(4096);
  std::memcpy(efi.data(), "MZ", 2);
  EXPECT_TRUE(mentions(error_of(efi), "EFI"));
  const Image gzip = {0x1f, 0x8b, 8, 0};
  EXPECT_TRUE(mentions(error_of(gzip), "gunzip"));
}

TEST(KernelImage, HostileHeader) {
  const auto with = [](size_t offset, auto value) {
    Image image = make_bzimage({});
    poke(image, offset, value);
    return error_of(image);
  };
  EXPECT_TRUE(mentions(with(setup::syssize, ~0u), "truncated"));
  EXPECT_TRUE(mentions(with(setup::syssize, 0u), "truncated"));
  EXPECT_TRUE(mentions(with(setup::setup_sects, uint8_t{255}), "truncated"));
  EXPECT_TRUE(mentions(with(setup::jump + 1, uint8_t{3}), "damaged"));
  EXPECT_TRUE(mentions(with(setup::kernel_alignment, 0u), "damaged"));
  EXPECT_TRUE(mentions(with(setup::kernel_alignment, 3u), "damaged"));
  EXPECT_TRUE(mentions(with(setup::init_size, 16u), "damaged"));
  EXPECT_TRUE(mentions(with(setup::pref_address, ~uint64_t{0}), "damaged"));
  EXPECT_TRUE(mentions(with(setup::pref_address, uint64_t{0}), "damaged"));
  // A payload that is not there only means that the guest unpacks.
  Image image = make_bzimage({});
  poke(image, setup::payload_length, ~0u);
  const auto kernel = parse_kernel(image);
  ASSERT_TRUE(kernel);
  EXPECT_TRUE(std::get<BzImage>(*kernel).payload.empty());
}

TEST(KernelImage, PvhElf) {
  ElfSpec spec;
  spec.pvh_entry = 0x100'0040;
  const Image image = make_elf(spec);
  const auto kernel = parse_kernel(image);
  ASSERT_TRUE(kernel) << kernel.error().message;
  const auto& elf = std::get<ElfImage>(*kernel);
  EXPECT_EQ(elf.pvh_entry, 0x100'0040u);
  EXPECT_EQ(elf.entry, 0x100'0010u);
  ASSERT_EQ(elf.segments.size(), 1u);
  EXPECT_EQ(elf.segments[0].physical, 0x100'0000u);
  EXPECT_EQ(elf.segments[0].contents.size(), 0x1234u);
  EXPECT_EQ(elf.lowest, 0x100'0000u);
  EXPECT_EQ(elf.end, 0x100'5000u);
  EXPECT_TRUE(mentions(error_of(make_elf({})), "without a PVH entry"));
}

TEST(KernelImage, ForeignAndDamagedElf) {
  ElfSpec spec;
  spec.pvh_entry = 0x100'0040;
  const auto with = [&](size_t offset, auto value) {
    Image image = make_elf(spec);
    poke(image, offset, value);
    return error_of(image);
  };
  EXPECT_TRUE(mentions(with(EI_DATA, uint8_t{ELFDATA2MSB}), "big-endian"));
  EXPECT_TRUE(mentions(with(offsetof(Elf64_Ehdr, e_machine), uint16_t{EM_AARCH64}), "arm64"));
  EXPECT_TRUE(mentions(with(offsetof(Elf64_Ehdr, e_type), uint16_t{ET_REL}), "object file"));
  EXPECT_TRUE(mentions(with(offsetof(Elf64_Ehdr, e_phoff), ~uint64_t{0}), "truncated"));
  EXPECT_TRUE(mentions(with(offsetof(Elf64_Ehdr, e_phnum), uint16_t{65535}), "65535"));
  EXPECT_FALSE(with(offsetof(Elf64_Ehdr, e_phentsize), uint16_t{1}).empty());
  const size_t first = sizeof(Elf64_Ehdr);
  EXPECT_TRUE(mentions(with(first + offsetof(Elf64_Phdr, p_offset), ~uint64_t{0}), "truncated"));
  EXPECT_FALSE(with(first + offsetof(Elf64_Phdr, p_filesz), ~uint64_t{0}).empty());
  EXPECT_TRUE(mentions(with(first + offsetof(Elf64_Phdr, p_memsz), ~uint64_t{0}), "address space"));
  EXPECT_FALSE(with(first + offsetof(Elf64_Phdr, p_memsz), uint64_t{1}).empty());
  const Image image = make_elf(spec);
  for (size_t size = 0; size < image.size(); size += 5) {
    EXPECT_FALSE(error_of(Image(image.begin(), image.begin() + static_cast<ptrdiff_t>(size))).empty()) << size;
  }
}

TEST(KernelImage, OverlappingSegmentsAreRefused) {
  ElfSpec spec;
  spec.pvh_entry = 0x100'0040;
  Image image = make_elf(spec);
  Elf64_Phdr first;
  std::memcpy(&first, image.data() + sizeof(Elf64_Ehdr), sizeof first);
  first.p_paddr += 0x1000;
  poke(image, sizeof(Elf64_Ehdr) + sizeof first, first);
  EXPECT_TRUE(mentions(error_of(image), "overlap"));
}

// Note sizes near 2^32 must neither reach out of the segment nor loop.
TEST(KernelImage, HostileNotes) {
  ElfSpec spec;
  spec.pvh_entry = 0x100'0040;
  for (const uint32_t value : {0u, 1u, 3u, 0x7fff'ffffu, 0xffff'fffdu, 0xffff'ffffu}) {
    for (size_t field = 0; field < 7; ++field) {
      Image image = make_elf(spec);
      poke(image, 0x200 + 4 * field, value);
      (void)parse_kernel(image);
    }
  }
}

TEST(KernelImage, NoKernelAtAll) {
  EXPECT_TRUE(mentions(error_of({}), "empty"));
  EXPECT_FALSE(error_of({1, 2, 3}).empty());
  uint32_t state = 1;
  for (int i = 0; i < 200; ++i) {
    Image noise(1 + static_cast<size_t>(i) * 37);
    for (uint8_t& byte : noise) byte = static_cast<uint8_t>((state = state * 1664525 + 1013904223) >> 24);
    EXPECT_FALSE(error_of(noise).empty());
  }
}

TEST(KernelImage, FilesThatAreNoFiles) {
  const Fd directory{open("/", O_RDONLY | O_DIRECTORY)};
  const auto from_directory = read_kernel_file(directory.get());
  ASSERT_FALSE(from_directory);
  EXPECT_TRUE(mentions(from_directory.error().message, "directory"));
  EXPECT_FALSE(read_kernel_file(-1));
  const Image image = make_bzimage({});
  const Fd file = test::make_file(image);  // its position is at the end
  const auto bytes = read_kernel_file(file.get());
  ASSERT_TRUE(bytes);
  EXPECT_EQ(*bytes, image);
}

}  // namespace
}  // namespace caisson::boot
