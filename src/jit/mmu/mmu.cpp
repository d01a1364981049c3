#include "jit/mmu/mmu.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "jit/direct/direct.h"
#include "jit/engine.h"
#include "jit/mmu/mirror.h"
#include "jit/mmu/page_walk.h"
#include "jit/profile.h"
#include "jit/trial_log.h"

namespace caisson::jit::mmu {
namespace {

using namespace x86;

TlbMode mode_of(const Cpu& cpu, As as) {
  if (as == As::Current) return cpu.tlb_mode;
  return (cpu.cr4 & cr4::smap) ? TlbMode::Supervisor : TlbMode::SupervisorUser;
}

// One access of 1, 2, 4 or 8 bytes is one host access; anything else is bytes.
void copy(void* to, const void* from, unsigned size) {
  switch (size) {
    case 1: __builtin_memcpy(to, from, 1); break;
    case 2: __builtin_memcpy(to, from, 2); break;
    case 4: __builtin_memcpy(to, from, 4); break;
    case 8: __builtin_memcpy(to, from, 8); break;
    default: std::memcpy(to, from, size); break;
  }
}

bool is_local_apic(const Cpu& cpu, Gpa gpa) {
  const uint64_t base = cpu.interrupts->apic_base();
  return (base & 0xc00) == 0x800 && (gpa & ~Gpa{0xfff}) == (base & 0xf'ffff'f000);
}

void device_read(Cpu& cpu, Gpa gpa, uint8_t* out, unsigned size) {
  const ProfileScope profiled(cpu, Doing::Devices);
  while (size > 0) {
    // Naturally sized pieces: the bus knows 1, 2, 4 and 8.
    const unsigned piece = size >= 8 ? 8 : size >= 4 ? 4 : size >= 2 ? 2 : 1;
    uint64_t value;
    if (is_local_apic(cpu, gpa)) {
      // The register's 32 bits, from the byte asked for (vol. 3, 11.4.1: other widths are undefined).
      value = uint64_t{cpu.interrupts->read_register(gpa & 0xff0)} >> (8 * (gpa & 3));
    } else {
      value = cpu.bus->read(Space::Memory, gpa, piece);
    }
    std::memcpy(out, &value, piece);
    out += piece;
    gpa += piece;
    size -= piece;
  }
}

void device_write(Cpu& cpu, Gpa gpa, const uint8_t* in, unsigned size) {
  const ProfileScope profiled(cpu, Doing::Devices);
  while (size > 0) {
    const unsigned piece = size >= 8 ? 8 : size >= 4 ? 4 : size >= 2 ? 2 : 1;
    uint64_t value = 0;
    std::memcpy(&value, in, piece);
    if (is_local_apic(cpu, gpa)) {
      if ((gpa & 15) == 0 && piece >= 4) cpu.interrupts->write_register(gpa & 0xff0, static_cast<uint32_t>(value));
    } else {
      cpu.bus->write(Space::Memory, gpa, piece, value);
    }
    in += piece;
    gpa += piece;
    size -= piece;
  }
}

Filled resolve(Cpu& cpu, uint64_t linear, Access access, As as) {
  const TlbMode mode = mode_of(cpu, as);
  const Tlb& cache = cpu.tlb[static_cast<unsigned>(mode)];
  const unsigned slot = linear >> 12 & (tlb_entries - 1);
  const uint64_t page = linear & ~uint64_t{0xfff};
  const uint64_t tag = access == Access::Write ? cache.write_tag[slot] : cache.read_tag[slot];
  if (tag == page && access != Access::Execute) {
    uint8_t* host = reinterpret_cast<uint8_t*>(linear + cache.addend[slot]);
    return {.ok = true, .ram = true, .direct = true, .gpa = static_cast<Gpa>(host - cpu.memory->base()), .host = host};
  }
  if (!cpu.long_mode) linear &= 0xffff'ffff;
  const Filled filled = fill(cpu, linear, access, mode);
  if (cpu.trial != nullptr && filled.ok && (!filled.ram || (access == Access::Write && !filled.direct))) {
    raise(cpu, Mc);  // whatever it is: a trial run ends here
    return {};
  }
  return filled;
}

// A trial run is about to write there.
void note(Cpu& cpu, uint8_t* host, unsigned size) {
  if (cpu.trial != nullptr) cpu.trial->note(host, size);
}

void store(Cpu& cpu, const Filled& to, const uint8_t* in, unsigned size) {
  if (!to.ram) {
    device_write(cpu, to.gpa, in, size);
    return;
  }
  note(cpu, to.host, size);
  copy(to.host, in, size);
  if (!to.direct) cpu.memory->written(to.gpa, size);
}

unsigned left_in_page(uint64_t linear) { return static_cast<unsigned>(page_size - (linear & 0xfff)); }

}  // namespace

bool read_bytes(Cpu& cpu, uint64_t linear, void* out, unsigned size, As as) {
  auto* to = static_cast<uint8_t*>(out);
  while (size > 0) {
    const unsigned piece = std::min(size, left_in_page(linear));
    const Filled from = resolve(cpu, linear, Access::Read, as);
    if (!from.ok) return false;
    if (from.ram) {
      copy(to, from.host, piece);
    } else {
      device_read(cpu, from.gpa, to, piece);
    }
    to += piece;
    linear += piece;
    size -= piece;
  }
  return true;
}

bool write_bytes(Cpu& cpu, uint64_t linear, const void* in, unsigned size, As as) {
  const auto* from = static_cast<const uint8_t*>(in);
  if (size <= left_in_page(linear)) {
    const Filled to = resolve(cpu, linear, Access::Write, as);
    if (!to.ok) return false;
    store(cpu, to, from, size);
    return true;
  }
  if (!probe(cpu, linear, size, Access::Write, as)) return false;
  while (size > 0) {
    const unsigned piece = std::min(size, left_in_page(linear));
    const Filled to = resolve(cpu, linear, Access::Write, as);
    if (!to.ok) return false;
    store(cpu, to, from, piece);
    from += piece;
    linear += piece;
    size -= piece;
  }
  return true;
}

bool probe(Cpu& cpu, uint64_t linear, unsigned size, Access access, As as) {
  for (uint64_t at = linear;;) {
    if (!resolve(cpu, at, access, as).ok) return false;
    const unsigned piece = left_in_page(at);
    if (size <= piece) return true;
    size -= piece;
    at += piece;
  }
}

Host host_for_write(Cpu& cpu, uint64_t linear, unsigned size) {
  if (size > left_in_page(linear)) {
    if (!probe(cpu, linear, size, Access::Write)) return {};
    return {};
  }
  const Filled to = resolve(cpu, linear, Access::Write, As::Current);
  if (!to.ok || !to.ram) return {};
  note(cpu, to.host, size);
  return {.pointer = to.host, .gpa = to.gpa};
}

Host host_for_read(Cpu& cpu, uint64_t linear, unsigned size) {
  if (size > left_in_page(linear)) return {};
  const Filled from = resolve(cpu, linear, Access::Read, As::Current);
  if (!from.ok || !from.ram) return {};
  return {.pointer = from.host, .gpa = from.gpa};
}

void wrote(Cpu& cpu, const Host& host, unsigned size) { cpu.memory->written(host.gpa, size); }

unsigned run_for_read(Cpu& cpu, uint64_t linear, unsigned size, uint8_t*& host) {
  const Filled from = resolve(cpu, linear, Access::Read, As::Current);
  if (!from.ok || !from.ram) return 0;
  host = from.host;
  return std::min(size, left_in_page(linear));
}

unsigned run_for_write(Cpu& cpu, uint64_t linear, unsigned size, Host& host) {
  const Filled to = resolve(cpu, linear, Access::Write, As::Current);
  if (!to.ok || !to.ram) return 0;
  host = {.pointer = to.host, .gpa = to.gpa};
  const unsigned run = std::min(size, left_in_page(linear));
  note(cpu, to.host, run);
  return run;
}

unsigned fetch(Cpu& cpu, uint64_t linear, uint8_t* out) {
  constexpr unsigned longest = 15;
  CodePage page;
  if (!code_page(cpu, linear, page)) return 0;
  unsigned size = std::min(longest, left_in_page(linear));
  if (page.host != nullptr) {
    std::memcpy(out, page.host + (linear & 0xfff), size);
  } else {
    device_read(cpu, page.gpa | (linear & 0xfff), out, size);
  }
  if (size == longest) return size;
  uint64_t next = linear + size;
  if (!cpu.long_mode) next &= 0xffff'ffff;
  if (!code_page(cpu, next, page)) {
    cpu.fault = {};
    return size;
  }
  if (page.host != nullptr) {
    std::memcpy(out + size, page.host, longest - size);
  } else {
    device_read(cpu, page.gpa, out + size, longest - size);
  }
  return longest;
}

bool fetch_fault(Cpu& cpu, uint64_t linear) {
  CodePage page;
  const uint64_t next = (linear | 0xfff) + 1;
  if (code_page(cpu, cpu.long_mode ? next : next & 0xffff'ffff, page)) return true;
  return false;
}

bool debug_translate(const Cpu& cpu, uint64_t linear, Gpa& out) {
  if (!cpu.paging) {
    out = linear & 0xffff'ffff;
    return true;
  }
  const bool wide = cpu.long_mode || (cpu.cr4 & cr4::pae);
  uint64_t table = cpu.cr3 & (cpu.long_mode ? address_mask : 0xffff'f000ull);
  unsigned level = cpu.long_mode ? 4 : 2;
  if (!cpu.long_mode && wide) {
    const uint64_t pdpte = cpu.pdpte[linear >> 30 & 3];
    if ((pdpte & 1) == 0) return false;
    table = pdpte & address_mask;
  }
  for (;; --level) {
    const unsigned bits = wide ? 9 : 10;
    const unsigned shift = 12 + bits * (level - 1);
    const auto index = static_cast<unsigned>(linear >> shift & ((1u << bits) - 1));
    uint64_t value = 0;
    uint32_t narrow = 0;
    const bool readable =
        wide ? cpu.memory->read_object(table + index * 8, value) : cpu.memory->read_object(table + index * 4, narrow);
    if (!wide) value = narrow;
    if (!readable || (value & 1) == 0) return false;
    if (level == 1 || (level <= 3 && (value & 0x80))) {
      const uint64_t mask = (uint64_t{1} << shift) - 1;
      out = (value & address_mask & ~mask) | (linear & mask);
      return true;
    }
    table = value & address_mask;
  }
}

// --- invalidation ----------------------------------------------------------------------------------------------------

namespace {

void drop(Tlb& cache, unsigned slot) {
  cache.read_tag[slot] = invalid_tag;
  cache.write_tag[slot] = invalid_tag;
}

}  // namespace

void drop_stack_page(Cpu& cpu, TlbMode mode) {
  constexpr uint64_t nowhere = 0x8000'0000'0000'0000;
  // The inaccessible page behind the guest's memory.
  const auto guard = reinterpret_cast<uint64_t>(cpu.memory->base() + cpu.memory->end());
  cpu.stack_pages[static_cast<unsigned>(mode)] = {.page = nowhere, .addend = guard - nowhere};
  cpu.stack_pages_global[static_cast<unsigned>(mode)] = false;
}

void drop_stack_pages(Cpu& cpu) {
  for (const TlbMode mode : {TlbMode::Supervisor, TlbMode::SupervisorUser, TlbMode::User}) drop_stack_page(cpu, mode);
}

void flush_all(Cpu& cpu) {
  drop_stack_pages(cpu);
  ++cpu.flushes;
  const ProfileScope profiled(cpu, Doing::Flush);
  if (cpu.profile != nullptr) cpu.profile->count(Profile::full_flushes);
  for (Tlb& cache : cpu.tlb) {
    cache.read_tag.fill(invalid_tag);
    cache.write_tag.fill(invalid_tag);
  }
  for (CodePage& page : cpu.code_pages) page.linear = invalid_tag;
  cpu.walk_memory.drop_all();
  if (cpu.mirror != nullptr) cpu.mirror->drop_all();
  if (cpu.direct != nullptr) cpu.direct->drop_all();
  cpu.large_pages = {};
  cpu.large_code_pages = {};
  cpu.engine->code_mapping_flushed(cpu, true);
}

void flush_non_global(Cpu& cpu) {
  ++cpu.flushes;
  const ProfileScope profiled(cpu, Doing::Flush);
  if (cpu.profile != nullptr) cpu.profile->count(Profile::partial_flushes);
  for (unsigned mode = 0; mode < cpu.tlb.size(); ++mode) {
    if (!cpu.stack_pages_global[mode]) drop_stack_page(cpu, static_cast<TlbMode>(mode));
    if (!cpu.tlb_local[mode]) continue;
    cpu.tlb_local[mode] = false;
    Tlb& cache = cpu.tlb[mode];
    // User mappings are practically never global.
    if (mode == static_cast<unsigned>(TlbMode::User)) {
      cache.read_tag.fill(invalid_tag);
      cache.write_tag.fill(invalid_tag);
      continue;
    }
    for (unsigned slot = 0; slot < tlb_entries; ++slot) {
      const uint64_t stays = uint64_t{0} - (cache.global[slot] & 1u);
      cache.read_tag[slot] = (cache.read_tag[slot] & stays) | (invalid_tag & ~stays);
      cache.write_tag[slot] = (cache.write_tag[slot] & stays) | (invalid_tag & ~stays);
    }
  }
  for (uint64_t groups = std::exchange(cpu.code_pages_local, 0); groups != 0; groups &= groups - 1) {
    const auto first = cpu.code_pages.begin() + std::countr_zero(groups) * code_page_group;
    for (auto page = first; page != first + code_page_group; ++page) {
      if (!page->global || page->user) page->linear = invalid_tag;
    }
  }
  cpu.engine->code_mapping_flushed(cpu, false);
}

void flush_page(Cpu& cpu, uint64_t linear) {
  const unsigned large_shift = cpu.long_mode || (cpu.cr4 & cr4::pae) ? 21 : 22;
  ++cpu.flushes;
  const ProfileScope profiled(cpu, Doing::Flush);
  if (cpu.profile != nullptr) cpu.profile->count(Profile::page_flushes);
  const uint64_t page = linear & ~uint64_t{0xfff};
  const unsigned slot = linear >> 12 & (tlb_entries - 1);
  for (Tlb& cache : cpu.tlb) drop(cache, slot);
  drop_stack_pages(cpu);
  if (cpu.mirror != nullptr) cpu.mirror->drop_page(linear);
  if (cpu.direct != nullptr) cpu.direct->drop_page(linear);
  CodePage& code = cpu.code_pages[linear >> 12 & (code_page_entries - 1)];
  if (code.linear == page) code.linear = invalid_tag;
  // A page of a larger mapping goes with the whole mapping (vol. 3, 4.10.4.1), which is cached here in 4 KiB pieces.
  // Which is a walk away, so everything in its reach goes.
  const bool huge = cpu.large_pages.may_have_gib(linear);
  const unsigned reach = huge ? 30 : large_shift;
  if (cpu.large_pages.may_have(linear)) {
    for (Tlb& cache : cpu.tlb) {
      for (unsigned i = 0; i < tlb_entries; ++i) {
        if ((cache.global[i] & 2) && (cache.read_tag[i] ^ linear) >> reach == 0) drop(cache, i);
      }
    }
    if (cpu.mirror != nullptr) cpu.mirror->drop_large_page(linear, reach);
    if (cpu.direct != nullptr) cpu.direct->drop_large_page(linear, reach);
    for (CodePage& other : cpu.code_pages) {
      if (other.large && (other.linear ^ linear) >> reach == 0) other.linear = invalid_tag;
    }
  }
  if (huge) {
    cpu.walk_memory.drop_all();
  } else {
    cpu.walk_memory.drop_page(linear);
    if (large_shift == 22) cpu.walk_memory.drop_page(linear ^ uint64_t{1} << 21);  // which has pieces of 2 MiB
  }
  if (cpu.large_code_pages.may_have(linear)) {
    cpu.engine->code_mapping_flushed(cpu, true);
  } else {
    cpu.engine->code_page_flushed(cpu, page);
  }
}

void cr3_changed(Cpu& cpu, bool keep) {
  // Entries of the caches that translated code looks into are not tagged by PCID, so even a switch that may keep them
  // flushes; global pages stay. The memories behind them are tagged.
  const auto pcid = static_cast<unsigned>(cpu.cr4 & cr4::pcide ? cpu.cr3 & 0xfff : 0);
  cpu.jump_memory.change_pcid(pcid, keep);
  cpu.walk_memory.change_pcid(pcid, keep);
  if (cpu.mirror != nullptr) cpu.mirror->address_space_changed(pcid, keep);
  if (cpu.direct != nullptr) cpu.direct->address_space_changed(pcid, keep);
  flush_non_global(cpu);
}

void flush_pcid(Cpu& cpu, uint16_t pcid) {
  cpu.jump_memory.flush_pcid(pcid);
  cpu.walk_memory.drop_pcid(pcid);
  if (cpu.mirror != nullptr) cpu.mirror->drop_pcid(pcid);
  if (cpu.direct != nullptr) cpu.direct->drop_pcid(pcid);
  if (pcid == (cpu.cr4 & cr4::pcide ? cpu.cr3 & 0xfff : 0)) flush_non_global(cpu);
}

void flush_pcids(Cpu& cpu) {
  cpu.jump_memory.flush_all_pcids();
  cpu.walk_memory.drop_all_pcids();
  if (cpu.mirror != nullptr) cpu.mirror->drop_all();
  if (cpu.direct != nullptr) cpu.direct->drop_all();
  flush_non_global(cpu);
}

bool load_pdptes(Cpu& cpu, uint64_t cr3) {
  std::array<uint64_t, 4> loaded{};
  if (!cpu.memory->read_object(cr3 & 0xffff'ffe0, loaded)) loaded = {};
  // Reserved: 2:1, 8:5, and above the physical width (vol. 3, 4.4.1).
  const uint64_t reserved = 0x1e6 | ~((uint64_t{1} << cpu.model->physical_bits()) - 1);
  for (const uint64_t entry : loaded) {
    if ((entry & 1) && (entry & reserved)) return raise(cpu, Gp, 0);
  }
  cpu.pdpte = loaded;
  return true;
}

}  // namespace caisson::jit::mmu
