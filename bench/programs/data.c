// Moving and packing bytes.
#include <lzma.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "bench.h"

void fill_text(unsigned char* bytes, uint64_t size) {
  static const char words[8][8] = {"return ", "static ",  "const  ", "if (x) ",
                                   "value  ", "  ++i;\n", "struct ", "uint64 "};
  uint32_t state = 12345;
  for (uint64_t i = 0; i + 8 <= size; i += 8) {
    state = state * 1664525 + 1013904223;
    memcpy(bytes + i, words[state >> 29], 8);
    if ((state & 0x700000) == 0) memcpy(bytes + i + 2, &state, 4);
  }
}

uint64_t checksum(uint64_t sum, const void* bytes, uint64_t size) {
  const unsigned char* byte = bytes;
  if (sum == 0) sum = 0xcbf29ce484222325;
  for (uint64_t i = 0; i < size; ++i) sum = (sum ^ byte[i]) * 0x100000001b3;
  return sum;
}

static uint64_t run_memcpy(void) {
  enum { SIZE = 16 << 20, TIMES = 10 };
  static unsigned char* from;
  static unsigned char* to;
  if (from == NULL) {
    from = malloc(SIZE);
    to = malloc(SIZE);
    if (from == NULL || to == NULL) die("malloc");
    fill_text(from, SIZE);
  }
  uint64_t sum = 0;
  for (int i = 0; i < TIMES; ++i) {
    from[i] = (unsigned char)i;
    memcpy(to, from, SIZE);
    sum = sum * 31 + to[i] + to[SIZE - 1 - i];
  }
  return sum;
}

enum { TEXT = 1 << 20 };

static unsigned char* text(void) {
  static unsigned char* bytes;
  if (bytes == NULL) {
    bytes = malloc(TEXT);
    if (bytes == NULL) die("malloc");
    fill_text(bytes, TEXT);
  }
  return bytes;
}

static uint64_t run_zstd(void) {
  const size_t bound = ZSTD_compressBound(TEXT);
  unsigned char* packed = malloc(bound);
  unsigned char* again = malloc(TEXT);
  if (packed == NULL || again == NULL) die("malloc");
  const size_t size = ZSTD_compress(packed, bound, text(), TEXT, 6);
  if (ZSTD_isError(size) || ZSTD_decompress(again, TEXT, packed, size) != TEXT || memcmp(again, text(), TEXT) != 0)
    die("zstd");
  free(packed);
  free(again);
  return size;
}

static uint64_t run_gzip(void) {
  uLongf size = compressBound(TEXT);
  unsigned char* packed = malloc(size);
  unsigned char* again = malloc(TEXT);
  uLongf again_size = TEXT;
  if (packed == NULL || again == NULL) die("malloc");
  if (compress2(packed, &size, text(), TEXT, 6) != Z_OK || uncompress(again, &again_size, packed, size) != Z_OK ||
      memcmp(again, text(), TEXT) != 0) {
    die("zlib");
  }
  free(packed);
  free(again);
  return size;
}

static uint64_t run_xz(void) {
  enum { SIZE = TEXT / 4 };
  size_t bound = lzma_stream_buffer_bound(SIZE);
  unsigned char* packed = malloc(bound);
  unsigned char* again = malloc(SIZE);
  size_t size = 0;
  size_t read = 0;
  size_t written = 0;
  uint64_t limit = UINT64_MAX;
  if (packed == NULL || again == NULL) die("malloc");
  if (lzma_easy_buffer_encode(3, LZMA_CHECK_CRC32, NULL, text(), SIZE, packed, &size, bound) != LZMA_OK ||
      lzma_stream_buffer_decode(&limit, 0, NULL, packed, &read, size, again, &written, SIZE) != LZMA_OK ||
      memcmp(again, text(), SIZE) != 0) {
    die("xz");
  }
  free(packed);
  free(again);
  return size;
}

const struct bench data_benches[] = {{"compute", "zstd", run_zstd},
                                     {"compute", "xz", run_xz},
                                     {"compute", "gzip", run_gzip},
                                     {"other", "memcpy", run_memcpy},
                                     {NULL, NULL, NULL}};
