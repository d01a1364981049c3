// Gates, delivery, interrupt shadows, NMI and double faults in IA-32e mode.
//   Source   Intel SDM vol. 2 (INT n, STI, MOV, IRET); vol. 3, 6.7 (NMI), 6.8 (masking), 6.13 (error codes), 6.14
//   (64-bit delivery), 6.15 (double fault), 10.6 (IPIs), 10.8 (priorities)
#include "payload.h"

#define APIC 0xfee00000
#define ID 0x20
#define TPR 0x80
#define EOI 0xb0
#define SVR 0xf0
#define ICR 0x300
  // Register of the local APIC in xAPIC mode; takes RAX.
  .macro apic_ register, value
    mov eax, APIC + \register
    mov dword ptr [rax], \value
  .endm
  .macro self_ vector
    apic_ ICR, 0x44000 + \vector
  .endm
  .macro nmi_self_
    mov eax, APIC + ID
    mov eax, [rax]
    mov ecx, APIC + ICR + 0x10
    mov [rcx], eax
    apic_ ICR, 0x4400
  .endm
  .macro wait_  // an IPI to oneself may take a moment; with IF clear nothing is lost
    mov ecx, 1000
    .Lwait\@:
    pause
    loop .Lwait\@
  .endm

  // Hooks
end_of_interrupt:
  push rax
  mov rax, [last_rip]
  mov [taken_at], rax
  mov rax, [order]
  shl rax, 8
  or rax, [last_vector]
  mov [order], rax
  apic_ EOI, 0
  pop rax
return:
  iretq

CASE(int_n)
  TRAPS(0x40, NO_ERROR, int 0x40; 1:)
  IS([last_rip], offset 1b)
  IS([last_cs], KCODE)
  IS([last_ss], KDATA)
  END
CASE(int_by_user)
  USER_FAULTS(GP, 0x40 * 8 + 2, int 0x40)
  mov byte ptr [idt + 0x40 * 16 + 5], 0xee
  USER_TRAPS(0x40, NO_ERROR, int 0x40; 1:)
  IS([last_rip], offset 1b)
  IS([last_cs], UCODE)
  IS([last_rsp], offset user_stack_top)
  IS([last_frame], offset kernel_stack_top - 40)
  USER_TRAPS(BP, NO_ERROR, int3; 1:)
  IS([last_rip], offset 1b)
  mov byte ptr [idt + BP * 16 + 5], 0x8e
  USER_FAULTS(GP, BP * 8 + 2, int3)
  USER_TRAPS(DB, NO_ERROR, .byte 0xf1; 1:)  // INT1 asks for no privilege
  IS([last_rip], offset 1b)
  END
CASE(gone_in_64_bit_mode)
  FAULTS(UD, NO_ERROR, .byte 0xce)  // INTO
  FAULTS(UD, NO_ERROR, .byte 0x62; .byte 0x00; .byte 0x00)  // BOUND; an EVEX with zero bits that must be set
  FAULTS(UD, NO_ERROR, .byte 0x9a)  // direct far CALL
  FAULTS(UD, NO_ERROR, .byte 0x27)  // DAA
  FAULTS(UD, NO_ERROR, .byte 0xd5; .byte 10)  // AAD
  FAULTS(UD, NO_ERROR, .byte 0x1e)  // PUSH DS
  FAULTS(UD, NO_ERROR, .byte 0x82; .byte 0xc0; .byte 1)
  END
CASE(invalid_opcodes)
  FAULTS(UD, NO_ERROR, ud2)
  FAULTS(UD, NO_ERROR, .byte 0x0f; .byte 0xb9; .byte 0xc0)  // UD1
  FAULTS(UD, NO_ERROR, .byte 0xf0; .byte 0x01; .byte 0xc0)  // LOCK with a register
  FAULTS(UD, NO_ERROR, .byte 0xf0; .byte 0x8b; .byte 0x03)  // LOCK MOV
  FAULTS(UD, NO_ERROR, .byte 0xf0; .byte 0x90)
  FAULTS(UD, NO_ERROR, .byte 0x8d; .byte 0xc0)  // LEA of a register
  FAULTS(UD, NO_ERROR, .byte 0x8c; .byte 0xf0)  // a seventh segment register
  FAULTS(UD, NO_ERROR, .byte 0x0f; .byte 0x20; .byte 0xc8)  // CR1
  FAULTS(UD, NO_ERROR, .byte 0x0f; .byte 0x20; .byte 0xe8)  // CR5
  FAULTS(UD, NO_ERROR, .byte 0xc6; .byte 0x08; .byte 1)  // group 11
  END
