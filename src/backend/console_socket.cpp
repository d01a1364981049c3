#include "backend/console_socket.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>

#include "backend/ignore_sigpipe.h"
#include "base/log.h"

namespace caisson {
namespace {

// A serial port brings its bytes one by one. The first after a pause goes out at once; those that follow within this
// time go together, in one system call.
constexpr uint64_t gather_ns = 1'000'000;
constexpr size_t gather_bytes = 4096;

// A ring of bytes with a fixed capacity.
class ByteRing {
 public:
  explicit ByteRing(size_t capacity)
      : bytes_(std::make_unique_for_overwrite<uint8_t[]>(capacity)), capacity_(capacity) {}

  [[nodiscard]] bool empty() const { return count_ == 0; }
  [[nodiscard]] size_t size() const { return count_; }
  [[nodiscard]] size_t room() const { return capacity_ - count_; }

  // As many as there is room for.
  size_t push(std::span<const uint8_t> from) {
    const size_t total = std::min(from.size(), room());
    for (size_t done = 0; done < total;) {
      const size_t at = (head_ + count_) % capacity_;
      const size_t part = std::min(total - done, capacity_ - at);
      std::memcpy(bytes_.get() + at, from.data() + done, part);
      count_ += part;
      done += part;
    }
    return total;
  }

  // The longest piece at the front that lies in one place.
  [[nodiscard]] std::span<const uint8_t> front() const {
    return {bytes_.get() + head_, std::min(count_, capacity_ - head_)};
  }
  void pop(size_t size) {
    head_ = (head_ + size) % capacity_;
    count_ -= size;
  }
  void clear() { head_ = count_ = 0; }

 private:
  std::unique_ptr<uint8_t[]> bytes_;  // not touched before it is used
  size_t capacity_;
  size_t head_ = 0;
  size_t count_ = 0;
};

Result<> make_nonblocking(const Fd& fd) {
  if (!fd.valid()) return {};
  const int flags = ::fcntl(fd.get(), F_GETFL);
  if (flags < 0 || ::fcntl(fd.get(), F_SETFL, flags | O_NONBLOCK) != 0) {
    return fail_errno(errno, "cannot set up the console");
  }
  return {};
}

}  // namespace

struct ConsoleSocket::Impl {
  Impl(EventLoop& event_loop, Fd in, Fd out, ConsoleSocketOptions options)
      : loop(event_loop),
        input(std::move(in)),
        output(std::move(out)),
        log_fd(std::move(options.log)),
        to_host(std::max<size_t>(options.output_buffer, 1)),
        to_guest(std::max<size_t>(options.input_buffer, 1)),
        offer_soon(loop.create_timer([this] { offer(); })),
        flush_soon(loop.create_timer([this] { output_ready(); })) {}

  void write_log(std::span<const uint8_t> bytes);
  // Writes what the host takes without waiting; gives false when it takes no more now.
  bool flush();
  void output_gone();
  void update_output_watch();
  void output_ready();
  void read_input();
  void offer();
  void update_input_watch();

  EventLoop& loop;
  Fd input;
  Fd output;
  Fd log_fd;
  ByteRing to_host;
  ByteRing to_guest;
  std::unique_ptr<EventLoop::Timer> offer_soon;  // the receiver is never called from inside a call
  std::unique_ptr<EventLoop::Timer> flush_soon;
  uint64_t gather_until = 0;
  std::function<void()> writable;
  std::function<void()> input_ended;
  Receiver receiver;
  bool refused = false;  // the device has bytes left and waits for `writable`
  bool output_watched = false;
  bool input_watched = false;
};

void ConsoleSocket::Impl::write_log(std::span<const uint8_t> bytes) {
  while (log_fd.valid() && !bytes.empty()) {
    const ssize_t size = ::write(log_fd.get(), bytes.data(), bytes.size());
    if (size > 0) {
      bytes = bytes.subspan(static_cast<size_t>(size));
    } else if (size == 0 || errno != EINTR) {
      log::warning("the console's log cannot be written any more: {}; the console goes on without it",
                   std::strerror(errno));
      log_fd.reset();
    }
  }
}

bool ConsoleSocket::Impl::flush() {
  while (!to_host.empty()) {
    const auto bytes = to_host.front();
    const ssize_t size = ::write(output.get(), bytes.data(), bytes.size());
    if (size > 0) {
      to_host.pop(static_cast<size_t>(size));
    } else if (size < 0 && errno == EINTR) {
      continue;
    } else if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      return false;
    } else {
      output_gone();
    }
  }
  return true;
}

void ConsoleSocket::Impl::output_gone() {
  if (output_watched) loop.unwatch(output.get());
  output_watched = false;
  output.reset();
  to_host.clear();
}

void ConsoleSocket::Impl::update_output_watch() {
  const bool wanted = output.valid() && !to_host.empty();
  if (wanted == output_watched) return;
  if (wanted) {
    loop.watch(output.get(), EPOLLOUT, [this](uint32_t) { output_ready(); });
  } else {
    loop.unwatch(output.get());
  }
  output_watched = wanted;
}

