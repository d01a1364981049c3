// Ordering and atomicity of memory accesses.
//   Source   Intel SDM vol. 3, 8.1.1 (atomicity), 8.1.2 (LOCK), 8.2.2 and 8.2.3 (what may be seen in another order)
#define _GNU_SOURCE
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "litmus.h"

enum { CELLS = 512, LINE = 64, MOST_THREADS = 4 };

// One small race; its variables stand in lines of their own.
struct cell {
  uint64_t x __attribute__((aligned(LINE)));
  uint64_t y __attribute__((aligned(LINE)));
  uint64_t arrived __attribute__((aligned(LINE)));
  uint64_t seen[MOST_THREADS];
};

struct race {
  void (*side)(struct cell* cell, int index, int broken);
  int threads, broken;
  struct cell* cells;
  volatile uint64_t round, done, stop;
  void (*judge)(const struct cell* cell, struct result* result);
  struct result* result;
};

static void race_thread(void* argument, int index) {
  struct race* race = argument;
  for (uint64_t round = 1;; ++round) {
    if (index == 0) {
      race->stop = time_is_up();
      memset(race->cells, 0, CELLS * sizeof(struct cell));
      __atomic_store_n(&race->round, round, __ATOMIC_SEQ_CST);
    } else {
      wait_until(&race->round, round);
    }
    if (race->stop) return;
    for (int i = 0; i < CELLS; ++i) {
      struct cell* cell = &race->cells[i];
      // All begin a cell at about the same time.
      __atomic_fetch_add(&cell->arrived, 1, __ATOMIC_SEQ_CST);
      wait_until(&cell->arrived, (uint64_t)race->threads);
      race->side(cell, index, race->broken);
    }
    __atomic_fetch_add(&race->done, 1, __ATOMIC_SEQ_CST);
    wait_until(&race->done, round * (uint64_t)race->threads);
    if (index != 0) continue;
    for (int i = 0; i < CELLS; ++i) race->judge(&race->cells[i], race->result);
    race->result->tries += CELLS;
  }
}

static void run_race(struct result* result, int broken, int threads, void (*side)(struct cell*, int, int),
                     void (*judge)(const struct cell*, struct result*)) {
  struct race race = {side, threads, broken, NULL, 0, 0, 0, judge, result};
  race.cells = aligned_alloc(4096, CELLS * sizeof(struct cell));
  if (race.cells == NULL) die("aligned_alloc");
  run_threads(threads, race_thread, &race);
  free(race.cells);
}

static void store(uint64_t* where) { __asm__ volatile("movq $1, %0" : "=m"(*where)); }
static uint64_t load(uint64_t* where) {
  uint64_t value;
  __asm__ volatile("movq %1, %0" : "=r"(value) : "m"(*where) : "memory");
  return value;
}

// Store buffering (8.2.3.4): both may read 0, unless a fence or a locked instruction stands between.
static void sb_side(struct cell* cell, int index, int broken) {
  (void)broken;
  store(index == 0 ? &cell->x : &cell->y);
  cell->seen[index] = load(index == 0 ? &cell->y : &cell->x);
}
static void sb_fence_side(struct cell* cell, int index, int broken) {
  store(index == 0 ? &cell->x : &cell->y);
  if (!broken) __asm__ volatile("mfence" ::: "memory");
  cell->seen[index] = load(index == 0 ? &cell->y : &cell->x);
}
static void sb_lock_side(struct cell* cell, int index, int broken) {
  uint64_t* mine = index == 0 ? &cell->x : &cell->y;
  uint64_t one = 1;
  if (broken) {
    store(mine);
  } else {
    __asm__ volatile("xchgq %0, %1" : "+r"(one), "+m"(*mine)::"memory");
  }
  cell->seen[index] = load(index == 0 ? &cell->y : &cell->x);
}
static void both_zero_is_relaxed(const struct cell* cell, struct result* result) {
  result->relaxed += cell->seen[0] == 0 && cell->seen[1] == 0;
}
static void both_zero_is_wrong(const struct cell* cell, struct result* result) {
  result->wrong += cell->seen[0] == 0 && cell->seen[1] == 0;
}
static void run_sb_fence(struct result* result, int broken) {
  run_race(result, broken, 2, sb_fence_side, both_zero_is_wrong);
}
static void run_sb_lock(struct result* result, int broken) {
  run_race(result, broken, 2, sb_lock_side, both_zero_is_wrong);
}
// Nothing can be wrong here; broken, the relaxed outcome itself is what has to come.
static void run_sb(struct result* result, int broken) {
  run_race(result, broken, 2, sb_side, both_zero_is_relaxed);
  if (broken) result->wrong = result->relaxed;
}

