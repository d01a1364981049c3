// bench --serve            says "offer GROUP NAME" for each program, then runs what it reads the names of, one a line:
//                          "row NAME SECONDS CPU-SECONDS CHECKSUM"; "clock SECONDS" for the line "clock"; "end" ends it
// bench --pair SECONDS     the same work on one CPU and on two at once: "pair ONE TWO", work done per second
// bench --idle SECONDS     does nothing: "idle begin", "idle end"
// bench --true             exits with 0 (what fork+exec starts)
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

void die(const char* what) {
  perror(what);
  exit(1);
}

// Of this process and of those that it has waited for.
static double cpu_seconds(void) {
  struct timespec own;
  struct rusage children;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &own);
  getrusage(RUSAGE_CHILDREN, &children);
  return (double)(own.tv_sec + children.ru_utime.tv_sec + children.ru_stime.tv_sec) + (double)own.tv_nsec / 1e9 +
         (double)(children.ru_utime.tv_usec + children.ru_stime.tv_usec) / 1e6;
}

static void measure(const struct bench* bench) {
  const double start_cpu = cpu_seconds();
  const double start = now();
  const uint64_t sum = bench->run();
  const double seconds = now() - start;
  printf("row %s %.6f %.6f %llx\n", bench->name, seconds, cpu_seconds() - start_cpu, (unsigned long long)sum);
}

static int serve(void) {
  const struct bench* groups[] = {cpu_benches,   command_benches, data_benches,
                                  float_benches, crypto_benches,  kernel_benches};
  enum { GROUPS = sizeof groups / sizeof groups[0] };
  for (int g = 0; g < GROUPS; ++g) {
    for (const struct bench* bench = groups[g]; bench->name != NULL; ++bench) {
      printf("offer %s %s\n", bench->group, bench->name);
    }
  }
  puts("offer end");
  char line[64];
  while (fgets(line, sizeof line, stdin) != NULL) {
    line[strcspn(line, "\r\n")] = 0;
    if (strcmp(line, "end") == 0) return 0;
    if (strcmp(line, "clock") == 0) printf("clock %f\n", now());
    for (int g = 0; g < GROUPS; ++g) {
      for (const struct bench* bench = groups[g]; bench->name != NULL; ++bench) {
        if (strcmp(bench->name, line) == 0) measure(bench);
      }
    }
  }
  return 1;
}

static const struct bench* find(const struct bench* benches, const char* name) {
  while (strcmp(benches->name, name) != 0) ++benches;
  return benches;
}

// What two CPUs do at once; the kernel has nothing to do with it, and neither knows of the other.
static double work_until;
static void* work(void* done) {
  const struct bench* parts[] = {find(cpu_benches, "fib"), find(float_benches, "n-body"),
                                 find(crypto_benches, "sha-256")};
  while (now() < work_until) {
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; ++i) parts[i]->run();
    ++*(uint64_t*)done;
  }
  return NULL;
}

static double work_rate(int threads, double seconds) {
  pthread_t ids[2];
  uint64_t done[2] = {0, 0};
  const double start = now();
  work_until = start + seconds;
  for (int i = 0; i < threads; ++i) {
    if (pthread_create(&ids[i], NULL, work, &done[i]) != 0) die("pthread_create");
  }
  for (int i = 0; i < threads; ++i) pthread_join(ids[i], NULL);
  return (double)(done[0] + done[1]) / (now() - start);
}

int main(int count, char** arguments) {
  if (count == 2 && strcmp(arguments[1], "--true") == 0) return 0;
  setvbuf(stdout, NULL, _IOLBF, 0);
  if (count == 3 && strcmp(arguments[1], "--pair") == 0) {
    const double seconds = atof(arguments[2]);
    work_rate(1, 0.1);
    const double one = work_rate(1, seconds);
    printf("pair %f %f\n", one, work_rate(2, seconds));
    return 0;
  }
  if (count == 3 && strcmp(arguments[1], "--idle") == 0) {
    sleep(2);
    puts("idle begin");
    sleep((unsigned)atoi(arguments[2]));
    puts("idle end");
    return 0;
  }
  return count == 2 && strcmp(arguments[1], "--serve") == 0 ? serve() : 2;
}
