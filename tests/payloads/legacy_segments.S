// Segmentation, gates, task switches and VM86 in protected mode.
//   Source   Intel SDM vol. 3, 3.4, 5.3-5.8, 6.11-6.13, 7 (tasks), 20 (8086 emulation); vol. 2
#include "payload.h"

#define FREE2 (FREE + 8)
#define FREE3 (FREE + 16)
  // base: a label or number below 16 MiB
  .macro segment_ selector, base, limit, access, flags
    mov edx, offset \base
    mov word ptr [gdt + \selector], (\limit) & 0xffff
    mov [gdt + \selector + 2], dx
    shr edx, 16
    mov [gdt + \selector + 4], dl
    mov byte ptr [gdt + \selector + 5], \access
    mov byte ptr [gdt + \selector + 6], ((\flags) << 4) | (((\limit) >> 16) & 15)
    mov byte ptr [gdt + \selector + 7], 0
  .endm
#define SEGMENT(selector, base, limit, access, flags) segment_ selector, base, limit, access, flags

CASE(limit_of_data)
  SEGMENT(FREE, pages, 0xff, 0x93, 4)
  mov eax, FREE
  mov es, eax
  RUNS(mov al, es:[0xff])
  FAULTS(GP, 0, mov al, es:[0x100])
  FAULTS(GP, 0, mov ax, es:[0xff])
  FAULTS(GP, 0, mov eax, es:[0xfd])
  RUNS(mov eax, es:[0xfc])
  mov ebx, -1
  FAULTS(GP, 0, mov al, es:[ebx])
  FAULTS(GP, 0, mov eax, es:[ebx - 1])
  mov byte ptr es:[8], 5
  movzx eax, byte ptr [pages + 8]
  IS(eax, 5)
  END
CASE(limit_of_string)
  SEGMENT(FREE, pages, 0xff, 0x93, 4)
  mov eax, FREE
  mov es, eax
  mov edi, 0xf0
  mov ecx, 64
  FAULTS(GP, 0, rep stosb)
  IS(ecx, 48)
  IS(edi, 0x100)
  END
CASE(expand_down)  // valid above the limit
  SEGMENT(FREE, pages, 0xff, 0x97, 4)
  mov eax, FREE
  mov es, eax
  FAULTS(GP, 0, mov al, es:[0xff])
  FAULTS(GP, 0, mov al, es:[0])
  RUNS(mov al, es:[0x100])
  FAULTS(GP, 0, mov eax, es:[0xfe])
  SEGMENT(FREE, pages, 0xff, 0x97, 0)  // B clear: up to 0xffff
  mov eax, FREE
  mov es, eax
  RUNS(mov al, es:[0xffff])
  FAULTS(GP, 0, mov ax, es:[0xffff])
  mov ebx, 0x10000
  FAULTS(GP, 0, mov al, es:[ebx])
  END
CASE(granularity)
  SEGMENT(FREE, 0, 0, 0x93, 12)  // one page
  mov eax, FREE
  mov es, eax
  RUNS(mov al, es:[0xfff])
  FAULTS(GP, 0, mov al, es:[0x1000])
  END
CASE(null_segment)
  xor eax, eax
  mov es, eax
  FAULTS(GP, 0, mov al, es:[0])
  mov eax, 3
  RUNS(mov fs, eax)
  FAULTS(GP, 0, mov fs:[ebx], al)
  xor eax, eax
  FAULTS(GP, 0, mov ss, eax)
  END
CASE(read_only_and_execute_only)
  SEGMENT(FREE, 0, 0xfffff, 0x91, 12)
  mov eax, FREE
  mov es, eax
  RUNS(mov al, es:[pages])
  FAULTS(GP, 0, mov es:[pages], al)
  FAULTS(GP, 0, inc byte ptr es:[pages])
  FAULTS(GP, 0, mov cs:[pages], al)
  RUNS(mov al, cs:[pages])
  mov eax, KDATA
  mov es, eax
  SEGMENT(FREE, 0, 0xfffff, 0x99, 12)
  mov eax, FREE
  FAULTS(GP, FREE, mov es, eax)
  END
CASE(stack_limit)  // #SS(0), taken by a task because the stack is no good
  call make_other_task
  SEGMENT(FREE, pages, 0xff, 0x93, 4)
  SEGMENT(FREE2, other_tss, 103, 0x89, 0)
  mov dword ptr [other_tss + 32], offset 3f
  mov word ptr [idt + SS_ * 8 + 2], FREE2
  mov word ptr [idt + SS_ * 8 + 4], 0x8500
  mov [pages + 0x200], esp
  mov ebp, 0xfd
  mov eax, FREE
  mov ss, eax
  mov esp, 0xf0
  mov al, [ebp]
1:
  mov eax, [ebp]