CASE(too_long)  // 16 bytes: #GP(0) (vol. 2, 2.3.11)
  TRAPS(GP, 0, jmp 1f; 1: .fill 15, 1, 0x66; nop)
  IS([last_rip], offset 1b)
  RUNS(.fill 14, 1, 0x66; nop)
  END
CASE(too_long_across_pages)  // its end is missing: the length counts only when all bytes are there
  MAP(0, pages, P + W)
  mov edi, offset pages + 4096 - 15
  mov eax, 0x66666666
  mov ecx, 4
  stosd
  stosd
  stosd
  stosd
  mov ebx, PAGE(1) - 15
  TRAPS(GP, 0, jmp rbx)
  mov ebx, PAGE(1) - 14
  TRAPS(PF, PF_I, jmp rbx)
  IS([last_cr2], PAGE(1))
  IS([last_rip], rbx)
  END
CASE(idt_limit)
  mov word ptr [pages], 0x40 * 16 + 14
  mov dword ptr [pages + 2], offset idt
  mov dword ptr [pages + 6], 0
  lidt [pages]
  FAULTS(GP, 0x40 * 8 + 2, int 0x40)
  inc word ptr [pages]
  lidt [pages]
  TRAPS(0x40, NO_ERROR, int 0x40)
  END
CASE(gate_not_present)
  mov byte ptr [idt + 0x40 * 16 + 5], 0x0e
  FAULTS(NP, 0x40 * 8 + 2, int 0x40)
  mov byte ptr [idt + UD * 16 + 5], 0x0e
  FAULTS(NP, UD * 8 + 3, ud2)  // EXT: not by INT n
  END
CASE(gate_of_wrong_type)
  mov byte ptr [idt + 0x40 * 16 + 5], 0x86
  FAULTS(GP, 0x40 * 8 + 2, int 0x40)
  mov byte ptr [idt + 0x40 * 16 + 5], 0x85
  FAULTS(GP, 0x40 * 8 + 2, int 0x40)
  mov byte ptr [idt + 0x40 * 16 + 5], 0x8c
  FAULTS(GP, 0x40 * 8 + 2, int 0x40)
  mov byte ptr [idt + UD * 16 + 5], 0x85
  FAULTS(GP, UD * 8 + 3, ud2)
  END
CASE(gate_selectors)
  mov word ptr [idt + 0x40 * 16 + 2], 0
  FAULTS(GP, 0, int 0x40)
  mov word ptr [idt + 0x40 * 16 + 2], KDATA
  FAULTS(GP, KDATA, int 0x40)
  mov word ptr [idt + 0x40 * 16 + 2], CODE32
  FAULTS(GP, CODE32, int 0x40)
  mov word ptr [idt + 0x40 * 16 + 2], UCODE
  FAULTS(GP, UCODE & ~3, int 0x40)  // DPL 3 from CPL 0
  mov word ptr [idt + 0x40 * 16 + 2], 0x1000
  FAULTS(GP, 0x1000, int 0x40)
  mov word ptr [idt + UD * 16 + 2], KDATA
  FAULTS(GP, KDATA + 1, ud2)
  DESCRIPTOR(FREE, 0xffff, 0x00af1b00)
  mov word ptr [idt + 0x40 * 16 + 2], FREE
  FAULTS(NP, FREE, int 0x40)
  END
CASE(gate_offset_not_canonical)
  mov dword ptr [idt + 0x40 * 16 + 8], 0x8000
  FAULTS(GP, 0, int 0x40)
  END
