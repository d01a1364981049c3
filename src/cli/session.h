// A console session: this terminal (or pipe) on one side, a running VMM on the other, until the VMM has ended and every
// byte it left behind is written.
//   Bytes    both ways with backpressure, none lost: after the VMM's end the console is read to its end
//   Signals  SIGTERM, SIGINT, SIGHUP: the first presses the power button and starts the time-out, the second stops the
//   VM at
//            once; SIGTSTP gives the terminal back while stopped; SIGWINCH tells the guest the new size
//   Threads  run() on the main thread, with the handled signals blocked in every thread
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "cli/escape.h"
#include "cli/output.h"
#include "cli/terminal.h"
#include "control/messages.h"
#include "life/vmm_process.h"

namespace caisson::cli {

// Why there is no more VMM.
struct SessionEnd {
  std::optional<control::Exited> exited;  // none: it ended without a word
  bool output_broken = false;             // nobody read standard output any more
  bool left = false;                      // an attached session: the machine goes on
};

class Session {
 public:
  struct Settings {
    unsigned stop_timeout_s = 30;
    bool json = false;                 // events as JSON lines on standard error instead of text
    std::function<void()> kill;        // ends the VMM by force
    std::vector<control::Event> said;  // by the VMM before the session begins
    bool attached = false;  // the machine is not this session's: signals and the escape key leave it, it does not end
  };

  Session(life::VmmLink link, Settings settings, int input_fd, int output_fd);
  [[nodiscard]] SessionEnd run();

 private:
  void handle_signal(int signal);
  void suspend();
  void read_input();
  void read_console();
  void read_log();
  void read_events();
  void handle_event(const control::Event& event, const std::string& text);
  void handle_time();
  void request(const control::Request& request);
  void press_power_button();
  void stop_now();
  void send_size();
  // A line for the user on standard error, on a line of its own even in the middle of the guest's output.
  void say(std::string_view text);
  void print_log(std::string_view bytes);
  [[nodiscard]] bool done() const;
  [[nodiscard]] int poll_timeout_ms() const;

  life::VmmLink link_;
  Settings settings_;
  Terminal terminal_;
  Output output_;
  Escape escape_;
  int input_fd_;
  bool input_open_ = true;
  bool channel_open_ = true;
  std::string input_;     // from the user, escape sequences taken out, not yet taken by the VMM
  std::string log_line_;  // the VMM's standard error, up to the next line's end
  std::optional<control::Exited> exited_;
  unsigned stop_signals_ = 0;
  bool stopping_ = false;
  bool left_ = false;                          // an attached session ends, the machine goes on
  std::optional<uint64_t> deadline_ns_;        // of the power button, of stop, or of the VMM's end after Exited
  std::optional<uint64_t> start_up_until_ns_;  // then what only the start needed is given back
  std::optional<WindowSize> sent_size_;
};

// Blocks the signals that a Session handles, in this thread and those it starts; call it before any thread exists.
void block_session_signals();

}  // namespace caisson::cli
