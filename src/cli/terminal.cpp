#include "cli/terminal.h"

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>

#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

namespace caisson::cli {
namespace {

// For the crash handlers, which can reach nothing else.
termios saved{};
std::atomic<bool> must_restore{false};

void restore() {
  if (!must_restore.exchange(false)) return;
  // From the background this would stop the process; then the shell has taken the terminal back itself.
  struct sigaction ignore {};
  struct sigaction before {};
  ignore.sa_handler = SIG_IGN;
  ::sigaction(SIGTTOU, &ignore, &before);
  ::tcsetattr(STDIN_FILENO, TCSADRAIN, &saved);
  ::sigaction(SIGTTOU, &before, nullptr);
}

constexpr std::array crash_signals{SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGQUIT, SIGXCPU, SIGXFSZ};

void crashed(int signal) {
  restore();
  ::signal(signal, SIG_DFL);
  ::raise(signal);
}

}  // namespace

Terminal::Terminal() : present_(::isatty(STDIN_FILENO) == 1 && ::tcgetattr(STDIN_FILENO, &saved) == 0) {
  if (!present_) return;
  struct sigaction action {};
  action.sa_handler = crashed;
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  for (const int signal : crash_signals) ::sigaction(signal, &action, nullptr);
}

Terminal::~Terminal() { leave(); }

bool Terminal::foreground() const {
  if (!present_) return false;
  const pid_t group = ::tcgetpgrp(STDIN_FILENO);
  // A terminal that does not control our session (su -c makes a new one) knows no background.
  return group == ::getpgrp() || (group == -1 && errno == ENOTTY);
}

void Terminal::enter() {
  if (!foreground()) return;
  if (!raw_) ::tcgetattr(STDIN_FILENO, &saved);
  termios raw = saved;
  ::cfmakeraw(&raw);
  must_restore = true;
  raw_ = ::tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) == 0;
  if (!raw_) must_restore = false;
}

void Terminal::leave() {
  if (!raw_) return;
  raw_ = false;
  restore();
}

std::optional<WindowSize> Terminal::size() const {
  winsize window{};
  if (!present_ || ::ioctl(STDIN_FILENO, TIOCGWINSZ, &window) != 0 || window.ws_col == 0 || window.ws_row == 0)
    return {};
  return WindowSize{window.ws_col, window.ws_row};
}

}  // namespace caisson::cli