2:
  mov eax, KDATA
  mov ss, eax
  mov esp, [pages + 0x200]
  clts
  IS([pages + 0x204], 0)
  IS([pages + 0x208], offset 1b)
  movzx eax, word ptr [pages + 0x20c]
  IS(eax, FREE)
  ret
3:
  pop eax
  mov [pages + 0x204], eax
  mov eax, [tss + 32]
  mov [pages + 0x208], eax
  mov eax, [tss + 80]
  mov [pages + 0x20c], eax
  mov dword ptr [tss + 32], offset 2b
  iretd
make_other_task:
  mov edi, offset other_tss
  xor eax, eax
  mov ecx, 26
  rep stosd
  mov dword ptr [other_tss + 36], 2
  mov dword ptr [other_tss + 56], offset interrupt_stack_top
  mov dword ptr [other_tss + 72], KDATA
  mov dword ptr [other_tss + 76], KCODE
  mov dword ptr [other_tss + 80], KDATA
  mov dword ptr [other_tss + 84], KDATA
  mov dword ptr [other_tss + 88], KDATA
  mov dword ptr [other_tss + 92], KDATA
  mov word ptr [other_tss + 102], 104
  ret

CASE(call_gate_with_parameters)
  mov eax, offset 1f
  mov [gdt + FREE], ax
  mov word ptr [gdt + FREE + 2], KCODE
  mov word ptr [gdt + FREE + 4], 0xec02  // DPL 3, two parameters
  shr eax, 16
  mov [gdt + FREE + 6], ax
  USER_RUNS(push 0x55; push 0x66; .byte 0x9a; .long 0; .word FREE + 3; mov edi, esp)
  IS([pages], 0x66)
  IS([pages + 4], 0x55)
  IS([pages + 8], UCODE)
  IS([pages + 12], offset user_stack_top - 8)
  IS([pages + 16], UDATA)
  IS([pages + 20], offset kernel_stack_top - 24)
  IS(edi, offset user_stack_top)
  ret
1:
  mov ax, KDATA
  mov ds, ax
  mov eax, [esp + 8]
  mov [pages], eax
  mov eax, [esp + 12]
  mov [pages + 4], eax
  mov eax, [esp + 4]
  mov [pages + 8], eax
  mov eax, [esp + 16]
  mov [pages + 12], eax
  mov eax, [esp + 20]
  mov [pages + 16], eax
  mov [pages + 20], esp
  retf 8
CASE(call_gate_bad_stack)  // the TSS's SS0: #TS with its selector
  mov eax, offset 1f
  mov [gdt + FREE], ax
  mov word ptr [gdt + FREE + 2], KCODE
  mov word ptr [gdt + FREE + 4], 0xec00
  shr eax, 16
  mov [gdt + FREE + 6], ax
  mov byte ptr [idt + TS * 8 + 5], 0xee  // its handler stays at CPL 3
  mov word ptr [idt + TS * 8 + 2], KCODE
  DESCRIPTOR(FREE2, 0xffff, 0x00cf9f00)
  mov word ptr [idt + TS * 8 + 2], FREE2
  mov eax, offset 2f
  mov [idt + TS * 8], ax
  shr eax, 16
  mov [idt + TS * 8 + 6], ax
  mov dword ptr [tss + 8], UDATA
  USER_RUNS(.byte 0x9a; .long 0; .word FREE + 3; 3:)
  IS([pages], UDATA & ~3)
  ret
2:
  pop eax
  mov [pages], eax
  mov dword ptr [tss + 8], KDATA
  mov dword ptr [esp], offset 3b
  iretd
1:
CASE(user_interrupt_frame)
  mov byte ptr [idt + 0x40 * 8 + 5], 0xee
  USER_TRAPS(0x40, NO_ERROR, int 0x40; 1:)
  IS([last_rip], offset 1b)
  IS([last_cs], UCODE)
  IS([last_rsp], offset user_stack_top)
  IS([last_ss], UDATA)
  END
CASE(same_level_interrupt_frame)  // no SS:ESP in it
  mov eax, esp
  TRAPS(0x40, NO_ERROR, int 0x40)
  sub eax, 12
  IS([last_frame], eax)
  END
CASE(legacy_instructions)
  mov eax, 0x0009
  add al, 8
  daa
  IS(eax, 0x17)
  mov eax, 0x0507
  aad
  IS(eax, 57)
  aam
  IS(eax, 0x0507)
  xor ecx, ecx
  FAULTS(DE, NO_ERROR, .byte 0xd4; .byte 0)
  mov al, 0x7f
  add al, 1
  TRAPS(OF, NO_ERROR, into; 1:)
  IS([last_rip], offset 1b)
  mov dword ptr [pages], 5
  mov dword ptr [pages + 4], 9
  mov eax, 7
  RUNS(bound eax, [pages])
  mov eax, 10
  FAULTS(BR, NO_ERROR, bound eax, [pages])
  pushad
  mov eax, [esp + 12]
  sub eax, esp
  popad
  mov ecx, 0x10000
  mov eax, 0x11
  inc eax
  dec ecx
  IS(eax, 0x12)
  IS(ecx, 0xffff)
  xor eax, eax
  stc
  .byte 0xd6  // SALC
  IS(eax, 0xff)
  END
