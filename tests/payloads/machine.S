// CPUID, MSRs, control registers, TSC, APIC timers, PIT-less time.
//   Source   Intel SDM vol. 2 (CPUID, RDTSC, RDMSR); vol. 3, 2.5, 9.4, 10.4-10.6, 10.12, 17.17
#include "payload.h"

#define APIC 0xfee00000
  .macro apic_ register, value
    mov eax, APIC + \register
    mov dword ptr [rax], \value
  .endm
eoi:
  push rax
  mov eax, APIC + 0xb0
  mov dword ptr [rax], 0
  pop rax
  iretq

CASE(cpuid_zero_extends)
  mov rax, -1
  mov rbx, -1
  mov rcx, -1
  mov rdx, -1
  mov eax, 0
  mov ecx, 0
  cpuid
  shr rax, 32
  shr rbx, 32
  shr rcx, 32
  shr rdx, 32
  or rax, rbx
  or rax, rcx
  or rax, rdx
  IS(rax, 0)
  END
CASE(cpuid_by_user)
  USER_RUNS(xor eax, eax; cpuid)
  END
CASE(cpuid_long_mode)
  mov eax, 0x80000001
  cpuid
  shr edx, 29
  and edx, 1
  IS(rdx, 1)
  END
CASE(cpuid_apic_bit_follows_the_switch)
  mov eax, 1
  cpuid
  shr edx, 9
  and edx, 1
  IS(rdx, 1)
  END
CASE(unknown_msr)
  mov ecx, 0x12345678
  FAULTS(GP, 0, rdmsr)
  FAULTS(GP, 0, wrmsr)
  mov ecx, 0xc0000080
  USER_FAULTS(GP, 0, rdmsr)
  USER_FAULTS(GP, 0, wrmsr)
  END
CASE(efer_reserved)
  mov ecx, 0xc0000080
  rdmsr
  IS(rax, 0xd01)  // LMA shows
  or eax, 2
  FAULTS(GP, 0, wrmsr)
  mov eax, 0x801  // LME cannot change while paging is on
  FAULTS(GP, 0, wrmsr)
  mov eax, 0x901  // LMA is not the writer's
  RUNS(wrmsr)
  rdmsr
  IS(rax, 0xd01)
  END
CASE(pat)
  mov ecx, 0x277
  rdmsr
  mov ebx, eax
  mov esi, edx
  mov eax, 0x00070402  // type 2 does not exist
  FAULTS(GP, 0, wrmsr)
  mov eax, 0x01050400
  RUNS(wrmsr)
  rdmsr
  IS(rax, 0x01050400)
  mov eax, ebx
  mov edx, esi
  wrmsr
  END
CASE(sysenter_msrs)
  mov ecx, 0x175
  xor eax, eax
  mov edx, 0x8000
  FAULTS(GP, 0, wrmsr)
  mov ecx, 0x176
  FAULTS(GP, 0, wrmsr)
  mov edx, 0x7fff
  RUNS(wrmsr)
  rdmsr
  IS(rdx, 0x7fff)
  END
CASE(control_register_reserved_bits)
  mov rax, cr0
  bts rax, 32
  FAULTS(GP, 0, mov cr0, rax)
  mov rax, cr0
  btr rax, 0  // PG without PE
  FAULTS(GP, 0, mov cr0, rax)
  mov rax, cr0
  bts rax, 29  // NW without CD
  FAULTS(GP, 0, mov cr0, rax)
  mov rax, cr0
  btr rax, 31  // leaving paging in 64-bit mode
  FAULTS(GP, 0, mov cr0, rax)
  mov rax, cr4
  btr rax, 5  // PAE
  FAULTS(GP, 0, mov cr4, rax)
  mov rax, cr4
  bts rax, 15
  FAULTS(GP, 0, mov cr4, rax)
  bts rax, 40
  FAULTS(GP, 0, mov cr4, rax)
  USER_FAULTS(GP, 0, mov rax, cr0)
  USER_FAULTS(GP, 0, mov cr4, rax)
  USER_FAULTS(GP, 0, mov rax, cr8)
  USER_FAULTS(GP, 0, wbinvd)
  USER_FAULTS(GP, 0, invd)
  USER_FAULTS(GP, 0, rdpmc)
  END
