// KVM system time and wall clock.
//   Source   Linux Documentation/virt/kvm/x86/msr.rst (MSR_KVM_SYSTEM_TIME_NEW, MSR_KVM_WALL_CLOCK_NEW)
//   Protocol the version is odd while a structure is being written, even when it is whole
#include "jit/interpret/pvclock.h"

#include <atomic>

namespace caisson::jit {
namespace {

struct SystemTime {
  uint32_t version;
  uint32_t pad0;
  uint64_t tsc_timestamp;
  uint64_t system_time;
  uint32_t tsc_to_system_mul;
  int8_t tsc_shift;
  uint8_t flags;
  uint8_t pad[2];
};
static_assert(sizeof(SystemTime) == 32);

constexpr uint8_t tsc_stable = 1;

struct WallClock {
  uint32_t version;
  uint32_t seconds;
  uint32_t nanoseconds;
};

struct Scale {
  uint32_t multiplier;
  int8_t shift;
};

__extension__ typedef unsigned __int128 Unsigned128;

// nanoseconds = (ticks << shift) × multiplier >> 32, with the greatest multiplier, for precision.
Scale scale_of(uint64_t tsc_hz) {
  if (tsc_hz == 0) return {0, 0};
  for (int shift = -31; shift < 32; ++shift) {
    const Unsigned128 multiplier = (Unsigned128{1'000'000'000} << (32 - shift)) / tsc_hz;
    if (multiplier <= 0xffff'ffff) return {static_cast<uint32_t>(multiplier), static_cast<int8_t>(shift)};
  }
  return {0, 0};
}

// The first field is the version: odd, content, even.
template <class T>
void publish(Cpu& cpu, Gpa gpa, T content) {
  uint32_t version;
  if (!cpu.memory->contains(gpa, sizeof(T)) || !cpu.memory->read_object(gpa, version)) return;
  content.version = (version | 1);
  if (!cpu.memory->write_object(gpa, content)) return;
  std::atomic_thread_fence(std::memory_order_seq_cst);
  (void)cpu.memory->write_object(gpa, (version | 1) + 1);
}

}  // namespace

void update_system_time(Cpu& cpu) {
  const uint64_t value = cpu.msr(x86::MsrSlot::KvmSystemTime);
  if (!(value & 1)) return;
  const Scale scale = scale_of(cpu.clock->tsc_hz());
  SystemTime time{};
  time.tsc_timestamp = cpu.clock->tsc() + cpu.tsc_offset;
  time.system_time = cpu.clock->now_ns();
  time.tsc_to_system_mul = scale.multiplier;
  time.tsc_shift = scale.shift;
  time.flags = tsc_stable;
  publish(cpu, value & ~uint64_t{3}, time);
}

void write_wall_clock(Cpu& cpu, uint64_t address) {
  const uint64_t start = cpu.clock->wall_ns() - cpu.clock->now_ns();
  WallClock clock{};
  clock.seconds = static_cast<uint32_t>(start / 1'000'000'000);
  clock.nanoseconds = static_cast<uint32_t>(start % 1'000'000'000);
  publish(cpu, address, clock);
}

}  // namespace caisson::jit
