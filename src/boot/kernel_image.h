// Recognises what a user gives as a kernel, and says in one line why something else is none.
//   Spec     Linux Documentation/x86/boot.rst (names of the setup header's fields); ELF: elf.h
//   Models   bzImage with the 64-bit boot protocol (2.12, Linux 3.8, and later); ELF with a PVH entry; Multiboot
//   Omits    16- and 32-bit boot protocols of Linux
//   Threads  none; the file is untrusted, all its values are checked here, once
#pragma once

#include <cstdint>
#include <variant>
#include <vector>

#include "base/result.h"
#include "boot/bytes.h"
#include "boot/elf.h"
#include "boot/multiboot_image.h"

namespace caisson::boot {

// Where the setup header stands in a bzImage and, at the same offset, in the zero page.
namespace setup {
enum Offset : uint16_t {
  setup_sects = 0x1f1,
  syssize = 0x1f4,
  vid_mode = 0x1fa,
  boot_flag = 0x1fe,
  jump = 0x200,
  header = 0x202,
  version = 0x206,
  type_of_loader = 0x210,
  loadflags = 0x211,
  ramdisk_image = 0x218,
  ramdisk_size = 0x21c,
  cmd_line_ptr = 0x228,
  initrd_addr_max = 0x22c,
  kernel_alignment = 0x230,
  relocatable_kernel = 0x234,
  xloadflags = 0x236,
  cmdline_size = 0x238,
  payload_offset = 0x248,
  payload_length = 0x24c,
  setup_data = 0x250,
  pref_address = 0x258,
  init_size = 0x260,
  end_of_zero_page_copy = 0x290
};
}  // namespace setup

struct BzImage {
  Bytes header;          // setup header from setup::setup_sects on, as long as the kernel says
  Bytes protected_mode;  // goes to memory
  Bytes payload;         // the compressed kernel within; empty where the header names none
  uint32_t initrd_addr_max = 0;
  uint32_t cmdline_size = 0;  // longest command line without its final zero
  uint32_t kernel_alignment = 0;
  uint32_t init_size = 0;
  uint64_t pref_address = 0;
  bool relocatable = false;
  bool above_4g = false;  // initrd, command line and zero page may lie above 4 GiB
};

using KernelImage = std::variant<BzImage, ElfImage, MultibootImage>;

// The result refers to `file`.
[[nodiscard]] Result<KernelImage> parse_kernel(Bytes file);

// All bytes of an open regular file or block device, from its beginning whatever its position is. Opens nothing.
[[nodiscard]] Result<uint64_t> file_size(int fd);
[[nodiscard]] Result<> read_file(int fd, std::span<uint8_t> out);
[[nodiscard]] Result<std::vector<uint8_t>> read_kernel_file(int fd);

}  // namespace caisson::boot
