// The contract of an engine: something that runs virtual CPUs on guest memory.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "bus/bus.h"
#include "bus/clock.h"
#include "bus/interrupt.h"
#include "engine/cpu_state.h"
#include "memory/guest_memory.h"
#include "x86/cpu_model.h"

namespace caisson {

enum class ExitReason : uint8_t {
  Stopped,        // Vcpu::stop() was called; run() may be called again
  TripleFault,    // shutdown cycle: hardware would reset
  InternalError,  // the engine cannot go on; Vcpu::error() says why
};

class Vcpu : public CpuSink {
 public:
  // Runs the guest until an exit; called by the vCPU's own thread. Port and device accesses go to the bus from here;
  // HLT sleeps in here.
  [[nodiscard]] virtual ExitReason run() = 0;
  // Makes run() return Stopped soon. Any thread.
  virtual void stop() = 0;
  [[nodiscard]] virtual std::string error() const = 0;

  // Only while run() is not running.
  [[nodiscard]] virtual CpuState store() const = 0;
  [[nodiscard]] virtual Result<> load(const CpuState& state) = 0;
};

// What an engine has measured: rows by group. "time" and "blocks" (code by address) are microseconds of all CPUs
// together, the others count.
struct EngineProfile {
  struct Row {
    std::string group, name;
    uint64_t value = 0;
  };
  std::vector<Row> rows;
};

// What an engine needs of the machine. All of it outlives the engine.
struct EngineServices {
  GuestMemory& memory;
  Bus& bus;
  Clock& clock;
  const x86::CpuModel& model;
};

class Engine {
 public:
  virtual ~Engine() = default;
  // CPUs are created in order of `index` (the APIC id) before any runs.
  [[nodiscard]] virtual Result<std::unique_ptr<Vcpu>> create_vcpu(unsigned index, CpuInterrupts& interrupts) = 0;
  // Memory was replaced behind the engine's back (machine reset): forget everything derived from it. No CPU runs.
  virtual void memory_replaced() = 0;
  // What was measured so far, where that was asked for. No CPU runs.
  [[nodiscard]] virtual EngineProfile profile() const { return {}; }
};

}  // namespace caisson
