// String instructions: overlap, direction, faults in the middle, page ends, address sizes, port strings.
//   Source   Intel SDM vol. 2 (REP, MOVS, STOS, CMPS, SCAS, LODS, INS, OUTS)
#include "payload.h"

  .macro two_pages
    MAP(0, pages, P + W)
    MAP(1, pages + 3 * 4096, P + W)
  .endm

CASE(movsb_overlap_forward)  // destination one ahead: the first byte is repeated
  mov dword ptr [pages], 0x44332211
  mov esi, offset pages
  mov edi, offset pages + 1
  mov ecx, 40
  rep movsb
  mov rax, 0x1111111111111111
  IS([pages + 33], rax)
  IS(rcx, 0)
  IS(rsi, offset pages + 40)
  END
CASE(movsq_overlap)  // destination 3 ahead: every quadword is read after the one before is written
  mov edi, offset pages
  mov ecx, 64
  mov eax, 1
1:
  mov [rdi], al
  inc eax
  inc edi
  loop 1b
  mov esi, offset pages
  mov edi, offset pages + 3
  mov ecx, 3
  rep movsq
  mov rax, 0x0504030201030201
  IS([pages], rax)
  movzx eax, byte ptr [pages + 11]  // byte 8 of the source, which is byte 5 of the first quadword stored
  IS(rax, 6)
  END
CASE(movsb_backward_overlap)
  mov dword ptr [pages + 60], 0x44332211
  mov esi, offset pages + 63
  mov edi, offset pages + 62
  mov ecx, 30
  std
  rep movsb
  cld
  mov rax, 0x4444444444444444
  IS([pages + 40], rax)
  IS(rdi, offset pages + 32)
  END
CASE(stosq_across_pages)
  two_pages
  mov rax, 0x1122334455667788
  mov edi, PAGE(0) + 4093
  mov ecx, 2
  rep stosq
  mov eax, [pages + 4092]
  IS(rax, 0x66778800)
  mov rax, 0x6677881122334455
  IS([pages + 3 * 4096], rax)
  IS(rdi, PAGE(1) + 13)
  END
CASE(stos_fault_in_the_middle)
  MAP(0, pages, P + W)
  mov edi, PAGE(1) - 24
  mov ecx, 10
  mov rax, -1
  FAULTS(PF, PF_W, rep stosq)
  IS(rcx, 7)
  IS(rdi, PAGE(1))
  IS([last_cr2], PAGE(1))
  IS([pages + 4088], -1)
  IS([pages + 4064], 0)
  mov rax, [last_flags]
  and eax, FLAG_RF  // a fault: RF is set
  IS(rax, FLAG_RF)
  END
CASE(stos_straddling_fault)  // the element that crosses into the missing page is not written at all
  MAP(0, pages, P + W)
  mov edi, PAGE(1) - 12
  mov ecx, 3
  mov rax, -1
  FAULTS(PF, PF_W, rep stosq)
  IS(rcx, 2)
  IS(rdi, PAGE(1) - 4)
  IS([last_cr2], PAGE(1))
  mov eax, [pages + 4092]
  IS(rax, 0)
  END
CASE(movs_source_faults)
  MAP(0, pages, P + W)
  mov esi, PAGE(1) - 3
  mov edi, PAGE(0)
  mov ecx, 100
  FAULTS(PF, 0, rep movsb)
  IS(rcx, 97)
  IS(rsi, PAGE(1))
  IS(rdi, PAGE(0) + 3)
  IS([last_cr2], PAGE(1))
  END
CASE(movs_destination_read_only)
  two_pages
  and dword ptr [PTE(1)], ~W
  FLUSH
  mov esi, PAGE(0)
  mov edi, PAGE(1) - 5
  mov ecx, 100
  FAULTS(PF, PF_P + PF_W, rep movsb)
  IS(rcx, 95)
  IS(rsi, PAGE(0) + 5)
  IS(rdi, PAGE(1))
  END
CASE(movs_both_missing)  // the source is read first
  mov esi, PAGE(0)
  mov edi, PAGE(1)
  mov ecx, 1
  FAULTS(PF, 0, rep movsb)
  IS([last_cr2], PAGE(0))
  FAULTS(PF, 0, movsd)
  IS([last_cr2], PAGE(0))
  IS(rsi, PAGE(0))
  END
CASE(movs_resumed)  // a handler maps the page, IRET goes on with it
  MAP(0, pages, P + W)
  WITH_HOOK(1f)
  mov edi, PAGE(0) + 4000
  mov ecx, 200
  mov al, 0x5a
  rep stosb
  mov qword ptr [hook], 0
  IS([count], 1)
  IS(rcx, 0)
  IS(rdi, PAGE(1) + 104)
  mov al, [pages + 4096 + 103]
  movzx eax, al
  IS(rax, 0x5a)
  ret
1:
  mov qword ptr [PTE(1)], offset pages + 4096 + P + W
  iretq
CASE(backward_fault)
  MAP(1, pages, P + W)
  mov edi, PAGE(1) + 2
  mov ecx, 10
  std
  FAULTS(PF, PF_W, rep stosb)
  cld
  IS(rcx, 7)
  IS(rdi, PAGE(1) - 1)
  IS([last_cr2], PAGE(1) - 1)
  END
