#include "backend/raw_image.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <utility>

#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "backend/disk_io.h"
#include "backend/disk_queue.h"
#include "base/log.h"

namespace caisson {
namespace {

constexpr uint64_t sector = 512;

}  // namespace

struct RawImage::Impl {
  Impl(Fd file, RawImageOptions given) : fd(std::move(file)), options(std::move(given)) {}

  const Fd fd;
  const RawImageOptions options;
  uint64_t size = 0;
  unsigned block_size = sector;
  bool block_device = false;
  std::unique_ptr<DiskQueue> queue;  // last: it uses the descriptor until it ends
};

RawImage::RawImage(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
RawImage::~RawImage() = default;

Result<std::unique_ptr<RawImage>> RawImage::create(EventLoop& loop, Fd fd, RawImageOptions options) {
  auto impl = std::make_unique<Impl>(std::move(fd), std::move(options));
  const std::string& name = impl->options.name;
  struct stat status {};
  if (::fstat(impl->fd.get(), &status) != 0) return fail_errno(errno, "cannot read the size of disk " + name);
  uint64_t bytes = static_cast<uint64_t>(status.st_size);
  unsigned natural = static_cast<unsigned>(std::clamp<long>(status.st_blksize, 512, 4096));
  impl->block_device = S_ISBLK(status.st_mode);
  if (impl->block_device) {
    if (::ioctl(impl->fd.get(), BLKGETSIZE64, &bytes) != 0 || ::ioctl(impl->fd.get(), BLKPBSZGET, &natural) != 0) {
      return fail_errno(errno, "cannot read the size of disk " + name);
    }
    natural = std::clamp(natural, 512u, 4096u);
  } else if (!S_ISREG(status.st_mode)) {
    return fail("disk {}: is neither a file nor a block device; give one of these", name);
  }
  impl->size = bytes / sector * sector;
  impl->block_size = std::bit_floor(natural);
  if (impl->size == 0) return fail("disk {}: has {} bytes, less than one sector; it may be truncated", name, bytes);
  if (impl->size != bytes) {
    log::warning(
        "disk {}: its size of {} bytes is not a multiple of 512; the last {} bytes are out of the guest's reach", name,
        bytes, bytes - impl->size);
  }

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

void RawImage::drain() { impl_->queue->drain(); }

}  // namespace caisson
