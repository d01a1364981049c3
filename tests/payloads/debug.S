// Single step, debug registers, breakpoints.
//   Source   Intel SDM vol. 3, 17.2 (debug registers), 17.3 (exceptions), 6.8.3 (MOV SS); vol. 2 (MOV DR, INT1, SYSCALL)
#include "payload.h"

#define BS 0x4000
#define BD 0x2000
#define FIXED 0xffff0ff0
  .macro trap_flag_
    push FLAG_TF + 2
    popfq
  .endm
  .macro breakpoint_ address, dr7
    mov eax, offset \address
    mov dr0, rax
    mov eax, \dr7
    mov dr7, rax
  .endm
#define DR7_EXEC 1
#define DR7_WRITE(length) (1 + (1 << 16) + (length << 18))
#define DR7_RW(length) (1 + (3 << 16) + (length << 18))
#define LEN1 0
#define LEN2 1
#define LEN4 3
#define LEN8 2

step:  // a hook: the low bytes of the addresses where it trapped, and go on
  push rax
  mov rax, [trace]
  shl rax, 8
  mov al, [last_rip]
  mov [trace], rax
  mov rax, [last_dr6]
  mov [dr6_seen], rax
  mov eax, FIXED
  mov dr6, rax
  pop rax
  iretq

CASE(single_step)
  TRAPS(DB, NO_ERROR, push FLAG_TF + 2; popfq; nop; 1: nop)
  IS([last_rip], offset 1b)
  mov eax, FIXED + BS
  IS([last_dr6], rax)
  mov rax, [last_flags]
  and eax, FLAG_TF + FLAG_RF
  IS(rax, FLAG_TF)
  lea rsp, [rsp]
  END
CASE(single_step_counts)
  WITH_HOOK(return)
  trap_flag_
  nop
  mov eax, 5
  add eax, eax
  jmp 1f
  ud2
1:
  call 2f
  push 2
  popfq
  IS([count], 8)
  ret
2:
  ret
return:
  iretq
CASE(single_step_off_by_popf)
  WITH_HOOK(return)
  trap_flag_
  push 2
  popfq  // this one still traps: TF was set when it began
  nop
  IS([count], 2)
  END
CASE(single_step_over_mov_ss)
  WITH_HOOK(step)
  mov qword ptr [trace], 0
  mov eax, KDATA
  trap_flag_
  mov ss, eax
  nop
1:
  push 2
2:
  popfq
3:
  IS([count], 3)
  mov eax, offset 1b
  mov ecx, offset 2b
  mov edx, offset 3b
  movzx eax, al
  movzx ecx, cl
  movzx edx, dl
  shl eax, 16
  shl ecx, 8
  or eax, ecx
  or eax, edx
  IS([trace], rax)
  END
CASE(single_step_of_string_iterations)  // a trap after each
  mov esi, offset pages
  mov edi, offset pages + 64
  mov ecx, 4
  WITH_HOOK(step)
  mov qword ptr [trace], 0
  trap_flag_
1:
  rep movsb
2:
  push 2
  popfq
  IS([count], 6)
  IS(rcx, 0)
  mov rax, [trace]
  shr rax, 16
  mov ebx, offset 1b
  movzx ebx, bl
  imul ebx, ebx, 0x010101
  shl rbx, 8
  mov ecx, offset 2b
  or bl, cl
  IS(rax, rbx)
  END
CASE(single_step_into_int)  // INT n clears TF before it could trap; the trap is not made up for
  WITH_HOOK(1f)
  mov qword ptr [trace], 0
  trap_flag_
  int 0x40
2:
  push 2
  popfq
  IS([count], 3)
  IS([first_vector], 0x40)
  ret
1:
  cmp qword ptr [count], 1
  jne 3f
  push rax
  mov rax, [last_vector]
  mov [first_vector], rax
  pop rax
3:
  iretq
CASE(single_step_and_fault)  // the fault comes, and the trap not
  TRAPS(UD, NO_ERROR, push FLAG_TF + 2; popfq; 1: ud2)
  IS([last_rip], offset 1b)
  mov rax, [last_flags]
  and eax, FLAG_TF
  IS(rax, FLAG_TF)
  mov eax, FIXED
  IS([last_dr6], rax)
  END
CASE(single_step_of_syscall)  // masked by IA32_FMASK
  WRMSR(0xc0000081, 0, KCODE | (UCODE32 << 16))
  mov eax, offset 1f
  xor edx, edx
  mov ecx, 0xc0000082
  wrmsr
  WRMSR(0xc0000084, FLAG_TF, 0)
  WITH_HOOK(return)
  trap_flag_
  syscall
