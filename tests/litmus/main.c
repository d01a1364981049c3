// litmus SECONDS [--broken] [NAME…]   each test for that long: a line "litmus NAME TRIES WRONG RELAXED".
// Status 0: no wrong outcome; with --broken: wrong outcomes in every test.
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "litmus.h"

static struct timespec deadline;
static int crowded;  // more threads than CPUs

void die(const char* what) {
  perror(what);
  _exit(2);
}

static void set_deadline(double seconds) {
  clock_gettime(CLOCK_MONOTONIC, &deadline);
  const long long end = deadline.tv_nsec + (long long)(seconds * 1e9);
  deadline.tv_sec += end / 1000000000;
  deadline.tv_nsec = end % 1000000000;
}

int time_is_up(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec > deadline.tv_sec || (now.tv_sec == deadline.tv_sec && now.tv_nsec >= deadline.tv_nsec);
}

void wait_until(const volatile uint64_t* word, uint64_t value) {
  for (uint64_t spins = 1; *word < value; ++spins) {
    // With more threads than CPUs, or on a host that has other things to do, the other may not run at all.
    if (spins % (crowded ? 16 : 4096) == 0) sched_yield();
    __builtin_ia32_pause();
  }
}

struct start {
  void (*body)(void*, int);
  void* argument;
  int index;
};

static void* enter(void* argument) {
  const struct start* start = argument;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET((unsigned)(start->index % sysconf(_SC_NPROCESSORS_ONLN)), &set);
  sched_setaffinity(0, sizeof set, &set);
  start->body(start->argument, start->index);
  return NULL;
}

void run_threads(int count, void (*body)(void* argument, int index), void* argument) {
  enum { MOST = 4 };
  pthread_t threads[MOST];
  struct start starts[MOST];
  crowded = count > sysconf(_SC_NPROCESSORS_ONLN);
  for (int i = 0; i < count; ++i) {
    starts[i] = (struct start){body, argument, i};
    if (pthread_create(&threads[i], NULL, enter, &starts[i]) != 0) die("pthread_create");
  }
  for (int i = 0; i < count; ++i) pthread_join(threads[i], NULL);
}

int main(int count, char** arguments) {
  int broken = 0;
  int named = 0;
  if (count < 2) return 2;
  const double seconds = atof(arguments[1]);
  for (int i = 2; i < count; ++i) {
    if (strcmp(arguments[i], "--broken") == 0) {
      broken = 1;
    } else {
      named = 1;
    }
  }
  setvbuf(stdout, NULL, _IOLBF, 0);
  int status = 0;
  const struct test* groups[] = {memory_tests, mapping_tests};
  for (int g = 0; g < 2; ++g) {
    for (const struct test* test = groups[g]; test->name != NULL; ++test) {
      int wanted = !named;
      for (int i = 2; i < count; ++i) wanted |= strcmp(arguments[i], test->name) == 0;
      if (!wanted) continue;
      struct result result = {0, 0, 0};
      // What is broken shows sooner or later.
      for (int i = 0; i < (broken ? 30 : 1) && result.wrong == 0; ++i) {
        set_deadline(seconds);
        test->run(&result, broken);
      }
      printf("litmus %s %llu %llu %llu\n", test->name, (unsigned long long)result.tries,
             (unsigned long long)result.wrong, (unsigned long long)result.relaxed);
      if ((result.wrong != 0) != broken || result.tries == 0) status = 1;
    }
  }
  return status;
}
