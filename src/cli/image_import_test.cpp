#include "cli/image_import.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "backend/qcow2/create.h"
#include "cli/image_export.h"
#include "cli/image_store.h"
#include "store/files.h"

namespace caisson::cli {
namespace {

class ImageImport : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "caisson-import-XXXXXX";
    folder_ = ::mkdtemp(pattern.data());
    ::setenv("XDG_CACHE_HOME", folder_.c_str(), 1);
    ::setenv("XDG_DATA_HOME", folder_.c_str(), 1);
    disk_ = folder_ + "/disk.raw";
    put("disk.raw", disk_text());
  }
  void TearDown() override {
    ::unsetenv("XDG_CACHE_HOME");
    ::unsetenv("XDG_DATA_HOME");
    std::filesystem::remove_all(folder_);
  }
  // A boot sector with code, and something at the end.
  static std::string disk_text() {
    std::string text(1 << 20, '\0');
    text[0] = '\xeb';
    text[510] = '\x55';
    text[511] = '\xaa';
    text.replace(text.size() - 5, 5, "there");
    return text;
  }
  void put(const std::string& name, std::string_view text) const {
    std::ofstream{folder_ + "/" + name, std::ios::binary} << text;
  }
  [[nodiscard]] std::string image(const std::string& file) const { return folder_ + "/caisson/images/" + file; }
  [[nodiscard]] size_t images() const {
    size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator{folder_ + "/caisson/images"}) {
      count += entry.is_directory() ? 1 : 0;
    }
    return count;
  }
  static life::ImageName name(const char* text) { return *life::parse_image_name(text); }
  static std::string sum(const std::string& path) { return sha256_file(path).value_or("none of " + path); }

  std::string folder_;
  std::string disk_;
};

TEST_F(ImageImport, ADiskBecomesAnImageAndComesBack) {
  const auto folder = import_image(name("mine"), disk_, {});
  ASSERT_TRUE(folder) << folder.error().message;
  EXPECT_EQ(*folder, image("mine"));
  EXPECT_EQ(sum(image("mine/disk.raw")), sum(disk_));
  const auto manifest = life::manifest_of(name("mine"));
  ASSERT_TRUE(manifest);
  EXPECT_EQ(manifest->boot, life::BootBy::Bios);
  EXPECT_EQ(manifest->source, disk_);
  EXPECT_EQ(manifest->files.at("disk.raw").sha256, sum(disk_));

  ASSERT_TRUE(export_image(name("mine"), folder_ + "/out.qcow2", {}));
  EXPECT_FALSE(export_image(name("mine"), folder_ + "/out.qcow2", {})) << "it is there";
  EXPECT_TRUE(export_image(name("mine"), folder_ + "/out.qcow2", {.force = true}));
  ASSERT_TRUE(import_image(name("again"), folder_ + "/out.qcow2", {}));
  EXPECT_EQ(sum(image("again/disk.raw")), sum(disk_));
  const auto list = life::list_images();
  ASSERT_TRUE(list);
  ASSERT_EQ(list->size(), 2u);
  EXPECT_EQ((*list)[0].name, "again");
  EXPECT_EQ((*list)[1].name, "mine");
}

TEST_F(ImageImport, AnArchiveHasAllOfIt) {
  put("vmlinuz", "a kernel");
  put("initrd", "its files");
  ImportOptions options{
      .kernel = folder_ + "/vmlinuz", .initrd = folder_ + "/initrd", .append = "root=/dev/vda1 quiet"};
  ASSERT_TRUE(import_image(name("mine"), disk_, options));
  EXPECT_EQ(life::default_append("mine"), "root=/dev/vda1 quiet");
  const std::string tar = folder_ + "/mine.tar";
  ASSERT_TRUE(export_image(name("mine"), tar, {}));
  EXPECT_FALSE(std::filesystem::exists(tar + ".new"));
  EXPECT_FALSE(std::filesystem::exists(tar + ".new.disk.new"));
  ASSERT_TRUE(import_image(name("again"), tar, {}));
  const auto manifest = life::manifest_of(name("again"));
  ASSERT_TRUE(manifest);
  EXPECT_EQ(manifest->image, "again");
  EXPECT_EQ(manifest->append, "root=/dev/vda1 quiet");
  EXPECT_EQ(manifest->boot, life::BootBy::Kernel);
  for (const char* file : {"disk.raw", "vmlinuz", "initrd.img"}) {
    EXPECT_EQ(sum(image(std::string{"again/"} + file)), sum(image(std::string{"mine/"} + file))) << file;
  }
  EXPECT_FALSE(std::filesystem::exists(image("again/disk.qcow2")));
}

