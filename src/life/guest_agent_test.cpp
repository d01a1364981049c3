// The daemon's side of a conversation with an agent, which may say what it likes.
#include "life/guest_agent.h"

#include <functional>
#include <thread>

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/frames.h"
#include "agent/tree.h"

namespace caisson::life {
namespace {

using agent::Type;

class GuestAgentTest : public testing::Test {
 protected:
  void SetUp() override {
    int ends[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    ours_ = Fd{ends[0]};
    theirs_ = Fd{ends[1]};
    file_ = Fd{::memfd_create("file", MFD_CLOEXEC)};
  }
  // In the guest's place; its end is closed afterwards.
  std::jthread guest(std::function<void(agent::Stream&)> does) {
    return std::jthread{[this, does = std::move(does)] {
      agent::Stream stream{theirs_.get()};
      does(stream);
      theirs_.reset();
    }};
  }
  static void say(agent::Stream& stream, Type type, std::string_view payload = {}) { (void)stream.send(type, payload); }
  static std::string entry(uint64_t size, agent::EntryKind kind = agent::EntryKind::File) {
    agent::TreeEntry made;
    made.kind = kind;
    made.name = "file";
    made.size = size;
    if (kind == agent::EntryKind::Link) made.target = "/etc/shadow";
    return agent::pack(made);
  }
  std::string got_error(std::function<void(agent::Stream&)> does) {
    const auto thread = guest([does = std::move(does)](agent::Stream& stream) {
      (void)stream.receive();  // Get
      does(stream);
    });
    const auto size = get_by_agent(ours_, "/file", file_, {});
    return size ? "" : size.error().message;
  }

  Fd ours_, theirs_, file_;
};

TEST_F(GuestAgentTest, ACommandHasItsInputAndGivesItsOutput) {
  std::string input;
  const auto thread = guest([&](agent::Stream& stream) {
    for (bool more = true; more;) {
      const auto frame = stream.receive();
      if (!frame || !*frame) return;
      if ((*frame)->type == Type::Input) input += (*frame)->payload;
      more = (*frame)->type != Type::InputEnd;
    }
    say(stream, Type::Output, "out");
    say(stream, Type::Errors, "err");
    say(stream, Type::Exit, agent::pack(uint64_t{7}));
  });
  const std::string given(50'000, 'x');
  const auto output = run_by_agent(ours_, {{"cat"}, "", given, 30}, {});
  ASSERT_TRUE(output) << output.error().message;
  EXPECT_EQ(output->status, 7u);
  EXPECT_EQ(output->out, "out");
  EXPECT_EQ(output->errors, "err");
  EXPECT_FALSE(output->truncated);
  EXPECT_TRUE(input == given);
}

TEST_F(GuestAgentTest, MoreOutputThanIsTakenIsDropped) {
  const auto thread = guest([](agent::Stream& stream) {
    const std::string piece(60'000, 'y');
    for (int i = 0; i < 40; ++i) say(stream, Type::Output, piece);
    say(stream, Type::Exit, agent::pack(uint64_t{0}));
  });
  const auto output = run_by_agent(ours_, {{"yes"}, "", "", 30}, {});
  ASSERT_TRUE(output) << output.error().message;
  EXPECT_EQ(output->out.size(), GuestOutput::max_text);
  EXPECT_TRUE(output->truncated);
}

TEST_F(GuestAgentTest, ACommandThatGoesOnIsHungUp) {
  const auto thread = guest([](agent::Stream& stream) {
    while (const auto frame = stream.receive()) {
      if (!*frame) break;
    }
  });
  const auto output = run_by_agent(ours_, {{"sleep", "1000"}, "", "", 1}, {});
  ASSERT_FALSE(output);
  EXPECT_NE(output.error().message.find("sleep has not ended within 1 s"), std::string::npos);
  ours_.reset();
}

TEST_F(GuestAgentTest, WhatIsNoAnswerEndsTheConversation) {
  const auto thread = guest([](agent::Stream& stream) { say(stream, Type::Total, agent::pack(uint64_t{1})); });
  EXPECT_FALSE(run_by_agent(ours_, {{"true"}, "", "", 30}, {}));
  EXPECT_FALSE(run_by_agent(ours_, {{}, "", "", 30}, {})) << "no words";
}

TEST_F(GuestAgentTest, AFileComesOut) {
  const auto thread = guest([](agent::Stream& stream) {
    (void)stream.receive();  // Get
    say(stream, Type::Total, agent::pack(uint64_t{5}));
    say(stream, Type::Entry, entry(5));
    say(stream, Type::Data, "hel");
    say(stream, Type::Data, "lo");
    say(stream, Type::TreeEnd);
    say(stream, Type::Exit, agent::pack(uint64_t{0}));
  });
  const auto size = get_by_agent(ours_, "/file", file_, {});
  ASSERT_TRUE(size) << size.error().message;
  EXPECT_EQ(*size, 5u);
  char text[6] = {};
  EXPECT_EQ(::pread(file_.get(), text, 5, 0), 5);
  EXPECT_STREQ(text, "hello");
}

TEST_F(GuestAgentTest, MoreThanAFileSaysIsRefused) {
  EXPECT_NE(got_error([](agent::Stream& stream) {
              say(stream, Type::Entry, entry(5));
              say(stream, Type::Data, "hello!");
            }),
            "");
}
TEST_F(GuestAgentTest, AFileThatIsTooLargeIsRefused) {
  EXPECT_NE(
      got_error([](agent::Stream& stream) { say(stream, Type::Entry, entry(max_guest_file + 1)); }).find("at most"),
      std::string::npos);
}
TEST_F(GuestAgentTest, OnlyRegularFilesAreTaken) {
  EXPECT_NE(got_error([](agent::Stream& stream) {
              say(stream, Type::Entry, entry(0, agent::EntryKind::Link));
            }).find("no regular file"),
            std::string::npos);
}
TEST_F(GuestAgentTest, HalfAFileIsNone) {
  EXPECT_NE(got_error([](agent::Stream& stream) {
              say(stream, Type::Entry, entry(5));
              say(stream, Type::Data, "hel");
            }),
            "");
}
TEST_F(GuestAgentTest, AFileTwiceIsRefused) {
  EXPECT_NE(got_error([](agent::Stream& stream) {
              say(stream, Type::Entry, entry(0));
              say(stream, Type::Entry, entry(0));
            }),
            "");
}

TEST_F(GuestAgentTest, AFileGoesIn) {
  ASSERT_EQ(::pwrite(file_.get(), "hello", 5, 0), 5);
  agent::TreeEntry named;
  std::string content;
  const auto thread = guest([&](agent::Stream& stream) {
    for (;;) {
      const auto frame = stream.receive();
      if (!frame || !*frame || (*frame)->type == Type::TreeEnd) break;
      if ((*frame)->type == Type::Entry) named = agent::unpack_entry((*frame)->payload).value_or(named);
      if ((*frame)->type == Type::Data) content += (*frame)->payload;
    }
    say(stream, Type::Exit, agent::pack(uint64_t{0}));
  });
  const auto done = put_by_agent(ours_, "/srv/file", 0600, file_, 5, {});
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_EQ(named.name, "file");
  EXPECT_EQ(named.mode, 0600u);
  EXPECT_EQ(content, "hello");
}

TEST_F(GuestAgentTest, WhyAFileDoesNotGoInIsTheGuestsToSay) {
  const auto thread = guest([](agent::Stream& stream) { say(stream, Type::Failed, "no \x1b[31mroom"); });
  const auto done = put_by_agent(ours_, "/srv/file", 0600, file_, 0, {});
  ASSERT_FALSE(done);
  EXPECT_NE(done.error().message.find("room"), std::string::npos);
  EXPECT_EQ(done.error().message.find('\x1b'), std::string::npos);
  for (const char* bad : {"/", "..", "/srv/"}) EXPECT_FALSE(put_by_agent(ours_, bad, 0600, file_, 0, {})) << bad;
}

}  // namespace
}  // namespace caisson::life
