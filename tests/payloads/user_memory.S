// What user code finds in memory when the kernel changes the mapping beside it, and addresses that are none.
//   Source   Intel SDM vol. 3, 4.6 (rights), 4.8 (A and D), 4.10 (caching and invalidation); vol. 1, 3.3.7.1 (canonical)
// An engine may keep mappings for user accesses apart from the kernel's: all of this is seen by CPL 3.
#include "payload.h"

CASE(remapped)
  MAP(0, pages, P + W + U)
  mov dword ptr [pages], 1
  mov dword ptr [pages + 4096], 2
  mov ebx, PAGE(0)
  USER_RUNS(mov eax, [rbx])
  IS(rax, 1)
  MAP(0, pages + 4096, P + W + U)
  USER_RUNS(mov eax, [rbx])
  IS(rax, 2)
  mov qword ptr [PTE(0)], offset pages + P + W + U
  FLUSH
  USER_RUNS(mov eax, [rbx])
  IS(rax, 1)
  UNMAP(0)
  USER_FAULTS(PF, PF_U, mov eax, [rbx])
  IS([last_cr2], PAGE(0))
  END
CASE(made_read_only_and_writable_again)
  MAP(0, pages, P + W + U)
  mov ebx, PAGE(0)
  USER_RUNS(mov dword ptr [rbx], 5)
  MAP(0, pages, P + U)
  USER_RUNS(mov eax, [rbx])
  IS(rax, 5)
  USER_FAULTS(PF, PF_P + PF_W + PF_U, mov dword ptr [rbx], 6)
  IS([pages], 5)
  or qword ptr [PTE(0)], W  // more rights need no invalidation once the fault has been taken
  USER_RUNS(mov dword ptr [rbx], 7)
  IS([pages], 7)
  END
CASE(copy_on_write)
  MAP(0, pages, P + U)
  mov dword ptr [pages], 3
  mov dword ptr [pages + 4096], 3
  mov ebx, PAGE(0)
  USER_RUNS(mov eax, [rbx])
  USER_FAULTS(PF, PF_P + PF_W + PF_U, add dword ptr [rbx], 1)
  MAP(0, pages + 4096, P + W + U)
  USER_RUNS(add dword ptr [rbx], 1)
  USER_RUNS(mov eax, [rbx])
  IS(rax, 4)
  IS([pages], 3)
  IS([pages + 4096], 4)
  END
CASE(supervisors_from_now_on)
  MAP(0, pages, P + W + U)
  mov ebx, PAGE(0)
  USER_RUNS(mov eax, [rbx])
  MAP(0, pages, P + W)
  USER_FAULTS(PF, PF_P + PF_U, mov eax, [rbx])
  RUNS(mov eax, [rbx])
  END
CASE(accessed_and_dirty)
  MAP(0, pages, P + W + U)
  mov ebx, PAGE(0)
  USER_RUNS(mov eax, [rbx])
  IS([PTE(0)], offset pages + P + W + U + A)
  USER_RUNS(mov [rbx], eax)
  IS([PTE(0)], offset pages + P + W + U + A + D)
  and qword ptr [PTE(0)], ~(A + D)
  invlpg [rbx]
  USER_RUNS(cmp [rbx], eax)
  IS([PTE(0)], offset pages + P + W + U + A)
  USER_RUNS(inc dword ptr [rbx])
  IS([PTE(0)], offset pages + P + W + U + A + D)
  END
CASE(pages_apart_in_memory)  // one access over two of them, both ways
  MAP(0, pages + 4096, P + W + U)
  MAP(1, pages, P + W + U)
  mov dword ptr [pages + 8188], 0x33221100
  mov dword ptr [pages], 0x77665544
  mov ebx, PAGE(0) + 4092
  USER_RUNS(mov rax, [rbx])
  mov rcx, 0x7766554433221100
  IS(rax, rcx)
  mov rcx, 0x1122334455667788
  USER_RUNS(mov [rbx], rcx)
  mov eax, [pages + 8188]
  IS(rax, 0x55667788)
  IS([pages], 0x11223344)
  END
