// What ends the machine: triple faults and resets. Each case says "resets" and must not come back.
//   Source   Intel SDM vol. 3, 6.15 (#DF: shutdown); the reset is the chipset's answer to it
#include "payload.h"

  .macro farewell
    mov rsi, offset text_resets
    call put_text
  .endm
  .macro no_return
    mov qword ptr [failed], 1
    mov rsi, offset text_back
    call put_text
    jmp leave_case
  .endm

CASE(triple_fault_empty_idt)
  mov word ptr [pages], 0
  lidt [pages]
  farewell
  ud2
  no_return
CASE(triple_fault_no_double_fault_gate)
  mov byte ptr [idt + DF * 16 + 5], 0x0e
  mov byte ptr [idt + GP * 16 + 5], 0x0e
  mov rbx, 0x0000800000000000
  farewell
  mov al, [rbx]
  no_return
CASE(triple_fault_bad_stack)
  mov byte ptr [idt + DF * 16 + 4], 0
  farewell
  mov rsp, 0x0000800000000100
  push rax
  no_return
CASE(triple_fault_by_user)
  mov rax, 0x0000800000000000
  mov [tss + 4], rax
  mov [tss + 28 + IST_DF * 8], rax
  farewell
  user_try_ UD, NO_ERROR, 0, 0, 0, ud2
  no_return
CASE(triple_fault_unmapped_tables)
  farewell
  xor eax, eax
  mov [pml4], rax
  mov rax, cr3
  mov cr3, rax
  mov al, [rax]
  no_return
CASE(keyboard_controller_reset)
  farewell
  mov al, 0xfe
  out 0x64, al
1:
  pause
  jmp 1b
CASE(reset_control_register)
  farewell
  mov edx, 0xcf9
  mov al, 2
  out dx, al
  mov al, 6
  out dx, al
1:
  pause
  jmp 1b

  .section .rodata
text_resets: .asciz "resets\n"
text_back: .asciz "came_back FAIL nothing was reset\n"
