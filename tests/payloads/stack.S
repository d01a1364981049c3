// Stack accesses round a page boundary: pushes, pops, calls, ENTER and frames, with the next page missing, read-only, or
// there but elsewhere. Nothing but the faulting instruction may have happened, and RSP is as before it.
//   Source   Intel SDM vol. 2 (PUSH, POP, CALL, RET, ENTER, LEAVE); vol. 3, 6.5 (faults restart)
#include "payload.h"

#define FREE_PAGE(n) offset pages + (n) * 4096

// Runs insn (one or several) with RSP at the given address; a #PF is taken on another stack. Then the case
// goes on with the old stack. at: label of the instruction that must fault.
  .macro on_stack_ sp, insn
    mov byte ptr [idt + PF * 16 + 4], IST_FREE
    mov [case_rsp], rsp
    mov qword ptr [resume_sp], rsp
    mov qword ptr [last_vector], NOTHING
    mov qword ptr [resume], offset .Lafter\@
    mov rsp, \sp
    \insn
    mov [last_rsp], rsp
    .Lafter\@:
    mov qword ptr [resume], 0
    mov rsp, [case_rsp]
  .endm
#define ON_STACK(sp, ...) ON_STACK_(sp, __VA_ARGS__)
#define ON_STACK_(sp, ...) on_stack_ #sp, #__VA_ARGS__
// Two pages that do not lie together in physical memory.
#define TWO_PAGES \
  MAP(0, pages, P + W + U); \
  MAP(1, pages + 3 * 4096, P + W + U)
#define FIRST pages
#define SECOND pages + 3 * 4096

CASE(push_across_the_boundary)
  TWO_PAGES
  mov eax, 0x11
  mov ecx, 0x22
  ON_STACK(PAGE(1) + 16, push rax; push rcx; push 0x33; push rax; push 0x44)
  IS([last_vector], NOTHING)
  IS([last_rsp], PAGE(1) - 24)
  IS([SECOND + 8], 0x11)
  IS([SECOND], 0x22)
  IS([FIRST + 4088], 0x33)
  IS([FIRST + 4080], 0x11)
  IS([FIRST + 4072], 0x44)
  END
CASE(push_fault_in_the_middle)
  MAP(1, pages, P + W)
  mov eax, 0x11
  ON_STACK(PAGE(1) + 16, push rax; push 0x22; 1: push 0x33; push 0x44)
  IS([last_vector], PF)
  IS([last_error], PF_W)
  IS([last_cr2], PAGE(1) - 8)
  IS([last_rip], offset 1b)
  IS([last_rsp], PAGE(1))
  IS([pages + 8], 0x11)
  IS([pages], 0x22)
  END
CASE(push_read_only_in_the_middle)
  TWO_PAGES
  and dword ptr [PTE(0)], ~W
  invlpg [PAGE(0)]
  ON_STACK(PAGE(1) + 16, push 0x11; push 0x22; mov rax, [rsp - 8]; 1: push 0x33; push 0x44)
  IS([last_vector], PF)
  IS([last_error], PF_P + PF_W)
  IS([last_cr2], PAGE(1) - 8)
  IS([last_rip], offset 1b)
  IS([last_rsp], PAGE(1))
  IS([SECOND + 8], 0x11)
  IS([SECOND], 0x22)
  IS([FIRST + 4088], 0)
  END
CASE(pop_read_only)
  TWO_PAGES
  mov qword ptr [FIRST + 4088], 5
  mov qword ptr [SECOND], 6
  and dword ptr [PTE(0)], ~W
  and dword ptr [PTE(1)], ~W
  FLUSH
  ON_STACK(PAGE(1) - 8, pop rax; pop rcx)
  IS([last_vector], NOTHING)
  IS(rax, 5)
  IS(rcx, 6)
  END
CASE(pop_fault_in_the_middle)
  MAP(0, pages, P + W)
  mov qword ptr [pages + 4080], 1
  mov qword ptr [pages + 4088], 2
  mov edx, 9
  ON_STACK(PAGE(1) - 16, pop rax; pop rcx; 1: pop rdx; pop rbx)
  IS([last_vector], PF)
  IS([last_error], 0)
  IS([last_cr2], PAGE(1))
  IS([last_rip], offset 1b)
  IS([last_rsp], PAGE(1))
  IS(rax, 1)
  IS(rcx, 2)
  IS(rdx, 9)
  END
