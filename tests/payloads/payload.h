// What the cases are written with. The same words work in 64-bit and, with -DBITS=32, in protected-mode sources.
//   CASE(name) … END              a case: a function that returns; it may leave any register, control register, table or
//                                 mapping changed, for reset_case (runtime) brings all back before the next
//   FAULTS(vector, error, insn)   insn must raise that, with RIP at insn; NO_ERROR where the vector pushes no error code
//   TRAPS(vector, error, insn)    as FAULTS, but RIP may be anywhere: check [last_rip]
//   RUNS(insn)                    insn must raise nothing
//   USER_FAULTS, USER_TRAPS, USER_RUNS   the same with insn at CPL 3, on the user's stack
//   IS(got, expected)             both pushable; not relative to RSP
//   WITH_HOOK(label)              from now on exceptions and interrupts go to label, with the frame on the stack and the
//                                 error code taken off; it ends with iret
//   NEEDS(leaf, register, bit)    skip the case where CPUID lacks that (subleaf 0)
// insn may be several instructions: a; b. All registers but RSP are kept on the way to an exception and back;
// [last_vector], [last_error], [last_rip], [last_cs], [last_flags], [last_rsp], [last_ss], [last_cr2], [last_dr6] have
// what the last exception left, [count] how many there were since the case began.
#pragma once

#define DE 0
#define DB 1
#define NMI 2
#define BP 3
#define OF 4
#define BR 5
#define UD 6
#define NM 7
#define DF 8
#define TS 10
#define NP 11
#define SS_ 12
#define GP 13
#define PF 14
#define MF 16
#define AC 17
#define XM 19
#define RETURN_VECTOR 0x81
#define NOTHING 0x100
#define NO_ERROR (-1)

// Page-fault error code and page-table bits.
#define PF_P 1
#define PF_W 2
#define PF_U 4
#define PF_R 8
#define PF_I 16
#define P 1
#define W 2
#define U 4
#define PWT 8
#define PCD 16
#define A 0x20
#define D 0x40
#define PS 0x80
#define G 0x100

// Selectors. FREE is the first of several empty entries.
#define KCODE 0x08
#define KDATA 0x10
#define CODE32 0x18
#define UCODE32 0x23
#define UDATA 0x2b
#define UCODE 0x33
#define TSS 0x38
#define FREE 0x50
#if BITS == 32
#define CODE16 0x18
#define DATA16 0x30
#undef UCODE
#define UCODE 0x23
#endif

#define CR0_MP 2
#define CR0_EM 4
#define CR0_TS 8
#define CR0_NE 0x20
#define CR0_WP 0x10000
#define CR0_AM 0x40000
#define CR0_CD 0x40000000
#define CR0_PG 0x80000000
#define CR4_VME 1
#define CR4_TSD 4
#define CR4_DE 8
#define CR4_PSE 0x10
#define CR4_PAE 0x20
#define CR4_PGE 0x80
#define CR4_OSFXSR 0x200
#define CR4_OSXMMEXCPT 0x400
#define CR4_UMIP 0x800
#define CR4_FSGSBASE 0x10000
#define CR4_PCIDE 0x20000
#define CR4_OSXSAVE 0x40000
#define CR4_SMEP 0x100000
#define CR4_SMAP 0x200000
#define FLAG_CF 1
#define FLAG_ZF 0x40
#define FLAG_TF 0x100
#define FLAG_IF 0x200
#define FLAG_DF 0x400
#define FLAG_OF 0x800
#define FLAG_NT 0x4000
#define FLAG_RF 0x10000
#define FLAG_AC 0x40000
#define FLAG_ID 0x200000

// The window: 512 pages of linear addresses that cases map as they like.
#define WINDOW 0x20000000
#define PAGE(n) (WINDOW + (n) * 4096)
// 64-bit: all low memory once more, for user code where SMEP and SMAP make the identity map the supervisor's.
#define ALIAS 0x40000000
#define HIGH_ALIAS 0xffffffff80000000

// IST slots of the 64-bit TSS; slot 1 is #DF's.
#define IST_DF 1
#define IST_FREE 2

#ifdef __ASSEMBLER__
  .intel_syntax noprefix

#if BITS == 64
#define rAX rax
#define rBX rbx
#define rCX rcx
#define rDX rdx
#define rSI rsi
#define rDI rdi
#define rSP rsp
#define rBP rbp
#define WORD_ 8
#define WPTR qword ptr
#define IRET iretq
#define PUSHF pushfq
#define POPF popfq
  .code64
