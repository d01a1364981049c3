// bench            runs all of them: a line "name seconds" for each
// bench NAME…      runs these
// bench --true     exits with 0 (what fork+exec starts)
// Every one runs once to warm up, then REPEAT times; the median counts.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench.h"

enum { REPEAT = 3 };

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

void die(const char* what) {
  perror(what);
  exit(1);
}

static int compare(const void* a, const void* b) {
  const double x = *(const double*)a;
  const double y = *(const double*)b;
  return (x > y) - (x < y);
}

static void measure(const struct bench* bench) {
  double seconds[REPEAT];
  const uint64_t sum = bench->run();
  for (int i = 0; i < REPEAT; ++i) {
    const double start = now();
    const uint64_t again = bench->run();
    seconds[i] = now() - start;
    if (again != sum) {
      printf("%s WRONG %llx %llx\n", bench->name, (unsigned long long)sum, (unsigned long long)again);
      return;
    }
  }
  qsort(seconds, REPEAT, sizeof seconds[0], compare);
  printf("%s %.6f %llx\n", bench->name, seconds[REPEAT / 2], (unsigned long long)sum);
  fflush(stdout);
}

int main(int count, char** arguments) {
  if (count == 2 && strcmp(arguments[1], "--true") == 0) return 0;
  const struct bench* groups[] = {cpu_benches, data_benches, crypto_benches, kernel_benches};
  for (size_t g = 0; g < sizeof groups / sizeof groups[0]; ++g) {
    for (const struct bench* bench = groups[g]; bench->name != NULL; ++bench) {
      int wanted = count == 1;
      for (int i = 1; i < count; ++i) wanted |= strcmp(arguments[i], bench->name) == 0;
      if (wanted) measure(bench);
    }
  }
  return 0;
}
