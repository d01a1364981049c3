// Interrupt wiring between devices, interrupt controllers and CPUs.
#pragma once

#include <cstdint>
#include <optional>

#include "bus/local_apic_state.h"

namespace caisson {

// A wire into an interrupt controller. Level semantics: the device sets the level that follows from its state, as often
// as it likes. Called with the device lock held.
class InterruptLine {
 public:
  virtual ~InterruptLine() = default;
  virtual void set(bool high) = 0;
};

// Receives message-signalled interrupts: writes to 0xFEEx_xxxx (Intel SDM vol. 3, 11.11). Any thread.
class MsiSink {
 public:
  virtual ~MsiSink() = default;
  virtual void send_msi(uint64_t address, uint32_t data) = 0;
};

// What interrupt controllers tell one CPU. Any thread; must not block for long and must not take the device lock.
class CpuSink {
 public:
  virtual ~CpuSink() = default;
  // Something in CpuInterrupts changed: look at it before long; wakes a halted CPU.
  virtual void interrupts_changed() noexcept = 0;
};

// A message-signalled interrupt as it goes over the bus.
struct MsiMessage {
  uint64_t address = 0;
  uint32_t data = 0;
  bool operator==(const MsiMessage&) const = default;
};

// The local APICs of an engine that keeps them itself; interrupt messages go to it instead of to our models.
// Any thread, with or without the device lock.
class ApicKeeper {
 public:
  virtual ~ApicKeeper() = default;
  virtual void send_msi(const MsiMessage& message) = 0;
  // Like send_msi(), at once; true where at least one local APIC took it.
  [[nodiscard]] virtual bool send_and_tell(const MsiMessage& message) = 0;
  // What a level-triggered IOAPIC input sends: the end of such an interrupt is told by LocalApicModel::broadcast_eoi().
  // None: the input sends nothing, or edges. Device lock held.
  virtual void set_pin(unsigned pin, std::optional<MsiMessage> message) = 0;
};

// What an engine that keeps a CPU's local APIC itself needs of our model of it.
class LocalApicModel {
 public:
  virtual ~LocalApicModel() = default;
  // While the CPU does not run: the state that the engine begins with, and the one that it leaves. `lint0` is the
  // model's and not taken.
  [[nodiscard]] virtual LocalApicState state() const = 0;
  virtual void take(const LocalApicState& state) = 0;
  // Level of the PIC's output at this CPU's LINT0. Any thread; CpuSink is told when it rises.
  [[nodiscard]] virtual bool ext_int() const = 0;
  // The CPU's thread, without the device lock: the vector of the PIC's interrupt; an EOI for the IOAPIC.
  [[nodiscard]] virtual std::optional<uint8_t> acknowledge_ext_int() = 0;
  virtual void broadcast_eoi(uint8_t vector) = 0;
};

// What one CPU asks of its local APIC. Called by that CPU's thread without the device lock, unless said otherwise.
class CpuInterrupts {
 public:
  virtual ~CpuInterrupts() = default;

  // Any thread, cheap, lock-free: is there anything that take_event() or acknowledge() could return?
  [[nodiscard]] virtual bool pending() const = 0;

  // Events that RFLAGS.IF does not hold back, most important first.
  enum class Event : uint8_t { Init, Sipi, Nmi };
  struct Taken {
    Event event;
    uint8_t sipi_vector = 0;  // start at physical address vector << 12
  };
  // INIT and SIPI always; NMI only where `nmi_allowed`. A SIPI that comes when the CPU does not wait for one is
  // discarded by the caller.
  [[nodiscard]] virtual std::optional<Taken> take_event(bool nmi_allowed) = 0;

  // A maskable interrupt above the processor priority (or ExtINT) waits.
  [[nodiscard]] virtual bool interrupt_ready() const = 0;
  // Accepts it: the vector to deliver now; none where it has gone away in between.
  [[nodiscard]] virtual std::optional<uint8_t> acknowledge() = 0;

  // xAPIC page: 32-bit registers at 16-byte steps; `offset` < 4096. Enabled and where: apic_base().
  [[nodiscard]] virtual uint32_t read_register(uint32_t offset) = 0;
  virtual void write_register(uint32_t offset, uint32_t value) = 0;
  // IA32_APIC_BASE, IA32_TSC_DEADLINE and the x2APIC range 0x800-0x8ff; none/false means #GP.
  [[nodiscard]] virtual std::optional<uint64_t> read_msr(uint32_t msr) = 0;
  [[nodiscard]] virtual bool write_msr(uint32_t msr, uint64_t value) = 0;
  [[nodiscard]] virtual uint64_t apic_base() const = 0;  // value of IA32_APIC_BASE
  [[nodiscard]] virtual uint8_t cr8() const = 0;         // TPR[7:4]
  virtual void set_cr8(uint8_t value) = 0;

  // For engines that keep local APICs themselves; null where this CPU's has no state to keep.
  [[nodiscard]] virtual LocalApicModel* model() { return nullptr; }
};

}  // namespace caisson
