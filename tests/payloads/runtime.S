// From the PVH entry to the cases, and back to a known state before each; BITS=64 or BITS=32 (protected mode, no paging).
//   Source   Xen's docs/misc/pvh.pandoc; Intel SDM vol. 3, 9.8 (mode initialization)
#include "payload.h"

  .section .note.pvh, "a", @note
  .long 4, 4, 18
  .asciz "Xen"
  .long start

  .text
  .globl start, reset_case, enter_user, unexpected, leave_case
  .code32
start:
  cli
  cld
  mov esp, offset stack_top
  mov [start_info], ebx
  mov al, 0xff  // the 8259s stay masked
  out 0x21, al
  out 0xa1, al
  mov dx, 0x3f9
  xor eax, eax
  out dx, al  // no interrupts of the serial port
#if BITS == 64
  mov eax, CR4_PAE
  mov cr4, eax
  mov eax, offset pml4
  mov cr3, eax
  mov ecx, 0xc0000080
  mov eax, 0x901  // SCE, LME, NXE
  xor edx, edx
  wrmsr
  mov eax, CR0_PG + CR0_NE + CR0_WP + 0x13
  mov cr0, eax
  lgdt [template_pointer]
  .byte 0xea  // jmp far
  .long wide
  .word KCODE
  .code64
wide:
#else
  lgdt [template_pointer]
  .byte 0xea
  .long wide
  .word KCODE
wide:
#endif
  mov eax, KDATA
  mov ds, eax
  mov es, eax
  mov ss, eax
  mov rSP, offset stack_top
  call first_case
  mov ebx, eax
  mov [index], ebx

run_next:
  mov eax, [index]
  shl eax, 4
  add eax, offset case_table
  cmp eax, offset case_table_end
  jae all_done
  mov rBX, [rAX]
  mov [name], rBX
  mov rBX, [rAX + 8]
  mov [code], rBX
  mov rSI, [name]
  call put_text
  mov al, ' '
  call put_char
  mov WPTR [failed], 0
  mov WPTR [skipped], 0
  mov WPTR [rounds], 3  // once more, and again, so that translated code is entered in the usual ways, too
1:
  call reset_case
  mov [case_sp], rSP
  xor ebp, ebp
  call [code]
  cmp WPTR [failed], 0
  jne leave_case
  sub WPTR [rounds], 1
  jnz 1b
leave_case:
  cli
  mov rSP, [case_sp]
  cmp WPTR [failed], 0
  jne 2f
  mov rSI, offset text_ok
  cmp WPTR [skipped], 0
  je 1f
  mov rSI, offset text_skipped
1:
  call put_text
2:
  add dword ptr [index], 1
  jmp run_next

all_done:
  mov rSI, offset text_end
  call put_text
  xor eax, eax
  out 0xf4, al
3:
  cli
  hlt
  jmp 3b

// EAX: the number behind "from=" on the command line, or 0.
first_case:
  mov ebx, [start_info]
  mov ebx, [rBX + 24]
  xor eax, eax
  test ebx, ebx
  jz 2f
1:
  cmp byte ptr [rBX], 0
  je 2f
  cmp dword ptr [rBX], 0x6d6f7266  // "from"
  je 3f
  add ebx, 1
  jmp 1b
3:
  add ebx, 5
4:
  movzx ecx, byte ptr [rBX]
  sub ecx, '0'
  cmp ecx, 9
  ja 2f
  imul eax, eax, 10
  add eax, ecx
  add ebx, 1
  jmp 4b
2:
  ret

// Every exception and interrupt comes here with the vector and an error code on the stack.
common:
#if BITS == 64
  mov [saved_bx], rBX
#else
  mov ss:[saved_bx], ebx
  mov ss:[last_ds], ds
  mov ss:[last_es], es
  mov ebx, KDATA
  mov ds, ebx
  mov es, ebx
#endif
  pop rBX
  cmp ebx, RETURN_VECTOR
  jne 1f
  mov ebx, NOTHING
1:
  mov [last_vector], rBX
  pop rBX
  mov [last_error], rBX
  mov rBX, [rSP]
  mov [last_rip], rBX
  mov rBX, [rSP + WORD_]
  mov [last_cs], rBX
  mov rBX, [rSP + 2 * WORD_]
  mov [last_flags], rBX
  mov [last_frame], rSP
#if BITS == 32
  // Without a change of level the frame has no SS:ESP.
  lea ebx, [esp + 12]
  mov [last_rsp], ebx
  mov [last_ss], ss
  test byte ptr [esp + 4], 3
  jnz 2f
  test byte ptr [esp + 10], 2  // VM86
  jz 3f
2:
#endif
  mov rBX, [rSP + 3 * WORD_]
  mov [last_rsp], rBX
  mov rBX, [rSP + 4 * WORD_]
  mov [last_ss], rBX
3:
  mov rBX, cr2
  mov [last_cr2], rBX
  mov rBX, dr6
  mov [last_dr6], rBX
  add WPTR [count], 1
  cmp WPTR [hook], 0
  jne 5f
  cmp WPTR [resume], 0
  je unexpected
  mov rSP, [resume_sp]
