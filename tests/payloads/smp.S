// Two CPUs: start-up, IPIs, locked operations also across cache lines and pages, cross-modifying code, TLB shoot-down.
//   Source   Intel SDM vol. 3, 8.1 (locked atomic operations), 8.1.3, 8.4 (MP initialization), 10.6 (IPIs), 4.10.5
#include "payload.h"

#define APIC 0xfee00000
#define TRAMPOLINE 0x8000

// The second CPU waits in a loop for [work] to become a function's address, calls it, and writes 0 there.
  .macro start_second
    mov eax, [second_is_up]
    test eax, eax
    jnz .Lup\@
    mov esi, offset trampoline
    mov edi, TRAMPOLINE
    mov ecx, offset trampoline_end - trampoline
    rep movsb
    mov eax, APIC + 0xf0
    mov dword ptr [rax], 0x1ff
    mov eax, APIC + 0x300
    mov dword ptr [rax], 0xc4500  // INIT, all but self
    mov ecx, 100000
    .Lwait\@:
    pause
    loop .Lwait\@
    mov dword ptr [rax], 0xc4600 + (TRAMPOLINE >> 12)
    mov rcx, 2000000000
    .Lwait_up\@:
    pause
    cmp dword ptr [second_is_up], 0
    jne .Lup\@
    dec rcx
    jnz .Lwait_up\@
    .Lup\@:
    is_ [second_is_up], 1, 0
    .endm
  .macro second_does what
    mov qword ptr [work], offset \what
  .endm
  .macro second_done
    .Lbusy\@:
    pause
    cmp qword ptr [work], 0
    jne .Lbusy\@
  .endm

  .code16
trampoline:
  cli
  xor ax, ax
  mov ds, ax
  data32 lgdt [TRAMPOLINE + trampoline_gdt - trampoline]
  mov eax, 0x11
  mov cr0, eax
  .byte 0x66, 0xea
  .long second_32
  .word CODE32
trampoline_gdt:
  .word 32 * 8 - 1
  .long gdt
trampoline_end:
  .code32
second_32:
  mov eax, KDATA
  mov ds, eax
  mov es, eax
  mov ss, eax
  mov eax, CR4_PAE + CR4_OSFXSR + CR4_OSXMMEXCPT + CR4_PGE
  mov cr4, eax
  mov eax, offset pml4
  mov cr3, eax
  mov ecx, 0xc0000080
  mov eax, 0x901
  xor edx, edx
  wrmsr
  mov eax, 0x80010033
  mov cr0, eax
  .byte 0xea
  .long second_64
  .word KCODE
  .code64
second_64:
  mov rsp, offset second_stack_top
  lidt [second_idt_pointer]
  mov eax, APIC + 0xf0
  mov dword ptr [rax], 0x1ff
  mov dword ptr [second_is_up], 1
1:
  pause
  mov rax, [work]
  test rax, rax
  jz 1b
  call rax
  mov qword ptr [work], 0
  jmp 1b

CASE(second_cpu_starts)
  start_second
  second_does identify
  second_done
  mov eax, APIC + 0x20
  mov eax, [rax]
  shr eax, 24
  mov ecx, [pages]
  xor ecx, 1
  IS(rax, rcx)
  ret
identify:
  mov eax, APIC + 0x20
  mov eax, [rax]
  shr eax, 24
  mov [pages], eax
  ret

  // Both CPUs do the same 20,000 times.
  .macro both name, insn:vararg
    CASE(\name)
    start_second
    second_does \name\()_body
    call \name\()_body
    second_done
    jmp \name\()_check
  \name\()_body:
    mov edx, 20000
    .Lround\@:
    \insn
    dec edx
    jnz .Lround\@
    ret
  \name\()_check:
  .endm
  // The same at most 25 times, and for a quarter of a second or so: hosts slow down on purpose what crosses cache lines,
  // from half a millisecond to a tenth of a second for each, more the more there are. Leaves in EDI how often both have done it.
  .macro both_slowly name, insn:vararg
    CASE(\name)
    start_second
    second_does \name\()_second
    call \name\()_body
    second_done
    add edi, [second_rounds]
    jmp \name\()_check
  \name\()_second:
    call \name\()_body
    mov [second_rounds], edi
    ret
  \name\()_body:
    xor edi, edi
    call cycles
    lea r8, [rax + 0x20000000]
    .Lround\@:
    \insn
    inc edi
    call cycles
    cmp rax, r8
    jae .Lenough\@
    cmp edi, 25
    jb .Lround\@
    .Lenough\@:
    ret
  \name\()_check:
  .endm
  both locked_increment, lock inc dword ptr [pages]
  IS([pages], 40000)
  END
  both_slowly locked_add_across_cache_line, lock add qword ptr [pages + 60], 1
  mov rax, [pages + 60]
  IS(rax, rdi)
  END
  both_slowly exchange_add_across_cache_line, call exchange_add
  mov eax, [pages + 62]
  IS(rax, rdi)
  ret