CASE(push_straddles)  // 8 bytes of which 3 lie on the first page
  TWO_PAGES
  mov rax, 0x8877665544332211
  ON_STACK(PAGE(1) + 5, push rax; pop rcx; push rax)
  IS([last_vector], NOTHING)
  IS(rcx, rax)
  mov ecx, [FIRST + 4092]
  IS(rcx, 0x33221100)
  mov rcx, [SECOND]
  mov rdx, 0x8877665544
  IS(rcx, rdx)
  END
CASE(push_straddles_and_faults)
  MAP(1, pages, P + W)
  mov rax, -1
  ON_STACK(PAGE(1) + 13, push 0; 1: push rax)
  IS([last_vector], PF)
  IS([last_error], PF_W)
  IS([last_cr2], PAGE(1) - 3)
  IS([last_rip], offset 1b)
  IS([last_rsp], PAGE(1) + 5)
  IS([pages], 0)
  END
CASE(push_straddles_into_read_only)
  TWO_PAGES
  and dword ptr [PTE(1)], ~W
  FLUSH
  mov rax, -1
  ON_STACK(PAGE(1) + 5, 1: push rax)
  IS([last_vector], PF)
  IS([last_error], PF_P + PF_W)
  IS([last_cr2], PAGE(1))
  IS([last_rsp], PAGE(1) + 5)
  IS([FIRST + 4088], 0)
  END
CASE(call_pushes_onto_missing_page)
  MAP(1, pages, P + W)
  ON_STACK(PAGE(1), 1: call 2f; 2:)
  IS([last_vector], PF)
  IS([last_error], PF_W)
  IS([last_cr2], PAGE(1) - 8)
  IS([last_rip], offset 1b)
  IS([last_rsp], PAGE(1))
  mov eax, offset 2b
  ON_STACK(PAGE(1), 1: call rax)
  IS([last_rip], offset 1b)
  mov [pages + 16], rax
  ON_STACK(PAGE(1), 1: call [rsp + 16])
  IS([last_rip], offset 1b)
  IS([last_rsp], PAGE(1))
  END
CASE(calls_across_the_boundary)
  TWO_PAGES
  ON_STACK(PAGE(1) + 8, call 1f; jmp 4f; 1: call 2f; ret; 2: call 3f; ret; 3: mov rax, [rsp + 8]; ret; 4:)
  IS([last_vector], NOTHING)
  IS([last_rsp], PAGE(1) + 8)
  IS([FIRST + 4088], rax)
  END
CASE(ret_from_missing_page)
  MAP(0, pages, P + W)
  mov qword ptr [pages + 4088], offset 1f
  ON_STACK(PAGE(1) - 8, ret; 1: ret)
  IS([last_vector], PF)
  IS([last_error], 0)
  IS([last_rip], offset 1b)
  IS([last_cr2], PAGE(1))
  IS([last_rsp], PAGE(1))
  END
CASE(ret_with_immediate)
  TWO_PAGES
  mov qword ptr [FIRST + 4080], offset 1f
  mov qword ptr [SECOND + 8], offset 2f
  ON_STACK(PAGE(1) - 16, ret 16; 1: ret 0x100; 2:)
  IS([last_vector], NOTHING)
  IS([last_rsp], PAGE(1) + 0x110)
  END
CASE(enter_and_leave)
  TWO_PAGES
  mov ebp, 0x77
  ON_STACK(PAGE(1) + 8, enter 32, 0; mov rax, rbp; mov qword ptr [rbp - 16], 3; leave; mov rcx, rbp)
  IS([last_vector], NOTHING)
  IS(rax, PAGE(1))
  IS(rcx, 0x77)
  IS([last_rsp], PAGE(1) + 8)
  IS([FIRST + 4080], 3)
  END
CASE(enter_faults_where_the_frame_ends)  // ENTER tries a write at the new RSP (vol. 2, ENTER)
  MAP(1, pages, P + W)
  mov ebp, 0x77
  ON_STACK(PAGE(1) + 16, 1: enter 64, 0)
  IS([last_vector], PF)
  IS([last_error], PF_W)
  IS([last_rip], offset 1b)
  IS([last_rsp], PAGE(1) + 16)
  IS(rbp, 0x77)
  END
