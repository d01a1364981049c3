// Code of protected mode: jumps between pages that kernels map globally, strings one element at a time, flags on the stack.
//   Source   Intel SDM vol. 2 (MOVS, STOS, PUSHF), vol. 3, 4.10.2.4 (global pages), 4.10.4.1 (INVLPG)
#include "payload.h"

// The window once more, where kernels live.
#define UPPER 0xc0000000
#define CF 1
#define ZF 0x40

  .macro upper_paging_on
    mov dword ptr [page_directory + (UPPER >> 22) * 4], offset pt_window + P + W
    paging_on_32 CR4_PGE
  .endm
  .macro upper_map n, physical
    mov dword ptr [pt_window + (\n) * 4], offset \physical + P + W + G
    invlpg [UPPER + (\n) * 4096]
  .endm
  // jmp from `linear`, whose bytes are at `where`, to another address
  .macro jump_ where, linear, target
    .equ .Ldistance\@, \target - (\linear + 5)
    mov byte ptr [\where], 0xe9
    mov dword ptr [\where + 1], offset .Ldistance\@
  .endm

  // The first page jumps to the second, which gives 1; what is to take its place gives 2.
  .macro jump_to_next_page
    upper_paging_on
    jump_ pages, UPPER, UPPER+4096
    constant_ "pages + 4096", 1
    constant_ "pages + 8192", 2
    upper_map 0, pages
    upper_map 1, "pages + 4096"
    mov ebx, UPPER
    hot_ ebx
  .endm
CASE(target_of_jump_remapped)
  jump_to_next_page
  IS(eax, 1)
  upper_map 1, "pages + 8192"
  call ebx
  IS(eax, 2)
  hot_ ebx
  IS(eax, 2)
  END
CASE(target_of_jump_unmapped)
  jump_to_next_page
  mov dword ptr [pt_window + 4], 0
  invlpg [UPPER + 4096]
  TRAPS(PF, 0, call ebx)
  IS([last_rip], UPPER + 4096)
  END
CASE(target_of_jump_flushed_by_pge)  // a change of CR4.PGE takes global pages with it
  jump_to_next_page
  mov dword ptr [pt_window + 4], offset pages + 8192 + P + W + G
  CLEAR_BITS(cr4, CR4_PGE)
  SET_BITS(cr4, CR4_PGE)
  call ebx
  IS(eax, 2)
  END
CASE(target_of_jump_in_large_page)  // INVLPG of an address in the other half of its 4 MiB
  upper_paging_on
  constant_ "pages + 4096", 1
  mov eax, offset pages + 0x4000000 + 4096
  mov byte ptr [eax], 0xb8
  mov dword ptr [eax + 1], 2
  mov byte ptr [eax + 5], 0xc3
  mov byte ptr [pages], 0xe9
  mov dword ptr [pages + 1], offset pages + 0x400000 + 4096 - 5
  upper_map 0, pages
  mov dword ptr [page_directory + (UPPER >> 22) * 4 + 4], P + W + G + PS
  invlpg [UPPER + 0x400000]
  mov ebx, UPPER
  hot_ ebx
  IS(eax, 1)
  mov dword ptr [page_directory + (UPPER >> 22) * 4 + 4], 0x4000000 + P + W + G + PS
  invlpg [UPPER + 0x700000]
  call ebx
  IS(eax, 2)
  END
CASE(data_in_large_page)
  upper_paging_on
  mov dword ptr [pages], 1
  mov dword ptr [pages + 0x4000000], 2
  mov dword ptr [page_directory + (UPPER >> 22) * 4 + 4], P + W + G + PS
  invlpg [UPPER + 0x400000]
  mov eax, [UPPER + 0x400000 + pages]
  IS(eax, 1)
  mov dword ptr [page_directory + (UPPER >> 22) * 4 + 4], 0x4000000 + P + W + G + PS
  invlpg [UPPER + 0x700000]
  mov eax, [UPPER + 0x400000 + pages]
  IS(eax, 2)
  END

  // `count` times the instruction
  .macro times_ count, instruction:vararg
    mov ecx, \count
    .Ltimes\@:
    \instruction
    loop .Ltimes\@
  .endm
