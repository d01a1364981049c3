// Paging in IA-32e mode.
//   Source   Intel SDM vol. 3, 4.5 (4-level), 4.6 (rights), 4.7 (error code), 4.8 (A and D), 4.10 (invalidation)
#include "payload.h"

CASE(not_present_read)
  mov ebx, PAGE(0) + 0x123
  FAULTS(PF, 0, mov al, [rbx])
  IS([last_cr2], PAGE(0) + 0x123)
  END
CASE(not_present_write)
  mov ebx, PAGE(0)
  FAULTS(PF, PF_W, mov [rbx], al)
  IS([last_cr2], PAGE(0))
  END
CASE(not_present_user)
  mov ebx, PAGE(0)
  USER_FAULTS(PF, PF_U, mov al, [rbx])
  USER_FAULTS(PF, PF_U + PF_W, mov [rbx], al)
  END
CASE(not_present_read_modify_write)  // a write, whatever the first access is
  mov ebx, PAGE(0)
  FAULTS(PF, PF_W, add [rbx], eax)
  FAULTS(PF, PF_W, lock inc dword ptr [rbx])
  FAULTS(PF, PF_W, xchg [rbx], eax)
  FAULTS(PF, 0, cmp [rbx], eax)
  FAULTS(PF, 0, test [rbx], eax)
  END
CASE(not_present_fetch)
  mov ebx, PAGE(3) + 5
  TRAPS(PF, PF_I, call rbx)
  IS([last_rip], PAGE(3) + 5)
  IS([last_cr2], PAGE(3) + 5)
  END
CASE(upper_levels_not_present)
  mov rbx, 0x80000000  // PDPT entry 2
  FAULTS(PF, 0, mov al, [rbx])
  mov rbx, 0x8000000000  // PML4 entry 1
  FAULTS(PF, PF_W, mov [rbx], al)
  IS([last_cr2], rbx)
  mov ebx, 0x20200000  // page directory entry 257
  FAULTS(PF, 0, mov al, [rbx])
  END
CASE(read_only_supervisor)
  MAP(0, pages, P)
  mov ebx, PAGE(0)
  RUNS(mov al, [rbx])
  FAULTS(PF, PF_P + PF_W, mov [rbx], al)
  FAULTS(PF, PF_P + PF_W, or dword ptr [rbx], 1)
  IS([pages], 0)
  END
CASE(read_only_without_wp)
  MAP(0, pages, P)
  CLEAR_BITS(cr0, CR0_WP)
  mov ebx, PAGE(0)
  RUNS(mov byte ptr [rbx], 5)
  IS([pages], 5)
  SET_BITS(cr0, CR0_WP)
  FAULTS(PF, PF_P + PF_W, mov [rbx], al)
  END
CASE(read_only_user_without_wp)
  MAP(0, pages, P + U)
  CLEAR_BITS(cr0, CR0_WP)
  mov ebx, PAGE(0)
  USER_RUNS(mov al, [rbx])
  USER_FAULTS(PF, PF_P + PF_W + PF_U, mov [rbx], al)
  RUNS(mov [rbx], al)
  USER_FAULTS(PF, PF_P + PF_W + PF_U, mov [rbx], al)
  END
CASE(supervisor_page_by_user)
  MAP(0, pages, P + W)
  mov ebx, PAGE(0)
  USER_FAULTS(PF, PF_P + PF_U, mov al, [rbx])
  USER_FAULTS(PF, PF_P + PF_U + PF_W, mov [rbx], al)
  RUNS(mov [rbx], al)
  USER_FAULTS(PF, PF_P + PF_U, mov al, [rbx])
  END
CASE(rights_are_those_of_all_levels)
  MAP(0, pages, P + W + U)
  mov ebx, PAGE(0)
  USER_RUNS(mov [rbx], al)
  and qword ptr [pd_low + 256 * 8], ~W
  FLUSH
  USER_FAULTS(PF, PF_P + PF_W + PF_U, mov [rbx], al)
  FAULTS(PF, PF_P + PF_W, mov [rbx], al)
  xor dword ptr [pd_low + 256 * 8], W + U
  FLUSH
  USER_FAULTS(PF, PF_P + PF_U, mov al, [rbx])
  RUNS(mov [rbx], al)
  END
