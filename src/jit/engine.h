// The jit engine: vCPUs that interpret and translate, one shared code cache.
//   Threads  create_vcpu() before any CPU runs; the rest says so itself.
//   Locks    code lock (CodeCache): below the device lock, above nothing.
#pragma once

#include <memory>
#include <vector>

#include "engine/engine.h"
#include "jit/cache/code_cache.h"
#include "jit/cpu.h"
#include "jit/translate/stubs.h"

namespace caisson::jit {

class BlockDump;
class JitVcpu;
class Turns;

struct JitOptions {
  bool translate = true;                      // false: interpreter only
  bool profile = false;                       // sample and count for profile()
  size_t code_cache_size = size_t{64} << 20;  // bytes; when it is full all translations are dropped
  uint32_t off = 0;                           // what the translator does not do, see off in translate/classify.h
  int dump_fd = -1;                           // translated blocks are written there as text; not owned
  std::vector<uint64_t> dump_at;              // only those that contain one of these linear addresses; empty: all
  bool lockstep = false;                      // every block is compared with the interpreter, see lockstep.h
};

class JitEngine final : public Engine, public GuestMemory::CodeWriteObserver, private GuestWriteLog {
 public:
  [[nodiscard]] static Result<std::unique_ptr<JitEngine>> create(const EngineServices& services,
                                                                 const JitOptions& options);
  ~JitEngine() override;

  [[nodiscard]] Result<std::unique_ptr<Vcpu>> create_vcpu(unsigned index, CpuInterrupts& interrupts) override;
  void memory_replaced() override;
  [[nodiscard]] EngineProfile profile() const override;
  [[nodiscard]] GuestWriteLog& write_log() override { return *this; }

  // Any thread: bytes of a page that holds translated code have changed.
  void code_written(Gpa gpa, uint64_t length) override;

  // The vCPU's thread: the guest has flushed code mappings (its caches of them are already empty).
  void code_mapping_flushed(Cpu& cpu, bool global_too);
  void code_page_flushed(Cpu& cpu, uint64_t linear_page);

  // The vCPU's thread, between two runs of guest code, before code of the page is translated for the first time: when
  // it returns no vCPU stores to the page without telling.
  void page_becomes_code(Cpu& cpu, Gpa page);

  [[nodiscard]] CodeCache& cache() { return *cache_; }
  [[nodiscard]] const Stubs& stubs() const { return stubs_; }
  [[nodiscard]] const EngineServices& services() const { return services_; }
  [[nodiscard]] const JitOptions& options() const { return options_; }

  // Runs `work` while no vCPU runs guest code. The calling vCPU must be out of guest mode itself.
  template <class Work>
  void exclusive(const Cpu& caller, Work work) {
    const std::lock_guard one(exclusive_);
    close_gate(&caller);
    work();
    gate_closed_.store(false, std::memory_order_seq_cst);
  }
  [[nodiscard]] bool gate_closed() const { return gate_closed_.load(std::memory_order_seq_cst); }

  void vcpu_gone(JitVcpu& vcpu);

  [[nodiscard]] BlockDump* dump() { return dump_.get(); }  // null: off
  [[nodiscard]] Turns& turns() { return *turns_; }         // of the vCPUs in lock-step

 private:
  void drop_write_entries(Cpu& cpu, Gpa page, uint32_t writers);
  // Until no vCPU but the caller's, if there is one, runs guest code. All of them answer `requests` before they go on.
  void close_gate(const Cpu* caller, uint32_t requests = 0);

  // GuestWriteLog: whoever may store to a page directly has said so in its flags (mmu/code_pages.h); all other writes
  // tell GuestMemory. So it costs nothing while nobody asks.
  [[nodiscard]] Result<> start() override;
  void stop() override {}
  [[nodiscard]] Result<> gather(DirtyPages& into) override;
  template <class Work>
  void take_writers(Work work);

  JitEngine(const EngineServices& services, const JitOptions& options);

  EngineServices services_;
  JitOptions options_;
  std::unique_ptr<CodeCache> cache_;
  Stubs stubs_;
  std::atomic<bool> gate_closed_{false};
  std::mutex exclusive_;
  std::mutex becoming_code_;  // taken before the code lock, never by a vCPU that others wait for
  std::vector<JitVcpu*> vcpus_;
  const std::unique_ptr<Turns> turns_;
  std::unique_ptr<BlockDump> dump_;
};

}  // namespace caisson::jit
