#include "cli/disk_report.h"

#include <cerrno>
#include <cstdio>
#include <ctime>

#include <fmt/core.h>
#include <sys/stat.h>
#include <nlohmann/json.hpp>

#include "backend/qcow2/check.h"
#include "base/log.h"
#include "cli/exit_status.h"
#include "cli/transfer_progress.h"

namespace caisson::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr int exit_leaks = 3;

std::string text_of(const Json& json) { return json.dump(2, ' ', false, Json::error_handler_t::replace); }

uint64_t used_bytes(const Fd& fd) {
  struct stat status {};
  return ::fstat(fd.get(), &status) == 0 ? static_cast<uint64_t>(status.st_blocks) * 512 : 0;
}

// Names in images are untrusted: nothing that a terminal would act on.
std::string printable(std::string text) {
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return text;
}

std::string date_of(uint32_t seconds) {
  const time_t time = seconds;
  tm parts{};
  char text[32];
  if (::gmtime_r(&time, &parts) == nullptr) return "?";
  return {text, std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &parts)};
}

Json snapshots_json(const std::vector<qcow2::Snapshot>& snapshots) {
  Json list = Json::array();
  for (const auto& snapshot : snapshots) {
    list.push_back({{"id", snapshot.id},
                    {"name", snapshot.name},
                    {"date", snapshot.date_s},
                    {"size", snapshot.disk_size},
                    {"vm_state_size", snapshot.vm_state_size}});
  }
  return list;
}

std::string_view compression_name(qcow2::Compression compression) {
  return compression == qcow2::Compression::Zlib ? "zlib" : "zstd";
}

void print_qcow2(const qcow2::Header& header, const std::vector<qcow2::Snapshot>& snapshots) {
  fmt::print("clusters:    {} bytes, refcounts of {} bits, version {}, compression {}\n", header.cluster_size(),
             1u << header.refcount_order, header.version, compression_name(header.compression));
  if (header.backing_file) {
    fmt::print("based on:    {} ({})\n", *header.backing_file,
               header.backing_format.empty() ? "its format is not said" : printable(header.backing_format));
  }
  if ((header.incompatible & qcow2::incompatible_dirty) != 0) fmt::print("state:       was not closed well\n");
  if ((header.incompatible & qcow2::incompatible_corrupt) != 0) fmt::print("state:       marked as damaged\n");
  for (const auto& snapshot : snapshots) {
    fmt::print("snapshot:    {} \"{}\", {}, {}\n", printable(snapshot.id), printable(snapshot.name),
               date_of(snapshot.date_s), human_bytes(snapshot.disk_size));
  }
}

}  // namespace

int report_disk_error(const Error& error, bool json, int status) {
  if (json) {
    fmt::print(
        stderr, "{}\n",
        Json{{"type", "error"}, {"message", error.message}}.dump(-1, ' ', false, Json::error_handler_t::replace));
  } else {
    log::error("{}", error.message);
  }
  return status;
}

int disk_info(const std::string& path, std::optional<DiskFormat> format, bool json) {
  auto opened = open_chain(path, {.read_only = true, .format = format, .without_backing = true, .unlocked = true});
  if (!opened) return report_disk_error(opened.error(), json, exit_failure);
  const DiskFile& file = opened->front();
  Json info{{"path", path}, {"format", name_of(file.format)}, {"size", file.size}, {"used", used_bytes(file.fd)}};
  std::optional<qcow2::Header> header;
  std::vector<qcow2::Snapshot> snapshots;
  if (file.format == DiskFormat::Qcow2) {
    auto read = qcow2::read_header(file.fd.get());
    if (!read) return report_disk_error({fmt::format("disk {}: {}", path, read.error().message)}, json, exit_failure);
    header = std::move(*read);
    size_t used = 0;
    auto found = qcow2::read_snapshots(file.fd.get(), *header, used);
    if (!found) return report_disk_error({fmt::format("disk {}: {}", path, found.error().message)}, json, exit_failure);
    snapshots = std::move(*found);
    info["size"] = header->size;
    info["version"] = header->version;
    info["cluster_size"] = header->cluster_size();
    info["refcount_bits"] = 1u << header->refcount_order;
    info["compression"] = compression_name(header->compression);
    if (header->backing_file) {
      info["backing_file"] = *header->backing_file;
      info["backing_format"] = header->backing_format;
    }
    info["dirty"] = (header->incompatible & qcow2::incompatible_dirty) != 0;
    info["corrupt"] = (header->incompatible & qcow2::incompatible_corrupt) != 0;
    info["snapshots"] = snapshots_json(snapshots);
  }
  if (json) {
    fmt::print("{}\n", text_of(info));
    return exit_ok;
  }
  const auto size = info["size"].get<uint64_t>();
  fmt::print("image:       {}\nformat:      {}\ndisk size:   {} ({} bytes)\nroom used:   {}\n", path,
             name_of(file.format), human_bytes(size), size, human_bytes(used_bytes(file.fd)));
  if (header) print_qcow2(*header, snapshots);
  return exit_ok;
}

