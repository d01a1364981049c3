// A file, or a folder with all that is in it, as frames: what `caisson cp` moves.
//   Form     Total, then the one Entry at the top. An Entry names one thing inside the folder entered last: after a
//            file's come its Data, together as long as it said; after a folder's what is in it, then Leave. TreeEnd.
//   Kept     contents, permission bits, times of change, symbolic links as such. Not owners, not set-id bits, no holes.
//   Left out sockets, pipes and devices
//   Whole    a file appears under its name once it is complete; what was there before stays until then
//   Checks   the receiver never leaves the folder it was given: each name is one component, and no symbolic link is
//            followed below the top
//   Threads  one thread; waits for the stream
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include <sys/stat.h>

#include "agent/frames.h"
#include "base/fd.h"
#include "base/result.h"

namespace caisson::agent {

enum class EntryKind : uint8_t { File = 1, Folder, Link };

struct TreeEntry {
  EntryKind kind = EntryKind::File;
  std::string name;
  uint32_t mode = 0644;     // permission bits
  uint64_t size = 0;        // of a file
  uint64_t changed_ns = 0;  // since 1970
  std::string target;       // of a link
  bool operator==(const TreeEntry&) const = default;
};
[[nodiscard]] std::string pack(const TreeEntry& entry);
[[nodiscard]] Result<TreeEntry> unpack_entry(std::string_view payload);

constexpr size_t max_depth = 200;  // folders within folders: each is an open descriptor

// So much has been moved; called often.
using Moved = std::function<void(uint64_t bytes)>;

struct Sending {
  std::function<Result<>(Type, std::string_view)> send;
  Moved moved = [](uint64_t) {};
  std::function<void(std::string_view)> left_out = [](std::string_view) {};  // a path
};
// `folders`: whether the path may be a folder. The path's last link is followed.
[[nodiscard]] Result<> send_tree(const std::string& path, bool folders, const Sending& sending);

class TreeReceiver {
 public:
  // To `path`: into it where it is a folder or ends with a slash (then it has to be one), else as it.
  [[nodiscard]] static Result<TreeReceiver> create(const std::string& path);
  TreeReceiver(TreeReceiver&&) = default;
  ~TreeReceiver();  // removes what is half

  // One frame of a tree. True: that was the end.
  [[nodiscard]] Result<bool> take(const Frame& frame);

  [[nodiscard]] uint64_t total() const { return total_; }
  [[nodiscard]] uint64_t moved() const { return moved_; }

 private:
  struct Folder {
    Fd fd;
    TreeEntry entry;
  };
  TreeReceiver() = default;
  [[nodiscard]] Result<> enter(TreeEntry entry);
  [[nodiscard]] Result<> begin_file(TreeEntry entry);
  [[nodiscard]] Result<> end_file();
  [[nodiscard]] Result<> leave();
  [[nodiscard]] Result<> link(const TreeEntry& entry);
  [[nodiscard]] int here() const { return folders_.empty() ? top_.get() : folders_.back().fd.get(); }
  [[nodiscard]] std::string where(const TreeEntry& entry) const;

  std::string top_path_;  // for messages
  Fd top_;
  std::string as_;  // the name of the topmost thing; empty: its own
  bool begun_ = false;
  uint64_t total_ = 0, moved_ = 0;
  std::vector<Folder> folders_;
  Fd file_;
  std::string beside_;  // where it grows
  TreeEntry file_entry_;
  uint64_t left_ = 0;  // bytes of it to come
};

}  // namespace caisson::agent
