#include "backend/raw_image.h"

#include <bit>
#include <cerrno>
#include <utility>

#include <unistd.h>

#include "backend/disk_io.h"
#include "backend/disk_queue.h"

namespace caisson {
struct RawImage::Impl {
  Impl(Fd file, RawImageOptions given) : fd(std::move(file)), options(std::move(given)) {}

  const Fd fd;
  const RawImageOptions options;
  uint64_t size = 0;
  unsigned block_size = 512;
  bool block_device = false;
  std::unique_ptr<DiskQueue> queue;  // last: it uses the descriptor until it ends
};

RawImage::RawImage(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
RawImage::~RawImage() = default;

Result<std::unique_ptr<RawImage>> RawImage::create(EventLoop& loop, Fd fd, RawImageOptions options) {
  auto impl = std::make_unique<Impl>(std::move(fd), std::move(options));
  const std::string& name = impl->options.name;
  const auto size = size_of_disk(impl->fd.get(), name);
  if (!size) return std::unexpected(size.error());
  const auto usable = whole_sectors(size->bytes, name);
  if (!usable) return std::unexpected(usable.error());
  impl->size = *usable;
  impl->block_size = std::bit_floor(size->natural);
  impl->block_device = size->block_device;

  auto queue = DiskQueue::create(loop, impl->options.use_io_uring);
  if (!queue) return with_context("disk " + name, queue.error());
  impl->queue = std::move(*queue);
  return std::unique_ptr<RawImage>(new RawImage(std::move(impl)));
}

uint64_t RawImage::size() const { return impl_->size; }
bool RawImage::read_only() const { return impl_->options.read_only; }
unsigned RawImage::block_size() const { return impl_->block_size; }
std::string_view RawImage::id() const { return impl_->options.id; }
bool RawImage::uses_io_uring() const { return impl_->queue->uses_io_uring(); }

void RawImage::submit(BlockRequest request) {
  Impl& impl = *impl_;
  const int error = check_request(request, impl.size, impl.options.read_only);
  const bool nothing = request.op == BlockOp::Flush ? impl.options.read_only : request.length == 0;
  if (error != 0 || nothing) return impl.queue->complete(error, std::move(request.done));
  impl.queue->submit(impl.fd.get(), impl.block_device, std::move(request));
}

void RawImage::begin_batch() { impl_->queue->begin_batch(); }
void RawImage::end_batch() { impl_->queue->end_batch(); }
void RawImage::drain() { impl_->queue->drain(); }

Result<> RawImage::grow(uint64_t bytes) {
  Impl& impl = *impl_;
  if (impl.options.read_only) return fail("it is read-only");
  const auto now = size_of_disk(impl.fd.get(), impl.options.name);
  if (!now) return std::unexpected(now.error());
  // A file that somebody has made larger meanwhile is not cut.
  if (now->bytes < bytes) {
    if (impl.block_device) return fail("it is a block device of {} bytes; make that larger first", now->bytes);
    if (::ftruncate(impl.fd.get(), static_cast<off_t>(bytes)) != 0) return fail_errno(errno, "its file does not grow");
  }
  impl.size = bytes;
  return {};
}

}  // namespace caisson