#if BITS == 32
  mov ebx, KDATA
  mov ss, ebx
  mov es, [last_es]
#endif
  mov rBX, [saved_bx]
  jmp [resume]
5:
  mov rBX, [saved_bx]
  jmp [hook]

unexpected:
  mov rSP, [case_sp]
  mov WPTR [failed], 1
  mov rSI, offset text_vector
  call put_text
  mov rBX, [last_vector]
  call put_decimal
  mov rSI, offset text_error
  call put_text
  mov rBX, [last_error]
  call put_hex
  mov rSI, offset text_rip
  call put_text
  mov rBX, [last_rip]
  call put_hex
  mov rSI, offset text_cr2
  call put_text
  mov rBX, [last_cr2]
  call put_hex
  mov al, 10
  call put_char
  jmp leave_case

// To [user_ip] at CPL 3; all registers are kept.
enter_user:
#if BITS == 32
  // IRET takes the kernel's segments away.
  push UDATA
  pop ds
  push UDATA
  pop es
#endif
  push UDATA
  push offset user_stack_top
  push [user_flags]
  push UCODE
  push [user_ip]
  IRET

// The state that every case begins with.
reset_case:
  cli
  cld
#if BITS == 64
  mov eax, CR4_PAE + CR4_OSFXSR + CR4_OSXMMEXCPT  // SMAP first: what follows makes the identity map the user's
  mov cr4, rax
  mov eax, CR0_PG + CR0_NE + CR0_WP + 0x13
  mov cr0, rax
  mov ecx, 0xc0000080
  mov eax, 0x901
  xor edx, edx
  wrmsr
  mov rax, offset pdpt
  mov qword ptr [rax], offset pd_low + 7
  mov qword ptr [rax + 8], offset pd_low + 7
  mov qword ptr [rax + 16], 0
  mov edi, offset pd_low + 256 * 8
  xor eax, eax
  mov ecx, 256
  rep stosq
  mov qword ptr [pd_low + 256 * 8], offset pt_window + 7
  mov edi, offset pt_window
  mov ecx, 512
  rep stosq
  mov qword ptr [pml4], offset pdpt + 7
  mov eax, CR4_PAE + CR4_OSFXSR + CR4_OSXMMEXCPT
  mov cr4, rax
  mov eax, offset pml4
  mov cr3, rax
  mov eax, CR4_PAE + CR4_OSFXSR + CR4_OSXMMEXCPT + CR4_PGE
  mov cr4, rax
#else
  mov eax, KDATA
  mov ds, eax
  mov es, eax
  mov eax, 0x33
  mov cr0, eax
  mov eax, CR4_OSFXSR + CR4_OSXMMEXCPT
  mov cr4, eax
  mov ecx, 0xc0000080
  xor eax, eax
  xor edx, edx
  wrmsr
  // Ready for whoever switches paging on: 4-MiB pages one to one, user's, and the window.
  mov edi, offset page_directory
  mov eax, P + W + U + PS
1:
  stosd
  add eax, 0x400000
  jnc 1b
  mov dword ptr [page_directory + (WINDOW >> 22) * 4], offset pt_window + P + W + U
  mov edi, offset pt_window
  xor eax, eax
  mov ecx, 1024
  rep stosd
#endif
  // Tables
  mov esi, offset gdt_template
  mov edi, offset gdt
  mov ecx, (gdt_template_end - gdt_template) / 4
  rep movsd
  mov edx, offset tss
  mov [gdt + TSS + 2], dx
  shr edx, 16
  mov [gdt + TSS + 4], dl
  mov [gdt + TSS + 7], dh
  lgdt [gdt_pointer]
  xor eax, eax
  lldt ax
  mov edi, offset tss
  mov ecx, 104 / 4
  rep stosd
#if BITS == 64
  mov qword ptr [tss + 4], offset kernel_stack_top
  mov qword ptr [tss + 28 + IST_DF * 8], offset double_fault_stack_top
  mov qword ptr [tss + 28 + IST_FREE * 8], offset interrupt_stack_top
#else
  mov dword ptr [tss + 4], offset kernel_stack_top
  mov dword ptr [tss + 8], KDATA
#endif
  mov word ptr [tss + 102], 104  // no I/O map
  mov eax, TSS
  ltr ax
  mov edi, offset idt
  mov eax, offset stubs
  mov ecx, 256
2:
  mov [rDI], ax
  mov word ptr [rDI + 2], KCODE
  mov word ptr [rDI + 4], 0x8e00
  mov edx, eax
  shr edx, 16
  mov [rDI + 6], dx
#if BITS == 64
  mov qword ptr [rDI + 8], 0
  add edi, 16
#else
  add edi, 8
#endif
  add eax, 16
  loop 2b
#if BITS == 64
  mov byte ptr [idt + DF * 16 + 4], IST_DF
