#include "kvm/engine.h"

#include <linux/kvm.h>

#include "kvm/cpuid.h"
#include "kvm/msr_filter.h"
#include "kvm/vcpu.h"

namespace caisson::kvm {
namespace {

// Three pages that Intel's processors need for real mode, and one for its page table: between the IOAPIC and the
// local APIC, where no device is.
constexpr uint64_t identity_map = 0xfec1'0000;
constexpr uint64_t tss = identity_map + 0x1000;

// IA32_ARCH_CAPABILITIES of the host as its kernel gives it to guests; 0 where it does not say.
uint64_t host_arch_capabilities(const KvmDevice& device) {
  uint64_t value = 0;
  return get_msr(device.fd(), x86::msr::arch_capabilities, value) ? value : 0;
}

}  // namespace

Result<std::unique_ptr<KvmEngine>> KvmEngine::create(const EngineServices& services, Fd fd, const KvmOptions& options) {
  auto device = KvmDevice::create(std::move(fd));
  if (!device) return std::unexpected(device.error());
  std::unique_ptr<KvmEngine> engine{new KvmEngine{services, std::move(*device)}};
  auto vm = engine->device_.create_vm();
  if (!vm) return std::unexpected(vm.error());
  engine->vm_ = std::move(*vm);
  uint64_t address = identity_map;
  if (control(engine->vm_fd(), KVM_SET_IDENTITY_MAP_ADDR, &address) != 0 ||
      control(engine->vm_fd(), KVM_SET_TSS_ADDR, tss) != 0) {
    return fail_errno(errno, "/dev/kvm: place the pages for real mode");
  }
  auto supported = supported_cpuid(engine->device_);
  if (!supported) return std::unexpected(supported.error());
  engine->supported_ = std::move(*supported);
  if (options.kernel_apics) {
    engine->apics_ = KvmApics::create(engine->device_, engine->vm_fd(), engine->apics_missing_);
  } else {
    engine->apics_missing_ = "not asked for";
  }
  if (services.loop != nullptr) {
    engine->doorbells_ = KvmDoorbells::create(engine->device_, engine->vm_fd(), *services.loop);
  }
  if (auto done = set_msr_filter(engine->vm_fd(), engine->apics_ != nullptr); !done)
    return std::unexpected(done.error());
  if (auto done = engine->add_memory(options.dirty_ring); !done) return std::unexpected(done.error());
  StateAbilities& abilities = engine->abilities_;
  abilities.sregs2 = engine->device_.has(KVM_CAP_SREGS2);
  const int xsave_size = control(engine->vm_fd(), KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);
  if (xsave_size > 4096) abilities.xsave_size = static_cast<size_t>(xsave_size);
  if (auto done = engine->clock_moved(); !done) return std::unexpected(done.error());
  engine->arch_capabilities_ = services.model.arch_capabilities() & host_arch_capabilities(engine->device_);
  return engine;
}

Result<> KvmEngine::clock_moved() {
  const uint64_t before = __builtin_ia32_rdtsc();
  tsc_bias_ = before - services_.clock.tsc();
  // The guest's kvmclock is the machine's, whichever engine runs it.
  kvm_clock_data time{};
  time.clock = services_.clock.now_ns();
  if (control(vm_fd(), KVM_SET_CLOCK, &time) != 0) return fail_errno(errno, "/dev/kvm: set the clock");
  return {};
}

namespace {

// RAM, without what a display's window lies over: accesses there are the display's.
std::vector<MemorySlot> ram_slots(const GuestMemory& memory) {
  std::vector<MemorySlot> slots;
  const auto add = [&](Gpa start, Gpa end) {
    if (start < end) slots.push_back({static_cast<uint32_t>(slots.size()), start, end - start, memory.base() + start});
  };
  if (memory.has_video_window()) {
    add(0, GuestMemory::video_start);
    add(GuestMemory::video_end, memory.low_size());
  } else {
    add(0, memory.low_size());
  }
  add(GuestMemory::high_start, GuestMemory::high_start + memory.high_size());
  return slots;
}

}  // namespace

Result<> KvmEngine::add_memory(uint32_t dirty_ring) {
  const GuestMemory& memory = services_.memory;
  std::vector<MemorySlot> slots = ram_slots(memory);
  auto log = create_write_log(device_, vm_fd(), memory, slots, dirty_ring);
  if (!log) return std::unexpected(log.error());
  write_log_ = std::move(*log);
  for (const MemorySlot& slot : slots) {
    if (auto done = set_memory_slot(vm_fd(), slot, 0); !done) return done;
  }
  // One for read-only memory, the others for devices'.
  const auto rom_slot = static_cast<uint32_t>(slots.size());
  direct_memory_ = std::make_unique<KvmDirectMemory>(device_, vm_fd(), rom_slot + 1, write_log_->bitmaps());
  if (memory.rom_size() == 0) return {};
  // Writes to it become exits for device memory, where no device is.
  if (!device_.has(KVM_CAP_READONLY_MEM)) {
    return fail("/dev/kvm: the host's kernel lacks KVM_CAP_READONLY_MEM, which firmware needs; use --engine jit");
  }
  const MemorySlot rom{rom_slot, memory.rom_start(), memory.rom_size(), memory.base() + memory.rom_start()};
  return set_memory_slot(vm_fd(), rom, KVM_MEM_READONLY);
}

Result<std::unique_ptr<Vcpu>> KvmEngine::create_vcpu(unsigned index, CpuInterrupts& interrupts) {
  const auto cpuid = cpuid_entries(services_.model, supported_, index);
  for (const kvm_cpuid_entry2& entry : cpuid) {
    if (entry.function == 0xd && entry.index == 0) abilities_.xcr0 = uint64_t{entry.edx} << 32 | entry.eax;
  }
  abilities_.xsave = services_.model.has(x86::Feature::Xsave);
  return KvmVcpu::create(*this, index, interrupts, cpuid);
}

}  // namespace caisson::kvm
