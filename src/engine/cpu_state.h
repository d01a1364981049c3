// The one canonical form of all guest-visible state of a CPU; every engine loads and stores it.
#pragma once

#include <array>
#include <cstdint>

#include "base/fields.h"

namespace caisson {

// Segment attributes in the layout of the VMCS access-rights field (Intel SDM vol. 3, 25.4.1): type 3:0, S 4, DPL 6:5,
// P 7, AVL 12, L 13, D/B 14, G 15, unusable 16.
struct SegmentState {
  uint64_t base = 0;
  uint32_t limit = 0xffff;  // in bytes, granularity applied
  uint32_t attributes = 0;
  uint16_t selector = 0;
  static constexpr auto fields() {
    using fields::row;
    return fields::table<SegmentState>(row<1>("base", &SegmentState::base), row<2>("limit", &SegmentState::limit),
                                       row<3>("attributes", &SegmentState::attributes),
                                       row<4>("selector", &SegmentState::selector));
  }
};

struct TableState {
  uint64_t base = 0;
  uint16_t limit = 0xffff;
  static constexpr auto fields() {
    using fields::row;
    return fields::table<TableState>(row<1>("base", &TableState::base), row<2>("limit", &TableState::limit));
  }
};

enum class Activity : uint8_t { Running, Halted, WaitForSipi };

struct CpuState {
  std::array<uint64_t, 16> gpr{};  // RAX RCX RDX RBX RSP RBP RSI RDI R8…R15
  uint64_t rip = 0xfff0;
  uint64_t rflags = 2;
  std::array<SegmentState, 6> segments{};  // ES CS SS DS FS GS
  SegmentState ldtr{};
  SegmentState tr{};
  TableState gdtr{};
  TableState idtr{};
  uint64_t cr0 = 0x6000'0010;
  uint64_t cr2 = 0;
  uint64_t cr3 = 0;
  uint64_t cr4 = 0;
  uint64_t efer = 0;
  uint64_t xcr0 = 1;
  std::array<uint64_t, 4> pdpte{};  // PAE page-directory-pointer registers
  std::array<uint64_t, 8> dr{0, 0, 0, 0, 0, 0, 0xffff'0ff0, 0x400};
  Activity activity = Activity::Running;
  uint8_t interrupt_shadow = 0;  // 1: by STI, 2: by MOV SS or POP SS
  bool nmi_blocked = false;
  uint64_t tsc_offset = 0;          // guest TSC = clock TSC + offset
  std::array<uint64_t, 64> msrs{};  // by x86::MsrSlot
  fields::Bytes<16384> xsave{};     // standard-format XSAVE image

  static constexpr auto fields() {
    using fields::row;
    return fields::table<CpuState>(
        row<1>("gpr", &CpuState::gpr), row<2>("rip", &CpuState::rip), row<3>("rflags", &CpuState::rflags),
        row<4>("segments", &CpuState::segments), row<5>("ldtr", &CpuState::ldtr), row<6>("tr", &CpuState::tr),
        row<7>("gdtr", &CpuState::gdtr), row<8>("idtr", &CpuState::idtr), row<9>("cr0", &CpuState::cr0),
        row<10>("cr2", &CpuState::cr2), row<11>("cr3", &CpuState::cr3), row<12>("cr4", &CpuState::cr4),
        row<13>("efer", &CpuState::efer), row<14>("xcr0", &CpuState::xcr0), row<15>("pdpte", &CpuState::pdpte),
        row<16>("dr", &CpuState::dr), row<17>("activity", &CpuState::activity),
        row<18>("interrupt_shadow", &CpuState::interrupt_shadow), row<19>("nmi_blocked", &CpuState::nmi_blocked),
        row<20>("tsc_offset", &CpuState::tsc_offset), row<21>("msrs", &CpuState::msrs),
        row<22>("xsave", &CpuState::xsave));
  }
};

}  // namespace caisson
