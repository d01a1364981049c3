// What an image from elsewhere may hold: its manifest, an archive's headers, a disk's boot sector and partition table.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "life/disk_boot.h"
#include "life/images.h"
#include "life/tar.h"

using namespace caisson;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto manifest = life::parse_manifest({reinterpret_cast<const char*>(data), size});
  if (manifest) CAISSON_CHECK(life::parse_manifest(life::to_json_text(*manifest)));
  (void)life::boot_of_disk([&](uint64_t offset, std::span<uint8_t> bytes) {
    if (offset > size || bytes.size() > size - offset) return false;
    std::copy_n(data + offset, bytes.size(), bytes.begin());
    return true;
  });
  if (size < life::tar_block) return 0;
  const auto entry = life::parse_tar_header(std::span<const uint8_t, life::tar_block>{data, life::tar_block});
  if (entry && *entry) CAISSON_CHECK((*entry)->name.find('/') == std::string::npos);
  return 0;
}
