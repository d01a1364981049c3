// Images that are damaged or made to do harm: one clear line, nothing written where tables are, no end of memory.
#include <cerrno>
#include <functional>

#include <zlib.h>
#include <zstd.h>

#include "backend/qcow2/compressed.h"
#include "backend/qcow2/test_images.h"

namespace caisson::qcow2 {
namespace {

using namespace test;

class HostileTest : public testing::Test {
 protected:
  void SetUp() override {
    make_image(path, {.size = 1 << 20, .cluster_bits = 12});
    const auto image = open_image(path);
    ASSERT_EQ(write(*image, 0, Bytes(16384, 7)), 0);
    ASSERT_EQ(image->flush(), 0);
    header = image->header();
  }
  template <class T>
  void patch(uint64_t offset, T value) {
    std::array<uint8_t, sizeof(T)> bytes{};
    store<T>(bytes.data(), value);
    const Fd fd = open_file(path);
    ASSERT_EQ(::pwrite(fd.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset)),
              static_cast<ssize_t>(sizeof(T)));
  }
  uint64_t entry(uint64_t offset) {
    std::array<uint8_t, 8> bytes{};
    const Fd fd = open_file(path);
    EXPECT_EQ(::pread(fd.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset)), 8);
    return load<uint64_t>(bytes.data());
  }
  uint64_t l2_offset() { return entry(header.l1_offset) & offset_mask; }
  void expect_refused(const std::string& part, bool read_only = false) {
    auto image = Image::open(open_file(path), {.name = path, .read_only = read_only});
    ASSERT_FALSE(image) << "opened; expected: " << part;
    EXPECT_NE(image.error().message.find(part), std::string::npos) << image.error().message;
    EXPECT_EQ(image.error().message.find('\n'), std::string::npos);
    EXPECT_TRUE(image.error().message.starts_with("disk " + path)) << image.error().message;
  }
  int write_error(uint64_t offset) {
    const auto image = open_image(path);
    return image == nullptr ? -1 : write(*image, offset, Bytes(512, 9));
  }

  TemporaryFolder folder;
  std::string path = folder.file("disk.qcow2");
  Header header;
};

TEST_F(HostileTest, HeadersThatCannotBe) {
  struct Case {
    const char* part;
    std::function<void()> damage;
  };
  const std::vector<Case> cases{
      {"version 4", [&] { patch<uint32_t>(at::version, 4); }},
      {"2^40", [&] { patch<uint32_t>(at::cluster_bits, 40); }},
      {"2^8", [&] { patch<uint32_t>(at::cluster_bits, 8); }},
      {"encrypted", [&] { patch<uint32_t>(at::crypt, 1); }},
      {"L1 table is too small", [&] { patch<uint64_t>(at::size, uint64_t{1} << 50); }},
      {"its disk would have", [&] { patch<uint64_t>(at::size, UINT64_MAX); }},
      {"L1 table would take", [&] { patch<uint32_t>(at::l1_size, UINT32_MAX); }},
      {"L1 table is at byte", [&] { patch<uint64_t>(at::l1_offset, 4097); }},
      {"L1 table is at byte", [&] { patch<uint64_t>(at::l1_offset, UINT64_MAX << 12); }},
      {"lies over its", [&] { patch<uint64_t>(at::l1_offset, header.refcount_table_offset); }},
      {"refcount table would take", [&] { patch<uint32_t>(at::refcount_table_clusters, 1 << 20); }},
      {"no refcount table", [&] { patch<uint32_t>(at::refcount_table_clusters, 0); }},
      {"2^7 bits", [&] { patch<uint32_t>(at::refcount_order, 7); }},
      {"header would have", [&] { patch<uint32_t>(at::header_length, 1 << 30); }},
      {"in another file", [&] { patch<uint64_t>(at::incompatible, incompatible_data_file); }},
      {"extended L2", [&] { patch<uint64_t>(at::incompatible, incompatible_extended_l2); }},
      {"incompatible bit 40", [&] { patch<uint64_t>(at::incompatible, uint64_t{1} << 40); }},
      {"marked as damaged", [&] { patch<uint64_t>(at::incompatible, incompatible_corrupt); }},
      {"contradicts itself about compression", [&] { patch<uint8_t>(at::compression, 1); }},
      {"4000000 snapshots",
       [&] {
         patch<uint32_t>(at::snapshot_count, 4000000);
         patch<uint64_t>(at::snapshots, 1 << 20);
       }},
      {"snapshot table lies beyond",
       [&] {
         patch<uint32_t>(at::snapshot_count, 1);
         patch<uint64_t>(at::snapshots, 1 << 30);
       }},
      {"backing file is outside",
       [&] {
         patch<uint64_t>(at::backing_offset, 4000);
         patch<uint32_t>(at::backing_size, 1000);
       }},
      {"backing file is too long",
       [&] {
         patch<uint64_t>(at::backing_offset, 200);
         patch<uint32_t>(at::backing_size, UINT32_MAX);
       }},
      {"does not fit into the header",
       [&] {
         patch<uint32_t>(112, 7);
         patch<uint32_t>(116, UINT32_MAX);
       }},
  };
  for (const Case& one : cases) {
    SetUp();
    one.damage();
    expect_refused(one.part);
    expect_refused(one.part, true);
  }
}

