// The bus between interrupt sources and local APICs: finds the destinations of interrupt messages.
//   Spec     Intel SDM vol. 3, 11.6 (IPIs), 11.6.2 (destinations), 11.11 (MSI), 11.12.10 (x2APIC destinations)
//   Models   physical, logical flat, cluster and x2APIC destinations, broadcasts, lowest-priority arbitration
//   Omits    SMI (vanishes), MSI with extended destination ids (255 CPUs need none)
//   Kept     where an engine keeps the local APICs, messages go to it; the bus only translates
//   Threads  deliver() and send_msi() any thread, with or without the device lock; they take no lock.
//            end_of_interrupt() and acknowledge_ext_int() are called by vCPU threads and take the device lock.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "base/log.h"
#include "bus/clock.h"
#include "bus/interrupt.h"

namespace caisson {

class LocalApic;

// The encoding of delivery modes in ICR, LVT, redirection entries and MSI data.
enum class DeliveryMode : uint8_t { Fixed, LowestPriority, Smi, Reserved3, Nmi, Init, StartUp, ExtInt };

struct ApicMessage {
  uint32_t destination = 0;
  bool logical = false;
  bool wide = false;  // x2APIC format: 32-bit destination
  DeliveryMode mode = DeliveryMode::Fixed;
  uint8_t vector = 0;
  bool level = false;
};

// The IOAPIC's side of an EOI. Called with the device lock held.
class EoiListener {
 public:
  virtual ~EoiListener() = default;
  virtual void end_of_interrupt(uint8_t vector) = 0;
  // Tells the bus by set_pin() what every input sends.
  virtual void announce_pins() = 0;
};

// The PIC's side of an interrupt acknowledge cycle. Called with the device lock held.
class ExtIntSource {
 public:
  virtual ~ExtIntSource() = default;
  // None where it asserts its output no longer.
  [[nodiscard]] virtual std::optional<uint8_t> acknowledge_ext_int() = 0;
};

class ApicBus final : public MsiSink {
 public:
  struct Options {
    unsigned cpus = 1;  // 1 … 255
    unsigned physical_bits = 40;
    bool x2apic = true;
  };

  ApicBus(std::mutex& device_lock, Clock& clock, const Options& options);
  ~ApicBus() override;

  // Before any CPU runs.
  void connect(EoiListener& ioapic) { eoi_listener_ = &ioapic; }
  void connect(ExtIntSource& pic) { ext_int_source_ = &pic; }

  // The engine that keeps the local APICs from here on; null: they are ours. No CPU runs, device lock held.
  void set_keeper(ApicKeeper* keeper);
  // What a level-triggered input of the IOAPIC sends, if it does; for the IOAPIC.
  void set_pin(unsigned pin, const std::optional<ApicMessage>& message);

  [[nodiscard]] unsigned count() const { return static_cast<unsigned>(apics_.size()); }
  [[nodiscard]] LocalApic& local_apic(unsigned index) { return *apics_[index]; }

  void send_msi(uint64_t address, uint32_t data) override;

  // True where at least one local APIC took it.
  bool deliver(const ApicMessage& message);
  // To all local APICs but `except` (null: to all).
  bool broadcast(const ApicMessage& message, const LocalApic* except);

  // The PIC's output is wired to LINT0 of the first CPU. Device lock held.
  [[nodiscard]] InterruptLine& ext_int_line() { return ext_int_line_; }

  // For local APICs only.
  void end_of_interrupt(uint8_t vector);
  [[nodiscard]] std::optional<uint8_t> acknowledge_ext_int();

 private:
  class ExtIntLine final : public InterruptLine {
   public:
    explicit ExtIntLine(ApicBus& owner) : owner_(owner) {}
    void set(bool high) override;

   private:
    ApicBus& owner_;
  };

  bool deliver_lowest_priority(const ApicMessage& message);

  std::mutex& device_lock_;
  std::vector<std::unique_ptr<LocalApic>> apics_;
  ApicKeeper* keeper_ = nullptr;
  EoiListener* eoi_listener_ = nullptr;
  ExtIntSource* ext_int_source_ = nullptr;
  ExtIntLine ext_int_line_{*this};
  log::Limit bad_msi_;
};

}  // namespace caisson
