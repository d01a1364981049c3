#include "backend/disk_chain.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <set>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/qcow2/check.h"
#include "backend/qcow2/raw_source.h"

namespace caisson {
namespace {

using Identity = std::pair<dev_t, ino_t>;

// A file as it is, whatever links led there.
struct Place {
  std::string path;
  Identity identity;
};

Result<Place> find_place(const std::string& path) {
  const Fd fd{::open(path.c_str(), O_PATH | O_CLOEXEC)};
  if (!fd.valid()) return fail_errno(errno, "cannot find " + path);
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) return fail_errno(errno, "cannot find " + path);
  std::array<char, PATH_MAX> target{};
  const ssize_t size = ::readlink(fmt::format("/proc/self/fd/{}", fd.get()).c_str(), target.data(), target.size());
  if (size <= 0 || size == static_cast<ssize_t>(target.size())) return fail("cannot tell where {} is", path);
  return Place{{target.data(), static_cast<size_t>(size)}, {status.st_dev, status.st_ino}};
}

std::string folder_of(const std::string& path) {
  const auto slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, std::max<size_t>(slash, 1));
}

bool below(const std::string& path, const std::string& folder) {
  return folder == "/" || (path.starts_with(folder) && path.size() > folder.size() && path[folder.size()] == '/');
}

// "nbd://…", "json:…": QEMU takes these for something other than a file.
bool is_protocol(std::string_view name) {
  const auto colon = name.find(':');
  return colon != std::string_view::npos && name.find('/') > colon;
}

Result<qcow2::Header> header_of(const DiskFile& file) {
  auto header = qcow2::read_header(file.fd.get());
  if (!header) return with_context("disk " + file.path, header.error());
  return header;
}

Result<DiskFormat> backing_format(const DiskFile& image, const qcow2::Header& header, const std::string& path) {
  if (!header.backing_format.empty()) {
    const auto format = format_named(header.backing_format);
    if (!format) {
      return fail("disk {}: its backing file {} has the format {}; only raw and qcow2 can be used", image.path, path,
                  header.backing_format);
    }
    return *format;
  }
  const Fd fd{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)};
  std::array<uint8_t, 4> start{};
  if (fd.valid() && ::pread(fd.get(), start.data(), start.size(), 0) == 4 && qcow2::has_magic(start)) {
    return fail(
        "disk {}: does not say what format its backing file {} has; say it with 'qemu-img rebase -u -b {} -F qcow2 {}'",
        image.path, path, path, image.path);
  }
  return DiskFormat::Raw;
}

}  // namespace

Result<std::vector<DiskFile>> open_chain(const std::string& path, const ChainOptions& options) {
  std::vector<DiskFile> chain;
  auto top = open_disk(path, options.read_only, options.format, options.unlocked);
  if (!top) return std::unexpected(top.error());
  chain.push_back(std::move(*top));
  if (options.without_backing || chain.front().format == DiskFormat::Raw) return chain;

  auto place = find_place(path);
  if (!place) return with_context("disk " + path, place.error());
  std::vector<std::string> allowed{folder_of(place->path)};
  for (const std::string& folder : options.backing_folders) {
    if (const auto found = find_place(folder)) allowed.push_back(found->path);
  }
  std::set<Identity> passed{place->identity};
  std::string here = place->path;
  for (;;) {
    const DiskFile& image = chain.back();
    if (image.format == DiskFormat::Raw) return chain;
    const auto header = header_of(image);
    if (!header) return std::unexpected(header.error());
    if (!header->backing_file) return chain;
    const std::string& name = *header->backing_file;
    if (is_protocol(name)) {
      return fail("disk {}: its backing file {} is not a plain file; copy it with 'qemu-img convert'", image.path,
                  name);
    }
    const std::string wanted = name.starts_with('/') ? name : folder_of(here) + "/" + name;
    auto next = find_place(wanted);
    if (!next) return with_context("disk " + image.path + ": its backing file", next.error());
    if (std::ranges::none_of(allowed, [&](const std::string& folder) { return below(next->path, folder); })) {
      return fail(
          "disk {}: its backing file {} is outside the allowed folders; move it below {}, or allow its folder with "
          "'--backing-folder {}'",
          image.path, next->path, allowed.front(), folder_of(next->path));
    }
    if (!passed.insert(next->identity).second) {
      return fail("disk {}: its chain of backing files comes back to {}", path, next->path);
    }
    if (chain.size() == most_layers) {
      return fail("disk {}: has more than {} backing files; join some with 'caisson disk convert'", path,
                  most_layers - 1);
    }
    const auto format = backing_format(image, *header, next->path);
    if (!format) return std::unexpected(format.error());
    auto file = open_disk(next->path, true, *format);
    if (!file) return with_context("disk " + image.path + ": its backing file", file.error());
    struct stat status {};
    if (::fstat(file->fd.get(), &status) != 0 || Identity{status.st_dev, status.st_ino} != next->identity) {
      return fail("disk {}: its backing file {} was exchanged meanwhile; try again", image.path, next->path);
    }
    here = next->path;
    chain.push_back(std::move(*file));
  }
}

Result<std::unique_ptr<qcow2::Source>> assemble_backing(std::vector<DiskLayer> layers) {
  std::unique_ptr<qcow2::Source> below;
  while (!layers.empty()) {
    DiskLayer layer = std::move(layers.back());
    layers.pop_back();
    if (layer.format == DiskFormat::Raw) {
      if (below != nullptr) return fail("disk {}: a raw image has no backing file", layer.name);
      auto raw = qcow2::RawSource::open(std::move(layer.fd), layer.name);
      if (!raw) return std::unexpected(raw.error());
      below = std::move(*raw);
    } else {
      auto image =
          qcow2::Image::open(std::move(layer.fd), {.name = layer.name, .read_only = true, .backing = std::move(below)});
      if (!image) return std::unexpected(image.error());
      below = std::move(*image);
    }
  }
  return below;
}

Result<std::unique_ptr<qcow2::Image>> assemble_image(std::vector<DiskFile> chain, qcow2::OpenOptions options) {
  std::vector<DiskLayer> layers;
  for (size_t i = 1; i < chain.size(); ++i) {
    layers.push_back({std::move(chain[i].fd), chain[i].format, chain[i].path});
  }
  auto backing = assemble_backing(std::move(layers));
  if (!backing) return std::unexpected(backing.error());
  options.name = chain.front().path;
  options.backing = std::move(*backing);
  return qcow2::Image::open(std::move(chain.front().fd), std::move(options));
}

Result<std::unique_ptr<qcow2::Source>> assemble(std::vector<DiskFile> chain, const std::string& snapshot) {
  if (chain.front().format == DiskFormat::Qcow2) {
    return assemble_image(std::move(chain), {.read_only = true, .allow_corrupt = true, .snapshot = snapshot});
  }
  if (!snapshot.empty()) return fail("disk {}: a raw image has no snapshots", chain.front().path);
  return qcow2::RawSource::open(std::move(chain.front().fd), chain.front().path);
}

}  // namespace caisson