TEST_F(HostileTest, TruncatedFiles) {
  for (const off_t size : {0, 3, 50, 72, 100}) {
    ASSERT_EQ(::truncate(path.c_str(), size), 0);
    expect_refused(size < 4 ? "does not begin as a qcow2 image" : "is truncated", true);
    SetUp();
  }
}

TEST_F(HostileTest, DataNeverLieOverTables) {
  // Where a guest cluster is said to be: every table there is.
  const uint64_t l2 = l2_offset(), block = entry(header.refcount_table_offset);
  for (const uint64_t table : {uint64_t{0}, header.refcount_table_offset, block, header.l1_offset, l2}) {
    SetUp();
    if (table == 0) continue;  // an entry of 0 means that there is no cluster
    patch<uint64_t>(l2, table | copied_flag);
    const auto before = caisson::test::content_of(path);
    EXPECT_EQ(write_error(0), EIO) << table;
    const auto after = caisson::test::content_of(path);
    EXPECT_EQ(before.substr(4096), after.substr(4096)) << "the image's tables have changed";
    expect_refused("marked as damaged");
  }
}

TEST_F(HostileTest, TablesThatAreWrittenOverEachOther) {
  patch<uint64_t>(header.l1_offset, header.refcount_table_offset | copied_flag);
  expect_refused("lies over another table");
  SetUp();
  patch<uint64_t>(header.refcount_table_offset, header.l1_offset);
  expect_refused("lies over another table");
  SetUp();
  patch<uint64_t>(header.refcount_table_offset, uint64_t{1} << 40);
  expect_refused("refcount block 0 would be at byte");
}

TEST_F(HostileTest, ClustersThatAreCountedFreeAreNotGivenOutOverTables) {
  // All refcounts zero: the first free cluster would be the header.
  const uint64_t block = entry(header.refcount_table_offset);
  for (uint64_t i = 0; i < 4096; i += 8) patch<uint64_t>(block + i, 0);
  EXPECT_EQ(write_error(512 << 10), EIO);
  const Fd fd = open_file(path);
  const auto mended = repair(fd.get());
  ASSERT_TRUE(mended) << mended.error().message;
  EXPECT_TRUE(mended->clean());
  expect_clean(path);
  EXPECT_EQ(read_all(*open_image(path))[16383], 7);
}

TEST_F(HostileTest, EntriesThatPointNowhere) {
  patch<uint64_t>(l2_offset(), 0x1200 | copied_flag);
  const auto image = open_image(path, {.read_only = true});
  Bytes bytes(512);
  EXPECT_EQ(image->read(0, 512, {{bytes.data(), 512}}), EIO);
  EXPECT_EQ(image->read(4096, 512, {{bytes.data(), 512}}), 0) << "the rest can be saved";
  patch<uint64_t>(header.l1_offset, (uint64_t{1} << 50) | copied_flag);
  EXPECT_EQ(write_error(0), EIO);
}

TEST_F(HostileTest, CompressedClustersThatAreNone) {
  for (const uint64_t place : {uint64_t{4096}, uint64_t{512}, uint64_t{1} << 40}) {
    SetUp();
    patch<uint64_t>(l2_offset(), compressed_flag | (uint64_t{15} << 58) | place);
    const auto image = open_image(path, {.read_only = true});
    Bytes bytes(512);
    EXPECT_EQ(image->read(0, 512, {{bytes.data(), 512}}), EIO);
  }
}

