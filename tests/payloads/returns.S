// RET to where the last CALL came from, and to everywhere else: an engine that predicts returns must notice whatever
// makes the prediction wrong, such as a changed stack, a changed caller, or another page where the caller was.
//   Source   Intel SDM vol. 2 (CALL, RET); vol. 3, 4.10.4 (invalidation), 8.1.3 (self-modifying code)
#include "payload.h"

#define INT_GATE 0x40

  // Two callers that differ in what they leave in EAX: call rsi; mov eax, N; ret
  .macro caller_ at, number
    mov dword ptr [\at], 0x00b8d6ff + (\number) * 0x1000000
    mov dword ptr [\at + 4], 0xc3000000
  .endm

CASE(deep_recursion)  // 64 pages of stack that are one page: every level pushes the same
  xor edi, edi
1:
  lea rax, [pages + P + W]
  mov [pt_window + rdi * 8], rax
  inc edi
  cmp edi, 64
  jb 1b
  FLUSH
  mov [case_rsp], rsp
  mov rsp, PAGE(64)
  mov ecx, 20000
  xor edx, edx
  call down
down:
  dec ecx
  jz up
  call down
up:
  inc edx
  cmp edx, 20000
  je 1f
  ret
1:
  mov rbx, rsp
  mov rsp, [case_rsp]
  IS(rbx, PAGE(64) - 8)
  END
CASE(return_to_a_changed_address)  // as retpolines do
  mov ecx, 300
  xor eax, eax
1:
  call 3f
2:
  add eax, 0x10000
  jmp 2b
3:
  mov qword ptr [rsp], offset 4f
  ret
4:
  inc eax
  dec ecx
  jnz 1b
  IS(rax, 300)
  END
CASE(return_past_a_caller)  // as longjmp does
  mov ecx, 300
  xor eax, eax
1:
  call 3f
2:
  inc eax
  dec ecx
  jnz 1b
  IS(rax, 300)
  ret
3:
  call 4f
  add eax, 0x10000
  ret
4:
  call 5f
  add eax, 0x10000
  ret
5:
  test ecx, 1
  jnz 6f
  add rsp, 16
  ret
6:
  add rsp, 8
  mov qword ptr [rsp], offset 7f
  ret
7:
  ret
CASE(return_twice_from_one_call)
  mov ecx, 300
  xor eax, eax
1:
  xor edx, edx
  call 3f
2:
  inc eax
  inc edx
  cmp edx, 3
  jae 4f
  ret
3:
  pop rbx
  push rbx
  push rbx
  push rbx
  ret
4:
  dec ecx
  jnz 1b
  IS(rax, 900)
  END
CASE(two_stacks)  // coroutines: each leaves its CALL's frame to the other
  mov [case_rsp], rsp
  mov rbp, offset pages + 4096 - 8
  mov qword ptr [rbp], offset 5f
  mov ecx, 300
  xor eax, eax
1:
  call 4f
  inc eax
  dec ecx
  jnz 1b
  IS(rax, 300 + 300 * 256)
  ret
4:  // to the other one
  xchg rsp, rbp
  ret
5:
  add eax, 256
  call 4b
  jmp 5b
CASE(caller_changes_meanwhile)  // the instruction behind the CALL, in its own page and from another
  MAP(0, pages, P + W)
  MAP(1, pages, P + W)
  caller_ pages, 0
  mov ebx, PAGE(0)
  mov ecx, 200
  xor edx, edx
1:
  mov esi, offset 3f
  call rbx
  add edx, eax
  mov esi, offset 4f
  call rbx
  add edx, eax
  dec ecx
  jnz 1b
  IS(rdx, 200 * 201)
  ret
3:
  mov byte ptr [PAGE(1) + 3], cl
  ret
4:
  mov byte ptr [PAGE(0) + 3], cl
  ret
  .macro two_callers_
    caller_ pages, 1
    caller_ pages+4096, 2
    mov ebx, PAGE(0)
    mov ecx, 200
    xor edx, edx
  .endm
CASE(caller_is_mapped_elsewhere)
  MAP(0, pages, P + W)
  mov esi, offset 3f
  two_callers_