#define GATE 16
#else
#define GATE 8
#endif
  mov byte ptr [idt + BP * GATE + 5], 0xee
  mov byte ptr [idt + OF * GATE + 5], 0xee
  mov byte ptr [idt + RETURN_VECTOR * GATE + 5], 0xee
  lidt [idt_pointer]
  // Segments
  mov eax, KDATA
  mov ds, eax
  mov es, eax
  mov ss, eax
  xor eax, eax
  mov fs, eax
  mov gs, eax
#if BITS == 64
  mov ecx, 0xc0000102
  xor edx, edx
  wrmsr
#endif
  // Debug registers, x87, SSE
  xor eax, eax
  mov dr7, rAX
  mov rDX, 0xffff0ff0
  mov dr6, rDX
  fninit
  // The runtime's own words
  mov WPTR [hook], 0
  mov WPTR [resume], 0
  mov WPTR [count], 0
  mov WPTR [last_vector], NOTHING
  mov WPTR [user_flags], 2
  mov edi, offset pages
  mov ecx, 16 * 4096 / 4
  rep stosd
  xor eax, eax
  xor ebx, ebx
  xor edx, edx
  ret

  .balign 16
stubs:
  .set vector, 0
  .rept 256
  .balign 16
  .if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21)
  push -1
  .endif
  push vector
  jmp common
  .set vector, vector + 1
  .endr

  .section .rodata
text_ok: .asciz "ok\n"
text_skipped: .asciz "skipped\n"
text_end: .asciz "end of cases\n"
text_vector: .asciz "FAIL unexpected vector "
text_error: .asciz " error "
text_rip: .asciz " at "
text_cr2: .asciz " cr2 "
  .balign 8
template_pointer: .word gdt_template_end - gdt_template - 1
  .long gdt_template, 0
  .balign 8
gdt_template:
#if BITS == 64
  .quad 0
  .quad 0x00af9b000000ffff  // 08 code
  .quad 0x00cf93000000ffff  // 10 data
  .quad 0x00cf9b000000ffff  // 18 compatibility-mode code
  .quad 0x00cffb000000ffff  // 20 user's compatibility-mode code
  .quad 0x00cff3000000ffff  // 28 user's data
  .quad 0x00affb000000ffff  // 30 user's code
  .quad 0x0000890000000067  // 38 TSS, base filled in
  .quad 0
#else
  .quad 0
  .quad 0x00cf9b000000ffff  // 08 code
  .quad 0x00cf93000000ffff  // 10 data
  .quad 0x00009b000000ffff  // 18 16-bit code
  .quad 0x00cffb000000ffff  // 20 user's code
  .quad 0x00cff3000000ffff  // 28 user's data
  .quad 0x000093000000ffff  // 30 16-bit data
  .quad 0x0000890000000067  // 38 TSS, base filled in
  .quad 0
#endif
  .fill 32 - 9, 8, 0
gdt_template_end:

  .data
  .balign 8
  .word 0
  .globl gdt_pointer, idt_pointer
gdt_pointer: .word 32 * 8 - 1
  .long gdt, 0
  .balign 8
idt_pointer: .word 256 * GATE - 1
  .long idt, 0
#if BITS == 64
  .balign 4096
  .globl pml4, pdpt, pd_low, pt_window, pd_high
pml4:
  .quad pdpt + 7
  .fill 510, 8, 0
  .quad pdpt_top + 7
pdpt:
  .quad pd_low + 7, pd_low + 7, 0, pd_high + 3
  .fill 508, 8, 0
pdpt_top:
  .fill 510, 8, 0
  .quad pd_low + 7
  .quad 0
pd_low:
  .set at, 0
  .rept 128
  .quad at + P + W + U + PS
  .set at, at + 0x200000
  .endr
  .fill 128, 8, 0
  .quad pt_window + 7
  .fill 255, 8, 0
pd_high:
  .set at, 0xc0000000
  .rept 512
  .quad at + P + W + PS + PCD
  .set at, at + 0x200000
  .endr
#endif

  .bss
  .balign 4096
  .globl gdt, idt, tss, pages, user_stack, user_stack_top, kernel_stack_top, interrupt_stack_top, stack_top
  .globl double_fault_stack_top
#if BITS == 32
  .globl page_directory, pt_window
page_directory: .skip 4096
#endif
pt_window: .skip 4096
pages: .skip 16 * 4096  // zeroed before each case
user_stack: .skip 4096
user_stack_top:
kernel_stack: .skip 4096
kernel_stack_top:
interrupt_stack: .skip 4096
interrupt_stack_top:
double_fault_stack: .skip 4096
double_fault_stack_top:
stack: .skip 8192
stack_top: .skip 64
gdt: .skip 32 * 8
idt: .skip 256 * 16
  .balign 128
tss: .skip 8192 + 256
  .balign 8
  .irp word, start_info, index, name, code, rounds, failed, skipped, case_sp, saved_bx, hook, resume, resume_sp, user_ip, user_flags, count
  .globl \word
\word: .skip 8
  .endr
  .irp word, vector, error, rip, cs, flags, rsp, ss, cr2, dr6, ds, es, frame
  .globl last_\word
last_\word: .skip 8
  .endr
