#include "jit/block_dump.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fmt/core.h>
#include <unistd.h>

#include "base/write_all.h"
#include "jit/disassembly.h"
#include "jit/translate/classify.h"
#include "jit/translate/departure.h"

namespace caisson::jit {

namespace {

// Bytes that it takes.
unsigned departure_text(std::string& text, const uint8_t* at, uint64_t rip) {
  static constexpr const char* kinds[]{"goes on", "interpreted", "system instruction", "looked for again"};
  Departure departure;
  const unsigned size = departure.read(at);
  const bool from_page = departure.target < page_size;  // user code
  text += fmt::format("        {:x}  ({}: {:x}{})\n", reinterpret_cast<uint64_t>(at),
                      kinds[static_cast<unsigned>(departure.kind)],
                      departure.target + (from_page ? rip & ~uint64_t{0xfff} : 0),
                      departure.slot != 0 ? fmt::format(", chained from {:x}", departure.slot - 1) : "");
  return size;
}

}  // namespace

std::string block_text(const Block& block, const std::vector<HostPoint>& points, uint64_t rip,
                       std::span<const uint8_t> guest, const Stubs& stubs) {
  const unsigned code_bits = block.key.mode & mode_bits::code_32 ? 32 : 64;
  static constexpr const char* modes[]{"supervisor, SMAP", "supervisor", "user", "?"};
  std::string text = fmt::format(
      "block {:x} (guest-physical {:x}), {}-bit {}{}, {} instructions in {} bytes, {} bytes of host code\n", rip,
      block.key.gpa, code_bits, modes[block.key.mode & mode_bits::tlb_mask],
      block.key.mode & mode_bits::careful ? ", careful" : "", block.instructions, block.guest_size, block.host_size);
  const auto host = [&](uint32_t from, uint32_t to) {
    while (from < to) {
      unsigned length;
      const uint8_t* at = block.start + from;
      const std::string line = disassemble({at, to - from}, 64, reinterpret_cast<uint64_t>(at), length);
      text += fmt::format("        {:x}  {}\n", reinterpret_cast<uint64_t>(at), line);
      from += length;
      int32_t distance;
      std::memcpy(&distance, at + 1, sizeof distance);
      const uint8_t* target = at + length + distance;
      if (at[0] != 0xe8) continue;
      if (target == stubs.depart) from += departure_text(text, at + length, rip);
      if (target == stubs.other_region) {
        const uint8_t* const jump = at + length;
        const std::string way =
            disassemble({jump, Stubs::other_region_jump}, 64, reinterpret_cast<uint64_t>(jump), length);
        text += fmt::format("        {:x}  {}\n", reinterpret_cast<uint64_t>(jump), way);
        from += Stubs::other_region_jump + departure_text(text, jump + Stubs::other_region_jump, rip);
      }
      if (std::ranges::find(stubs.lookup_miss, target) != std::end(stubs.lookup_miss)) from += IndirectBranch::size;
    }
  };
  host(0, points.empty() ? block.cold_offset : points.front().host_offset);
  for (size_t i = 0; i < points.size(); ++i) {
    const HostPoint& point = points[i];
    // An instruction's code may have several points.
    if (i == 0 || points[i - 1].guest_offset != point.guest_offset) {
      unsigned length;
      text += fmt::format("  {:x}  {}\n", rip + point.guest_offset,
                          disassemble(guest.subspan(std::min<size_t>(point.guest_offset, guest.size())), code_bits,
                                      rip + point.guest_offset, length));
    }
    host(point.host_offset, i + 1 < points.size() ? points[i + 1].host_offset : block.cold_offset);
  }
  text += "  (seldom)\n";
  host(block.cold_offset, block.stale_offset);
  text += "  (when it is no longer valid)\n";
  host(block.stale_offset, block.host_size);
  return text + "\n";
}

void BlockDump::block(const Block& block, const std::vector<HostPoint>& points, uint64_t rip,
                      std::span<const uint8_t> page, const uint8_t* next) {
  const bool wanted = addresses_.empty() || std::ranges::any_of(addresses_, [&](uint64_t address) {
                        return address >= rip && address - rip < block.guest_size;
                      });
  if (!wanted) return;
  const size_t here = block.guest_size - block.next_size;
  const auto first = page.subspan(block.key.gpa % page_size, here);
  std::vector<uint8_t> guest(first.begin(), first.end());
  if (block.next_size != 0) guest.insert(guest.end(), next, next + block.next_size);
  (void)write_all(fd_, block_text(block, points, rip, guest, stubs_));  // a full disk: the machine goes on
}

}  // namespace caisson::jit
