#include "boot/elf.h"

#include <algorithm>

#include <elf.h>

namespace caisson::boot {

namespace {

constexpr uint32_t note_phys32_entry = 18;
constexpr size_t max_segments = 256, max_headers = 1024;

std::string_view machine_name(uint16_t machine) {
  switch (machine) {
    case EM_AARCH64: return "arm64";
    case EM_ARM: return "arm";
    case EM_386: return "i386";
    case EM_RISCV: return "riscv";
    case EM_PPC:
    case EM_PPC64: return "powerpc";
    case EM_S390: return "s390x";
    case EM_MIPS: return "mips";
    case EM_SPARC:
    case EM_SPARCV9: return "sparc";
    case EM_IA_64: return "ia64";
    case 258: return "loongarch";
    default: return "another";
  }
}

struct ProgramHeader {
  uint32_t type = 0;
  uint64_t offset = 0, linked = 0, physical = 0, file_size = 0, memory_size = 0, align = 0;
};

std::optional<ProgramHeader> read_program_header(Bytes file, uint64_t at, bool is_64bit) {
  if (is_64bit) {
    const auto raw = slice(file, at, sizeof(Elf64_Phdr));
    if (!raw) return std::nullopt;
    Elf64_Phdr header;
    std::memcpy(&header, raw->data(), sizeof header);
    return ProgramHeader{header.p_type,   header.p_offset, header.p_vaddr, header.p_paddr,
                         header.p_filesz, header.p_memsz,  header.p_align};
  }
  const auto raw = slice(file, at, sizeof(Elf32_Phdr));
  if (!raw) return std::nullopt;
  Elf32_Phdr header;
  std::memcpy(&header, raw->data(), sizeof header);
  return ProgramHeader{header.p_type,   header.p_offset, header.p_vaddr, header.p_paddr,
                       header.p_filesz, header.p_memsz,  header.p_align};
}

// Notes: {namesz, descsz, type}, name and descriptor each padded to 4 (or, by p_align, 8) bytes.
std::optional<uint32_t> find_pvh_entry(Bytes notes, uint64_t align) {
  const uint64_t unit = align == 8 ? 8 : 4;
  const auto padded = [unit](uint64_t size) { return (size + unit - 1) / unit * unit; };
  uint64_t at = 0;
  while (true) {
    const auto name_size = read_le<uint32_t>(notes, at), size = read_le<uint32_t>(notes, at + 4),
               type = read_le<uint32_t>(notes, at + 8);
    if (!name_size || !size || !type) return std::nullopt;
    const uint64_t name_at = at + 12, descriptor_at = name_at + padded(*name_size);
    const auto name = slice(notes, name_at, *name_size);
    if (!name) return std::nullopt;
    if (*type == note_phys32_entry && *name_size == 4 && starts_with(*name, "Xen")) {
      // 4 or 8 bytes; the address has 32 bits either way.
      if (*size == 4) return read_le<uint32_t>(notes, descriptor_at);
      const auto wide = read_le<uint64_t>(notes, descriptor_at);
      if (*size == 8 && wide && *wide <= UINT32_MAX) return static_cast<uint32_t>(*wide);
      return std::nullopt;
    }
    at = descriptor_at + padded(*size);
  }
}

Result<> add_segment(ElfImage& image, Bytes file, const ProgramHeader& header) {
  if (header.memory_size == 0) return {};
  if (header.file_size > header.memory_size) return fail("ELF segment with more bytes in the file than in memory");
  const auto contents = slice(file, header.offset, header.file_size);
  if (!contents) {
    return fail("truncated ELF file: a segment ends at byte {} of {}", header.offset + header.file_size, file.size());
  }
  if (header.physical + header.memory_size < header.physical) return fail("ELF segment beyond the address space");
  for (const ElfSegment& other : image.segments) {
    if (header.physical < other.physical + other.memory_size && other.physical < header.physical + header.memory_size) {
      return fail("ELF segments at {:#x} and {:#x} overlap", other.physical, header.physical);
    }
  }
  if (image.segments.size() == max_segments) return fail("ELF file with more than {} segments", max_segments);
  image.segments.push_back({header.physical, header.memory_size, *contents, header.linked});
  return {};
}

}  // namespace

Result<ElfImage> parse_elf(Bytes file) {
  if (!starts_with(file, ELFMAG)) return fail("not an ELF file");
  if (file.size() < sizeof(Elf32_Ehdr)) return fail("truncated ELF file of {} bytes", file.size());
  ElfImage image;
  const uint8_t file_class = file[EI_CLASS];
  if (file[EI_DATA] != ELFDATA2LSB) {
    return fail("ELF file for a big-endian CPU; a kernel for x86-64 is needed");
  }
  const auto machine = read_le<uint16_t>(file, offsetof(Elf32_Ehdr, e_machine));
  image.is_64bit = file_class == ELFCLASS64;
  if ((*machine != EM_X86_64 && *machine != EM_386) || (file_class != ELFCLASS64 && file_class != ELFCLASS32)) {
    return fail("ELF file for {} CPUs; a kernel for x86-64 is needed", machine_name(*machine));
  }
  if (image.is_64bit && file.size() < sizeof(Elf64_Ehdr)) return fail("truncated ELF file of {} bytes", file.size());
  const auto type = read_le<uint16_t>(file, offsetof(Elf32_Ehdr, e_type));
  if (*type != ET_EXEC && *type != ET_DYN) return fail("ELF file that is no executable (an object file or a core)");

  uint64_t headers_at = 0;
  uint16_t entry_size = 0, count = 0;
  const auto take = [&](const auto& header) {
    image.entry = header.e_entry;
    headers_at = header.e_phoff;
    entry_size = header.e_phentsize;
    count = header.e_phnum;
  };
  if (image.is_64bit) {
    Elf64_Ehdr header;
    std::memcpy(&header, file.data(), sizeof header);
    take(header);
  } else {
    Elf32_Ehdr header;
    std::memcpy(&header, file.data(), sizeof header);
    take(header);
  }
  if (entry_size != (image.is_64bit ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr))) {
    return fail("ELF file with program headers of {} bytes", entry_size);
  }
  if (count > max_headers) return fail("ELF file with {} program headers", count);
  if (!slice(file, headers_at, uint64_t{entry_size} * count)) {
    return fail("truncated ELF file: {} program headers at byte {} of {}", count, headers_at, file.size());
  }
  for (uint64_t i = 0; i < count; ++i) {
    const auto header = read_program_header(file, headers_at + i * entry_size, image.is_64bit);
    if (!header) return fail("truncated ELF file");
    if (header->type == PT_LOAD) {
      if (auto done = add_segment(image, file, *header); !done) return std::unexpected(done.error());
    } else if (header->type == PT_NOTE && !image.pvh_entry) {
      if (const auto notes = slice(file, header->offset, header->file_size)) {
        image.pvh_entry = find_pvh_entry(*notes, header->align);
      }
    }
  }
  if (image.segments.empty()) return fail("ELF file without loadable segments");
  image.lowest = UINT64_MAX;
  for (const ElfSegment& segment : image.segments) {
    image.lowest = std::min(image.lowest, segment.physical);
    image.end = std::max(image.end, segment.physical + segment.memory_size);
  }
  return image;
}

}  // namespace caisson::boot