CASE(moves_with_absolute_addresses)  // the short forms A0 to A3
  mov eax, 0x11223344
  mov [pages], eax
  mov ecx, [pages]
  IS(ecx, 0x11223344)
  mov [pages + 8], ax
  mov [pages + 12], al
  mov ecx, [pages + 8]
  IS(ecx, 0x3344)
  mov ecx, [pages + 12]
  IS(ecx, 0x44)
  xor eax, eax
  mov eax, [pages]
  IS(eax, 0x11223344)
  xor eax, eax
  mov al, [pages + 1]
  IS(eax, 0x33)
  END
CASE(inc_dec_in_hot_code)  // the one-byte forms, which 64-bit mode has as REX
  mov ecx, 500
  xor eax, eax
  xor edx, edx
1:
  inc eax
  inc eax
  dec edx
  mov ebx, eax
  inc ebx
  dec ebx
  dec ecx
  jnz 1b
  IS(eax, 1000)
  IS(ebx, 1000)
  IS(edx, -500)
  stc
  inc eax  // keeps CF
  setc al
  movzx eax, al
  IS(eax, 1)
  END
CASE(push_pop_segments)
  push UDATA
  pop es
  mov eax, -1
  push eax
  pop eax
  push es
  pop eax
  and eax, 0xffff
  IS(eax, UDATA)
  mov dword ptr [pages], 0x12345678
  mov word ptr [pages + 4], KDATA
  les ebx, [pages]
  IS(ebx, 0x12345678)
  push KCODE
  FAULTS(GP, KCODE, pop ss)
  pop eax
  END
CASE(sixteen_bit_code)
  SEGMENT(FREE, 0, 0xfffff, 0x9b, 8)  // 16-bit, whole address space
  mov dword ptr [pages], offset 1f
  mov word ptr [pages + 4], FREE
  jmp fword ptr [pages]
  .code16
1:
  mov ax, 0x1234
  inc ax
  push ax
  pop bx
  .byte 0x66, 0xea
  .long 2f
  .word KCODE
  .code32
2:
  movzx ebx, bx
  IS(ebx, 0x1235)
  END
CASE(arpl)
  mov eax, 0x08
  mov ebx, 3
  arpl ax, bx
  setz cl
  IS(eax, 0x0b)
  movzx ecx, cl
  IS(ecx, 1)
  arpl ax, bx
  setz cl
  movzx ecx, cl
  IS(ecx, 0)
  END

CASE(task_jump_and_back)
  call make_other_task
  SEGMENT(FREE, other_tss, 103, 0x89, 0)
  mov dword ptr [other_tss + 32], offset 1f
  mov dword ptr [other_tss + 40], 0x1111
  mov ebx, 0x77
  mov ebp, esp
  .byte 0xea; .long 0; .word FREE
  mov ecx, 0x88  // here when the other task jumps back
  jmp 2f
1:
  mov [pages], eax
  str edx
  mov [pages + 4], edx
  mov dl, [gdt + TSS + 5]
  mov [pages + 8], dl
  mov dl, [gdt + FREE + 5]
  mov [pages + 12], dl
  smsw edx
  and edx, CR0_TS
  mov [pages + 16], edx
  .byte 0xea; .long 0; .word TSS
2:
  clts
  IS(ecx, 0x88)
  IS(ebx, 0x77)
  IS([pages], 0x1111)
  IS([pages + 4], FREE)
  IS([pages + 8], 0x89)  // the old one is available again
  IS([pages + 12], 0x8b)
  IS([pages + 16], CR0_TS)
  IS([other_tss + 40], 0x1111)
  END
CASE(task_call_and_iret)  // NT and the back link
  call make_other_task
  SEGMENT(FREE, other_tss, 103, 0x89, 0)
  mov dword ptr [other_tss + 32], offset 1f
  mov esi, 3
  .byte 0x9a; .long 0; .word FREE
  mov ecx, 0x99
  clts
  pushfd
  pop eax
  and eax, FLAG_NT
  IS(eax, 0)
  IS(ecx, 0x99)
  IS(esi, 3)
  IS([pages], FLAG_NT)
  movzx eax, word ptr [other_tss]
  IS(eax, TSS)
  movzx eax, byte ptr [gdt + FREE + 5]
  IS(eax, 0x89)
  movzx eax, byte ptr [gdt + TSS + 5]
  IS(eax, 0x8b)
  ret