int disk_check(const std::string& path, std::optional<DiskFormat> format, bool repair, bool json) {
  auto opened = open_chain(path, {.read_only = !repair, .format = format, .without_backing = true});
  if (!opened) return report_disk_error(opened.error(), json, exit_failure);
  const DiskFile& file = opened->front();
  if (file.format == DiskFormat::Raw) {
    return report_disk_error({fmt::format("disk {}: a raw image has nothing to check", path)}, json, exit_usage);
  }
  Result<qcow2::CheckReport> checked;
  {
    TransferProgress progress{"checking", json};
    const auto show = [&](double part) {
      progress.update(static_cast<uint64_t>(part * static_cast<double>(file.size)), file.size);
    };
    checked = repair ? qcow2::repair(file.fd.get(), show) : qcow2::check(file.fd.get(), show);
  }
  if (!checked)
    return report_disk_error({fmt::format("disk {}: {}", path, checked.error().message)}, json, exit_failure);
  const qcow2::CheckReport& report = *checked;
  const int status = report.corruptions != 0 ? exit_failure : report.leaks != 0 ? exit_leaks : exit_ok;
  if (json) {
    const Json result{{"path", path},
                      {"clusters", report.disk_clusters},
                      {"allocated", report.allocated_clusters},
                      {"compressed", report.compressed_clusters},
                      {"leaks", report.leaks},
                      {"corruptions", report.corruptions},
                      {"fixed_leaks", report.fixed_leaks},
                      {"fixed_corruptions", report.fixed_corruptions},
                      {"messages", report.messages}};
    fmt::print("{}\n", text_of(result));
    return status;
  }
  for (const std::string& message : report.messages) fmt::print("{}\n", message);
  if (report.fixed_leaks + report.fixed_corruptions != 0) {
    fmt::print("mended: {} lost clusters, {} other faults\n", report.fixed_leaks, report.fixed_corruptions);
  }
  if (report.corruptions != 0) {
    fmt::print("damaged: {} faults{}\n", report.corruptions,
               repair ? " that cannot be mended; save what can be read with 'caisson disk convert'"
                      : "; mend them with --repair, on a copy where you can");
  } else if (report.leaks != 0) {
    fmt::print("{} clusters are lost, which costs room and no data; get them back with --repair\n", report.leaks);
  } else {
    fmt::print("clean: {} of {} clusters in use, {} of them compressed\n", report.allocated_clusters,
               report.disk_clusters, report.compressed_clusters);
  }
  return status;
}

int disk_map(const std::string& path, const ChainOptions& options, const std::string& snapshot, bool json) {
  auto chain = open_chain(path, options);
  if (!chain) return report_disk_error(chain.error(), json, exit_failure);
  std::vector<std::string> names;
  for (const DiskFile& file : *chain) names.push_back(file.path);
  auto disk = assemble(std::move(*chain), snapshot);
  if (!disk) return report_disk_error(disk.error(), json, exit_failure);
  const auto print = [&](uint64_t offset, const qcow2::Extent& extent, bool first) {
    const bool data = extent.content == qcow2::Content::Data;
    const std::string_view content = data                                           ? "data"
                                     : extent.content == qcow2::Content::Compressed ? "compressed"
                                     : extent.present                               ? "zero"
                                                                                    : "unallocated";
    const auto& file = names[static_cast<size_t>(extent.depth)];
    if (json) {
      Json entry{{"start", offset}, {"length", extent.length}, {"content", content}, {"depth", extent.depth}};
      if (data) entry["offset"] = extent.host_offset;
      if (content != "unallocated") entry["file"] = file;
      fmt::print("{}{}", first ? "" : ",\n", entry.dump(-1, ' ', false, Json::error_handler_t::replace));
    } else if (content != "unallocated") {
      fmt::print("{:#14x} {:#14x} {:>11} {:>14} {}\n", offset, extent.length, content,
                 data ? fmt::format("{:#x}", extent.host_offset) : "-", file);
    }
  };
  if (json) {
    fmt::print("[");
  } else {
    fmt::print("{:>14} {:>14} {:>11} {:>14} file\n", "start", "length", "content", "at");
  }
  qcow2::Extent last;
  uint64_t start = 0;
  bool first = true;
  for (uint64_t offset = 0; offset < (*disk)->size();) {
    qcow2::Extent extent;
    if (const int error = (*disk)->extent(offset, (*disk)->size() - offset, extent)) {
      return report_disk_error(fail_errno(error, "disk " + path).error(), json, exit_failure);
    }
    const bool same = last.length > 0 && extent.content == last.content && extent.depth == last.depth &&
                      extent.present == last.present && extent.content != qcow2::Content::Compressed &&
                      (extent.content != qcow2::Content::Data || extent.host_offset == last.host_offset + last.length);
    if (same) {
      last.length += extent.length;
    } else {
      if (last.length > 0) {
        print(start, last, first);
        first = false;
      }
      last = extent;
      start = offset;
    }
    offset += extent.length;
  }
  if (last.length > 0) print(start, last, first);
  if (json) fmt::print("]\n");
  return exit_ok;
}

}  // namespace caisson::cli