CASE(zero_count_touches_nothing)
  xor ecx, ecx
  mov edi, PAGE(0)
  mov esi, PAGE(0)
  RUNS(rep stosb)
  RUNS(rep movsq)
  RUNS(repe cmpsb)
  RUNS(repne scasb)
  IS(rdi, PAGE(0))
  END
CASE(compare_stops)
  mov rax, 0x1122334455667788
  mov [pages], rax
  mov [pages + 64], rax
  mov byte ptr [pages + 69], 0
  mov esi, offset pages
  mov edi, offset pages + 64
  mov ecx, 8
  repe cmpsb
  setz dl
  IS(rcx, 2)
  IS(rsi, offset pages + 6)
  movzx edx, dl
  IS(rdx, 0)
  END
CASE(compare_stops_before_the_missing_page)
  MAP(0, pages, P + W)
  mov byte ptr [pages + 4095], 1
  mov esi, PAGE(0) + 4090
  mov edi, PAGE(0) + 4000
  mov ecx, 50
  RUNS(repe cmpsb)
  IS(rcx, 44)
  mov byte ptr [pages + 4095], 0
  mov esi, PAGE(0) + 4090
  mov edi, PAGE(0) + 4000
  mov ecx, 50
  cmp ecx, 51  // CF; kept as the last comparison left it: equal, so ZF and no CF
  FAULTS(PF, 0, repe cmpsb)
  IS(rcx, 44)
  IS(rsi, PAGE(1))
  END
CASE(scan_finds)
  MAP(0, pages, P + W)
  mov byte ptr [pages + 4090], 0x77
  mov edi, PAGE(0) + 4000
  mov al, 0x77
  mov ecx, 1000
  RUNS(repne scasb)
  IS(rdi, PAGE(0) + 4091)
  IS(rcx, 909)
  mov ecx, 1000
  FAULTS(PF, 0, repne scasb)
  IS(rdi, PAGE(1))
  IS(rcx, 995)
  END
CASE(count_register_width)  // ECX with a 32-bit address size, and RDI is cut
  mov rcx, 0x100000003
  mov edi, offset pages
  mov al, 1
  addr32 rep stosb
  IS(rcx, 0)
  IS(rdi, offset pages + 3)
  mov rcx, 0x100000000
  mov rdi, 0x0000800000000000
  RUNS(addr32 rep stosb)  // ECX is 0
  END
CASE(non_canonical_string)
  mov rdi, 0x0000800000000000
  mov ecx, 1
  FAULTS(GP, 0, rep stosb)
  mov rsi, rdi
  FAULTS(GP, 0, lodsb)
  mov edi, offset pages
  FAULTS(GP, 0, movsb)
  END
CASE(segment_override)  // of the source only
  mov ecx, 0xc0000100
  mov eax, offset pages
  xor edx, edx
  wrmsr
  mov byte ptr [pages + 5], 0x66
  mov esi, 5
  xor eax, eax
  lods byte ptr fs:[rsi]
  IS(rax, 0x66)
  mov esi, 5
  mov edi, offset pages + 32
  movs byte ptr es:[rdi], fs:[rsi]
  movzx eax, byte ptr [pages + 32]
  IS(rax, 0x66)
  END
CASE(port_strings_fault)  // OUTS reads memory before the port; INS writes
  mov esi, PAGE(0)
  mov edi, PAGE(0)
  mov edx, 0x80
  mov ecx, 1
  FAULTS(PF, 0, rep outsb)
  FAULTS(PF, PF_W, rep insb)
  IS(rcx, 1)
  USER_FAULTS(GP, 0, outsb)
  USER_FAULTS(GP, 0, in al, dx)
  END
CASE(port_permission_map)
  mov word ptr [gdt + TSS], 104 + 32
  mov byte ptr [gdt + TSS + 5], 0x89
  mov eax, TSS
  ltr ax
  mov qword ptr [tss + 104], 0
  mov qword ptr [tss + 112], 0
  mov qword ptr [tss + 120], 0
  mov byte ptr [tss + 104 + 16], 2  // port 0x81
  mov edx, 0x80
  USER_RUNS(out dx, al)
  mov edx, 0x81
  USER_FAULTS(GP, 0, out dx, al)
  mov edx, 0x80
  USER_FAULTS(GP, 0, out dx, ax)  // needs both
  mov edx, 0x200
  USER_FAULTS(GP, 0, out dx, al)  // beyond the map
  mov qword ptr [user_flags], 0x3002
  mov edx, 0x81
  USER_RUNS(out dx, al)
  END
CASE(interrupted_string)  // by the timer or an IPI: registers count up to where it stands
  mov eax, 0xfee000f0
  mov dword ptr [rax], 0x1ff
  WITH_HOOK(1f)
  mov eax, 0xfee00300
  mov dword ptr [rax], 0x44050
  mov ecx, 100
2:
  pause
  loop 2b
  mov edi, offset pages
  mov ecx, 8192
  mov al, 3
  sti
  rep stosq
  cli
  mov qword ptr [hook], 0
  IS(rcx, 0)
  IS(rdi, offset pages + 8 * 8192)
  IS([count], 1)
  ret
1:
  push rax
  mov eax, 0xfee000b0
  mov dword ptr [rax], 0
  pop rax
  iretq
