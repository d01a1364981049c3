// Segment loads, far transfers, call gates and descriptor tables in IA-32e mode.
//   Source   Intel SDM vol. 2 (MOV, JMP, CALL, RET, LAR, LSL, VERR, LTR, LLDT, LGDT); vol. 3, 3.4, 5.5-5.8, 5.10
#include "payload.h"

#define DATA_DPL0 0x00cf93000000ffff
  .macro entry_ selector, value
    movabs rax, \value
    mov [gdt + (\selector)], rax
  .endm
#define ENTRY(selector, value) ENTRY_(selector, value)
#define ENTRY_(selector, value) entry_ #selector, value

CASE(null_data_segments)
  xor eax, eax
  RUNS(mov ds, eax)
  RUNS(mov es, eax)
  mov eax, 3
  RUNS(mov fs, eax)
  RUNS(mov gs, eax)
  mov rcx, [count]  // usable all the same in 64-bit mode
  IS(rcx, 0)
  END
CASE(null_selectors_after_iret)  // outward, all null selectors become 0 (vol. 2, IRET; Linux counts on it)
  mov eax, 1
  mov es, eax
  mov eax, 2
  mov ds, eax
  mov eax, 3
  mov fs, eax
  USER_RUNS(mov ebx, es; mov ecx, ds; mov edi, fs)
  IS(rbx, 0)
  IS(rcx, 0)
  IS(rdi, 0)
  END
CASE(null_stack_segment)  // allowed with RPL = CPL at CPL 0 to 2 in 64-bit mode
  xor eax, eax
  RUNS(mov ss, eax)
  mov eax, 3
  FAULTS(GP, 0, mov ss, eax)
  mov eax, KDATA
  mov ss, eax
  xor eax, eax
  USER_FAULTS(GP, 0, mov ss, eax)
  END
CASE(selector_beyond_limit)
  mov eax, 0x1003
  FAULTS(GP, 0x1000, mov ds, eax)
  mov eax, 0x100
  FAULTS(GP, 0x100, mov ss, eax)
  END
CASE(selector_in_missing_ldt)
  mov eax, 0x0f
  FAULTS(GP, 0xc, mov es, eax)
  END
CASE(data_not_present)
  ENTRY(FREE, 0x00cf13000000ffff)
  mov eax, FREE
  FAULTS(NP, FREE, mov ds, eax)
  FAULTS(NP, FREE, mov gs, eax)
  FAULTS(SS_, FREE, mov ss, eax)
  END
CASE(data_of_wrong_type)
  ENTRY(FREE, 0x00af99000000ffff)  // code, execute only
  mov eax, FREE
  FAULTS(GP, FREE, mov ds, eax)
  FAULTS(GP, FREE, mov ss, eax)
  mov eax, TSS
  FAULTS(GP, TSS, mov es, eax)
  mov eax, KCODE
  RUNS(mov ds, eax)  // readable code does for data
  FAULTS(GP, KCODE, mov ss, eax)
  ENTRY(FREE, 0x00cf91000000ffff)  // read-only data is no stack
  mov eax, FREE
  RUNS(mov ds, eax)
  FAULTS(GP, FREE, mov ss, eax)
  END
CASE(privilege_of_data)
  mov eax, KDATA
  USER_FAULTS(GP, KDATA, mov ds, eax)
  USER_FAULTS(GP, KDATA, mov fs, eax)
  USER_FAULTS(GP, KDATA, mov ss, eax)
  mov eax, UDATA
  RUNS(mov ds, eax)
  FAULTS(GP, UDATA & ~3, mov ss, eax)
  mov eax, KDATA + 1
  FAULTS(GP, KDATA, mov ds, eax)  // RPL 1 on DPL 0
  END
CASE(conforming_code_as_data)  // needs no privilege
  ENTRY(FREE, 0x00cf9f000000ffff)
  mov eax, FREE + 3
  USER_RUNS(mov es, eax)
  END
CASE(mov_to_cs)
  FAULTS(UD, NO_ERROR, .byte 0x8e; .byte 0xc8)
  END
CASE(accessed_bit)
  ENTRY(FREE, 0x00cf92000000ffff)
  mov eax, FREE
  mov ds, eax
  movzx eax, byte ptr [gdt + FREE + 5]
  IS(rax, 0x93)
  END
