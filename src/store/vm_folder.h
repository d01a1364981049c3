// The folder of one machine:
//   config.json             VmSpec, written atomically
//   lock                    held (flock) by the command that changes the machine: starts, sets, renames, removes it
//   alive                   locked (F_OFD_SETLK) by the machine's VMM as long as it lives: the one truth about that
//   control                 the VMM's socket (control/messages.h)
//   vnc                     the VMM's socket for viewers of its screen, where the machine has one (life/vnc_socket.h)
//   cpu-group               names the control group that limits its CPUs, where it has one (cpu_group.h)
//   events.log              a line for each event, by the VMM; its last one says how the machine ended
//   console.log, .old       what the guest printed (machine/console_log.h)
//   vmm.log                 what the VMM of a detached machine had to say
//   disk.raw, vmlinuz, …    what the machine was made from, where it was made from an image
//   Threads  one object, one thread; processes are kept apart by the locks
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "control/messages.h"
#include "store/vm_spec.h"

namespace caisson::store {

// An event and its time, milliseconds since 1970.
struct TimedEvent {
  uint64_t at_ms = 0;
  control::Event event;
};

class VmFolder {
 public:
  static constexpr const char* config_file = "config.json";
  static constexpr const char* vnc_socket = "vnc";
  static constexpr const char* console_log = "console.log";
  static constexpr const char* old_console_log = "console.log.old";
  static constexpr const char* vmm_log = "vmm.log";
  static constexpr const char* events_log = "events.log";

  // Of a folder that is there. `path` is absolute.
  [[nodiscard]] static Result<VmFolder> open(std::string path, std::string name);

  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::string file(std::string_view name) const { return path_ + "/" + std::string{name}; }
  [[nodiscard]] int fd() const { return fd_.get(); }

  [[nodiscard]] bool has_spec() const;
  [[nodiscard]] Result<VmSpec> spec() const;
  [[nodiscard]] Result<> save(const VmSpec& spec) const;

  // The right to change the machine, as long as the descriptor is open. Waits a while for another command, then says
  // that there is one. An error also where the folder was removed or renamed meanwhile.
  [[nodiscard]] Result<Fd> lock() const;
  // Without waiting; none: another command has it.
  [[nodiscard]] Result<std::optional<Fd>> try_lock() const;

  // A VMM runs this machine.
  [[nodiscard]] bool alive() const;
  // What a VMM is given to hold; none: another one lives. Under the lock.
  [[nodiscard]] Result<std::optional<Fd>> take_life() const;
  // Waits for the end of the VMM's life; false: it still lives after so long.
  [[nodiscard]] bool wait_for_end(uint64_t timeout_ms) const;

  // The control socket, bound anew. Under the lock, with life taken.
  [[nodiscard]] Result<Fd> bind_control() const;
  // Connected to it; the VMM's process id is the peer's.
  [[nodiscard]] Result<Fd> connect_control() const;

  // Logs for a VMM to append to; events.log is cut to a bound first. Under the lock.
  [[nodiscard]] Result<Fd> open_log(const char* name) const;
  [[nodiscard]] Result<Fd> open_events() const;

  // In order; what cannot be read is left out.
  [[nodiscard]] std::vector<TimedEvent> events() const;
  // How the machine's last life ended: none where it never ran or (`alive`) runs, or was killed.
  struct LastLife {
    std::optional<uint64_t> started_ms;
    std::optional<uint64_t> ended_ms;
    std::optional<control::Exited> exited;
  };
  [[nodiscard]] LastLife last_life() const;

 private:
  VmFolder(std::string path, std::string name, Fd fd)
      : path_(std::move(path)), name_(std::move(name)), fd_(std::move(fd)) {}
  [[nodiscard]] bool still_there() const;

  std::string path_;
  std::string name_;
  Fd fd_;
};

// One line of events.log; none where it is not one.
[[nodiscard]] std::optional<TimedEvent> parse_event_line(std::string_view line);

}  // namespace caisson::store
