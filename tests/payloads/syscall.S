// SYSCALL, SYSRET, SYSENTER, SYSEXIT, IRET, SWAPGS, FSGSBASE.
//   Source   Intel SDM vol. 2; vol. 3, 5.8.7, 5.8.8, 6.14
#include "payload.h"

#define STAR 0xc0000081
#define LSTAR 0xc0000082
#define SFMASK 0xc0000084
#define FS_BASE 0xc0000100
#define GS_BASE 0xc0000101
#define KERNEL_GS 0xc0000102
  .macro syscall_msrs
    WRMSR(STAR, 0, KCODE | (UCODE32 << 16))
    WRMSR(SFMASK, FLAG_IF | FLAG_TF | FLAG_DF, 0)
  .endm
  .macro lstar_ target
    mov eax, offset \target
    xor edx, edx
    mov ecx, LSTAR
    wrmsr
  .endm

CASE(syscall_enters)
  syscall_msrs
  lstar_ 1f
  mov qword ptr [case_rsp], rsp
  mov qword ptr [user_flags], FLAG_DF + FLAG_CF + 2
  mov qword ptr [user_ip], offset 2f
  jmp enter_user
2:
  syscall
3:
1:
  mov rbx, rsp
  mov rsp, [case_rsp]
  pushfq
  pop rdx
  cld
  IS(rcx, offset 3b)
  IS(r11, FLAG_DF + FLAG_CF + 2)
  IS(rdx, FLAG_CF + 2)
  IS(rbx, offset user_stack_top)
  mov eax, cs
  IS(rax, KCODE)
  mov eax, ss
  IS(rax, KCODE + 8)
  END
CASE(syscall_from_cpl0)
  syscall_msrs
  lstar_ 1f
  syscall
2:
1:
  IS(rcx, offset 2b)
  mov eax, cs
  IS(rax, KCODE)
  END
CASE(syscall_without_sce)
  WRMSR(0xc0000080, 0x900, 0)
  FAULTS(UD, NO_ERROR, syscall)
  USER_FAULTS(UD, NO_ERROR, syscall)
  FAULTS(UD, NO_ERROR, sysretq)
  END
CASE(sysret_64)
  syscall_msrs
  mov qword ptr [resume], offset 2f
  mov qword ptr [resume_sp], rsp
  mov ecx, offset 1f
  mov r11, FLAG_ID + FLAG_CF + 2 + 0x28
  sysretq
1:
  int RETURN_VECTOR
2:
  mov qword ptr [resume], 0
  IS([last_cs], UCODE)
  IS([last_ss], UDATA)
  IS([last_flags], FLAG_ID + FLAG_CF + 2)
  IS([last_rsp], [resume_sp])
  IS([last_rip], offset 1b + 2 + 0)
  END
CASE(sysret_32)
  syscall_msrs
  mov qword ptr [resume], offset 2f
  mov qword ptr [resume_sp], rsp
  mov rcx, offset 1f
  bts rcx, 63  // only ECX counts
  mov r11d, 2
  sysretd
  .code32
1:
  int RETURN_VECTOR
  .code64
2:
  mov qword ptr [resume], 0
  IS([last_cs], UCODE32)
  IS([last_ss], UDATA)
  END
CASE(sysret_drops_rf_and_vm)
  syscall_msrs
  mov qword ptr [resume], offset 2f
  mov qword ptr [resume_sp], rsp
  mov ecx, offset 1f
  mov r11d, FLAG_RF + 0x20000 + 2
  sysretq
1:
  int RETURN_VECTOR
2:
  mov qword ptr [resume], 0
  mov rax, [last_flags]
  IS(rax, 2)
  END
CASE(sysret_non_canonical)  // at CPL 0, on the stack of CPL 0 (vol. 2, SYSRET)
  syscall_msrs
  mov rcx, 0x0000800000000000
  mov r11d, 2
  FAULTS(GP, 0, sysretq)
  IS([last_cs], KCODE)
  END
CASE(sysret_by_user)
  syscall_msrs
  mov ecx, offset 1f
  USER_FAULTS(GP, 0, sysretq)
1:
  END
CASE(syscall_in_compatibility_mode)  // #UD: CS.L is clear (Intel)
  syscall_msrs
  mov qword ptr [resume], offset 3f
  mov qword ptr [resume_sp], rsp
  push UDATA
  push offset user_stack_top
  push 2
  push UCODE32
  push offset 1f
  iretq
  .code32
1:
  sysenter
  .code64
3:
  mov qword ptr [resume], 0
  IS([last_vector], GP)  // IA32_SYSENTER_CS is 0
  IS([last_error], 0)
  IS([last_rip], offset 1b)
  END
CASE(lstar_must_be_canonical)
  mov ecx, LSTAR
  xor eax, eax
  mov edx, 0x8000
  FAULTS(GP, 0, wrmsr)
  mov edx, 0xffff8000
  RUNS(wrmsr)
  END