CASE(loading_segment_sets_base)
  ENTRY(FREE, 0x12cf93345678ffff)
  mov eax, FREE
  mov fs, eax
  mov ecx, 0xc0000100
  rdmsr
  IS(rax, 0x12345678)
  IS(rdx, 0)
  END
CASE(null_load_keeps_or_clears_base)  // Intel: MOV of a null selector clears the base (AMD keeps it): either is hidden by
  // a write first, so only the selector is looked at here
  xor eax, eax
  mov fs, eax
  mov eax, fs
  IS(rax, 0)
  END
CASE(store_segment)
  mov eax, UDATA
  mov es, eax
  mov rcx, -1
  mov ecx, es
  IS(rcx, UDATA)
  mov rcx, -1
  mov cx, es
  and ecx, ecx
  mov edx, 0xffff0000 + UDATA
  IS(rcx, rdx)
  mov qword ptr [pages], -1
  mov [pages], es
  mov eax, [pages]
  IS(rax, rdx)
  END
CASE(ldt)
  DESCRIPTOR(FREE, 0, 0x8200)
  DESCRIPTOR(FREE + 8, 0, 0)
  mov word ptr [gdt + FREE], 15
  mov eax, offset pages
  mov [gdt + FREE + 2], ax
  shr eax, 16
  mov [gdt + FREE + 4], al
  mov rax, DATA_DPL0
  mov [pages + 8], rax
  mov eax, FREE
  RUNS(lldt ax)
  sldt ecx
  IS(rcx, FREE)
  mov eax, 12
  RUNS(mov ds, eax)
  mov eax, 0x14
  FAULTS(GP, 0x14, mov ds, eax)
  xor eax, eax
  RUNS(lldt ax)
  mov eax, 12
  FAULTS(GP, 12, mov ds, eax)
  END
CASE(lldt_faults)
  mov eax, KDATA
  FAULTS(GP, KDATA, lldt ax)
  mov eax, 12
  FAULTS(GP, 12, lldt ax)
  DESCRIPTOR(FREE, 0, 0x0200)
  DESCRIPTOR(FREE + 8, 0, 0)
  mov eax, FREE
  FAULTS(NP, FREE, lldt ax)
  DESCRIPTOR(FREE, 0, 0x8200)
  DESCRIPTOR(FREE + 8, 0x8000, 0)  // a base that is not canonical
  FAULTS(GP, FREE, lldt ax)
  USER_FAULTS(GP, 0, lldt ax)
  END
CASE(ltr_faults)
  mov eax, TSS
  FAULTS(GP, TSS, ltr ax)  // busy
  xor eax, eax
  FAULTS(GP, 0, ltr ax)
  mov eax, KDATA
  FAULTS(GP, KDATA, ltr ax)
  DESCRIPTOR(FREE, 0x67, 0x0900)
  DESCRIPTOR(FREE + 8, 0, 0)
  mov eax, FREE
  FAULTS(NP, FREE, ltr ax)
  mov byte ptr [gdt + FREE + 5], 0x81  // a 16-bit TSS
  FAULTS(GP, FREE, ltr ax)
  USER_FAULTS(GP, 0, ltr ax)
  END
CASE(ltr_makes_busy)
  DESCRIPTOR(FREE, 0x67, 0x8900)
  DESCRIPTOR(FREE + 8, 0, 0)
  mov eax, FREE
  ltr ax
  movzx eax, byte ptr [gdt + FREE + 5]
  IS(rax, 0x8b)
  str eax
  IS(rax, FREE)
  END
CASE(lar)
  mov eax, KCODE
  xor ecx, ecx
  lar ecx, eax
  setz dl
  IS(rcx, 0x00af9b00 & 0x00f0ff00)
  movzx edx, dl
  IS(rdx, 1)
  mov eax, 0x1000
  mov ecx, 7
  lar ecx, eax
  setz dl
  IS(rcx, 7)
  movzx edx, dl
  IS(rdx, 0)
  mov eax, TSS
  lar ecx, eax
  setz dl
  movzx edx, dl
  IS(rdx, 1)
  IS(rcx, 0x8b00)
  ENTRY(FREE, 0x0000850000000000)  // a task gate: not in IA-32e mode
  mov eax, FREE
  lar ecx, eax
  setz dl
  movzx edx, dl
  IS(rdx, 0)
  xor eax, eax
  lar ecx, eax
  setz dl
  movzx edx, dl
  IS(rdx, 0)
  END