1:
  call rbx
  add edx, eax
  dec ecx
  jnz 1b
  IS(rdx, 300)
  ret
3:
  mov rax, [PTE(0)]
  mov edi, offset pages
  btc rax, 12
  mov [PTE(0)], rax
  invlpg [rbx]
  ret
CASE(global_caller_is_mapped_elsewhere)
  SET_BITS(cr4, CR4_PGE)
  MAP(0, pages, P + W + G)
  mov esi, offset 3f
  two_callers_
1:
  call rbx
  add edx, eax
  dec ecx
  jnz 1b
  IS(rdx, 300)
  ret
3:
  mov rax, [PTE(0)]
  btc rax, 12
  mov [PTE(0)], rax
  invlpg [rbx]
  ret
CASE(caller_is_in_another_address_space)
  MAP(0, pages, P + W)
  mov esi, offset 3f
  two_callers_
1:
  call rbx
  add edx, eax
  dec ecx
  jnz 1b
  IS(rdx, 300)
  ret
3:
  mov rax, [PTE(0)]
  btc rax, 12
  mov [PTE(0)], rax
  FLUSH
  ret
CASE(users_caller_is_mapped_elsewhere)
  MAP(0, pages, P + W + U)
  WITH_HOOK(4f)
  mov byte ptr [idt + INT_GATE * 16 + 5], 0xee
  mov esi, offset 3f
  two_callers_
  USER_RUNS(1: call rbx; add edx, eax; dec ecx; jnz 1b; mov qword ptr [hook], 0)
  IS(rdx, 300)
  ret
3:
  int INT_GATE
  ret
4:
  mov rax, [PTE(0)]
  btc rax, 12
  mov [PTE(0)], rax
  test ecx, 2
  jz 5f
  invlpg [rbx]
  iretq
5:
  FLUSH
  iretq
CASE(caller_vanishes)
  MAP(0, pages, P + W)
  caller_ pages, 1
  mov ebx, PAGE(0)
  mov esi, offset 3f
  mov ecx, 300
1:
  call rbx
  dec ecx
  jnz 1b
  TRAPS(PF, PF_I, mov esi, offset 4f; call rbx)
  IS([last_rip], PAGE(0) + 2)
  IS([last_cr2], PAGE(0) + 2)
  ret
3:
  ret
4:
  mov qword ptr [PTE(0)], 0
  invlpg [rbx]
  ret
CASE(far_from_each_other)  // calls through many pages and back
  xor edi, edi
1:
  lea rax, [pages + P + W]
  mov [pt_window + rdi * 8], rax
  inc edi
  cmp edi, 64
  jb 1b
  FLUSH
  mov rsi, offset template
  mov edi, offset pages
  mov ecx, offset template_end - template
  rep movsb
  mov ebx, PAGE(0)
  mov ecx, 50
1:
  xor edx, edx
  xor eax, eax
  call rbx
  IS(rax, 64)
  IS(rdx, 64)
  dec ecx
  jnz 1b
  ret
template:  // each page calls the next
  inc edx
  cmp edx, 64
  jae 1f
  lea rdi, [rip + template]
  add rdi, 4096
  call rdi
1:
  inc eax
  ret
template_end:
  nop
CASE(branch_to_the_least_negative_address)  // not canonical, and equal to itself negated
  mov [case_rsp], rsp
  mov rax, 0x8000000000000000
  mov ecx, 100
1:
  push rcx
  TRAPS(GP, 0, jmp rax)
  TRAPS(GP, 0, push rax; ret)
  mov rsp, [case_rsp]
  lea rsp, [rsp - 8]
  pop rcx
  dec ecx
  jnz 1b
  ret
CASE(return_to_a_noncanonical_address)
  mov [case_rsp], rsp
  mov rax, 0x800000000000
  mov ecx, 100
1:
  call 2f
  dec ecx
  jnz 1b
  TRAPS(GP, 0, push rax; 1: ret)
  mov rsp, [case_rsp]
  IS([last_rip], offset 1b)
  ret
2:
  ret

  .bss
case_rsp: .skip 8
