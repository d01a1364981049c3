// A qcow2 image, with its backing chain, as a disk's host side.
//   Models   reads and writes of what is allocated go by io_uring straight to the layer's file, side by side, when the
//            tables that say where are in memory; whatever needs tables read or changed runs on the pool's threads
//   Threads  as block_backend.h says
//   Errors   what the host answers; EINVAL and EROFS as for raw images; EIO where the image is damaged
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend/block_backend.h"
#include "backend/disk_queue.h"
#include "backend/qcow2/image.h"
#include "base/event_loop.h"
#include "base/result.h"

namespace caisson {

struct Qcow2DiskOptions {
  std::string name;  // for messages
  std::string id;    // the guest's serial number
  bool use_io_uring = true;
};

class Qcow2Disk final : public BlockBackend {
 public:
  [[nodiscard]] static Result<std::unique_ptr<Qcow2Disk>> create(EventLoop& loop, std::unique_ptr<qcow2::Image> image,
                                                                 Qcow2DiskOptions options);
  // Under the device lock. Waits for what is in flight, drops its completions, and writes the tables.
  ~Qcow2Disk() override;

  [[nodiscard]] uint64_t size() const override { return size_; }
  [[nodiscard]] bool read_only() const override { return image_->read_only(); }
  [[nodiscard]] unsigned block_size() const override;
  [[nodiscard]] std::string_view id() const override { return options_.id; }
  void submit(BlockRequest request) override;
  void begin_batch() override { queue_->begin_batch(); }
  void end_batch() override { queue_->end_batch(); }
  void drain() override { queue_->drain(); }
  [[nodiscard]] Result<> grow(uint64_t bytes) override;

 private:
  Qcow2Disk(std::unique_ptr<qcow2::Image> image, Qcow2DiskOptions options)
      : image_(std::move(image)), options_(std::move(options)) {}
  [[nodiscard]] bool submit_in_place(BlockRequest& request);
  void submit_to_pool(BlockRequest request);

  const std::unique_ptr<qcow2::Image> image_;
  const Qcow2DiskOptions options_;
  uint64_t size_ = 0;
  std::vector<qcow2::Piece> pieces_;  // of the request that is being looked at
  std::unique_ptr<DiskQueue> queue_;  // last: it uses the image until it ends
};

}  // namespace caisson
