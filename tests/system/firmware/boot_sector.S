# A boot sector that prints by the BIOS, then ends the machine with debug-exit code 7.
.code16
.globl _start
_start: cli; xorw %ax,%ax; movw %ax,%ds; movw $msg,%si; cld
1: lodsb; testb %al,%al; jz 2f; movb $0x0e,%ah; movw $7,%bx; int $0x10; jmp 1b
2: sti; movw 0x46c,%cx; addw $4,%cx
4: hlt; cmpw %cx,0x46c; jb 4b
movb $7,%al; outb %al,$0xf4
3: hlt; jmp 3b
msg: .asciz "hello from the boot sector\r\n"
.org 510
.word 0xaa55
