// The one table of VmSpec's keys, names and bounds.
//   Threads  constants
#pragma once

#include "control/vm_config_table.h"
#include "store/vm_spec.h"

namespace caisson::control {

template <>
struct JsonTable<store::DiskSpec> {
  static constexpr auto fields() {
    return std::tuple{key("path", &store::DiskSpec::path, {1, store::VmSpec::max_path}, true),
                      key("read_only", &store::DiskSpec::read_only), key("format", &store::DiskSpec::format, {0, 8}),
                      key("bus", &store::DiskSpec::bus), key("limit", &store::DiskSpec::limit)};
  }
};

template <>
struct JsonTable<store::VmSpec> {
  static constexpr auto fields() {
    using store::VmSpec;
    return std::tuple{
        key("version", &VmSpec::version, {1, VmSpec::newest_version}, true),
        key("created_ms", &VmSpec::created_ms),
        key("image", &VmSpec::image, {0, 64}),
        key("kernel", &VmSpec::kernel, {0, VmSpec::max_path}),
        key("initrd", &VmSpec::initrd, {0, VmSpec::max_path}),
        key("append", &VmSpec::append, {0, VmConfig::max_append}),
        key("firmware", &VmSpec::firmware),
        key("firmware_vars", &VmSpec::firmware_vars, {0, VmSpec::max_path}),
        key("cpus", &VmSpec::cpus, {1, VmConfig::max_cpus}, true),
        key("memory_bytes", &VmSpec::memory_bytes, {VmConfig::min_memory, VmConfig::max_memory}, true),
        key("cpu_model", &VmSpec::cpu_model, {1, 32}),
        key("engine", &VmSpec::engine),
        key("serial2", &VmSpec::serial2, {0, VmSpec::max_path}),
        key("disks", &VmSpec::disks, {0, VmConfig::max_disks}),
        key("backing_folders", &VmSpec::backing_folders, {0, 64, VmSpec::max_path}),
        key("net", &VmSpec::net),
        key("net_card", &VmSpec::net_card),
        key("forwards", &VmSpec::forwards, {0, VmConfig::max_forwards}),
        key("net_limit", &VmSpec::net_limit),
        key("cpu_cap_percent", &VmSpec::cpu_cap_percent, {0, max_cpu_cap_percent}),
        key("cpu_share", &VmSpec::cpu_share, {1, max_cpu_share}),
        key("balloon", &VmSpec::balloon),
        key("vsock", &VmSpec::vsock),
        key("boot_first", &VmSpec::boot_first),
        key("display", &VmSpec::display),
        key("graphics", &VmSpec::graphics),
        key("tablet", &VmSpec::tablet),
        key("vnc", &VmSpec::vnc, {0, 64}),
        key("vnc_password_file", &VmSpec::vnc_password_file, {0, VmSpec::max_path}),
        key("keyboard_layout", &VmSpec::keyboard_layout),
        key("no_reboot", &VmSpec::no_reboot),
        key("debug_exit", &VmSpec::debug_exit),
        key("stop_timeout_s", &VmSpec::stop_timeout_s, {0, 86400}),
        key("autostart", &VmSpec::autostart),
        key("transient", &VmSpec::transient),
    };
  }
};

}  // namespace caisson::control
