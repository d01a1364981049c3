// Frames and trees, with friendly and hostile other sides.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/frames.h"
#include "agent/tree.h"

namespace caisson::agent {
namespace {

namespace fs = std::filesystem;

TEST(AgentFrames, ArriveWholeHoweverTheyAreCut) {
  std::string bytes;
  for (unsigned i = 0; i < 50; ++i)
    bytes += encode(Type::Output, std::string(i * 1000, static_cast<char>('a' + i % 26)));
  for (const size_t piece : {1u, 7u, 8u, 9u, 4096u, 1u << 20}) {
    FrameReader reader;
    unsigned got = 0;
    for (size_t at = 0; at < bytes.size(); at += piece) {
      reader.feed(std::string_view{bytes}.substr(at, piece));
      for (;;) {
        const auto frame = reader.next();
        ASSERT_TRUE(frame);
        if (!*frame) break;
        EXPECT_EQ((*frame)->type, Type::Output);
        EXPECT_EQ((*frame)->payload, std::string(got * 1000, static_cast<char>('a' + got % 26)));
        ++got;
      }
    }
    EXPECT_EQ(got, 50u);
  }
}

TEST(AgentFrames, TooLongAndMalformedOnesAreErrors) {
  for (std::string bytes : {encode(Type::Output, std::string(max_payload + 1, 'x')),
                            std::string("\xff\xff\xff\xff\1\0\0\0", 8), std::string("\0\0\0\0\1\0\1\0", 8)}) {
    FrameReader reader;
    reader.feed(bytes);
    EXPECT_FALSE(reader.next());
  }
}

TEST(AgentFrames, PayloadsComeBackAsTheyWere) {
  const Execution execution{true, {132, 43}, "/srv", {"TERM=xterm", "A="}, {"sh", "-c", "echo 'a  b'", ""}};
  EXPECT_EQ(unpack_execution(pack(execution)).value(), execution);
  const Place place{"/a b", true};
  EXPECT_EQ(unpack_place(pack(place)).value(), place);
  const TreeEntry entry{EntryKind::Link, "l", 0777, 0, 123456789, "../x"};
  EXPECT_EQ(unpack_entry(pack(entry)).value(), entry);
  EXPECT_EQ(unpack_number(pack(~uint64_t{0})).value(), ~uint64_t{0});
  const std::string whole = pack(execution);
  for (size_t size = 0; size < whole.size(); ++size) EXPECT_FALSE(unpack_execution(whole.substr(0, size))) << size;
  EXPECT_FALSE(unpack_execution(whole + "x"));
  EXPECT_FALSE(unpack_execution(pack(Execution{false, {}, "", {}, {}})));
  EXPECT_FALSE(unpack_place(pack(Place{std::string("a\0b", 3), false})));
}

class Trees : public testing::Test {
 protected:
  Trees() {
    char name[] = "/tmp/caisson-tree-XXXXXX";
    folder = ::mkdtemp(name);
    fs::create_directory(folder / "to");
  }
  ~Trees() override { fs::remove_all(folder); }

  void write(const fs::path& path, std::string_view text) const { std::ofstream{folder / path} << text; }
  [[nodiscard]] std::string read(const fs::path& path) const {
    std::ostringstream text;
    text << std::ifstream{folder / path}.rdbuf();
    return text.str();
  }
  // The frames of a tree.
  Result<std::vector<Frame>> frames(const fs::path& path, bool folders = true) {
    std::vector<Frame> all;
    Sending sending;
    sending.send = [&](Type type, std::string_view payload) -> Result<> {
      all.push_back({type, std::string{payload}});
      return {};
    };
    sending.left_out = [&](std::string_view what) { left_out.emplace_back(what); };
    if (auto done = send_tree((folder / path).string(), folders, sending); !done) return std::unexpected(done.error());
    return all;
  }
  Result<bool> receive(const std::vector<Frame>& all, const std::string& to) {
    auto receiver = TreeReceiver::create((folder / "to").string() + to);
    if (!receiver) return std::unexpected(receiver.error());
    bool end = false;
    for (const Frame& frame : all) {
      if (end) return fail("more after the end");
      auto taken = receiver->take(frame);
      if (!taken) return taken;
      end = *taken;
    }
    return end;
  }
  static Frame entry(EntryKind kind, std::string name, uint64_t size = 0, std::string target = "") {
    return {Type::Entry, pack(TreeEntry{kind, std::move(name), 0644, size, 0, std::move(target)})};
  }
  // Nothing but what was there lies outside of `to`.
  [[nodiscard]] size_t count() const {
    return static_cast<size_t>(std::distance(fs::recursive_directory_iterator{folder}, {}));
  }

