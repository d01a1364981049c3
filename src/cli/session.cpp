#include "cli/session.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <ctime>

#include <fmt/core.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/start_up_memory.h"
#include "base/write_all.h"
#include "cli/profile_report.h"

namespace caisson::cli {
namespace {

constexpr size_t input_capacity = 64 * 1024;
constexpr size_t log_line_capacity = 16 * 1024;
constexpr uint64_t second_ns = 1'000'000'000;
// How long a VMM may take to end after it was told to stop, or after it said that it had ended: it may still have to
// write a disk's cache out.
constexpr uint64_t grace_ns = 30 * second_ns;
// A session that has lasted so long is on its way.
constexpr uint64_t start_up_ns = second_ns;

uint64_t now_ns() {
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<uint64_t>(time.tv_sec) * second_ns + static_cast<uint64_t>(time.tv_nsec);
}

sigset_t session_signals() {
  sigset_t set;
  ::sigemptyset(&set);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGTSTP, SIGCONT, SIGWINCH}) ::sigaddset(&set, signal);
  return set;
}

void write_error(std::string_view text) { (void)write_all(STDERR_FILENO, text); }  // nobody there to tell otherwise

}  // namespace

void block_session_signals() {
  const sigset_t set = session_signals();
  ::sigprocmask(SIG_BLOCK, &set, nullptr);
}

Session::Session(life::VmmLink link, Settings settings, int input_fd, int output_fd)
    : link_(std::move(link)), settings_(std::move(settings)), output_(output_fd), input_fd_(input_fd) {}

void Session::say(std::string_view text) {
  if (settings_.json) return;
  const std::string_view end = terminal_.raw() ? "\r\n" : "\n";
  const std::string_view start = output_.at_line_start() || ::isatty(STDERR_FILENO) != 1 ? "" : end;
  write_error(fmt::format("{}caisson: {}{}", start, text, end));
}

void Session::print_log(std::string_view bytes) {
  std::string text;
  for (const char c : bytes) {
    if (c == '\n' && terminal_.raw()) text += '\r';
    text += c;
  }
  write_error(text);
}

void Session::request(const control::Request& request) {
  if (!channel_open_) return;
  // A VMM that cannot be told is about to end: its end is noticed elsewhere.
  [[maybe_unused]] const auto sent = link_.channel.send(control::serialise(request));
}

void Session::press_power_button() {
  if (exited_ || stopping_) return;
  request(control::PowerButton{});
  deadline_ns_ = now_ns() + settings_.stop_timeout_s * second_ns;
}

void Session::stop_now() {
  if (exited_ || stopping_) return;
  stopping_ = true;
  request(control::Stop{});
  deadline_ns_ = now_ns() + grace_ns;
}

void Session::send_size() {
  if (settings_.attached) return;  // one of several windows
  const auto size = terminal_.size();
  if (!size || size == sent_size_) return;
  sent_size_ = size;
  request(control::Resize{size->columns, size->rows});
}

void Session::suspend() {
  terminal_.leave();
  ::kill(::getpid(), SIGSTOP);  // SIGTSTP's default is masked here; SIGCONT brings us back
}

void Session::handle_signal(int signal) {
  switch (signal) {
    case SIGTSTP: suspend(); break;
    case SIGCONT:
      terminal_.enter();
      send_size();
      break;
    case SIGWINCH: send_size(); break;
    default:
      if (settings_.attached) {
        left_ = true;
      } else if (++stop_signals_ == 1 && !stopping_) {
        say(fmt::format("power button pressed; the guest has {} s to shut down, a second signal stops it at once",
                        settings_.stop_timeout_s));
        press_power_button();
      } else if (stop_signals_ < 3) {
        say("stopping the guest now");
        stop_now();
      } else {
        settings_.kill();
      }
  }
}

void Session::handle_time() {
  if (!deadline_ns_ || now_ns() < *deadline_ns_) return;
  deadline_ns_.reset();
  if (exited_ || stopping_) {
    // Bytes that wait for our reader keep the VMM alive; that is no fault of its own.
    if (!output_.empty()) {
      deadline_ns_ = now_ns() + grace_ns;
      return;
    }
    say("caisson-vmm does not end; killing it");
    settings_.kill();
  } else {
    say(fmt::format("the guest has not shut down in {} s; stopping it now", settings_.stop_timeout_s));
    stop_now();
  }
}

void Session::read_input() {
  std::array<char, 4096> buffer;
  const ssize_t size = ::read(input_fd_, buffer.data(), buffer.size());
  if (size < 0 && (errno == EINTR || errno == EAGAIN)) return;
  if (size <= 0) {
    // The end of a file or pipe ends the input, not the guest; a terminal that is gone sends SIGHUP as well.
    input_open_ = false;
    return;
  }
  std::string_view bytes{buffer.data(), static_cast<size_t>(size)};
  if (!terminal_.raw()) {
    input_.append(bytes);
    return;
  }
  while (!bytes.empty()) {
    switch (escape_.feed(bytes, input_)) {
      case EscapeAction::None: break;
      case EscapeAction::Quit:
        if (settings_.attached) {
          left_ = true;
          break;
        }
        say("stopping the guest now");
        stop_now();
        break;
      case EscapeAction::PowerButton:
        say("power button pressed");
        request(control::PowerButton{});
        break;
      case EscapeAction::Reset:
        say("reset");
        request(control::Reset{});
        break;
      case EscapeAction::Help: say(escape_help); break;
    }
  }
}

void Session::read_console() {
  std::array<char, 16384> buffer;
  const size_t room = std::min(buffer.size(), output_.room());
  const ssize_t size = ::recv(link_.console.get(), buffer.data(), room, MSG_DONTWAIT);
  if (size < 0 && (errno == EINTR || errno == EAGAIN)) return;
  if (size <= 0) {
    link_.console.reset();
    return;
  }
  output_.put({buffer.data(), static_cast<size_t>(size)});
}