#else
#define rAX eax
#define rBX ebx
#define rCX ecx
#define rDX edx
#define rSI esi
#define rDI edi
#define rSP esp
#define rBP ebp
#define WORD_ 4
#define WPTR dword ptr
#define IRET iretd
#define PUSHF pushfd
#define POPF popfd
  .code32
#endif

  .macro case_ name
    .pushsection .rodata
    .Ltext_\name: .asciz "\name"
    .popsection
    .pushsection .table, "a"
    .quad .Ltext_\name, case_\name
    .popsection
    case_\name:
  .endm
#define CASE(name) case_ name
#define END ret

  .macro is_ got, expected, line
    push \got
    push \expected
    push \line
    call check
  .endm
#define IS(got, expected) IS_(got, expected, __LINE__)
#define IS_(got, expected, line) is_ #got, #expected, line

  .macro prepare_
    mov WPTR [last_vector], NOTHING
    mov WPTR [resume_sp], rSP
    mov WPTR [resume], offset .Lafter\@
  .endm

  // mode: 0 the vector, error and RIP are checked, 1 not RIP.
  .macro try_ vector, error, mode, line, insn
    mov WPTR [last_vector], NOTHING
    mov WPTR [resume_sp], rSP
    mov WPTR [resume], offset .Lafter\@
    .Lat\@:
    \insn
    .Lafter\@:
    mov WPTR [resume], 0
    is_ [last_vector], "\vector", \line
    .if (\vector) != NOTHING
      is_ [last_error], "\error", \line
      .if \mode == 0
        is_ [last_rip], "offset .Lat\@", \line
      .endif
    .endif
  .endm
#define FAULTS(vector, error, ...) FAULTS_(vector, error, __LINE__, __VA_ARGS__)
#define FAULTS_(vector, error, line, ...) try_ #vector, #error, 0, line, #__VA_ARGS__
#define TRAPS(vector, error, ...) TRAPS_(vector, error, __LINE__, __VA_ARGS__)
#define TRAPS_(vector, error, line, ...) try_ #vector, #error, 1, line, #__VA_ARGS__
#define RUNS(...) RUNS_(__LINE__, __VA_ARGS__)
#define RUNS_(line, ...) try_ NOTHING, 0, 1, line, #__VA_ARGS__

  .macro user_try_ vector, error, mode, line, base, insn
    mov WPTR [last_vector], NOTHING
    mov WPTR [resume_sp], rSP
    mov WPTR [resume], offset .Lafter\@
    mov WPTR [user_ip], offset .Lat\@ + (\base)
    jmp enter_user
    .Lat\@:
    \insn
    int RETURN_VECTOR
    .Lafter\@:
    mov WPTR [resume], 0
    is_ [last_vector], "\vector", \line
    .if (\vector) != NOTHING
      is_ [last_error], "\error", \line
      .if \mode == 0
        is_ [last_rip], "offset .Lat\@ + (\base)", \line
      .endif
    .endif
  .endm
#define USER_FAULTS(vector, error, ...) USER_FAULTS_(vector, error, __LINE__, 0, __VA_ARGS__)
#define USER_FAULTS_AT(base, vector, error, ...) USER_FAULTS_(vector, error, __LINE__, base, __VA_ARGS__)
#define USER_FAULTS_(vector, error, line, base, ...) user_try_ #vector, #error, 0, line, base, #__VA_ARGS__
#define USER_TRAPS(vector, error, ...) USER_TRAPS_(vector, error, __LINE__, __VA_ARGS__)
#define USER_TRAPS_(vector, error, line, ...) user_try_ #vector, #error, 1, line, 0, #__VA_ARGS__
#define USER_RUNS(...) USER_RUNS_(__LINE__, 0, __VA_ARGS__)
#define USER_RUNS_AT(base, ...) USER_RUNS_(__LINE__, base, __VA_ARGS__)
#define USER_RUNS_(line, base, ...) user_try_ NOTHING, 0, 1, line, base, #__VA_ARGS__

#define WITH_HOOK(label) mov WPTR [hook], offset label

  .macro needs_ leaf, register, bit
    mov eax, \leaf
    xor ecx, ecx
    cpuid
    bt \register, \bit
    jc .Lhas\@
    mov WPTR [skipped], 1
    ret
    .Lhas\@:
  .endm
