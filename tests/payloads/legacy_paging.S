// 32-bit and PAE paging in protected mode.
//   Source   Intel SDM vol. 3, 4.3 (32-bit), 4.4 (PAE), 4.6 (rights), 4.7 (error code)
#include "payload.h"

  // PAE tables: one directory for each GiB; large pages one to one, the window in `pages` 8 as a table.
  .macro pae_on nxe
    mov edi, offset pae_directories
    mov eax, P + W + U + PS
    .Lfill\@:
    mov [edi], eax
    mov dword ptr [edi + 4], 0
    add edi, 8
    add eax, 0x200000
    jnc .Lfill\@
    mov dword ptr [pae_directories + (WINDOW >> 21) * 8], offset pae_window + P + W + U
    mov edi, offset pae_window
    xor eax, eax
    mov ecx, 1024
    rep stosd
    mov dword ptr [pdptes], offset pae_directories + P
    mov dword ptr [pdptes + 8], offset pae_directories + 4096 + P
    mov dword ptr [pdptes + 16], offset pae_directories + 8192 + P
    mov dword ptr [pdptes + 24], offset pae_directories + 12288 + P
    mov dword ptr [pdptes + 4], 0
    mov dword ptr [pdptes + 12], 0
    mov dword ptr [pdptes + 20], 0
    mov dword ptr [pdptes + 28], 0
    .if \nxe
      WRMSR(0xc0000080, 0x800, 0)
    .endif
    mov eax, CR4_PSE + CR4_PAE + CR4_OSFXSR + CR4_OSXMMEXCPT
    mov cr4, eax
    mov eax, offset pdptes
    mov cr3, eax
    mov eax, 0x80010033
    mov cr0, eax
  .endm
  .macro pae_map n, physical, flags, high=0
    mov dword ptr [pae_window + (\n) * 8], offset \physical + (\flags)
    mov dword ptr [pae_window + (\n) * 8 + 4], \high
    invlpg [WINDOW + (\n) * 4096]
  .endm

CASE(not_present_32)
  paging_on_32
  mov ebx, PAGE(0) + 4
  FAULTS(PF, 0, mov al, [ebx])
  IS([last_cr2], PAGE(0) + 4)
  FAULTS(PF, PF_W, mov [ebx], al)
  USER_FAULTS(PF, PF_U, mov al, [ebx])
  TRAPS(PF, 0, call ebx)  // no I/D flag without NXE and SMEP
  IS([last_rip], PAGE(0) + 4)
  END
CASE(rights_32)
  paging_on_32
  MAP(0, pages, P + W)
  MAP(1, pages, P + U)
  mov ebx, PAGE(0)
  USER_FAULTS(PF, PF_P + PF_U, mov al, [ebx])
  USER_FAULTS(PF, PF_P + PF_U + PF_W, mov [ebx], al)
  RUNS(mov [ebx], al)
  mov ebx, PAGE(1)
  USER_RUNS(mov al, [ebx])
  USER_FAULTS(PF, PF_P + PF_U + PF_W, mov [ebx], al)
  FAULTS(PF, PF_P + PF_W, mov [ebx], al)
  CLEAR_BITS(cr0, CR0_WP)
  RUNS(mov [ebx], al)
  END
CASE(accessed_dirty_32)
  paging_on_32
  MAP(0, pages, P + W)
  mov ebx, PAGE(0)
  mov al, [ebx]
  IS([PTE(0)], offset pages + P + W + A)
  mov [ebx], al
  IS([PTE(0)], offset pages + P + W + A + D)
  mov eax, [page_directory + (WINDOW >> 22) * 4]
  and eax, A + D
  IS(eax, A)
  END
CASE(large_pages_32)
  paging_on_32
  mov dword ptr [page_directory + 0x201 * 4], P + W + PS
  mov dword ptr [pages + 4], 0x1234
  mov ebx, 0x201 << 22
  mov eax, [ebx + pages + 4]
  IS(eax, 0x1234)
  mov eax, [page_directory + 0x201 * 4]
  IS(eax, P + W + PS + A)
  mov [ebx + pages + 4], eax
  mov eax, [page_directory + 0x201 * 4]
  IS(eax, P + W + PS + A + D)
  END