CASE(sysenter_enters)
  WRMSR(0x174, KCODE, 0)
  WRMSR(0x175, 0x345678, 0)
  mov eax, offset 1f
  mov ecx, 0x176
  wrmsr
  mov [case_rsp], rsp
  mov qword ptr [user_flags], FLAG_IF + FLAG_CF + 2
  mov qword ptr [user_ip], offset 2f
  jmp enter_user
2:
  sysenter
1:
  mov rbx, rsp
  mov rsp, [case_rsp]
  pushfq
  pop rdx
  IS(rbx, 0x345678)
  IS(rdx, FLAG_CF + 2)
  mov eax, cs
  IS(rax, KCODE)
  mov eax, ss
  IS(rax, KCODE + 8)
  WRMSR(0x174, 0, 0)
  END
CASE(sysenter_with_null_cs)
  WRMSR(0x174, 3, 0)
  FAULTS(GP, 0, sysenter)
  USER_FAULTS(GP, 0, sysenter)
  FAULTS(GP, 0, .byte 0x0f; .byte 0x35)
  END
CASE(sysexit_64)
  WRMSR(0x174, KCODE, 0)
  mov qword ptr [resume], offset 2f
  mov qword ptr [resume_sp], rsp
  mov edx, offset 1f
  mov ecx, 0x12340
  .byte 0x48, 0x0f, 0x35
1:
  int RETURN_VECTOR
2:
  mov qword ptr [resume], 0
  IS([last_cs], KCODE + 32 + 3)
  IS([last_ss], KCODE + 40 + 3)
  IS([last_rsp], 0x12340)
  WRMSR(0x174, 0, 0)
  END
CASE(sysexit_faults)
  WRMSR(0x174, KCODE, 0)
  mov rdx, 0x0000800000000000
  xor ecx, ecx
  FAULTS(GP, 0, .byte 0x48; .byte 0x0f; .byte 0x35)
  mov rcx, rdx
  xor edx, edx
  FAULTS(GP, 0, .byte 0x48; .byte 0x0f; .byte 0x35)
  USER_FAULTS(GP, 0, .byte 0x0f; .byte 0x35)
  WRMSR(0x174, 0, 0)
  END

  .macro frame_ ss, sp, flags, cs, ip
    push \ss
    push \sp
    push \flags
    push \cs
    push \ip
  .endm
CASE(iret_same_level)  // always takes SS:RSP in 64-bit mode
  mov rbx, rsp
  lea rax, [rsp - 256]
  frame_ KDATA, rax, FLAG_CF+2, KCODE, "offset 1f"
  iretq
1:
  setc cl
  movzx ecx, cl
  mov rdx, rsp
  mov rsp, rbx
  IS(rdx, rax)
  IS(rcx, 1)
  END
CASE(iret_to_null_stack)
  mov rbx, rsp
  frame_ 0, rbx, 2, KCODE, "offset 1f"
  RUNS(iretq)
1:
  mov eax, ss
  IS(rax, 0)
  END
CASE(iret_faults)
  mov rbx, rsp
  mov rcx, 0x0000800000000000
  frame_ KDATA, rbx, 2, KCODE, rcx
  FAULTS(GP, 0, iretq)
  mov rsp, rbx
  frame_ KDATA, rbx, 2, 0, "offset 1f"
  FAULTS(GP, 0, iretq)
  mov rsp, rbx
  frame_ KDATA, rbx, 2, KDATA, "offset 1f"
  FAULTS(GP, KDATA, iretq)
  mov rsp, rbx
  frame_ UDATA, rbx, 2, KCODE, "offset 1f"
  FAULTS(GP, UDATA & ~3, iretq)
  mov rsp, rbx
  frame_ 0, rbx, 2, UCODE, "offset 1f"
  FAULTS(GP, 0, iretq)
  mov rsp, rbx
  frame_ UDATA, rbx, 2, 0x30, "offset 1f"
  FAULTS(GP, UCODE & ~3, iretq)
  mov rsp, rbx
  frame_ KDATA, rbx, FLAG_NT+2, KCODE, "offset 1f"
  RUNS(iretq)  // NT in the image does nothing yet
1:
  FAULTS(GP, 0, iretq)  // but now: a task return
  push 2
  popfq
  END
CASE(iret_user_flags)  // at CPL 3 neither IOPL nor IF can be changed
  mov rbx, rsp
  USER_RUNS(push UDATA; push offset user_stack_top; push 0x3246; push UCODE; push offset 1f; iretq; 1:)
  mov rax, [last_flags]
  IS(rax, 0x46)
  END
CASE(iret_drops_user_segments)  // DS and ES of more privilege become null on the way out
  mov eax, KDATA
  mov ds, eax
  mov es, eax
  mov eax, UDATA
  mov fs, eax
  USER_RUNS(mov eax, ds; mov ebx, es; mov ecx, fs; mov edx, gs)
  IS(rax, 0)
  IS(rbx, 0)
  IS(rcx, UDATA)
  IS(rdx, 0)
  END
CASE(iret_sets_rf_and_ac)
  mov rbx, rsp
  frame_ KDATA, rbx, FLAG_AC+FLAG_ID+2, KCODE, "offset 1f"
  iretq