CASE(no_execute)
  mov byte ptr [pages], 0xc3
  MAP(0, pages, P + W + U)
  mov ebx, PAGE(0)
  RUNS(call rbx)
  bts qword ptr [PTE(0)], 63
  invlpg [rbx]
  TRAPS(PF, PF_P + PF_I, call rbx)
  IS([last_cr2], PAGE(0))
  IS([last_rip], PAGE(0))
  RUNS(mov [rbx], al)
  USER_TRAPS(PF, PF_P + PF_I + PF_U, call rbx)
  END
CASE(no_execute_upper_level)
  mov byte ptr [pages], 0xc3
  MAP(0, pages, P + W + U)
  bts qword ptr [pd_low + 256 * 8], 63
  FLUSH
  mov ebx, PAGE(0)
  RUNS(mov al, [rbx])
  TRAPS(PF, PF_P + PF_I, call rbx)
  END
CASE(no_execute_bit_reserved_without_nxe)
  MAP(0, pages, P + W + U)
  bts qword ptr [PTE(0)], 63
  WRMSR(0xc0000080, 0x101, 0)
  FLUSH
  mov ebx, PAGE(0)
  FAULTS(PF, PF_P + PF_R, mov al, [rbx])
  FAULTS(PF, PF_P + PF_R + PF_W, mov [rbx], al)
  TRAPS(PF, PF_P + PF_R, call rbx)  // nothing tells fetches apart now (4.7, I/D)
  END
CASE(fetch_flag_needs_nxe_or_smep)
  WRMSR(0xc0000080, 0x101, 0)
  mov ebx, PAGE(0)
  TRAPS(PF, 0, call rbx)
  USER_TRAPS(PF, PF_U, call rbx)
  END
CASE(reserved_bit_in_pte)
  MAP(0, pages, P + W + U)
  bts qword ptr [PTE(0)], 51
  mov ebx, PAGE(0)
  FAULTS(PF, PF_P + PF_R, mov al, [rbx])
  FAULTS(PF, PF_P + PF_R + PF_W, mov [rbx], al)
  USER_FAULTS(PF, PF_P + PF_R + PF_U, mov al, [rbx])
  TRAPS(PF, PF_P + PF_R + PF_I, call rbx)
  END
CASE(reserved_bit_beats_rights)
  MAP(0, pages, P)
  bts qword ptr [PTE(0)], 51
  mov ebx, PAGE(0)
  USER_FAULTS(PF, PF_P + PF_R + PF_U + PF_W, mov [rbx], al)
  END
CASE(reserved_bit_not_present)  // a clear P flag makes the rest free
  mov qword ptr [PTE(0)], -2
  mov ebx, PAGE(0)
  FAULTS(PF, 0, mov al, [rbx])
  END
CASE(reserved_bits_of_upper_levels)
  MAP(0, pages, P + W + U)
  mov ebx, PAGE(0)
  bts qword ptr [pd_low + 256 * 8], 50
  FLUSH
  FAULTS(PF, PF_P + PF_R, mov al, [rbx])
  btr qword ptr [pd_low + 256 * 8], 50
  FLUSH
  RUNS(mov al, [rbx])
  mov rbx, 0x8000000000
  mov qword ptr [pml4 + 8], offset pdpt + P + W + PS
  FAULTS(PF, PF_P + PF_R, mov al, [rbx])
  mov qword ptr [pml4 + 8], 0
  END
CASE(large_page_reserved_bits)
  mov ebx, 0x20200000
  mov qword ptr [pd_low + 257 * 8], 0x200000 + P + W + U + PS + 0x2000
  FAULTS(PF, PF_P + PF_R, mov al, [rbx])
  mov qword ptr [pd_low + 257 * 8], 0x100000 + P + W + U + PS
  FAULTS(PF, PF_P + PF_R, mov al, [rbx])
  mov qword ptr [pd_low + 257 * 8], 0x200000 + P + W + U + PS + 0x1000  // PAT
  RUNS(mov al, [rbx])
  END
