// Blocking disk operations on a descriptor, and the progress of one request through them.
//   Threads  any; a Job belongs to one thread at a time
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "backend/block_backend.h"
#include "base/result.h"

namespace caisson {

void fill_zero(std::span<const iovec> buffers);

// How large an open file or block device is. The error names the disk.
struct DiskSize {
  uint64_t bytes = 0;
  unsigned natural = 512;  // bytes that it likes to be given at once, 512 to 4096
  bool block_device = false;
};
[[nodiscard]] Result<DiskSize> size_of_disk(int fd, const std::string& name);
// What a guest sees of so many bytes: whole sectors, with a warning where something is left; at least one.
[[nodiscard]] Result<uint64_t> whole_sectors(uint64_t bytes, const std::string& name);

// A request and how far it has come: hosts may read and write less than asked.
struct Job {
  explicit Job(BlockRequest whole) : request(std::move(whole)), offset(request.offset), left(request.length) {
    // A system call given nothing but empty buffers answers 0, as at the end of a file.
    std::erase_if(request.buffers, [](const iovec& buffer) { return buffer.iov_len == 0; });
  }

  // `bytes` have been transferred.
  void advance(uint64_t bytes);
  // The rest of a read lies past the end of the file.
  void zero_rest();
  // What is left, as many as one system call takes.
  [[nodiscard]] iovec* buffers() { return request.buffers.data() + first_buffer; }
  [[nodiscard]] unsigned buffer_count() const;

  BlockRequest request;
  uint64_t offset;
  uint64_t left;
  size_t first_buffer = 0;
};

// 0, or what is wrong with a request on a disk of `size` bytes: EINVAL, EROFS.
[[nodiscard]] int check_request(const BlockRequest& request, uint64_t size, bool read_only);

// Does all of the job; gives 0 or an errno value.
[[nodiscard]] int perform(int fd, bool block_device, Job& job);

}  // namespace caisson
