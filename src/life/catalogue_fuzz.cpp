// The user's catalogue of images, which may have come from anywhere.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "life/catalogue.h"

using namespace caisson;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text{reinterpret_cast<const char*>(data), size};
  const auto all = life::parse_catalogue(text);
  if (all) {
    for (const auto& entry : all->images) CAISSON_CHECK(life::check(entry));
  } else {
    CAISSON_CHECK(!all.error().message.empty() && all.error().message.find('\n') == std::string::npos);
  }
  (void)life::packed_name(text);
  return 0;
}