CASE(enter_nested)
  TWO_PAGES
  mov ebp, PAGE(1) + 0x40
  mov qword ptr [SECOND + 0x38], 0x51
  mov qword ptr [SECOND + 0x30], 0x52
  ON_STACK(PAGE(1) + 8, enter 16, 3; mov rax, rbp)
  IS([last_vector], NOTHING)
  IS(rax, PAGE(1))
  IS([last_rsp], PAGE(1) - 40)
  IS([SECOND], PAGE(1) + 0x40)
  IS([FIRST + 4088], 0x51)
  IS([FIRST + 4080], 0x52)
  IS([FIRST + 4072], PAGE(1))
  END
CASE(leave_faults)
  mov ebp, PAGE(0)
  mov [case_rsp], rsp
  FAULTS(PF, 0, leave)
  IS([last_cr2], PAGE(0))
  IS([last_rsp], [case_rsp])
  IS(rbp, PAGE(0))
  END
CASE(pop_to_memory_faults)  // RSP has not moved, and it counts as moved in the address
  MAP(0, pages, P + W)
  mov qword ptr [pages + 256], 7
  ON_STACK(PAGE(0) + 256, pop qword ptr [rsp])
  IS([last_vector], NOTHING)
  IS([pages + 264], 7)
  ON_STACK(PAGE(0) + 256, 1: pop qword ptr [rsp + 4096])
  IS([last_vector], PF)
  IS([last_error], PF_W)
  IS([last_cr2], PAGE(1) + 264)
  IS([last_rip], offset 1b)
  IS([last_rsp], PAGE(0) + 256)
  END
CASE(push_from_memory_faults)
  MAP(0, pages, P + W)
  mov ebx, PAGE(2)
  ON_STACK(PAGE(0) + 256, push 1; 1: push [rbx])
  IS([last_vector], PF)
  IS([last_error], 0)
  IS([last_rip], offset 1b)
  IS([last_rsp], PAGE(0) + 248)
  IS([pages + 240], 0)
  mov rbx, 5
  mov [pages + 256], rbx
  ON_STACK(PAGE(0) + 256, push [rsp]; push rsp; pop rax)
  IS([pages + 248], 5)
  IS(rax, PAGE(0) + 248)
  END
CASE(pop_rsp)
  MAP(0, pages, P + W)
  mov qword ptr [pages + 8], 0x1234
  ON_STACK(PAGE(0) + 8, pop rsp)
  IS([last_vector], NOTHING)
  IS([last_rsp], 0x1234)
  END
CASE(frame_around_the_boundary)  // a function's frame: many accesses through RSP and RBP in one block
  TWO_PAGES
  mov ebx, 0x1b
  ON_STACK(PAGE(1) + 32, push rbp; mov rbp, rsp; push rbx; sub rsp, 64; mov [rbp - 24], rbx; mov [rsp + 8], rbp; mov dword ptr [rbp - 28], 5; add dword ptr [rsp + 60], 2; mov rax, [rbp - 24]; mov ecx, [rbp - 28]; mov edx, [rbp - 20]; add rsp, 64; pop rbx; pop rbp)
  IS([last_vector], NOTHING)
  IS([last_rsp], PAGE(1) + 32)
  IS(rax, 0x1b)
  IS(rcx, 5)
  IS(rdx, 0)
  IS([SECOND], 0x1b)
  mov rax, 0x0000000500000000
  IS([FIRST + 4088], rax)
  mov rax, 0x0000000200000000
  IS([SECOND + 8], rax)
  END
CASE(frame_with_a_hole)  // the third access of a block hits a page that is not there
  MAP(1, pages, P + W)
  mov ebx, 3
  ON_STACK(PAGE(1) + 64, mov [rsp], rbx; mov [rsp - 32], rbx; add ebx, 1; 1: mov [rsp - 72], rbx; mov [rsp + 8], rbx)
  IS([last_vector], PF)
  IS([last_error], PF_W)
  IS([last_cr2], PAGE(1) - 8)
  IS([last_rip], offset 1b)
  IS([last_rsp], PAGE(1) + 64)
  IS(rbx, 4)
  IS([pages + 64], 3)
  IS([pages + 32], 3)
  IS([pages + 72], 0)
  END
