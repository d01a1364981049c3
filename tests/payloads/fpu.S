// x87 and SSE exceptions, device-not-available, XSAVE and its kin.
//   Source   Intel SDM vol. 1, 8.7 (x87 exceptions), 11.5 (SSE exceptions), 13 (XSAVE); vol. 3, 2.5 (CR0.TS, EM, MP)
#include "payload.h"

#define MXCSR_DEFAULT 0x1f80
  .macro mxcsr_ value
    mov dword ptr [scratch], \value
    ldmxcsr [scratch]
  .endm
  .macro enable_xsave
    SET_BITS(cr4, CR4_OSXSAVE)
    xor ecx, ecx
    xor edx, edx
    mov eax, 3
    xsetbv
  .endm

CASE(task_switched)  // CR0.TS
  SET_BITS(cr0, CR0_TS)
  FAULTS(NM, NO_ERROR, fld1)
  FAULTS(NM, NO_ERROR, addps xmm0, xmm1)
  FAULTS(NM, NO_ERROR, fninit)
  FAULTS(NM, NO_ERROR, fxsave64 [area])
  FAULTS(NM, NO_ERROR, ldmxcsr [area])
  FAULTS(NM, NO_ERROR, emms)
  FAULTS(NM, NO_ERROR, fwait)  // MP is set, too
  RUNS(sfence; prefetcht0 [area]; movnti [area], eax)
  CLEAR_BITS(cr0, CR0_MP)
  RUNS(fwait)
  USER_FAULTS(NM, NO_ERROR, fld1)
  clts
  RUNS(fld1)
  END
CASE(emulation)  // CR0.EM: #NM for x87, #UD for SSE
  SET_BITS(cr0, CR0_EM)
  FAULTS(NM, NO_ERROR, fld1)
  FAULTS(UD, NO_ERROR, addps xmm0, xmm1)
  FAULTS(UD, NO_ERROR, emms)
  CLEAR_BITS(cr0, CR0_EM)
  RUNS(fld1)
  END
CASE(osfxsr_clear)
  CLEAR_BITS(cr4, CR4_OSFXSR)
  FAULTS(UD, NO_ERROR, addps xmm0, xmm1)
  FAULTS(UD, NO_ERROR, movaps xmm0, [area])
  RUNS(fld1)
  RUNS(sfence)
  END
CASE(lazy_switch_in_hot_code)  // TS set while the block is long translated
  mov ecx, 1000
1:
  call 5f
  loop 1b
  SET_BITS(cr0, CR0_TS)
  TRAPS(NM, NO_ERROR, call 5f)
  IS([last_rip], offset 5f)
  clts
  RUNS(call 5f)
  ret
5:
  movaps xmm0, xmm1
  paddd xmm0, xmm2
  ret
CASE(clts_and_lmsw)
  SET_BITS(cr0, CR0_TS)
  clts
  mov rax, cr0
  and eax, CR0_TS
  IS(rax, 0)
  smsw eax
  or eax, CR0_TS
  lmsw ax
  mov rax, cr0
  and eax, CR0_TS + 1
  IS(rax, CR0_TS + 1)
  xor eax, eax
  lmsw ax  // PE stays
  mov rax, cr0
  and eax, CR0_TS + 1
  IS(rax, 1)
  USER_FAULTS(GP, 0, clts)
  USER_FAULTS(GP, 0, lmsw ax)
  END
CASE(x87_exception_is_pending)  // raised by the next waiting x87 instruction, with CR0.NE as #MF
  mov word ptr [scratch], 0x37b  // zero divide unmasked
  fldcw [scratch]
  fld1
  fldz
  RUNS(fdivp st(1), st)
  RUNS(fnstsw ax)
  and eax, 0x84
  IS(rax, 0x84)
  FAULTS(MF, NO_ERROR, fld1)
  FAULTS(MF, NO_ERROR, fwait)
  USER_FAULTS(MF, NO_ERROR, fldz)
  RUNS(fnclex)
  RUNS(fld1)
  END
CASE(x87_masked)
  fld1
  fldz
  RUNS(fdivp st(1), st; fwait)
  fnstsw ax
  and eax, 0x84
  IS(rax, 4)
  END
CASE(x87_stack_fault)
  RUNS(fstp st(0))
  fnstsw ax
  and eax, 0x41
  IS(rax, 0x41)
  mov word ptr [scratch], 0x37e
  fnclex
  fldcw [scratch]
  fstp st(0)
  FAULTS(MF, NO_ERROR, fldz)
  END
CASE(sse_exception)
  mxcsr_ MXCSR_DEFAULT & ~0x200  // zero divide
  mov dword ptr [scratch], 0x3f800000
  movss xmm0, [scratch]
  xorps xmm1, xmm1
  FAULTS(XM, NO_ERROR, divss xmm0, xmm1)
  stmxcsr [scratch]
  mov eax, [scratch]
  and eax, 0x3f
  IS(rax, 4)
  movd eax, xmm0
  IS(rax, 0x3f800000)  // unchanged
  CLEAR_BITS(cr4, CR4_OSXMMEXCPT)
  FAULTS(UD, NO_ERROR, divss xmm0, xmm1)
  mxcsr_ MXCSR_DEFAULT
  RUNS(divss xmm0, xmm1)
  mxcsr_ MXCSR_DEFAULT
  END
CASE(mxcsr_reserved)
  mov dword ptr [scratch], 0x11f80
  FAULTS(GP, 0, ldmxcsr [scratch])
  stmxcsr [scratch]
  mov eax, [scratch]
  END
CASE(alignment_of_vectors)
  FAULTS(GP, 0, movaps xmm0, [area + 8])
  FAULTS(GP, 0, movdqa [area + 1], xmm0)
  FAULTS(GP, 0, paddd xmm0, [area + 4])
  RUNS(movups xmm0, [area + 1])
  USER_FAULTS(GP, 0, movaps xmm0, [area + 8])
  mov ebx, PAGE(0) + 8
  FAULTS(GP, 0, movaps xmm0, [rbx])  // before the page is asked for
  FAULTS(GP, 0, fxsave [area + 8])
  END
CASE(alignment_check)  // #AC only at CPL 3 with CR0.AM and AC
  SET_BITS(cr0, CR0_AM)
  mov qword ptr [user_flags], FLAG_AC + 2
  USER_FAULTS(AC, 0, mov eax, [area + 1])
  USER_FAULTS(AC, 0, mov [area + 2], eax)
  USER_FAULTS(AC, 0, mov rax, [area + 4])
  USER_RUNS(mov al, [area + 1])
  USER_RUNS(mov ax, [area + 2])
  mov eax, FLAG_AC + 2
  push rax
  popfq
  RUNS(mov eax, [area + 1])
  push 2
  popfq
  CLEAR_BITS(cr0, CR0_AM)
  USER_RUNS(mov eax, [area + 1])
  END
CASE(fxsave_fxrstor)
  fldpi
  mov rax, 0x1122334455667788
  movq xmm5, rax
  fxsave64 [area]
  fninit
  pxor xmm5, xmm5
  fxrstor64 [area]
  movq rcx, xmm5
  IS(rcx, rax)
  fnstsw ax
  and eax, 0x3800
  IS(rax, 7 << 11)
  mov dword ptr [area + 24], 0xffff0000
  FAULTS(GP, 0, fxrstor64 [area])
  END
CASE(xsave_needs_osxsave)
  NEEDS_XSAVE
  FAULTS(UD, NO_ERROR, xsave64 [area])
  xor ecx, ecx
  FAULTS(UD, NO_ERROR, xgetbv)
  FAULTS(UD, NO_ERROR, xsetbv)
  mov eax, 1
  cpuid
  shr ecx, 27
  and ecx, 1
  IS(rcx, 0)
  SET_BITS(cr4, CR4_OSXSAVE)
  mov eax, 1
  cpuid
  shr ecx, 27
  and ecx, 1
  IS(rcx, 1)
  END
CASE(xsetbv_faults)
  NEEDS_XSAVE
  SET_BITS(cr4, CR4_OSXSAVE)
  xor ecx, ecx
  xor edx, edx
  mov eax, 2  // without x87
  FAULTS(GP, 0, xsetbv)
  mov eax, 5  // AVX without SSE
  FAULTS(GP, 0, xsetbv)
  mov eax, 3
  mov edx, 0x80000000
  FAULTS(GP, 0, xsetbv)
  xor edx, edx
  mov ecx, 1
  FAULTS(GP, 0, xsetbv)
  mov ecx, 2
  FAULTS(GP, 0, xgetbv)
  xor ecx, ecx
  USER_FAULTS(GP, 0, xsetbv)
  USER_RUNS(xgetbv)
  RUNS(xsetbv)
  END
CASE(xsave_and_xrstor)
  NEEDS_XSAVE
  enable_xsave
  mov edi, offset area
  mov ecx, 1024 / 8
  xor eax, eax
  rep stosq
  mov rbx, 0x1122334455667788
  movq xmm3, rbx
  mov eax, 3
  xor edx, edx
  xsave64 [area]
  mov rax, [area + 512]
  and eax, 2
  IS(rax, 2)
  IS([area + 160 + 48], rbx)
  pxor xmm3, xmm3
  mov eax, 3
  xrstor64 [area]
  movq rcx, xmm3
  IS(rcx, rbx)
  and qword ptr [area + 512], ~2  // not in XSTATE_BV: the initial state
  mov eax, 3
  xrstor64 [area]
  movq rcx, xmm3
  IS(rcx, 0)
  END
