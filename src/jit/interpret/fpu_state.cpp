// FXSAVE, FXRSTOR, the XSAVE family, XGETBV, XSETBV, LDMXCSR, STMXCSR: copies between guest memory and the guest's
// state in Cpu::xsave.
//   Source   Intel SDM vol. 1, chapter 13; vol. 2
//   Omits    the modified optimisation of XSAVEOPT (allowed: 13.9); XSAVES (no model offers it)
#include "jit/interpret/fpu_state.h"

#include <algorithm>

#include <cpuid.h>

#include "jit/fpu.h"
#include "jit/interpret/operands.h"
#include "jit/interpret/privilege.h"

namespace caisson::jit {
namespace {

using namespace x86;

constexpr unsigned mxcsr_at = 24, st_at = 32, xmm_at = 160, legacy_size = 512, header_at = 512, area_start = 576;
constexpr uint32_t mxcsr_default = 0x1f80;

struct Layout {
  unsigned offset = 0, size = 0;
  bool aligned = false;  // to 64 bytes in the compact format
};

const std::array<Layout, xstate::components>& layouts() {
  static const auto table = [] {
    std::array<Layout, xstate::components> made{};
    made[0] = {0, legacy_size, false};
    made[1] = {xmm_at, 256, false};
    for (unsigned i = 2; i < xstate::components; ++i) {
      uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
      if (!(fpu_components() >> i & 1) || !__get_cpuid_count(0xd, i, &eax, &ebx, &ecx, &edx)) continue;
      if (uint64_t{ebx} + eax <= xsave_area_size) made[i] = {ebx, eax, (ecx & 2) != 0};
    }
    return made;
  }();
  return table;
}

// MXCSR bits that exist.
uint32_t mxcsr_mask() {
  static const uint32_t mask = [] {
    alignas(16) std::array<uint8_t, 512> area{};
    asm volatile("fxsave64 %0" : "+m"(area));
    uint32_t value;
    std::memcpy(&value, area.data() + 28, 4);
    return value == 0 ? 0xffbf : value;
  }();
  return mask;
}

uint64_t in_use(const Cpu& cpu) {
  uint64_t bits;
  std::memcpy(&bits, cpu.xsave.data() + header_at, 8);
  return bits;
}

void set_in_use(Cpu& cpu, uint64_t bits) { std::memcpy(cpu.xsave.data() + header_at, &bits, 8); }

void set_mxcsr(Cpu& cpu, uint32_t value) { std::memcpy(cpu.xsave.data() + mxcsr_at, &value, 4); }

// What the processor makes of an x87 image that is loaded: reserved bits of the control word, and the summary bits of
// the status word, which follow from the exceptions that are pending and not masked (vol. 1, 8.1.3 and 8.1.5).
void settle_x87(Cpu& cpu) {
  uint16_t control, status;
  std::memcpy(&control, cpu.xsave.data(), 2);
  std::memcpy(&status, cpu.xsave.data() + 2, 2);
  control = static_cast<uint16_t>((control & 0x1f3f) | 0x40);
  const bool pending = status & ~control & 0x3f;
  status = static_cast<uint16_t>((status & 0x7f7f) | (pending ? 0x8080 : 0));
  std::memcpy(cpu.xsave.data(), &control, 2);
  std::memcpy(cpu.xsave.data() + 2, &status, 2);
  cpu.xsave[5] = 0;
  for (size_t reg = st_at; reg < xmm_at; reg += 16) std::fill_n(cpu.xsave.begin() + reg + 10, 6, uint8_t{0});
}

void initialise(Cpu& cpu, unsigned number) {
  const Layout& layout = layouts()[number];
  if (number == 0) {
    std::fill_n(cpu.xsave.begin(), mxcsr_at, uint8_t{0});
    std::fill(cpu.xsave.begin() + st_at, cpu.xsave.begin() + xmm_at, uint8_t{0});
    cpu.xsave[0] = 0x7f;
    cpu.xsave[1] = 0x03;
  } else {
    std::fill_n(cpu.xsave.begin() + layout.offset, layout.size, uint8_t{0});
  }
}

// Outside 64-bit mode registers 8-31 neither save nor load (13.5).
unsigned visible_size(const Cpu& cpu, unsigned number) {
  const unsigned size = layouts()[number].size;
  if (cpu.code_bits == 64) return size;
  switch (number) {
    case 1:
    case 2:
    case 6: return size / 2;
    case 7: return 0;
    default: return size;
  }
}

// --- areas in guest memory -------------------------------------------------------------------------------------------

struct Area {
  Step& step;
  uint64_t linear = 0;

