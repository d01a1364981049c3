#include "backend/disk_queue.h"

#include <cerrno>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include <liburing.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include "backend/disk_io.h"
#include "backend/worker_pool.h"
#include "base/check.h"
#include "base/fd.h"

namespace caisson {
namespace {

constexpr unsigned ring_entries = 128;
constexpr size_t most_threads = 4;
constexpr uint64_t retry_after_ns = 1'000'000;

struct DiskJob : Job {
  DiskJob(int file, bool device, BlockRequest whole) : Job(std::move(whole)), fd(file), block_device(device) {}
  int fd;
  bool block_device;
};

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

  // Queues the job.
  void start(std::unique_ptr<DiskJob> job) {
    io_uring_sqe* const entry = ::io_uring_get_sqe(&ring_);
    CAISSON_CHECK(entry != nullptr);  // as many entries as jobs in flight
    const int fd = job->fd;
    switch (job->request.op) {
      case BlockOp::Read: ::io_uring_prep_readv(entry, fd, job->buffers(), job->buffer_count(), job->offset); break;
      case BlockOp::Write: ::io_uring_prep_writev(entry, fd, job->buffers(), job->buffer_count(), job->offset); break;
      default: ::io_uring_prep_fsync(entry, fd, IORING_FSYNC_DATASYNC); break;
    }
    ::io_uring_sqe_set_data(entry, job.release());
    ++in_flight_;
  }

  // True when the kernel has taken everything that was queued.
  [[nodiscard]] bool push() {
    if (::io_uring_sq_ready(&ring_) == 0) return true;
    ::io_uring_submit(&ring_);
    return ::io_uring_sq_ready(&ring_) == 0;
  }

