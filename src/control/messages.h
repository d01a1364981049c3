// What is said over a Channel. Requests go to the VMM, events come from it; each is one JSON object with a "type".
//   Owner    whoever started the VMM: its first request is Start, once; then the VMM tells events, the last of which is
//            Exited (also where it could not start: reason Failure and a message). Then it closes its ends. A channel
//            closed by the owner means Stop, unless the configuration says detached.
//   Clients  whoever connects to the VM's control socket: any request but Start; each is answered by Done, Refused,
//            Status or Attached before the client asks again. After Watch the other events come, too, in between.
//   Threads  plain data
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.h"
#include "control/limits.h"
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
struct Screenshot {   // comes with one descriptor, which gets a PNG
  bool text = false;  // the characters of a text mode instead
  bool operator==(const Screenshot&) const = default;
};
struct Type {  // keys on the guest's keyboard, in the words of control/keys.h; Done when all were taken
  static constexpr size_t max_text = 4096;
  std::string text;
  bool operator==(const Type&) const = default;
};
enum class PointAction : uint8_t { Move, Click, DoubleClick, Press, Release };
enum class PointButton : uint8_t { Left, Right, Middle };
struct Point {  // the pointer goes to a pixel of the screen, and then a button…; Done when the guest has been told
  uint32_t x = 0, y = 0;
  PointAction action = PointAction::Move;
  PointButton button = PointButton::Left;
  bool operator==(const Point&) const = default;
};
struct Pause {  // CPUs and clocks stand still; Done when they do
  bool operator==(const Pause&) const = default;
};
struct Resume {
  bool operator==(const Resume&) const = default;
};
struct Query {  // answered by Status
  bool operator==(const Query&) const = default;
};
struct Watch {  // events from now on, too
  bool operator==(const Watch&) const = default;
};
struct Attach {  // to the console: answered by Attached, which comes with a stream socket
  static constexpr uint32_t max_replay = 64 * 1024;
  uint32_t replay = 0;  // bytes of the console's past that come first, at most
  bool operator==(const Attach&) const = default;
};
struct AddForward {  // of a host's port to the guest, now; an error where it cannot listen
  PortForward forward;
  bool operator==(const AddForward&) const = default;
};
struct RemoveForward {  // takes no new connections; those there are stay
  PortForward forward;
  bool operator==(const RemoveForward&) const = default;
};
struct AttachDisk {  // to the running machine; comes with the descriptors that the *_fd members count from 0
  DiskConfig disk;   // its serial is chosen by the machine
  bool operator==(const AttachDisk&) const = default;
};
struct DetachDisk {   // Done when the guest has let go of it and its file is closed; Refused where it does not in time
  std::string label;  // as the configuration or AttachDisk said
  bool operator==(const DetachDisk&) const = default;
};
struct AttachNet {  // a network card, to a machine that has none
  NetCard card = NetCard::Virtio;
  std::vector<PortForward> forwards;
  bool operator==(const AttachNet&) const = default;
};
struct DetachNet {  // as DetachDisk
  bool operator==(const DetachNet&) const = default;
};
struct GrowDisk {
  std::string label;
  uint64_t bytes = 0;  // the new size; with `by`: more than now
  bool by = false;
  bool operator==(const GrowDisk&) const = default;
};
// How long a guest has for letting go of a device.
inline constexpr uint64_t detach_patience_ms = 30'000;
struct Connect {  // to a port of the guest by the socket device: answered by Attached, whose stream ends at once where
                  // nobody listens there
  uint32_t port = 0;
  bool operator==(const Connect&) const = default;
};
using Request =
    std::variant<Start, PowerButton, Reset, Stop, Resize, Screenshot, Type, Point, Pause, Resume, Query, Watch, Attach,
                 Connect, AddForward, RemoveForward, AttachDisk, DetachDisk, AttachNet, DetachNet, GrowDisk, SetLimits>;

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

struct DeviceAttached {  // while the machine runs
  std::string device;    // "disk LABEL" or "network card"
  bool operator==(const DeviceAttached&) const = default;
};
struct DeviceDetached {
  std::string device;
  bool operator==(const DeviceDetached&) const = default;
};
struct DiskGrown {
  std::string device;
  uint64_t bytes = 0;
  bool operator==(const DiskGrown&) const = default;
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

struct Paused {
  bool operator==(const Paused&) const = default;
};
struct Resumed {
  bool operator==(const Resumed&) const = default;
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

// Answers to clients
struct Done {  // what was asked for has happened (PowerButton, Reset, Stop: is under way)
  bool operator==(const Done&) const = default;
};
struct Refused {
  std::string text;  // why, and the remedy
  bool operator==(const Refused&) const = default;
};
struct Attached {  // comes with one descriptor: the bytes both ways; what a console's reader leaves for long is lost
  bool operator==(const Attached&) const = default;
};
enum class RunState : uint8_t { Running, Paused };
struct Status {
  RunState state = RunState::Running;
  std::string engine;         // "jit" or "kvm"
  std::string engine_reason;  // one line
  std::string cpu_model;
  uint32_t cpus = 0;
  uint64_t memory_bytes = 0;
  uint64_t started_ms = 0;  // UTC, milliseconds since 1970
  uint64_t resets = 0;
  uint32_t consoles = 0;                 // attached
  bool vsock = false;                    // there is a socket device
  std::string cpu_limits_by;             // who keeps them: "cgroup", "vmm"; empty: there are none
  std::optional<BalloonStatus> balloon;  // where there is one
  std::vector<PortForward> forwards;
  bool operator==(const Status&) const = default;
};
using Event = std::variant<Started, Notice, Panicked, WasReset, Profiled, Paused, Resumed, Exited, Done, Refused,
                           Attached, Status, DeviceAttached, DeviceDetached, DiskGrown>;

[[nodiscard]] std::string serialise(const Request& request);
[[nodiscard]] std::string serialise(const Event& event);
// One line of a VM's record of events: the event with the time as "at", milliseconds since 1970.
[[nodiscard]] std::string serialise(const Event& event, uint64_t at_ms);
// `descriptors`: how many came with the packet; only Start and AttachDisk may have any, and
// Screenshot has one.
[[nodiscard]] Result<Request> parse_request(std::string_view text, size_t descriptors);
// Text in events is the VMM's: bounded here, and control characters become spaces.
[[nodiscard]] Result<Event> parse_event(std::string_view text);

}  // namespace caisson::control