CASE(cr0_et_is_fixed)
  mov rax, cr0
  and eax, ~0x10
  mov cr0, rax
  mov rax, cr0
  and eax, 0x10
  IS(rax, 0x10)
  END
CASE(tsc_goes_on)
  rdtsc
  shl rdx, 32
  lea rbx, [rdx + rax]
  mov esi, 1000
1:
  rdtsc
  shl rdx, 32
  or rax, rdx
  cmp rax, rbx
  setae cl
  movzx ecx, cl
  IS(rcx, 1)
  mov rbx, rax
  dec esi
  jnz 1b
  END
CASE(tsc_disable)
  USER_RUNS(rdtsc)
  SET_BITS(cr4, CR4_TSD)
  USER_FAULTS(GP, 0, rdtsc)
  RUNS(rdtsc)
  END
CASE(tsc_disable_in_hot_code)
  USER_RUNS(mov ecx, 500; 1: call tsc_reader; loop 1b)
  SET_BITS(cr4, CR4_TSD)
  USER_TRAPS(GP, 0, call tsc_reader)
  IS([last_rip], offset tsc_reader)
  END
tsc_reader:
  rdtsc
  ret
CASE(rdtscp)
  NEEDS_RDTSCP
  WRMSR(0xc0000103, 0x1234, 0)
  rdtscp
  IS(rcx, 0x1234)
  SET_BITS(cr4, CR4_TSD)
  USER_FAULTS(GP, 0, rdtscp)
  END
CASE(apic_identity)
  mov eax, APIC + 0x20
  mov ebx, [rax]
  shr ebx, 24
  mov eax, 1
  push rbx
  cpuid
  shr ebx, 24
  pop rax
  IS(rax, rbx)
  mov ecx, 0x1b
  rdmsr
  and eax, 0xfffff900
  mov ecx, 0xfee00900  // enabled, and the bootstrap processor
  IS(rax, rcx)
  END
CASE(apic_timer_one_shot)
  WITH_HOOK(eoi)
  apic_ 0xf0, 0x1ff
  apic_ 0x3e0, 0xb  // divide by 1
  apic_ 0x320, 0x51
  apic_ 0x380, 20000
  sti
1:
  cmp qword ptr [count], 0
  je 1b
  cli
  IS([last_vector], 0x51)
  mov eax, APIC + 0x390
  mov eax, [rax]
  IS(rax, 0)
  apic_ 0x320, 0x10051
  IS([count], 1)
  END
CASE(apic_timer_periodic)
  WITH_HOOK(eoi)
  apic_ 0xf0, 0x1ff
  apic_ 0x3e0, 0xb
  apic_ 0x320, 0x20052
  apic_ 0x380, 50000
  sti
1:
  hlt
  cmp qword ptr [count], 4
  jb 1b
  cli
  apic_ 0x320, 0x10052
  apic_ 0x380, 0
  IS([last_vector], 0x52)
  END
CASE(apic_timer_breaks_a_loop)  // a jump to itself must not keep the interrupt out
  WITH_HOOK(2f)
  apic_ 0xf0, 0x1ff
  apic_ 0x3e0, 0xb
  apic_ 0x320, 0x53
  apic_ 0x380, 100000
  sti
1:
  jmp 1b
3:
  IS([last_rip], offset 1b)
  ret
2:
  apic_ 0xb0, 0
  mov qword ptr [rsp], offset 3b
  and qword ptr [rsp + 16], ~FLAG_IF
  iretq
CASE(apic_timer_masked)
  WITH_HOOK(eoi)
  apic_ 0xf0, 0x1ff
  apic_ 0x3e0, 0xb
  apic_ 0x320, 0x10054
  apic_ 0x380, 1000
  sti
  mov ecx, 10000
1:
  pause
  loop 1b
  cli
  IS([count], 0)
  mov eax, APIC + 0x390
  mov eax, [rax]
  IS(rax, 0)
  END