CASE(large_page)
  mov ebx, 0x20200000 + 0x100000
  mov qword ptr [pd_low + 257 * 8], P + W + U + PS  // its second half is the image
  mov dword ptr [pages + 8], 0x1234
  mov eax, [rbx + pages - 0x100000 + 8]
  IS(rax, 0x1234)
  and qword ptr [pd_low + 257 * 8], ~W
  invlpg [rbx]  // any address of the page does
  FAULTS(PF, PF_P + PF_W, mov [rbx + pages - 0x100000 + 8], eax)
  END
CASE(large_page_invlpg_elsewhere)
  mov qword ptr [pd_low + 257 * 8], P + W + U + PS
  mov ebx, 0x20200000
  mov al, [rbx + 0x101000]
  mov al, [rbx + 0x1ff000]
  mov qword ptr [pd_low + 257 * 8], 0
  invlpg [rbx + 0x3000]
  FAULTS(PF, 0, mov al, [rbx + 0x101000])
  FAULTS(PF, 0, mov al, [rbx + 0x1ff000])
  END
CASE(huge_page)
  NEEDS_PAGE1G
  mov qword ptr [pdpt + 16], P + W + PS
  mov dword ptr [pages], 77
  movabs rbx, offset pages + 0x80000000
  mov eax, [rbx]
  IS(rax, 77)
  or dword ptr [pdpt + 16], 1 << 20
  invlpg [rbx]
  FAULTS(PF, PF_P + PF_R, mov al, [rbx])
  END
CASE(huge_page_dirty)
  NEEDS_PAGE1G
  mov qword ptr [pdpt + 16], P + W + PS
  movabs rbx, offset pages + 0x80000000
  mov al, [rbx]
  IS([pdpt + 16], P + W + PS + A)
  mov [rbx], al
  IS([pdpt + 16], P + W + PS + A + D)
  END
CASE(accessed_and_dirty)
  MAP(0, pages, P + W + U)
  and qword ptr [pd_low + 256 * 8], ~A
  FLUSH
  mov ebx, PAGE(0)
  mov al, [rbx]
  IS([PTE(0)], offset pages + P + W + U + A)
  mov rax, [pd_low + 256 * 8]
  and eax, A + D
  IS(rax, A)
  mov [rbx], al
  IS([PTE(0)], offset pages + P + W + U + A + D)
  mov rax, [pml4]
  and eax, A + D
  IS(rax, A)
  END
CASE(dirty_again_after_invlpg)
  MAP(0, pages, P + W + U)
  mov ebx, PAGE(0)
  mov [rbx], al
  and qword ptr [PTE(0)], ~(A + D)
  invlpg [rbx]
  mov al, [rbx]
  IS([PTE(0)], offset pages + P + W + U + A)
  mov [rbx], al
  IS([PTE(0)], offset pages + P + W + U + A + D)
  END
CASE(dirty_not_by_faulting_write)
  MAP(0, pages, P + U)
  mov ebx, PAGE(0)
  FAULTS(PF, PF_P + PF_W, mov [rbx], al)
  mov rax, [PTE(0)]
  and eax, D
  IS(rax, 0)
  END
CASE(accessed_by_fetch_alone)
  mov byte ptr [pages], 0xc3
  MAP(0, pages, P + W)
  mov ebx, PAGE(0)
  call rbx
  IS([PTE(0)], offset pages + P + W + A)
  END
CASE(dirty_by_read_modify_write_and_compare)
  MAP(0, pages, P + W)
  MAP(1, pages, P + W)
  mov ebx, PAGE(0)
  lock inc dword ptr [rbx]
  IS([PTE(0)], offset pages + P + W + A + D)
  cmp [rbx + 4096], eax
  IS([PTE(1)], offset pages + P + W + A)
  END
CASE(large_page_dirty)
  mov qword ptr [pd_low + 257 * 8], P + W + U + PS
  mov ebx, offset pages + 0x20200000
  mov al, [rbx]
  IS([pd_low + 257 * 8], P + W + U + PS + A)
  mov [rbx], al
  IS([pd_low + 257 * 8], P + W + U + PS + A + D)
  END
