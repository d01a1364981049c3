// Fuzzes everything that is parsed from a control channel: requests, events and configurations.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "control/messages.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace caisson::control;
  const std::string_view text{reinterpret_cast<const char*>(data), size};
  // What parses must come back the same from its own serialised form.
  if (const auto config = VmConfig::parse(text, 64)) {
    const auto again = VmConfig::parse(config->serialise(), 64);
    CAISSON_CHECK(again && *again == *config);
  }
  if (const auto request = parse_request(text, 64)) {
    const auto again = parse_request(serialise(*request), 64);
    CAISSON_CHECK(again && *again == *request);
  }
  if (const auto event = parse_event(text)) {
    const auto again = parse_event(serialise(*event));
    CAISSON_CHECK(again && *again == *event);
  }
  return 0;
}