1:
  nop
  IS([count], 0)
  mov rax, r11
  and eax, FLAG_TF
  IS(rax, FLAG_TF)
  END
CASE(single_step_by_iret)
  mov rbx, rsp
  TRAPS(DB, NO_ERROR, push KDATA; push rbx; push FLAG_TF + 2; push KCODE; push offset 1f; iretq; 1: nop; 2: nop)
  IS([last_rip], offset 2b)
  END
CASE(single_step_user)
  mov qword ptr [user_flags], FLAG_TF + 2
  USER_TRAPS(DB, NO_ERROR, nop; 1: nop)
  IS([last_rip], offset 1b)
  END
CASE(single_step_hot_code)  // the same instructions without and with TF
  mov ecx, 2000
1:
  call 5f
  loop 1b
  WITH_HOOK(return)
  trap_flag_
  call 5f
  push 2
  popfq
  IS([count], 7)
  ret
5:
  mov eax, [pages]
  inc eax
  mov [pages], eax
  ret

CASE(execute_breakpoint)
  breakpoint_ 1f, DR7_EXEC
  mov ecx, 3
  TRAPS(DB, NO_ERROR, nop; 1: inc ecx; nop)
  IS([last_rip], offset 1b)
  IS(rcx, 3)  // a fault: before the instruction
  mov eax, FIXED + 1
  IS([last_dr6], rax)
  END
CASE(execute_breakpoint_resumed)  // with RF in the image IRET goes past it, once
  WITH_HOOK(1f)
  breakpoint_ 2f, DR7_EXEC
  mov edx, 3
3:
2:
  inc ecx
  dec edx
  jnz 3b
  IS([count], 3)
  xor eax, eax
  mov dr7, rax
  ret
1:
  or qword ptr [rsp + 16], FLAG_RF
  iretq
CASE(execute_breakpoint_in_hot_code)
  xor edx, edx
  mov ecx, 3000
1:
  call 5f
  loop 1b
  breakpoint_ 6f, DR7_EXEC
  TRAPS(DB, NO_ERROR, call 5f)
  IS([last_rip], offset 6f)
  IS(rdx, 3001)
  xor eax, eax
  mov dr7, rax
  call 5f
  IS(rdx, 3002)
  ret
5:
  inc edx
6:
  mov eax, edx
  ret
CASE(disabled_breakpoint)
  breakpoint_ 1f, 0
  RUNS(nop; 1: nop)
  mov eax, 2  // global enable
  mov dr7, rax
  TRAPS(DB, NO_ERROR, jmp 1b)
  END
CASE(write_breakpoint)
  breakpoint_ pages + 8, DR7_WRITE(LEN4)
  mov ecx, 7
  RUNS(mov eax, [pages + 8])
  TRAPS(DB, NO_ERROR, mov [pages + 8], ecx; 1: nop)
  IS([last_rip], offset 1b)
  IS([pages + 8], 7)  // a trap: after it
  mov eax, FIXED + 1
  IS([last_dr6], rax)
  mov rax, [last_flags]
  and eax, FLAG_RF
  IS(rax, 0)
  END
CASE(write_breakpoint_edges)
  breakpoint_ pages + 8, DR7_WRITE(LEN4)
  RUNS(mov [pages + 7], al)
  RUNS(mov [pages + 12], al)
  TRAPS(DB, NO_ERROR, mov [pages + 11], al)
  TRAPS(DB, NO_ERROR, mov [pages + 1], rax)
  TRAPS(DB, NO_ERROR, mov [pages + 5], eax)
  RUNS(mov [pages + 4], eax)
  TRAPS(DB, NO_ERROR, inc dword ptr [pages + 8])
  TRAPS(DB, NO_ERROR, push [pages]; pop [pages + 8])
  END
CASE(read_write_breakpoint)
  breakpoint_ pages + 8, DR7_RW(LEN8)
  TRAPS(DB, NO_ERROR, mov al, [pages + 15]; 1: nop)
  IS([last_rip], offset 1b)
  TRAPS(DB, NO_ERROR, mov [pages + 8], al)
  TRAPS(DB, NO_ERROR, cmp [pages + 10], al)
  RUNS(mov al, [pages + 16])
  RUNS(lea rax, [pages + 8])
  END
