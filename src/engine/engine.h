// The contract of an engine: something that runs virtual CPUs on guest memory.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/result.h"
#include "bus/bus.h"
#include "bus/clock.h"
#include "bus/interrupt.h"
#include "engine/cpu_state.h"
#include "memory/dirty_log.h"
#include "memory/guest_memory.h"
#include "x86/cpu_model.h"

namespace caisson {

enum class ExitReason : uint8_t {
  Stopped,        // Vcpu::stop() was called; run() may be called again
  TripleFault,    // shutdown cycle: hardware would reset
  InternalError,  // the engine cannot go on; Vcpu::error() says why
  Debug,          // one of the DebugStops; RIP stands at the instruction that comes next
};

// Where run() shall end for a debugger, without the guest's debug registers.
struct DebugStops {
  bool single_step = false;             // after every instruction
  std::vector<uint64_t> breakpoints{};  // before the instructions at these linear addresses
};

class Vcpu : public CpuSink {
 public:
  // Runs the guest until an exit; called by the vCPU's own thread. Port and device accesses go to the bus from here;
  // HLT sleeps in here.
  [[nodiscard]] virtual ExitReason run() = 0;
  // Makes run() return Stopped soon. Any thread.
  virtual void stop() = 0;
  [[nodiscard]] virtual std::string error() const = 0;

  // Only while run() is not running; replaces what was set before. An error where the engine cannot stop there.
  [[nodiscard]] virtual Result<> set_debug_stops(const DebugStops& stops) {
    if (!stops.single_step && stops.breakpoints.empty()) return {};
    return fail("this engine does not stop for a debugger; use --engine kvm");
  }

  // Only while run() is not running. An engine that keeps local APICs itself (Engine::apics) moves the state of this
  // CPU's to and from its LocalApicModel with it.
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
  EventLoop* loop = nullptr;  // the devices'; null: doorbells are plain writes
};

class Engine {
 public:
  virtual ~Engine() = default;
  // CPUs are created in order of `index` (the APIC id) before any runs.
  [[nodiscard]] virtual Result<std::unique_ptr<Vcpu>> create_vcpu(unsigned index, CpuInterrupts& interrupts) = 0;
  // The local APICs that this engine keeps itself; null: it uses our models. The same all its life.
  [[nodiscard]] virtual ApicKeeper* apics() { return nullptr; }
  // Who passes doorbells on while the guest goes on; null: nobody. The same all its life.
  [[nodiscard]] virtual DoorbellBinder* doorbells() { return nullptr; }
  // Who lets the guest at memory of devices; null: nobody. The same all its life.
  [[nodiscard]] virtual DirectBinder* direct_memory() { return nullptr; }
  // The guest's writes, for the dirty log; lives as long as the engine.
  [[nodiscard]] virtual GuestWriteLog& write_log() = 0;
  // Memory was replaced behind the engine's back (machine reset): forget everything derived from it. No CPU runs.
  virtual void memory_replaced() = 0;
  // The clock has stood still: forget what was derived from the host's clocks. No CPU runs; each one's state is stored
  // before the clock stops and loaded after this.
  [[nodiscard]] virtual Result<> clock_moved() { return {}; }
  // What was measured so far, where that was asked for. No CPU runs.
  [[nodiscard]] virtual EngineProfile profile() const { return {}; }
};

}  // namespace caisson
