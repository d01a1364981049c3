# Says so with its first three instructions, then waits. Entered by PVH in flat 32-bit mode (Xen, docs/misc/pvh.pandoc).
        .code32
        .section .text
        .globl  start
start:  mov     $0x3f8, %edx
        mov     $'!', %al
        out     %al, %dx
1:      cli
        hlt
        jmp     1b

        .section .note, "a", @note
        .long   4, 4, 18                # XEN_ELFNOTE_PHYS32_ENTRY
        .asciz  "Xen"
        .long   start
