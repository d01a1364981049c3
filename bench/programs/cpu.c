// Computing: calls, comparisons, floating point.
#include <stdlib.h>
#include <string.h>

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
  enum { COUNT = 1000000 };
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

static uint64_t run_matrix(void) {
  enum { N = 384 };
  static double a[N][N];
  static double b[N][N];
  static double c[N][N];
  for (int i = 0; i < N; ++i) {
    for (int j = 0; j < N; ++j) {
      a[i][j] = (double)(i * 7 + j * 3 % 11) / 16;
      b[i][j] = (double)(i * 5 + j * 13 % 17) / 32;
      c[i][j] = 0;
    }
  }
  for (int i = 0; i < N; ++i) {
    for (int k = 0; k < N; ++k) {
      const double factor = a[i][k];
      for (int j = 0; j < N; ++j) c[i][j] += factor * b[k][j];
    }
  }
  double sum = 0;
  for (int i = 0; i < N; ++i) sum += c[i][(i * 37) % N];
  uint64_t bits;
  memcpy(&bits, &sum, sizeof bits);
  return bits;
}

const struct bench cpu_benches[] = {{"fib", run_fib}, {"sort", run_sort}, {"matrix", run_matrix}, {NULL, NULL}};
