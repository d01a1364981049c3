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
// --- the user's stack: an engine may keep RSP in another form than the guest sees it -----------------------------------
CASE(stack_pointer_as_a_value)
  mov rbx, 0x1000
  USER_RUNS(mov rdi, rsp; mov rax, rsp; sub rax, 8; push rsp; pop rcx; lea rdx, [rsp + 16]; lea rsi, [rsp + rbx])
  IS(rcx, rdi)
  sub rdi, 8
  IS(rax, rdi)
  add rdi, 24
  IS(rdx, rdi)
  add rdi, 0xff0
  IS(rsi, rdi)
  USER_RUNS(mov rdi, rsp; and rsp, -64; mov rax, rsp; test rsp, 63; setz cl; mov rsp, rdi; cmp rsp, rdi; setz ch)
  mov rdx, rdi
  and rdx, -64
  IS(rax, rdx)
  movzx ecx, cx
  IS(rcx, 0x101)
  USER_RUNS(mov rdi, rsp; xor eax, eax; sub rsp, 128; mov [rsp], rsp; mov rcx, [rsp]; add rsp, 128; sete al; mov rdx, rsp)
  IS(rdx, rdi)
  IS(rax, 0)
  lea rdx, [rdi - 128]
  IS(rcx, rdx)
  USER_RUNS(mov rdi, rsp; mov r9, rsp; push r9; push rsp; pop r10; pop r11; mov rbx, rsp; xchg rbx, rsp; xchg rsp, rbx)
  IS(r9, rdi)
  IS(r11, rdi)
  IS(rbx, rdi)
  sub rdi, 8
  IS(r10, rdi)
  END
CASE(stack_frames)
  USER_RUNS(mov rdi, rsp; push rbp; mov rbp, rsp; sub rsp, 0x30; mov [rbp - 8], rdi; lea rsp, [rbp - 0x50]; push 7; leave; mov rsi, rsp; mov rdx, [rsp - 16])
  IS(rsi, rdi)
  IS(rdx, rdi)
  mov rcx, 3
  USER_RUNS(mov rdi, rsp; 1: push rcx; pushfq; pop rax; loop 1b; mov edx, [rsp + 8]; lea rsp, [rsp + 24]; mov rsi, rsp)
  IS(rsi, rdi)
  IS(rdx, 2)
  END
CASE(stack_on_another_page)
  MAP(0, pages, P + W + U)
  MAP(2, pages + 4096, P + W + U)
  mov ebx, PAGE(0) + 4096
  mov edx, PAGE(2) + 64
  USER_RUNS(mov rdi, rsp; mov rsp, rbx; push 5; mov rsp, rdx; push 6; pop rax; pop rcx; mov rsi, rsp; mov rsp, rdi)
  IS(rax, 6)
  IS(rsi, PAGE(2) + 72)
  IS([pages + 4088], 5)
  IS([pages + 4096 + 56], 6)
  mov qword ptr [pages], PAGE(2)
  mov ebx, PAGE(0)
  USER_RUNS(mov rdi, rsp; mov rsp, [rbx]; mov rsi, rsp; mov rsp, rdi)
  IS(rsi, PAGE(2))
  USER_RUNS(mov rdi, rsp; mov rsp, rbx; pop rsp; mov rsi, rsp; mov rsp, rdi)
  IS(rsi, PAGE(2))
  mov rbp, PAGE(2)
  mov qword ptr [pages + 4096], 77
  USER_RUNS(mov rdi, rsp; leave; mov rsi, rsp; mov rsp, rdi)
  IS(rsi, PAGE(2) + 8)
  IS(rbp, 77)
  END
CASE(stack_faults)  // RSP is as it was before the instruction
  MAP(0, pages, P + W + U)
  mov ebx, PAGE(0)
  mov rbp, PAGE(1)
  USER_TRAPS(PF, PF_U + PF_W, mov rdi, rsp; mov rsp, rbx; push rax)
  IS([last_cr2], PAGE(0) - 8)
  IS([last_rsp], PAGE(0))
  USER_TRAPS(PF, PF_U, lea rsp, [rbx + 4096]; pop rax)
  IS([last_cr2], PAGE(1))
  IS([last_rsp], PAGE(1))
  USER_FAULTS(PF, PF_U, leave)
  IS([last_cr2], PAGE(1))
  IS(rbp, PAGE(1))
  USER_TRAPS(PF, PF_U + PF_W, mov rsp, rbx; add rsp, 0x1008; call 1f; 1:)
  USER_TRAPS(PF, PF_U + PF_W, mov rsp, rbx; add rsp, 0x1008; sub rsp, 8; mov [rsp], eax)
  IS([last_cr2], PAGE(1))
  USER_TRAPS(PF, PF_U, mov rsp, rbp; ret)
  IS([last_rsp], PAGE(1))
  END
