#include "backend/console_socket.h"

#include <csignal>
#include <numeric>
#include <thread>
#include <vector>

#include <sys/socket.h>

#include "backend/test_support.h"

namespace caisson {
namespace {

using Bytes = std::vector<uint8_t>;

Bytes count_up(size_t size) {
  Bytes bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<uint8_t>(i * 7 + i / 251);
  return bytes;
}

class ConsoleSocketTest : public test::LoopTest {
 protected:
  void SetUp() override { open({}); }
  void open(ConsoleSocketOptions options) {
    std::array<int, 2> fds{};
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds.data()), 0);
    host = Fd{fds[0]};
    const int small = 4096;
    ASSERT_EQ(::setsockopt(fds[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
    const std::lock_guard lock{guard};
    console.reset();
    auto made = ConsoleSocket::create(*loop, Fd{::dup(fds[1])}, Fd{fds[1]}, std::move(options));
    ASSERT_TRUE(made);
    console = std::move(*made);
  }
  void TearDown() override {
    const std::lock_guard lock{guard};
    console.reset();
  }
  size_t write(std::span<const uint8_t> bytes) {
    const std::lock_guard lock{guard};
    return console->write(bytes);
  }
  void say(const std::string& text) { ASSERT_EQ(::write(host.get(), text.data(), text.size()), ssize_t(text.size())); }
  // What the host can read without waiting.
  Bytes hear() {
    Bytes all(1 << 20);
    const ssize_t size = ::recv(host.get(), all.data(), all.size(), MSG_DONTWAIT);
    all.resize(size > 0 ? static_cast<size_t>(size) : 0);
    return all;
  }

  Fd host;
  std::unique_ptr<ConsoleSocket> console;
};

TEST_F(ConsoleSocketTest, OutputArrivesAtOnce) {
  const Bytes bytes{'h', 'i'};
  EXPECT_EQ(write(bytes), 2u);
  EXPECT_EQ(hear(), bytes);  // without a turn of the loop
}

TEST_F(ConsoleSocketTest, SingleBytesAllArriveInOrder) {
  Bytes all, got;
  for (int i = 0; i < 20'000; ++i) {
    all.push_back(static_cast<uint8_t>(i * 31));
    EXPECT_EQ(write({&all.back(), 1}), 1u);
  }
  EXPECT_TRUE(run_until([&] {
    const Bytes more = hear();
    got.insert(got.end(), more.begin(), more.end());
    return got.size() == all.size();
  }));
  EXPECT_EQ(got, all);
}

TEST_F(ConsoleSocketTest, BackpressureLosesNothing) {
  open({.output_buffer = 10'000, .input_buffer = 100, .log = {}});
  const Bytes all = count_up(300'000);
  size_t sent = 0;
  bool called_inside = false, inside = false;
  const auto push = [&] {
    inside = true;
    sent += console->write(std::span{all}.subspan(sent));
    inside = false;
  };
  {
    const std::lock_guard lock{guard};
    console->set_writable_handler([&] {
      called_inside |= inside;
      push();
    });
    push();
  }
  EXPECT_GE(sent, 10'000u);
  EXPECT_LT(sent, all.size()) << "an unbounded buffer";
  Bytes got;
  EXPECT_TRUE(run_until([&] {
    const Bytes more = hear();
    got.insert(got.end(), more.begin(), more.end());
    return got.size() == all.size();
  }));
  EXPECT_EQ(got, all);
  EXPECT_FALSE(called_inside);
}

TEST_F(ConsoleSocketTest, WritableHandlerOnlyAfterRefusal) {
  int calls = 0;
  {
    const std::lock_guard lock{guard};
    console->set_writable_handler([&] { ++calls; });
  }
  const Bytes bytes = count_up(100'000);
  EXPECT_EQ(write(bytes), bytes.size());
  size_t got = 0;
  EXPECT_TRUE(run_until([&] { return (got += hear().size()) == bytes.size(); }));
  run_ready();
  EXPECT_EQ(calls, 0);
}

TEST_F(ConsoleSocketTest, DrainWritesEverything) {
  const Bytes bytes = count_up(200'000);
  EXPECT_EQ(write(bytes), bytes.size());
  Bytes got;
  std::thread reader{[&] {
    while (got.size() < bytes.size()) {
      Bytes part(4096);
      const ssize_t size = ::read(host.get(), part.data(), part.size());
      if (size <= 0) break;
      got.insert(got.end(), part.begin(), part.begin() + size);
    }
  }};
  {
    const std::lock_guard lock{guard};
    EXPECT_TRUE(console->drain(EventLoop::now_ns() + 20'000'000'000));
  }
  reader.join();
  EXPECT_EQ(got, bytes);
}

TEST_F(ConsoleSocketTest, DrainGivesUpAtTheDeadline) {
  const Bytes bytes = count_up(200'000);
  EXPECT_EQ(write(bytes), bytes.size());
  const std::lock_guard lock{guard};
  EXPECT_FALSE(console->drain(EventLoop::now_ns() + 1'000'000));
  EXPECT_FALSE(console->drain(0));
}

TEST_F(ConsoleSocketTest, ClosedHostTakesEverything) {
  host.reset();
  const Bytes bytes = count_up(1 << 20);
  EXPECT_EQ(write(bytes), bytes.size());
  EXPECT_EQ(write(bytes), bytes.size());
  const std::lock_guard lock{guard};
  EXPECT_TRUE(console->drain(0));
}

TEST_F(ConsoleSocketTest, HostThatClosesWhileTheDeviceWaitsFreesIt) {
  open({.output_buffer = 1000, .input_buffer = 100, .log = {}});
  bool freed = false;
  const Bytes bytes = count_up(100'000);
  {
    const std::lock_guard lock{guard};
    console->set_writable_handler([&] { freed = true; });
    EXPECT_LT(console->write(bytes), bytes.size());
  }
  host.reset();
  EXPECT_TRUE(run_until([&] { return freed; }));
  EXPECT_EQ(write(bytes), bytes.size());
}

TEST_F(ConsoleSocketTest, InputReachesTheReceiver) {
  std::string got;
  {
    const std::lock_guard lock{guard};
    console->set_receiver([&](std::span<const uint8_t> bytes) {
      got.append(bytes.begin(), bytes.end());
      return bytes.size();
    });
  }
  say("hello");
  EXPECT_TRUE(run_until([&] { return got == "hello"; }));
  say(" again");
  EXPECT_TRUE(run_until([&] { return got == "hello again"; }));
}

TEST_F(ConsoleSocketTest, InputBeforeTheReceiverIsKept) {
  say("early");
  run_ready();
  std::string got;
  const std::function<size_t(std::span<const uint8_t>)> take = [&](std::span<const uint8_t> bytes) {
    got.append(bytes.begin(), bytes.end());
    return bytes.size();
  };
  {
    const std::lock_guard lock{guard};
    console->set_receiver(take);
    EXPECT_EQ(got, "") << "called from inside";
  }
  EXPECT_TRUE(run_until([&] { return got == "early"; }));
}

TEST_F(ConsoleSocketTest, GuestThatDoesNotReadHoldsTheHostBack) {
  open({.output_buffer = 1000, .input_buffer = 64, .log = {}});
  std::string got;
  size_t willing = 3;
  {
    const std::lock_guard lock{guard};
    console->set_receiver([&](std::span<const uint8_t> bytes) {
      const size_t size = std::min(willing, bytes.size());
      willing -= size;
      got.append(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(size));
      return size;
    });
  }
  std::string all;
  for (int i = 0; i < 500; ++i) all += std::to_string(i);
  say(all);
  EXPECT_TRUE(run_until([&] { return got.size() == 3; }));
  run_ready();
  EXPECT_EQ(got, all.substr(0, 3));
  while (got.size() < all.size()) {
    const size_t before = got.size();
    {
      const std::lock_guard lock{guard};
      willing = 50;
      console->receive_ready();
      ASSERT_EQ(got.size(), before) << "called from inside";
    }
    ASSERT_TRUE(run_until([&] { return got.size() > before && (willing == 0 || got.size() == all.size()); }));
  }
  EXPECT_EQ(got, all);
}

TEST_F(ConsoleSocketTest, EmptyReceiverEndsReception) {
  int calls = 0;
  {
    const std::lock_guard lock{guard};
    console->set_receiver([&](std::span<const uint8_t> bytes) { return ++calls, bytes.size(); });
    console->set_receiver(nullptr);
  }
  say("x");
  run_ready();
  EXPECT_EQ(calls, 0);
}

TEST_F(ConsoleSocketTest, EndOfInputIsToldOnce) {
  int ends = 0;
  {
    const std::lock_guard lock{guard};
    console->set_input_end_handler([&] { ++ends; });
    console->set_receiver([](std::span<const uint8_t> bytes) { return bytes.size(); });
  }
  host.reset();
  EXPECT_TRUE(run_until([&] { return ends == 1; }));
  run_ready();
  EXPECT_EQ(ends, 1);
}

TEST_F(ConsoleSocketTest, InputFromDevNull) {
  const std::lock_guard lock{guard};
  console.reset();
  auto made = ConsoleSocket::create(*loop, Fd{::open("/dev/null", O_RDONLY | O_CLOEXEC)}, Fd{});
  ASSERT_TRUE(made);
  console = std::move(*made);
  bool ended = false;
  console->set_input_end_handler([&] { ended = true; });
  console->set_receiver([](std::span<const uint8_t> bytes) { return bytes.size(); });
  EXPECT_EQ(console->write(Bytes(100)), 100u);
  guard.unlock();
  EXPECT_TRUE(run_until([&] { return ended; }));
  guard.lock();
}

TEST_F(ConsoleSocketTest, LogGetsACopyAlsoWhenNobodyListens) {
  test::TemporaryFolder folder;
  const auto path = folder.file("log");
  open({.output_buffer = 1000,
        .input_buffer = 100,
        .log = Fd{::open(path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600)}});
  EXPECT_EQ(write(Bytes{'a', 'b'}), 2u);
  host.reset();
  EXPECT_EQ(write(Bytes{'c'}), 1u);
  EXPECT_EQ(write(Bytes{'d'}), 1u);
  EXPECT_EQ(test::content_of(path), "abcd");
}

TEST_F(ConsoleSocketTest, LogThatCannotBeWrittenIsGivenUp) {
  open({.output_buffer = 1000, .input_buffer = 100, .log = Fd{::open("/dev/full", O_WRONLY | O_CLOEXEC)}});
  EXPECT_EQ(write(Bytes{'a'}), 1u);
  EXPECT_EQ(write(Bytes{'b'}), 1u);
  {
    const std::lock_guard lock{guard};
    EXPECT_TRUE(console->drain(EventLoop::now_ns() + 20'000'000'000));
  }
  EXPECT_EQ(hear(), (Bytes{'a', 'b'}));
}

}  // namespace
}  // namespace caisson
