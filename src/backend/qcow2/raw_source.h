// A raw image as a layer that is only read: a backing file, or what is converted.
//   Threads  any
#pragma once

#include <memory>
#include <string>

#include "backend/qcow2/source.h"
#include "base/fd.h"
#include "base/result.h"

namespace caisson::qcow2 {

class RawSource final : public Source {
 public:
  // A regular file or a block device.
  [[nodiscard]] static Result<std::unique_ptr<RawSource>> open(Fd fd, const std::string& name);

  [[nodiscard]] uint64_t size() const override { return size_; }
  [[nodiscard]] int read(uint64_t offset, uint64_t length, const std::vector<iovec>& buffers) override;
  [[nodiscard]] int extent(uint64_t offset, uint64_t length, Extent& found) override;
  [[nodiscard]] bool try_locate(uint64_t offset, uint64_t length, std::vector<Piece>& pieces) override;

 private:
  RawSource(Fd fd, uint64_t size) : fd_(std::move(fd)), size_(size) {}
  const Fd fd_;
  const uint64_t size_;
};

}  // namespace caisson::qcow2
