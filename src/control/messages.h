// What is said over a Channel. Requests go to the VMM, events come from it; each is one JSON object with a "type".
//   Order    the first request is Start, once; then the VMM answers with events, the last of which is Exited (also
//   where
//            it could not start: reason Failure and a message). Then it closes its ends. A channel closed by the other
//            side means Stop.
//   Threads  plain data
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.h"
#include "control/vm_config.h"

namespace caisson::control {

// Requests
struct Start {  // comes with the descriptors that the configuration's *_fd members count from 0
  VmConfig config;
  bool operator==(const Start&) const = default;
};
struct PowerButton {  // ACPI power button, pressed once
  bool operator==(const PowerButton&) const = default;
};
struct Reset {  // as the reset button
  bool operator==(const Reset&) const = default;
};
struct Stop {  // as pulling the plug, but what the guest has flushed and printed is kept
  bool operator==(const Stop&) const = default;
};
struct Resize {  // the console's window
  uint32_t columns = 80;
  uint32_t rows = 25;
  bool operator==(const Resize&) const = default;
};
struct Screenshot {   // comes with one descriptor, which gets a PNG; Done answers
  bool text = false;  // the characters of a text mode instead
  bool operator==(const Screenshot&) const = default;
};
struct Type {  // keys on the guest's keyboard, in the words of control/keys.h; Done answers when all were taken
  static constexpr size_t max_text = 4096;
  std::string text;
  bool operator==(const Type&) const = default;
};
using Request = std::variant<Start, PowerButton, Reset, Stop, Resize, Screenshot, Type>;

// Events
struct Started {          // CPUs begin to run
  std::string engine;     // "jit" or "kvm"
  std::string cpu_model;  // the model in use, e.g. "x86-64-v3"
  uint32_t cpus = 0;
  uint64_t memory_bytes = 0;
  std::string engine_reason;  // one line: why this engine
  bool operator==(const Started&) const = default;
};
struct Notice {  // a line for the user: a warning, or why an engine was chosen
  std::string text;
  bool operator==(const Notice&) const = default;
};
struct Panicked {  // the guest's kernel says it has crashed; what happens next follows
  std::string text;
  bool operator==(const Panicked&) const = default;
};
struct WasReset {  // the machine was reset and runs on
  uint64_t count = 0;
  bool operator==(const WasReset&) const = default;
};

struct ProfileRow {
  std::string group;  // "time", "blocks": microseconds of all CPUs; "events", "vectors", "interpreted": counts
  std::string name;
  uint64_t value = 0;
  bool operator==(const ProfileRow&) const = default;
};
struct Profiled {  // before Exited, where the configuration says profile: of each group the largest, in falling order
  static constexpr size_t max_rows = 256;
  std::vector<ProfileRow> rows;
  bool operator==(const Profiled&) const = default;
};

enum class ExitReason : uint8_t {
  PowerOff,   // the guest switched itself off
  Panic,      // the guest's kernel crashed, and the machine ended or was reset right after
  Reset,      // the guest reset itself and the configuration says no_reboot
  DebugExit,  // the guest wrote `code` to the debug-exit port
  Stopped,    // by Stop, or because the channel was closed
  Failure,    // could not start or go on; `message` is one line: what, where, remedy
};
struct Exited {
  ExitReason reason = ExitReason::PowerOff;
  uint32_t code = 0;  // 0 to 255, DebugExit only
  std::string message;
  bool operator==(const Exited&) const = default;
};
struct Done {         // answers Screenshot and Type
  std::string error;  // empty: it was done
  bool operator==(const Done&) const = default;
};
using Event = std::variant<Started, Notice, Panicked, WasReset, Profiled, Exited, Done>;

[[nodiscard]] std::string serialise(const Request& request);
[[nodiscard]] std::string serialise(const Event& event);
// `descriptors`: how many came with the packet; only Start may have any, and Screenshot has one.
[[nodiscard]] Result<Request> parse_request(std::string_view text, size_t descriptors);
// Text in events is the VMM's: bounded here, and control characters become spaces.
[[nodiscard]] Result<Event> parse_event(std::string_view text);

}  // namespace caisson::control
