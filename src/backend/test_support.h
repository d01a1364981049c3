// For the tests of this folder: a loop with its lock, and a folder that goes with the test.
#pragma once

#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include <fcntl.h>
#include <gtest/gtest.h>

#include "base/event_loop.h"
#include "base/fd.h"

namespace caisson::test {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "caisson-test-XXXXXX").string();
    EXPECT_NE(::mkdtemp(name.data()), nullptr);
    path_ = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  [[nodiscard]] std::string file(const std::string& name) const { return (path_ / name).string(); }
  std::string make(const std::string& name, const std::string& content) const {
    std::ofstream{file(name), std::ios::binary} << content;
    return file(name);
  }

 private:
  std::filesystem::path path_;
};

inline std::string content_of(const std::string& path) {
  std::ifstream in{path, std::ios::binary};
  return {std::istreambuf_iterator<char>{in}, {}};
}

// The loop runs on the test's own thread, inside run_until().
class LoopTest : public testing::Test {
 protected:
  // Runs the loop until the condition holds; false when it has not after 20 s.
  bool run_until(const std::function<bool()>& condition) {
    bool late = false;
    const auto give_up = loop->create_timer([&] { late = true; });
    give_up->arm(EventLoop::now_ns() + 20'000'000'000);
    while (!late) {
      {
        const std::lock_guard lock{guard};
        if (condition()) return true;
      }
      const auto pause = loop->create_timer([&] { loop->stop(); });
      pause->arm(EventLoop::now_ns() + 500'000);
      loop->run();
    }
    return false;
  }
  // Runs what is ready now.
  void run_ready() {
    for (int i = 0; i < 3; ++i) {
      loop->stop();
      loop->run();
    }
  }

  std::mutex guard;
  std::unique_ptr<EventLoop> loop = EventLoop::create(&guard).value();
};

}  // namespace caisson::test
