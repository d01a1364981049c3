// Tests: a guest made of bytes that mean it no good, run for a bounded time on either half of the engine, with a second
// guest's memory beside it that must stay as it was.
//   Mode     real, protected, 32-bit paging, PAE, long, compatibility; tables sane, random or pointing to themselves
//   Bounds   run() ends after so many rounds of the run loop, or when its watch (a thread) says so
//   Threads  run() on the caller's thread; one guest at a time
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <random>
#include <span>
#include <stop_token>
#include <thread>

#include "base/check.h"
#include "bus/fake_clock.h"
#include "jit/direct/host_process.h"
#include "jit/engine.h"
#include "jit/translate/classify.h"
#include "jit/vcpu.h"
#include "x86/registers.h"

namespace caisson::jit::test {

// What to build, one value per choice, so that a fuzzer's bytes can name every one.
struct HostileRecipe {
  enum Mode : uint8_t { Real, Protected, Paging32, Pae, Long, Compatibility, mode_count };
  enum Place : uint8_t { Middle, PageEnd, MemoryEnd, Mmio, place_count };
  enum Tables : uint8_t { Sane, Random, SelfPointing, Partly, tables_count };
  Mode mode = Long;
  Place place = Middle;
  Tables tables = Sane;
  bool user = false;
  bool idt = false;          // gates that lead into the payload; else the first exception shuts down
  bool interrupts = false;   // vectors and NMIs arrive now and then
  bool protect = false;      // CR0.WP, CR4.SMEP, CR4.SMAP as the seed says
  bool small_stack = false;  // 16-bit or odd stack pointers
  bool mirror = false;       // user code runs in a mirrored address space
  bool direct = false;       // Long, user: as a 64-bit program of Linux, which the host's CPU executes itself
  uint64_t seed = 0;

  // The first `size` bytes of a fuzzer's input; the rest is the payload.
  static constexpr size_t size = 7;
  static HostileRecipe from(std::span<const uint8_t, size> bytes) {
    HostileRecipe recipe;
    recipe.mode = static_cast<Mode>(bytes[0] % mode_count);
    recipe.place = static_cast<Place>((bytes[1] & 15) % place_count);
    recipe.tables = static_cast<Tables>((bytes[1] >> 4) % tables_count);
    recipe.user = bytes[2] & 1;
    recipe.idt = bytes[2] & 2;
    recipe.interrupts = bytes[2] & 4;
    recipe.protect = bytes[2] & 8;
    recipe.small_stack = bytes[2] & 16;
    recipe.mirror = bytes[2] & 32;
    recipe.direct = bytes[2] & 64;
    if (recipe.direct) {
      recipe.mode = Long;
      recipe.user = true;
    }
    uint32_t word = 0;
    std::memcpy(&word, bytes.data() + 3, 4);
    recipe.seed = word;
    return recipe;
  }
};

class HostileGuest {
 public:
  static constexpr uint64_t memory_size = 2 << 20, payload = 0x1'0000, tables = 0x2000, gdt = 0x8000, idt = 0x9000,
                            device_page = memory_size;  // one page of MMIO right behind RAM

  HostileGuest(bool translate, size_t code_cache_size) {
    memory_ = std::move(*GuestMemory::create(memory_size));
    bus_.map(Space::Memory, device_page, page_size, device_, 0);
    bus_.map(Space::Port, 0x40, 0x40, device_, 1);
    JitOptions options;
    options.translate = translate;
    options.code_cache_size = code_cache_size;
    options.off = off::seldom | off::patience;
    engine_ = std::move(*JitEngine::create({*memory_, bus_, clock_, model_}, options));
    vcpu_ = std::move(*engine_->create_vcpu(0, interrupts_));
    reset_ = vcpu_->store();
    mirror_ = cpu().mirror;
  }

  void put(Gpa gpa, uint64_t value) { CAISSON_CHECK(memory_->write_object(gpa, value)); }
  [[nodiscard]] GuestMemory& memory() { return *memory_; }
  [[nodiscard]] JitEngine& engine() { return *engine_; }
  [[nodiscard]] Cpu& cpu() { return static_cast<JitVcpu&>(*vcpu_).cpu(); }
  [[nodiscard]] CpuState store() const { return vcpu_->store(); }

