// A Multiboot kernel that says on the serial port what it was told, then ends the machine with debug-exit code 7, or 9
// where it was not started as the specification says. ADDRESSES=1: with addresses in its header.
.code32
.globl _start
.section .text
_start: jmp start
.balign 4
header: .long 0x1badb002
.if ADDRESSES
.long 0x00010003, -(0x1badb002 + 0x00010003), header, _start, text_end, _end, start
.else
.long 3, -(0x1badb002 + 3)
.endif
start:
  cmpl $0x2badb002, %eax
  jne wrong
  movl $stack_end, %esp
  movl %ebx, %ebp
  // Zeroed memory after the file, flags as they are to be, no paging.
  cmpl $0, zeroes
  jne wrong
  pushfl
  popl %eax
  testl $0x20200, %eax
  jnz wrong
  movl %cr0, %eax
  andl $0x80000001, %eax
  cmpl $1, %eax
  jne wrong
  movl (%ebp), %eax
  andl $0x24d, %eax
  cmpl $0x24d, %eax
  jne wrong
  movl 64(%ebp), %esi
  call print
  movl $colon, %esi
  call print
  movl 16(%ebp), %esi
  call print
  movl $newline, %esi
  call print
  cmpl $1, 20(%ebp)
  jne wrong
  movl 24(%ebp), %edi
  movl (%edi), %esi
  testl $0xfff, %esi
  jnz wrong
  movl 4(%edi), %ecx
  subl %esi, %ecx
1: lodsb
  call print_byte
  loop 1b
  // RAM from 1 MiB on, by the map and by mem_upper.
  movl 48(%ebp), %esi
  movl 44(%ebp), %ecx
  addl %esi, %ecx
2: cmpl %ecx, %esi
  jae wrong
  cmpl $0x100000, 4(%esi)
  je 3f
  addl (%esi), %esi
  addl $4, %esi
  jmp 2b
3: cmpl $1, 20(%esi)
  jne wrong
  movl 12(%esi), %eax
  shrl $10, %eax
  cmpl 8(%ebp), %eax
  jne wrong
  cmpl $120 * 1024, %eax
  jb wrong
  movb $7, %al
  outb %al, $0xf4
wrong:
  movb $9, %al
  outb %al, $0xf4
  hlt
print: lodsb
  testb %al, %al
  jz 4f
  call print_byte
  jmp print
4: ret
print_byte: movw $0x3f8, %dx
  outb %al, %dx
  ret
colon: .asciz ": "
newline: .asciz "\n"
text_end:
.section .bss
zeroes: .skip 4096
stack: .skip 4096
stack_end:
