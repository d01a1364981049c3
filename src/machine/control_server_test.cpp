// Clients of the control socket.
#include "machine/control_server.h"

#include <mutex>
#include <thread>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace caisson::machine {
namespace {

class ControlServerTest : public testing::Test {
 protected:
  void SetUp() override {
    auto loop = EventLoop::create(&guard_);
    ASSERT_TRUE(loop);
    loop_ = std::move(*loop);
    Fd listener{::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)};
    // An abstract name that the kernel chooses.
    address_.sun_family = AF_UNIX;
    ASSERT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address_), sizeof(sa_family_t)), 0);
    size_ = sizeof address_;
    ASSERT_EQ(::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address_), &size_), 0);
    server_ = std::make_unique<ControlServer>(
        *loop_, [this](const control::Request& request, const std::vector<Fd>& fds, ControlServer::Reply reply) {
          ++asked_;
          if (std::holds_alternative<control::Attach>(request)) {
            reply(control::Attached{}, Fd{::open("/dev/null", O_RDWR)});
          } else if (std::holds_alternative<control::Type>(request)) {
            later_.push_back(std::move(reply));
          } else if (std::holds_alternative<control::Screenshot>(request)) {
            reply(fds.size() == 1 ? control::Event{control::Done{}} : control::Refused{"no file"}, {});
          } else {
            reply(control::Done{}, {});
          }
        });
    ASSERT_TRUE(server_->listen(std::move(listener)));
    thread_ = std::thread{[this] { loop_->run(); }};
  }
  void TearDown() override {
    loop_->stop();
    thread_.join();
  }
  control::Channel connect() {
    Fd socket{::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)};
    EXPECT_EQ(::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address_), size_), 0);
    return control::Channel{std::move(socket)};
  }
  static control::Event receive(control::Channel& channel, size_t descriptors = 0) {
    auto packet = channel.receive();
    EXPECT_TRUE(packet && *packet);
    EXPECT_EQ((*packet)->fds.size(), descriptors);
    return *control::parse_event((*packet)->text);
  }
  static control::Event ask(control::Channel& channel, const control::Request& request, size_t descriptors = 0) {
    EXPECT_TRUE(channel.send(control::serialise(request)));
    return receive(channel, descriptors);
  }

  std::mutex guard_;
  std::unique_ptr<EventLoop> loop_;
  sockaddr_un address_{};
  socklen_t size_ = 0;
  std::unique_ptr<ControlServer> server_;
  std::vector<ControlServer::Reply> later_;
  std::thread thread_;
  int asked_ = 0;
};

TEST_F(ControlServerTest, AnswersInTurn) {
  auto one = connect();
  auto two = connect();
  EXPECT_TRUE(std::holds_alternative<control::Done>(ask(one, control::Pause{})));
  EXPECT_TRUE(std::holds_alternative<control::Attached>(ask(two, control::Attach{}, 1)));
  EXPECT_TRUE(std::holds_alternative<control::Done>(ask(one, control::Stop{})));
  EXPECT_EQ(asked_, 3);
}

TEST_F(ControlServerTest, RefusesWhatIsNoRequestAndGoesOn) {
  auto client = connect();
  for (const char* text : {"{", "[]", "{\"type\":\"explode\"}", "{\"type\":\"attach\",\"replay\":99999999}"}) {
    ASSERT_TRUE(client.send(text));
    EXPECT_TRUE(std::holds_alternative<control::Refused>(receive(client))) << text;
  }
  EXPECT_EQ(asked_, 0);
  EXPECT_TRUE(std::holds_alternative<control::Done>(ask(client, control::Stop{})));
}

TEST_F(ControlServerTest, AnswersLaterWhileOthersAsk) {
  auto patient = connect();
  auto other = connect();
  ASSERT_TRUE(patient.send(control::serialise(control::Request{control::Type{"x"}})));
  EXPECT_TRUE(std::holds_alternative<control::Done>(ask(other, control::Pause{})));
  loop_->post([this] { later_.at(0)(control::Refused{"no keys"}, {}); });
  const auto answer = receive(patient);
  ASSERT_TRUE(std::holds_alternative<control::Refused>(answer));
  EXPECT_EQ(std::get<control::Refused>(answer).text, "no keys");
  EXPECT_TRUE(std::holds_alternative<control::Done>(ask(patient, control::Pause{})));
}

TEST_F(ControlServerTest, CutsOffOneThatAsksBeforeItWasAnswered) {
  auto client = connect();
  const std::string keys = control::serialise(control::Request{control::Type{"x"}});
  ASSERT_TRUE(client.send(keys));
  ASSERT_TRUE(client.send(keys));
  auto packet = client.receive();
  EXPECT_TRUE(!packet || !*packet);
  auto other = connect();
  EXPECT_TRUE(std::holds_alternative<control::Done>(ask(other, control::Pause{})));
  // Nobody is there for it any more.
  loop_->post([this] { later_.at(0)(control::Done{}, {}); });
  EXPECT_TRUE(std::holds_alternative<control::Done>(ask(other, control::Resume{})));
  EXPECT_EQ(asked_, 3);
}

TEST_F(ControlServerTest, PassesDescriptorsOn) {
  auto client = connect();
  const int file = ::open("/dev/null", O_RDWR);
  ASSERT_TRUE(client.send(control::serialise(control::Request{control::Screenshot{}}), {&file, 1}));
  ::close(file);
  EXPECT_TRUE(std::holds_alternative<control::Done>(receive(client)));
}

TEST_F(ControlServerTest, RepliesAfterItsEndGoNowhere) {
  auto client = connect();
  ASSERT_TRUE(client.send(control::serialise(control::Request{control::Type{"x"}})));
  EXPECT_TRUE(
      std::holds_alternative<control::Done>(ask(*std::make_unique<control::Channel>(connect()), control::Stop{})));
  loop_->post([this] {
    server_.reset();
    later_.at(0)(control::Done{}, {});
  });
  auto packet = client.receive();
  EXPECT_TRUE(!packet || !*packet);
}

TEST_F(ControlServerTest, TellsThoseWhoWatch) {
  auto watcher = connect();
  auto other = connect();
  EXPECT_TRUE(std::holds_alternative<control::Done>(ask(watcher, control::Watch{})));
  server_->tell(control::serialise(control::Event{control::Paused{}}));
  EXPECT_TRUE(std::holds_alternative<control::Paused>(receive(watcher)));
  EXPECT_TRUE(std::holds_alternative<control::Done>(ask(other, control::Resume{})));
}

TEST_F(ControlServerTest, CutsOffOneThatDoesNotRead) {
  auto watcher = connect();
  EXPECT_TRUE(std::holds_alternative<control::Done>(ask(watcher, control::Watch{})));
  const std::string event = control::serialise(control::Event{control::Notice{std::string(4000, 'x')}});
  for (int i = 0; i < 1000; ++i) server_->tell(event);
  // What was sent may still come; then the end.
  int got = 0;
  for (;; ++got) {
    auto packet = watcher.receive();
    if (!packet || !*packet) break;
  }
  EXPECT_LT(got, 1000);
  auto other = connect();
  EXPECT_TRUE(std::holds_alternative<control::Done>(ask(other, control::Resume{})));
}

}  // namespace
}  // namespace caisson::machine
