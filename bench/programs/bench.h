// Guest benchmarks: each does a fixed piece of work that its result proves was done.
#ifndef BENCH_H
#define BENCH_H

#include <stdint.h>

typedef uint64_t (*bench_function)(void);

struct bench {
  const char* group;  // compute, simd, kernel: a geometric mean for each; other: no mean
  const char* name;
  bench_function run;  // a checksum of what was computed
};

extern const struct bench cpu_benches[];
extern const struct bench command_benches[];
extern const struct bench data_benches[];
extern const struct bench float_benches[];
extern const struct bench crypto_benches[];
extern const struct bench kernel_benches[];

void die(const char* what);
// Pseudo-random bytes that compress about as well as program text.
void fill_text(unsigned char* bytes, uint64_t size);
// Goes on with a checksum (FNV-1a); the first is checksum(0, …).
uint64_t checksum(uint64_t sum, const void* bytes, uint64_t size);

#endif
