// The server over a real socket, with a machine of the test's own.
#include "backend/rfb/server.h"

#include <gtest/gtest.h>

#include <mutex>
#include <string>

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace caisson::rfb {
namespace {

class FakeMachine final : public Machine {
 public:
  uint64_t changes() override { return changes_count; }
  Frame draw(bool pointer) override {
    ++draws;
    const std::lock_guard hold(lock);
    return {20, 10, std::vector<uint32_t>(200, pointer ? colour : 0x777777)};
  }
  Cursor cursor() override {
    const std::lock_guard hold(lock);
    return {1, 1, 0, 0, {0xff00'0000 | colour}};
  }
  void key(ScanCode key, bool down) override {
    const std::lock_guard hold(lock);
    keys.push_back(down ? key.code : -key.code);
  }
  void point(const Pointer&) override {}
  bool resize(unsigned, unsigned) override { return false; }
  void show(uint32_t next) {
    const std::lock_guard hold(lock);
    colour = next;
    ++changes_count;
  }

  std::mutex lock;
  uint32_t colour = 0x112233;
  std::vector<int> keys;
  std::atomic<uint64_t> changes_count = 1;
  std::atomic<unsigned> draws = 0;
};

class ServerTest : public testing::Test {
 protected:
  ServerTest() : path_(testing::TempDir() + "/vnc-" + std::to_string(::getpid())) {}
  ~ServerTest() override { ::unlink(path_.c_str()); }

  [[nodiscard]] sockaddr_un address() const {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path_.copy(static_cast<char*>(address.sun_path), sizeof address.sun_path - 1);
    return address;
  }
  void start(SessionOptions options = {}) {
    Fd listener{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    const auto at = address();
    ASSERT_EQ(::bind(listener.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at), 0);
    auto made = Server::create(std::move(listener), std::move(options), machine_);
    ASSERT_TRUE(made);
    server_ = std::move(*made);
  }
  [[nodiscard]] Fd connect() const {
    Fd socket{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    const auto at = address();
    EXPECT_EQ(::connect(socket.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at), 0);
    return socket;
  }
  static void say(const Fd& socket, std::string_view bytes) {
    EXPECT_EQ(::write(socket.get(), bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  }
  static std::string hear(const Fd& socket, size_t count) {
    std::string out;
    while (out.size() < count) {
      pollfd wait{socket.get(), POLLIN, 0};
      if (::poll(&wait, 1, 10'000) != 1) break;
      std::string piece(count - out.size(), '\0');
      const ssize_t got = ::read(socket.get(), piece.data(), piece.size());
      if (got <= 0) break;
      out += piece.substr(0, static_cast<size_t>(got));
    }
    return out;
  }
  static void enter(const Fd& socket) {
    EXPECT_EQ(hear(socket, 12), "RFB 003.008\n");
    say(socket, "RFB 003.008\n\x01\x01");
    EXPECT_EQ(hear(socket, 2 + 4 + 24 + 7).substr(6, 4), std::string("\0\x14\0\x0a", 4));
  }
  template <class Condition>
  static bool soon(Condition condition) {
    for (unsigned i = 0; i < 1000; ++i) {
      if (condition()) return true;
      ::usleep(10'000);
    }
    return false;
  }

  const std::string path_;
  FakeMachine machine_;
  std::unique_ptr<Server> server_;
};

const std::string whole{"\x03\x00\x00\x00\x00\x00\x00\x14\x00\x0a", 10};
const std::string changed{"\x03\x01\x00\x00\x00\x00\x00\x14\x00\x0a", 10};
constexpr size_t update_size = 4 + 12 + 200 * 4;

TEST_F(ServerTest, SeveralViewersSeeThePictureAndItsChanges) {
  start();
  EXPECT_EQ(machine_.draws, 0u) << "nobody looks";
  const Fd one = connect(), two = connect();
  for (const Fd* viewer : {&one, &two}) {
    enter(*viewer);
    say(*viewer, whole);
    EXPECT_EQ(hear(*viewer, update_size).substr(16, 4), std::string("\x33\x22\x11\0", 4));
    say(*viewer, changed);
  }
  EXPECT_EQ(server_->viewers(), 2u);
  machine_.show(0x445566);
  for (const Fd* viewer : {&one, &two}) {
    EXPECT_EQ(hear(*viewer, update_size).substr(16, 4), std::string("\x66\x55\x44\0", 4));
  }
  EXPECT_LE(machine_.draws, 4u);
}

TEST_F(ServerTest, WhoDrawsThePointerGetsThePictureWithoutIt) {
  start();
  const Fd drawing = connect(), plain = connect();
  enter(drawing);
  enter(plain);
  say(drawing, std::string_view("\x02\0\0\1\xff\xff\xff\x11", 8));
  const size_t cursor_size = 12 + 4 + 1;
  for (unsigned round = 0; round < 3; ++round) {
    say(drawing, whole);
    const std::string update = hear(drawing, update_size + cursor_size);
    EXPECT_EQ(update.substr(4 + 8, 4), "\xff\xff\xff\x11");
    EXPECT_EQ(update.substr(16, 4), std::string("\x33\x22\x11\0", 4)) << "the pointer";
    EXPECT_EQ(update.substr(16 + cursor_size, 4), std::string("\x77\x77\x77\0", 4));
    say(plain, whole);
    EXPECT_EQ(hear(plain, update_size).substr(16, 4), std::string("\x33\x22\x11\0", 4));
    // It is told again when it says so again.
    say(drawing, std::string_view("\x02\0\0\0", 4));
    say(drawing, std::string_view("\x02\0\0\1\xff\xff\xff\x11", 8));
  }
}

TEST_F(ServerTest, KeysArriveAndComeUpWhenTheViewerGoes) {
  start();
  {
    const Fd viewer = connect();
    enter(viewer);
    say(viewer, std::string_view("\x04\x01\0\0\0\0\0a", 8));
    EXPECT_TRUE(soon([&] {
      const std::lock_guard hold(machine_.lock);
      return machine_.keys == std::vector<int>{0x1e};
    }));
  }
  EXPECT_TRUE(soon([&] {
    const std::lock_guard hold(machine_.lock);
    return machine_.keys == std::vector<int>{0x1e, -0x1e};
  }));
  EXPECT_TRUE(soon([&] { return server_->viewers() == 0; }));
}

TEST_F(ServerTest, WhoHasNotComeInMakesRoom) {
  start();
  std::vector<Fd> idle;
  for (size_t i = 0; i < Server::most_viewers + 3; ++i) {
    idle.push_back(connect());
    hear(idle.back(), 12);
  }
  EXPECT_EQ(server_->viewers(), Server::most_viewers);
  EXPECT_EQ(hear(idle[0], 1), "") << "the first one was cut off";
}

TEST_F(ServerTest, AViewerThatDoesNotReadHoldsNobodyUp) {
  start();
  const Fd slow = connect(), quick = connect();
  enter(slow);
  enter(quick);
  for (unsigned i = 0; i < 200; ++i) say(slow, whole);
  for (uint32_t i = 0; i < 5; ++i) {
    machine_.show(i + 1);
    say(quick, whole);
    EXPECT_EQ(hear(quick, update_size).size(), update_size);
  }
}

}  // namespace
}  // namespace caisson::rfb
