// The life of the store's machines, for the command line and the daemon alike.
//   Errors   one line each, which says what to do
//   Locks    each operation takes what it needs of a machine's (store/vm_folder.h), and leaves none
//   Threads  any; operations on one machine are kept apart by its lock
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

#include "base/result.h"
#include "control/messages.h"
#include "life/follow.h"
#include "store/vm_folder.h"

namespace caisson::life {

// The store's machine of that name.
[[nodiscard]] Result<store::VmFolder> find(const std::string& name);

// Presses the power button, again every few seconds; after `timeout_s`, by default the machine's own, stops it at once.
[[nodiscard]] Result<> stop(const store::VmFolder& folder, std::optional<unsigned> timeout_s, const Follow& follow);
// As pulling the plug; a process that does not obey is killed.
[[nodiscard]] Result<> kill(const store::VmFolder& folder, const Follow& follow);
// Stops it where it runs, and starts it. Gives the VMM's process, as start_machine (launch.h).
[[nodiscard]] Result<pid_t> restart(const store::VmFolder& folder, std::optional<unsigned> timeout_s,
                                    const Follow& follow);
// Removes what a machine that has ended leaves outside of its folder, its control group. Best effort: the next command
// does what this one could not.
void tidy(const store::VmFolder& folder);
// One request that the machine answers: Pause, Resume, Reset, PowerButton, Type.
[[nodiscard]] Result<> ask(const store::VmFolder& folder, const control::Request& request,
                           uint64_t timeout_ms = 10'000);
// `force`: one that runs is stopped at once.
[[nodiscard]] Result<> remove(const store::VmFolder& folder, bool force, const Follow& follow);
[[nodiscard]] Result<> rename(const store::VmFolder& folder, const std::string& to);

// What is to be different; the rest stays.
struct Change {
  std::optional<uint32_t> cpus;
  std::optional<uint64_t> memory_bytes;
  std::optional<std::vector<control::PortForward>> forwards;
  std::optional<std::string> append;  // the whole kernel command line
  std::optional<control::EngineChoice> engine;
  std::optional<std::string> cpu_model;
  std::optional<control::NetKind> net;
  std::optional<bool> display;
  std::optional<control::Graphics> graphics;
  std::optional<control::Tablet> tablet;
  std::optional<control::NetCard> net_card;
  std::vector<control::DiskLimit> disk_limits;
  std::optional<control::RateLimit> net_limit;
  std::optional<uint32_t> cpu_cap_percent;  // 0: none
  std::optional<uint32_t> cpu_share;
  std::optional<uint64_t> memory_now_bytes;  // of a running machine, until its end
  std::optional<bool> balloon;
  std::optional<bool> vsock;
  std::optional<std::string> vnc;
  std::optional<std::string> vnc_password_file;
  std::optional<control::KeyboardLayout> keyboard_layout;
  std::optional<std::string> serial2;  // an absolute path, or empty
  std::optional<bool> no_reboot;
  std::optional<bool> debug_exit;
  std::optional<bool> autostart;
  std::optional<uint32_t> stop_timeout_s;
};
// An error, and nothing changed, where it names a disk that is not there.
[[nodiscard]] Result<> apply(const Change& change, store::VmSpec& spec);
// Limits at once, where it runs, the rest from its next start on. True: it runs, and there is such a rest.
[[nodiscard]] Result<bool> set(const store::VmFolder& folder, const Change& change);

// What the guest has printed on its console: at most the last mebibyte. `lines`: the last of them only.
struct ConsoleText {
  std::string text;
  uint64_t log_bytes = 0;  // of the file console.log, where what comes next begins
};
[[nodiscard]] ConsoleText console_text(const store::VmFolder& folder, std::optional<unsigned> lines);

}  // namespace caisson::life