CASE(compare_exchange_needs_write)  // although nothing changes when the comparison fails
  mov dword ptr [pages], 5
  MAP(0, pages, P)
  mov ebx, PAGE(0)
  mov eax, 1
  FAULTS(PF, PF_P + PF_W, lock cmpxchg [rbx], ecx)
  FAULTS(PF, PF_P + PF_W, cmpxchg [rbx], ecx)
  FAULTS(PF, PF_P + PF_W, lock cmpxchg8b [rbx])
  FAULTS(PF, PF_P + PF_W, lock cmpxchg16b [rbx])
  IS(rax, 1)
  END
CASE(bit_tests_on_read_only)
  MAP(0, pages, P)
  mov ebx, PAGE(0)
  mov eax, 800
  RUNS(bt [rbx], eax)
  FAULTS(PF, PF_P + PF_W, bts [rbx], eax)
  IS([last_cr2], PAGE(0) + 100)
  FAULTS(PF, PF_P + PF_W, btr dword ptr [rbx], 3)
  mov rax, -8
  FAULTS(PF, 0, bt [rbx], rax)
  IS([last_cr2], PAGE(0) - 8)
  END
CASE(read_across_pages)
  MAP(0, pages, P + W)
  MAP(1, pages + 2 * 4096, P + W)
  mov dword ptr [pages + 4092], 0x11223344
  mov dword ptr [pages + 2 * 4096], 0x55667788
  mov ebx, PAGE(1)
  mov rax, [rbx - 4]
  mov rcx, 0x5566778811223344
  IS(rax, rcx)
  mov [rbx - 3], rcx
  mov eax, [pages + 2 * 4096]
  mov ecx, 0x55556677
  mov cl, 0x88
  shr rcx, 0
  movzx ecx, byte ptr [pages + 4093]
  IS(rcx, 0x44)
  movzx eax, byte ptr [pages + 2 * 4096 + 4]
  IS(rax, 0x55)
  END
CASE(crossing_fault_is_of_second_page)
  MAP(0, pages, P + W)
  mov ebx, PAGE(1)
  FAULTS(PF, 0, mov rax, [rbx - 4])
  IS([last_cr2], PAGE(1))
  mov rcx, -1
  FAULTS(PF, PF_W, mov [rbx - 4], rcx)
  IS([last_cr2], PAGE(1))
  IS([pages + 4088], 0)  // nothing of it is written
  MAP(1, pages + 4096, P)
  FAULTS(PF, PF_P + PF_W, mov [rbx - 1], rcx)
  IS([last_cr2], PAGE(1))
  IS([pages + 4088], 0)
  FAULTS(PF, PF_P + PF_W, add [rbx - 1], rcx)
  IS([pages + 4088], 0)
  END
CASE(crossing_fault_of_first_page)
  MAP(1, pages, P + W)
  mov ebx, PAGE(1)
  FAULTS(PF, 0, mov rax, [rbx - 4])
  IS([last_cr2], PAGE(1) - 4)
  FAULTS(PF, PF_W, mov [rbx - 4], rbx)
  IS([last_cr2], PAGE(1) - 4)
  IS([pages], 0)
  END
CASE(crossing_vector_access)
  MAP(0, pages, P + W)
  mov ebx, PAGE(1)
  FAULTS(PF, 0, movdqu xmm0, [rbx - 5])
  IS([last_cr2], PAGE(1))
  pcmpeqd xmm0, xmm0
  FAULTS(PF, PF_W, movdqu [rbx - 5], xmm0)
  IS([pages + 4088], 0)
  MAP(1, pages + 4096, P + W)
  RUNS(movdqu [rbx - 5], xmm0)
  mov rax, 0xffffffffff000000
  IS([pages + 4088], rax)
  END
CASE(fetch_across_pages)
  mov dword ptr [pages + 4093], 0x0034b866  // mov ax, 0x1234, but for its last byte
  mov byte ptr [pages + 4092], 0x90
  MAP(0, pages, P + W)
  mov ebx, PAGE(0) + 4092
  xor eax, eax
  TRAPS(PF, PF_I, call rbx)
  IS([last_cr2], PAGE(1))
  IS([last_rip], PAGE(0) + 4093)
  mov word ptr [pages + 8192], 0xc312
  MAP(1, pages + 8192, P + W)
  RUNS(call rbx)
  IS(rax, 0x1234)
  END