CASE(breakpoint_on_stack)
  mov byte ptr [idt + DB * 16 + 4], IST_FREE
  breakpoint_ pages + 248, DR7_WRITE(LEN8)
  TRAPS(DB, NO_ERROR, mov esp, offset pages + 256; push 1; 1: nop)
  IS([last_rip], offset 1b)
  TRAPS(DB, NO_ERROR, mov esp, offset pages + 256; call 2f; 2: nop)
  IS([last_rip], offset 2b)
  IS([pages + 248], offset 2b)
  TRAPS(DB, NO_ERROR, mov esp, offset pages + 264; push 1; push 2; 3: push 3)
  IS([last_rip], offset 3b)
  IS([last_rsp], offset pages + 248)
  END
CASE(breakpoint_in_hot_code)  // the block has run translated before
  mov ecx, 3000
1:
  call 5f
  loop 1b
  breakpoint_ pages + 32, DR7_WRITE(LEN4)
  TRAPS(DB, NO_ERROR, call 5f)
  IS([last_rip], offset 6f)
  IS([pages + 32], 3001)
  xor eax, eax
  mov dr7, rax
  RUNS(call 5f)
  ret
5:
  inc dword ptr [pages + 32]
6:
  mov eax, [pages + 32]
  ret
CASE(breakpoint_in_string)  // after the iteration that hit
  mov esi, offset pages
  mov edi, offset pages + 64
  mov ecx, 16
  breakpoint_ pages + 68, DR7_WRITE(LEN1)
  TRAPS(DB, NO_ERROR, 1: rep movsb; nop)
  IS([last_rip], offset 1b)
  IS(rcx, 11)
  IS(rdi, offset pages + 69)
  END
CASE(faulting_access_hits_no_breakpoint)
  mov eax, PAGE(0)
  mov dr0, rax
  mov ecx, DR7_RW(LEN4)
  mov dr7, rcx
  FAULTS(PF, 0, mov ecx, [rax])
  mov ecx, FIXED
  IS([last_dr6], rcx)
  END
CASE(port_breakpoint)
  SET_BITS(cr4, CR4_DE)
  mov eax, 0x80
  mov dr0, rax
  mov eax, 1 + (2 << 16)
  mov dr7, rax
  TRAPS(DB, NO_ERROR, out 0x80, al; 1: nop)
  IS([last_rip], offset 1b)
  RUNS(out 0x81, al)
  END
CASE(general_detect)
  mov eax, 1 << 13
  mov dr7, rax
  mov ecx, 5
  FAULTS(DB, NO_ERROR, mov rcx, dr0)
  IS(rcx, 5)
  mov eax, FIXED + BD
  IS([last_dr6], rax)
  RUNS(mov rcx, dr7)  // GD is clear now
  IS(rcx, 0x400)
  END
CASE(dr4_and_dr5)
  RUNS(.byte 0x0f; .byte 0x21; .byte 0xe0)  // mov rax, dr4
  mov ecx, FIXED
  IS(rax, rcx)
  SET_BITS(cr4, CR4_DE)
  FAULTS(UD, NO_ERROR, .byte 0x0f; .byte 0x21; .byte 0xe0)
  FAULTS(UD, NO_ERROR, .byte 0x0f; .byte 0x23; .byte 0xe8)
  END
CASE(debug_register_bits)
  xor eax, eax
  mov dr6, rax
  mov rcx, dr6
  mov edx, FIXED
  IS(rcx, rdx)
  mov dr7, rax
  mov rcx, dr7
  IS(rcx, 0x400)
  bts rax, 32
  FAULTS(GP, 0, mov dr6, rax)
  FAULTS(GP, 0, mov dr7, rax)
  RUNS(mov dr3, rax)
  mov rcx, dr3
  IS(rcx, rax)
  USER_FAULTS(GP, 0, mov rax, dr0)
  USER_FAULTS(GP, 0, mov dr7, rax)
  END
CASE(int1)  // leaves DR6 alone
  TRAPS(DB, NO_ERROR, .byte 0xf1; 1: nop)
  IS([last_rip], offset 1b)
  mov eax, FIXED
  IS([last_dr6], rax)
  END
CASE(mov_ss_and_breakpoint)  // a data breakpoint hit by MOV SS waits, and is dropped or late: never between the two
  mov word ptr [pages], KDATA
  breakpoint_ pages, DR7_RW(LEN2)
  WITH_HOOK(step)
  mov qword ptr [trace], 0
  mov ss, [pages]
1:
  nop
2:
  nop
  xor eax, eax
  mov dr7, rax
  mov ecx, offset 1b
  movzx ecx, cl
  mov rax, [trace]
  movzx eax, al
  cmp eax, ecx
  sete al
  movzx eax, al
  IS(rax, 0)
  END

  .bss
  .balign 8
trace: .skip 8
dr6_seen: .skip 8
first_vector: .skip 8
