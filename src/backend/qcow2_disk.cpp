#include "backend/qcow2_disk.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "backend/disk_io.h"
#include "backend/qcow2/file_io.h"
#include "base/log.h"

namespace caisson {
namespace {

constexpr size_t most_pieces = 32;  // of a request; more are left to a thread

// A request that is under way in pieces.
struct Parts {
  Parts(qcow2::RangeLock::Held range, std::function<void(int)> whole)
      : held(std::move(range)), done(std::move(whole)) {}
  qcow2::RangeLock::Held held;
  std::function<void(int)> done;
  size_t left = 0;
  int error = 0;
};

}  // namespace

Result<std::unique_ptr<Qcow2Disk>> Qcow2Disk::create(EventLoop& loop, std::unique_ptr<qcow2::Image> image,
                                                     Qcow2DiskOptions options) {
  auto disk = std::unique_ptr<Qcow2Disk>(new Qcow2Disk(std::move(image), std::move(options)));
  const std::string& name = disk->options_.name;
  const auto usable = whole_sectors(disk->image_->size(), name);
  if (!usable) return std::unexpected(usable.error());
  disk->size_ = *usable;
  auto queue = DiskQueue::create(loop, disk->options_.use_io_uring);
  if (!queue) return with_context("disk " + name, queue.error());
  disk->queue_ = std::move(*queue);
  return disk;
}

Qcow2Disk::~Qcow2Disk() {
  queue_.reset();
  if (const int error = image_->flush())
    log::error("disk {}: the last changes were not written: {}", options_.name, std::strerror(error));
}

unsigned Qcow2Disk::block_size() const {
  return static_cast<unsigned>(std::min<uint64_t>(image_->header().cluster_size(), 4096));
}

void Qcow2Disk::submit(BlockRequest request) {
  const int error = check_request(request, size_, read_only());
  const bool nothing = request.op == BlockOp::Flush ? read_only() : request.length == 0;
  if (error != 0 || nothing) return queue_->complete(error, std::move(request.done));
  if (request.op == BlockOp::Flush && image_->try_clean()) {
    return queue_->submit(image_->fd(), false, std::move(request));
  }
  const bool data = request.op == BlockOp::Read || request.op == BlockOp::Write;
  // Without a ring the pieces would wait for a thread with the range locked, and the threads may all wait for the
  // range.
  if (data && queue_->uses_io_uring() && submit_in_place(request)) return;
  submit_to_pool(std::move(request));
}

Result<> Qcow2Disk::grow(uint64_t bytes) {
  if (read_only()) return fail("it is read-only");
  if (bytes > image_->size()) {
    switch (const int error = image_->resize(bytes)) {
      case 0: break;
      case ENOTSUP: return fail("its snapshots stand against this; delete them with 'qemu-img snapshot -d'");
      case EFBIG: return fail("its clusters are too small for a disk of that size");
      default: return fail_errno(error, "its image does not grow");
    }
  }
  size_ = bytes;
  return {};
}

// False, and the request as it was, where that needs more than a look into memory.
bool Qcow2Disk::submit_in_place(BlockRequest& request) {
  auto held = image_->try_lock(request.offset, request.length);
  if (!held) return false;
  std::vector<qcow2::Piece>& pieces = pieces_;
  pieces.clear();
  const bool located = request.op == BlockOp::Read
                           ? image_->try_locate(request.offset, request.length, pieces)
                           : image_->try_locate_for_write(request.offset, request.length, pieces);
  if (!located || pieces.size() > most_pieces) return false;

  auto parts = std::make_shared<Parts>(std::move(*held), std::move(request.done));  // all pieces own it
  parts->left =
      static_cast<size_t>(std::ranges::count_if(pieces, [](const qcow2::Piece& piece) { return piece.fd >= 0; }));
  if (parts->left == 0) {
    fill_zero(request.buffers);
    queue_->complete(0, [parts](int error) { parts->done(error); });
    return true;
  }
  const auto part_done = [parts](int error) {
    if (error != 0) parts->error = error;
    if (--parts->left == 0) parts->done(parts->error);
  };
  if (pieces.size() == 1) {
    request.offset = pieces.front().offset;
    request.done = part_done;
    queue_->submit(pieces.front().fd, false, std::move(request));
    return true;
  }
  uint64_t at = 0;
  for (const qcow2::Piece& piece : pieces) {
    auto buffers = qcow2::slice(request.buffers, at, piece.length);
    at += piece.length;
    if (piece.fd < 0) {
      fill_zero(buffers);
      continue;
    }
    queue_->submit(piece.fd, false,
                   {.op = request.op,
                    .offset = piece.offset,
                    .length = piece.length,
                    .buffers = std::move(buffers),
                    .done = part_done});
  }
  return true;
}

void Qcow2Disk::submit_to_pool(BlockRequest request) {
  auto done = std::move(request.done);
  queue_->run(
      [image = image_.get(), request = std::move(request)] {
        switch (request.op) {
          case BlockOp::Read: return image->read(request.offset, request.length, request.buffers);
          case BlockOp::Write: return image->write(request.offset, request.length, request.buffers);
          case BlockOp::Flush: return image->flush();
          case BlockOp::Discard: return image->discard(request.offset, request.length);
          case BlockOp::WriteZeroes: return image->write_zeroes(request.offset, request.length, request.may_unmap);
        }
        return EINVAL;
      },
      std::move(done));
}

}  // namespace caisson
