// Guest benchmarks: each does a fixed piece of work that its result proves was done.
#ifndef BENCH_H
#define BENCH_H

#include <stdint.h>

typedef uint64_t (*bench_function)(void);

struct bench {
  const char* name;
  bench_function run;  // a checksum of what was computed
};

extern const struct bench cpu_benches[];
extern const struct bench data_benches[];
extern const struct bench crypto_benches[];
extern const struct bench kernel_benches[];

void die(const char* what);
// Pseudo-random bytes that compress about as well as program text.
void fill_text(unsigned char* bytes, uint64_t size);

#endif