TEST_F(HostileTest, AnImageThatWasNotClosedWellIsRepaired) {
  const uint64_t block = entry(header.refcount_table_offset);
  // As with lazy refcounts: the data's clusters are not counted yet.
  const uint64_t data = entry(l2_offset()) & offset_mask;
  patch<uint16_t>(block + data / 4096 * 2, 0);
  patch<uint64_t>(at::incompatible, incompatible_dirty);
  {
    const auto image = open_image(path);
    ASSERT_NE(image, nullptr);
    EXPECT_EQ(write(*image, 1 << 19, Bytes(4096, 1)), 0);
    EXPECT_EQ(image->flush(), 0);
    EXPECT_EQ(read_all(*image)[0], 7);
  }
  expect_clean(path);
}

TEST_F(HostileTest, RepairMendsFlagsCountsAndLeaks) {
  const uint64_t block = entry(header.refcount_table_offset), l2 = l2_offset();
  patch<uint64_t>(l2, entry(l2) & ~copied_flag);
  patch<uint16_t>(block + 200 * 2, 3);                                   // nothing is there
  patch<uint16_t>(block + (entry(l2 + 8) & offset_mask) / 4096 * 2, 0);  // in use
  EXPECT_FALSE(check_file(path).clean());
  const Fd fd = open_file(path);
  const auto mended = repair(fd.get());
  ASSERT_TRUE(mended);
  EXPECT_TRUE(mended->clean());
  EXPECT_GE(mended->fixed_corruptions, 2u);
  expect_clean(path);
}

TEST_F(HostileTest, ATerabyteIsOpenedLazily) {
  const std::string large = folder.file("large.qcow2");
  make_image(large, {.size = uint64_t{1} << 40});
  const auto image = open_image(large);
  Bytes bytes(512);
  EXPECT_EQ(image->read((uint64_t{1} << 40) - 512, 512, {{bytes.data(), 512}}), 0);
  EXPECT_EQ(write(*image, (uint64_t{1} << 40) - 512, Bytes(512, 3)), 0);
  EXPECT_EQ(image->flush(), 0);
  expect_clean(large);
}

// Deflate and zstd streams of a megabyte of zeroes, taken for a cluster of 4096 bytes; and cut short.
TEST(Qcow2Compressed, OutputIsBounded) {
  const Bytes plain(1 << 20, 0);
  for (const Compression kind : {Compression::Zlib, Compression::Zstd}) {
    Bytes packed(1 << 16);
    if (kind == Compression::Zstd) {
      packed.resize(::ZSTD_compress(packed.data(), packed.size(), plain.data(), plain.size(), 3));
    } else {
      z_stream stream{};
      ASSERT_EQ(::deflateInit2(&stream, 9, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY), Z_OK);
      stream.next_in = const_cast<uint8_t*>(plain.data());
      stream.avail_in = static_cast<unsigned>(plain.size());
      stream.next_out = packed.data();
      stream.avail_out = static_cast<unsigned>(packed.size());
      ASSERT_EQ(::deflate(&stream, Z_FINISH), Z_STREAM_END);
      packed.resize(packed.size() - stream.avail_out);
      ::deflateEnd(&stream);
    }
    Bytes cluster(4096 + 64, 0xee);
    EXPECT_EQ(decompress(kind, packed, std::span{cluster}.first(4096)), 0);
    EXPECT_EQ(Bytes(cluster.begin() + 4096, cluster.end()), Bytes(64, 0xee)) << "wrote beyond";
    EXPECT_EQ(cluster[4095], 0);
    Bytes larger(2 << 20);
    EXPECT_EQ(decompress(kind, packed, larger), EIO) << "fewer bytes than a cluster";
    EXPECT_EQ(decompress(kind, std::span{packed}.first(packed.size() / 2), std::span{larger}.first(1 << 20)), EIO);
    EXPECT_EQ(decompress(kind, Bytes(512, 0xff), std::span{larger}.first(4096)), EIO);
  }
}

}  // namespace
}  // namespace caisson::qcow2