CASE(remapping_by_invlpg)
  mov dword ptr [pages], 1
  mov dword ptr [pages + 4096], 2
  MAP(0, pages, P + W)
  mov ebx, PAGE(0)
  mov eax, [rbx]
  IS(rax, 1)
  MAP(0, pages + 4096, P + W)
  mov eax, [rbx]
  IS(rax, 2)
  mov dword ptr [rbx], 3
  IS([pages], 1)
  IS([pages + 4096], 3)
  END
CASE(remapping_by_cr3)
  mov dword ptr [pages], 1
  mov dword ptr [pages + 4096], 2
  MAP(0, pages, P + W)
  mov ebx, PAGE(0)
  mov eax, [rbx]
  mov qword ptr [PTE(0)], offset pages + 4096 + P + W
  FLUSH
  mov eax, [rbx]
  IS(rax, 2)
  END
CASE(global_pages_go_with_pge)
  mov dword ptr [pages], 1
  mov dword ptr [pages + 4096], 2
  MAP(0, pages, P + W + G)
  mov ebx, PAGE(0)
  mov eax, [rbx]
  mov qword ptr [PTE(0)], offset pages + 4096 + P + W + G
  CLEAR_BITS(cr4, CR4_PGE)
  mov eax, [rbx]
  IS(rax, 2)
  mov qword ptr [PTE(0)], offset pages + P + W + G
  SET_BITS(cr4, CR4_PGE)
  mov eax, [rbx]
  IS(rax, 1)
  mov qword ptr [PTE(0)], offset pages + 4096 + P + W + G
  invlpg [rbx]
  mov eax, [rbx]
  IS(rax, 2)
  END
CASE(becoming_present_needs_no_flush)
  mov ebx, PAGE(0)
  FAULTS(PF, 0, mov al, [rbx])
  mov qword ptr [PTE(0)], offset pages + P + W
  RUNS(mov al, [rbx])
  END
CASE(page_table_in_the_window)
  MAP(0, pt_window, P + W)
  MAP(1, pages, P)
  mov ebx, PAGE(0)
  mov eax, PAGE(1)
  FAULTS(PF, PF_P + PF_W, mov [rax], al)
  or dword ptr [rbx + 8], W
  invlpg [rax]
  RUNS(mov [rax], al)
  mov rcx, [rbx + 8]
  and ecx, 0xfff
  IS(rcx, P + W + A + D)
  END
CASE(two_addresses_one_page)
  MAP(0, pages, P + W)
  MAP(5, pages, P + W)
  mov ebx, PAGE(0)
  mov dword ptr [rbx], 9
  inc dword ptr [rbx + 5 * 4096]
  mov eax, [rbx]
  IS(rax, 10)
  mov rcx, offset pages + HIGH_ALIAS
  inc dword ptr [rcx]
  mov eax, [rbx]
  IS(rax, 11)
  END
CASE(cr2_keeps_its_value)

  mov eax, 0x1234
  mov cr2, rax
  mov rbx, 0x0000800000000000
  FAULTS(GP, 0, mov al, [rbx])
  IS([last_cr2], 0x1234)
  FAULTS(UD, NO_ERROR, ud2)
  IS([last_cr2], 0x1234)
  END

CASE(smep)
  NEEDS_SMEP
  mov byte ptr [pages], 0xc3
  MAP(0, pages, P + W + U)
  LOW_SUPERVISOR
  SET_BITS(cr4, CR4_SMEP)
  mov ebx, ALIAS + PAGE(0)
  TRAPS(PF, PF_P + PF_I, call rbx)
  IS([last_cr2], ALIAS + PAGE(0))
  RUNS(mov al, [rbx])
  mov ebx, PAGE(0)  // the same page as the supervisor's
  RUNS(call rbx)
  USER_FAULTS_AT(ALIAS, PF, PF_P + PF_U, mov al, [rbx])
  CLEAR_BITS(cr4, CR4_SMEP)
  mov ebx, ALIAS + PAGE(0)
  RUNS(call rbx)
  END
CASE(smep_makes_fetches_visible)  // the I/D flag without NXE
  NEEDS_SMEP
  LOW_SUPERVISOR
  WRMSR(0xc0000080, 0x101, 0)
  SET_BITS(cr4, CR4_SMEP)
  mov ebx, PAGE(0)
  TRAPS(PF, PF_I, call rbx)
  END
