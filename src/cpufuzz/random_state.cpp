#include "cpufuzz/random_state.h"

#include <cpuid.h>
#include <cmath>
#include <cstring>

#include "x86/registers.h"

namespace caisson::cpufuzz {

uint64_t host_xcr0() {
  uint32_t a = 1, b = 0, c = 0, d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & bit_OSXSAVE) == 0) return 3;
  asm("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
  return a & 0xe7;
}

uint64_t random_value(Random& random) {
  switch (random() % 8) {
    case 0: return 0;
    case 1: return ~uint64_t{0};
    case 2: return uint64_t{1} << random() % 64;
    case 3: return (uint64_t{1} << random() % 64) - 1;
    case 4: return random() % 256;
    case 5: return 0 - random() % 256;
    default: return random();
  }
}

namespace {

uint64_t random_number(Random& random) {
  uint64_t value = random_value(random);
  if (random() % 2) return value;
  const double wide =
      static_cast<double>(static_cast<int64_t>(random())) * std::pow(2.0, static_cast<int>(random() % 120) - 100);
  const auto narrow = static_cast<float>(wide);
  if (random() % 2) {
    std::memcpy(&value, &wide, 8);
  } else {
    std::memcpy(&value, &narrow, 4);
  }
  return value;
}

// Intel SDM vol. 1, 10.5.1 and 13.4: the standard form.
void random_vectors(Random& random, std::array<uint8_t, xsave_size>& image) {
  const auto put = [&](size_t at, auto value) { std::memcpy(image.data() + at, &value, sizeof value); };
  uint16_t control = 0x37f;
  if (random() % 8 == 0) control = static_cast<uint16_t>((random() & 0xf3f) | 0x40);
  put(0, control);
  put(2, static_cast<uint16_t>(random() % 8 << 11 | (random() & 0x4700)));
  image[4] = random() % 4 ? static_cast<uint8_t>(random()) : uint8_t{0};
  uint32_t mxcsr = 0x1f80;
  if (random() % 8 == 0) mxcsr = static_cast<uint32_t>((random() & 0xffbf) | (random() % 2 ? 0x1f80 : 0));
  put(24, mxcsr);
  for (unsigned i = 0; i < 8; ++i) {
    put(32 + 16 * i, random_number(random) | (random() % 2 ? uint64_t{1} << 63 : 0));
    put(32 + 16 * i + 8, static_cast<uint16_t>(random() % 2 ? 0x3fff + random() % 80 - 40 : random()));
  }
  for (size_t at = 160; at < 416; at += 8) put(at, random_number(random));
  put(512, host_xcr0());
  for (size_t at = 576; at < 832; at += 8) put(at, random_number(random));
  for (size_t at = 1088; at < 1152; at += 8) put(at, random() % 3 ? random() : random_value(random));
  for (size_t at = 1152; at < xsave_size - 7; at += 8) put(at, random_number(random));
}

}  // namespace

State random_state(Random& random) {
  State state;
  for (uint64_t& reg : state.gpr) reg = random_value(random);
  state.gpr[x86::Rsp] = data_address + data_size / 2 + random() % 64 * 8;
  state.rflags = 0x202 | (random() & x86::rflags::status);
  if (random() % 8 == 0) state.rflags |= x86::rflags::df;
  state.fs_base = data_address + data_size / 2 + random() % 256;
  state.gs_base = data_address + data_size / 2 - random() % 256;
  for (size_t i = 0; i < data_size; i += 8) {
    const uint64_t value = random() % 4 == 0 ? random_value(random) : random();
    std::memcpy(state.data.data() + i, &value, 8);
  }
  random_vectors(random, state.xsave);
  return state;
}

}  // namespace caisson::cpufuzz