CASE(lsl)
  mov eax, KDATA
  lsl ecx, eax
  mov edx, -1
  IS(rcx, rdx)
  mov eax, TSS
  lsl ecx, eax
  IS(rcx, 0x67)
  ENTRY(FREE, 0x00008c0000000000)  // a call gate has no limit
  mov eax, FREE
  mov ecx, 3
  lsl ecx, eax
  setz dl
  movzx edx, dl
  IS(rdx, 0)
  IS(rcx, 3)
  END
CASE(verr_verw)
  .macro zf_ insn, expected
    \insn
    setz dl
    movzx edx, dl
    is_ rdx, \expected, __LINE__
  .endm
  mov eax, KDATA
  zf_ "verr ax", 1
  zf_ "verw ax", 1
  mov eax, KDATA + 3
  zf_ "verr ax", 0
  mov eax, KCODE
  zf_ "verr ax", 1
  zf_ "verw ax", 0
  ENTRY(FREE, 0x00af99000000ffff)
  mov eax, FREE
  zf_ "verr ax", 0
  ENTRY(FREE, 0x00cf91000000ffff)
  mov eax, FREE
  zf_ "verw ax", 0
  xor eax, eax
  zf_ "verr ax", 0
  END
CASE(lgdt_lidt_faults)
  mov rax, 0x0000800000000000
  mov [pages + 2], rax
  mov word ptr [pages], 0xff
  FAULTS(GP, 0, lgdt [pages])
  FAULTS(GP, 0, lidt [pages])
  USER_FAULTS(GP, 0, lgdt [gdt_pointer])
  USER_FAULTS(GP, 0, lidt [idt_pointer])
  FAULTS(UD, NO_ERROR, .byte 0x0f; .byte 0x01; .byte 0xd4)  // VMFUNC, without VMX; not LGDT with a register
  END
CASE(sgdt_sidt)
  sgdt [pages]
  movzx eax, word ptr [pages]
  IS(rax, 255)
  IS([pages + 2], offset gdt)
  sidt [pages + 16]
  movzx eax, word ptr [pages + 16]
  IS(rax, 4095)
  IS([pages + 18], offset idt)
  END
CASE(umip)
  NEEDS_UMIP
  USER_RUNS(sgdt [pages])
  SET_BITS(cr4, CR4_UMIP)
  USER_FAULTS(GP, 0, sgdt [pages])
  USER_FAULTS(GP, 0, sidt [pages])
  USER_FAULTS(GP, 0, sldt eax)
  USER_FAULTS(GP, 0, str eax)
  USER_FAULTS(GP, 0, smsw eax)
  RUNS(sgdt [pages])
  END

CASE(far_return_same_level)
  push KCODE
  push offset 1f
  RUNS(retfq)
1:
  mov rax, cs
  IS(rax, KCODE)
  END
CASE(far_return_null_and_bad)
  mov rcx, rsp
  push 0
  push offset 1f
  FAULTS(GP, 0, retfq)
  mov rsp, rcx
  push KDATA
  push offset 1f
  FAULTS(GP, KDATA, retfq)
  mov rsp, rcx
  push UDATA
  push offset 1f
  FAULTS(GP, UDATA & ~3, retfq)
  mov rsp, rcx
  mov rax, 0x0000800000000000
  push KCODE
  push rax
  FAULTS(GP, 0, retfq)
  mov rsp, rcx
  ENTRY(FREE, 0x00af1b000000ffff)  // not present
  push FREE
  push offset 1f
  FAULTS(NP, FREE, retfq)
  mov rsp, rcx
  ENTRY(FREE, 0x00ef9b000000ffff)  // L and D both
  push FREE
  push offset 1f
  FAULTS(GP, FREE, retfq)
  mov rsp, rcx
1:
  END
CASE(far_return_outward)
  mov [pages], rsp
  mov qword ptr [resume_sp], rsp
  mov qword ptr [resume], offset 2f
  push UDATA
  push offset user_stack_top - 32
  push 0  // two words that RETF takes off
  push 0
  push UCODE
  push offset 1f
  retfq 16
1:
  int RETURN_VECTOR
2:
  mov qword ptr [resume], 0
  IS([last_cs], UCODE)
  IS([last_ss], UDATA)
  IS([last_rsp], offset user_stack_top - 16)
  END
