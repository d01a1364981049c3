// Hardware task switches (not in IA-32e mode).
#pragma once

#include "jit/interpret/segments.h"
#include "jit/interpret/step.h"

namespace caisson::jit {

enum class TaskReason : uint8_t { Jump, Call, Return, Event };

// Switches to the task of the TSS. `next` is the RIP saved for the old task. On success cpu.rip is the new task's; a
// fault after the point of no return belongs to the new task (vol. 3, 7.3). `trap`: the new TSS has its T flag set.
[[nodiscard]] bool switch_task(Cpu& cpu, uint16_t selector, Descriptor& tss, TaskReason reason, uint64_t next,
                               uint32_t ext, bool& trap);
// Task gate: finds its TSS. `ext` as in error codes.
[[nodiscard]] bool task_gate_target(Cpu& cpu, const Descriptor& gate, uint32_t ext, uint16_t& selector,
                                    Descriptor& tss);
// Far JMP or CALL to a TSS or task gate.
bool task_transfer(Step& step, bool call, uint16_t selector, Descriptor& descriptor);
// IRET with NT set.
bool task_return(Step& step);

}  // namespace caisson::jit