// Message passing (8.2.3.2): who sees the flag sees the message.
static void mp_side(struct cell* cell, int index, int broken) {
  if (index == 0) {
    store(broken ? &cell->y : &cell->x);
    store(broken ? &cell->x : &cell->y);
  } else {
    cell->seen[0] = load(&cell->y);
    cell->seen[1] = load(&cell->x);
  }
}
static void flag_without_message(const struct cell* cell, struct result* result) {
  result->wrong += cell->seen[0] == 1 && cell->seen[1] == 0;
}
static void run_mp(struct result* result, int broken) { run_race(result, broken, 2, mp_side, flag_without_message); }

// Load buffering (8.2.3.3): a store is not seen before the load that stands ahead of it.
static void lb_side(struct cell* cell, int index, int broken) {
  uint64_t* from = index == 0 ? &cell->x : &cell->y;
  uint64_t* to = index == 0 ? &cell->y : &cell->x;
  if (broken) store(to);
  cell->seen[index] = load(from);
  if (!broken) store(to);
}
static void both_one(const struct cell* cell, struct result* result) {
  result->wrong += cell->seen[0] == 1 && cell->seen[1] == 1;
}
static void run_lb(struct result* result, int broken) { run_race(result, broken, 2, lb_side, both_one); }

// Independent reads of independent writes (8.2.3.7): all agree on the order of two stores.
static void iriw_side(struct cell* cell, int index, int broken) {
  if (index < 2) {
    store(index == 0 ? &cell->x : &cell->y);
    return;
  }
  uint64_t* first = index == 2 ? &cell->x : &cell->y;
  uint64_t* second = index == 2 ? &cell->y : &cell->x;
  const int early = index == 2 ? 0 : 2;
  if (broken) {
    cell->seen[early + 1] = load(second);
    sched_yield();
    cell->seen[early] = load(first);
  } else {
    cell->seen[early] = load(first);
    cell->seen[early + 1] = load(second);
  }
}
static void readers_disagree(const struct cell* cell, struct result* result) {
  result->wrong += cell->seen[0] == 1 && cell->seen[1] == 0 && cell->seen[2] == 1 && cell->seen[3] == 0;
}
static void run_iriw(struct result* result, int broken) { run_race(result, broken, 4, iriw_side, readers_disagree); }

// What two threads do to the same bytes at once.
struct shared {
  unsigned char line[2 * LINE] __attribute__((aligned(LINE)));
  volatile uint64_t stop;
  uint64_t done[2], wrong;
  int broken;
};

// Counters of all sizes (8.1.2.2): no addition is lost.
static void count_thread(void* argument, int index) {
  struct shared* shared = argument;
  uint32_t* dword = (uint32_t*)(void*)shared->line;
  uint64_t* qword = (uint64_t*)(void*)(shared->line + 8);
  uint16_t* word = (uint16_t*)(void*)(shared->line + 16);
  uint64_t* compared = (uint64_t*)(void*)(shared->line + 24);
  while (!time_is_up()) {
    for (int i = 0; i < 1000; ++i) {
      if (shared->broken) {
        __asm__ volatile("incl %0; incq %1; incw %2; addq $1, %3"
                         : "+m"(*dword), "+m"(*qword), "+m"(*word), "+m"(*compared));
        continue;
      }
      uint64_t one = 1;
      __asm__ volatile("lock incl %0; lock xaddq %3, %1; lock addw $1, %2"
                       : "+m"(*dword), "+m"(*qword), "+m"(*word), "+r"(one));
      uint64_t old = *(volatile uint64_t*)compared;
      uint8_t same;
      do {
        __asm__ volatile("lock cmpxchgq %3, %1; sete %2"
                         : "+a"(old), "+m"(*compared), "=q"(same)
                         : "r"(old + 1)
                         : "cc");
      } while (!same);
    }
    shared->done[index] += 1000;
  }
}
static void run_lock(struct result* result, int broken) {
  struct shared* shared = aligned_alloc(LINE, sizeof *shared);
  if (shared == NULL) die("aligned_alloc");
  memset(shared, 0, sizeof *shared);
  shared->broken = broken;
  run_threads(2, count_thread, shared);
  result->tries = shared->done[0] + shared->done[1];
  uint32_t dword;
  uint64_t qword;
  uint16_t word;
  uint64_t compared;
  memcpy(&dword, shared->line, sizeof dword);
  memcpy(&qword, shared->line + 8, sizeof qword);
  memcpy(&word, shared->line + 16, sizeof word);
  memcpy(&compared, shared->line + 24, sizeof compared);
  result->wrong = (dword != (uint32_t)result->tries) + (qword != result->tries) + (word != (uint16_t)result->tries) +
                  (compared != result->tries);
  free(shared);
}

