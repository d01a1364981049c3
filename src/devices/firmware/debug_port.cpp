#include "devices/firmware/debug_port.h"

namespace caisson {

void FirmwareDebugPort::write(unsigned, uint64_t, unsigned, uint64_t value) {
  const auto byte = static_cast<unsigned char>(value);
  if (byte == '\n') {
    sink_(line_);
    line_.clear();
  } else if (byte != '\r' && line_.size() < longest) {
    line_ += byte >= 0x20 && byte < 0x7f ? static_cast<char>(byte) : '?';
  }
}

Result<> FirmwareDebugPort::restore(std::span<const uint8_t> in) {
  if (!in.empty()) return fail("firmware-debug-port: it has no state, but {} bytes are saved", in.size());
  return {};
}

}  // namespace caisson
