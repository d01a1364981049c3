#include "backend/raw_image.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include <liburing.h>
#include <linux/fs.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "backend/disk_io.h"
#include "backend/worker_pool.h"
#include "base/check.h"
#include "base/log.h"

namespace caisson {
namespace {

constexpr uint64_t sector = 512;
constexpr unsigned ring_entries = 128;
constexpr size_t most_threads = 4;
constexpr uint64_t retry_after_ns = 1'000'000;

// An io_uring with the operations we need; none where the host does not offer it.
class Ring {
 public:
  static std::unique_ptr<Ring> create(int event_fd) {
    auto ring = std::unique_ptr<Ring>(new Ring);
    if (::io_uring_queue_init(ring_entries, &ring->ring_, 0) != 0) return nullptr;
    ring->open_ = true;
    io_uring_probe* probe = ::io_uring_get_probe_ring(&ring->ring_);
    const bool able = probe != nullptr && io_uring_opcode_supported(probe, IORING_OP_READV) &&
                      io_uring_opcode_supported(probe, IORING_OP_WRITEV) &&
                      io_uring_opcode_supported(probe, IORING_OP_FSYNC);
    if (probe != nullptr) ::io_uring_free_probe(probe);
    if (!able || ::io_uring_register_eventfd(&ring->ring_, event_fd) != 0) return nullptr;
    return ring;
  }
  ~Ring() {
    if (open_) ::io_uring_queue_exit(&ring_);
  }
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  [[nodiscard]] size_t in_flight() const { return in_flight_; }
  [[nodiscard]] bool full() const { return in_flight_ >= ring_entries; }

  // Queues the job; true when the kernel has taken everything that was queued.
  [[nodiscard]] bool start(int fd, std::unique_ptr<Job> job) {
    io_uring_sqe* const entry = ::io_uring_get_sqe(&ring_);
    CAISSON_CHECK(entry != nullptr);  // as many entries as jobs in flight
    switch (job->request.op) {
      case BlockOp::Read: ::io_uring_prep_readv(entry, fd, job->buffers(), job->buffer_count(), job->offset); break;
      case BlockOp::Write: ::io_uring_prep_writev(entry, fd, job->buffers(), job->buffer_count(), job->offset); break;
      default: ::io_uring_prep_fsync(entry, fd, IORING_FSYNC_DATASYNC); break;
    }
    ::io_uring_sqe_set_data(entry, job.release());
    ++in_flight_;
    return push();
  }

  [[nodiscard]] bool push() {
    ::io_uring_submit(&ring_);
    return ::io_uring_sq_ready(&ring_) == 0;
  }

  struct Finished {
    std::unique_ptr<Job> job;
    int result;
  };
  std::optional<Finished> take() {
    io_uring_cqe* entry = nullptr;
    if (::io_uring_peek_cqe(&ring_, &entry) != 0 || entry == nullptr) return std::nullopt;
    Finished finished{std::unique_ptr<Job>{static_cast<Job*>(::io_uring_cqe_get_data(entry))}, entry->res};
    ::io_uring_cqe_seen(&ring_, entry);
    --in_flight_;
    return finished;
  }

  void wait() {
    io_uring_cqe* entry = nullptr;
    ::io_uring_wait_cqe(&ring_, &entry);
  }

 private:
  Ring() = default;

  io_uring ring_{};
  bool open_ = false;
  size_t in_flight_ = 0;
};

}  // namespace

struct RawImage::Impl {
  Impl(EventLoop& event_loop, Fd file, RawImageOptions given)
      : loop(event_loop), fd(std::move(file)), options(std::move(given)) {}

  [[nodiscard]] int check(const BlockRequest& request) const;
  void start(std::unique_ptr<Job> job);
  void start_in_pool(std::unique_ptr<Job> job);
  void start_in_ring(std::unique_ptr<Job> job);
  void ring_finished(std::unique_ptr<Job> job, int result);
  void pool_finished(std::unique_ptr<Job> job, int error);
  void collect();
  void drain();
  void finish(std::unique_ptr<Job> job, int error);

  EventLoop& loop;
  const Fd fd;
  const RawImageOptions options;
  uint64_t size = 0;
  unsigned block_size = sector;
  bool block_device = false;
  Fd event_fd;

  // Under the device lock.
  std::unique_ptr<Ring> ring;
  std::unique_ptr<EventLoop::Timer> retry;  // when the kernel did not take what was queued
  std::deque<std::unique_ptr<Job>> waiting;
  size_t in_flight = 0;
  bool closing = false;

  std::mutex mutex;  // over the list
  std::condition_variable listed;
  std::vector<std::pair<std::unique_ptr<Job>, int>> list;  // finished, not yet reported

