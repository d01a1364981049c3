// The kvm engine: vCPUs that the host's kernel runs on the processor's own virtualization, by /dev/kvm.
//   Source   Linux Documentation/virt/kvm/api.rst
//   Models   the same machine as the jit engine: IOAPIC, PIC and PIT are our own; local APICs are the kernel's where
//            it can keep them without the others (KVM_CAP_SPLIT_IRQCHIP), else ours; CPUID comes from the CPU model,
//            MSRs that the kernel does not answer as the model says are answered here
//   Threads  create() and create_vcpu() before any CPU runs
#pragma once

#include <memory>
#include <vector>

#include <linux/kvm.h>

#include "engine/engine.h"
#include "kvm/apics.h"
#include "kvm/device.h"
#include "kvm/direct_memory.h"
#include "kvm/doorbells.h"
#include "kvm/state.h"
#include "kvm/write_log.h"

namespace caisson::kvm {

struct KvmOptions {
  bool kernel_apics = true;  // false: our own local APICs, whatever the host can do
  uint32_t dirty_ring = 0;   // entries of a vCPU's ring for the dirty log, a power of two from 1024 on; 0: a bitmap
};

class KvmEngine final : public Engine {
 public:
  [[nodiscard]] static Result<std::unique_ptr<KvmEngine>> create(const EngineServices& services, Fd device,
                                                                 const KvmOptions& options = {});

  [[nodiscard]] Result<std::unique_ptr<Vcpu>> create_vcpu(unsigned index, CpuInterrupts& interrupts) override;
  [[nodiscard]] KvmApics* apics() override { return apics_.get(); }
  [[nodiscard]] DoorbellBinder* doorbells() override { return doorbells_.get(); }
  [[nodiscard]] KvmDirectMemory* direct_memory() override { return direct_memory_.get(); }
  [[nodiscard]] KvmWriteLog& write_log() override { return *write_log_; }
  // Why local APICs are not the kernel's; empty where they are.
  [[nodiscard]] const std::string& apics_missing() const { return apics_missing_; }
  // The kernel follows the mappings of guest memory by itself.
  void memory_replaced() override {}
  [[nodiscard]] Result<> clock_moved() override;

  [[nodiscard]] const EngineServices& services() const { return services_; }
  [[nodiscard]] const KvmDevice& device() const { return device_; }
  [[nodiscard]] int vm_fd() const { return vm_.get(); }
  [[nodiscard]] const StateAbilities& abilities() const { return abilities_; }
  // The host's TSC less the machine's; the same for every CPU.
  [[nodiscard]] uint64_t tsc_bias() const { return tsc_bias_; }
  // IA32_ARCH_CAPABILITIES: what the model says and is true of this host.
  [[nodiscard]] uint64_t arch_capabilities() const { return arch_capabilities_; }

 private:
  KvmEngine(const EngineServices& services, KvmDevice device) : services_(services), device_(std::move(device)) {}
  [[nodiscard]] Result<> add_memory(uint32_t dirty_ring);

  EngineServices services_;
  KvmDevice device_;
  Fd vm_;
  std::unique_ptr<KvmApics> apics_;
  std::string apics_missing_;
  std::unique_ptr<KvmDoorbells> doorbells_;
  std::unique_ptr<KvmWriteLog> write_log_;
  std::unique_ptr<KvmDirectMemory> direct_memory_;
  std::vector<kvm_cpuid_entry2> supported_;
  StateAbilities abilities_;
  uint64_t tsc_bias_ = 0;
  uint64_t arch_capabilities_ = 0;
};

}  // namespace caisson::kvm
