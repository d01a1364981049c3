#include "cpufuzz/guest.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "jit/translate/classify.h"
#include "jit/vcpu.h"
#include "x86/registers.h"

namespace caisson::cpufuzz {
namespace {

using namespace x86;

constexpr uint64_t memory_size = 4 << 20, gdt = 0x1000, idt = 0x2000, tss = 0x3000, tables = 0x4000,
                   handlers = 0x1'0000, handler_stack = 0x2'0000, code_gpa = 0x10'0000, data_gpa = 0x20'0000;
// Where the supervisor sees low memory: user addresses that the host does not map shall not be mapped here either.
constexpr uint64_t high = 0xffff'8000'0000'0000;

bool has_error(unsigned vector) { return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17; }

}  // namespace

bool Guest::Quiet::pending() const {
  if (vcpu != nullptr && (*activity != Activity::Running || left == 0)) {
    vcpu->stop();
  } else {
    --left;
  }
  return false;
}

Result<std::unique_ptr<Guest>> Guest::create(By by, bool user) {
  std::unique_ptr<Guest> guest{new Guest(user)};
  if (auto done = guest->set_up(by); !done) return std::unexpected(done.error());
  return guest;
}

void Guest::put(Gpa gpa, uint64_t value) { CAISSON_CHECK(memory_->write_object(gpa, value)); }

Result<> Guest::set_up(By by) {
  auto memory = GuestMemory::create(memory_size);
  if (!memory) return std::unexpected(memory.error());
  memory_ = std::move(*memory);
  auto model = CpuModel::create("host", 1, clock_.tsc_hz());
  if (!model) return std::unexpected(model.error());
  model_ = std::make_unique<CpuModel>(std::move(*model));
  jit::JitOptions options;
  options.translate = by != By::Interpreter;
  options.code_cache_size = size_t{16} << 20;
  options.off = jit::off::seldom;
  if (by == By::Mirror || by == By::Direct) options.off |= jit::off::patience;
  if (by != By::Mirror) options.off |= jit::off::mirror;
  if (by != By::Direct) options.off |= jit::off::direct;
  direct_ = by == By::Direct;
  auto engine = jit::JitEngine::create({*memory_, bus_, clock_, *model_}, options);
  if (!engine) return std::unexpected(engine.error());
  engine_ = std::move(*engine);
  auto vcpu = engine_->create_vcpu(0, interrupts_);
  if (!vcpu) return std::unexpected(vcpu.error());
  vcpu_ = std::move(*vcpu);
  reset_ = vcpu_->store();

  // Gates lead to HLTs on a stack of their own (IST 1), so that the frame is always at the same place.
  for (uint64_t vector = 0; vector < 256; ++vector) {
    const uint64_t target = high + handlers + vector * 16;
    put(idt + 16 * vector,
        (target & 0xffff) | 8ull << 16 | 1ull << 32 | 0xee00ull << 32 | (target >> 16 & 0xffff) << 48);
    put(idt + 16 * vector + 8, target >> 32);
    const uint8_t halt = 0xf4;
    CAISSON_CHECK(memory_->write_object(handlers + vector * 16, halt));
  }
  put(gdt + 8, 0x00af'9b00'0000'ffff);
  put(gdt + 16, 0x00cf'9300'0000'ffff);
  put(gdt + 24, 0x00af'fb00'0000'ffff);
  put(gdt + 32, 0x00cf'f300'0000'ffff);
  // Where Linux has them: else user code is not executed directly.
  put(gdt + 40, 0x00cf'f300'0000'ffff);
  put(gdt + 48, 0x00af'fb00'0000'ffff);
  put(tss + 0x24, high + handler_stack);
  // 2 MiB for the supervisor; the pages of code and data.
  put(tables, (tables + 0x1000) | 7);
  put(tables + 0x1000, (tables + 0x2000) | 7);
  put(tables + 8 * 256, (tables + 0x5000) | 7);
  put(tables + 0x5000, (tables + 0x6000) | 7);
  put(tables + 0x6000, 0x183);
  const auto map = [&](uint64_t linear, Gpa gpa, size_t size, Gpa table) {
    put(tables + 0x2000 + 8 * (linear >> 21), table | 7);
    for (uint64_t i = 0; i < size; i += page_size) put(table + 8 * ((linear + i) >> 12 & 511), (gpa + i) | 7);
  };
  map(code_address, code_gpa, code_size, tables + 0x3000);
  map(data_address, data_gpa, data_size, tables + 0x4000);
  return {};
}

Outcome Guest::run(const Case& test) {
  // What is the same as before stays as it is, and so do its translations.
  if (former_code_.empty()) {
    former_code_.assign(code_size, filler);
    CAISSON_CHECK(memory_->write(code_gpa, former_code_));
  }
  std::vector<uint8_t> code(code_size, filler);
  std::copy(test.code.begin(), test.code.end(), code.begin() + static_cast<ptrdiff_t>(test.state.rip - code_address));
  if (code != former_code_ || std::memcmp(memory_->base() + code_gpa, code.data(), code_size) != 0) {
    CAISSON_CHECK(memory_->write(code_gpa, code));
    former_code_ = std::move(code);
  }
  CAISSON_CHECK(memory_->write(data_gpa, test.state.data));
  CpuState state = reset_;
  state.gpr = test.state.gpr;
  state.rip = test.state.rip;
  state.rflags = test.state.rflags;
  state.cr0 = cr0::pe | cr0::mp | cr0::et | cr0::ne | cr0::wp | cr0::am | cr0::pg;
  state.cr3 = tables;
  state.cr4 = cr4::pae | cr4::pge | cr4::osfxsr | cr4::osxmmexcpt | (model_->has(Feature::Xsave) ? cr4::osxsave : 0) |
              (model_->has(Feature::Fsgsbase) ? cr4::fsgsbase : 0);
  state.efer = efer::lme | efer::lma | efer::nxe | efer::sce;
  state.xcr0 = model_->xcr0_allowed();
  const uint32_t dpl = user_ ? 3u << 5 : 0;
  for (auto& segment : state.segments) {
    segment = {.base = 0,
               .limit = 0xffff'ffff,
               .attributes = 0xc093 | dpl,
               .selector = static_cast<uint16_t>(user_ ? 0x23 : 16)};
  }
  state.segments[Cs].attributes = 0xa09b | dpl;
  state.segments[Cs].selector = user_ ? 0x1b : 8;
  if (direct_) {
    state.rflags |= rflags::interrupt;
    for (auto& segment : state.segments) segment.selector = 0;
    state.segments[Cs].selector = 0x33;
    state.segments[Ss].selector = 0x2b;
  }
  state.segments[Fs].base = test.state.fs_base;
  state.segments[Gs].base = test.state.gs_base;
  state.gdtr = {.base = high + gdt, .limit = 0x3f};
  state.idtr = {.base = high + idt, .limit = 0xfff};
  state.tr = {.base = high + tss, .limit = 0x67, .attributes = 0x8b, .selector = 0x28};
  std::copy(test.state.xsave.begin(), test.state.xsave.end(), state.xsave.data.begin());
  CAISSON_CHECK(vcpu_->load(state).has_value());

  interrupts_.left = 200'000;
  interrupts_.activity = &static_cast<jit::JitVcpu&>(*vcpu_).cpu().activity;
  interrupts_.vcpu = vcpu_.get();
  const ExitReason reason = vcpu_->run();
  interrupts_.vcpu = nullptr;

  const CpuState after = vcpu_->store();
  Outcome outcome;
  outcome.state.gpr = after.gpr;
  outcome.state.fs_base = after.segments[Fs].base;
  outcome.state.gs_base = after.segments[Gs].base;
  outcome.cr2 = after.cr2;
  std::copy_n(after.xsave.data.begin(), xsave_size, outcome.state.xsave.begin());
  CAISSON_CHECK(memory_->read(data_gpa, outcome.state.data));
  if (reason != ExitReason::Stopped || after.rip < high + handlers || after.rip >= high + handlers + 256 * 16)
    return outcome;
  outcome.vector = static_cast<int>((after.rip - high - handlers) / 16);
  uint64_t frame[6] = {};
  const bool error = has_error(static_cast<unsigned>(outcome.vector));
  const size_t size = error ? 48 : 40;
  CAISSON_CHECK(memory_->read(handler_stack - size, {reinterpret_cast<uint8_t*>(frame + (error ? 0 : 1)), size}));
  outcome.error = frame[0];
  outcome.state.rip = frame[1];
  outcome.state.rflags = direct_ ? frame[3] & ~rflags::interrupt : frame[3];
  outcome.state.gpr[Rsp] = frame[4];
  return outcome;
}

}  // namespace caisson::cpufuzz
