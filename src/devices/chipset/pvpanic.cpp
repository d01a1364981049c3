#include "devices/chipset/pvpanic.h"

namespace caisson {

uint64_t Pvpanic::read(unsigned, uint64_t, unsigned) { return panicked | crash_loaded; }

void Pvpanic::write(unsigned, uint64_t, unsigned, uint64_t value) {
  const auto events = static_cast<uint8_t>(value);
  if ((events & panicked) != 0) {
    power_.request(PowerEvent::Panic, events);
  } else if ((events & crash_loaded) != 0 && crash_loaded_seen_.allow()) {
    log::info("the guest has crashed and runs its crash kernel");
  }
}

Result<> Pvpanic::restore(std::span<const uint8_t> in) {
  if (!in.empty()) return fail("pvpanic: it has no state, but {} bytes are saved", in.size());
  return {};
}

}  // namespace caisson