cycles:
  rdtsc
  shl rdx, 32
  or rax, rdx
  ret
exchange_add:
  mov eax, 1
  lock xadd [pages + 62], eax
  ret
  both compare_exchange_loop, call add_by_compare
  IS([pages], 40000)
  ret
add_by_compare:
  mov eax, [pages]
1:
  lea ecx, [rax + 1]
  lock cmpxchg [pages], ecx
  jne 1b
  ret
  both compare_exchange_16_bytes, call add_by_compare_16
  IS([pages], 40000)
  IS([pages + 8], -40000)
  ret
add_by_compare_16:
  push rdx
  mov rax, [pages]
  mov rdx, [pages + 8]
1:
  lea rbx, [rax + 1]
  lea rcx, [rdx - 1]
  lock cmpxchg16b [pages]
  jne 1b
  pop rdx
  ret
  both spin_lock_by_xchg, call under_lock
  IS([pages + 64], 40000)
  ret
under_lock:
  mov eax, 1
1:
  xchg eax, [pages]
  test eax, eax
  jz 2f
  pause
  jmp 1b
2:
  inc dword ptr [pages + 64]
  mov dword ptr [pages], 0
  ret
  both locked_bit_set, call bits
  IS([pages + 128], 40000)
  ret
bits:  // each change of the bit is one CPU's
  lock bts dword ptr [pages], 5
  jc bits
  inc dword ptr [pages + 128]
  lock btr dword ptr [pages], 5
  ret
  both_slowly locked_add_across_pages, lock add dword ptr [pages + 4094], 1
  mov eax, [pages + 4094]
  IS(rax, rdi)
  END

CASE(interprocessor_interrupt)  // to the other, by physical ID; it counts
  start_second
  second_does enable_interrupts
  second_done
  mov dword ptr [second_count], 0
  mov edi, 30
1:
  mov ebx, [second_count]
  mov ecx, [pages]
  mov eax, APIC + 0x20
  mov ecx, [rax]
  xor ecx, 1 << 24
  mov eax, APIC + 0x310
  mov [rax], ecx
  mov eax, APIC + 0x300
  mov dword ptr [rax], 0x4000 + 0x60
2:
  pause
  cmp [second_count], ebx
  je 2b
  dec edi
  jnz 1b
  mov eax, [second_count]
  IS(rax, 30)
  second_does disable_interrupts
  second_done
  ret
enable_interrupts:
  mov eax, offset second_handler
  mov [second_idt + 0x60 * 16], ax
  mov word ptr [second_idt + 0x60 * 16 + 2], KCODE
  mov word ptr [second_idt + 0x60 * 16 + 4], 0x8e00
  shr eax, 16
  mov [second_idt + 0x60 * 16 + 6], ax
  sti
  ret
disable_interrupts:
  cli
  ret
second_handler:
  push rax
  inc dword ptr [second_count]
  mov eax, APIC + 0xb0
  mov dword ptr [rax], 0
  pop rax
  iretq

CASE(tlb_shoot_down)  // the other CPU invalidates when it is asked, and sees the new page then
  start_second
  MAP(0, pages, P + W)
  mov dword ptr [pages], 1
  mov dword ptr [pages + 4096], 2
  second_does flush_and_read
  second_done
  mov eax, [second_saw]
  IS(rax, 1)
  mov qword ptr [PTE(0)], offset pages + 4096 + P + W
  second_does flush_and_read
  second_done
  mov eax, [second_saw]
  IS(rax, 2)
  ret
flush_and_read:
  invlpg [PAGE(0)]
  mov eax, [PAGE(0)]
  mov [second_saw], eax
  ret

CASE(cross_modifying_code)  // by the protocol of 8.1.3: wait, serialize, run
  start_second
  mov byte ptr [pages], 0xb8
  mov dword ptr [pages + 1], 0
  mov byte ptr [pages + 5], 0xc3
  mov edi, 40
