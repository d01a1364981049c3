// libFuzzer entry: everything that boot/ reads from a user's file. The first byte chooses the parser.
#include <cstdint>
#include <memory>

#include "base/check.h"
#include "boot/initrd.h"
#include "boot/kernel_image.h"
#include "boot/linux_boot.h"
#include "boot/low_memory.h"
#include "boot/multiboot_boot.h"
#include "boot/pvh_boot.h"
#include "boot/unpack.h"

namespace {

using namespace caisson;
using namespace caisson::boot;

constexpr uint64_t memory_size = uint64_t{64} << 20, largest_unpacked = uint64_t{4} << 20;

void load_kernel(Bytes file) {
  static const std::unique_ptr<GuestMemory> memory = std::move(*GuestMemory::create(memory_size));
  const auto kernel = parse_kernel(file);
  if (!kernel) {
    CAISSON_CHECK(kernel.error().message.find('\n') == std::string::npos);
    return;
  }
  const MemoryMap map(*memory);
  const LoadContext context{.initrd_name = "initrd", .command_line = "quiet", .map = map, .low_end = memory_size};
  if (const auto* linux = std::get_if<BzImage>(&*kernel)) {
    (void)load_linux(*memory, *linux, Unpack::Host, context);
  } else if (const auto* multiboot = std::get_if<MultibootImage>(&*kernel)) {
    (void)load_multiboot(*memory, *multiboot, context);
  } else {
    (void)load_pvh(*memory, std::get<ElfImage>(*kernel), context);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const Bytes file{data + 1, size - 1};
  switch (data[0] % 4) {
    case 0: load_kernel(file); break;
    case 3: {  // a Multiboot header before what comes, so that every input gets past it
      constexpr uint32_t magic = 0x1bad'b002;
      std::vector<uint8_t> kernel;
      const uint32_t flags = size > 1 && data[1] % 2 != 0 ? 0x1'0003 : 3;
      append_le(kernel, magic);
      append_le(kernel, flags);
      append_le(kernel, 0u - magic - flags);
      kernel.insert(kernel.end(), file.begin(), file.end());
      load_kernel(kernel);
      break;
    }
    case 1: (void)check_initrd(file); break;
    case 2:
      if (const auto out = unpack(file, largest_unpacked)) CAISSON_CHECK(out->size() <= largest_unpacked);
      break;
  }
  return 0;
}