  WorkerPool pool{most_threads};  // last: its threads use the list until they end
};

int RawImage::Impl::check(const BlockRequest& request) const {
  if (request.op == BlockOp::Flush) return request.offset == 0 && request.length == 0 ? 0 : EINVAL;
  if (request.offset % sector != 0 || request.length % sector != 0) return EINVAL;
  if (request.offset > size || request.length > size - request.offset) return EINVAL;
  if (request.op == BlockOp::Read || request.op == BlockOp::Write) {
    uint64_t sum = 0;
    for (const iovec& buffer : request.buffers) {
      if (buffer.iov_len > request.length - sum) return EINVAL;
      sum += buffer.iov_len;
    }
    if (sum != request.length) return EINVAL;
  }
  if (options.read_only && request.op != BlockOp::Read) return EROFS;
  return 0;
}

void RawImage::Impl::start(std::unique_ptr<Job> job) {
  ++in_flight;
  const BlockRequest& request = job->request;
  if (const int error = check(request); error != 0) return pool_finished(std::move(job), error);
  const bool nothing = request.op == BlockOp::Flush ? options.read_only : request.length == 0;
  if (nothing) return pool_finished(std::move(job), 0);
  const bool in_ring = request.op == BlockOp::Read || request.op == BlockOp::Write || request.op == BlockOp::Flush;
  if (ring == nullptr || !in_ring) return start_in_pool(std::move(job));
  // The order of arrival holds among those that wait.
  if (ring->full() || !waiting.empty()) return waiting.push_back(std::move(job));
  start_in_ring(std::move(job));
}

void RawImage::Impl::start_in_pool(std::unique_ptr<Job> job) {
  auto shared = std::make_shared<std::unique_ptr<Job>>(std::move(job));  // std::function wants to be copied
  pool.run([this, shared] {
    const int error = perform(fd.get(), block_device, **shared);
    pool_finished(std::move(*shared), error);
  });
}

void RawImage::Impl::start_in_ring(std::unique_ptr<Job> job) {
  if (!ring->start(fd.get(), std::move(job))) retry->arm(EventLoop::now_ns() + retry_after_ns);
}

void RawImage::Impl::ring_finished(std::unique_ptr<Job> job, int result) {
  if (result == -EINTR || result == -EAGAIN) return start_in_ring(std::move(job));
  if (result < 0) return finish(std::move(job), -result);
  if (job->request.op == BlockOp::Flush) return finish(std::move(job), 0);
  if (result == 0) {
    if (job->request.op == BlockOp::Write) return finish(std::move(job), EIO);
    job->zero_rest();
  } else {
    job->advance(static_cast<uint64_t>(result));
  }
  if (job->left > 0) return start_in_ring(std::move(job));
  finish(std::move(job), 0);
}

void RawImage::Impl::pool_finished(std::unique_ptr<Job> job, int error) {
  {
    const std::lock_guard lock{mutex};
    list.emplace_back(std::move(job), error);
  }
  listed.notify_one();
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(event_fd.get(), &one, sizeof one);
}

// Reports whatever has finished.
void RawImage::Impl::collect() {
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t size_read = ::read(event_fd.get(), &count, sizeof count);
  if (ring != nullptr) {
    while (auto finished = ring->take()) {
      ring_finished(std::move(finished->job), finished->result);
      while (!waiting.empty() && !ring->full()) {
        auto next = std::move(waiting.front());
        waiting.pop_front();
        start_in_ring(std::move(next));
      }
    }
  }
  std::vector<std::pair<std::unique_ptr<Job>, int>> ready;
  {
    const std::lock_guard lock{mutex};
    ready.swap(list);
  }
  for (auto& [job, error] : ready) finish(std::move(job), error);
}

void RawImage::Impl::drain() {
  for (;;) {
    collect();
    if (in_flight == 0) return;
    if (ring != nullptr && ring->in_flight() > 0) {
      if (ring->push()) {
        ring->wait();
      }
    } else {
      std::unique_lock lock{mutex};
      listed.wait(lock, [this] { return !list.empty(); });
    }
  }
}

void RawImage::Impl::finish(std::unique_ptr<Job> job, int error) {
  --in_flight;
  if (!closing) job->request.done(error);
}

RawImage::RawImage(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

RawImage::~RawImage() {
  impl_->closing = true;
  impl_->drain();
  impl_->loop.unwatch(impl_->event_fd.get());
}

Result<std::unique_ptr<RawImage>> RawImage::create(EventLoop& loop, Fd fd, RawImageOptions options) {
  auto impl = std::make_unique<Impl>(loop, std::move(fd), std::move(options));
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

  impl->event_fd = Fd{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  if (!impl->event_fd.valid()) {
    return fail_errno(errno, "cannot set up disk " + name + "; raise the limit on open files (ulimit -n)");
  }
  Impl* const raw = impl.get();
  if (impl->options.use_io_uring) impl->ring = Ring::create(impl->event_fd.get());
  impl->retry = loop.create_timer([raw] {
    if (!raw->ring->push()) raw->retry->arm(EventLoop::now_ns() + retry_after_ns);
  });
  loop.watch(impl->event_fd.get(), EPOLLIN, [raw](uint32_t) { raw->collect(); });
  return std::unique_ptr<RawImage>(new RawImage(std::move(impl)));
}

uint64_t RawImage::size() const { return impl_->size; }
bool RawImage::read_only() const { return impl_->options.read_only; }
unsigned RawImage::block_size() const { return impl_->block_size; }
std::string_view RawImage::id() const { return impl_->options.id; }
bool RawImage::uses_io_uring() const { return impl_->ring != nullptr; }

void RawImage::submit(BlockRequest request) { impl_->start(std::make_unique<Job>(std::move(request))); }
void RawImage::drain() { impl_->drain(); }

}  // namespace caisson
