// What the tests of two CPUs share. A test runs until a deadline and counts outcomes that x86 does not allow.
#ifndef LITMUS_H
#define LITMUS_H

#include <stdint.h>

struct result {
  uint64_t tries;
  uint64_t wrong;    // outcomes that the manual forbids
  uint64_t relaxed;  // outcomes that it allows, but that no interleaving of the instructions gives
};

// `broken` leaves out what the test is about (a fence, a LOCK, an order…), so that wrong outcomes have to come.
struct test {
  const char* name;
  void (*run)(struct result* result, int broken);
};

extern const struct test memory_tests[];   // ordering and atomicity
extern const struct test mapping_tests[];  // code and page tables that change while they are used

void die(const char* what);
int time_is_up(void);
// Runs body(argument, index) in `count` threads on alternating CPUs and waits for them.
void run_threads(int count, void (*body)(void* argument, int index), void* argument);
// Waits until *word is at least `value`.
void wait_until(const volatile uint64_t* word, uint64_t value);

#endif