CASE(interrupt_gate_clears_if)
  WITH_HOOK(1f)
  mov dword ptr [taken_at], 0
  sti
  int 0x40
  cli
  IS([taken_at], 2)
  mov byte ptr [idt + 0x40 * 16 + 5], 0x8f  // a trap gate does not
  sti
  int 0x40
  cli
  IS([taken_at], FLAG_IF + 2)
  ret
1:
  pushfq
  pop rax
  and eax, FLAG_IF + 2
  mov [taken_at], rax
  iretq
CASE(handler_flags)  // TF, NT, RF and VM are cleared; AC and DF stay
  WITH_HOOK(1f)
  push FLAG_NT + FLAG_DF + FLAG_AC + 2
  popfq
  int 0x40
  push 2
  popfq
  IS([taken_at], FLAG_DF + FLAG_AC)
  mov rax, [last_flags]
  and eax, FLAG_NT
  IS(rax, FLAG_NT)
  ret
1:
  pushfq
  pop rax
  and eax, FLAG_NT + FLAG_TF + FLAG_RF + FLAG_DF + FLAG_AC
  mov [taken_at], rax
  iretq
CASE(fault_sets_rf)
  FAULTS(UD, NO_ERROR, ud2)
  mov rax, [last_flags]
  and eax, FLAG_RF
  IS(rax, FLAG_RF)
  TRAPS(0x40, NO_ERROR, int 0x40)
  mov rax, [last_flags]
  and eax, FLAG_RF
  IS(rax, 0)
  END
CASE(interrupt_stack_table)
  mov byte ptr [idt + 0x40 * 16 + 4], IST_FREE
  TRAPS(0x40, NO_ERROR, int 0x40)
  IS([last_frame], offset interrupt_stack_top - 40)
  USER_TRAPS(UD, NO_ERROR, ud2)
  IS([last_frame], offset kernel_stack_top - 40)
  mov byte ptr [idt + UD * 16 + 4], IST_FREE
  USER_TRAPS(UD, NO_ERROR, ud2)
  IS([last_frame], offset interrupt_stack_top - 40)
  END
CASE(tss_limit)  // the IST slot is beyond the TSS: #TS(TSS + EXT)
  mov word ptr [gdt + TSS], 36
  mov byte ptr [gdt + TSS + 5], 0x89
  mov eax, TSS
  ltr ax
  mov byte ptr [idt + 0x40 * 16 + 4], IST_FREE
  FAULTS(TS, TSS, int 0x40)
  mov byte ptr [idt + UD * 16 + 4], IST_FREE
  FAULTS(TS, TSS + 1, ud2)
  END
CASE(conforming_handler)  // stays at CPL 3, on the user's stack
  DESCRIPTOR(FREE, 0xffff, 0x00af9f00)
  mov word ptr [idt + 0x40 * 16 + 2], FREE
  mov byte ptr [idt + 0x40 * 16 + 5], 0xee
  mov eax, offset 2f
  mov [idt + 0x40 * 16], ax
  shr eax, 16
  mov [idt + 0x40 * 16 + 6], ax
  USER_RUNS(int 0x40)
  IS(rax, FREE + 3)
  IS(rbx, offset user_stack_top - 40)
  ret
2:
  mov eax, cs
  mov rbx, rsp
  iretq
CASE(divide_error)
  xor eax, eax
  xor edx, edx
  xor ecx, ecx
  FAULTS(DE, NO_ERROR, div ecx)
  mov edx, 5
  mov ecx, 5
  FAULTS(DE, NO_ERROR, div ecx)
  IS(rdx, 5)
  mov rax, 0x8000000000000000
  cqo
  mov rcx, -1
  FAULTS(DE, NO_ERROR, idiv rcx)
  mov eax, 0x8000
  mov cl, 0x80
  FAULTS(DE, NO_ERROR, idiv cl)
  USER_FAULTS(DE, NO_ERROR, .byte 0xf6; .byte 0xf1; xor ecx, ecx)
  END
