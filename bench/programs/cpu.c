// Computing with integers: calls and comparisons.
#include <stdlib.h>

#include "bench.h"

static uint64_t __attribute__((noinline)) fib(uint64_t n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }

// Not known to the compiler.
static volatile uint64_t fib_of = 34;
static uint64_t run_fib(void) { return fib(fib_of); }

static int compare(const void* a, const void* b) {
  const uint32_t x = *(const uint32_t*)a;
  const uint32_t y = *(const uint32_t*)b;
  return (x > y) - (x < y);
}

static uint64_t run_sort(void) {
  enum { COUNT = 400000 };
  uint32_t* numbers = malloc(COUNT * sizeof *numbers);
  if (numbers == NULL) die("malloc");
  uint32_t state = 1;
  for (int i = 0; i < COUNT; ++i) {
    state = state * 1664525 + 1013904223;
    numbers[i] = state;
  }
  qsort(numbers, COUNT, sizeof *numbers, compare);
  uint64_t sum = 0;
  for (int i = 0; i < COUNT; i += 1000) sum = sum * 31 + numbers[i];
  free(numbers);
  return sum;
}

const struct bench cpu_benches[] = {{"compute", "fib", run_fib}, {"compute", "sort", run_sort}, {NULL, NULL, NULL}};