  [[nodiscard]] bool read(unsigned offset, void* out, unsigned size) const {
    return mmu::read_bytes(step.cpu, linear + offset, out, size);
  }
  [[nodiscard]] bool write(unsigned offset, const void* in, unsigned size) const {
    return mmu::write_bytes(step.cpu, linear + offset, in, size);
  }
};

bool open_area(Area& area, unsigned size, unsigned alignment, bool write) {
  Step& step = area.step;
  if (!operand_address(step, step.in.operands[0], size, write, area.linear)) return false;
  if (area.linear & (alignment - 1)) return raise(step.cpu, Gp, 0);
  return mmu::probe(step.cpu, area.linear, size, write ? Access::Write : Access::Read);
}

bool save_x87(const Area& area, const Cpu& cpu) {
  return area.write(0, cpu.xsave.data(), mxcsr_at) && area.write(st_at, cpu.xsave.data() + st_at, xmm_at - st_at);
}

bool save_mxcsr(const Area& area, Cpu& cpu) {
  const std::array<uint32_t, 2> both = {guest_mxcsr(cpu), mxcsr_mask()};
  return area.write(mxcsr_at, both.data(), sizeof both);
}

bool save_component(const Area& area, Cpu& cpu, unsigned number, unsigned at) {
  if (number == 0) return save_x87(area, cpu);
  return area.write(at, cpu.xsave.data() + layouts()[number].offset, visible_size(cpu, number));
}

// Offsets in the compact format, by XCOMP_BV (13.4.3).
std::array<unsigned, xstate::components> compact_offsets(uint64_t xcomp, unsigned& size) {
  std::array<unsigned, xstate::components> offsets{0, xmm_at};
  unsigned at = area_start;
  for (unsigned i = 2; i < xstate::components; ++i) {
    if (!(xcomp >> i & 1)) continue;
    if (layouts()[i].aligned) at = (at + 63) & ~63u;
    offsets[i] = at;
    at += layouts()[i].size;
  }
  size = at;
  return offsets;
}

unsigned standard_size(uint64_t mask) {
  unsigned size = area_start;
  for (unsigned i = 2; i < xstate::components; ++i) {
    if (mask >> i & 1) size = std::max(size, layouts()[i].offset + layouts()[i].size);
  }
  return size;
}

uint64_t requested(const Cpu& cpu) { return (cpu.gpr[Rdx] << 32 | (cpu.gpr[Rax] & 0xffff'ffff)) & cpu.xcr0; }

bool xsave_allowed(Cpu& cpu, Feature feature) {
  if (!cpu.model->has(Feature::Xsave) || !cpu.model->has(feature) || !(cpu.cr4 & cr4::osxsave)) return raise(cpu, Ud);
  if (cpu.cr0 & cr0::ts) return raise(cpu, Nm);
  return true;
}

// XSAVE, and XSAVEOPT (`Optimised`), which need not write what is in its initial state.
template <bool Optimised>
bool xsave(Step& step) {
  Cpu& cpu = step.cpu;
  if (!xsave_allowed(cpu, Optimised ? Feature::Xsaveopt : Feature::Xsave)) return false;
  const uint64_t mask = requested(cpu);
  Area area{step};
  if (!open_area(area, standard_size(mask), 64, true)) return false;
  uint64_t header;
  if (!area.read(header_at, &header, 8)) return false;
  fpu_put_away(cpu);
  const uint64_t used = in_use(cpu);
  for (unsigned i = 0; i < xstate::components; ++i) {
    if (!(mask >> i & 1) || (Optimised && !(used >> i & 1))) continue;
    if (!save_component(area, cpu, i, layouts()[i].offset)) return false;
  }
  if ((mask & (xstate::sse | xstate::avx)) && !save_mxcsr(area, cpu)) return false;
  header = (header & ~mask) | (used & mask);
  return area.write(header_at, &header, 8);
}

bool xsavec(Step& step) {
  Cpu& cpu = step.cpu;
  if (!xsave_allowed(cpu, Feature::Xsavec)) return false;
  const uint64_t mask = requested(cpu);
  unsigned size;
  const auto offsets = compact_offsets(mask, size);
  Area area{step};
  if (!open_area(area, size, 64, true)) return false;
  fpu_put_away(cpu);
  uint64_t saved = in_use(cpu) & mask;
  if ((mask & xstate::sse) && guest_mxcsr(cpu) != mxcsr_default) saved |= xstate::sse;
  for (unsigned i = 0; i < xstate::components; ++i) {
    if ((saved >> i & 1) && !save_component(area, cpu, i, offsets[i])) return false;
  }
  if ((saved & xstate::sse) && !save_mxcsr(area, cpu)) return false;
  const std::array<uint64_t, 2> header = {saved, mask | uint64_t{1} << 63};
  return area.write(header_at, header.data(), sizeof header);
}

bool xrstor(Step& step) {
  Cpu& cpu = step.cpu;
  if (!xsave_allowed(cpu, Feature::Xsave)) return false;
  const uint64_t mask = requested(cpu);
  Area area{step};
  if (!open_area(area, area_start, 64, false)) return false;
  std::array<uint64_t, 8> header;
  if (!area.read(header_at, header.data(), sizeof header)) return false;
  const uint64_t state = header[0];
  const bool compact = header[1] >> 63;
  const uint64_t layout_bits = header[1] & ~(uint64_t{1} << 63);
  if (compact) {
    if (!cpu.model->has(Feature::Xsavec) || (layout_bits & ~cpu.xcr0) || (state & ~layout_bits))
      return raise(cpu, Gp, 0);
    if (std::any_of(header.begin() + 2, header.end(), [](uint64_t word) { return word != 0; }))
      return raise(cpu, Gp, 0);
  } else if ((state & ~cpu.xcr0) || header[1] || header[2]) {
    return raise(cpu, Gp, 0);
  }
  unsigned size;
  auto offsets = compact_offsets(compact ? layout_bits : 0, size);
  if (!compact) {
    for (unsigned i = 2; i < xstate::components; ++i) offsets[i] = layouts()[i].offset;
  }

  // All of it is read before any of it is loaded.
  std::array<uint8_t, xsave_area_size> image;
  const bool wants_mxcsr = compact ? (mask & state & xstate::sse) != 0 : (mask & (xstate::sse | xstate::avx)) != 0;
  for (unsigned i = 0; i < xstate::components; ++i) {
    if (!(mask & state & uint64_t{1} << i)) continue;
    const unsigned bytes = i == 0 ? xmm_at : visible_size(cpu, i);
    if (!area.read(offsets[i], image.data() + layouts()[i].offset, bytes)) return false;
  }
  uint32_t mxcsr = mxcsr_default;
  if (wants_mxcsr) {
    if (!area.read(mxcsr_at, &mxcsr, 4)) return false;
    if (mxcsr & ~mxcsr_mask()) return raise(cpu, Gp, 0);
  }

  fpu_put_away(cpu);
  for (unsigned i = 0; i < xstate::components; ++i) {
    if (!(mask >> i & 1)) continue;
    if (!(state >> i & 1)) {
      initialise(cpu, i);
    } else if (i == 0) {
      std::copy_n(image.begin(), mxcsr_at, cpu.xsave.begin());
      std::copy(image.begin() + st_at, image.begin() + xmm_at, cpu.xsave.begin() + st_at);
      settle_x87(cpu);
    } else {
      std::copy_n(image.begin() + layouts()[i].offset, visible_size(cpu, i), cpu.xsave.begin() + layouts()[i].offset);
    }
  }
  if (wants_mxcsr || (compact && (mask & xstate::sse))) set_mxcsr(cpu, mxcsr);
  set_in_use(cpu, (in_use(cpu) & ~mask) | (state & mask));
  return true;
}

bool fxsave_allowed(Cpu& cpu) { return !(cpu.cr0 & (cr0::em | cr0::ts)) || raise(cpu, Nm); }

bool fxsave(Step& step) {
  Cpu& cpu = step.cpu;
  if (!fxsave_allowed(cpu)) return false;
  Area area{step};
  if (!open_area(area, legacy_size, 16, true)) return false;
  fpu_put_away(cpu);
  return save_x87(area, cpu) && save_mxcsr(area, cpu) && save_component(area, cpu, 1, xmm_at);
}

bool fxrstor(Step& step) {
  Cpu& cpu = step.cpu;
  if (!fxsave_allowed(cpu)) return false;
  Area area{step};
  if (!open_area(area, legacy_size, 16, false)) return false;
  std::array<uint8_t, legacy_size> image;
  if (!area.read(0, image.data(), legacy_size)) return false;
  uint32_t mxcsr;
  std::memcpy(&mxcsr, image.data() + mxcsr_at, 4);
  if (mxcsr & ~mxcsr_mask()) return raise(cpu, Gp, 0);
  fpu_put_away(cpu);
  std::copy_n(image.begin(), mxcsr_at, cpu.xsave.begin());
  std::copy(image.begin() + st_at, image.begin() + xmm_at, cpu.xsave.begin() + st_at);
  settle_x87(cpu);
  std::copy_n(image.begin() + xmm_at, visible_size(cpu, 1), cpu.xsave.begin() + xmm_at);
  set_mxcsr(cpu, mxcsr);
  set_in_use(cpu, in_use(cpu) | xstate::x87 | xstate::sse);
  return true;
}

bool xgetbv(Step& step) {
  Cpu& cpu = step.cpu;
  if (!cpu.model->has(Feature::Xsave) || !(cpu.cr4 & cr4::osxsave)) return raise(cpu, Ud);
  uint64_t value;
  switch (static_cast<uint32_t>(cpu.gpr[Rcx])) {
    case 0: value = cpu.xcr0; break;
    case 1:
      if (!cpu.model->has(Feature::Xgetbv1)) return raise(cpu, Gp, 0);
      fpu_put_away(cpu);
      value = cpu.xcr0 & in_use(cpu);
      break;
    default: return raise(cpu, Gp, 0);
  }
  cpu.gpr[Rax] = value & 0xffff'ffff;
  cpu.gpr[Rdx] = value >> 32;
  return true;
}

bool xsetbv(Step& step) {
  Cpu& cpu = step.cpu;
  if (!cpu.model->has(Feature::Xsave) || !(cpu.cr4 & cr4::osxsave)) return raise(cpu, Ud);
  if (!require_cpl0(cpu)) return false;
  const uint64_t value = cpu.gpr[Rdx] << 32 | (cpu.gpr[Rax] & 0xffff'ffff);
  constexpr uint64_t avx512 = xstate::opmask | xstate::zmm_hi256 | xstate::hi16_zmm;
  if (static_cast<uint32_t>(cpu.gpr[Rcx]) != 0 || (value & ~cpu.model->xcr0_allowed()) || !(value & xstate::x87) ||
      ((value & xstate::avx) && !(value & xstate::sse)) ||
      ((value & avx512) && ((value & avx512) != avx512 || !(value & xstate::avx)))) {
    return raise(cpu, Gp, 0);
  }
  cpu.xcr0 = value;
  return true;
}

bool mxcsr_allowed(Step& step) {
  Cpu& cpu = step.cpu;
  if (step.in.encoding == Encoding::Vex) {
    constexpr uint64_t needed = xstate::sse | xstate::avx;
    if (!protected_mode(cpu) || !(cpu.cr4 & cr4::osxsave) || (cpu.xcr0 & needed) != needed ||
        !cpu.model->has(Feature::Avx)) {
      return raise(cpu, Ud);
    }
  } else if ((cpu.cr0 & cr0::em) || !(cpu.cr4 & cr4::osfxsr)) {
    return raise(cpu, Ud);
  }
  return !(cpu.cr0 & cr0::ts) || raise(cpu, Nm);
}

bool ldmxcsr(Step& step) {
  Cpu& cpu = step.cpu;
  uint32_t value;
  if (!mxcsr_allowed(step) || !load(step, step.in.operands[0], value)) return false;
  if (value & ~mxcsr_mask()) return raise(cpu, Gp, 0);
  fpu_put_away(cpu);
  set_mxcsr(cpu, value);
  return true;
}

bool stmxcsr(Step& step) {
  if (!mxcsr_allowed(step)) return false;
  fpu_put_away(step.cpu);
  return store(step, step.in.operands[0], guest_mxcsr(step.cpu));
}

}  // namespace

std::span<uint8_t> component(Cpu& cpu, unsigned number) {
  const Layout& layout = layouts()[number];
  return {cpu.xsave.data() + layout.offset, layout.size};
}

uint32_t guest_mxcsr(Cpu& cpu) {
  uint32_t value;
  std::memcpy(&value, cpu.xsave.data() + mxcsr_at, 4);
  return value;
}

VectorBytes read_vector(Cpu& cpu, unsigned number) {
  VectorBytes value{};
  if (number >= 16) {
    const auto high = component(cpu, 7);
    if (high.size() >= (number - 15) * 64) std::copy_n(high.begin() + (number - 16) * 64, 64, value.begin());
    return value;
  }
  std::copy_n(cpu.xsave.begin() + xmm_at + number * 16, 16, value.begin());
  if (const auto ymm = component(cpu, 2); !ymm.empty()) std::copy_n(ymm.begin() + number * 16, 16, value.begin() + 16);
  if (const auto zmm = component(cpu, 6); !zmm.empty()) std::copy_n(zmm.begin() + number * 32, 32, value.begin() + 32);
  return value;
}

void write_vector(Cpu& cpu, unsigned number, const VectorBytes& value, unsigned bytes) {
  VectorBytes full{};
  std::copy_n(value.begin(), bytes, full.begin());
  uint64_t used = in_use(cpu);
  if (number >= 16) {
    const auto high = component(cpu, 7);
    if (high.size() >= (number - 15) * 64) std::copy_n(full.begin(), 64, high.begin() + (number - 16) * 64);
    set_in_use(cpu, used | xstate::hi16_zmm);
    return;
  }
  std::copy_n(full.begin(), 16, cpu.xsave.begin() + xmm_at + number * 16);
  used |= xstate::sse;
  if (const auto ymm = component(cpu, 2); !ymm.empty()) {
    std::copy_n(full.begin() + 16, 16, ymm.begin() + number * 16);
    used |= xstate::avx;
  }
  if (const auto zmm = component(cpu, 6); !zmm.empty()) {
    std::copy_n(full.begin() + 32, 32, zmm.begin() + number * 32);
    used |= xstate::zmm_hi256;
  }
  set_in_use(cpu, used);
}

uint64_t read_mask(Cpu& cpu, unsigned number) {
  uint64_t value = 0;
  const auto masks = component(cpu, 5);
  if (masks.size() >= (number + 1) * 8) std::memcpy(&value, masks.data() + number * 8, 8);
  return value;
}

void write_mask(Cpu& cpu, unsigned number, uint64_t value) {
  const auto masks = component(cpu, 5);
  if (masks.size() < (number + 1) * 8) return;
  std::memcpy(masks.data() + number * 8, &value, 8);
  set_in_use(cpu, in_use(cpu) | xstate::opmask);
}

void add_fpu_state(HandlerTable& table) {
  table.set({ZYDIS_MNEMONIC_XSAVE, ZYDIS_MNEMONIC_XSAVE64}, xsave<false>);
  table.set({ZYDIS_MNEMONIC_XSAVEOPT, ZYDIS_MNEMONIC_XSAVEOPT64}, xsave<true>);
  table.set({ZYDIS_MNEMONIC_XSAVEC, ZYDIS_MNEMONIC_XSAVEC64}, xsavec);
  table.set({ZYDIS_MNEMONIC_XRSTOR, ZYDIS_MNEMONIC_XRSTOR64}, xrstor);
  table.set({ZYDIS_MNEMONIC_FXSAVE, ZYDIS_MNEMONIC_FXSAVE64}, fxsave);
  table.set({ZYDIS_MNEMONIC_FXRSTOR, ZYDIS_MNEMONIC_FXRSTOR64}, fxrstor);
  table.set(ZYDIS_MNEMONIC_XGETBV, xgetbv);
  table.set(ZYDIS_MNEMONIC_XSETBV, xsetbv);
  table.set({ZYDIS_MNEMONIC_LDMXCSR, ZYDIS_MNEMONIC_VLDMXCSR}, ldmxcsr);
  table.set({ZYDIS_MNEMONIC_STMXCSR, ZYDIS_MNEMONIC_VSTMXCSR}, stmxcsr);
}

}  // namespace caisson::jit