CASE(far_return_outward_bad_stack)
  mov rcx, rsp
  push KDATA
  push offset user_stack_top
  push UCODE
  push offset 1f
  FAULTS(GP, KDATA, retfq)
  mov rsp, rcx
  push 0
  push offset user_stack_top
  push UCODE
  push offset 1f
  FAULTS(GP, 0, retfq)
  mov rsp, rcx
  ENTRY(FREE, 0x00cf73000000ffff)
  push FREE + 3
  push offset user_stack_top
  push UCODE
  push offset 1f
  FAULTS(SS_, FREE, retfq)
  mov rsp, rcx
1:
  END
CASE(far_jump_to_memory)
  mov dword ptr [pages], offset 1f
  mov word ptr [pages + 4], KCODE
  RUNS(jmp fword ptr [pages])
1:
  mov word ptr [pages + 4], 0
  FAULTS(GP, 0, jmp fword ptr [pages])
  mov word ptr [pages + 4], KDATA
  FAULTS(GP, KDATA, jmp fword ptr [pages])
  mov word ptr [pages + 4], UCODE
  FAULTS(GP, UCODE & ~3, jmp fword ptr [pages])
  mov word ptr [pages + 4], TSS
  FAULTS(GP, TSS, jmp fword ptr [pages])  // no task switches in IA-32e mode
  FAULTS(UD, NO_ERROR, .byte 0xea)  // direct far jump
  END
CASE(far_call_to_memory)
  mov dword ptr [pages], offset 1f
  mov word ptr [pages + 4], KCODE
  mov rbx, rsp
  call fword ptr [pages]
  jmp 2f
1:
  mov rax, [rsp + 4]
  and eax, 0xffff
  mov rcx, rbx
  sub rcx, rsp
  retfd
2:
  IS(rax, KCODE)
  IS(rcx, 8)
  IS(rsp, rbx)
  END
  // A 64-bit call gate at FREE to KCODE:1f with the given access byte.
  .macro call_gate_ access, selector, target
    mov eax, offset \target
    mov [gdt + FREE], ax
    mov word ptr [gdt + FREE + 2], \selector
    mov word ptr [gdt + FREE + 4], (\access) << 8
    shr eax, 16
    mov [gdt + FREE + 6], ax
    mov qword ptr [gdt + FREE + 8], 0
    mov dword ptr [pages], 0x12345678  // the offset of the pointer does not count
    mov word ptr [pages + 4], FREE
  .endm
CASE(call_gate_same_level)
  call_gate_ 0x8c, KCODE, 1f
  mov rbx, rsp
  call fword ptr [pages]
  jmp 2f
1:
  mov rax, [rsp + 8]
  mov rcx, rbx
  sub rcx, rsp
  retfq
2:
  IS(rax, KCODE)
  IS(rcx, 16)
  IS(rsp, rbx)
  END
CASE(call_gate_inward)
  call_gate_ 0xec, KCODE, 1f
  mov word ptr [pages + 4], FREE + 3
  USER_RUNS(call fword ptr [pages]; mov edi, 5)
  IS([pages + 16], KCODE)
  IS([pages + 24], UCODE)
  IS([pages + 32], UDATA)
  IS([pages + 40], offset user_stack_top)
  IS([pages + 48], 0)
  IS([pages + 56], offset kernel_stack_top - 32)
  IS(rdi, 5)
  ret
1:
  mov eax, cs
  mov [pages + 16], rax
  mov rax, [rsp + 8]
  mov [pages + 24], rax
  mov rax, [rsp + 24]
  mov [pages + 32], rax
  mov rax, [rsp + 16]
  mov [pages + 40], rax
  mov eax, ss
  mov [pages + 48], rax
  mov [pages + 56], rsp
  retfq
CASE(call_gate_faults)
  call_gate_ 0x8c, KCODE, 1f
  mov word ptr [pages + 4], FREE + 3
  USER_FAULTS(GP, FREE, call fword ptr [pages])  // DPL 0
  call_gate_ 0x6c, KCODE, 1f
  FAULTS(NP, FREE, call fword ptr [pages])
  call_gate_ 0x8c, 0, 1f
  FAULTS(GP, 0, call fword ptr [pages])
  call_gate_ 0x8c, KDATA, 1f
  FAULTS(GP, KDATA, call fword ptr [pages])
  call_gate_ 0x8c, CODE32, 1f
  FAULTS(GP, CODE32, call fword ptr [pages])
  call_gate_ 0x8c, KCODE, 1f
  mov dword ptr [gdt + FREE + 8], 0x8000
  FAULTS(GP, 0, call fword ptr [pages])
  call_gate_ 0x84, KCODE, 1f  // 16-bit gates are gone
  FAULTS(GP, FREE, call fword ptr [pages])
  call_gate_ 0xec, KCODE, 1f
  mov word ptr [pages + 4], FREE + 3
  USER_FAULTS(GP, KCODE, jmp fword ptr [pages])  // a jump must not go inward