void Session::read_log() {
  std::array<char, 4096> buffer;
  const ssize_t size = ::read(link_.log.get(), buffer.data(), buffer.size());
  if (size < 0 && errno == EINTR) return;
  if (size <= 0) {
    link_.log.reset();
    if (!log_line_.empty()) print_log(log_line_ + "\n");
    log_line_.clear();
    return;
  }
  log_line_.append(buffer.data(), static_cast<size_t>(size));
  size_t end = log_line_.rfind('\n');
  if (end == std::string::npos && log_line_.size() < log_line_capacity) return;
  end = end == std::string::npos ? log_line_.size() : end + 1;
  print_log(std::string_view{log_line_}.substr(0, end));
  log_line_.erase(0, end);
}

void Session::read_events() {
  auto packet = link_.channel.receive();
  if (!packet || !*packet) {
    channel_open_ = false;
    // Without its channel a VMM is about to end, whether it has said so or not.
    if (!exited_ && !settings_.attached) {
      stopping_ = true;
      deadline_ns_ = now_ns() + grace_ns;
    }
    return;
  }
  const auto event = control::parse_event((*packet)->text);
  if (!event) {
    say(fmt::format("warning: caisson-vmm: {}", event.error().message));
    return;
  }
  // Written anew rather than passed through: what a script reads is what was checked.
  handle_event(*event, control::serialise(*event));
}

void Session::handle_event(const control::Event& event, const std::string& text) {
  if (settings_.json) write_error(text + "\n");
  if (const auto* notice = std::get_if<control::Notice>(&event)) {
    say(notice->text);
  } else if (std::holds_alternative<control::Started>(event)) {
    send_size();
  } else if (const auto* panicked = std::get_if<control::Panicked>(&event)) {
    say(panicked->text.empty() ? "the guest's kernel panicked" : "the guest's kernel panicked: " + panicked->text);
  } else if (const auto* profile = std::get_if<control::Profiled>(&event)) {
    if (!settings_.json) print_log(profile_report(*profile));
  } else if (const auto* exited = std::get_if<control::Exited>(&event)) {
    exited_ = *exited;
    if (!settings_.attached) deadline_ns_ = now_ns() + grace_ns;
  }
}

bool Session::done() const {
  if (left_) return true;
  return !channel_open_ && !link_.console.valid() && !link_.log.valid() && output_.empty();
}

int Session::poll_timeout_ms() const {
  const auto next = std::min(deadline_ns_.value_or(UINT64_MAX), start_up_until_ns_.value_or(UINT64_MAX));
  if (next == UINT64_MAX) return -1;
  const uint64_t now = now_ns();
  return next <= now ? 0 : static_cast<int>((next - now) / 1'000'000 + 1);
}

SessionEnd Session::run() {
  const sigset_t set = session_signals();
  Fd signals{::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK)};
  terminal_.enter();
  if (terminal_.raw()) say(settings_.attached ? attached_hint : escape_hint);
  for (const control::Event& event : settings_.said) handle_event(event, control::serialise(event));
  start_up_until_ns_ = now_ns() + start_up_ns;

  while (!done()) {
    const bool console_writable = link_.console.valid() && !input_.empty();
    // A terminal that another process has in the foreground is not ours to read.
    const bool may_read =
        input_open_ && input_.size() < input_capacity && !exited_ && (!terminal_.present() || terminal_.raw());
    short console_events = 0;
    if (output_.room() > 0) console_events |= POLLIN;
    if (console_writable) console_events |= POLLOUT;
    // A descriptor below 0 is skipped. Without room the console is not even watched for its end.
    std::array<pollfd, 6> fds{{
        {signals.get(), POLLIN, 0},
        {may_read ? input_fd_ : -1, POLLIN, 0},
        {output_.empty() ? -1 : output_.fd(), POLLOUT, 0},
        {console_events != 0 ? link_.console.get() : -1, console_events, 0},
        {channel_open_ ? link_.channel.fd() : -1, POLLIN, 0},
        {link_.log.get(), POLLIN, 0},
    }};
    if (::poll(fds.data(), fds.size(), poll_timeout_ms()) < 0 && errno != EINTR) break;
    if (start_up_until_ns_ && now_ns() >= *start_up_until_ns_) {
      start_up_until_ns_.reset();
      give_back_start_up_memory();
    }

    signalfd_siginfo info{};
    while (fds[0].revents != 0 && ::read(signals.get(), &info, sizeof info) == sizeof info) {
      handle_signal(static_cast<int>(info.ssi_signo));
    }
    if (fds[1].revents != 0) read_input();
    if (fds[3].revents & POLLOUT) {
      const ssize_t sent = ::send(link_.console.get(), input_.data(), input_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
      if (sent > 0) input_.erase(0, static_cast<size_t>(sent));
      if (sent < 0 && errno != EAGAIN && errno != EINTR) input_.clear();
    }
    if (output_.room() > 0 && (fds[3].revents & (POLLIN | POLLHUP | POLLERR))) read_console();
    if (fds[4].revents != 0) read_events();
    if (fds[5].revents != 0) read_log();
    if (!output_.empty()) output_.flush();
    if (output_.broken() && !stopping_ && !exited_) {
      if (settings_.attached) {
        left_ = true;
        break;
      }
      say("nobody reads the console any more; stopping the guest");
      stop_now();
    }
    handle_time();
  }
  terminal_.leave();
  return SessionEnd{exited_, output_.broken(), left_};
}

}  // namespace caisson::cli