  fs::path folder;
  std::vector<std::string> left_out;
};

TEST_F(Trees, ComeAsTheyWere) {
  fs::create_directories(folder / "from/empty");
  fs::create_directories(folder / "from/deep/er");
  write("from/file", "text");
  write("from/deep/er/large", std::string(200'000, 'z'));
  write("from/nothing", "");
  fs::create_symlink("../file", folder / "from/deep/link");
  fs::permissions(folder / "from/file", fs::perms{0751});
  fs::permissions(folder / "from/deep/er", fs::perms{0500});
  ASSERT_EQ(::mkfifo((folder / "from/pipe").c_str(), 0600), 0);
  const timespec times[2] = {{1000, 0}, {1'000'000'000, 5}};
  ASSERT_EQ(::utimensat(AT_FDCWD, (folder / "from/file").c_str(), times, 0), 0);
  const auto all = frames("from");
  ASSERT_TRUE(all) << all.error().message;
  EXPECT_EQ(left_out, std::vector<std::string>{(folder / "from/pipe").string()});
  EXPECT_EQ(unpack_number(all->front().payload).value(), 200'004u);
  const auto done = receive(*all, "");
  ASSERT_TRUE(done && *done);
  EXPECT_EQ(read("to/from/file"), "text");
  EXPECT_EQ(read("to/from/deep/er/large"), std::string(200'000, 'z'));
  EXPECT_EQ(fs::file_size(folder / "to/from/nothing"), 0u);
  EXPECT_TRUE(fs::is_directory(folder / "to/from/empty"));
  EXPECT_EQ(fs::read_symlink(folder / "to/from/deep/link"), "../file");
  EXPECT_EQ(fs::status(folder / "to/from/file").permissions(), fs::perms{0751});
  EXPECT_EQ(fs::status(folder / "to/from/deep/er").permissions(), fs::perms{0500});
  struct stat status {};
  ASSERT_EQ(::stat((folder / "to/from/file").c_str(), &status), 0);
  EXPECT_EQ(status.st_mtim.tv_sec, 1'000'000'000);
  EXPECT_EQ(status.st_mtim.tv_nsec, 5);
  // Again over what is there, except that the closed folder does not take its files.
  fs::permissions(folder / "to/from/deep/er", fs::perms{0700});
  EXPECT_TRUE(receive(*all, ""));
  fs::permissions(folder / "from/deep/er", fs::perms{0700});
  fs::permissions(folder / "to/from/deep/er", fs::perms{0700});
}

TEST_F(Trees, GetTheNameThatIsAskedFor) {
  write("file", "text");
  fs::create_directory(folder / "some");
  write("some/x", "y");
  EXPECT_TRUE(receive(*frames("file"), "/other"));
  EXPECT_EQ(read("to/other"), "text");
  EXPECT_TRUE(receive(*frames("some"), "/named"));
  EXPECT_EQ(read("to/named/x"), "y");
  EXPECT_TRUE(receive(*frames("some"), "/named"));  // now a folder: into it
  EXPECT_EQ(read("to/named/some/x"), "y");
  EXPECT_FALSE(receive(*frames("file"), "/missing/"));
  EXPECT_FALSE(receive(*frames("file"), "/missing/file"));
  EXPECT_FALSE(frames("some", false));
  EXPECT_FALSE(frames("nowhere"));
  fs::create_symlink("file", folder / "link");
  EXPECT_TRUE(receive(*frames("link"), "/followed"));
  EXPECT_EQ(read("to/followed"), "text");
}

TEST_F(Trees, AFileThatDoesNotComeWholeIsNotThere) {
  write("to/file", "old");
  {
    auto receiver = TreeReceiver::create((folder / "to/file").string());
    ASSERT_TRUE(receiver);
    ASSERT_TRUE(receiver->take(entry(EntryKind::File, "file", 100)));
    ASSERT_TRUE(receiver->take({Type::Data, "new"}));
    EXPECT_EQ(read("to/file"), "old");
  }
  EXPECT_EQ(read("to/file"), "old");
  EXPECT_EQ(count(), 2u);
}

TEST_F(Trees, NothingIsWrittenOutsideOfTheFolder) {
  fs::create_directory(folder / "outside");
  const Frame data{Type::Data, "x"};
  const std::vector<std::vector<Frame>> attempts{
      {entry(EntryKind::File, "..", 1)},
      {entry(EntryKind::File, "../x", 1)},
      {entry(EntryKind::File, "/tmp/x", 1)},
      {entry(EntryKind::File, "", 1)},
      {entry(EntryKind::File, std::string(256, 'n'), 1)},
      {entry(EntryKind::Folder, "a"), entry(EntryKind::Link, "out", 0, (folder / "outside").string()),
       entry(EntryKind::Folder, "out")},
      {entry(EntryKind::Folder, "a"), {Type::Leave, ""}, {Type::Leave, ""}},
      {entry(EntryKind::Folder, "a"), {Type::Leave, ""}, entry(EntryKind::File, "second", 1)},
      {{Type::Leave, ""}},
      {{Type::TreeEnd, ""}},
      {data},
      {entry(EntryKind::File, "f", 1), entry(EntryKind::File, "g", 1)},
      {entry(EntryKind::File, "f", 1), {Type::Data, "xy"}},
      {entry(EntryKind::File, "f", 1), {Type::Data, ""}},
      {entry(EntryKind::File, "f", 1), {Type::TreeEnd, ""}},
      {entry(EntryKind::File, "f", 1), {Type::Output, "x"}},
      {entry(EntryKind::Folder, "a"), {Type::TreeEnd, ""}},
  };
  for (const auto& attempt : attempts) EXPECT_FALSE(receive(attempt, "")) << &attempt - attempts.data();
  EXPECT_TRUE(fs::is_empty(folder / "outside"));
}

TEST_F(Trees, ALinkInTheWayIsReplacedAndNotWrittenThrough) {
  write("outside", "mine");
  fs::create_directory(folder / "to/a");
  fs::create_symlink(folder / "outside", folder / "to/a/f");
  const std::vector<Frame> all{entry(EntryKind::Folder, "a"),
                               entry(EntryKind::File, "f", 1),
                               {Type::Data, "x"},
                               {Type::Leave, ""},
                               {Type::TreeEnd, ""}};
  const auto done = receive(all, "");
  ASSERT_TRUE(done && *done);
  EXPECT_EQ(read("outside"), "mine");
  EXPECT_EQ(read("to/a/f"), "x");
}

TEST_F(Trees, FoldersWithoutEndAreRefused) {
  std::vector<Frame> all;
  for (size_t i = 0; i <= max_depth; ++i) all.push_back(entry(EntryKind::Folder, "d"));
  EXPECT_FALSE(receive(all, ""));
}

}  // namespace
}  // namespace caisson::agent