CASE(single_moves)
  mov edi, offset pages
  mov eax, 0x01020304
  times_ 300, stosd
  IS(edi, offset pages + 1200)
  mov esi, offset pages + 1
  mov edi, offset pages + 4096 - 6  // across the end of a page
  times_ 40, movsb
  times_ 40, movsw
  times_ 40, movsd
  IS(esi, offset pages + 1 + 280)
  IS(edi, offset pages + 4096 - 6 + 280)
  mov eax, [pages + 4096 - 6]
  IS(eax, 0x04010203)
  mov eax, [pages + 4096 - 6 + 276]
  IS(eax, 0x04010203)
  mov eax, [pages + 4096 - 10]
  IS(eax, 0)
  mov eax, [pages + 4096 - 6 + 280]
  IS(eax, 0)
  END
CASE(single_moves_overlapping)
  mov dword ptr [pages], 0x44332211
  mov esi, offset pages
  mov edi, offset pages + 2
  times_ 20, movsb
  mov eax, [pages + 18]
  IS(eax, 0x22112211)
  END
CASE(single_moves_downwards)
  mov dword ptr [pages + 400], 0x44332211
  mov esi, offset pages + 400
  mov edi, offset pages + 396
  std
  times_ 50, movsd
  cld
  IS(esi, offset pages + 200)
  mov eax, [pages + 200]
  IS(eax, 0x44332211)
  mov edi, offset pages + 100
  mov al, 5
  std
  times_ 50, stosb
  cld
  IS(edi, offset pages + 50)
  END
CASE(single_stores)
  mov edi, offset pages
  mov eax, 0x8899aabb
  times_ 20, stosb
  times_ 20, stosw
  IS(edi, offset pages + 60)
  mov eax, [pages + 18]
  IS(eax, 0xaabbbbbb)
  mov eax, [pages + 58]
  IS(eax, 0xaabb)
  END
CASE(single_move_faults)  // the registers stay
  upper_paging_on
  upper_map 0, pages
  mov byte ptr [pages + 4095], 7
  mov esi, UPPER + 4090
  mov edi, offset pages + 8192
  TRAPS(PF, 0, times_ 20 movsb)
  IS(esi, UPPER + 4096)
  IS(edi, offset pages + 8192 + 6)
  IS([last_cr2], UPPER + 4096)
  movzx eax, byte ptr [pages + 8192 + 5]
  IS(eax, 7)
  mov edi, UPPER + 4090
  mov esi, offset pages
  TRAPS(PF, PF_W, times_ 20 movsb)
  IS(edi, UPPER + 4096)
  IS(esi, offset pages + 6)
  END
CASE(repeated_moves_faulting)
  upper_paging_on
  upper_map 0, pages
  mov esi, UPPER + 4000
  mov edi, offset pages + 8192
  mov ecx, 50
  FAULTS(PF, 0, rep movsd)
  IS(ecx, 26)
  IS(esi, UPPER + 4096)
  IS(edi, offset pages + 8192 + 96)
  mov edi, UPPER + 4000
  mov ecx, 50
  mov eax, 0x55
  FAULTS(PF, PF_W, rep stosd)
  IS(ecx, 26)
  mov eax, [pages + 4092]
  IS(eax, 0x55)
  END
CASE(flags_pushed)
  mov ecx, 300
1:
  xor eax, eax
  stc
  pushfd
  pop eax
  mov edx, eax
  and edx, CF + ZF + 0x2
  sub eax, eax
  pushfd
  pop eax
  and eax, CF + ZF
  loop 1b
  IS(edx, CF + ZF + 2)
  IS(eax, ZF)
  END
CASE(time_read)
  rdtsc
  mov esi, eax
  mov edi, edx
  mov ecx, 300
1:
  rdtsc
  cmp edx, edi
  jne 2f
  cmp eax, esi
2:
  jb 3f
  mov esi, eax
  mov edi, edx
  loop 1b
3:
  IS(ecx, 0)
  END
