// Self-modifying code, and code whose page is rewritten or remapped.
//   Source   Intel SDM vol. 3, 8.1.3 (self- and cross-modifying code), 11.6 (self-modifying code)
#include "payload.h"

// Each case runs code in `pages` through the window, often enough that it is translated, then changes it.

CASE(store_into_called_code)
  MAP(0, pages, P + W)
  constant_ pages, 1
  mov ebx, PAGE(0)
  hot_ rbx
  IS(rax, 1)
  mov byte ptr [PAGE(0) + 1], 2  // through the address it runs at
  call rbx
  IS(rax, 2)
  mov byte ptr [pages + 1], 3  // through another
  jmp 1f  // (8.1.3)
1:
  call rbx
  IS(rax, 3)
  END
CASE(store_every_time)
  MAP(0, pages, P + W)
  constant_ pages, 0
  mov ebx, PAGE(0)
  mov edi, 500
  xor esi, esi
1:
  mov [PAGE(0) + 1], edi
  call rbx
  add esi, eax
  dec edi
  jnz 1b
  IS(rsi, 500 * 501 / 2)
  END
CASE(store_ahead_in_the_same_block)
  MAP(0, pages, P + W)
  mov ebx, PAGE(0)
  // mov byte [rip + 1], 7 ; mov al, 1 ; ret: the immediate of the second is the target of the first
  mov byte ptr [pages], 0xc6
  mov byte ptr [pages + 1], 0x05
  mov dword ptr [pages + 2], 1
  mov byte ptr [pages + 6], 7
  mov dword ptr [pages + 7], 0xc301b0
  xor eax, eax
  call rbx
  movzx eax, al
  IS(rax, 7)
  mov byte ptr [pages + 8], 1
  mov ecx, 50
1:
  mov byte ptr [pages + 8], 1
  call rbx
  movzx eax, al
  IS(rax, 7)
  loop 1b
  END
CASE(string_store_over_code)
  MAP(0, pages, P + W)
  constant_ pages, 1
  constant_ "pages + 64", 0x55
  mov ebx, PAGE(0)
  hot_ rbx
  mov esi, offset pages + 64
  mov edi, PAGE(0)
  mov ecx, 6
  rep movsb
  call rbx
  IS(rax, 0x55)
  mov eax, 0xc3c3c3c3
  mov edi, PAGE(0)
  mov ecx, 4
  rep stosd
  mov eax, 9
  call rbx
  IS(rax, 9)
  END
CASE(push_over_code)
  MAP(0, pages, P + W)
  constant_ pages, 1
  mov ebx, PAGE(0)
  hot_ rbx
  mov rdx, 0x9090c300000002b8
  mov rcx, rsp
  mov esp, PAGE(0) + 8
  push rdx
  mov rsp, rcx
  call rbx
  IS(rax, 2)
  END
CASE(locked_and_wide_stores_over_code)
  MAP(0, pages, P + W)
  constant_ pages, 1
  mov ebx, PAGE(0)
  hot_ rbx
  lock add byte ptr [rbx + 1], 5
  call rbx
  IS(rax, 6)
  hot_ rbx
  mov eax, 0x000077b8
  lock xchg [rbx], eax
  call rbx
  IS(rax, 0x77)
  hot_ rbx
  movq xmm0, [constant_code]
  movdqu [rbx], xmm0
  call rbx
  IS(rax, 0x1234)
  END
CASE(far_store_into_page_of_code)  // the page has code, the bytes do not: still right
  MAP(0, pages, P + W)
  constant_ pages, 1
  mov ebx, PAGE(0)
  mov edi, 1000
1:
  mov [PAGE(0) + 2048], edi
  call rbx
  add [PAGE(0) + 2052], eax
  dec edi
  jnz 1b
  mov eax, [pages + 2052]
  IS(rax, 1000)
  END
CASE(store_across_two_pages_of_code)
  MAP(0, pages, P + W)
  MAP(1, pages + 4096, P + W)
  constant_ "pages + 4096 - 6", 1
  constant_ "pages + 4096", 2
  mov ebx, PAGE(1) - 6
  mov edx, PAGE(1)
  hot_ rbx
  hot_ rdx
  mov rax, 0x000305b8c3000000
  mov [rbx + 2], rax  // the one keeps its low byte; the other is mov eax, 0x305
  call rbx
  IS(rax, 1)
  call rdx
  IS(rax, 0x305)
  END
