// The serial line, and the comparison of the cases; assembled for both widths.
#include "payload.h"

  .text
  .globl put_char, put_text, put_hex, put_decimal, check
put_char:  // AL; keeps all
  push rAX
  push rDX
  push rCX
  mov ecx, eax
  mov edx, 0x3fd
1:
  in al, dx
  test al, 0x20
  jz 1b
  mov edx, 0x3f8
  mov eax, ecx
  out dx, al
  pop rCX
  pop rDX
  pop rAX
  ret

put_text:  // RSI: text that ends with 0
  push rAX
1:
  mov al, [rSI]
  add rSI, 1  // no one-byte INC: the runtime uses nothing that a case tests
  test al, al
  jz 2f
  call put_char
  jmp 1b
2:
  pop rAX
  ret

put_hex:  // RBX
  push rAX
  push rCX
  mov ecx, WORD_ * 8
1:
  sub ecx, 4
  mov rAX, rBX
  shr rAX, cl
  jnz 2f
  test ecx, ecx
  jnz 1b
2:
  mov rAX, rBX
  shr rAX, cl
  and eax, 15
  mov al, [digits + rAX]
  call put_char
  sub ecx, 4
  jns 2b
  pop rCX
  pop rAX
  ret

put_decimal:  // EBX
  push rAX
  push rCX
  push rDX
  mov eax, ebx
  mov ecx, 10
  push -1
1:
  xor edx, edx
  div ecx
  add edx, '0'
  push rDX
  test eax, eax
  jnz 1b
2:
  pop rAX
  cmp eax, -1
  je 3f
  call put_char
  jmp 2b
3:
  pop rDX
  pop rCX
  pop rAX
  ret

// On the stack: got, expected, line (takes them off). The first difference of a case is printed. Keeps everything.
check:
  PUSHF
  push rAX
  mov rAX, [rSP + 5 * WORD_]
  cmp rAX, [rSP + 4 * WORD_]
  je 1f
  cmp WPTR [failed], 0
  jne 1f
  mov WPTR [failed], 1
  push rBX
  push rSI
  mov rSI, offset text_fail
  call put_text
  mov rBX, [rSP + 5 * WORD_]
  call put_decimal
  mov rSI, offset text_got
  call put_text
  mov rBX, [rSP + 7 * WORD_]
  call put_hex
  mov rSI, offset text_expected
  call put_text
  mov rBX, [rSP + 6 * WORD_]
  call put_hex
  cmp WPTR [last_vector], NOTHING
  je 2f
  mov rSI, offset text_last
  call put_text
  mov rBX, [last_vector]
  call put_decimal
2:
  mov al, 10
  call put_char
  pop rSI
  pop rBX
1:
  pop rAX
  POPF
  ret 3 * WORD_

  .section .rodata
digits: .ascii "0123456789abcdef"
text_fail: .asciz "FAIL line "
text_got: .asciz ": got "
text_expected: .asciz " expected "
text_last: .asciz ", last vector "