CASE(xrstor_faults)
  NEEDS_XSAVE
  enable_xsave
  mov edi, offset area
  mov ecx, 1024 / 8
  xor eax, eax
  rep stosq
  mov dword ptr [area + 24], MXCSR_DEFAULT
  mov eax, 3
  RUNS(xrstor64 [area])
  mov byte ptr [area + 519], 0x40  // XSTATE_BV: a bit that XCR0 lacks
  FAULTS(GP, 0, xrstor64 [area])
  mov byte ptr [area + 519], 0
  mov byte ptr [area + 530], 1  // header bytes 16 to 23 must be zero
  FAULTS(GP, 0, xrstor64 [area])
  mov byte ptr [area + 530], 0
  FAULTS(GP, 0, xrstor64 [area + 16])  // alignment by 64
  FAULTS(GP, 0, xsave64 [area + 32])
  mov dword ptr [area + 24], -1
  FAULTS(GP, 0, xrstor64 [area])
  mov dword ptr [area + 24], MXCSR_DEFAULT
  SET_BITS(cr0, CR0_TS)
  FAULTS(NM, NO_ERROR, xrstor64 [area])
  FAULTS(NM, NO_ERROR, xsave64 [area])
  END
CASE(xsavec_and_xsaveopt)
  NEEDS_XSAVE
  enable_xsave
  mov eax, 13
  mov ecx, 1
  cpuid
  and eax, 3
  cmp eax, 3
  je 1f
  mov qword ptr [skipped], 1
  ret
1:
  mov edi, offset area
  mov ecx, 1024 / 8
  xor eax, eax
  rep stosq
  mov rbx, 0x1122334455667788
  movq xmm3, rbx
  mov eax, 3
  xor edx, edx
  xsavec64 [area]
  mov rax, [area + 520]
  mov rcx, 1 << 63
  or rcx, 3
  IS(rax, rcx)
  IS([area + 160 + 48], rbx)
  pxor xmm3, xmm3
  mov eax, 3
  xrstor64 [area]
  movq rcx, xmm3
  IS(rcx, rbx)
  mov eax, 1
  xsaveopt64 [area]  // only x87 asked for: the SSE part stays
  IS([area + 160 + 48], rbx)
  END
CASE(avx_needs_xcr0)
  NEEDS_AVX
  FAULTS(UD, NO_ERROR, vaddps xmm0, xmm0, xmm0)
  enable_xsave
  FAULTS(UD, NO_ERROR, vaddps xmm0, xmm0, xmm0)
  mov eax, 7
  xor ecx, ecx
  xor edx, edx
  xsetbv
  RUNS(vaddps ymm0, ymm0, ymm0)
  SET_BITS(cr0, CR0_TS)
  FAULTS(NM, NO_ERROR, vaddps ymm0, ymm0, ymm0)
  clts
  mov eax, 3
  xor ecx, ecx
  xor edx, edx
  xsetbv
  FAULTS(UD, NO_ERROR, vaddps xmm0, xmm0, xmm0)
  END
CASE(avx_state_saved)
  NEEDS_AVX
  SET_BITS(cr4, CR4_OSXSAVE)
  xor ecx, ecx
  xor edx, edx
  mov eax, 7
  xsetbv
  mov edi, offset area
  mov ecx, 2048 / 8
  xor eax, eax
  rep stosq
  mov rbx, 0x55aa
  movq xmm1, rbx
  vinsertf128 ymm2, ymm2, xmm1, 1
  mov eax, 7
  xor edx, edx
  xsave64 [area]
  vzeroall
  xrstor64 [area]
  vextractf128 xmm0, ymm2, 1
  movq rax, xmm0
  IS(rax, rbx)
  IS([area + 576 + 32], rbx)
  vzeroupper
  vextractf128 xmm0, ymm2, 1
  movq rax, xmm0
  IS(rax, 0)
  END
CASE(vex_alignment)  // VEX forms ask for none but by VMOVAPS
  NEEDS_AVX
  SET_BITS(cr4, CR4_OSXSAVE)
  xor ecx, ecx
  xor edx, edx
  mov eax, 7
  xsetbv
  RUNS(vpaddd xmm0, xmm0, [area + 4])
  FAULTS(GP, 0, vmovaps xmm0, [area + 4])
  FAULTS(GP, 0, vmovaps ymm0, [area + 16])
  END
CASE(xsave_across_a_missing_page)
  NEEDS_XSAVE
  enable_xsave
  MAP(0, pages, P + W)
  mov ebx, PAGE(1) - 512
  mov eax, 3
  xor edx, edx
  FAULTS(PF, PF_W, xsave64 [rbx])
  IS([last_cr2], PAGE(1))
  mov ebx, PAGE(1) - 256
  FAULTS(PF, PF_W, fxsave64 [rbx])
  IS([last_cr2], PAGE(1))
  END
CASE(cmpxchg16b_alignment)
  FAULTS(GP, 0, lock cmpxchg16b [area + 8])
  FAULTS(GP, 0, cmpxchg16b [area + 8])
  RUNS(lock cmpxchg8b [area + 4])
  END

  .bss
  .balign 64
area: .skip 4096
scratch: .skip 64