CASE(code_across_pages_second_rewritten)
  MAP(0, pages, P + W)
  MAP(1, pages + 3 * 4096, P + W)
  // mov eax, imm32 with two immediate bytes on the next page; ret
  mov word ptr [pages + 4093], 0x34b8
  mov byte ptr [pages + 4095], 0x12
  mov dword ptr [pages + 3 * 4096], 0xc30000
  mov ebx, PAGE(0) + 4093
  hot_ rbx
  IS(rax, 0x1234)
  mov byte ptr [PAGE(1)], 0x56
  call rbx
  IS(rax, 0x561234)
  mov byte ptr [pages + 3 * 4096 + 1], 0x78
  call rbx
  IS(rax, 0x78561234)
  mov byte ptr [PAGE(0) + 4094], 0x35
  call rbx
  IS(rax, 0x78561235)
  END
CASE(code_across_pages_second_remapped)
  MAP(0, pages, P + W)
  MAP(1, pages + 3 * 4096, P + W)
  mov word ptr [pages + 4093], 0x34b8
  mov byte ptr [pages + 4095], 0x12
  mov dword ptr [pages + 3 * 4096], 0xc30000
  mov dword ptr [pages + 5 * 4096], 0xc31999
  mov ebx, PAGE(0) + 4093
  hot_ rbx
  IS(rax, 0x1234)
  MAP(1, pages + 5 * 4096, P + W)
  hot_ rbx
  IS(rax, 0x19991234)
  MAP(1, pages + 3 * 4096, P + W)
  call rbx
  IS(rax, 0x1234)
  UNMAP(1)
  TRAPS(PF, PF_I, call rbx)
  IS([last_cr2], PAGE(1))
  IS([last_rip], rbx)
  MAP(1, pages + 5 * 4096, P + W)
  call rbx
  IS(rax, 0x19991234)
  END
CASE(code_across_pages_by_cr3)
  MAP(0, pages, P + W)
  MAP(1, pages + 3 * 4096, P + W)
  mov word ptr [pages + 4093], 0x34b8
  mov byte ptr [pages + 4095], 0x12
  mov dword ptr [pages + 3 * 4096], 0xc30000
  mov dword ptr [pages + 5 * 4096], 0xc31999
  mov ebx, PAGE(0) + 4093
  mov edi, 20
1:
  mov qword ptr [PTE(1)], offset pages + 3 * 4096 + P + W
  FLUSH
  call rbx
  IS(rax, 0x1234)
  mov qword ptr [PTE(1)], offset pages + 5 * 4096 + P + W
  FLUSH
  call rbx
  IS(rax, 0x19991234)
  dec edi
  jnz 1b
  END
CASE(code_page_remapped)
  MAP(0, pages, P + W)
  constant_ pages, 1
  constant_ "pages + 4096", 2
  mov ebx, PAGE(0)
  hot_ rbx
  IS(rax, 1)
  MAP(0, pages + 4096, P + W)
  call rbx
  IS(rax, 2)
  MAP(0, pages, P + W + G)
  call rbx
  IS(rax, 1)
  hot_ rbx
  MAP(0, pages + 4096, P + W + G)
  call rbx
  IS(rax, 2)
  END
CASE(jump_across_pages_remapped)  // a direct jump to the next page, whose page changes
  MAP(0, pages, P + W + G)
  MAP(1, pages + 4096, P + W + G)
  mov byte ptr [pages], 0xe9
  mov dword ptr [pages + 1], 4096 - 5
  constant_ "pages + 4096", 1
  constant_ "pages + 8192", 2
  mov ebx, PAGE(0)
  hot_ rbx
  IS(rax, 1)
  MAP(1, pages + 8192, P + W + G)
  call rbx
  IS(rax, 2)
  hot_ rbx
  UNMAP(1)
  TRAPS(PF, PF_I, call rbx)
  IS([last_rip], PAGE(1))
  MAP(1, pages + 4096, P + W)
  call rbx
  IS(rax, 1)
  END