CASE(large_page_reserved_bit_32)  // bit 21
  paging_on_32
  mov dword ptr [page_directory + 0x201 * 4], P + W + PS + 0x200000
  mov ebx, 0x201 << 22
  FAULTS(PF, PF_P + PF_R, mov al, [ebx])
  END
CASE(page_size_bit_without_pse)  // ignored: the entry leads to a table
  paging_on_32
  mov dword ptr [pages], offset pages + 4096 + P + W
  mov dword ptr [pages + 4096 + 8], 0x77
  mov dword ptr [page_directory + 0x201 * 4], offset pages + P + W + PS
  // The identity map needs PSE: go through tables for the first 4 MiB.
  mov edi, offset pages + 8 * 4096
  mov eax, P + W
  mov ecx, 1024
1:
  stosd
  add eax, 4096
  loop 1b
  mov dword ptr [page_directory], offset pages + 8 * 4096 + P + W
  mov eax, cr3
  mov cr3, eax
  CLEAR_BITS(cr4, CR4_PSE)
  mov ebx, 0x201 << 22
  mov eax, [ebx + 8]
  IS(eax, 0x77)
  SET_BITS(cr4, CR4_PSE)
  END
CASE(remap_32)
  paging_on_32
  mov dword ptr [pages], 1
  mov dword ptr [pages + 4096], 2
  MAP(0, pages, P + W)
  mov ebx, PAGE(0)
  mov eax, [ebx]
  IS(eax, 1)
  MAP(0, pages + 4096, P + W)
  mov eax, [ebx]
  IS(eax, 2)
  mov dword ptr [PTE(0)], offset pages + P + W
  FLUSH
  mov eax, [ebx]
  IS(eax, 1)
  END
CASE(paging_off_and_on)
  paging_on_32
  MAP(0, pages, P + W)
  mov dword ptr [PAGE(0)], 5
  CLEAR_BITS(cr0, CR0_PG)
  IS([pages], 5)
  mov dword ptr [PTE(0)], offset pages + 4096 + P + W
  SET_BITS(cr0, CR0_PG)
  IS([PAGE(0)], 0)
  END
CASE(linear_address_wraps)  // 4 GiB and on to 0
  paging_on_32
  mov dword ptr [page_directory], P + W + U + PS
  mov dword ptr [page_directory + 1023 * 4], offset pt_window + P + W
  mov dword ptr [pt_window + 1023 * 4], offset pages + P + W
  mov byte ptr [pages + 4095], 0x11
  mov al, ds:[0]
  push eax
  mov byte ptr ds:[0], 0x22
  mov ebx, -1
  mov ax, [ebx]
  movzx eax, ax
  pop ecx
  mov ds:[0], cl
  IS(eax, 0x2211)
  mov dword ptr [pt_window + 1023 * 4], 0
  END

CASE(pae_not_present)
  pae_on 1
  mov ebx, PAGE(0)
  FAULTS(PF, 0, mov al, [ebx])
  FAULTS(PF, PF_W, mov [ebx], al)
  TRAPS(PF, PF_I, call ebx)
  USER_FAULTS(PF, PF_U, mov al, [ebx])
  END
CASE(pae_rights)
  pae_on 1
  pae_map 0, pages, P+U
  mov ebx, PAGE(0)
  USER_RUNS(mov al, [ebx])
  USER_FAULTS(PF, PF_P + PF_U + PF_W, mov [ebx], al)
  FAULTS(PF, PF_P + PF_W, mov [ebx], al)
  IS([pae_window], offset pages + P + U + A)
  END
CASE(pae_no_execute)
  pae_on 1
  mov byte ptr [pages], 0xc3
  pae_map 0, pages, P+W+U
  mov ebx, PAGE(0)
  RUNS(call ebx)
  pae_map 0, pages, P+W+U, 0x80000000
  TRAPS(PF, PF_P + PF_I, call ebx)
  RUNS(mov [ebx], al)
  END