// The same across two cache lines: LOCK holds whatever the alignment (8.1.2.2).
static void split_thread(void* argument, int index) {
  struct shared* shared = argument;
  uint64_t* split = (uint64_t*)(void*)(shared->line + LINE - 3);
  while (!time_is_up()) {
    for (int i = 0; i < 50; ++i) {
      if (shared->broken) {
        __asm__ volatile("incq %0" : "+m"(*split));
      } else {
        __asm__ volatile("lock incq %0" : "+m"(*split));
      }
    }
    shared->done[index] += 50;
  }
}
static void run_split(struct result* result, int broken) {
  struct shared* shared = aligned_alloc(LINE, sizeof *shared);
  if (shared == NULL) die("aligned_alloc");
  memset(shared, 0, sizeof *shared);
  shared->broken = broken;
  run_threads(2, split_thread, shared);
  uint64_t value;
  memcpy(&value, shared->line + LINE - 3, sizeof value);
  result->tries = shared->done[0] + shared->done[1];
  result->wrong = value != result->tries;
  free(shared);
}

// Aligned 8 bytes, 8 bytes anywhere in a line, and 16 bytes by CMPXCHG16B are all there or not at all (8.1.1). The
// writer stores numbers whose halves are equal.
typedef uint64_t pair __attribute__((vector_size(16)));
static void whole_thread(void* argument, int index) {
  struct shared* shared = argument;
  uint64_t* aligned = (uint64_t*)(void*)shared->line;
  uint64_t* anywhere = (uint64_t*)(void*)(shared->line + 13);
  uint64_t* wide = (uint64_t*)(void*)(shared->line + 32);
  uint64_t number = 0;
  while (!time_is_up()) {
    for (int i = 0; i < 1000; ++i) {
      if (index == 0) {
        ++number;
        const uint64_t both = (number & 0xffffffff) << 32 | (number & 0xffffffff);
        if (shared->broken) {
          volatile uint32_t* a = (uint32_t*)(void*)aligned;
          volatile uint32_t* b = (uint32_t*)(void*)anywhere;
          a[0] = a[1] = (uint32_t)number;
          b[0] = b[1] = (uint32_t)number;
          *(volatile uint64_t*)&wide[0] = both;
          *(volatile uint64_t*)&wide[1] = both;
          continue;
        }
        __asm__ volatile("movq %2, %0; movq %2, %1" : "=m"(*aligned), "=m"(*anywhere) : "r"(both));
        uint64_t low = wide[0];
        uint64_t high = wide[1];
        __asm__ volatile("lock cmpxchg16b %0"
                         : "+m"(*(pair*)(void*)wide), "+a"(low), "+d"(high)
                         : "b"(both), "c"(both)
                         : "cc");
      } else {
        const uint64_t a = load(aligned);
        const uint64_t b = load(anywhere);
        uint64_t low = 0;
        uint64_t high = 0;
        if (shared->broken) {
          low = load(&wide[0]);
          high = load(&wide[1]);
        } else {
          __asm__ volatile("lock cmpxchg16b %0"
                           : "+m"(*(pair*)(void*)wide), "+a"(low), "+d"(high)
                           : "b"(0), "c"(0)
                           : "cc");
        }
        shared->wrong += (uint32_t)a != a >> 32 || (uint32_t)b != b >> 32 || low != high;
      }
    }
    shared->done[index] += 1000;
  }
}
static void run_whole(struct result* result, int broken) {
  struct shared* shared = aligned_alloc(LINE, sizeof *shared);
  if (shared == NULL) die("aligned_alloc");
  memset(shared, 0, sizeof *shared);
  shared->broken = broken;
  run_threads(2, whole_thread, shared);
  result->tries = shared->done[1];
  result->wrong = shared->wrong;
  free(shared);
}

const struct test memory_tests[] = {
    {"sb", run_sb},     {"sb+mfence", run_sb_fence}, {"sb+xchg", run_sb_lock},  {"mp", run_mp},       {"lb", run_lb},
    {"iriw", run_iriw}, {"lock", run_lock},          {"lock-split", run_split}, {"whole", run_whole}, {NULL, NULL}};
