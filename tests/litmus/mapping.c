// Code and page tables that change on one CPU while another uses them.
//   Source   Intel SDM vol. 3, 8.1.3 (cross-modifying code), 4.10.4 and 4.10.5 (what Linux does with shoot-downs)
#define _GNU_SOURCE
#include <cpuid.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "litmus.h"

enum { PAGE = 4096 };

struct shared {
  unsigned char* page;
  volatile uint64_t turn, answered, stop;
  uint64_t tries, wrong;
  int broken;
};

// One writes code, the other executes a serializing instruction before it runs it (8.1.3): it returns the new number.
static void code_thread(void* argument, int index) {
  struct shared* shared = argument;
  for (uint64_t number = 1;; ++number) {
    if (index == 0) {
      const uint32_t value = (uint32_t)number;
      if (time_is_up()) shared->stop = 1;
      if (shared->broken) {  // says so too early
        __atomic_store_n(&shared->turn, number, __ATOMIC_SEQ_CST);
        for (int i = 0; i < 1000 && shared->answered < number; ++i) __builtin_ia32_pause();
      }
      shared->page[0] = 0xb8;  // mov $value, %eax; ret
      memcpy(shared->page + 1, &value, sizeof value);
      shared->page[5] = 0xc3;
      __atomic_store_n(&shared->turn, number, __ATOMIC_SEQ_CST);
      if (shared->stop) return;
      wait_until(&shared->answered, number);
      continue;
    }
    wait_until(&shared->turn, number);
    if (shared->stop) return;
    unsigned a;
    unsigned b;
    unsigned c;
    unsigned d;
    __cpuid(0, a, b, c, d);
    uint32_t (*run)(void);
    memcpy(&run, &shared->page, sizeof run);
    shared->wrong += run() != (uint32_t)number;
    ++shared->tries;
    __atomic_store_n(&shared->answered, number, __ATOMIC_SEQ_CST);
  }
}

static unsigned char* new_page(int protection, int flags) {
  unsigned char* page = mmap(NULL, PAGE, protection, flags | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) die("mmap");
  return page;
}

static void run_code(struct result* result, int broken) {
  struct shared shared = {.broken = broken};
  shared.page = new_page(PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE);
  memcpy(shared.page, (unsigned char[]){0xb8, 0, 0, 0, 0, 0xc3}, 6);
  run_threads(2, code_thread, &shared);
  result->tries = shared.tries;
  result->wrong = shared.wrong;
  munmap(shared.page, PAGE);
}

static __thread sigjmp_buf back;
static void on_fault(int number) { siglongjmp(back, number); }

// Counts in the page as long as it can be written; a fault is a try again.
static void count_in_page(struct shared* shared) {
  while (!shared->stop) {
    if (sigsetjmp(back, 1) != 0) __builtin_ia32_pause();
    while (!shared->stop) ++*(volatile uint64_t*)(void*)shared->page;
  }
}

// After mprotect() or munmap() has returned no other CPU may write through an old mapping.
static void protect_thread(void* argument, int index) {
  struct shared* shared = argument;
  if (index == 1) {
    count_in_page(shared);
    return;
  }
  volatile uint64_t* counter = (volatile uint64_t*)(void*)shared->page;
  while (!time_is_up()) {
    const uint64_t begin = *counter;
    for (int i = 0; i < 100 && *counter == begin; ++i) __builtin_ia32_pause();
    if (!shared->broken && mprotect(shared->page, PAGE, PROT_READ) != 0) die("mprotect");
    const uint64_t frozen = *counter;
    for (int i = 0; i < 300; ++i) __builtin_ia32_pause();
    shared->wrong += *counter != frozen;
    ++shared->tries;
    if (!shared->broken && mprotect(shared->page, PAGE, PROT_READ | PROT_WRITE) != 0) die("mprotect");
  }
  shared->stop = 1;
}

// The page is replaced: what is written through the old mapping must not show up in the page that was taken away, of
// which a second mapping remains.
static void unmap_thread(void* argument, int index) {
  struct shared* shared = argument;
  if (index == 1) {
    count_in_page(shared);
    return;
  }
  while (!time_is_up()) {
    unsigned char* kept = mremap(shared->page, 0, PAGE, MREMAP_MAYMOVE);  // of shared memory: a second mapping
    if (kept == MAP_FAILED) die("mremap");
    volatile uint64_t* counter = (volatile uint64_t*)(void*)kept;
    const uint64_t begin = *counter;
    for (int i = 0; i < 100 && *counter == begin; ++i) __builtin_ia32_pause();
    if (!shared->broken && munmap(shared->page, PAGE) != 0) die("munmap");
    const uint64_t frozen = *counter;
    for (int i = 0; i < 300; ++i) __builtin_ia32_pause();
    shared->wrong += *counter != frozen;
    ++shared->tries;
    munmap(kept, PAGE);
    if (shared->broken) continue;
    if (mmap(shared->page, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != shared->page)
      die("mmap");
  }
  shared->stop = 1;
}

// A child keeps what a page held at the fork, however much the parent's other thread goes on writing.
static void fork_thread(void* argument, int index) {
  struct shared* shared = argument;
  if (index == 1) {
    count_in_page(shared);
    return;
  }
  while (!time_is_up()) {
    const pid_t child = fork();
    if (child < 0) die("fork");
    if (child == 0) {
      volatile uint64_t* counter = (volatile uint64_t*)(void*)shared->page;
      const uint64_t begin = *counter;
      int changed = 0;
      for (int i = 0; i < 3000; ++i) {
        __builtin_ia32_pause();
        changed |= *counter != begin;
      }
      _exit(changed);
    }
    int status;
    if (waitpid(child, &status, 0) != child) die("waitpid");
    shared->wrong += status != 0;
    ++shared->tries;
  }
  shared->stop = 1;
}

static void run_on_page(struct result* result, int broken, int flags, void (*body)(void*, int)) {
  struct sigaction action = {.sa_handler = on_fault};
  sigaction(SIGSEGV, &action, NULL);
  struct shared shared = {.broken = broken};
  shared.page = new_page(PROT_READ | PROT_WRITE, flags);
  run_threads(2, body, &shared);
  result->tries = shared.tries;
  result->wrong = shared.wrong;
  munmap(shared.page, PAGE);
  signal(SIGSEGV, SIG_DFL);
}
static void run_protect(struct result* result, int broken) { run_on_page(result, broken, MAP_PRIVATE, protect_thread); }
static void run_unmap(struct result* result, int broken) { run_on_page(result, broken, MAP_SHARED, unmap_thread); }
static void run_fork(struct result* result, int broken) {
  run_on_page(result, broken, broken ? MAP_SHARED : MAP_PRIVATE, fork_thread);
}

const struct test mapping_tests[] = {
    {"code", run_code}, {"mprotect", run_protect}, {"munmap", run_unmap}, {"fork", run_fork}, {NULL, NULL}};
