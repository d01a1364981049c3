// The one table of VmConfig's keys, names and bounds.
//   Threads  constants
#pragma once

#include <array>

#include "control/json_fields.h"
#include "control/vm_config.h"

namespace caisson::control {

template <>
struct EnumNames<KeyboardLayout> {
  static constexpr auto names = keyboard_layouts;
};
template <>
struct EnumNames<NetKind> {
  static constexpr std::array<std::string_view, 2> names{"none", "user"};
};
template <>
struct EnumNames<NetCard> {
  static constexpr std::array<std::string_view, 2> names{"virtio", "e1000"};
};
template <>
struct EnumNames<FirmwareKind> {
  static constexpr std::array<std::string_view, 3> names{"none", "bios", "uefi"};
};
template <>
struct EnumNames<EngineChoice> {
  static constexpr std::array<std::string_view, 3> names{"auto", "jit", "kvm"};
};
template <>
struct EnumNames<Protocol> {
  static constexpr std::array<std::string_view, 2> names{"tcp", "udp"};
};

template <>
struct EnumNames<DiskImage> {
  static constexpr std::array<std::string_view, 2> names{"raw", "qcow2"};
};

template <>
struct EnumNames<DiskBus> {
  static constexpr std::array<std::string_view, 5> names{"virtio", "sata", "cdrom", "nvme", "usb"};
};
template <>
struct EnumNames<Tablet> {
  static constexpr std::array<std::string_view, 2> names{"virtio", "usb"};
};
template <>
struct EnumNames<Graphics> {
  static constexpr std::array<std::string_view, 2> names{"vga", "virtio"};
};
template <>
struct EnumNames<BootFirst> {
  static constexpr std::array<std::string_view, 2> names{"disk", "cdrom"};
};

template <>
struct JsonTable<RateLimit> {
  static constexpr auto fields() {
    return std::tuple{key("bytes_per_s", &RateLimit::bytes_per_s, {0, RateLimit::most}),
                      key("ops_per_s", &RateLimit::ops_per_s, {0, RateLimit::most})};
  }
};

template <>
struct JsonTable<DiskLayerConfig> {
  static constexpr auto fields() {
    return std::tuple{
        key("image_fd", &DiskLayerConfig::image_fd, {0, 63}, true),
        key("format", &DiskLayerConfig::format),
        key("label", &DiskLayerConfig::label, {1, VmConfig::max_label}),
    };
  }
};

template <>
struct JsonTable<DiskConfig> {
  static constexpr auto fields() {
    return std::tuple{
        key("image_fd", &DiskConfig::image_fd, {0, 63}, true),
        key("format", &DiskConfig::format),
        key("bus", &DiskConfig::bus),
        key("backing", &DiskConfig::backing, {0, VmConfig::max_backing}),
        key("read_only", &DiskConfig::read_only),
        key("serial", &DiskConfig::serial, {0, 20}),
        key("label", &DiskConfig::label, {1, VmConfig::max_label}),
        key("limit", &DiskConfig::limit),
    };
  }
};

template <>
struct JsonTable<PortForward> {
  static constexpr auto fields() {
    return std::tuple{
        key("protocol", &PortForward::protocol),
        key("host_address", &PortForward::host_address, {7, 15}),
        key("host_port", &PortForward::host_port, {1, 65535}, true),
        key("guest_port", &PortForward::guest_port, {1, 65535}, true),
    };
  }
};

template <>
struct JsonTable<VmConfig> {
  static constexpr auto fields() {
    return std::tuple{
        key("name", &VmConfig::name, {1, 64}),
        key("cpus", &VmConfig::cpus, {1, VmConfig::max_cpus}, true),
        key("memory_bytes", &VmConfig::memory_bytes, {VmConfig::min_memory, VmConfig::max_memory}, true),
        key("cpu_model", &VmConfig::cpu_model, {1, 32}),
        key("engine", &VmConfig::engine),
        key("kvm_fd", &VmConfig::kvm_fd, {0, 63}),
        key("kvm_missing", &VmConfig::kvm_missing, {0, VmConfig::max_reason}),
        key("kernel_fd", &VmConfig::kernel_fd, {0, 63}),
        key("kernel_label", &VmConfig::kernel_label, {1, VmConfig::max_label}),
        key("initrd_fd", &VmConfig::initrd_fd, {0, 63}),
        key("initrd_label", &VmConfig::initrd_label, {1, VmConfig::max_label}),
        key("firmware", &VmConfig::firmware),
        key("firmware_fd", &VmConfig::firmware_fd, {0, 63}),
        key("firmware_label", &VmConfig::firmware_label, {1, VmConfig::max_label}),
        key("firmware_vars_fd", &VmConfig::firmware_vars_fd, {0, 63}),
        key("firmware_vars_label", &VmConfig::firmware_vars_label, {1, VmConfig::max_label}),
        key("vga_bios_fd", &VmConfig::vga_bios_fd, {0, 63}),
        key("firmware_log_fd", &VmConfig::firmware_log_fd, {0, 63}),
        key("control_fd", &VmConfig::control_fd, {0, 63}),
        key("append", &VmConfig::append, {0, VmConfig::max_append}),
        key("console_fd", &VmConfig::console_fd, {0, 63}, true),
        key("serial2_fd", &VmConfig::serial2_fd, {0, 63}),
        key("serial2_label", &VmConfig::serial2_label, {1, VmConfig::max_label}),
        key("disks", &VmConfig::disks, {0, VmConfig::max_disks}),
        key("boot_first", &VmConfig::boot_first),
        key("net", &VmConfig::net),
        key("net_card", &VmConfig::net_card),
        key("forwards", &VmConfig::forwards, {0, VmConfig::max_forwards}),
        key("net_limit", &VmConfig::net_limit),
        key("cpu_cap_percent", &VmConfig::cpu_cap_percent, {0, max_cpu_cap_percent}),
        key("cpu_share", &VmConfig::cpu_share, {1, max_cpu_share}),
        key("cpu_group", &VmConfig::cpu_group),
        key("balloon", &VmConfig::balloon),
        key("vsock", &VmConfig::vsock),
        key("display", &VmConfig::display),
        key("graphics", &VmConfig::graphics),
        key("tablet", &VmConfig::tablet),
        key("vnc_fd", &VmConfig::vnc_fd, {0, 63}),
        key("vnc_password", &VmConfig::vnc_password, {0, VmConfig::max_vnc_password}),
        key("keyboard_layout", &VmConfig::keyboard_layout),
        key("no_reboot", &VmConfig::no_reboot),
        key("debug_exit", &VmConfig::debug_exit),
        key("jit_off", &VmConfig::jit_off, {0, 64, 32}),
        key("lockstep", &VmConfig::lockstep),
        key("profile", &VmConfig::profile),
        key("dump_fd", &VmConfig::dump_fd, {0, 63}),
        key("dump_at", &VmConfig::dump_at, {0, 64, 16}),
        key("detached", &VmConfig::detached),
        key("alive_fd", &VmConfig::alive_fd, {0, 63}),
        key("listen_fd", &VmConfig::listen_fd, {0, 63}),
        key("events_fd", &VmConfig::events_fd, {0, 63}),
        key("log_fd", &VmConfig::log_fd, {0, 63}),
        key("old_log_fd", &VmConfig::old_log_fd, {0, 63}),
        key("tsc_before", &VmConfig::tsc_before, {0, INT64_MAX}),
        key("tsc_before_ns", &VmConfig::tsc_before_ns, {0, INT64_MAX}),
    };
  }
};

}  // namespace caisson::control