void ConsoleSocket::Impl::output_ready() {
  flush();
  update_output_watch();
  // Not for every byte of room: let the device fill a good part at once.
  if (refused && to_host.size() <= to_host.room()) {
    refused = false;
    if (writable) {
      const auto handler = writable;
      handler();
    }
  }
}

void ConsoleSocket::Impl::read_input() {
  std::array<uint8_t, 4096> bytes;
  const ssize_t size = ::read(input.get(), bytes.data(), std::min(bytes.size(), to_guest.room()));
  if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return;
  if (size <= 0) {  // end, or an error that will not go away
    if (input_watched) loop.unwatch(input.get());
    input_watched = false;
    input.reset();
    if (input_ended) std::exchange(input_ended, nullptr)();
    return;
  }
  to_guest.push({bytes.data(), static_cast<size_t>(size)});
  offer();
}

void ConsoleSocket::Impl::offer() {
  while (receiver && !to_guest.empty()) {
    const auto bytes = to_guest.front();
    const Receiver current = receiver;  // it may be replaced from inside
    const size_t taken = std::min(current(bytes), bytes.size());
    to_guest.pop(taken);
    if (taken < bytes.size()) break;
  }
  update_input_watch();
}

void ConsoleSocket::Impl::update_input_watch() {
  // What the guest has not taken yet comes first.
  const bool wanted = input.valid() && receiver && to_guest.empty();
  if (wanted == input_watched) return;
  if (wanted) {
    loop.watch(input.get(), EPOLLIN, [this](uint32_t) { read_input(); });
  } else {
    loop.unwatch(input.get());
  }
  input_watched = wanted;
}

ConsoleSocket::ConsoleSocket(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

ConsoleSocket::~ConsoleSocket() {
  if (impl_->output_watched) impl_->loop.unwatch(impl_->output.get());
  if (impl_->input_watched) impl_->loop.unwatch(impl_->input.get());
}

Result<std::unique_ptr<ConsoleSocket>> ConsoleSocket::create(EventLoop& loop, Fd input, Fd output,
                                                             ConsoleSocketOptions options) {
  ignore_sigpipe();
  if (auto done = make_nonblocking(input); !done) return std::unexpected(done.error());
  if (auto done = make_nonblocking(output); !done) return std::unexpected(done.error());
  return std::unique_ptr<ConsoleSocket>(
      new ConsoleSocket(std::make_unique<Impl>(loop, std::move(input), std::move(output), std::move(options))));
}

size_t ConsoleSocket::write(std::span<const uint8_t> bytes) {
  Impl& my = *impl_;
  size_t taken = 0;
  if (!my.output.valid()) {
    taken = bytes.size();
  } else {
    for (;;) {
      const bool was_empty = my.to_host.empty();
      taken += my.to_host.push(bytes.subspan(taken));
      if (my.output_watched) break;  // the host has said that it is full
      if (my.to_host.size() < gather_bytes && taken == bytes.size()) {
        const uint64_t now = EventLoop::now_ns();
        if (now < my.gather_until) {
          if (was_empty) my.flush_soon->arm(my.gather_until);
          break;
        }
        my.gather_until = now + gather_ns;
      }
      const bool written = my.flush();
      if (!written || taken == bytes.size()) {
        my.update_output_watch();
        break;
      }
    }
    if (!my.output.valid()) taken = bytes.size();
    my.refused = my.refused || taken < bytes.size();
  }
  my.write_log(bytes.first(taken));
  return taken;
}

void ConsoleSocket::set_writable_handler(std::function<void()> handler) { impl_->writable = std::move(handler); }

void ConsoleSocket::set_receiver(Receiver receiver) {
  impl_->receiver = std::move(receiver);
  receive_ready();
}

void ConsoleSocket::receive_ready() {
  if (impl_->receiver && !impl_->to_guest.empty()) {
    impl_->offer_soon->arm(0);
  } else {
    impl_->update_input_watch();
  }
}

bool ConsoleSocket::gone() const { return !impl_->output.valid(); }

void ConsoleSocket::set_input_end_handler(std::function<void()> handler) { impl_->input_ended = std::move(handler); }

bool ConsoleSocket::drain(uint64_t deadline_ns) {
  Impl& my = *impl_;
  while (!my.flush()) {
    const uint64_t now = EventLoop::now_ns();
    if (now >= deadline_ns) break;
    pollfd waiting{my.output.get(), POLLOUT, 0};
    const uint64_t ms = (deadline_ns - now) / 1'000'000 + 1;
    ::poll(&waiting, 1, static_cast<int>(std::min<uint64_t>(ms, 60'000)));
  }
  const bool empty = my.to_host.empty();
  my.update_output_watch();
  return empty;
}

}  // namespace caisson
