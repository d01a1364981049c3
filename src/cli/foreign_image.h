// VMDK, VHDX and VDI images, by a confined child: QEMU's qemu-img, which sees the one image, one file to write and the
// system's libraries, nothing else of the file system, and no network.
//   Confined by  Landlock (refused where the host's kernel has none), a seccomp filter against sockets and the like,
//                limits on memory and on the size of files; whatever may be in the image
//   Threads      main thread
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace caisson::cli {

// "vmdk", "vhdx", "vdi": as said, or by the file's name.
[[nodiscard]] std::optional<std::string_view> foreign_format_named(std::string_view name);
[[nodiscard]] std::optional<std::string_view> foreign_format_by_name(std::string_view path);

// Called now and then with what part is done, 0 to 1.
using ForeignProgress = std::function<void(double part)>;

// Writes `to`, an empty file that exists, from `from`; formats by QEMU's names.
[[nodiscard]] Result<> convert_foreign(const std::string& from, std::string_view from_format, const std::string& to,
                                       std::string_view to_format, const ForeignProgress& progress);
// What qemu-img says about the image; as JSON or for people.
[[nodiscard]] Result<std::string> foreign_info(const std::string& path, std::string_view format, bool json);

}  // namespace caisson::cli