CASE(smap)
  NEEDS_SMAP
  MAP(0, pages, P + W + U)
  LOW_SUPERVISOR
  SET_BITS(cr4, CR4_SMAP)
  mov ebx, ALIAS + PAGE(0)
  FAULTS(PF, PF_P, mov al, [rbx])
  FAULTS(PF, PF_P + PF_W, mov [rbx], al)
  FAULTS(PF, PF_P, push [rbx])
  stac
  RUNS(mov al, [rbx])
  stac
  RUNS(mov [rbx], al)
  clac
  FAULTS(PF, PF_P, mov al, [rbx])
  USER_RUNS_AT(ALIAS, mov [rbx], al)
  CLEAR_BITS(cr4, CR4_SMAP)
  RUNS(mov al, [rbx])
  END
CASE(smap_ac_by_popf)
  NEEDS_SMAP
  MAP(0, pages, P + W + U)
  LOW_SUPERVISOR
  SET_BITS(cr4, CR4_SMAP)
  mov ebx, ALIAS + PAGE(0)
  push FLAG_AC + 2
  popfq
  RUNS(mov [rbx], al)
  push 2
  popfq
  FAULTS(PF, PF_P + PF_W, mov [rbx], al)
  END
CASE(smap_interrupt_clears_nothing_of_the_frame)  // the handler starts with AC as it was: a gate does not change it
  NEEDS_SMAP
  LOW_SUPERVISOR
  SET_BITS(cr4, CR4_SMAP)
  stac
  FAULTS(UD, NO_ERROR, ud2)
  mov rax, [last_flags]
  and eax, FLAG_AC
  IS(rax, FLAG_AC)
  END
CASE(smap_implicit_access)  // AC does not help the reading of a descriptor (4.6.1); the LDT is on a user page
  NEEDS_SMAP
  MAP(0, pages, P + W + U)
  DESCRIPTOR(FREE, ((ALIAS + WINDOW) & 0xffff) << 16 | 0xfff, ((ALIAS + WINDOW) & 0xff000000) | 0x8200)
  DESCRIPTOR(FREE + 8, 0, 0)
  mov rax, 0x00cf93000000ffff
  mov [pages + 8], rax
  mov eax, FREE
  lldt ax
  LOW_SUPERVISOR
  mov eax, 12
  RUNS(mov es, eax)
  SET_BITS(cr4, CR4_SMAP)
  stac
  FAULTS(PF, PF_P, mov es, eax)
  IS([last_cr2], ALIAS + PAGE(0) + 8)
  END
CASE(smap_by_user_of_supervisor_stack)  // a user's INT to CPL 0 pushes onto a user page: implicit, #PF, here #DF
  NEEDS_SMAP
  LOW_SUPERVISOR
  SET_BITS(cr4, CR4_SMAP)
  mov qword ptr [tss + 4], offset ALIAS + kernel_stack_top
  user_try_ DF, 0, 1, __LINE__, ALIAS, ud2
  IS([last_cr2], offset ALIAS + kernel_stack_top - 8)
  END
CASE(stac_clac_faults)
  NEEDS_SMAP
  LOW_SUPERVISOR
  SET_BITS(cr4, CR4_SMAP)
  stac
  clac
  pushfq
  pop rax
  and eax, FLAG_AC
  IS(rax, 0)
  user_try_ UD, NO_ERROR, 0, __LINE__, ALIAS, stac
  user_try_ UD, NO_ERROR, 0, __LINE__, ALIAS, clac
  .byte 0x3e  // a DS prefix is ignored
  clac
  END

CASE(non_canonical_data)
  mov rbx, 0x0000800000000000
  FAULTS(GP, 0, mov al, [rbx])
  mov rbx, 0xffff7fffffffffff
  FAULTS(GP, 0, mov [rbx], al)
  mov rbx, 0x1234567800000000
  USER_FAULTS(GP, 0, mov al, [rbx])
  mov rbp, 0x0000800000000000
  FAULTS(SS_, 0, mov al, [rbp])
  FAULTS(SS_, 0, mov [rbp + 8], al)
  xor ebp, ebp
  END
