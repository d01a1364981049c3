// zeroout DEVICE OFFSET LENGTH: has the disk write zeroes itself, as mkfs does.
#include <fcntl.h>
#include <linux/fs.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const int disk = open(argv[1], O_RDWR);
  uint64_t range[2] = {strtoull(argv[2], NULL, 0), strtoull(argv[3], NULL, 0)};
  if (disk >= 0 && ioctl(disk, BLKZEROOUT, range) == 0) return 0;
  perror(argv[1]);
  return 1;
}