CASE(divide_by_memory)
  MAP(0, pages, P + W)
  mov ebx, PAGE(0)
  mov eax, 7
  xor edx, edx
  FAULTS(DE, NO_ERROR, div dword ptr [rbx + 8])
  FAULTS(PF, 0, div dword ptr [rbx + 4094])
  IS([last_cr2], PAGE(1))
  IS(rax, 7)
  END

CASE(self_interrupt)
  apic_ SVR, 0x1ff
  WITH_HOOK(end_of_interrupt)
  mov qword ptr [order], 0
  self_ 0x50
  wait_
  IS([count], 0)  // IF is clear
  sti
  nop
  nop
  cli
  IS([order], 0x50)
  END
CASE(sti_shadow)
  apic_ SVR, 0x1ff
  WITH_HOOK(end_of_interrupt)
  self_ 0x50
  wait_
  xor ecx, ecx
  sti
  inc ecx
1:
  inc ecx
  cli
  IS([count], 1)
  IS([taken_at], offset 1b)
  END
CASE(sti_cli_takes_nothing)
  apic_ SVR, 0x1ff
  WITH_HOOK(end_of_interrupt)
  self_ 0x50
  wait_
  mov ecx, 100
1:
  sti
  cli
  loop 1b
  IS([count], 0)
  sti
  nop
  nop
  cli
  IS([count], 1)
  END
CASE(sti_again_has_no_shadow)  // the shadow is of an STI that sets IF
  apic_ SVR, 0x1ff
  WITH_HOOK(end_of_interrupt)
  self_ 0x50
  wait_
  sti
  sti
1:
  nop
  cli
  IS([taken_at], offset 1b)
  END
CASE(popf_has_no_shadow)
  apic_ SVR, 0x1ff
  WITH_HOOK(end_of_interrupt)
  self_ 0x50
  wait_
  push FLAG_IF + 2
  popfq
1:
  nop
  cli
  IS([taken_at], offset 1b)
  END
CASE(iret_has_no_shadow)
  apic_ SVR, 0x1ff
  WITH_HOOK(end_of_interrupt)
  self_ 0x50
  wait_
  mov rbx, rsp
  push KDATA
  push rbx
  push FLAG_IF + 2
  push KCODE
  push offset 1f
  iretq
1:
  nop
  cli
  IS([taken_at], offset 1b)
  END
CASE(mov_ss_after_sti)  // the shadow of STI covers MOV SS; one behind it may or may not count (vol. 2, STI)
  apic_ SVR, 0x1ff
  WITH_HOOK(end_of_interrupt)
  self_ 0x50
  wait_
  mov edx, KDATA
  sti
  mov ss, edx
1:
  nop
2:
  nop
  cli
  mov rax, [taken_at]
  cmp rax, offset 1b
  je 3f
  IS(rax, offset 2b)
3:
  END
CASE(pending_at_user_level)  // IRET to CPL 3 with IF: taken before the first user instruction
  apic_ SVR, 0x1ff
  WITH_HOOK(1f)
  self_ 0x50
  wait_
  mov qword ptr [user_flags], FLAG_IF + 2
  mov qword ptr [user_ip], offset 2f
  mov [saved_rsp], rsp
  jmp enter_user
2:
  nop
  ud2
1:
  mov rsp, [saved_rsp]
  mov qword ptr [hook], 0
  apic_ EOI, 0
  IS([last_vector], 0x50)
  IS([last_rip], offset 2b)
  IS([last_cs], UCODE)
  END
CASE(hlt_wakes)
  apic_ SVR, 0x1ff
  WITH_HOOK(end_of_interrupt)
  self_ 0x51
  sti
  hlt
1:
  cli
  IS([count], 1)
  IS([taken_at], offset 1b)
  END
CASE(priorities)
  apic_ SVR, 0x1ff
  WITH_HOOK(end_of_interrupt)
  mov qword ptr [order], 0
  self_ 0x51
  self_ 0x81 + 1
  self_ 0x62
  wait_
  sti
  nop
  nop
  nop
  nop
  cli
  IS([order], 0x826251)
  END
