#include "machine/console_hub.h"

#include <algorithm>
#include <array>
#include <cerrno>

#include <sys/socket.h>
#include <unistd.h>

namespace caisson::machine {

ConsoleHub::ConsoleHub(EventLoop& loop, std::unique_ptr<ConsoleSocket> first, std::unique_ptr<ConsoleLog> log)
    : loop_(loop), first_(std::move(first)), log_(std::move(log)) {}

size_t ConsoleHub::write(std::span<const uint8_t> bytes) {
  const size_t taken = first_->write(bytes);
  for (const auto& other : others_) (void)other.socket->write(bytes.first(taken));
  if (log_) log_->write(bytes.first(taken));
  return taken;
}

void ConsoleHub::set_writable_handler(std::function<void()> handler) {
  first_->set_writable_handler(std::move(handler));
}

void ConsoleHub::set_receiver(Receiver receiver) {
  receiver_ = std::move(receiver);
  first_->set_receiver(receiver_);
  for (const auto& other : others_) other.socket->set_receiver(receiver_);
}

void ConsoleHub::receive_ready() {
  first_->receive_ready();
  for (const auto& other : others_) other.socket->receive_ready();
}

void ConsoleHub::forget_gone() {
  others_.remove_if([](const Other& other) { return other.socket->gone(); });
}

Result<Fd> ConsoleHub::attach(size_t replay) {
  forget_gone();
  if (others_.size() >= most_attached)
    return fail("{} consoles are attached already; leave one of them", most_attached);
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return fail_errno(errno, "cannot make the console's socket");
  }
  Fd theirs{ends[0]};
  Fd input{ends[1]};
  Fd output{::dup(input.get())};
  auto socket = ConsoleSocket::create(loop_, std::move(input), std::move(output));
  if (!socket) return std::unexpected(socket.error());
  // Its end of input is its end: the output's descriptor goes as well.
  const uint64_t id = ++last_id_;
  ConsoleSocket* const added = socket->get();
  // Not from within its own call; by its number, for another one may have its place by then.
  added->set_input_end_handler([this, id] {
    loop_.post([this, id] { others_.remove_if([&](const Other& other) { return other.id == id; }); });
  });
  if (log_ && replay != 0) {
    const std::string past = log_->last(replay);
    (void)added->write({reinterpret_cast<const uint8_t*>(past.data()), past.size()});
  }
  added->set_receiver(receiver_);
  others_.push_back({id, std::move(*socket)});
  return theirs;
}

uint32_t ConsoleHub::attached() {
  forget_gone();
  return static_cast<uint32_t>(others_.size());
}

void ConsoleHub::drain(uint64_t deadline_ns) {
  first_->drain(deadline_ns);
  // Nobody promised those that they get everything.
  const uint64_t soon = std::min(deadline_ns, EventLoop::now_ns() + 1'000'000'000);
  for (const auto& other : others_) other.socket->drain(soon);
  if (log_) log_->flush();
}

}  // namespace caisson::machine