CASE(stack_wanders)  // by steps that access nothing, over the edges of what one top-level entry or two map, and back
  mov ecx, 0x3000
  USER_RUNS(mov rdi, rsp; mov rsi, rcx; 1: sub rsp, 0x80000; loop 1b; mov rax, rsp; mov rcx, rsi; 2: add rsp, 0x80000; loop 2b; mov rdx, rsp)
  IS(rdx, rdi)
  mov rcx, 0x180000000
  sub rdi, rcx
  IS(rax, rdi)
  mov ecx, 0x3000
  mov rbx, 0x10000000000 - 0x40000000
  USER_TRAPS(PF, PF_U + PF_W, mov rsp, rbx; 1: lea rsp, [rsp + 0x80000]; loop 1b; push rax)
  mov rcx, 0x10000000000 - 0x40000000 + 0x180000000 - 8
  IS([last_cr2], rcx)
  END
CASE(stack_not_canonical)
  USER_TRAPS(SS_, 0, mov rdi, rsp; bts rsp, 62; push rax)
  USER_TRAPS(SS_, 0, mov rdi, rsp; bts rdi, 47; mov rsp, rdi; pop rax)
  IS([last_rsp], rdi)
  USER_TRAPS(SS_, 0, mov rdi, -1; shl rdi, 48; mov rsp, rdi; push rdi)
  USER_TRAPS(PF, PF_U, mov rdi, -4096; mov rsp, rdi; pop rdi)
  mov rbp, 1
  bts rbp, 60
  USER_FAULTS(SS_, 0, leave)
  USER_TRAPS(SS_, 0, mov eax, [rbp])
  END
CASE(two_gibibytes_from_here)  // the farthest that an instruction reaches, from somewhere in its page
  USER_TRAPS(PF, PF_U, lea rax, [rip + 0x7fffffff]; mov eax, [rip + 0x7ffffff0])
  sub rax, 9
  IS([last_cr2], rax)
  USER_TRAPS(PF, PF_U + PF_I, lea rax, [rip]; .byte 0xe9, 0xff, 0xff, 0xff, 0x7f)
  mov ecx, 0x80000004
  add rax, rcx
  IS([last_cr2], rax)
  IS([last_rip], rax)
  USER_TRAPS(PF, PF_U + PF_I, lea rax, [rip]; call . + 0x7ffffff0)
  mov ecx, 0x7ffffff0
  add rax, rcx
  IS([last_rip], rax)
  USER_TRAPS(PF, PF_U, mov ecx, 1; lea rax, [rip]; jmp qword ptr [rip + 0x7fffffff])
  mov ecx, 0x80000005
  add rax, rcx
  IS([last_cr2], rax)
  END
CASE(base_of_fs)
  MAP(0, pages, P + W + U)
  mov dword ptr [pages + 8], 12
  mov ecx, 0xc0000100
  mov eax, PAGE(0)
  xor edx, edx
  wrmsr
  USER_RUNS(mov eax, fs:[8])
  IS(rax, 12)
  mov ecx, 4
  USER_RUNS(add dword ptr fs:[rcx + 4], 3; mov eax, fs:[8])
  IS(rax, 15)
  USER_FAULTS(PF, PF_U, mov eax, fs:[4096])
  IS([last_cr2], PAGE(1))
  mov ecx, 0xc0000100
  mov eax, 0xfffffffc
  mov edx, 0xff
  wrmsr
  USER_FAULTS(PF, PF_U, mov eax, fs:[4])
  mov rcx, 0x10000000000
  IS([last_cr2], rcx)
  mov ecx, 0xc0000100
  mov eax, 0x1000
  mov edx, 0xffff8000
  wrmsr
  USER_FAULTS(PF, PF_U, mov eax, fs:[0])
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