CASE(non_canonical_stack)
  mov rcx, rsp
  mov rsp, 0x0000800000000100
  mov byte ptr [idt + SS_ * 16 + 4], IST_FREE
  mov qword ptr [resume], offset 1f
  mov qword ptr [resume_sp], rcx
2:
  push rax
1:
  mov qword ptr [resume], 0
  IS([last_vector], SS_)
  IS([last_error], 0)
  IS([last_rip], offset 2b)
  mov rax, 0x0000800000000100
  IS([last_rsp], rax)
  END
CASE(non_canonical_crossing)  // the last bytes of the lower half
  mov qword ptr [pml4 + 255 * 8], offset pages + P + W
  mov qword ptr [pages + 511 * 8], offset pages + 4096 + P + W
  mov qword ptr [pages + 4096 + 511 * 8], offset pages + 8192 + P + W
  mov qword ptr [pages + 8192 + 511 * 8], offset pages + 12288 + P + W
  mov rbx, 0x00007ffffffffff8
  mov rcx, -1
  RUNS(mov [rbx], rcx)
  FAULTS(GP, 0, mov [rbx + 4], rcx)
  FAULTS(GP, 0, mov rax, [rbx + 1])
  mov rdx, [pages + 12288 + 4088]
  IS(rdx, -1)
  mov word ptr [pages + 12288 + 4094], 0x00e8  // CALL rel32 runs over the end
  lea rax, [rbx + 6]
  TRAPS(GP, 0, jmp rax)
  IS([last_rip], rax)
  mov qword ptr [pml4 + 255 * 8], 0
  END
CASE(non_canonical_branch)  // the branch faults, not its target (vol. 2, JMP, CALL, RET)
  mov rbx, 0x0000800000000000
  FAULTS(GP, 0, jmp rbx)
  FAULTS(GP, 0, call rbx)
  push rbx
  FAULTS(GP, 0, ret)
  pop rbx
  END
CASE(invlpg_non_canonical)  // no exception (vol. 2, INVLPG)
  mov rbx, 0x0000800000000000
  RUNS(invlpg [rbx])
  USER_FAULTS(GP, 0, invlpg [rbx])
  END
CASE(cr3_reserved)
  mov rax, cr3
  bts rax, 52
  FAULTS(GP, 0, mov cr3, rax)
  mov rax, cr3
  bts rax, 63  // only with CR4.PCIDE
  FAULTS(GP, 0, mov cr3, rax)
  USER_FAULTS(GP, 0, mov cr3, rax)
  USER_FAULTS(GP, 0, mov rax, cr3)
  END

CASE(pcid_enabling)
  NEEDS_PCID
  mov rax, cr3
  or eax, 5  // PWT and PCD are bits 3 and 4; 5 sets PCID bits 0 and 2
  mov cr3, rax
  mov rcx, cr4
  or ecx, CR4_PCIDE
  FAULTS(GP, 0, mov cr4, rcx)
  and eax, ~0xfff
  mov cr3, rax
  RUNS(mov cr4, rcx)
  mov rcx, cr0
  btr rcx, 31
  FAULTS(GP, 0, mov cr0, rcx)
  END
