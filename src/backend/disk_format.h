// The image formats that Caisson reads and writes itself, and how a file is taken for one.
//   Rule     never guessed from content alone: whoever writes a raw disk, a guest, could make it look like another
//   format
//            and name any file of the host as its backing file. docs/decisions/0013-which-format-an-image-has.md
//   Threads  pure functions
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace caisson {

enum class DiskFormat : uint8_t { Raw, Qcow2 };

[[nodiscard]] constexpr std::string_view name_of(DiskFormat format) {
  return format == DiskFormat::Raw ? "raw" : "qcow2";
}
[[nodiscard]] constexpr std::optional<DiskFormat> format_named(std::string_view name) {
  if (name == "raw") return DiskFormat::Raw;
  if (name == "qcow2") return DiskFormat::Qcow2;
  return std::nullopt;
}
// What the file's name says: *.qcow2, *.raw; else nothing.
[[nodiscard]] constexpr std::optional<DiskFormat> format_by_name(std::string_view path) {
  if (path.ends_with(".qcow2")) return DiskFormat::Qcow2;
  if (path.ends_with(".raw")) return DiskFormat::Raw;
  return std::nullopt;
}

}  // namespace caisson
