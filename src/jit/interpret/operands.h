// Reading and writing an instruction's operands: registers, immediates, and memory through segmentation and the mmu.
//   Source   Intel SDM vol. 1, 3.7 (operand addressing), vol. 3, 5.3-5.5 (segment checks), 9.10 (LOCK)
#pragma once

#include <mutex>

#include "jit/interpret/atomics.h"
#include "jit/interpret/step.h"
#include "jit/mmu/mmu.h"

namespace caisson::jit {

// Segment limit and type checks outside 64-bit mode: #GP(0) or #SS(0).
[[nodiscard]] bool legacy_linear(Cpu& cpu, unsigned segment, uint64_t offset, uint64_t size, bool write,
                                 uint64_t& linear);
// Alignment check (#AC) and data breakpoints.
[[nodiscard]] bool watched_access(Step& step, uint64_t linear, unsigned size, bool write);
// Serialises LOCKed accesses to devices.
[[nodiscard]] std::mutex& device_lock();

// Whether the host could do a LOCKed access there only by a bus lock (SDM vol. 3, 9.1.2), which holds up all its CPUs,
// and which many hosts trap and punish by milliseconds to seconds: such accesses are done while no other vCPU runs.
[[nodiscard]] inline bool crosses_line(uint64_t linear, unsigned size) { return (linear & 63) + size > 64; }

[[nodiscard]] inline bool linear_address(Step& step, unsigned segment, uint64_t offset, unsigned size, bool write,
                                         uint64_t& linear) {
  Cpu& cpu = step.cpu;
  if (cpu.code_bits == 64) [[likely]] {
    linear = segment >= x86::Fs ? offset + cpu.segments[segment].base : offset;
    if (!canonical(linear) || !canonical(linear + size - 1)) [[unlikely]] {
      return raise(cpu, segment == x86::Ss ? x86::StackFault : x86::Gp, 0);
    }
  } else if (!legacy_linear(cpu, segment, offset, size, write, linear)) {
    return false;
  }
  if (step.watch) [[unlikely]]
    return watched_access(step, linear, size, write);
  return true;
}

[[nodiscard]] inline uint64_t truncate(uint64_t value, unsigned bits) {
  return bits == 64 ? value : bits == 32 ? value & 0xffff'ffff : bits == 16 ? value & 0xffff : value & 0xff;
}

[[nodiscard]] inline int64_t sign_extend(uint64_t value, unsigned bits) {
  const unsigned shift = 64 - bits;
  return static_cast<int64_t>(value << shift) >> shift;
}

// Offset in its segment of a memory operand.
[[nodiscard]] inline uint64_t effective_offset(const Step& step, const Operand& operand) {
  uint64_t offset = static_cast<uint64_t>(operand.displacement);
  if (operand.base < 16) {
    offset += step.cpu.gpr[operand.base];
  } else if (operand.base == Operand::rip_register) {
    offset += step.cpu.rip + step.in.length;
  }
  if (operand.index < 16) offset += step.cpu.gpr[operand.index] * operand.scale;
  return truncate(offset, step.in.address_bits);
}

[[nodiscard]] inline bool operand_address(Step& step, const Operand& operand, unsigned size, bool write,
                                          uint64_t& linear) {
  return linear_address(step, operand.segment, effective_offset(step, operand), size, write, linear);
}

template <class T>
[[nodiscard]] inline T get_register(const Cpu& cpu, const Operand& operand) {
  if constexpr (sizeof(T) == 1) {
    if (operand.reg_class == RegisterClass::HighByte) return static_cast<T>(cpu.gpr[operand.reg] >> 8);
  }
  return static_cast<T>(cpu.gpr[operand.reg]);
}

// A 32-bit result clears the upper half, smaller ones leave it (vol. 1, 3.4.1.1).
template <class T>
inline void set_gpr(Cpu& cpu, unsigned reg, T value) {
  if constexpr (sizeof(T) >= 4) {
    cpu.gpr[reg] = value;
  } else if constexpr (sizeof(T) == 2) {
    cpu.gpr[reg] = (cpu.gpr[reg] & ~uint64_t{0xffff}) | value;
  } else {
    cpu.gpr[reg] = (cpu.gpr[reg] & ~uint64_t{0xff}) | value;
  }
}

template <class T>
inline void set_register(Cpu& cpu, const Operand& operand, T value) {
  if constexpr (sizeof(T) == 1) {
    if (operand.reg_class == RegisterClass::HighByte) {
      cpu.gpr[operand.reg] = (cpu.gpr[operand.reg] & ~uint64_t{0xff00}) | static_cast<uint64_t>(value) << 8;
      return;
    }
  }
  set_gpr<T>(cpu, operand.reg, value);
}

template <class T>
[[nodiscard]] inline bool load(Step& step, const Operand& operand, T& value) {
  uint64_t linear;
  return operand_address(step, operand, sizeof(T), false, linear) && mmu::read(step.cpu, linear, value);
}

template <class T>
[[nodiscard]] inline bool store(Step& step, const Operand& operand, T value) {
  uint64_t linear;
  return operand_address(step, operand, sizeof(T), true, linear) && mmu::write(step.cpu, linear, value);
}

template <class T>
[[nodiscard]] inline bool get(Step& step, const Operand& operand, T& value) {
  if (operand.kind == Operand::Kind::Register) {
    value = get_register<T>(step.cpu, operand);
    return true;
  }
  if (operand.kind == Operand::Kind::Memory) return load(step, operand, value);
  value = static_cast<T>(operand.immediate);
  return true;
}

template <class T>
[[nodiscard]] inline bool put(Step& step, const Operand& operand, T value) {
  if (operand.kind == Operand::Kind::Register) {
    set_register<T>(step.cpu, operand, value);
    return true;
  }
  return store(step, operand, value);
}

// Read-modify-write of [linear, linear+sizeof(T)): `change(old, flags)` returns the new value and may run more than
// once; the flags it leaves become the guest's once the store has been done.
template <class T, class Change>
[[nodiscard]] inline bool modify_linear(Step& step, uint64_t linear, bool locked, Change change) {
  Cpu& cpu = step.cpu;
  const bool split = locked && crosses_line(linear, sizeof(T));
  if (split && !cpu.alone) return step.needs_alone();
  const Tlb& cache = mmu::tlb(cpu, As::Current);
  const unsigned slot = linear >> 12 & (tlb_entries - 1);
  mmu::Host host;
  const bool hit = cache.write_tag[slot] == ((linear + sizeof(T) - 1) & ~uint64_t{0xfff});
  if (hit) [[likely]] {
    host.pointer = reinterpret_cast<uint8_t*>(linear + cache.addend[slot]);
  } else {
    host = mmu::host_for_write(cpu, linear, sizeof(T));
    if (host.pointer == nullptr && cpu.fault.raised) return false;
  }
  uint64_t flags = cpu.rflags;
  if (host.pointer != nullptr) [[likely]] {
    if (!locked || split) {
      plain_store<T>(host.pointer, change(plain_load<T>(host.pointer), flags));
    } else {
      T old = plain_load<T>(host.pointer);
      for (;;) {
        flags = cpu.rflags;
        const T fresh = change(old, flags);
        if (compare_exchange<T>(host.pointer, old, fresh)) break;
      }
    }
    if (!hit) mmu::wrote(cpu, host, sizeof(T));
  } else {
    std::unique_lock<std::mutex> guard;
    if (locked) guard = std::unique_lock(device_lock());
    T old;
    if (!mmu::probe(cpu, linear, sizeof(T), Access::Write)) return false;
    if (!mmu::read_bytes(cpu, linear, &old, sizeof(T))) return false;
    const T fresh = change(old, flags);
    if (!mmu::write_bytes(cpu, linear, &fresh, sizeof(T))) return false;
  }
  cpu.rflags = flags;
  return true;
}

template <class T, class Change>
[[nodiscard]] inline bool modify(Step& step, const Operand& operand, Change change) {
  uint64_t linear;
  if (!operand_address(step, operand, sizeof(T), true, linear)) return false;
  return modify_linear<T>(step, linear, step.in.lock, change);
}

// Read-modify-write of a register or memory operand.
template <class T, class Change>
[[nodiscard]] inline bool update(Step& step, const Operand& operand, Change change) {
  if (operand.kind == Operand::Kind::Register) {
    set_register<T>(step.cpu, operand, change(get_register<T>(step.cpu, operand), step.cpu.rflags));
    return true;
  }
  return modify<T>(step, operand, change);
}

}  // namespace caisson::jit