1:
  pushfd
  pop eax
  and eax, FLAG_NT
  mov [pages], eax
  mov dl, [gdt + TSS + 5]
  iretd
CASE(task_gate_for_exception)
  call make_other_task
  SEGMENT(FREE, other_tss, 103, 0x89, 0)
  mov dword ptr [other_tss + 32], offset 1f
  mov word ptr [idt + GP * 8 + 2], FREE
  mov word ptr [idt + GP * 8 + 4], 0x8500
  mov eax, 0x1000
  mov ebx, esp
2:
  mov fs, eax
3:
  clts
  IS([pages], 0x1000)
  IS([pages + 4], offset 2b)
  IS(esp, ebx)
  ret
1:
  pop eax  // the error code is on the new task's stack
  mov [pages], eax
  mov eax, [tss + 32]
  mov [pages + 4], eax
  mov dword ptr [tss + 32], offset 3b
  iretd
CASE(task_faults)
  mov dword ptr [other_tss], 0
  SEGMENT(FREE, other_tss, 103, 0x8b, 0)
  FAULTS(GP, FREE, .byte 0xea; .long 0; .word FREE)  // busy
  SEGMENT(FREE, other_tss, 103, 0x09, 0)
  FAULTS(NP, FREE, .byte 0xea; .long 0; .word FREE)
  SEGMENT(FREE, other_tss, 102, 0x89, 0)
  FAULTS(TS, FREE, .byte 0xea; .long 0; .word FREE)
  SEGMENT(FREE, other_tss, 103, 0x89, 0)
  USER_FAULTS(GP, FREE, .byte 0xea; .long 0; .word FREE)
  push FLAG_NT + 2
  popfd
  mov word ptr [tss], KDATA
  FAULTS(TS, KDATA, iretd)  // the back link is no TSS
  push 2
  popfd
  END
CASE(task_bad_segment)  // #TS in the new task
  call make_other_task
  SEGMENT(FREE, other_tss, 103, 0x89, 0)
  mov dword ptr [other_tss + 32], offset 1f
  mov dword ptr [other_tss + 84], KCODE + 0x1000  // DS
  TRAPS(TS, (KCODE + 0x1000) & ~7, .byte 0xea; .long 0; .word FREE)
1:
  IS([last_rip], offset 1b)
  str eax
  IS(eax, FREE)
  clts
  END
CASE(task_trap_flag)  // the T bit: #DB with DR6.BT before the new task's first instruction
  call make_other_task
  SEGMENT(FREE, other_tss, 103, 0x89, 0)
  mov dword ptr [other_tss + 32], offset 1f
  mov byte ptr [other_tss + 100], 1
  TRAPS(DB, NO_ERROR, .byte 0xea; .long 0; .word FREE; ud2; 1: ud2)
  IS([last_rip], offset 1b)
  IS([last_dr6], 0xffff8ff0)
  clts
  END

CASE(vm86)
  mov dword ptr [resume], offset 2f
  mov dword ptr [resume_sp], esp
  mov byte ptr ds:[0x7000], 0xb8  // mov ax, 0x1234
  mov word ptr ds:[0x7001], 0x1234
  mov dword ptr ds:[0x7003], 0xf4c88c40  // inc ax; mov ax, cs; hlt
  push 0  // GS
  push 0
  push 0x710
  push 0x720  // ES
  push 0x730  // SS
  push 0x100  // SP
  push 0x20002
  push 0x700
  push 0
  iretd
2:
  mov dword ptr [resume], 0
  IS([last_vector], GP)
  IS([last_error], 0)
  IS([last_rip], 6)
  IS([last_cs], 0x700)
  IS([last_rsp], 0x100)
  IS([last_ss], 0x730)
  movzx eax, ax
  IS(eax, 0x700)
  mov eax, [last_flags]
  and eax, 0x20000
  IS(eax, 0x20000)
  mov ebx, [last_frame]
  movzx eax, word ptr [ebx + 20]  // ES, DS behind SS:ESP
  IS(eax, 0x720)
  movzx eax, word ptr [ebx + 24]
  IS(eax, 0x710)
  movzx eax, word ptr [last_ds]
  IS(eax, 0)
  END
CASE(sysenter_legacy)
  WRMSR(0x174, KCODE, 0)
  WRMSR(0x175, 0x8000, 0)
  mov eax, offset 1f
  mov ecx, 0x176
  wrmsr
  mov ebx, esp
  mov dword ptr [user_ip], offset 2f
  jmp enter_user
2:
  sysenter
1:
  mov ecx, esp
  mov eax, KDATA
  mov ds, eax
  mov es, eax
  mov esp, ebx
  IS(ecx, 0x8000)
  mov eax, cs
  IS(eax, KCODE)
  WRMSR(0x174, 0, 0)
  END

  .bss
  .balign 128
other_tss: .skip 128
