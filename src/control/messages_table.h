// The one table of the messages' types, keys, names and bounds.
//   Threads  constants
#pragma once

#include <array>

#include "control/messages.h"
#include "control/vm_config_table.h"

namespace caisson::control {

template <>
struct EnumNames<ExitReason> {
  static constexpr std::array<std::string_view, 6> names{"power_off",  "panic",   "reset",
                                                         "debug_exit", "stopped", "failure"};
};

template <>
struct EnumNames<PointAction> {
  static constexpr std::array<std::string_view, 5> names{"move", "click", "double_click", "press", "release"};
};
template <>
struct EnumNames<PointButton> {
  static constexpr std::array<std::string_view, 3> names{"left", "right", "middle"};
};

template <>
struct EnumNames<RunState> {
  static constexpr std::array<std::string_view, 2> names{"running", "paused"};
};

template <class T>
struct TypeName;

#define CAISSON_MESSAGE(type, name)                 \
  template <>                                       \
  struct TypeName<type> {                           \
    static constexpr std::string_view value = name; \
  };
CAISSON_MESSAGE(Start, "start")
CAISSON_MESSAGE(PowerButton, "power_button")
CAISSON_MESSAGE(Reset, "reset")
CAISSON_MESSAGE(Stop, "stop")
CAISSON_MESSAGE(Resize, "resize")
CAISSON_MESSAGE(Screenshot, "screenshot")
CAISSON_MESSAGE(Type, "type")
CAISSON_MESSAGE(Point, "point")
CAISSON_MESSAGE(Pause, "pause")
CAISSON_MESSAGE(Resume, "resume")
CAISSON_MESSAGE(Query, "query")
CAISSON_MESSAGE(Watch, "watch")
CAISSON_MESSAGE(Attach, "attach")
CAISSON_MESSAGE(Connect, "connect")
CAISSON_MESSAGE(AddForward, "add_forward")
CAISSON_MESSAGE(RemoveForward, "remove_forward")
CAISSON_MESSAGE(AttachDisk, "attach_disk")
CAISSON_MESSAGE(DetachDisk, "detach_disk")
CAISSON_MESSAGE(AttachNet, "attach_net")
CAISSON_MESSAGE(DetachNet, "detach_net")
CAISSON_MESSAGE(GrowDisk, "grow_disk")
CAISSON_MESSAGE(SetLimits, "set_limits")
CAISSON_MESSAGE(Started, "started")
CAISSON_MESSAGE(Notice, "notice")
CAISSON_MESSAGE(Panicked, "panicked")
CAISSON_MESSAGE(WasReset, "was_reset")
CAISSON_MESSAGE(DeviceAttached, "device_attached")
CAISSON_MESSAGE(DeviceDetached, "device_detached")
CAISSON_MESSAGE(DiskGrown, "disk_grown")
CAISSON_MESSAGE(Profiled, "profile")
CAISSON_MESSAGE(Paused, "paused")
CAISSON_MESSAGE(Resumed, "resumed")
CAISSON_MESSAGE(Exited, "exited")
CAISSON_MESSAGE(Done, "done")
CAISSON_MESSAGE(Refused, "refused")
CAISSON_MESSAGE(Attached, "attached")
CAISSON_MESSAGE(Status, "status")
#undef CAISSON_MESSAGE

template <class T>
requires std::is_empty_v<T>
struct JsonTable<T> {
  static constexpr auto fields() { return std::tuple<>{}; }
};
template <>
struct JsonTable<Start> {
  static constexpr auto fields() { return std::tuple{key("config", &Start::config, {}, true)}; }
};
template <>
struct JsonTable<Resize> {
  static constexpr auto fields() {
    return std::tuple{key("columns", &Resize::columns, {1, 10000}, true), key("rows", &Resize::rows, {1, 10000}, true)};
  }
};
constexpr uint64_t max_line = 4096;
template <>
struct JsonTable<Screenshot> {
  static constexpr auto fields() { return std::tuple{key("text", &Screenshot::text)}; }
};
template <>
struct JsonTable<Type> {
  static constexpr auto fields() { return std::tuple{key("text", &Type::text, {1, Type::max_text}, true)}; }
};
template <>
struct JsonTable<Point> {
  static constexpr auto fields() {
    return std::tuple{key("x", &Point::x, {0, 65535}, true), key("y", &Point::y, {0, 65535}, true),
                      key("action", &Point::action), key("button", &Point::button)};
  }
};
template <>
struct JsonTable<Started> {
  static constexpr auto fields() {
    return std::tuple{key("engine", &Started::engine, {1, 32}, true),
                      key("cpu_model", &Started::cpu_model, {1, 32}, true),
                      key("cpus", &Started::cpus, {1, VmConfig::max_cpus}, true),
                      key("memory_bytes", &Started::memory_bytes, {}, true),
                      key("engine_reason", &Started::engine_reason, {0, max_line})};
  }
};
template <>
struct JsonTable<Notice> {
  static constexpr auto fields() { return std::tuple{key("text", &Notice::text, {0, max_line}, true)}; }
};
template <>
struct JsonTable<Panicked> {
  static constexpr auto fields() { return std::tuple{key("text", &Panicked::text, {0, max_line})}; }
};
template <>
struct JsonTable<WasReset> {
  static constexpr auto fields() { return std::tuple{key("count", &WasReset::count)}; }
};
template <>
struct JsonTable<ProfileRow> {
  static constexpr auto fields() {
    return std::tuple{key("group", &ProfileRow::group, {1, 32}, true), key("name", &ProfileRow::name, {1, 96}, true),
                      key("value", &ProfileRow::value, {}, true)};
  }
};
template <>
struct JsonTable<Profiled> {
  static constexpr auto fields() { return std::tuple{key("rows", &Profiled::rows, {0, Profiled::max_rows}, true)}; }
};
template <>
struct JsonTable<Exited> {
  static constexpr auto fields() {
    return std::tuple{key("reason", &Exited::reason, {}, true), key("code", &Exited::code, {0, 255}),
                      key("message", &Exited::message, {0, max_line})};
  }
};
template <>
struct JsonTable<Attach> {
  static constexpr auto fields() { return std::tuple{key("replay", &Attach::replay, {0, Attach::max_replay})}; }
};
template <>
struct JsonTable<AddForward> {
  static constexpr auto fields() { return std::tuple{key("forward", &AddForward::forward, {}, true)}; }
};
template <>
struct JsonTable<RemoveForward> {
  static constexpr auto fields() { return std::tuple{key("forward", &RemoveForward::forward, {}, true)}; }
};
template <>
struct JsonTable<AttachDisk> {
  static constexpr auto fields() { return std::tuple{key("disk", &AttachDisk::disk, {}, true)}; }
};
template <>
struct JsonTable<DetachDisk> {
  static constexpr auto fields() {
    return std::tuple{key("label", &DetachDisk::label, {1, VmConfig::max_label}, true)};
  }
};
template <>
struct JsonTable<AttachNet> {
  static constexpr auto fields() {
    return std::tuple{key("card", &AttachNet::card),
                      key("forwards", &AttachNet::forwards, {0, VmConfig::max_forwards})};
  }
};
template <>
struct JsonTable<GrowDisk> {
  static constexpr auto fields() {
    return std::tuple{key("label", &GrowDisk::label, {1, VmConfig::max_label}, true),
                      key("bytes", &GrowDisk::bytes, {512, uint64_t{1} << 62}, true), key("by", &GrowDisk::by)};
  }
};
template <>
struct JsonTable<DeviceAttached> {
  static constexpr auto fields() { return std::tuple{key("device", &DeviceAttached::device, {0, max_line})}; }
};
template <>
struct JsonTable<DeviceDetached> {
  static constexpr auto fields() { return std::tuple{key("device", &DeviceDetached::device, {0, max_line})}; }
};
template <>
struct JsonTable<DiskGrown> {
  static constexpr auto fields() {
    return std::tuple{key("device", &DiskGrown::device, {0, max_line}), key("bytes", &DiskGrown::bytes)};
  }
};
template <>
struct JsonTable<DiskLimit> {
  static constexpr auto fields() {
    return std::tuple{key("disk", &DiskLimit::disk, {1, max_line}, true), key("limit", &DiskLimit::limit, {}, true)};
  }
};
template <>
struct JsonTable<SetLimits> {
  static constexpr auto fields() {
    return std::tuple{
        key("disks", &SetLimits::disks, {0, VmConfig::max_disks}),
        key("net", &SetLimits::net),
        key("cpu_cap_percent", &SetLimits::cpu_cap_percent, {0, max_cpu_cap_percent}),
        key("cpu_share", &SetLimits::cpu_share, {1, max_cpu_share}),
        key("cpu_group", &SetLimits::cpu_group),
        key("memory_now_bytes", &SetLimits::memory_now_bytes, {VmConfig::min_memory, VmConfig::max_memory})};
  }
};
template <>
struct JsonTable<Connect> {
  static constexpr auto fields() { return std::tuple{key("port", &Connect::port, {0, UINT32_MAX}, true)}; }
};
template <>
struct JsonTable<Refused> {
  static constexpr auto fields() { return std::tuple{key("text", &Refused::text, {0, max_line}, true)}; }
};
template <>
struct JsonTable<BalloonStatus> {
  static constexpr auto fields() {
    return std::tuple{
        key("target_bytes", &BalloonStatus::target_bytes),     key("memory_bytes", &BalloonStatus::memory_bytes),
        key("reported_bytes", &BalloonStatus::reported_bytes), key("total_bytes", &BalloonStatus::total_bytes),
        key("free_bytes", &BalloonStatus::free_bytes),         key("available_bytes", &BalloonStatus::available_bytes)};
  }
};
template <>
struct JsonTable<Status> {
  static constexpr auto fields() {
    return std::tuple{key("state", &Status::state, {}, true),
                      key("engine", &Status::engine, {0, 32}),
                      key("engine_reason", &Status::engine_reason, {0, max_line}),
                      key("cpu_model", &Status::cpu_model, {0, 32}),
                      key("cpus", &Status::cpus, {0, VmConfig::max_cpus}),
                      key("memory_bytes", &Status::memory_bytes),
                      key("started_ms", &Status::started_ms),
                      key("resets", &Status::resets),
                      key("consoles", &Status::consoles),
                      key("vsock", &Status::vsock),
                      key("cpu_limits_by", &Status::cpu_limits_by, {0, 32}),
                      key("balloon", &Status::balloon),
                      key("forwards", &Status::forwards, {0, VmConfig::max_forwards})};
  }
};

}  // namespace caisson::control
