// A session against a VMM that is a thread of this test: bytes, events and ends.
#include "cli/session.h"

#include <array>
#include <csignal>
#include <thread>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

namespace caisson::cli {
namespace {

struct Vmm {
  control::Channel channel{Fd{}};
  Fd console;
  Fd log;

  void send(const control::Event& event) { ASSERT_TRUE(channel.send(control::serialise(event))); }
  control::Request receive() {
    auto packet = channel.receive();
    EXPECT_TRUE(packet && *packet);
    auto request = control::parse_request((*packet)->text, 0);
    EXPECT_TRUE(request);
    return *request;
  }
  void print(std::string_view text) {
    while (!text.empty()) {
      const ssize_t sent = ::send(console.get(), text.data(), text.size(), MSG_NOSIGNAL);
      ASSERT_GT(sent, 0);
      text.remove_prefix(static_cast<size_t>(sent));
    }
  }
};

struct Ends {
  life::VmmLink ours;
  Vmm theirs;
};

Ends make_ends() {
  auto channel = control::Channel::create_pair();
  std::array<int, 2> console{};
  std::array<int, 2> log{};
  EXPECT_TRUE(channel);
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, console.data()), 0);
  EXPECT_EQ(::pipe2(log.data(), O_CLOEXEC), 0);
  return {life::VmmLink{std::move(channel->first), Fd{console[0]}, Fd{log[0]}},
          Vmm{std::move(channel->second), Fd{console[1]}, Fd{log[1]}}};
}

struct PipeEnds {
  Fd read;
  Fd write;
};
PipeEnds make_pipe_ends() {
  std::array<int, 2> ends{};
  EXPECT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  return {Fd{ends[0]}, Fd{ends[1]}};
}

std::string read_all(int fd) {
  std::string text;
  std::array<char, 4096> buffer;
  for (ssize_t size; (size = ::read(fd, buffer.data(), buffer.size())) > 0;)
    text.append(buffer.data(), static_cast<size_t>(size));
  return text;
}

class SessionTest : public testing::Test {
 protected:
  void SetUp() override {
    ::signal(SIGPIPE, SIG_IGN);
    block_session_signals();
  }
  Session::Settings settings(unsigned stop_timeout_s = 30) {
    Session::Settings settings;
    settings.stop_timeout_s = stop_timeout_s;
    settings.kill = [this] { ++kills_; };
    return settings;
  }
  int kills_ = 0;
};

TEST_F(SessionTest, LosesNothingThoughTheReaderIsSlow) {
  auto ends = make_ends();
  auto out = make_pipe_ends();
  const Fd null{::open("/dev/null", O_RDONLY)};
  std::string sent;
  for (int i = 0; i < 200'000; ++i) sent += std::to_string(i) + "\n";
  std::thread vmm{[&, vmm = std::move(ends.theirs)]() mutable {
    vmm.print(sent);
    vmm.send(control::Exited{});
  }};
  std::string got;
  std::thread reader{[&] {
    ::usleep(50'000);
    got = read_all(out.read.get());
  }};
  SessionEnd end;
  {
    Session session{std::move(ends.ours), settings(), null.get(), out.write.get()};
    end = session.run();
  }
  out.write.reset();
  vmm.join();
  reader.join();
  ASSERT_TRUE(end.exited);
  EXPECT_EQ(end.exited->reason, control::ExitReason::PowerOff);
  EXPECT_TRUE(got == sent) << got.size() << " of " << sent.size() << " bytes";
  EXPECT_EQ(kills_, 0);
}

TEST_F(SessionTest, PassesInputAndSurvivesItsEnd) {
  auto ends = make_ends();
  auto in = make_pipe_ends();
  auto out = make_pipe_ends();
  std::thread vmm{[vmm = std::move(ends.theirs)]() mutable {
    std::string got;
    std::array<char, 64> buffer;
    while (got.size() < 6) {
      const ssize_t size = ::recv(vmm.console.get(), buffer.data(), buffer.size(), 0);
      ASSERT_GT(size, 0);
      got.append(buffer.data(), static_cast<size_t>(size));
    }
    vmm.print("got " + got);
    vmm.send(control::Exited{});
  }};
  // Ctrl-] is a byte like any other where the input is no terminal.
  ASSERT_EQ(::write(in.write.get(), "hell\x1dq", 6), 6);
  in.write.reset();
  EXPECT_TRUE((Session{std::move(ends.ours), settings(), in.read.get(), out.write.get()}.run().exited));
  out.write.reset();
  vmm.join();
  EXPECT_EQ(read_all(out.read.get()), "got hell\x1dq");
}

TEST_F(SessionTest, SignalPressesThePowerButtonThenStops) {
  auto ends = make_ends();
  auto out = make_pipe_ends();
  const Fd null{::open("/dev/null", O_RDONLY)};
  std::thread vmm{[vmm = std::move(ends.theirs)]() mutable {
    ::kill(::getpid(), SIGTERM);
    EXPECT_TRUE(std::holds_alternative<control::PowerButton>(vmm.receive()));
    // The time-out of 0 s is over at once.
    EXPECT_TRUE(std::holds_alternative<control::Stop>(vmm.receive()));
    vmm.send(control::Exited{control::ExitReason::Stopped, 0, ""});
  }};
  const auto end = Session{std::move(ends.ours), settings(0), null.get(), out.write.get()}.run();
  vmm.join();
  ASSERT_TRUE(end.exited);
  EXPECT_EQ(end.exited->reason, control::ExitReason::Stopped);
}

TEST_F(SessionTest, ReaderThatGoesStopsTheGuest) {
  auto ends = make_ends();
  auto out = make_pipe_ends();
  const Fd null{::open("/dev/null", O_RDONLY)};
  out.read.reset();
  std::thread vmm{[vmm = std::move(ends.theirs)]() mutable {
    vmm.print("anybody?");
    EXPECT_TRUE(std::holds_alternative<control::Stop>(vmm.receive()));
    vmm.send(control::Exited{control::ExitReason::Stopped, 0, ""});
  }};
  const auto end = Session{std::move(ends.ours), settings(), null.get(), out.write.get()}.run();
  vmm.join();
  EXPECT_TRUE(end.output_broken);
  EXPECT_TRUE(end.exited);
}

TEST_F(SessionTest, SilentEnd) {
  auto ends = make_ends();
  auto out = make_pipe_ends();
  const Fd null{::open("/dev/null", O_RDONLY)};
  std::thread vmm{[vmm = std::move(ends.theirs)]() mutable { vmm.print("last words"); }};
  const auto end = Session{std::move(ends.ours), settings(), null.get(), out.write.get()}.run();
  out.write.reset();
  vmm.join();
  EXPECT_FALSE(end.exited);
  EXPECT_EQ(read_all(out.read.get()), "last words");
}

TEST(Output, HoldsBackWhatDoesNotFit) {
  auto out = make_pipe_ends();
  Output output{out.write.get()};
  EXPECT_TRUE(output.at_line_start());
  output.put(std::string(Output::capacity, 'x'));
  output.flush();
  EXPECT_FALSE(output.empty()) << "a pipe takes less than the whole";
  EXPECT_FALSE(output.at_line_start());
  EXPECT_LT(output.room(), Output::capacity);
  // The flags of the shared descriptor are as they were.
  EXPECT_EQ(::fcntl(out.write.get(), F_GETFL) & O_NONBLOCK, 0);
}

}  // namespace
}  // namespace caisson::cli