CASE(pae_no_execute_needs_nxe)
  pae_on 0
  pae_map 0, pages, P+W+U, 0x80000000
  mov ebx, PAGE(0)
  FAULTS(PF, PF_P + PF_R, mov al, [ebx])
  END
CASE(pae_reserved)
  pae_on 1
  pae_map 0, pages, P+W+U, 0x40000000
  mov ebx, PAGE(0)
  FAULTS(PF, PF_P + PF_R, mov al, [ebx])
  mov dword ptr [pae_directories + (0x80000000 >> 21) * 8], 0x2000 + P + W + PS
  mov ebx, 0x80000000
  FAULTS(PF, PF_P + PF_R, mov al, [ebx])
  END
CASE(pae_pdpte_not_present)
  pae_on 1
  mov dword ptr [pdptes + 16], 0
  mov ebx, 0x80000000
  RUNS(mov al, [ebx])  // the registers have the old one (4.4.1)
  FLUSH
  FAULTS(PF, 0, mov al, [ebx])
  END
CASE(pae_pdpte_reserved)  // #GP at MOV to CR3, and CR3 keeps its value
  pae_on 1
  mov dword ptr [pages], offset pae_directories + P + W  // bit 1 is reserved in a PDPTE
  mov eax, offset pages
  FAULTS(GP, 0, mov cr3, eax)
  mov eax, cr3
  IS(eax, offset pdptes)
  mov dword ptr [pdptes + 24], offset pae_directories + 12288 + P + U
  mov eax, cr4
  xor eax, CR4_PSE + CR4_PGE
  FAULTS(GP, 0, mov cr4, eax)
  END
CASE(pae_accessed_dirty)
  pae_on 1
  pae_map 0, pages, P+W
  mov al, [PAGE(0)]
  IS([pae_window], offset pages + P + W + A)
  mov [PAGE(0)], al
  IS([pae_window], offset pages + P + W + A + D)
  mov eax, [pdptes]
  IS(eax, offset pae_directories + P)  // PDPTEs have neither
  END
CASE(pae_cr3_is_32_byte_aligned)
  pae_on 1
  mov eax, offset pdptes_low
  mov ecx, 8
  mov esi, offset pdptes
  mov edi, eax
  rep movsd
  mov cr3, eax
  mov ebx, PAGE(0)
  FAULTS(PF, 0, mov al, [ebx])
  mov ecx, cr3
  IS(ecx, eax)
  END
CASE(smep_smap_32)
  NEEDS_SMEP
  NEEDS_SMAP
  // The identity map becomes the supervisor's; the window stays the user's.
  mov edi, offset page_directory
  mov ecx, 1024
1:
  and dword ptr [edi], ~U
  add edi, 4
  loop 1b
  or dword ptr [page_directory + (WINDOW >> 22) * 4], U
  paging_on_32
  mov byte ptr [pages], 0xc3
  MAP(0, pages, P + W + U)
  mov ebx, PAGE(0)
  SET_BITS(cr4, CR4_SMEP)
  TRAPS(PF, PF_P + PF_I, call ebx)
  RUNS(mov al, [ebx])
  SET_BITS(cr4, CR4_SMAP)
  FAULTS(PF, PF_P, mov al, [ebx])
  stac
  RUNS(mov al, [ebx])
  clac
  FAULTS(PF, PF_P + PF_W, mov [ebx], al)
  mov eax, CR4_PSE + CR4_OSFXSR + CR4_OSXMMEXCPT
  mov cr4, eax
  END
CASE(pcide_outside_long_mode)
  NEEDS_PCID
  mov eax, cr4
  or eax, CR4_PCIDE
  FAULTS(GP, 0, mov cr4, eax)
  END

  .bss
  .balign 4096
pae_directories: .skip 4 * 4096
pae_window: .skip 4096
pdptes: .skip 32
pdptes_low: .skip 32
