// Small kernels and ramdisks that tests build by hand.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <elf.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"
#include "boot/bytes.h"
#include "boot/kernel_image.h"

namespace caisson::boot::test {

using Image = std::vector<uint8_t>;

template <class T>
void poke(Image& image, size_t offset, T value) {
  std::memcpy(image.data() + offset, &value, sizeof value);
}

struct ElfSpec {
  uint64_t physical = 0x100'0000;
  uint64_t entry = 0x100'0010;
  uint64_t memory_size = 0x5000;
  Image contents = Image(0x1234, 0x5a);
  std::optional<uint32_t> pvh_entry;
};

// One loadable segment behind the headers and, with pvh_entry, a note segment.
inline Image make_elf(const ElfSpec& spec) {
  constexpr size_t note_at = 0x200, body_at = 0x400;
  Image image(body_at + spec.contents.size());
  Elf64_Ehdr header{};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_ident[EI_VERSION] = EV_CURRENT;
  header.e_type = ET_EXEC;
  header.e_machine = EM_X86_64;
  header.e_version = EV_CURRENT;
  header.e_entry = spec.entry;
  header.e_phoff = sizeof header;
  header.e_ehsize = sizeof header;
  header.e_phentsize = sizeof(Elf64_Phdr);
  header.e_phnum = spec.pvh_entry ? 2 : 1;
  poke(image, 0, header);
  poke(image, sizeof header,
       Elf64_Phdr{PT_LOAD, PF_R | PF_X, body_at, 0xffff'ffff'8000'0000 + spec.physical, spec.physical,
                  spec.contents.size(), spec.memory_size, 4096});
  std::copy(spec.contents.begin(), spec.contents.end(), image.begin() + body_at);
  if (spec.pvh_entry) {
    // A foreign note first: {4, 4, 1, "GNU", …}, then Xen's.
    const std::array<uint32_t, 10> notes = {4, 4, 1, 0x00554e47, 7, 4, 4, 18, 0x006e6558, *spec.pvh_entry};
    poke(image, note_at, notes);
    poke(image, sizeof header + sizeof(Elf64_Phdr),
         Elf64_Phdr{PT_NOTE, PF_R, note_at, 0, 0, sizeof notes, sizeof notes, 4});
  }
  return image;
}

struct BzImageSpec {
  Image payload = Image(100, 0x33);  // as is, packed or not
  uint32_t init_size = 0x20'0000;
  uint32_t initrd_addr_max = 0x7fff'ffff;
  uint16_t xloadflags = 3;
  uint32_t cmdline_size = 255;
};

inline Image make_bzimage(const BzImageSpec& spec) {
  constexpr size_t sectors = 3, body_at = (sectors + 1) * 512, payload_at = 0x300;
  const size_t body = (payload_at + spec.payload.size() + 15) / 16 * 16;
  Image image(body_at + body);
  image[setup::setup_sects] = sectors;
  poke(image, setup::syssize, static_cast<uint32_t>(body / 16));
  poke(image, setup::boot_flag, uint16_t{0xaa55});
  poke(image, setup::jump, uint16_t{0x6aeb});
  std::memcpy(image.data() + setup::header, "HdrS", 4);
  poke(image, setup::version, uint16_t{0x20f});
  image[setup::loadflags] = 1;
  poke(image, setup::initrd_addr_max, spec.initrd_addr_max);
  poke(image, setup::kernel_alignment, uint32_t{0x20'0000});
  image[setup::relocatable_kernel] = 1;
  poke(image, setup::xloadflags, spec.xloadflags);
  poke(image, setup::cmdline_size, spec.cmdline_size);
  poke(image, setup::payload_offset, static_cast<uint32_t>(payload_at));
  poke(image, setup::payload_length, static_cast<uint32_t>(spec.payload.size()));
  poke(image, setup::setup_data, uint64_t{0x6666'6666'6666});
  poke(image, setup::pref_address, uint64_t{0x100'0000});
  poke(image, setup::init_size, spec.init_size);
  std::fill(image.begin() + body_at, image.begin() + body_at + payload_at, uint8_t{0x90});
  std::copy(spec.payload.begin(), spec.payload.end(), image.begin() + body_at + payload_at);
  return image;
}

// A newc archive with one file of `size` bytes.
inline Image make_cpio(size_t size) {
  Image out;
  const auto add = [&](std::string_view name, size_t length) {
    const std::string header =
        fmt::format("070701{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}", 1, 0x81a4,
                    0, 0, 1, 0, length, 0, 0, 0, 0, name.size() + 1, 0);
    out.insert(out.end(), header.begin(), header.end());
    out.insert(out.end(), name.begin(), name.end());
    out.push_back(0);
    while (out.size() % 4 != 0) out.push_back(0);
    out.insert(out.end(), length, 0x77);
    while (out.size() % 4 != 0) out.push_back(0);
  };
  add("init", size);
  add("TRAILER!!!", 0);
  return out;
}

// An open file with these bytes.
inline Fd make_file(const Image& bytes) {
  Fd fd{memfd_create("caisson-test", MFD_CLOEXEC)};
  if (fd.valid() && ::write(fd.get(), bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size())) fd.reset();
  return fd;
}

}  // namespace caisson::boot::test