1:
  pushfq
  pop rax
  IS(rax, FLAG_AC + FLAG_ID + 2)
  push 2
  popfq
  END
CASE(iret_32_bit_operand)
  mov rbx, rsp
  sub rsp, 64
  mov dword ptr [rsp], offset 1f
  mov dword ptr [rsp + 4], KCODE
  mov dword ptr [rsp + 8], FLAG_CF + 2
  mov [rsp + 12], ebx
  mov dword ptr [rsp + 16], KDATA
  iretd
1:
  setc al
  movzx eax, al
  IS(rax, 1)
  IS(rsp, rbx)
  END
CASE(iret_stack_faults)
  mov rbx, rsp
  mov byte ptr [idt + PF * 16 + 4], IST_FREE
  mov [resume_sp], rbx
  mov qword ptr [resume], offset 2f
  MAP(0, pages, P + W)
  mov rsp, PAGE(1) - 16
1:
  iretq
2:
  mov qword ptr [resume], 0
  IS([last_vector], PF)
  IS([last_cr2], PAGE(1))
  IS([last_rip], offset 1b)
  IS([last_rsp], PAGE(1) - 16)
  END
CASE(popf_at_user_level)
  mov qword ptr [user_flags], FLAG_IF + 2
  USER_RUNS(push 0x3000 + FLAG_CF; popfq; pushfq; pop rax)
  IS(rax, FLAG_IF + FLAG_CF + 2)  // IF and IOPL silently kept
  USER_FAULTS(GP, 0, cli)
  USER_FAULTS(GP, 0, sti)
  USER_FAULTS(GP, 0, hlt)
  mov qword ptr [user_flags], 0x3002
  USER_RUNS(sti; cli)
  USER_FAULTS(GP, 0, hlt)
  END

CASE(swapgs)
  WRMSR(GS_BASE, 0x1000, 0)
  WRMSR(KERNEL_GS, 0x2000, 1)
  swapgs
  mov ecx, GS_BASE
  rdmsr
  IS(rax, 0x2000)
  IS(rdx, 1)
  mov ecx, KERNEL_GS
  rdmsr
  IS(rax, 0x1000)
  swapgs
  mov ecx, GS_BASE
  rdmsr
  IS(rax, 0x1000)
  USER_FAULTS(GP, 0, swapgs)
  END
CASE(swapgs_and_memory)
  MAP(0, pages, P + W)
  mov qword ptr [pages + 8], 5
  mov qword ptr [pages + 16 + 8], 6
  WRMSR(GS_BASE, PAGE(0), 0)
  WRMSR(KERNEL_GS, PAGE(0) + 16, 0)
  mov rax, gs:[8]
  swapgs
  mov rbx, gs:[8]
  swapgs
  mov rcx, gs:[8]
  IS(rax, 5)
  IS(rbx, 6)
  IS(rcx, 5)
  END
CASE(swapgs_in_compatibility_mode)
  mov [case_rsp], rsp
  push CODE32
  push offset 1f
  mov qword ptr [resume], offset 2f
  mov qword ptr [resume_sp], rsp
  retfq
  .code32
1:
  .byte 0x0f, 0x01, 0xf8
  .code64
2:
  mov qword ptr [resume], 0
  mov rsp, [case_rsp]
  IS([last_vector], UD)
  END
CASE(bases_must_be_canonical)
  xor eax, eax
  mov edx, 0x8000
  mov ecx, FS_BASE
  FAULTS(GP, 0, wrmsr)
  mov ecx, GS_BASE
  FAULTS(GP, 0, wrmsr)
  mov ecx, KERNEL_GS
  FAULTS(GP, 0, wrmsr)
  END
CASE(fsgsbase)
  NEEDS_FSGSBASE
  FAULTS(UD, NO_ERROR, rdfsbase rax)
  USER_FAULTS(UD, NO_ERROR, wrgsbase rax)
  SET_BITS(cr4, CR4_FSGSBASE)
  mov rbx, 0xffff800012345678
  wrfsbase rbx
  rdfsbase rax
  IS(rax, rbx)
  mov rcx, -1
  rdfsbase ecx
  IS(rcx, 0x12345678)
  wrfsbase ebx
  rdfsbase rax
  IS(rax, 0x12345678)
  USER_RUNS(wrgsbase rbx; rdgsbase rdx)
  IS(rdx, rbx)
  mov rbx, 0x0000800000000000
  FAULTS(GP, 0, wrfsbase rbx)
  USER_FAULTS(GP, 0, wrgsbase rbx)
  rdgsbase rax
  mov rbx, 0xffff800012345678
  IS(rax, rbx)
  END
CASE(gs_relative_noncanonical)
  mov rax, -8
  mov ecx, GS_BASE
  mov eax, 0xfffffff0
  mov edx, 0x7fff
  wrmsr
  mov ebx, 0x20
  FAULTS(GP, 0, mov rax, gs:[rbx])
  WRMSR(GS_BASE, 0, 0)
  END

  .bss
  .balign 8
case_rsp: .skip 8
