# A kernel of one trick: it adds device memory to a vector register, which KVM's emulator does not know, and writes the
# sum to the debug-exit port. Entered by PVH in flat 32-bit mode (Xen, docs/misc/pvh.pandoc).
#   Ends     with code 5: nothing answers at the address, so four times -1 is added to 6
        .code32
        .section .text
        .globl  start
start:  mov     %cr4, %eax
        or      $0x200, %eax            # OSFXSR
        mov     %eax, %cr4
        mov     $6, %eax
        movd    %eax, %xmm0
        paddd   0xd0000000, %xmm0
        movd    %xmm0, %eax
        mov     $0xf4, %edx
        out     %al, %dx
1:      hlt
        jmp     1b

        .section .note, "a", @note
        .long   4, 4, 18                # XEN_ELFNOTE_PHYS32_ENTRY
        .asciz  "Xen"
        .long   start