#define NEEDS(leaf, register, bit) needs_ leaf, register, bit
#define NEEDS_PCID NEEDS(1, ecx, 17)
#define NEEDS_X2APIC NEEDS(1, ecx, 21)
#define NEEDS_DEADLINE NEEDS(1, ecx, 24)
#define NEEDS_XSAVE NEEDS(1, ecx, 26)
#define NEEDS_AVX NEEDS(1, ecx, 28)
#define NEEDS_FSGSBASE NEEDS(7, ebx, 0)
#define NEEDS_SMEP NEEDS(7, ebx, 7)
#define NEEDS_INVPCID NEEDS(7, ebx, 10)
#define NEEDS_SMAP NEEDS(7, ebx, 20)
#define NEEDS_UMIP NEEDS(7, ecx, 2)
#define NEEDS_RDTSCP NEEDS(0x80000001, edx, 27)
#define NEEDS_PAGE1G NEEDS(0x80000001, edx, 26)

  // The page-table entry of a window page; sets it and drops the old translation.
#define PTE(n) (pt_window + (n) * WINDOW_ENTRY)
#if BITS == 64
#define WINDOW_ENTRY 8
#else
#define WINDOW_ENTRY 4
#endif
#define MAP(n, physical, flags) MAP_(n, physical, flags)
#define MAP_(n, physical, flags) map_ #n, #physical, #flags
  .macro map_ n, physical, flags
    mov WPTR [pt_window + (\n) * WINDOW_ENTRY], offset \physical + (\flags)
    invlpg [WINDOW + (\n) * 4096]
  .endm
#define UNMAP(n) unmap_ n
  .macro unmap_ n
    mov WPTR [pt_window + (\n) * WINDOW_ENTRY], 0
    invlpg [WINDOW + (\n) * 4096]
  .endm

  // 32-bit paging by the tables that runtime.S prepares; further bits for CR4.
  .macro paging_on_32 more=0
    mov eax, CR4_PSE + CR4_OSFXSR + CR4_OSXMMEXCPT + \more
    mov cr4, eax
    mov eax, offset page_directory
    mov cr3, eax
    mov eax, 0x80010033
    mov cr0, eax
  .endm

  // Calls it often enough that it is translated.
  .macro hot_ target
    mov ecx, 300
    .Lhot\@:
    call \target
    loop .Lhot\@
  .endm
  // mov eax, value; ret at [where]
  .macro constant_ where, value
    mov byte ptr [\where], 0xb8
    mov dword ptr [\where + 1], \value
    mov byte ptr [\where + 5], 0xc3
  .endm

  .macro gdt_ selector, low, high
    mov dword ptr [gdt + ((\selector) & ~7)], \low
    mov dword ptr [gdt + ((\selector) & ~7) + 4], \high
  .endm
#define DESCRIPTOR(selector, low, high) DESCRIPTOR_(selector, low, high)
#define DESCRIPTOR_(selector, low, high) gdt_ #selector, #low, #high

  // Control registers by way of RAX, which is kept.
  .macro set_bits_ register, bits
    push rAX
    mov rAX, \register
    or rAX, \bits
    mov \register, rAX
    pop rAX
  .endm
  .macro clear_bits_ register, bits
    push rAX
    mov rAX, \register
    and rAX, ~(\bits)
    mov \register, rAX
    pop rAX
  .endm
#define SET_BITS(register, bits) SET_BITS_(register, bits)
#define SET_BITS_(register, bits) set_bits_ register, #bits
#define CLEAR_BITS(register, bits) CLEAR_BITS_(register, bits)
#define CLEAR_BITS_(register, bits) clear_bits_ register, #bits

  .macro wrmsr_ number, low, high
    mov ecx, \number
    mov eax, \low
    mov edx, \high
    wrmsr
  .endm
#define WRMSR(number, low, high) WRMSR_(number, low, high)
#define WRMSR_(number, low, high) wrmsr_ #number, #low, #high
  // 64-bit: the identity map becomes the supervisor's; ALIAS stays the user's.
  .macro low_supervisor_
    and qword ptr [pdpt], ~U
    mov rax, cr3
    mov cr3, rax
  .endm
#define LOW_SUPERVISOR low_supervisor_
  .macro flush_
    mov rAX, cr3
    mov cr3, rAX
  .endm
#define FLUSH flush_
#endif
