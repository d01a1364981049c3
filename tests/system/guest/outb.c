// outb PORT VALUE: writes a byte to an I/O port (Debian's cloud kernel has no /dev/port).
#include <stdio.h>
#include <stdlib.h>
#include <sys/io.h>

int main(int count, char** arguments) {
  if (count != 3) return 2;
  if (iopl(3) != 0) {
    perror("iopl");
    return 1;
  }
  outb((unsigned char)strtoul(arguments[2], NULL, 0), (unsigned short)strtoul(arguments[1], NULL, 0));
  return 0;
}
