// For the tests of this folder: images with a model beside them, and QEMU's tools as the other opinion.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include <fcntl.h>
#include <fmt/core.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include "backend/qcow2/check.h"
#include "backend/qcow2/create.h"
#include "backend/qcow2/image.h"
#include "backend/qcow2/raw_source.h"
#include "backend/test_support.h"

namespace caisson::qcow2::test {

using caisson::test::TemporaryFolder;
using Bytes = std::vector<uint8_t>;

inline bool have_qemu() {
  static const bool have = std::system("qemu-img --version >/dev/null 2>&1 && qemu-io --version >/dev/null 2>&1") == 0;
  return have;
}

struct Outcome {
  int status;
  std::string out;
};
inline Outcome shell(const std::string& command) {
  Outcome outcome{-1, {}};
  FILE* const pipe = ::popen((command + " 2>&1").c_str(), "re");
  if (pipe == nullptr) return outcome;
  char buffer[4096];
  for (size_t size; (size = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) outcome.out.append(buffer, size);
  const int status = ::pclose(pipe);
  outcome.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return outcome;
}

inline Fd open_file(const std::string& path, int flags = O_RDWR) {
  Fd fd{::open(path.c_str(), flags | O_CLOEXEC, 0600)};
  EXPECT_TRUE(fd.valid()) << path;
  return fd;
}

inline void make_image(const std::string& path, const CreateOptions& options) {
  const Fd fd = open_file(path, O_RDWR | O_CREAT | O_TRUNC);
  const auto made = create(fd.get(), options);
  ASSERT_TRUE(made) << made.error().message;
}

inline std::unique_ptr<Image> open_image(const std::string& path, OpenOptions options = {}) {
  options.name = path;
  auto image = Image::open(open_file(path, options.read_only ? O_RDONLY : O_RDWR), std::move(options));
  EXPECT_TRUE(image) << image.error().message;
  return image ? std::move(*image) : nullptr;
}

inline CheckReport check_file(const std::string& path) {
  const Fd fd = open_file(path, O_RDONLY);
  const auto report = check(fd.get());
  EXPECT_TRUE(report) << report.error().message;
  return report ? *report : CheckReport{};
}

// Ours and QEMU's opinion.
inline void expect_clean(const std::string& path) {
  const CheckReport report = check_file(path);
  EXPECT_TRUE(report.clean()) << path << ": " << report.leaks << " leaks, " << report.corruptions << " corruptions; "
                              << (report.messages.empty() ? "" : report.messages.front());
  if (!have_qemu()) return;
  const Outcome outcome = shell("qemu-img check -f qcow2 " + path);
  EXPECT_EQ(outcome.status, 0) << outcome.out.substr(0, 2000);
}

inline Bytes read_all(Source& source) {
  Bytes bytes(source.size(), 0xee);
  EXPECT_EQ(source.read(0, bytes.size(), {{bytes.data(), bytes.size()}}), 0);
  return bytes;
}

inline int write(Image& image, uint64_t offset, Bytes bytes) {
  return image.write(offset, bytes.size(), {{bytes.data(), bytes.size()}});
}

}  // namespace caisson::qcow2::test