CASE(pcid_keeps_and_separates)
  NEEDS_PCID
  NEEDS_INVPCID
  SET_BITS(cr4, CR4_PCIDE)
  mov dword ptr [pages], 1
  mov dword ptr [pages + 4096], 2
  MAP(0, pages, P + W)
  mov ebx, PAGE(0)
  mov eax, offset pml4 + 1
  mov cr3, rax
  mov ecx, [rbx]
  IS(rcx, 1)
  // A second address space with its own page there: another PML4, PDPT, directory and table.
  mov rcx, [pml4]
  mov [pages + 8192], rcx
  mov rcx, [pml4 + 511 * 8]
  mov [pages + 8192 + 511 * 8], rcx
  mov rax, offset pages + 8192 + 2
  bts rax, 63
  mov qword ptr [PTE(0)], offset pages + 4096 + P + W
  // INVPCID of one address in PCID 1, from PCID 2
  mov cr3, rax
  mov eax, [rbx]
  IS(rax, 2)
  mov qword ptr [invpcid_what], 1
  mov [invpcid_what + 8], rbx
  xor edx, edx
  invpcid rdx, [invpcid_what]
  mov rax, offset pml4 + 1
  bts rax, 63
  mov cr3, rax
  mov eax, [rbx]
  IS(rax, 2)
  // one whole PCID
  mov qword ptr [PTE(0)], offset pages + P + W
  mov edx, 1
  invpcid rdx, [invpcid_what]
  mov eax, [rbx]
  IS(rax, 1)
  // all of them
  mov rax, offset pages + 8192 + 2
  bts rax, 63
  mov cr3, rax
  mov eax, [rbx]
  mov qword ptr [PTE(0)], offset pages + 4096 + P + W
  mov edx, 3
  invpcid rdx, [invpcid_what]
  mov eax, [rbx]
  IS(rax, 2)
  mov rax, offset pml4 + 1
  bts rax, 63
  mov cr3, rax
  mov eax, [rbx]
  IS(rax, 2)
  // with global ones
  mov qword ptr [PTE(0)], offset pages + P + W + G
  mov edx, 2
  invpcid rdx, [invpcid_what]
  mov eax, [rbx]
  IS(rax, 1)
  mov qword ptr [PTE(0)], offset pages + 4096 + P + W + G
  invpcid rdx, [invpcid_what]
  mov eax, [rbx]
  IS(rax, 2)
  // A load of CR3 without bit 63 flushes the PCID it names.
  mov qword ptr [PTE(0)], offset pages + P + W
  invpcid rdx, [invpcid_what]
  mov eax, [rbx]
  mov qword ptr [PTE(0)], offset pages + 4096 + P + W
  mov rax, offset pml4 + 1
  mov cr3, rax
  mov eax, [rbx]
  IS(rax, 2)
  // INVLPG takes the current PCID's.
  mov qword ptr [PTE(0)], offset pages + P + W
  invlpg [rbx]
  mov eax, [rbx]
  IS(rax, 1)
  mov eax, offset pml4
  mov cr3, rax
  END
CASE(pcid_off_flushes)  // clearing PCIDE drops everything (4.10.4.1)
  NEEDS_PCID
  SET_BITS(cr4, CR4_PCIDE)
  mov dword ptr [pages], 1
  mov dword ptr [pages + 4096], 2
  MAP(0, pages, P + W)
  mov ebx, PAGE(0)
  mov eax, [rbx]
  mov qword ptr [PTE(0)], offset pages + 4096 + P + W
  CLEAR_BITS(cr4, CR4_PCIDE)
  mov eax, [rbx]
  IS(rax, 2)
  END
CASE(cr3_reads_without_bit_63)
  NEEDS_PCID
  SET_BITS(cr4, CR4_PCIDE)
  mov eax, offset pml4
  bts rax, 63
  mov cr3, rax
  mov rcx, cr3
  IS(rcx, offset pml4)
  END
CASE(invpcid_faults)
  NEEDS_INVPCID
  mov qword ptr [invpcid_what], 0
  mov qword ptr [invpcid_what + 8], 0
  mov edx, 4
  FAULTS(GP, 0, invpcid rdx, [invpcid_what])
  xor edx, edx
  USER_FAULTS(GP, 0, invpcid rdx, [invpcid_what])
  mov rax, 0x0000800000000000
  mov [invpcid_what + 8], rax
  FAULTS(GP, 0, invpcid rdx, [invpcid_what])
  mov qword ptr [invpcid_what + 8], 0
  mov qword ptr [invpcid_what], 0x1000
  FAULTS(GP, 0, invpcid rdx, [invpcid_what])
  mov qword ptr [invpcid_what], 1  // PCID 1 with CR4.PCIDE clear
  FAULTS(GP, 0, invpcid rdx, [invpcid_what])
  mov edx, 1
  FAULTS(GP, 0, invpcid rdx, [invpcid_what])
  mov qword ptr [invpcid_what], 0
  RUNS(invpcid rdx, [invpcid_what])
  mov ebx, PAGE(0)
  FAULTS(PF, 0, invpcid rdx, [rbx])
  END

  .data
  .balign 16
invpcid_what: .quad 0, 0
