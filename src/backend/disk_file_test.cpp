#include "backend/disk_file.h"

#include <sys/stat.h>
#include <sys/wait.h>

#include "backend/test_support.h"

namespace caisson {
namespace {

class DiskFileTest : public testing::Test {
 protected:
  static std::string error(const std::string& path, bool read_only = false) {
    const auto disk = open_disk(path, read_only);
    return disk ? "opened" : disk.error().message;
  }
  test::TemporaryFolder folder;
};

TEST_F(DiskFileTest, OpensAFile) {
  const auto path = folder.make("disk", std::string(4096, 'x'));
  const auto disk = open_disk(path, false);
  ASSERT_TRUE(disk) << disk.error().message;
  EXPECT_EQ(disk->size, 4096u);
  EXPECT_EQ(disk->path, path);
  EXPECT_FALSE(disk->block_device);
  EXPECT_EQ(::pwrite(disk->fd.get(), "y", 1, 0), 1);
  EXPECT_EQ(::fcntl(disk->fd.get(), F_GETFL) & O_NONBLOCK, 0);
  EXPECT_NE(::fcntl(disk->fd.get(), F_GETFD) & FD_CLOEXEC, 0);
}

TEST_F(DiskFileTest, MessagesNameFileAndRemedy) {
  const auto missing = folder.file("missing");
  EXPECT_EQ(error(missing), "disk " + missing +
                                ": no such file; check the path, or make an empty disk with 'truncate -s 8G " +
                                missing + "'");
  const auto directory = folder.file("");
  EXPECT_EQ(error(directory), "disk " + directory + ": is a directory; give an image file or a block device");
  EXPECT_EQ(error(directory, true), "disk " + directory + ": is a directory; give an image file or a block device");
  const auto empty = folder.make("empty", "");
  EXPECT_EQ(error(empty), "disk " + empty +
                              ": has 0 bytes, less than one sector; it may be truncated; make a disk with "
                              "'truncate -s 8G " +
                              empty + "'");
  EXPECT_EQ(error("/dev/null"), "disk /dev/null: is neither a file nor a block device; give one of these");
  const auto pipe = folder.file("pipe");
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_EQ(error(pipe), "disk " + pipe + ": is neither a file nor a block device; give one of these");
  EXPECT_EQ(error(pipe, true), "disk " + pipe + ": is neither a file nor a block device; give one of these");
}

TEST_F(DiskFileTest, TheFormatIsSaidNotGuessed) {
  const std::string qcow2 = "QFI\xfb" + std::string(4096, '\0');
  const auto format = [](const std::string& path, std::optional<DiskFormat> given) -> std::string {
    const auto disk = open_disk(path, false, given);
    return disk ? std::string{name_of(disk->format)} : disk.error().message;
  };
  EXPECT_EQ(format(folder.make("a.qcow2", qcow2), {}), "qcow2");
  // What a guest has written at the start of its raw disk is of no concern.
  EXPECT_EQ(format(folder.make("a.raw", qcow2), {}), "raw");
  const auto unnamed = folder.make("a.img", qcow2);
  EXPECT_EQ(format(unnamed, {}), "disk " + unnamed + ": begins as a qcow2 image does; say what it is with '--disk " +
                                     unnamed + ",format=qcow2' or format=raw");
  EXPECT_EQ(format(unnamed, DiskFormat::Raw), "raw");
  EXPECT_EQ(format(unnamed, DiskFormat::Qcow2), "qcow2");
  const auto other = folder.make("b.qcow2", std::string(4096, 'x'));
  EXPECT_EQ(format(other, {}),
            "disk " + other + ": is no qcow2 image; if it is a raw one say so with '--disk " + other + ",format=raw'");
  const auto vmdk = folder.make("c.img", "KDMV" + std::string(4096, '\0'));
  EXPECT_EQ(format(vmdk, {}),
            "disk " + vmdk + ": this is a VMDK image; convert it with 'caisson disk convert " + vmdk + " NEW.qcow2'");
}

TEST_F(DiskFileTest, FileWithoutWritePermission) {
  const auto path = folder.make("disk", std::string(4096, 'x'));
  ASSERT_EQ(::chmod(path.c_str(), 0444), 0);
  // Root may write to any file: look from a child that is not root.
  const pid_t child = ::fork();
  if (child == 0) {
    if (::geteuid() == 0 && (::chmod(folder.file("").c_str(), 0755) != 0 || ::setuid(65534) != 0)) ::_exit(9);
    const bool as_told = error(path) == "disk " + path +
                                            ": may be read but not written; use it read-only with '--disk " + path +
                                            ",ro', or change its permissions";
    ::_exit(as_told && open_disk(path, true) ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_F(DiskFileTest, DoubleUseIsRefused) {
  const auto path = folder.make("disk", std::string(4096, 'x'));
  auto first = open_disk(path, false);
  ASSERT_TRUE(first);
  const std::string in_use = "disk " + path +
                             ": in use by another virtual machine; stop that one first, or give it to both "
                             "read-only with '--disk " +
                             path + ",ro'";
  EXPECT_EQ(error(path), in_use);
  EXPECT_EQ(error(path, true), in_use);
  first->fd.reset();
  EXPECT_EQ(error(path), "opened");
}

TEST_F(DiskFileTest, ReadersShare) {
  const auto path = folder.make("disk", std::string(4096, 'x'));
  const auto one = open_disk(path, true), two = open_disk(path, true);
  EXPECT_TRUE(one);
  EXPECT_TRUE(two);
  EXPECT_NE(error(path, false), "opened");
}

TEST_F(DiskFileTest, LockGoesWithTheDescriptor) {
  const auto path = folder.make("disk", std::string(4096, 'x'));
  auto disk = open_disk(path, false);
  ASSERT_TRUE(disk);
  Fd copy{::dup(disk->fd.get())};
  disk->fd.reset();
  EXPECT_NE(error(path), "opened");
  copy.reset();
  EXPECT_EQ(error(path), "opened");
}

}  // namespace
}  // namespace caisson
