// Consoles that come and go, and the log that keeps within its bounds.
#include "machine/console_hub.h"

#include <array>
#include <mutex>
#include <string>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

namespace caisson::machine {
namespace {

std::span<const uint8_t> bytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

std::string content(int fd) {
  std::string text(1 << 20, '\0');
  const ssize_t size = ::pread(fd, text.data(), text.size(), 0);
  text.resize(size > 0 ? static_cast<size_t>(size) : 0);
  return text;
}

class ConsoleHubTest : public testing::Test {
 protected:
  void SetUp() override {
    auto created = EventLoop::create(&guard_);
    ASSERT_TRUE(created);
    loop_ = std::move(*created);
    newer_ = Fd{::memfd_create("newer", 0)};
    older_ = Fd{::memfd_create("older", 0)};
  }
  std::unique_ptr<ConsoleLog> make_log(uint64_t most) {
    return std::make_unique<ConsoleLog>(*loop_, Fd{::dup(newer_.get())}, Fd{::dup(older_.get())}, most);
  }
  std::unique_ptr<ConsoleSocket> make_first() {
    std::array<int, 2> ends{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends.data()), 0);
    first_ = Fd{ends[0]};
    auto socket = ConsoleSocket::create(*loop_, Fd{::dup(ends[1])}, Fd{ends[1]});
    EXPECT_TRUE(socket);
    return std::move(*socket);
  }
  void turn() {
    const auto soon = loop_->create_timer([&] { loop_->stop(); });
    soon->arm(EventLoop::now_ns() + 3'000'000);
    loop_->run();
  }
  static std::string received(const Fd& fd) {
    std::string text(1 << 20, '\0');
    const ssize_t size = ::recv(fd.get(), text.data(), text.size(), MSG_DONTWAIT);
    text.resize(size > 0 ? static_cast<size_t>(size) : 0);
    return text;
  }

  std::mutex guard_;
  std::unique_ptr<EventLoop> loop_;
  Fd newer_, older_, first_;
};

TEST_F(ConsoleHubTest, LogKeepsTheLastBytesInOrder) {
  std::string all;
  {
    const auto log = make_log(1000);
    for (int i = 0; i < 1000; ++i) {
      const std::string line = std::to_string(i) + "\n";
      log->write(bytes(line));
      log->flush();
      all += line;
    }
    EXPECT_EQ(log->last(700), all.substr(all.size() - 700));
  }
  const std::string kept = content(older_.get()) + content(newer_.get());
  EXPECT_GE(kept.size(), 990u);
  EXPECT_LE(kept.size(), 2000u);
  EXPECT_EQ(kept, all.substr(all.size() - kept.size()));
}

TEST_F(ConsoleHubTest, LogGoesOnWhereAnEarlierRunEnded) {
  make_log(1000)->write(bytes("first\n"));
  make_log(1000)->write(bytes("second\n"));
  EXPECT_EQ(content(newer_.get()), "first\nsecond\n");
}

TEST_F(ConsoleHubTest, AllSeeTheOutputAndLateOnesThePast) {
  ConsoleHub hub(*loop_, make_first(), make_log(1000));
  EXPECT_EQ(hub.write(bytes("one ")), 4u);
  auto late = hub.attach(100);
  ASSERT_TRUE(late);
  EXPECT_EQ(hub.attached(), 1u);
  EXPECT_EQ(hub.write(bytes("two")), 3u);
  turn();
  EXPECT_EQ(received(first_), "one two");
  EXPECT_EQ(received(*late), "one two");
}

TEST_F(ConsoleHubTest, InputComesFromAll) {
  ConsoleHub hub(*loop_, make_first(), nullptr);
  std::string got;
  hub.set_receiver([&](std::span<const uint8_t> some) {
    got.append(reinterpret_cast<const char*>(some.data()), some.size());
    return some.size();
  });
  auto other = hub.attach(0);
  ASSERT_TRUE(other);
  ASSERT_EQ(::write(other->get(), "b", 1), 1);
  turn();
  ASSERT_EQ(::write(first_.get(), "a", 1), 1);
  turn();
  EXPECT_EQ(got, "ba");
}

TEST_F(ConsoleHubTest, ReaderThatStandsStillHoldsNobodyBack) {
  ConsoleHub hub(*loop_, make_first(), nullptr);
  auto stuck = hub.attach(0);
  ASSERT_TRUE(stuck);
  const std::string much(100'000, 'x');
  size_t sent = 0;
  for (int i = 0; i < 20; ++i) {
    sent += hub.write(bytes(much));
    turn();
    received(first_);
  }
  EXPECT_EQ(sent, 20 * much.size());
  hub.drain(EventLoop::now_ns());
}

TEST_F(ConsoleHubTest, OneThatGoesIsForgotten) {
  ConsoleHub hub(*loop_, make_first(), nullptr);
  hub.set_receiver([](std::span<const uint8_t> some) { return some.size(); });
  auto other = hub.attach(0);
  ASSERT_TRUE(other);
  other->reset();
  turn();
  turn();
  EXPECT_EQ(hub.attached(), 0u);
}

}  // namespace
}  // namespace caisson::machine
