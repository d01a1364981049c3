// Whole programs: interpreters of script languages, and a compiler. Their files stand in the current folder.
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

extern char** environ;

// A checksum of what the command writes; it has to end with 0.
static uint64_t output_of(char* const* arguments) {
  int ends[2];
  if (pipe(ends) != 0) die("pipe");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
  posix_spawn_file_actions_addclose(&actions, ends[0]);
  posix_spawn_file_actions_addclose(&actions, ends[1]);
  pid_t child;
  if (posix_spawnp(&child, arguments[0], &actions, NULL, arguments, environ) != 0) die(arguments[0]);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  static char buffer[65536];
  uint64_t sum = 0;
  for (;;) {
    const ssize_t got = read(ends[0], buffer, sizeof buffer);
    if (got < 0) die("read");
    if (got == 0) break;
    sum = checksum(sum, buffer, (uint64_t)got);
  }
  close(ends[0]);
  int status;
  if (waitpid(child, &status, 0) != child || status != 0) {
    fprintf(stderr, "%s ended with status %x\n", arguments[0], (unsigned)status);
    exit(1);
  }
  return sum;
}

static uint64_t run_perl(void) { return output_of((char*[]){"perl", "script.pl", NULL}); }
// Isolated and without site packages: the same start everywhere.
static uint64_t run_python(void) { return output_of((char*[]){"python3", "-I", "-S", "-B", "script.py", NULL}); }
static uint64_t run_lua(void) { return output_of((char*[]){"lua5.4", "script.lua", NULL}); }
static uint64_t run_compiler(void) {
  return output_of((char*[]){"./cc1", "-fpreprocessed", "-quiet", "-O2", "unit.i", "-o", "-", NULL});
}

const struct bench command_benches[] = {{"compute", "perl", run_perl},
                                        {"compute", "python", run_python},
                                        {"compute", "lua", run_lua},
                                        {"compute", "compiler", run_compiler},
                                        {NULL, NULL, NULL}};
