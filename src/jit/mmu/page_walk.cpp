#include "jit/mmu/page_walk.h"

#include "jit/fpu_aside.h"
#include "jit/mmu/code_pages.h"
#include "jit/trial_log.h"

namespace caisson::jit::mmu {
namespace {

using namespace x86;

namespace pf {
constexpr uint32_t present = 1, write = 2, user = 4, reserved = 8, fetch = 16;
}

bool page_fault(Cpu& cpu, uint64_t linear, Access access, TlbMode mode, uint32_t error) {
  if (access == Access::Write) error |= pf::write;
  if (mode == TlbMode::User) error |= pf::user;
  // The I/D flag exists only where fetches are checked at all (vol. 3, 4.7).
  if (access == Access::Execute && ((cpu.cr4 & cr4::smep) || ((cpu.efer & efer::nxe) && (cpu.cr4 & cr4::pae)))) {
    error |= pf::fetch;
  }
  cpu.fault = {.raised = true, .vector = Pf, .has_error = true, .error = error, .address = linear};
  return false;
}

// The table entry in guest RAM; null where the guest's tables point outside RAM.
template <class Entry>
Entry* entry_at(Cpu& cpu, Gpa gpa) {
  if (!cpu.memory->contains(gpa, sizeof(Entry))) return nullptr;
  return reinterpret_cast<Entry*>(cpu.memory->base() + gpa);
}

// Tables in a page with translated code: its blocks may die, and memory be freed, by code that uses vector registers.
void note_written(Cpu& cpu, Gpa entry, uint64_t size) {
  const FpuAside aside(cpu, vector_registers_unsafe || (cpu.memory->page_flags(entry & ~(page_size - 1)).load() &
                                                        GuestMemory::code_flag) != 0);
  cpu.memory->written(entry, size);
}

// Sets bits in an entry unless it has changed since it was read; false: it has, walk again.
template <class Entry>
bool set_bits(Cpu& cpu, Entry* entry, Gpa gpa, Entry& value, uint64_t bits) {
  if ((value & bits) == bits) return true;
  Entry expected = value;
  const Entry desired = static_cast<Entry>(value | bits);
  if (cpu.trial != nullptr) cpu.trial->note(reinterpret_cast<uint8_t*>(entry), sizeof(Entry), true);
  if (!__atomic_compare_exchange_n(entry, &expected, desired, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) return false;
  value = desired;
  note_written(cpu, gpa, sizeof(Entry));
  return true;
}

// What the levels allow together, checked against the access (vol. 3, 4.6).
bool permitted(const Cpu& cpu, Access access, TlbMode mode, uint64_t rights) {
  const bool writable = rights & pte::write, user_page = rights & pte::user, no_execute = rights & pte::nx;
  if (mode == TlbMode::User) {
    if (!user_page) return false;
    return access == Access::Read || (access == Access::Write ? writable : !no_execute);
  }
  if (access == Access::Execute) return !no_execute && !(user_page && (cpu.cr4 & cr4::smep));
  if (user_page && mode == TlbMode::Supervisor && (cpu.cr4 & cr4::smap)) return false;
  return access == Access::Read || writable || !(cpu.cr0 & cr0::wp);
}

struct Level {
  unsigned shift;
  uint64_t index_mask;
};

enum class Attempt { Done, Fault, Again };

template <class Entry>
Attempt walk_levels(Cpu& cpu, uint64_t linear, Access access, TlbMode mode, Gpa table, unsigned levels, Walk& out) {
  constexpr bool wide = sizeof(Entry) == 8;
  constexpr unsigned bits = wide ? 9 : 10;
  const bool nx_enabled = wide && (cpu.efer & efer::nxe);
  // Bits 62:52 are free in 4-level paging and reserved in PAE paging (vol. 3, 4.4.2, 4.5.4).
  constexpr uint64_t high_bits = 0x7ff0'0000'0000'0000;
  const uint64_t always_reserved =
      wide ? (reserved_physical(cpu) | (nx_enabled ? 0 : pte::nx) | (cpu.long_mode ? 0 : high_bits)) : 0;
  uint64_t rights = pte::write | pte::user;
  for (unsigned level = levels;; --level) {
    const unsigned shift = 12 + bits * (level - 1);
    const Gpa at = table + (linear >> shift & ((1u << bits) - 1)) * sizeof(Entry);
    Entry* entry = entry_at<Entry>(cpu, at);
    if (entry == nullptr) {
      page_fault(cpu, linear, access, mode, 0);
      return Attempt::Fault;
    }
    Entry value = __atomic_load_n(entry, __ATOMIC_ACQUIRE);
    if ((value & pte::present) == 0) {
      page_fault(cpu, linear, access, mode, 0);
      return Attempt::Fault;
    }
    rights = (rights & value & (pte::write | pte::user)) | ((rights | (nx_enabled ? value : 0)) & pte::nx);
    const bool can_be_large = level == 2 ? (wide || (cpu.cr4 & cr4::pse)) : level == 3 && wide;
    const bool leaf = level == 1 || (can_be_large && (value & pte::large));
    uint64_t reserved = always_reserved;
    if (!leaf && level == 4) reserved |= pte::large;
    if (!leaf && level == 3 && wide && !cpu.model->has(Feature::Pdpe1gb) && (value & pte::large))
      reserved |= pte::large;
    if (leaf && level > 1) {
      // Bits between the PAT bit (12) and the page's own size.
      if (wide) reserved |= ((uint64_t{1} << shift) - 1) & ~uint64_t{0x1fff};
      if (!wide) reserved |= 1u << 21;  // PSE-36 addresses above 40 bits are not offered
    }
    if (value & reserved) {
      page_fault(cpu, linear, access, mode, pf::present | pf::reserved);
      return Attempt::Fault;
    }
    if (!leaf) {
      if (!set_bits<Entry>(cpu, entry, at, value, pte::accessed)) return Attempt::Again;
      table = value & (wide ? address_mask : 0xffff'f000);
      continue;
    }
    if (!permitted(cpu, access, mode, rights)) {
      page_fault(cpu, linear, access, mode, pf::present);
      return Attempt::Fault;
    }
    if (!set_bits<Entry>(cpu, entry, at, value, pte::accessed | (access == Access::Write ? pte::dirty : 0))) {
      return Attempt::Again;
    }
    const uint64_t offset_mask = (uint64_t{1} << shift) - 1;
    uint64_t base = value & (wide ? address_mask : 0xffff'f000) & ~offset_mask;
    if (!wide && level == 2) base |= (value & 0x1f'e000ull) << 19;  // PSE-36: bits 20:13 hold address bits 39:32
    out.gpa = (base | (linear & offset_mask)) & ~uint64_t{0xfff};
    out.user_page = rights & pte::user;
    out.global = (value & pte::global) && (cpu.cr4 & cr4::pge);
    out.large = level > 1;
    out.shift = static_cast<uint8_t>(shift);
    out.writable = (value & pte::dirty) && permitted(cpu, Access::Write, mode, rights);
    return Attempt::Done;
  }
}

}  // namespace

bool walk(Cpu& cpu, uint64_t linear, Access access, TlbMode mode, Walk& out) {
  if (!cpu.paging) {
    out = {.gpa = linear & 0xffff'f000, .writable = true, .user_page = true};
    return true;
  }
  for (;;) {
    Attempt attempt;
    if (cpu.long_mode) {
      if (!canonical(linear)) return raise(cpu, Gp, 0);
      attempt = walk_levels<uint64_t>(cpu, linear, access, mode, cpu.cr3 & address_mask, 4, out);
    } else if (cpu.cr4 & cr4::pae) {
      linear &= 0xffff'ffff;
      const uint64_t pdpte = cpu.pdpte[linear >> 30];
      if ((pdpte & pte::present) == 0) return page_fault(cpu, linear, access, mode, 0);
      attempt = walk_levels<uint64_t>(cpu, linear, access, mode, pdpte & address_mask, 2, out);
    } else {
      linear &= 0xffff'ffff;
      attempt = walk_levels<uint32_t>(cpu, linear, access, mode, cpu.cr3 & 0xffff'f000, 2, out);
    }
    if (attempt == Attempt::Done) return true;
    if (attempt == Attempt::Fault) return false;
  }
}

namespace {

// As walk(), for data.
bool recall_or_walk(Cpu& cpu, uint64_t linear, Access access, TlbMode mode, Walk& out) {
  const auto number = static_cast<unsigned>(mode);
  WalkMemory::Found found;
  if (cpu.walk_memory.find(linear, number, found) && (access == Access::Read || found.writable)) {
    out = {.gpa = found.gpa, .writable = found.writable, .global = found.global, .large = found.large};
    return true;
  }
  if (!walk(cpu, linear, access, mode, out)) {
    // A page fault takes what is known of the page with it (vol. 3, 4.10.4.1).
    cpu.walk_memory.drop_page(linear);
    Tlb& cache = cpu.tlb[number];
    const unsigned slot = linear >> 12 & (tlb_entries - 1);
    if (cache.read_tag[slot] == (linear & ~uint64_t{0xfff})) cache.read_tag[slot] = cache.write_tag[slot] = invalid_tag;
    drop_stack_pages(cpu);
    return false;
  }
  if (out.large) cpu.large_pages.note(linear, out.shift);
  if (cpu.paging) {
    cpu.walk_memory.put(linear, number,
                        {.gpa = out.gpa, .writable = out.writable, .global = out.global, .large = out.large});
  }
  return true;
}

}  // namespace

Filled fill(Cpu& cpu, uint64_t linear, Access access, TlbMode mode) {
  Walk result;
  Filled filled;
  if (!recall_or_walk(cpu, linear, access, mode, result)) return filled;
  filled.ok = true;
  filled.gpa = result.gpa | (linear & 0xfff);
  // What is written to ROM goes to the bus; reads find it as they find RAM.
  const bool rom = cpu.memory->is_rom_page(result.gpa);
  if (rom ? access == Access::Write : !cpu.memory->contains(result.gpa, page_size)) return filled;
  filled.ram = true;
  uint8_t* host_page = cpu.memory->base() + result.gpa;
  filled.host = host_page + (linear & 0xfff);

  Tlb& cache = cpu.tlb[static_cast<unsigned>(mode)];
  const unsigned slot = linear >> 12 & (tlb_entries - 1);
  const uint64_t page = linear & ~uint64_t{0xfff};
  // A page with translated code must not be stored to behind the translator's back; see code_pages.h for the order.
  const bool direct = result.writable && !rom && claim_for_writing(cpu, result.gpa);
  const bool keep = direct && cpu.trial == nullptr;  // every write of a trial run is noted
  const uint64_t addend = reinterpret_cast<uint64_t>(host_page) - page;
  cache.read_tag[slot] = page;
  cache.write_tag[slot] = keep ? page : invalid_tag;
  cache.addend[slot] = addend;
  cache.global[slot] = result.global ? 1 : 0;
  if (!result.global) cpu.tlb_local[static_cast<unsigned>(mode)] = true;
  if (result.large) cache.global[slot] |= 2;
  filled.direct = direct;
  return filled;
}

bool code_page(Cpu& cpu, uint64_t linear, CodePage& out) {
  const uint64_t page = linear & ~uint64_t{0xfff};
  CodePage& cached = cpu.code_pages[(linear >> 12 & (code_page_entries - 1))];
  if (cached.linear == page && cached.user == cpu.user()) {
    out = cached;
    return true;
  }
  if (!cpu.long_mode) linear &= 0xffff'ffff;
  Walk result;
  const TlbMode mode = cpu.user() ? TlbMode::User : TlbMode::SupervisorUser;
  if (!walk(cpu, linear, Access::Execute, mode, result)) return false;
  const bool ram = cpu.memory->contains(result.gpa, page_size) || cpu.memory->is_rom_page(result.gpa);
  out = {.linear = page,
         .gpa = result.gpa,
         .host = ram ? cpu.memory->base() + result.gpa : nullptr,
         .user = cpu.user(),
         .global = result.global,
         .large = result.large};
  if (ram) {
    cached = out;
    const size_t group = static_cast<size_t>(&cached - cpu.code_pages.data()) / code_page_group;
    if (out.user || !out.global) cpu.code_pages_local |= uint64_t{1} << group;
  }
  // From here on jump caches may know the page: a stub looks into the code pages, too.
  if (ram && out.user) cpu.jump_memory.note_page(page);
  if (result.large) {
    cpu.large_pages.note(linear, result.shift);
    cpu.large_code_pages.note(linear, result.shift);
  }
  return true;
}

}  // namespace caisson::jit::mmu
