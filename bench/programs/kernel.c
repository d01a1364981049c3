// What goes through the kernel: system calls, page faults, processes, context switches.
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

static uint64_t run_syscall(void) {
  uint64_t count = 0;
  for (int i = 0; i < 100000; ++i) count += syscall(SYS_getppid) >= 0;
  return count;
}

static uint64_t run_page_fault(void) {
  enum { PAGE = 4096, PAGES = 8192 };
  uint64_t count = 0;
  for (int round = 0; round < 2; ++round) {
    unsigned char* memory = mmap(NULL, PAGE * PAGES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) die("mmap");
    madvise(memory, PAGE * PAGES, MADV_NOHUGEPAGE);
    for (int i = 0; i < PAGES; ++i) {
      memory[(uint64_t)i * PAGE] = 1;
      count += memory[(uint64_t)i * PAGE];
    }
    munmap(memory, PAGE * PAGES);
  }
  return count;
}

static uint64_t start_children(int count, int execute) {
  uint64_t good = 0;
  for (int i = 0; i < count; ++i) {
    const pid_t child = fork();
    if (child < 0) die("fork");
    if (child == 0) {
      if (execute) execl("/proc/self/exe", "bench", "--true", (char*)NULL);
      _exit(execute);
    }
    int status;
    if (waitpid(child, &status, 0) != child) die("waitpid");
    good += status == 0;
  }
  return good;
}

static uint64_t run_fork(void) { return start_children(60, 0); }
static uint64_t run_fork_exec(void) { return start_children(40, 1); }

// A byte to and fro between two processes: four system calls and two switches each time.
static uint64_t run_switch(void) {
  enum { TIMES = 1000 };
  int there[2];
  int back[2];
  if (pipe(there) != 0 || pipe(back) != 0) die("pipe");
  const pid_t child = fork();
  if (child < 0) die("fork");
  char byte = 1;
  if (child == 0) {
    close(there[1]);
    close(back[0]);
    while (read(there[0], &byte, 1) == 1) {
      if (write(back[1], &byte, 1) != 1) _exit(1);
    }
    _exit(0);
  }
  close(there[0]);
  close(back[1]);
  uint64_t count = 0;
  for (int i = 0; i < TIMES; ++i) {
    if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1) die("pipe");
    count += (uint64_t)byte;
  }
  close(there[1]);
  close(back[0]);
  waitpid(child, NULL, 0);
  return count;
}

// Bytes from one process to another, as many as a pipe holds at a time.
static uint64_t run_pipe(void) {
  enum { CHUNK = 65536, TIMES = 200 };
  static char bytes[CHUNK];
  int ends[2];
  if (pipe(ends) != 0) die("pipe");
  const pid_t child = fork();
  if (child < 0) die("fork");
  if (child == 0) {
    close(ends[0]);
    for (int i = 0; i < TIMES; ++i) {
      if (write(ends[1], bytes, CHUNK) != CHUNK) _exit(1);
    }
    _exit(0);
  }
  close(ends[1]);
  uint64_t count = 0;
  ssize_t got;
  while ((got = read(ends[0], bytes, CHUNK)) > 0) count += (uint64_t)got;
  close(ends[0]);
  int status;
  if (waitpid(child, &status, 0) != child || status != 0) die("pipe");
  return count;
}

const struct bench kernel_benches[] = {{"kernel", "syscall", run_syscall},
                                       {"kernel", "page-fault", run_page_fault},
                                       {"kernel", "fork", run_fork},
                                       {"kernel", "fork+exec", run_fork_exec},
                                       {"kernel", "switch", run_switch},
                                       {"kernel", "pipe", run_pipe},
                                       {NULL, NULL, NULL}};