  void load(const HostileRecipe& recipe, std::span<const uint8_t> code) {
    std::mt19937_64 random(recipe.seed);
    interrupts_.active = recipe.interrupts;
    interrupts_.random.seed(static_cast<uint32_t>(recipe.seed));
    if (loaded_) std::memset(memory_->base(), 0, memory_size);
    loaded_ = true;
    CpuState state = reset_;
    const uint64_t length = std::min<uint64_t>(code.size(), 0x4000);
    uint64_t at = payload;
    switch (recipe.place) {
      case HostileRecipe::PageEnd: at = payload + page_size - std::min<uint64_t>(1 + recipe.seed % 16, length); break;
      case HostileRecipe::MemoryEnd: at = memory_size - length; break;
      case HostileRecipe::Mmio: at = device_page + (recipe.seed & 0xff0); break;
      default: break;
    }
    device_.bytes.assign(code.begin(), code.end());
    const uint64_t written = recipe.place == HostileRecipe::Mmio ? payload : at;
    CAISSON_CHECK(memory_->write(written, code.first(length)));
    if (length > 0) {  // more of the same to fall into
      for (uint64_t i = 0; i < 16; ++i)
        CAISSON_CHECK(memory_->write(0x4'0000 + i * page_size, code.first(std::min<uint64_t>(length, page_size))));
    }
    set_mode(recipe, state, random, at);
    set_tables(recipe, state, random);
    if (recipe.idt) set_gates(recipe, state, random, at);
    for (uint64_t& reg : state.gpr) {
      reg = random() % (memory_size + page_size);
      if (random() % 4 == 0) reg = random() >> random() % 64;
    }
    state.gpr[x86::Rsp] = recipe.small_stack ? random() % 0x3'0000 : 0x6'0000 + random() % 0x100 * 8;
    if (random() % 8 == 0)
      state.rflags |= random() & (x86::rflags::tf | x86::rflags::df | x86::rflags::ac | x86::rflags::nt);
    if (random() % 16 == 0) {
      state.dr[7] = 0x400 | (random() & 0xffff'03ff);
      for (unsigned i = 0; i < 4; ++i) state.dr[i] = at + random() % 64;
    }
    if (recipe.direct) make_program(state, random, at);
    CAISSON_CHECK(vcpu_->load(state).has_value());  // (drops the mirror that there was)
    cpu().mirror = recipe.mirror ? mirror_ : nullptr;
    engine_->memory_replaced();
  }

  // At most `rounds` looks at interrupts and `time` of the host's.
  ExitReason run(unsigned rounds, std::chrono::milliseconds time) {
    interrupts_.left = rounds;
    interrupts_.vcpu = static_cast<JitVcpu*>(vcpu_.get());
    std::mutex lock;
    std::condition_variable_any ended;
    ExitReason reason;
    {
      std::jthread watch([&](const std::stop_token& stop) {
        std::unique_lock hold(lock);
        ended.wait_for(hold, stop, time, [] { return false; });
        if (!stop.stop_requested()) vcpu_->stop();
      });
      reason = vcpu_->run();
    }
    interrupts_.vcpu = nullptr;
    return reason;
  }

 private:
  // CPUID may be slow under a hypervisor: asked once.
  static const x86::CpuModel& host_model() {
    static const x86::CpuModel model = std::move(*x86::CpuModel::create("host", 1, 1'000'000'000));
    return model;
  }

  // Counts how often the run loop asks; a CPU that sleeps gets a vector or is stopped.
  class Interrupts final : public CpuInterrupts {
   public:
    bool pending() const override {
      if (vcpu == nullptr) return false;
      if (left == 0 || (!active && vcpu->cpu().activity != Activity::Running)) {
        vcpu->stop();
        return false;
      }
      --left;
      return active && (left % 16 == 0 || vcpu->cpu().activity != Activity::Running);
    }
    std::optional<Taken> take_event(bool nmi_allowed) override {
      if (!nmi_allowed || random() % 8 != 0) return {};
      return Taken{.event = Event::Nmi};
    }
    bool interrupt_ready() const override { return active; }
    std::optional<uint8_t> acknowledge() override { return static_cast<uint8_t>(random()); }
    uint32_t read_register(uint32_t offset) override { return offset * 3; }
    void write_register(uint32_t, uint32_t) override {}
    std::optional<uint64_t> read_msr(uint32_t) override { return 0xfee0'0900; }
    bool write_msr(uint32_t, uint64_t) override { return true; }
    uint64_t apic_base() const override { return 0xfee0'0900; }
    uint8_t cr8() const override { return cr8_; }
    void set_cr8(uint8_t value) override { cr8_ = value; }

    JitVcpu* vcpu = nullptr;
    mutable unsigned left = 0;
    bool active = false;
    std::minstd_rand random;

   private:
    uint8_t cr8_ = 0;
  };

  // Its registers read as the payload, so that code can run from it.
  class Bytes final : public Device {
   public:
    std::string_view name() const override { return "bytes"; }
    uint64_t read(unsigned, uint64_t offset, unsigned size) override {
      uint64_t value = 0;
      for (unsigned i = 0; i < size && !bytes.empty(); ++i)
        value |= uint64_t{bytes[(offset + i) % bytes.size()]} << 8 * i;
      return value;
    }
    void write(unsigned, uint64_t offset, unsigned, uint64_t value) override {
      if (!bytes.empty()) bytes[offset % bytes.size()] = static_cast<uint8_t>(value);
    }
    void reset() override {}
    void save(fields::Buffer&) const override {}
    Result<> restore(std::span<const uint8_t>) override { return {}; }

    std::vector<uint8_t> bytes;
  };

  void set_mode(const HostileRecipe& recipe, CpuState& state, std::mt19937_64& random, uint64_t at) {
    using namespace x86;
    const bool wide = recipe.mode == HostileRecipe::Long || recipe.mode == HostileRecipe::Compatibility;
    const uint32_t dpl = recipe.user ? 3u << 5 : 0;
    state.rip = at;
    state.rflags = rflags::fixed | (recipe.interrupts ? rflags::interrupt : 0);
    state.xcr0 = model_.xcr0_allowed();
    state.gdtr = {.base = gdt, .limit = 0xff};
    state.idtr = {.base = idt, .limit = static_cast<uint16_t>(recipe.idt ? 0xfff : 0)};
    if (recipe.mode == HostileRecipe::Real) {
      // CS.base moves on, so that code stands at IP < 64 KiB wherever it is.
      for (auto& segment : state.segments) segment.base = 0;
      state.segments[Cs].base = at & ~uint64_t{0xfff};
      state.rip = at & 0xfff;
      state.idtr = {.base = recipe.idt ? idt : 0, .limit = 0x3ff};
      if (random() % 4 == 0) state.segments[Cs].limit = 0xffff'ffff;  // "unreal"
      return;
    }
    const bool big = wide || random() % 4 != 0;
    state.segments[Cs] = {.base = 0,
                          .limit = 0xffff'ffff,
                          .attributes = 0x809b | dpl |
                                        (recipe.mode == HostileRecipe::Long ? 1u << 13
                                         : big                              ? 1u << 14
                                                                            : 0),
                          .selector = static_cast<uint16_t>(recipe.user ? 0x1b : 8)};
    for (const unsigned reg : {Es, Ss, Ds, Fs, Gs}) {
      state.segments[reg] = {.base = 0,
                             .limit = 0xffff'ffff,
                             .attributes = 0x8093 | dpl | (big ? 1u << 14 : 0),
                             .selector = static_cast<uint16_t>(recipe.user ? 0x23 : 16)};
    }
    state.segments[Fs].base = random() % memory_size;
    state.segments[Gs].base = random() % 4 ? random() % memory_size : random();
    if (!wide) state.segments[Gs].base &= 0xffff'ffff;
    if (!wide && random() % 4 == 0) state.segments[Ds].limit = static_cast<uint32_t>(random() % memory_size);
    state.cr0 = cr0::pe | cr0::et | cr0::ne;
    state.cr4 = cr4::osfxsr | cr4::osxmmexcpt | (model_.has(Feature::Xsave) ? cr4::osxsave : 0);
    if (recipe.protect) {
      if (random() % 2) state.cr0 |= cr0::wp;
      if (random() % 2) state.cr4 |= cr4::smep;
      if (random() % 2) state.cr4 |= cr4::smap;
      if (random() % 8 == 0) state.cr0 |= cr0::ts;
    }
    if (recipe.mode >= HostileRecipe::Paging32) state.cr0 |= cr0::pg;
    if (recipe.mode == HostileRecipe::Paging32) state.cr4 |= cr4::pse;
    if (recipe.mode >= HostileRecipe::Pae) state.cr4 |= cr4::pae;
    if (wide) state.efer = efer::lme | efer::lma | efer::nxe | efer::sce;
    state.tr = {.base = 0xa800, .limit = 0x67, .attributes = 0x8b, .selector = 0x28};
  }

  // Everything one to one in large pages, then what the recipe spoils.
  void set_tables(const HostileRecipe& recipe, CpuState& state, std::mt19937_64& random) {
    state.cr3 = tables;
    if (recipe.mode < HostileRecipe::Paging32) return;
    const uint64_t directory = recipe.mode >= HostileRecipe::Long  ? tables + 0x2000
                               : recipe.mode == HostileRecipe::Pae ? tables + 0x1000
                                                                   : tables;
    if (recipe.mode == HostileRecipe::Paging32) {
      for (uint64_t i = 0; i < 2; ++i)
        CAISSON_CHECK(memory_->write_object(tables + 4 * i, static_cast<uint32_t>(i << 22 | 0x87)));
    } else {
      put(directory, 0x6007);  // 4 KiB pages, so that some can be missing
      for (uint64_t i = 0; i < 512; ++i) put(0x6000 + 8 * i, i << 12 | 7);
      for (uint64_t i = 1; i < 4; ++i) put(directory + 8 * i, i << 21 | 0x87);
      if (recipe.mode == HostileRecipe::Pae) {
        for (unsigned i = 0; i < 4; ++i) state.pdpte[i] = directory | 1;
        for (uint64_t i = 0; i < 4; ++i) put(tables + 8 * i, directory | 1);
      } else {
        put(tables, (tables + 0x1000) | 7);
        put(tables + 8 * 511, (tables + 0x1000) | 7);
        put(tables + 0x1000, directory | 7);
        put(tables + 0x1000 + 8 * 510, directory | 7);
      }
    }
    const auto entry = [&](uint64_t page) {
      return (page & (memory_size - 1) & ~(page_size - 1)) | (random() & 0x1ff) | (random() % 8 == 0 ? 1ull << 63 : 0) |
             (random() % 32 == 0 ? random() : 0);
    };
    switch (recipe.tables) {
      case HostileRecipe::Sane: break;
      case HostileRecipe::Random:
        for (unsigned i = 0; i < 64; ++i) put(tables + (random() % 0x5000 & ~7ull), entry(random()));
        break;
      case HostileRecipe::SelfPointing: {
        // A table that is its own next level: what the code stores may be its own mapping.
        const uint64_t flags = 7 | (random() % 2 ? 0x60 : 0);
        put(tables + 8 * (random() % 2 ? 0 : random() % 512), tables | flags);
        put(directory + 8 * (random() % 4), directory | flags);
        put(0x6000 + 8 * (random() % 16), 0x6000 | flags);
        break;
      }
      default:
        for (unsigned i = 0; i < 200; ++i) put(0x6000 + 8 * (random() % 512), entry(random()));
        for (uint64_t i = payload >> 12; i < (payload >> 12) + 2; ++i) put(0x6000 + 8 * i, i << 12 | 7);
        break;
    }
  }

  // What direct execution asks for: Linux's selectors, and none of what it leaves to the translator.
  void make_program(CpuState& state, std::mt19937_64& random, uint64_t at) {
    using namespace x86;
    constexpr uint16_t kernel_code = 8, sysret_base = 0x23;
    put(gdt + (HostProcess::user_data & ~7), 0x00cf'f300'0000'ffff);
    put(gdt + (HostProcess::user_code & ~7), 0x00af'fb00'0000'ffff);
    put(gdt + 0x38, 0x0000'8b00'a800'0067);
    state.tr.selector = 0x38;
    state.segments[Cs].selector = HostProcess::user_code;
    state.segments[Ss].selector = HostProcess::user_data;
    for (const unsigned reg : {Es, Ds, Fs, Gs}) state.segments[reg].selector = 0;
    state.msrs[static_cast<size_t>(MsrSlot::Star)] = uint64_t{sysret_base} << 48 | uint64_t{kernel_code} << 32;
    state.msrs[static_cast<size_t>(MsrSlot::Lstar)] = at + random() % 32;
    state.cr0 &= ~(cr0::ts | cr0::em);
    state.cr4 |= cr4::fsgsbase;
    state.rflags = (state.rflags | rflags::interrupt) & ~(rflags::tf | rflags::iopl);
    state.dr[7] = 0x400;
  }

  // A descriptor table and gates of the mode's format, most of them good; handlers stand in the payload.
  void set_gates(const HostileRecipe& recipe, CpuState& state, std::mt19937_64& random, uint64_t at) {
    const bool wide = recipe.mode == HostileRecipe::Long || recipe.mode == HostileRecipe::Compatibility;
    constexpr uint64_t flat = 0x00cf'0000'0000'ffff;
    put(gdt + 8, flat | 0x9bull << 40);
    if (wide) put(gdt + 8, 0x00af'9b00'0000'ffff);
    put(gdt + 16, flat | 0x93ull << 40);
    put(gdt + 24, (recipe.mode == HostileRecipe::Long ? 0x00af'0000'0000'ffff : flat) | 0xfbull << 40);
    put(gdt + 32, flat | 0xf3ull << 40);
    put(gdt + 40, 0x0000'8b00'a800'0067);
    for (unsigned i = 6; i < 16; ++i) put(gdt + 8 * i, random());
    put(0xa800 + 4, 0x7'0000);
    put(0xa800 + 8, 16);
    for (uint64_t vector = 0; vector < 256; ++vector) {
      const uint64_t target = (at & 0xfff'ffff) + random() % 32;
      const uint64_t kind = random() % 16 == 0 ? random() & 0xff00 : 0x8e00 | (random() & 0x6100);
      const uint64_t gate =
          (target & 0xffff) | (random() % 32 == 0 ? random() & 0xff : 8) << 16 | kind << 32 | (target >> 16) << 48;
      if (recipe.mode == HostileRecipe::Real) {
        const auto vector_entry = static_cast<uint32_t>((at >> 4 & 0xf000) << 16 | (at + random() % 32) % 0x1'0000);
        CAISSON_CHECK(memory_->write_object(idt + 4 * vector, vector_entry));
      } else if (wide) {
        put(idt + 16 * vector, gate);
      } else {
        put(idt + 8 * vector, gate);
      }
    }
    if (random() % 16 == 0) state.idtr.limit = static_cast<uint16_t>(random());
  }

  Bus bus_;
  FakeClock clock_;
  Interrupts interrupts_;
  Bytes device_;
  const x86::CpuModel& model_ = host_model();
  std::unique_ptr<GuestMemory> memory_;
  std::unique_ptr<JitEngine> engine_;
  std::unique_ptr<Vcpu> vcpu_;
  CpuState reset_;
  Mirror* mirror_ = nullptr;
  bool loaded_ = false;
};

// Memory of a guest that does not run: nothing that happens elsewhere in the process may change a byte of it.
class Neighbour {
 public:
  Neighbour() : memory_(std::move(*GuestMemory::create(1 << 20))), copy_(1 << 20) {
    std::minstd_rand random;
    for (uint8_t& byte : copy_) byte = static_cast<uint8_t>(random());
    CAISSON_CHECK(memory_->write(0, copy_));
  }
  [[nodiscard]] bool untouched() const { return std::memcmp(memory_->base(), copy_.data(), copy_.size()) == 0; }

 private:
  std::unique_ptr<GuestMemory> memory_;
  std::vector<uint8_t> copy_;
};

}  // namespace caisson::jit::test