CASE(frame_flags_at_a_fault)  // status flags that an earlier instruction of the block made
  MAP(1, pages, P + W)
  mov eax, 0x7fffffff
  ON_STACK(PAGE(1) + 16, mov [rsp], rax; add eax, 1; 1: mov [rsp - 24], rax; seto cl; setc dl)
  IS([last_vector], PF)
  IS([last_rip], offset 1b)
  mov rax, [last_flags]
  and eax, 0x8d5
  IS(rax, 0x894)  // OF, SF, AF, PF
  END
CASE(frame_page_taken_away)  // the block has run well; then its page goes
  TWO_PAGES
  mov esi, 20
1:
  ON_STACK(PAGE(1) + 32, push rsi; mov [rsp - 40], rsi; mov rax, [rsp - 40]; pop rcx)
  IS([last_vector], NOTHING)
  IS(rax, rsi)
  dec esi
  jnz 1b
  UNMAP(0)
  mov esi, 2
  mov eax, 0x99
3:
  ON_STACK(PAGE(1) + 32, push rsi; 2: mov [rsp - 40], rsi; mov rax, [rsp - 40]; pop rcx)
  IS([last_vector], PF)
  IS([last_rip], offset 2b)
  IS([last_rsp], PAGE(1) + 24)
  IS(rax, 0x99)
  IS([SECOND + 24], rsi)
  dec esi
  jnz 3b
  END
CASE(same_block_on_two_stacks)  // once in one page, once across, again and again
  TWO_PAGES
  MAP(2, pages + 5 * 4096, P + W)
  MAP(3, pages + 7 * 4096, P + W)
  mov esi, PAGE(1)
  mov edi, 12
1:
  ON_STACK(rsi, push rdi; push 5; push rsi; mov rax, [rsp + 16]; pop rcx; pop rdx; pop rbx)
  IS([last_vector], NOTHING)
  IS([last_rsp], rsi)
  IS(rax, rdi)
  IS(rbx, rdi)
  IS(rcx, rsi)
  IS(rdx, 5)
  add esi, 4  // aligned and not, across the boundary and not
  test edi, 3
  jnz 2f
  add esi, 4096 - 20
2:
  dec edi
  jnz 1b
  END
CASE(pusha_is_gone)
  FAULTS(UD, NO_ERROR, .byte 0x60)
  FAULTS(UD, NO_ERROR, .byte 0x61)
  FAULTS(UD, NO_ERROR, .byte 0x06)
  END
CASE(push_16_bits)
  MAP(1, pages, P + W)
  mov eax, 0x1234
  ON_STACK(PAGE(1) + 4, push ax; push ax; 1: push ax)
  IS([last_vector], PF)
  IS([last_rip], offset 1b)
  IS([last_rsp], PAGE(1))
  IS([last_cr2], PAGE(1) - 2)
  mov eax, [pages]
  IS(rax, 0x12341234)
  END
CASE(user_stack_across)
  TWO_PAGES
  and dword ptr [PTE(0)], ~U
  FLUSH
  USER_TRAPS(PF, PF_P + PF_U + PF_W, mov esp, PAGE(1) + 8; push 1; 1: push 2; push 3)
  IS([last_rsp], PAGE(1))
  IS([last_cr2], PAGE(1) - 8)
  IS([SECOND], 1)
  IS([FIRST + 4088], 0)
  END
CASE(interrupt_frame_across_pages)  // of a handler's stack
  TWO_PAGES
  mov qword ptr [tss + 28 + IST_FREE * 8], PAGE(1) + 16
  mov byte ptr [idt + UD * 16 + 4], IST_FREE
  FAULTS(UD, NO_ERROR, ud2)
  IS([SECOND + 8], KDATA)
  IS([FIRST + 4080], KCODE)
  END
CASE(interrupt_stack_is_aligned)
  mov byte ptr [idt + UD * 16 + 4], 0
  sub rsp, 5
  FAULTS(UD, NO_ERROR, ud2)
  mov rax, [last_frame]
  and eax, 15
  add rsp, 5
  IS(rax, 8)  // five quadwords below a multiple of 16
  END

  .bss
  .balign 8
case_rsp: .skip 8
