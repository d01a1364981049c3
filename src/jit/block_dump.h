// Writes translated blocks as text: each guest instruction with the host code that was made of it.
//   Form     docs/jit.md, "Looking inside"
//   Threads  any, with the code lock held
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "jit/cache/code_cache.h"

namespace caisson::jit {

class BlockDump {
 public:
  // `fd` stays the caller's. `addresses`: linear; a block is written if it contains one of them, or all where there are
  // none. `depart`: the stub of that name.
  BlockDump(int fd, std::vector<uint64_t> addresses, const uint8_t* depart)
      : fd_(fd), addresses_(std::move(addresses)), depart_(depart) {}

  // A new block, whose code is at its place; `rip`: the linear address that it was made for. `page`: the guest's bytes,
  // `next`: those of the page behind, where the block reaches into it.
  void block(const Block& block, const std::vector<HostPoint>& points, uint64_t rip, std::span<const uint8_t> page,
             const uint8_t* next);

 private:
  int fd_;
  std::vector<uint64_t> addresses_;
  const uint8_t* depart_;
};

[[nodiscard]] std::string block_text(const Block& block, const std::vector<HostPoint>& points, uint64_t rip,
                                     std::span<const uint8_t> guest, const uint8_t* depart);

}  // namespace caisson::jit
