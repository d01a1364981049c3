#include "life/new_file.h"

#include <gtest/gtest.h>

#include <filesystem>

#include <unistd.h>

#include "base/write_all.h"
#include "store/files.h"

namespace caisson::life {
namespace {

class NewFileTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "caisson-test-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
    path_ = name + "/file";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::filesystem::path folder_;
  std::string path_;
};

TEST_F(NewFileTest, ReplacesOnlyWhenItIsWhole) {
  ASSERT_TRUE(write_file(path_, "old"));
  EXPECT_FALSE(NewFile::make(path_, false));
  {
    auto given_up = NewFile::make(path_, true);
    ASSERT_TRUE(given_up);
    EXPECT_EQ(write_all(given_up->fd().get(), "half"), 0);
  }
  EXPECT_EQ(*read_file(path_, 100), "old");
  EXPECT_FALSE(std::filesystem::exists(path_ + ".new"));
  auto whole = NewFile::make(path_, true);
  ASSERT_TRUE(whole);
  EXPECT_EQ(write_all(whole->fd().get(), "new"), 0);
  EXPECT_TRUE(whole->finish());
  EXPECT_EQ(*read_file(path_, 100), "new");
}

TEST_F(NewFileTest, LeavesWhatAnotherCommandIsWriting) {
  auto first = NewFile::make(path_, false);
  ASSERT_TRUE(first);
  EXPECT_FALSE(NewFile::make(path_, false));
  EXPECT_TRUE(std::filesystem::exists(first->temporary()));
  EXPECT_TRUE(first->finish());
}

}  // namespace
}  // namespace caisson::life