TEST_F(ImageImport, DamagedArchivesLeaveNothing) {
  put("vmlinuz", "a kernel");
  ASSERT_TRUE(import_image(name("mine"), disk_, {.kernel = folder_ + "/vmlinuz"}));
  const std::string tar = folder_ + "/mine.tar";
  ASSERT_TRUE(export_image(name("mine"), tar, {}));
  const auto good = read_file(tar, 64 << 20);
  ASSERT_TRUE(good);
  const auto refused = [&](std::string_view text) {
    put("bad.tar", text);
    const auto done = import_image(name("bad"), folder_ + "/bad.tar", {});
    EXPECT_FALSE(done);
    EXPECT_EQ(images(), 1u) << "something is left";
    return done ? "" : done.error().message;
  };
  for (const size_t size : {size_t{1}, size_t{512}, size_t{700}, good->size() / 2, good->size() - 1024}) {
    EXPECT_NE(refused(good->substr(0, size)), "") << size;
  }
  std::string changed = *good;
  changed[changed.find("a kernel")] = 'A';
  EXPECT_NE(refused(changed).find("vmlinuz is not what its manifest says"), std::string::npos);
  EXPECT_NE(refused("nonsense"), "");
  EXPECT_NE(refused(std::string(10240, '\0')).find("no manifest"), std::string::npos);
  changed = good->substr(0, good->size() - 1024) + *good;
  EXPECT_NE(refused(changed), "") << "files twice";
}

TEST_F(ImageImport, AMachineThatCannotBeReadKeepsItsImage) {
  ASSERT_TRUE(import_image(name("mine"), disk_, {}));
  std::filesystem::create_directories(folder_ + "/caisson/vms/lost");
  put("caisson/vms/lost/config.json", "nonsense");
  {
    const Fd disk{::open((folder_ + "/caisson/vms/lost/disk.qcow2").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)};
    qcow2::CreateOptions options;
    options.size = 1 << 20;
    options.backing_file = image("mine/disk.raw");
    options.backing_format = "raw";
    ASSERT_TRUE(qcow2::create(disk.get(), options));
  }
  EXPECT_EQ(life::machines_of(name("mine")), std::vector<std::string>{"lost"});
  EXPECT_FALSE(life::remove_image(name("mine")));
  EXPECT_FALSE(import_image(name("mine"), disk_, {.force = true}));
  std::filesystem::remove_all(folder_ + "/caisson/vms/lost");
  EXPECT_TRUE(life::remove_image(name("mine")));
}

TEST_F(ImageImport, SaysWhatIsWrong) {
  const auto message = [&](const std::string& file, const ImportOptions& options) {
    const auto done = import_image(name("x"), file, options);
    EXPECT_FALSE(done);
    return done ? "" : done.error().message;
  };
  put("empty.raw", std::string(4096, '\0'));
  EXPECT_NE(message(folder_ + "/empty.raw", {}).find("--kernel"), std::string::npos);
  EXPECT_NE(message(folder_ + "/missing.raw", {}).find("missing.raw"), std::string::npos);
  EXPECT_NE(message(disk_, {.firmware = "magic"}).find("bios or uefi"), std::string::npos);
  EXPECT_NE(message(disk_, {.kernel = folder_ + "/missing"}).find("--kernel"), std::string::npos);
  EXPECT_NE(message(disk_, {.append = "quiet"}).find("--kernel"), std::string::npos);
  EXPECT_NE(message(disk_, {.format = "floppy"}).find("no such format"), std::string::npos);
  put("odd.qcow2", "no qcow2");
  EXPECT_NE(message(folder_ + "/odd.qcow2", {}), "");
  EXPECT_EQ(images(), 0u);
  EXPECT_TRUE(import_image(name("x"), folder_ + "/empty.raw", {.firmware = "uefi"}));
  EXPECT_NE(message(disk_, {}).find("--force"), std::string::npos);
  EXPECT_TRUE(import_image(name("x"), disk_, {.force = true}));
  EXPECT_EQ(life::manifest_of(name("x"))->boot, life::BootBy::Bios);
}

}  // namespace
}  // namespace caisson::cli
