#include "control/channel.h"

#include <array>
#include <thread>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "control/messages.h"

namespace caisson::control {
namespace {

std::pair<Channel, Channel> make_pair() {
  auto pair = Channel::create_pair();
  EXPECT_TRUE(pair);
  return std::move(*pair);
}

int open_descriptors() {
  int count = 0;
  for (int fd = 0; fd < 1024; ++fd) count += ::fcntl(fd, F_GETFD) >= 0;
  return count;
}

TEST(Channel, KeepsMessagesApart) {
  auto [a, b] = make_pair();
  ASSERT_TRUE(a.send("one"));
  ASSERT_TRUE(a.send("two"));
  EXPECT_EQ((*b.receive())->text, "one");
  EXPECT_EQ((*b.receive())->text, "two");
}

TEST(Channel, PassesDescriptors) {
  auto [a, b] = make_pair();
  const Fd null{::open("/dev/null", O_RDWR)};
  const Fd zero{::open("/dev/zero", O_RDWR)};
  ASSERT_TRUE(a.send("files", std::array{null.get(), zero.get()}));
  auto packet = b.receive();
  ASSERT_TRUE(packet && *packet);
  ASSERT_EQ((*packet)->fds.size(), 2u);
  struct stat sent {};
  struct stat got {};
  ASSERT_EQ(::fstat(zero.get(), &sent), 0);
  ASSERT_EQ(::fstat((*packet)->fds[1].get(), &got), 0);
  EXPECT_EQ(sent.st_rdev, got.st_rdev);
  EXPECT_TRUE(::fcntl((*packet)->fds[1].get(), F_GETFD) & FD_CLOEXEC);
}

TEST(Channel, SaysWhenThePeerIsGone) {
  auto [a, b] = make_pair();
  ASSERT_TRUE(a.send("last"));
  a = Channel{Fd{}};
  EXPECT_EQ((*b.receive())->text, "last");
  auto end = b.receive();
  ASSERT_TRUE(end);
  EXPECT_FALSE(*end);
  EXPECT_FALSE(b.send("anybody?"));
}

TEST(Channel, PeerThatDiesWithUnreadDataIsGoneToo) {
  auto [a, b] = make_pair();
  ASSERT_TRUE(b.send("unread"));
  a = Channel{Fd{}};
  auto end = b.receive();
  ASSERT_TRUE(end) << end.error().message;
  EXPECT_FALSE(*end);
}

TEST(Channel, RefusesWhatIsTooLarge) {
  auto [a, b] = make_pair();
  EXPECT_FALSE(a.send(std::string(Channel::max_text + 1, 'x')));
  EXPECT_FALSE(a.send(""));
  EXPECT_TRUE(a.send(std::string(Channel::max_text, 'x')));
  EXPECT_EQ((*b.receive())->text.size(), Channel::max_text);
  // A peer that does not use this class may send more.
  const std::string more(Channel::max_text + 1, 'y');
  ASSERT_GT(::send(a.fd(), more.data(), more.size(), 0), 0);
  EXPECT_FALSE(b.receive());
}

TEST(Channel, ClosesDescriptorsOfABadMessage) {
  auto [a, b] = make_pair();
  const int before = open_descriptors();
  const std::string more(Channel::max_text + 1, 'y');
  iovec data{const_cast<char*>(more.data()), more.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> ancillary{};
  msghdr header{};
  header.msg_iov = &data;
  header.msg_iovlen = 1;
  header.msg_control = ancillary.data();
  header.msg_controllen = ancillary.size();
  cmsghdr* rights = CMSG_FIRSTHDR(&header);
  rights->cmsg_level = SOL_SOCKET;
  rights->cmsg_type = SCM_RIGHTS;
  rights->cmsg_len = CMSG_LEN(sizeof(int));
  const int number = a.fd();
  std::copy_n(reinterpret_cast<const char*>(&number), sizeof number, reinterpret_cast<char*>(CMSG_DATA(rights)));
  ASSERT_GT(::sendmsg(a.fd(), &header, 0), 0);
  EXPECT_FALSE(b.receive());
  EXPECT_EQ(open_descriptors(), before);
}

TEST(Channel, SendersMayBeManyThreads) {
  auto [a, b] = make_pair();
  constexpr int each = 500;
  Channel& sender = a;
  std::thread one{[&] {
    for (int i = 0; i < each; ++i) EXPECT_TRUE(sender.send("from one"));
  }};
  std::thread two{[&] {
    for (int i = 0; i < each; ++i) EXPECT_TRUE(sender.send("from two"));
  }};
  int ones = 0;
  int twos = 0;
  for (int i = 0; i < 2 * each; ++i) {
    const auto packet = b.receive();
    ASSERT_TRUE(packet && *packet);
    ones += (*packet)->text == "from one";
    twos += (*packet)->text == "from two";
  }
  one.join();
  two.join();
  EXPECT_EQ(ones, each);
  EXPECT_EQ(twos, each);
}

template <class Variant, class Parse>
void round_trip(const Variant& message, Parse parse) {
  const auto text = serialise(message);
  const auto again = parse(text);
  ASSERT_TRUE(again) << text << ": " << again.error().message;
  EXPECT_EQ(*again, message) << text;
}

TEST(Messages, ComeBackFromTheirOwnText) {
  VmConfig config;
  config.kernel_fd = 1;
  const auto request = [](const std::string& text) {
    return parse_request(text, text.find("config") != text.npos ? 2 : 0);
  };
  round_trip(Request{Start{config}}, request);
  round_trip(Request{PowerButton{}}, request);
  round_trip(Request{Reset{}}, request);
  round_trip(Request{Stop{}}, request);
  round_trip(Request{Resize{120, 50}}, request);
  round_trip(Request{DetachDisk{"/srv/data.raw"}}, request);
  round_trip(Request{AttachNet{NetCard::E1000, {{Protocol::Udp, "127.0.0.1", 53, 53}}}}, request);
  round_trip(Request{DetachNet{}}, request);
  round_trip(Request{GrowDisk{"data.qcow2", 1 << 20, true}}, request);
  round_trip(Request{AttachDisk{
                 {.image_fd = 1, .serial = {}, .format = DiskImage::Qcow2, .backing = {{0, DiskImage::Raw, "base"}}}}},
             [](const std::string& text) { return parse_request(text, 2); });
  const auto event = [](const std::string& text) { return parse_event(text); };
  round_trip(Event{DeviceAttached{"disk data.raw"}}, event);
  round_trip(Event{DeviceDetached{"network card"}}, event);
  round_trip(Event{DiskGrown{"disk data.raw", 1 << 20}}, event);
  round_trip(Event{Started{"jit", "x86-64-v3", 2, 1 << 30, "/dev/kvm is not there"}}, event);
  round_trip(Event{Notice{"engine jit: no /dev/kvm"}}, event);
  round_trip(Event{Panicked{"Fatal exception"}}, event);
  round_trip(Event{WasReset{3}}, event);
  round_trip(Event{Exited{ExitReason::DebugExit, 7, ""}}, event);
  round_trip(Event{Exited{ExitReason::Failure, 0, "kernel x: not a kernel"}}, event);
}

TEST(Messages, ADiskComesWithItsDescriptorsAndNoOthers) {
  const std::string text = serialise(Request{AttachDisk{{.image_fd = 0, .serial = {}, .label = "x"}}});
  EXPECT_TRUE(parse_request(text, 1));
  EXPECT_FALSE(parse_request(text, 0));
  EXPECT_FALSE(parse_request(text, 2)) << "one that nobody takes";
  EXPECT_FALSE(parse_request(serialise(Request{AttachDisk{{.image_fd = 1, .serial = {}, .label = "x"}}}), 1));
  EXPECT_FALSE(parse_request(serialise(Request{AttachDisk{{.image_fd = 0,
                                                           .serial = {},
                                                           .label = "x",
                                                           .format = DiskImage::Qcow2,
                                                           .backing = {{0, DiskImage::Raw, "b"}}}}}),
                             1))
      << "the same one twice";
  EXPECT_FALSE(parse_request(R"({"type":"grow_disk","label":"x","bytes":0})", 0));
  EXPECT_FALSE(parse_request(R"({"type":"detach_disk","label":""})", 0));
}

TEST(Messages, FreeTextIsMadeFitForALine) {
  const auto event = parse_event(R"({"type":"notice","text":"a\nb\u001b[2Jc"})");
  ASSERT_TRUE(event);
  EXPECT_EQ(std::get<Notice>(*event).text, "a b [2Jc");
  const auto sent = parse_event(serialise(Event{Exited{ExitReason::Failure, 0, "x\ny\xff"}}));
  ASSERT_TRUE(sent);
  EXPECT_EQ(std::get<Exited>(*sent).message.substr(0, 3), "x y");
}

TEST(Messages, RefusesWhatIsNoMessage) {
  for (const char* text : {"", "null", "{}", R"({"type":1})", R"({"type":"start"})", R"({"type":"dance"})",
                           R"({"type":"stop","now":true})", R"({"type":"resize","columns":0,"rows":1})"}) {
    EXPECT_FALSE(parse_request(text, 0)) << text;
  }
  EXPECT_FALSE(parse_request(R"({"type":"stop"})", 1)) << "descriptors with a message that takes none";
  EXPECT_FALSE(parse_event(R"({"type":"exited","reason":"boredom"})"));
  EXPECT_FALSE(parse_event(R"({"type":"exited","reason":"debug_exit","code":256})"));
}

}  // namespace
}  // namespace caisson::control
