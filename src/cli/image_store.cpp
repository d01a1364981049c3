#include "cli/image_store.h"

#include <array>
#include <cerrno>

#include <fcntl.h>
#include <fmt/core.h>
// The functions of before EVP: they bring SHA-256 alone into a static program, and not all of OpenSSL.
#define OPENSSL_API_COMPAT 0x10100000L
#include <openssl/sha.h>
#include <nlohmann/json.hpp>

#include "base/fd.h"
#include "base/log.h"
#include "cli/exit_status.h"
#include "life/images.h"
#include "life/new_folder.h"

namespace caisson::cli {

Result<std::string> sha256_file(const std::string& path) {
  Fd fd{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (!fd.valid()) return fail_errno(errno, "cannot open " + path);
  SHA256_CTX context;
  SHA256_Init(&context);
  std::array<unsigned char, 256 * 1024> buffer;
  for (;;) {
    const ssize_t size = ::read(fd.get(), buffer.data(), buffer.size());
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) return fail_errno(errno, "cannot read " + path);
    if (size == 0) break;
    SHA256_Update(&context, buffer.data(), static_cast<size_t>(size));
  }
  std::array<unsigned char, SHA256_DIGEST_LENGTH> digest;
  SHA256_Final(digest.data(), &context);
  std::string text;
  for (const unsigned char byte : digest) text += fmt::format("{:02x}", byte);
  return text;
}

int image_list(bool json) {
  life::sweep_new_folders();
  const auto list = life::list_images();
  if (!list) {
    log::error("{}", list.error().message);
    return exit_failure;
  }
  if (json) {
    auto array = nlohmann::json::array();
    for (const life::Image& image : *list) {
      array.push_back({{"image", image.name},
                       {"built", image.built},
                       {"folder", image.folder},
                       {"size", image.size_bytes},
                       {"used", image.used_bytes},
                       {"boot", name_of(image.boot)}});
      if (!image.problem.empty()) array.back()["problem"] = image.problem;
    }
    fmt::print("{}\n", array.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
  } else if (list->empty()) {
    fmt::print("no images; make one with caisson image build debian:12, or caisson image import\n");
  } else {
    fmt::print("{:12} {:21} {:>9} {:>9} {:6}  {}\n", "IMAGE", "BUILT", "SIZE", "ON DISK", "BOOT", "FOLDER");
    for (const life::Image& image : *list) {
      fmt::print("{:12} {:21} {:5} MiB {:5} MiB {:6}  {}\n", image.name, image.built, image.size_bytes >> 20,
                 image.used_bytes >> 20, image.problem.empty() ? name_of(image.boot) : "broken", image.folder);
    }
    for (const life::Image& image : *list) {
      if (!image.problem.empty()) log::warning("{}", image.problem);
    }
  }
  return exit_ok;
}

int image_remove(const std::string& text) {
  const auto name = life::parse_image_name(text);
  if (!name) {
    log::error("{}", name.error().message);
    return exit_usage;
  }
  if (const auto ok = life::remove_image(*name); !ok) {
    log::error("{}", ok.error().message);
    return exit_failure;
  }
  return exit_ok;
}

}  // namespace caisson::cli
