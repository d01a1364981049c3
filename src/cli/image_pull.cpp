#include "cli/image_pull.h"

#include <algorithm>
#include <cerrno>
#include <optional>

#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "cli/download.h"
#include "cli/exit_status.h"
#include "cli/image_build.h"
#include "cli/image_import.h"
#include "cli/image_store.h"
#include "cli/transfer_progress.h"
#include "cli/unpack.h"
#include "store/files.h"

namespace caisson::cli {
namespace {

constexpr std::string_view file_scheme = "file://";
constexpr uint64_t most_signature = 16 * 1024;

// What was pulled: a file of the host as it is, or a download, which goes when it has been used or was wrong.
struct Pulled {
  std::optional<Download> download{};
  Fd file{};
  std::string path{};
  [[nodiscard]] int fd() const { return download ? download->fd() : file.get(); }
  void remove() {
    if (download) download->remove();
  }
};

Result<Pulled> get(const std::string& url, const std::string& name, uint64_t most, const PullOptions& options) {
  Pulled pulled;
  if (url.starts_with(file_scheme)) {
    pulled.path = url.substr(file_scheme.size());
    auto file = open_input("image", pulled.path);
    if (!file) return std::unexpected(file.error());
    pulled.file = std::move(*file);
    return pulled;
  }
  auto download = Download::begin(name);
  if (!download) return std::unexpected(download.error());
  pulled.path = download->path();
  const auto got = download->get(
      url, {.most_bytes = most, .json = options.json, .tries = options.tries, .stall_s = options.stall_s});
  if (!got) return std::unexpected(got.error());
  pulled.download = std::move(*download);
  return pulled;
}

Result<> check_sum(const life::CatalogueEntry& entry, Pulled& pulled) {
  if (entry.sha256.empty()) return {};  // somebody has said --no-checksum
  const auto sum = sha256_file(pulled.path);
  if (!sum) return std::unexpected(sum.error());
  if (*sum == entry.sha256) return {};
  pulled.remove();
  return fail("{}: its SHA-256 is {} and should be {}; the download is removed; look who is right before trying again",
              entry.url, *sum, entry.sha256);
}

Result<> check_signed(const life::CatalogueEntry& entry, Pulled& pulled, const PullOptions& options) {
  if (entry.key.empty()) return {};
  const std::string url = entry.signature.empty() ? entry.url + ".minisig" : entry.signature;
  auto signature = get(url, entry.name + ".minisig", most_signature, options);
  if (!signature) return std::unexpected(signature.error());
  const auto comment = check_signature(entry.key, signature->path, pulled.fd());
  signature->remove();
  if (comment) return {};
  pulled.remove();
  return fail("{}: {}; the download is removed; do not use that file", entry.url, comment.error().message);
}

// The file that is to be imported, and its format.
struct Disk {
  std::string path{};
  std::string format{};
  std::string unpacked{};  // a file that goes afterwards
};

Result<Disk> unpack_disk(const life::CatalogueEntry& entry, const Pulled& pulled, const PullOptions& options) {
  const life::PackedName packed = life::packed_name(entry.url);
  Disk disk{.path = pulled.path};
  const std::string kind = entry.compression.empty() ? packed.compression : entry.compression;
  const std::string name = kind == "none" && packed.compression != "none" ? packed.name + "." + kind : packed.name;
  // The name that counts is the one at the address.
  disk.format = entry.format;
  for (const std::string_view format : {"qcow2", "vmdk", "vhdx", "vdi", "tar"}) {
    if (disk.format.empty() && name.ends_with("." + std::string{format})) disk.format = format;
  }
  if (disk.format.empty()) disk.format = "raw";
  if (kind == "none") return disk;
  auto cache = cache_folder();
  if (!cache) return std::unexpected(cache.error());
  const std::string folder = *cache + "/downloads";
  if (auto ok = make_folders(folder); !ok) return std::unexpected(ok.error());
  disk.path = disk.unpacked = folder + "/" + entry.name + ".unpacked";
  const Fd to{::open(disk.path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)};
  if (!to.valid()) return fail_errno(errno, "cannot make " + disk.path);
  TransferProgress progress{"unpacking", options.json};
  const auto done = unpack(
      pulled.fd(), kind, to.get(),
      {.most_bytes = entry.most_bytes, .progress = [&](uint64_t at, uint64_t all) { progress.update(at, all); }});
  if (done) return disk;
  ::unlink(disk.path.c_str());
  return with_context(entry.url, done.error());
}

}  // namespace

Result<std::string> pull_image(const life::CatalogueEntry& entry, const PullOptions& options) {
  if (!entry.arch.empty() && entry.arch != "amd64") {
    return fail("image {} is for {} machines, and this host has amd64 ones", entry.name, entry.arch);
  }
  const auto name = entry.recipe.empty() ? life::new_image_name(entry.name) : life::parse_image_name(entry.name);
  if (!name) return std::unexpected(name.error());
  if (!entry.recipe.empty())
    return build_image(*name, {.size = "4G", .mirror = "", .verbose = false, .force = options.force});
  // Before a long download rather than after.
  if (auto ok = check_replaced(*name, options.force); !ok) return std::unexpected(ok.error());
  auto pulled = get(entry.url, entry.name + ".part", entry.most_bytes, options);
  if (!pulled) return std::unexpected(with_remedy(pulled.error()));
  if (auto ok = check_sum(entry, *pulled); !ok) return std::unexpected(ok.error());
  if (auto ok = check_signed(entry, *pulled, options); !ok) return std::unexpected(ok.error());
  auto disk = unpack_disk(entry, *pulled, options);
  if (!disk) return std::unexpected(with_remedy(disk.error()));
  auto folder = import_image(*name, disk->path,
                             {.format = disk->format,
                              .firmware = entry.boot,
                              .source = entry.url,
                              .force = options.force,
                              .json = options.json});
  if (!disk->unpacked.empty()) ::unlink(disk->unpacked.c_str());
  if (!folder) return folder;  // the download stays: what failed may have been the disk that was full
  pulled->remove();
  return folder;
}

int show_catalogue(bool json) {
  const auto all = life::catalogue();
  if (!all) {
    log::error("{}", all.error().message);
    return exit_failure;
  }
  if (json) {
    auto array = nlohmann::json::array();
    for (const life::CatalogueEntry& entry : *all) {
      array.push_back({{"name", entry.name}, {"arch", entry.arch}, {"about", entry.about}});
      if (!entry.recipe.empty()) array.back()["recipe"] = entry.recipe;
      if (!entry.url.empty()) array.back()["url"] = entry.url;
      if (!entry.sha256.empty()) array.back()["sha256"] = entry.sha256;
      array.back()["signed"] = !entry.key.empty();
    }
    fmt::print("{}\n", array.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
    return exit_ok;
  }
  size_t width = 5;
  for (const life::CatalogueEntry& entry : *all) width = std::max(width, entry.name.size());
  fmt::print("{:{}}  {:6} {:30}  FROM\n", "IMAGE", width, "ARCH", "WHAT");
  for (const life::CatalogueEntry& entry : *all) {
    fmt::print("{:{}}  {:6} {:30}  {}\n", entry.name, width, entry.arch, entry.about,
               entry.recipe.empty() ? entry.url : "built here from packages");
  }
  return exit_ok;
}

}  // namespace caisson::cli
