// Whole reads and writes on a descriptor: no short ones, interruptions repeated.
//   Errors   0 or an errno value
//   Threads  any
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <sys/uio.h>

namespace caisson::qcow2 {

// Past the end of the file there are zeroes.
[[nodiscard]] int read_at(int fd, uint64_t offset, std::span<uint8_t> to);
[[nodiscard]] int read_at(int fd, uint64_t offset, std::vector<iovec> to);
[[nodiscard]] int write_at(int fd, uint64_t offset, std::span<const uint8_t> from);
[[nodiscard]] int write_at(int fd, uint64_t offset, std::vector<iovec> from);
[[nodiscard]] int sync_data(int fd);
// A hint: what the host cannot do is left undone.
void punch_hole(int fd, uint64_t offset, uint64_t length);
// The file's size in bytes.
[[nodiscard]] int file_size(int fd, uint64_t& size);

// The `length` bytes of `buffers` that follow the first `skip` ones.
[[nodiscard]] std::vector<iovec> slice(const std::vector<iovec>& buffers, uint64_t skip, uint64_t length);

}  // namespace caisson::qcow2