  struct Finished {
    std::unique_ptr<DiskJob> job;
    int result;
  };
  std::optional<Finished> take() {
    io_uring_cqe* entry = nullptr;
    if (::io_uring_peek_cqe(&ring_, &entry) != 0 || entry == nullptr) return std::nullopt;
    Finished finished{std::unique_ptr<DiskJob>{static_cast<DiskJob*>(::io_uring_cqe_get_data(entry))}, entry->res};
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

struct DiskQueue::Impl {
  explicit Impl(EventLoop& event_loop) : loop(event_loop) {}

  void start_in_ring(std::unique_ptr<DiskJob> job);
  void push();
  [[nodiscard]] bool done_at_once(DiskJob& job);
  void ring_finished(std::unique_ptr<DiskJob> job, int result);
  void pool_finished(Done done, int error);
  void collect();
  void report_batch();
  void drain();
  void finish(const Done& done, int error);

  EventLoop& loop;
  Fd event_fd;

  // Under the device lock.
  std::unique_ptr<Ring> ring;
  std::unique_ptr<EventLoop::Timer> retry;  // when the kernel did not take what was queued
  std::deque<std::unique_ptr<DiskJob>> waiting;
  size_t in_flight = 0;
  bool closing = false;
  bool batch = false;
  std::vector<std::pair<Done, int>> done_in_batch;
  bool reads_at_once = true, writes_at_once = true;  // the host's file system knows how

  std::mutex mutex;  // over the list
  std::condition_variable listed;
  std::vector<std::pair<Done, int>> list;  // finished, not yet reported

  WorkerPool pool{most_threads};  // last: its threads use the list until they end
};

void DiskQueue::Impl::start_in_ring(std::unique_ptr<DiskJob> job) {
  ring->start(std::move(job));
  if (!batch) push();
}

void DiskQueue::Impl::push() {
  if (!ring->push()) retry->arm(EventLoop::now_ns() + retry_after_ns);
}

// What the page cache has, or takes, is not worth the way through the ring and the event loop, which costs several
// times as much as the copy. A part may have been transferred where it says false.
bool DiskQueue::Impl::done_at_once(DiskJob& job) {
  const bool reads = job.request.op == BlockOp::Read;
  bool& able = reads ? reads_at_once : writes_at_once;
  if (!able || (!reads && job.request.op != BlockOp::Write)) return false;
  const auto count = static_cast<int>(job.buffer_count());
  const auto offset = static_cast<off_t>(job.offset);
  const ssize_t result = reads ? ::preadv2(job.fd, job.buffers(), count, offset, RWF_NOWAIT)
                               : ::pwritev2(job.fd, job.buffers(), count, offset, RWF_NOWAIT);
  if (result < 0 && (errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL)) able = false;
  if (result > 0) job.advance(static_cast<uint64_t>(result));
  return job.left == 0;
}

void DiskQueue::Impl::ring_finished(std::unique_ptr<DiskJob> job, int result) {
  if (result == -EINTR || result == -EAGAIN) return start_in_ring(std::move(job));
  if (result < 0) return finish(job->request.done, -result);
  if (job->request.op == BlockOp::Flush) return finish(job->request.done, 0);
  if (result == 0) {
    if (job->request.op == BlockOp::Write) return finish(job->request.done, EIO);
    job->zero_rest();
  } else {
    job->advance(static_cast<uint64_t>(result));
  }
  if (job->left > 0) return start_in_ring(std::move(job));
  finish(job->request.done, 0);
}

void DiskQueue::Impl::pool_finished(Done done, int error) {
  {
    const std::lock_guard lock{mutex};
    list.emplace_back(std::move(done), error);
  }
  listed.notify_one();
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(event_fd.get(), &one, sizeof one);
}

void DiskQueue::Impl::report_batch() {
  for (const auto& [done, error] : std::exchange(done_in_batch, {})) finish(done, error);
}

// Reports whatever has finished.
void DiskQueue::Impl::collect() {
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
  report_batch();
  std::vector<std::pair<Done, int>> ready;
  {
    const std::lock_guard lock{mutex};
    ready.swap(list);
  }
  for (const auto& [done, error] : ready) finish(done, error);
}

void DiskQueue::Impl::drain() {
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

void DiskQueue::Impl::finish(const Done& done, int error) {
  --in_flight;
  if (!closing) done(error);
}

DiskQueue::DiskQueue(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

DiskQueue::~DiskQueue() {
  impl_->closing = true;
  impl_->drain();
  impl_->loop.unwatch(impl_->event_fd.get());
}

Result<std::unique_ptr<DiskQueue>> DiskQueue::create(EventLoop& loop, bool use_io_uring) {
  auto impl = std::make_unique<Impl>(loop);
  impl->event_fd = Fd{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  if (!impl->event_fd.valid()) {
    return fail_errno(errno, "cannot set up a disk's queue; raise the limit on open files (ulimit -n)");
  }
  Impl* const raw = impl.get();
  if (use_io_uring) impl->ring = Ring::create(impl->event_fd.get());
  impl->retry = loop.create_timer([raw] {
    if (!raw->ring->push()) raw->retry->arm(EventLoop::now_ns() + retry_after_ns);
  });
  loop.watch(impl->event_fd.get(), EPOLLIN, [raw](uint32_t) { raw->collect(); });
  return std::unique_ptr<DiskQueue>(new DiskQueue(std::move(impl)));
}

void DiskQueue::submit(int fd, bool block_device, BlockRequest request) {
  const BlockOp op = request.op;
  auto job = std::make_unique<DiskJob>(fd, block_device, std::move(request));
  const bool in_ring = op == BlockOp::Read || op == BlockOp::Write || op == BlockOp::Flush;
  if (impl_->ring == nullptr || !in_ring) {
    auto shared = std::make_shared<std::unique_ptr<DiskJob>>(std::move(job));  // std::function wants to be copied
    Done done = [shared](int error) { (*shared)->request.done(error); };
    return run([shared] { return perform((*shared)->fd, (*shared)->block_device, **shared); }, std::move(done));
  }
  ++impl_->in_flight;
  if (impl_->batch && impl_->waiting.empty() && impl_->done_at_once(*job)) {
    impl_->done_in_batch.emplace_back(std::move(job->request.done), 0);
    return;
  }
  // The order of arrival holds among those that wait.
  if (impl_->ring->full() || !impl_->waiting.empty()) return impl_->waiting.push_back(std::move(job));
  impl_->start_in_ring(std::move(job));
}

void DiskQueue::run(std::function<int()> work, Done done) {
  ++impl_->in_flight;
  impl_->pool.run([impl = impl_.get(), work = std::move(work), done = std::move(done)]() mutable {
    const int error = work();
    work = nullptr;
    impl->pool_finished(std::move(done), error);
  });
}

void DiskQueue::complete(int error, Done done) {
  ++impl_->in_flight;
  if (impl_->batch) {
    impl_->done_in_batch.emplace_back(std::move(done), error);
  } else {
    impl_->pool_finished(std::move(done), error);
  }
}

void DiskQueue::begin_batch() { impl_->batch = true; }

void DiskQueue::end_batch() {
  impl_->batch = false;
  if (impl_->ring != nullptr) impl_->push();
  impl_->report_batch();
}

void DiskQueue::drain() { impl_->drain(); }

bool DiskQueue::uses_io_uring() const { return impl_->ring != nullptr; }

}  // namespace caisson
