// Computing with floating-point numbers.
#include <math.h>
#include <string.h>

#include "bench.h"

static uint64_t bits_of(double value) {
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

static uint64_t run_matrix(void) {
  enum { N = 256 };
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
  return bits_of(sum);
}

// In place, radix 2: bit reversal, then butterflies whose factors come from a table.
static void transform(float* re, float* im, const float* cosine, const float* sine, int size) {
  for (int i = 1, j = 0; i < size; ++i) {
    int bit = size >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) {
      const float r = re[i];
      const float m = im[i];
      re[i] = re[j];
      im[i] = im[j];
      re[j] = r;
      im[j] = m;
    }
  }
  for (int half = 1; half < size; half *= 2) {
    for (int start = 0; start < size; start += 2 * half) {
      for (int k = 0; k < half; ++k) {
        // The factors of this stage stand together, so that they load as vectors.
        const float c = cosine[half + k];
        const float s = sine[half + k];
        const int low = start + k;
        const int high = low + half;
        const float r = re[high] * c - im[high] * s;
        const float m = re[high] * s + im[high] * c;
        re[high] = re[low] - r;
        im[high] = im[low] - m;
        re[low] += r;
        im[low] += m;
      }
    }
  }
}

static uint64_t run_fft(void) {
  enum { SIZE = 1 << 14, TIMES = 30 };
  static float re[SIZE];
  static float im[SIZE];
  static float cosine[SIZE];
  static float sine[SIZE];
  for (int half = 1; half < SIZE; half *= 2) {
    for (int k = 0; k < half; ++k) {
      cosine[half + k] = (float)cos(M_PI * k / half);
      sine[half + k] = (float)-sin(M_PI * k / half);
    }
  }
  uint64_t sum = 0;
  for (int i = 0; i < SIZE; ++i) {
    re[i] = (float)(i % 97) / 97;
    im[i] = (float)(i % 53) / 53;
  }
  for (int round = 0; round < TIMES; ++round) {
    transform(re, im, cosine, sine, SIZE);
    // Its energy grew by SIZE; without this it would overflow.
    for (int i = 0; i < SIZE; ++i) {
      re[i] *= 1.0F / 128;
      im[i] *= 1.0F / 128;
    }
    sum = checksum(sum, re, 64);
  }
  return sum;
}

// Bodies that attract each other, scalar double precision with square roots and divisions.
static uint64_t run_nbody(void) {
  enum { BODIES = 5, STEPS = 100000 };
  double x[BODIES][3];
  double v[BODIES][3];
  double mass[BODIES];
  for (int i = 0; i < BODIES; ++i) {
    mass[i] = i == 0 ? 40 : 0.01 * i;
    for (int d = 0; d < 3; ++d) {
      x[i][d] = i * (d + 1.5) * (d == 1 ? -1 : 1);
      v[i][d] = i == 0 ? 0 : (d == 0 ? 2.0 : 0.7 * d) / i;
    }
  }
  for (int step = 0; step < STEPS; ++step) {
    for (int i = 0; i < BODIES; ++i) {
      for (int j = i + 1; j < BODIES; ++j) {
        double distance[3];
        double square = 0.01;
        for (int d = 0; d < 3; ++d) {
          distance[d] = x[i][d] - x[j][d];
          square += distance[d] * distance[d];
        }
        const double pull = 0.0005 / (square * sqrt(square));
        for (int d = 0; d < 3; ++d) {
          v[i][d] -= distance[d] * mass[j] * pull;
          v[j][d] += distance[d] * mass[i] * pull;
        }
      }
    }
    for (int i = 0; i < BODIES; ++i) {
      for (int d = 0; d < 3; ++d) x[i][d] += 0.0005 * v[i][d];
    }
  }
  return bits_of(x[0][0] + x[1][1] + x[2][2]);
}

const struct bench float_benches[] = {
    {"simd", "matrix", run_matrix}, {"simd", "fft", run_fft}, {"simd", "n-body", run_nbody}, {NULL, NULL, NULL}};