CASE(into_a_page_that_is_not_there)
  MAP(0, pages, P + W + U)
  mov dword ptr [pages + 4092], 9
  mov ebx, PAGE(0) + 4092
  USER_FAULTS(PF, PF_U + PF_W, mov [rbx], rcx)
  IS([last_cr2], PAGE(1))
  IS([pages + 4092], 9)  // nothing of it was written
  USER_FAULTS(PF, PF_U, movups xmm0, [rbx])
  IS([last_cr2], PAGE(1))
  USER_FAULTS(PF, PF_U + PF_W, lock add [rbx], rcx)
  END
CASE(not_canonical)
  mov ebx, offset pages
  mov rcx, rbx
  bts rcx, 47
  USER_FAULTS(GP, 0, mov eax, [rcx])
  mov rcx, rbx
  bts rcx, 48
  USER_FAULTS(GP, 0, mov eax, [rcx])
  USER_FAULTS(GP, 0, mov [rcx], eax)
  mov rcx, rbx
  bts rcx, 62
  USER_FAULTS(GP, 0, add [rcx], eax)
  mov rcx, rbx
  bts rcx, 63
  USER_FAULTS(GP, 0, mov eax, [rcx + rbx])
  mov rcx, 0x7ffffffffffc
  USER_FAULTS(GP, 0, mov rax, [rcx + 4])
  END
CASE(kernels_half)
  mov rcx, 0xffff800000000000
  USER_FAULTS(PF, PF_U, mov eax, [rcx])
  IS([last_cr2], rcx)
  mov rcx, -8
  TRAPS(PF, 0, mov eax, [rcx - 4096 * 4096])
  USER_FAULTS(PF, PF_U + PF_W, mov [rcx - 8192], rcx)
  END
CASE(nothing_mapped_there)  // no entry of the top-level table; registers and displacements on both sides of its edges
  mov rcx, 0x123456789000
  USER_FAULTS(PF, PF_U, mov eax, [rcx])
  IS([last_cr2], rcx)
  USER_FAULTS(PF, PF_U + PF_W, mov [rcx + 0x7ffff000], eax)
  mov rcx, 0x10000000000
  USER_FAULTS(PF, PF_U, mov eax, [rcx - 4])
  lea rdx, [rcx - 4]
  IS([last_cr2], rdx)
  mov rcx, 0xfffffffff0
  USER_FAULTS(PF, PF_U, mov eax, [rcx + 0x20])
  lea rdx, [rcx + 0x20]
  IS([last_cr2], rdx)
  mov rcx, -16
  USER_RUNS(mov eax, [rcx + pages + 16])
  mov ecx, offset pages
  neg rcx
  mov ebx, offset pages
  mov dword ptr [pages], 21
  lea rbx, [rbx + rbx]
  USER_RUNS(mov eax, [rbx + rcx])
  IS(rax, 21)
  END
CASE(hint_at_nowhere)  // a prefetch does not fault, and proves nothing for what follows it through the same register
  mov rcx, 0x123456789000
  USER_TRAPS(PF, PF_U, prefetcht0 [rcx]; mov eax, [rcx + 8])
  mov rdx, 0x123456789008
  IS([last_cr2], rdx)
  mov ecx, offset pages
  bts rcx, 55
  USER_TRAPS(GP, 0, stc; prefetcht0 [rcx]; mov eax, [rcx + 8]; adc eax, 0)
  END
CASE(flags_live_across_accesses)
  MAP(0, pages, P + W + U)
  mov ebx, PAGE(0)
  mov dword ptr [pages], 0
  xor eax, eax
  USER_RUNS(stc; mov ecx, [rbx]; adc eax, 0; mov [rbx + 64], eax; adc eax, 5)
  IS(rax, 6)
  invlpg [rbx]
  and qword ptr [PTE(0)], ~(A + D)
  xor eax, eax
  USER_RUNS(cmp eax, 1; mov [rbx + 128], eax; sbb eax, 0)
  mov ecx, 0xffffffff
  IS(rax, rcx)
  UNMAP(0)
  USER_TRAPS(PF, PF_U, cmp esp, 0; stc; adc eax, [rbx])
  END