CASE(same_page_at_two_addresses)  // position-dependent: each must see its own RIP
  MAP(0, pages, P + W + U)
  MAP(7, pages, P + W + U)
  // lea rax, [rip + 0]; ret
  mov dword ptr [pages], 0x00058d48
  mov dword ptr [pages + 4], 0xc3000000
  mov ebx, PAGE(0)
  mov edx, PAGE(7)
  mov edi, 50
1:
  call rbx
  IS(rax, PAGE(0) + 7)
  call rdx
  IS(rax, PAGE(7) + 7)
  dec edi
  jnz 1b
  USER_RUNS(call rbx)
  IS(rax, PAGE(0) + 7)
  USER_RUNS(call rdx)
  IS(rax, PAGE(7) + 7)
  END
CASE(code_made_read_only_then_written)
  MAP(0, pages, P)
  MAP(1, pages, P + W)
  constant_ pages, 1
  mov ebx, PAGE(0)
  hot_ rbx
  FAULTS(PF, PF_P + PF_W, mov byte ptr [rbx + 1], 2)
  mov byte ptr [PAGE(1) + 1], 2
  call rbx
  IS(rax, 2)
  END
CASE(code_made_no_execute)
  MAP(0, pages, P + W)
  constant_ pages, 1
  mov ebx, PAGE(0)
  hot_ rbx
  bts qword ptr [PTE(0)], 63
  invlpg [rbx]
  TRAPS(PF, PF_P + PF_I, call rbx)
  btr qword ptr [PTE(0)], 63
  RUNS(call rbx)
  END
CASE(user_code_made_supervisors)
  MAP(0, pages, P + W + U)
  constant_ pages, 1
  mov ebx, PAGE(0)
  USER_RUNS(mov ecx, 300; 1: call rbx; loop 1b)
  and dword ptr [PTE(0)], ~U
  invlpg [rbx]
  USER_TRAPS(PF, PF_P + PF_I + PF_U, call rbx)
  IS([last_rip], PAGE(0))
  END
CASE(dirty_set_by_store_to_code)
  MAP(0, pages, P + W)
  constant_ pages, 1
  mov ebx, PAGE(0)
  hot_ rbx
  and qword ptr [PTE(0)], ~(A + D)
  invlpg [rbx]
  mov byte ptr [rbx + 1], 4
  IS([PTE(0)], offset pages + P + W + A + D)
  call rbx
  IS(rax, 4)
  END
CASE(loop_that_rewrites_itself)  // the block that runs dies under itself
  MAP(0, pages, P + W)
  mov esi, offset template
  mov edi, offset pages
  mov ecx, offset template_end - template
  rep movsb
  mov ebx, PAGE(0)
  xor eax, eax
  mov ecx, 64
  call rbx
  IS(rax, 64 * 65 / 2)
  ret
template:  // adds 1, then 2, then 3, …
  add eax, 1
  .byte 0xfe, 0x05  // inc byte ptr [rip + …]: the immediate of ADD
  .long template + 2 - 1f
1:
  loop template
  ret
template_end:
  nop
CASE(flags_across_rewritten_target)  // a jump's target at first overwrites the flags, then reads them
  MAP(0, pages, P + W)
  // add edi, edi; jmp +2; xx xx; xor eax, eax; ret  ->  sbb eax, eax; ret
  mov dword ptr [pages], 0x02ebff01
  mov dword ptr [pages + 4], 0xc0319090
  mov byte ptr [pages + 8], 0xc3
  mov ebx, PAGE(0)
  mov ecx, 300
1:
  mov edi, 0x80000000
  call rbx
  loop 1b
  IS(rax, 0)
  mov byte ptr [pages + 6], 0x19  // sbb eax, eax
  mov edi, 0x80000000
  call rbx
  mov ecx, -1
  IS(rax, rcx)
  END

  .data
  .balign 16
constant_code: .byte 0xb8, 0x34, 0x12, 0, 0, 0xc3, 0xc3, 0xc3