1:
  mov [pages + 1], edi
  second_does run_page
  second_done
  mov eax, [second_saw]
  IS(rax, rdi)
  dec edi
  jnz 1b
  ret
run_page:
  xor eax, eax
  cpuid
  mov eax, offset pages
  call rax
  mov [second_saw], eax
  ret
  // The second runs "mov eax, 7; ret" at `pages` until it is told to stop, and notes what it got.
  .macro second_runs_code
    start_second
    mov byte ptr [pages], 0xb8
    mov dword ptr [pages + 1], 7
    mov byte ptr [pages + 5], 0xc3
    mov dword ptr [stop], 0
    second_does run_until_stopped
  .endm
  .macro second_ran_well
    mov dword ptr [stop], 1
    second_done
    mov eax, [wrong]
    IS(rax, 0)
    ret
  .endm
CASE(cross_modifying_running_code)  // an aligned byte changes under the other's feet: the old or the new, and the new in the end
  second_runs_code
  mov edi, 2000
1:
  mov byte ptr [pages + 1], 9
  mov byte ptr [pages + 1], 7
  dec edi
  jnz 1b
  mov byte ptr [pages + 1], 9
2:  // without an end: a CPU that never sees it hangs here, and the driver says so
  pause
  cmp dword ptr [second_saw], 9
  jne 2b
  second_ran_well
run_until_stopped:
  mov dword ptr [wrong], 0
1:
  mov eax, offset pages
  call rax
  mov [second_saw], eax
  cmp eax, 7
  je 2f
  cmp eax, 9
  je 2f
  mov dword ptr [wrong], 1
2:
  cmp dword ptr [stop], 0
  je 1b
  ret
CASE(cross_modifying_seen_each_time)  // after bursts of any length the last store is seen
  second_runs_code
  mov edi, 150
  mov eax, 7
1:
  mov ecx, edi
  and ecx, 31
  inc ecx
3:
  xor eax, 7 ^ 9
  mov byte ptr [pages + 1], al
  dec ecx
  jnz 3b
2:  // without an end, as above
  pause
  cmp dword ptr [second_saw], eax
  jne 2b
  dec edi
  jnz 1b
  second_ran_well
CASE(store_order)  // what one CPU writes first the other never sees later (8.2.2)
  start_second
  mov dword ptr [stop], 0
  second_does write_in_order
  mov edi, 200000
  xor ebx, ebx
1:
  mov eax, [pages + 2048]
  mov ecx, [pages]
  cmp ecx, eax
  setb dl
  movzx edx, dl
  or ebx, edx
  dec edi
  jnz 1b
  mov dword ptr [stop], 1
  second_done
  IS(rbx, 0)
  ret
write_in_order:
  xor eax, eax
1:
  inc eax
  mov [pages], eax
  mov [pages + 2048], eax
  cmp dword ptr [stop], 0
  je 1b
  ret
CASE(vector_registers_while_pages_become_code)  // a CPU that must give up its right to store to a page loses nothing else
  start_second
  mov dword ptr [stop], 0
  second_does keep_vector_registers
  mov edi, 1000
1:
  mov byte ptr [pages + 2048], 0xc3
  mov eax, offset pages + 2048
  call rax
  dec edi
  jnz 1b
  second_ran_well
keep_vector_registers:
  mov dword ptr [wrong], 0
1:
  mov rax, 0x123456789abcdef0
  .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
  movq xmm\n, rax
  punpcklqdq xmm\n, xmm\n
  .endr
  mov ecx, 100
2:
  mov [pages], ecx
  dec ecx
  jnz 2b
  .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
  movq rdx, xmm\n
  psrldq xmm\n, 8
  movq rbx, xmm\n
  xor rdx, rax
  xor rbx, rax
  or rdx, rbx
  setne bl
  movzx ebx, bl
  or [wrong], ebx
  .endr
  cmp dword ptr [stop], 0
  je 1b
  ret

  .data
  .balign 8
second_idt_pointer: .word 256 * 16 - 1
  .quad second_idt
second_is_up: .quad 0
work: .quad 0
second_count: .quad 0
second_rounds: .quad 0
second_saw: .quad 0
stop: .quad 0
wrong: .quad 0

  .bss
  .balign 16
second_idt: .skip 256 * 16
second_stack: .skip 4096
second_stack_top: .skip 16