CASE(registers_kept_over_faults)
  mov ebx, PAGE(0)
  mov rax, 0x1122334455667788
  mov r9, 99
  mov r10, 98
  mov r11, 97
  mov rdi, rax
  USER_FAULTS(PF, PF_U + PF_W, xchg ah, [rbx])
  IS(rax, rdi)
  USER_FAULTS(PF, PF_U, cmp [rbx], ah)
  IS(rax, rdi)
  USER_FAULTS(PF, PF_U, add r10, [rbx + r9])
  USER_FAULTS(PF, PF_U + PF_W, shld [rbx], r9, cl)
  USER_FAULTS(PF, PF_U + PF_W, mov [rbx + r11 * 8], r10)
  IS(r9, 99)
  IS(r10, 98)
  IS(r11, 97)
  END
CASE(code_written_by_its_user)
  MAP(0, pages, P + W + U)
  MAP(1, pages, P + W + U)
  mov byte ptr [pages], 0xb8  // mov eax, 1; ret
  mov dword ptr [pages + 1], 1
  mov byte ptr [pages + 5], 0xc3
  mov ebx, PAGE(0)
  mov edx, PAGE(1)
  USER_RUNS(mov ecx, 300; 1: call rbx; loop 1b)
  IS(rax, 1)
  USER_RUNS(mov byte ptr [rbx + 1], 2; call rbx)
  IS(rax, 2)
  USER_RUNS(mov byte ptr [rdx + 1], 3; call rbx)  // by its other name
  IS(rax, 3)
  mov byte ptr [pages + 1], 4  // by the kernel
  USER_RUNS(call rbx)
  IS(rax, 4)
  USER_RUNS(mov ecx, 300; 1: mov [rbx + 1], cl; call rbx; cmp al, cl; jne 2f; loop 1b; 2:)
  IS(rcx, 0)
  END
CASE(address_spaces_by_pcid)
  NEEDS_PCID
  NEEDS_INVPCID
  SET_BITS(cr4, CR4_PCIDE)
  mov dword ptr [pages], 1
  mov dword ptr [pages + 4096], 2
  MAP(0, pages, P + W + U)
  mov ebx, PAGE(0)
  mov esi, offset pml4 + 1
  mov cr3, rsi
  bts rsi, 63
  USER_RUNS(mov eax, [rbx])
  IS(rax, 1)
  mov edi, offset pml4 + 2
  mov qword ptr [PTE(0)], offset pages + 4096 + P + W + U
  mov cr3, rdi
  bts rdi, 63
  USER_RUNS(mov eax, [rbx])
  IS(rax, 2)
  mov cr3, rsi  // what PCID 1 has cached may be either; a flush of it decides
  mov qword ptr [invpcid_what], 1
  mov qword ptr [invpcid_what + 8], 0
  mov edx, 1
  invpcid rdx, [invpcid_what]
  USER_RUNS(mov eax, [rbx])
  IS(rax, 2)
  mov qword ptr [PTE(0)], offset pages + P + W + U
  invlpg [rbx]  // PCID 1's alone
  USER_RUNS(mov eax, [rbx])
  IS(rax, 1)
  mov qword ptr [invpcid_what], 2
  mov [invpcid_what + 8], rbx
  xor edx, edx
  invpcid rdx, [invpcid_what]
  mov cr3, rdi
  USER_RUNS(mov eax, [rbx])
  IS(rax, 1)
  mov qword ptr [PTE(0)], offset pages + 4096 + P + W + U
  mov edx, 2
  invpcid rdx, [invpcid_what]
  USER_RUNS(mov eax, [rbx])
  IS(rax, 2)
  mov cr3, rsi
  USER_RUNS(mov eax, [rbx])
  IS(rax, 2)
  btr rsi, 63
  btr rsi, 0
  mov cr3, rsi
  CLEAR_BITS(cr4, CR4_PCIDE)
  END
  .data
  .balign 16
invpcid_what: .quad 0, 0