CASE(tsc_deadline)
  NEEDS_DEADLINE
  WITH_HOOK(eoi)
  apic_ 0xf0, 0x1ff
  apic_ 0x320, 0x40055
  mfence
  rdtsc
  add eax, 100000
  adc edx, 0
  mov ebx, eax
  mov esi, edx
  mov ecx, 0x6e0
  wrmsr
  sti
1:
  cmp qword ptr [count], 0
  je 1b
  cli
  rdtsc
  shl rdx, 32
  or rax, rdx
  shl rsi, 32
  or rsi, rbx
  cmp rax, rsi
  setae al
  movzx eax, al
  IS(rax, 1)  // not before its time
  rdmsr
  IS(rax, 0)  // disarmed
  apic_ 0x320, 0x10055
  END
CASE(x2apic)
  NEEDS_X2APIC
  mov ecx, 0x1b
  rdmsr
  mov ebx, eax
  or eax, 0x400
  wrmsr
  mov ecx, 0x802
  rdmsr
  IS(rdx, 0)
  WITH_HOOK(1f)
  mov ecx, 0x80f
  mov eax, 0x1ff
  xor edx, edx
  wrmsr
  mov ecx, 0x83f  // self IPI
  mov eax, 0x57
  wrmsr
  sti
  nop
  nop
  cli
  mov qword ptr [hook], 0
  IS([count], 1)
  mov ecx, 0x80b
  mov eax, 1
  FAULTS(GP, 0, wrmsr)  // EOI takes 0 only
  mov ecx, 0x802
  FAULTS(GP, 0, wrmsr)
  mov ecx, 0x1b  // straight back to xAPIC is not allowed, through disabled it is
  mov eax, ebx
  xor edx, edx
  FAULTS(GP, 0, wrmsr)
  and eax, ~0x800
  RUNS(wrmsr)
  mov eax, ebx
  RUNS(wrmsr)
  ret
1:
  mov ecx, 0x80b
  xor eax, eax
  xor edx, edx
  wrmsr
  iretq
CASE(apic_error_interrupt)  // sending vector 5 is an illegal vector
  apic_ 0xf0, 0x1ff
  apic_ 0x370, 0x100fe
  apic_ 0x280, 0
  apic_ 0x300, 0x44005
  apic_ 0x280, 0
  mov eax, APIC + 0x280
  mov eax, [rax]
  and eax, 0x60  // send or receive illegal vector
  setnz al
  movzx eax, al
  IS(rax, 1)
  apic_ 0x280, 0
  apic_ 0x280, 0
  END
CASE(rdrand_sets_flags)
  NEEDS(1, ecx, 30)
  mov esi, 100
1:
  rdrand rax
  jc 2f
  dec esi
  jnz 1b
2:
  setc al
  movzx eax, al
  IS(rax, 1)
  END
// The last two, because they leave the TSC moved.
CASE(tsc_written)
  mov ecx, 0x10
  xor eax, eax
  mov edx, 0x1000
  wrmsr
  rdtsc
  IS(rdx, 0x1000)
  END
CASE(tsc_deadline_moves_with_the_tsc)  // the deadline is compared with the TSC as the guest reads it (vol. 3, 10.5.4.1)
  NEEDS_DEADLINE
  WITH_HOOK(eoi)
  apic_ 0xf0, 0x1ff
  apic_ 0x320, 0x40055
  mov ecx, 0x10
  xor eax, eax
  mov edx, 0x10000
  wrmsr
  rdtsc
  shl rdx, 32
  or rax, rdx
  add rax, 100000
  lea rbx, [rax + 0x40000000]  // some tenths of a second
  mov rdx, rax
  shr rdx, 32
  mov ecx, 0x6e0
  wrmsr
  sti
1:
  cmp qword ptr [count], 0
  jne 2f
  rdtsc
  shl rdx, 32
  or rax, rdx
  cmp rax, rbx
  jb 1b
2:
  cli
  apic_ 0x320, 0x10055
  IS([count], 1)
  END
