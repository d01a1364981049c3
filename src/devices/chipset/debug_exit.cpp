#include "devices/chipset/debug_exit.h"

namespace caisson {

uint64_t DebugExit::read(unsigned, uint64_t, unsigned) { return 0; }

void DebugExit::write(unsigned, uint64_t offset, unsigned, uint64_t value) {
  if (offset == 0) power_.request(PowerEvent::DebugExit, static_cast<uint8_t>(value));
}

Result<> DebugExit::restore(std::span<const uint8_t> in) {
  if (!in.empty()) return fail("debug-exit: it has no state, but {} bytes are saved", in.size());
  return {};
}

}  // namespace caisson
