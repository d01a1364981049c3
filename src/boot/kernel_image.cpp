#include "boot/kernel_image.h"

#include <algorithm>
#include <bit>
#include <cerrno>

#include <sys/stat.h>
#include <unistd.h>

namespace caisson::boot {

namespace {

constexpr uint64_t max_kernel_file = uint64_t{1} << 30;
constexpr uint64_t sector = 512;
constexpr uint16_t oldest_protocol = 0x020c;
constexpr uint8_t loaded_high = 1u << 0;
constexpr uint16_t xlf_kernel_64 = 1u << 0, xlf_can_be_loaded_above_4g = 1u << 1;

struct Foreign {
  uint32_t offset;
  std::string_view magic;
  std::string_view text;
};
constexpr Foreign foreign[] = {
    {0x38, "ARM\x64", "a Linux kernel for arm64; one for x86-64 is needed"},
    {0x38, {"RSC\x05", 4}, "a Linux kernel for riscv; one for x86-64 is needed"},
    {0x30, "RISCV", "a Linux kernel for riscv; one for x86-64 is needed"},
    {0x24, {"\x18\x28\x6f\x01", 4}, "a Linux kernel for arm; one for x86-64 is needed"},
    {0, {"\x27\x05\x19\x56", 4}, "a U-Boot image; a bzImage or an ELF kernel is needed"},
    {0, {"\x1f\x8b", 2}, "a gzip file; unpack it first (gunzip)"},
    {0,
     {"\xfd"
      "7zXZ",
      5},
     "an xz file; unpack it first (unxz)"},
    {0, {"\x28\xb5\x2f\xfd", 4}, "a zstd file; unpack it first (unzstd)"},
    {0, "QFI\xfb", "a qcow2 disk image; give it with --disk"},
    {0x8001, "CD001", "a CD image, no kernel; take the kernel out of it"},
    {0, "070701", "an initial ramdisk, no kernel; give it with --initrd"},
    {0, "!<arch>\n", "a package or archive, no kernel; take the kernel out of it"},
    {0, "MZ", "an EFI program, no bzImage; firmware would be needed to start it"},
};

Result<KernelImage> parse_bzimage(Bytes file) {
  const auto u8 = [&](uint64_t at) { return read_le<uint8_t>(file, at).value_or(0); };
  const auto u16 = [&](uint64_t at) { return read_le<uint16_t>(file, at).value_or(0); };
  const auto u32 = [&](uint64_t at) { return read_le<uint32_t>(file, at).value_or(0); };
  if (file.size() < setup::end_of_zero_page_copy) {
    return fail("truncated Linux kernel: {} bytes hold not even its header; copy it again", file.size());
  }
  const uint16_t version = u16(setup::version);
  if (version < oldest_protocol) {
    return fail("a Linux kernel with boot protocol {}.{:02}; 2.12 (Linux 3.8) or later is needed", version >> 8,
                version & 0xff);
  }
  const uint16_t xloadflags = u16(setup::xloadflags);
  if ((xloadflags & xlf_kernel_64) == 0) {
    return fail("a Linux kernel for 32-bit x86 (i386); one for x86-64 is needed");
  }
  if ((u8(setup::loadflags) & loaded_high) == 0) return fail("a zImage; a bzImage is needed");
  const uint64_t sectors = u8(setup::setup_sects) == 0 ? 4 : u8(setup::setup_sects);
  const uint64_t setup_size = (sectors + 1) * sector;
  const uint64_t body_size = uint64_t{u32(setup::syssize)} * 16;
  const auto body = slice(file, setup_size, body_size);
  if (!body || body_size == 0) {
    return fail("truncated Linux kernel: {} bytes where its header says {}; copy it again", file.size(),
                setup_size + body_size);
  }
  const uint64_t header_end = setup::header + uint64_t{u8(setup::jump + 1)};
  if (u8(setup::jump) != 0xeb || header_end < setup::init_size + 4 || header_end > setup_size) {
    return fail("damaged Linux kernel: setup header of impossible length; copy it again");
  }
  BzImage image;
  image.header = file.subspan(setup::setup_sects,
                              std::min<uint64_t>(header_end, setup::end_of_zero_page_copy) - setup::setup_sects);
  image.protected_mode = *body;
  image.initrd_addr_max = u32(setup::initrd_addr_max);
  image.cmdline_size = u32(setup::cmdline_size);
  image.kernel_alignment = u32(setup::kernel_alignment);
  image.init_size = u32(setup::init_size);
  image.pref_address = uint64_t{u32(setup::pref_address)} | uint64_t{u32(setup::pref_address + 4)} << 32;
  image.relocatable = u8(setup::relocatable_kernel) != 0;
  image.above_4g = (xloadflags & xlf_can_be_loaded_above_4g) != 0;
  // The 64-bit entry stands 0x200 bytes into the body.
  if (body_size <= 0x200 || image.init_size < body_size || !std::has_single_bit(image.kernel_alignment) ||
      image.pref_address % 4096 != 0 || image.pref_address < 0x10'0000 || image.pref_address >= uint64_t{1} << 40) {
    return fail("damaged Linux kernel: its header has impossible addresses; copy it again");
  }
  if (const auto payload = slice(*body, u32(setup::payload_offset), u32(setup::payload_length)))
    image.payload = *payload;
  return image;
}

}  // namespace

Result<KernelImage> parse_kernel(Bytes file) {
  if (file.empty()) return fail("an empty file; a bzImage or an ELF kernel is needed");
  const auto multiboot = find_multiboot(file);
  if (starts_with(file,
                  "\x7f"
                  "ELF")) {
    auto elf = parse_elf(file);
    if (!elf) return std::unexpected(elf.error());
    if (!elf->pvh_entry && multiboot) return parse_multiboot(file, *multiboot);
    if (!elf->pvh_entry) {
      return fail("an ELF file for {} without a PVH entry or a Multiboot header; give the kernel's bzImage (vmlinuz)",
                  elf->is_64bit ? "x86-64" : "i386");
    }
    return std::move(*elf);
  }
  if (read_le<uint16_t>(file, setup::boot_flag) == 0xaa55 && read_le<uint32_t>(file, setup::header) == 0x5372'6448) {
    return parse_bzimage(file);
  }
  if (multiboot) return parse_multiboot(file, *multiboot);
  for (const Foreign& known : foreign) {
    const auto at = slice(file, known.offset, known.magic.size());
    if (at && starts_with(*at, known.magic)) return fail("{}", known.text);
  }
  if (file.size() < setup::end_of_zero_page_copy) {
    return fail("{} bytes that are no kernel; a bzImage or an ELF kernel is needed", file.size());
  }
  return fail("not a kernel; a Linux bzImage (vmlinuz) or an ELF kernel with a PVH entry is needed");
}

Result<uint64_t> file_size(int fd) {
  struct stat status {};
  if (fstat(fd, &status) != 0) return fail_errno(errno, "look at the file");
  if (S_ISREG(status.st_mode)) return static_cast<uint64_t>(status.st_size);
  if (S_ISBLK(status.st_mode)) {
    const off_t end = lseek(fd, 0, SEEK_END);
    if (end < 0) return fail_errno(errno, "find the device's size");
    return static_cast<uint64_t>(end);
  }
  return fail("{}; give a file", S_ISDIR(status.st_mode) ? "a directory" : "not a regular file");
}

Result<> read_file(int fd, std::span<uint8_t> out) {
  size_t done = 0;
  while (done < out.size()) {
    const ssize_t got = pread(fd, out.data() + done, out.size() - done, static_cast<off_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail_errno(errno, "read the file");
    if (got == 0) return fail("the file became shorter while it was read");
    done += static_cast<size_t>(got);
  }
  return {};
}

Result<std::vector<uint8_t>> read_kernel_file(int fd) {
  const auto size = file_size(fd);
  if (!size) return std::unexpected(size.error());
  if (*size > max_kernel_file) {
    return fail("{} MiB are too much for a kernel; a disk image is given with --disk", *size >> 20);
  }
  std::vector<uint8_t> bytes(*size);
  if (auto done = read_file(fd, bytes); !done) return std::unexpected(done.error());
  return bytes;
}

}  // namespace caisson::boot
