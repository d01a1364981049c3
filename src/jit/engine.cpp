#include "jit/engine.h"

#include <algorithm>

#include "jit/block_dump.h"
#include "jit/direct/direct.h"
#include "jit/lockstep.h"
#include "jit/mmu/code_pages.h"
#include "jit/mmu/mirror.h"
#include "jit/mmu/mmu.h"
#include "jit/translate/classify.h"
#include "jit/translate/stubs.h"
#include "jit/vcpu.h"

namespace caisson::jit {

JitEngine::JitEngine(const EngineServices& services, const JitOptions& options)
    : services_(services), options_(options), turns_(std::make_unique<Turns>()) {
  if (options_.lockstep) options_.off |= off::direct | off::mirror | off::chain | off::unrepeatable | off::seldom;
  // Who leaves instructions to the interpreter wants to see them there.
  if (options_.off & off::instructions) options_.off |= off::direct;
}

Result<std::unique_ptr<JitEngine>> JitEngine::create(const EngineServices& services, const JitOptions& options) {
  std::unique_ptr<JitEngine> engine{new JitEngine(services, options)};
  auto cache = CodeCache::create(services.memory, options.code_cache_size);
  if (!cache) return with_context("jit engine", cache.error());
  engine->cache_ = std::move(*cache);
  if (options.translate) {
    auto stubs = emit_stubs(*engine->cache_);
    if (!stubs) return std::unexpected(stubs.error());
    engine->stubs_ = *stubs;
    engine->cache_->set_base(engine->stubs_.lookup_stale);
    if (options.dump_fd >= 0) {
      engine->dump_ = std::make_unique<BlockDump>(options.dump_fd, options.dump_at, engine->stubs_);
    }
    install_fault_handlers(*engine->cache_, engine->stubs_);
  }
  services.memory.set_observer(engine.get());
  return engine;
}

JitEngine::~JitEngine() {
  services_.memory.set_observer(nullptr);
  forget_fault_handlers(*cache_);
}

void JitEngine::close_gate(const Cpu* caller, uint32_t requests) {
  gate_closed_.store(true, std::memory_order_seq_cst);
  for (JitVcpu* vcpu : vcpus_) {
    if (&vcpu->cpu() != caller) vcpu->request(JitVcpu::leave_guest | JitVcpu::drop_jumps | requests);
  }
  for (JitVcpu* vcpu : vcpus_) {
    if (&vcpu->cpu() != caller) vcpu->await_out_of_guest();
  }
}

Result<std::unique_ptr<Vcpu>> JitEngine::create_vcpu(unsigned index, CpuInterrupts& interrupts) {
  auto vcpu = std::make_unique<JitVcpu>(*this, index, interrupts);
  vcpus_.push_back(vcpu.get());
  return vcpu;
}

void JitEngine::vcpu_gone(JitVcpu& vcpu) { std::erase(vcpus_, &vcpu); }

void JitEngine::memory_replaced() {
  const std::lock_guard hold(cache_->lock());
  cache_->drop_all();
  for (JitVcpu* vcpu : vcpus_) vcpu->request(JitVcpu::drop_write_entries | JitVcpu::drop_mirrors | JitVcpu::drop_jumps);
}

EngineProfile JitEngine::profile() const {
  EngineProfile all;
  if (!options_.profile) return all;
  Profile::Totals totals;
  for (JitVcpu* vcpu : vcpus_) vcpu->add_profile(totals);
  for (const auto& [name, value] : totals) all.rows.push_back({name.first, name.second, value});
  return all;
}

void JitEngine::code_written(Gpa gpa, uint64_t length) {
  const std::lock_guard hold(cache_->lock());
  (void)cache_->written(gpa, length);
}

void JitEngine::page_becomes_code(Cpu& cpu, Gpa page) {
  std::atomic<uint32_t>& flags = services_.memory.page_flags(page);
  constexpr uint32_t code = GuestMemory::code_flag;
  // One at a time: a mark that is there was made to the end.
  const std::lock_guard one(becoming_code_);
  if (flags.load(std::memory_order_acquire) & code) return;
  for (;;) {
    uint32_t writers = flags.fetch_or(code, std::memory_order_seq_cst) & ~code;
    if (writers == 0) return;
    drop_write_entries(cpu, page, writers);
    services_.memory.note_dirty(page);
    // All code may have been dropped meanwhile, and the mark with it, and then a writer may have its entry back: its
    // bit has to stay.
    uint32_t now = flags.load(std::memory_order_seq_cst);
    while ((now & code) != 0 && !flags.compare_exchange_weak(now, now & ~writers, std::memory_order_seq_cst)) {
    }
    if ((now & code) != 0) return;
  }
}

// Takes the page's write entries from the vCPUs of these bits, `cpu` itself among them.
void JitEngine::drop_write_entries(Cpu& cpu, Gpa page, uint32_t writers) {
  if (writers & writer_bit(cpu)) {
    const uint8_t* host = services_.memory.base() + page;
    if (cpu.mirror != nullptr) cpu.mirror->revoke(page);
    if (cpu.direct != nullptr) cpu.direct->revoke(page);
    mmu::drop_stack_pages(cpu);
    for (Tlb& tlb : cpu.tlb) {
      for (unsigned i = 0; i < tlb_entries; ++i) {
        if (tlb.write_tag[i] + tlb.addend[i] == reinterpret_cast<uint64_t>(host)) tlb.write_tag[i] = invalid_tag;
      }
    }
  }
  const auto others = [&](auto visit) {
    for (JitVcpu* vcpu : vcpus_) {
      if (&vcpu->cpu() != &cpu && (writers & writer_bit(vcpu->cpu())) != 0) visit(*vcpu);
    }
  };
  others([&](JitVcpu& vcpu) {
    if (vcpu.cpu().direct != nullptr) vcpu.cpu().direct->revoke(page);
    vcpu.request(JitVcpu::drop_write_entries);
  });
  others([&](JitVcpu& vcpu) {
    vcpu.await(JitVcpu::drop_write_entries);
    if (vcpu.cpu().mirror != nullptr) vcpu.cpu().mirror->revoke(page);
  });
}

// Calls `work` with each page that a vCPU may have stored to directly, and has them all claim their pages anew.
template <class Work>
void JitEngine::take_writers(Work work) {
  const std::lock_guard one(exclusive_);
  close_gate(nullptr, JitVcpu::drop_write_entries | JitVcpu::drop_mirrors);
  GuestMemory& memory = services_.memory;
  const auto take = [&](Gpa from, uint64_t size) {
    for (Gpa page = from; page < from + size; page += page_size) {
      std::atomic<uint32_t>& flags = memory.page_flags(page);
      if ((flags.load(std::memory_order_relaxed) & ~GuestMemory::code_flag) == 0) continue;
      flags.fetch_and(GuestMemory::code_flag);
      work(memory.page_index(page));
    }
  };
  take(0, memory.low_size());
  take(GuestMemory::high_start, memory.high_size());
  gate_closed_.store(false, std::memory_order_seq_cst);
}

Result<> JitEngine::start() {
  take_writers([](size_t) {});
  return {};
}

Result<> JitEngine::gather(DirtyPages& into) {
  take_writers([&](size_t page) { into.add(page); });
  return {};
}

void JitEngine::code_mapping_flushed(Cpu& cpu, bool global_too) {
  if (!options_.translate) return;
  for (unsigned mode = 0; mode < cpu.jumps.size(); ++mode) {
    // Supervisor code is mapped globally as a rule: then it survives.
    const bool user = mode == static_cast<unsigned>(TlbMode::User);
    if (!global_too && !cpu.jumps_local[mode]) continue;
    if (!user) cpu.jump_memory.flush_supervisor();
    cpu.jumps_local[mode] = false;
    if (cpu.code_noted) cpu.jumps[mode].clear();
  }
  if (!global_too) return;
  cpu.jump_memory.flush_all(true);
  const std::lock_guard hold(cache_->lock());
  cache_->recheck_cross_page_targets([&](uint64_t linear_page, Gpa gpa_page) {
    Gpa now = 0;
    return mmu::debug_translate(cpu, linear_page, now) && now == gpa_page;
  });
}

void JitEngine::code_page_flushed(Cpu& cpu, uint64_t linear_page) {
  if (!options_.translate) return;
  if (cpu.jump_memory.may_have_page(linear_page)) {
    for (JumpCache& cache : cpu.jumps) {
      for (size_t i = 0; i < jump_entries; ++i) {
        if ((cache.entries[i].rip ^ linear_page) >> 12 == 0) cache.drop(i);
      }
    }
    cpu.jump_memory.flush_user();
    if (cpu.upper_half(linear_page)) cpu.jump_memory.flush_supervisor();
  }
  if (!cpu.upper_half(linear_page)) return;  // only supervisor code is chained across pages
  const std::lock_guard hold(cache_->lock());
  cache_->recheck_cross_page_target(linear_page, [&](uint64_t linear, Gpa gpa_page) {
    Gpa now = 0;
    return mmu::debug_translate(cpu, linear, now) && now == gpa_page;
  });
}

}  // namespace caisson::jit