CASE(task_priority)
  apic_ SVR, 0x1ff
  WITH_HOOK(end_of_interrupt)
  mov eax, 5
  mov cr8, rax
  mov eax, APIC + TPR
  mov eax, [rax]
  IS(rax, 0x50)
  self_ 0x5f
  wait_
  sti
  nop
  nop
  nop
  cli
  IS([count], 0)
  sti
  mov eax, 4
  mov cr8, rax
  wait_
  cli
  IS([count], 1)
  mov qword ptr [hook], 0
  xor eax, eax
  mov cr8, rax
  mov eax, 16
  FAULTS(GP, 0, mov cr8, rax)
  END
CASE(nested_by_priority)
  apic_ SVR, 0x1ff
  mov qword ptr [order], 0
  WITH_HOOK(1f)
  self_ 0x50
  wait_
  sti
  nop
  nop
  nop
  cli
  IS([order], 0x506040)
  ret
1:
  mov rax, [order]
  shl rax, 8
  or rax, [last_vector]
  mov [order], rax
  cmp qword ptr [last_vector], 0x50
  jne 2f
  self_ 0x40  // waits: lower than what is in service
  self_ 0x60  // comes in between
  wait_
  sti
  nop
  nop
  nop
  cli
2:
  apic_ EOI, 0
  iretq
CASE(nmi_in_spite_of_if)
  WITH_HOOK(return)
  nmi_self_
  wait_
  IS([count], 1)
  IS([last_vector], NMI)
  IS([last_error], NO_ERROR)
  END
CASE(nmi_blocked_until_iret)
  mov qword ptr [order], 0
  WITH_HOOK(1f)
  nmi_self_
  wait_
  IS([count], 2)
  IS([order], 1)
  ret
1:
  push rax
  push rcx
  cmp qword ptr [count], 1
  jne 2f
  nmi_self_
  wait_
  mov rax, [count]
  mov [order], rax
2:
  pop rcx
  pop rax
  iretq

CASE(double_fault_contributory)  // #GP, while delivering it #NP
  mov byte ptr [idt + GP * 16 + 5], 0x0e
  mov rbx, 0x0000800000000000
  TRAPS(DF, 0, 1: mov al, [rbx])
  IS([last_rip], offset 1b)
  IS([last_frame], offset double_fault_stack_top - 40)
  END
CASE(double_fault_page_fault_twice)
  mov byte ptr [idt + PF * 16 + 4], IST_FREE
  mov qword ptr [tss + 28 + IST_FREE * 8], PAGE(5)
  mov ebx, PAGE(0)
  TRAPS(DF, 0, mov al, [rbx])
  IS([last_cr2], PAGE(5) - 8)
  END
CASE(double_fault_page_fault_then_contributory)
  mov byte ptr [idt + PF * 16 + 5], 0x0e
  mov ebx, PAGE(0)
  TRAPS(DF, 0, mov al, [rbx])
  END
CASE(contributory_then_page_fault)  // one after the other
  mov byte ptr [idt + DE * 16 + 4], IST_FREE
  mov qword ptr [tss + 28 + IST_FREE * 8], PAGE(5)
  xor ecx, ecx
  FAULTS(PF, PF_W, div ecx)
  IS([last_cr2], PAGE(5) - 8)
  END
CASE(benign_then_contributory)
  mov byte ptr [idt + UD * 16 + 5], 0x0e
  FAULTS(NP, UD * 8 + 3, ud2)
  END
CASE(double_fault_by_user)
  mov byte ptr [idt + GP * 16 + 5], 0x0e
  USER_TRAPS(DF, 0, 1: cli)
  IS([last_rip], offset 1b)
  IS([last_cs], UCODE)
  END
CASE(int_n_fault_is_no_double_fault)  // a software interrupt is benign
  mov byte ptr [idt + 0x40 * 16 + 4], IST_FREE
  mov qword ptr [tss + 28 + IST_FREE * 8], PAGE(5)
  FAULTS(PF, PF_W, int 0x40)
  END

  .bss
  .balign 8
taken_at: .skip 8
order: .skip 8
saved_rsp: .skip 8