1:
  END
CASE(call_gate_stack_not_canonical)
  call_gate_ 0xec, KCODE, 1f
  mov word ptr [pages + 4], FREE + 3
  mov rax, 0x0000800000000000
  mov [tss + 4], rax
  mov byte ptr [idt + SS_ * 16 + 4], IST_FREE
  USER_FAULTS(SS_, 0, call fword ptr [pages])
1:
  END

CASE(compatibility_mode)
  push CODE32
  push offset 1f
  retfq
  .code32
1:
  mov eax, 0x11223344
  dec eax  // 48 is no REX prefix here
  push eax
  pop ebx
  mov ecx, cs
  .byte 0xea
  .long 2f
  .word KCODE
  .code64
2:
  IS(rax, 0x11223343)
  IS(rbx, 0x11223343)
  IS(rcx, CODE32)
  END
CASE(compatibility_mode_faults)
  push CODE32
  push offset 1f
  mov qword ptr [resume], offset 3f
  mov qword ptr [resume_sp], rsp
  retfq
  .code32
1:
2:
  .byte 0x0f, 0x0b
  .code64
3:
  IS([last_vector], UD)
  IS([last_rip], offset 2b)
  IS([last_cs], CODE32)
  mov rsp, [resume_sp]
  add rsp, 16
  mov qword ptr [resume], 0
  END
CASE(compatibility_mode_limit)
  ENTRY(FREE, 0x00409310000001ff)  // data at 0x100000, 0x200 bytes
  mov qword ptr [case_rsp], rsp
  push CODE32
  push offset 1f
  mov qword ptr [resume], offset 3f
  mov qword ptr [resume_sp], rsp
  retfq
  .code32
1:
  mov eax, FREE
  mov ds, eax
  mov al, ds:[0x1ff]
2:
  mov eax, ds:[0x1fd]
  .code64
3:
  mov qword ptr [resume], 0
  mov rsp, [case_rsp]
  IS([last_vector], GP)
  IS([last_error], 0)
  IS([last_rip], offset 2b)
  END
CASE(compatibility_mode_user)
  mov qword ptr [resume], offset 3f
  mov qword ptr [resume_sp], rsp
  push UDATA
  push offset user_stack_top
  push 2
  push UCODE32
  push offset 1f
  iretq
  .code32
1:
  mov eax, esp
  push eax
  pop ecx
2:
  hlt
  .code64
3:
  mov qword ptr [resume], 0
  IS([last_vector], GP)
  IS([last_rip], offset 2b)
  IS([last_cs], UCODE32)
  IS(rcx, offset user_stack_top)
  END
CASE(address_wraps_in_compatibility_mode)  // 32 bits, no carry into the upper half
  MAP(0, pages, P + W)
  mov dword ptr [pages + 8], 0x77
  mov [case_rsp], rsp
  push CODE32
  push offset 1f
  retfq
  .code32
1:
  mov ebx, PAGE(0) + 0x10
  mov ecx, -8
  mov eax, [ebx + ecx]
  .byte 0xea
  .long 2f
  .word KCODE
  .code64
2:
  mov rsp, [case_rsp]
  IS(rax, 0x77)
  END
CASE(address_size_prefix)  // 32-bit addresses in 64-bit mode: the sum is cut, FS's base is added after it
  MAP(0, pages, P + W)
  mov dword ptr [pages + 8], 0x77
  mov rbx, 0xffffffff00000000 + PAGE(0) + 0x10
  mov rcx, -8
  mov eax, [ebx + ecx]
  IS(rax, 0x77)
  WRMSR(0xc0000100, PAGE(0), 0)
  mov ebx, 4
  mov edx, 4
  mov eax, fs:[ebx + edx]
  IS(rax, 0x77)
  END
CASE(segment_bases_ignored)  // DS, ES and SS of 64-bit mode have base 0
  ENTRY(FREE, 0x12cf93345678ffff)
  mov eax, FREE
  mov ds, eax
  mov es, eax
  mov dword ptr [pages], 6
  mov eax, [pages]
  IS(rax, 6)
  END

  .bss
  .balign 8
case_rsp: .skip 8
