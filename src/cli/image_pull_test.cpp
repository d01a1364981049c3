// Whole pulls, from a server of our own by caisson-fetch.
#include "cli/image_pull.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>

#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <unistd.h>
#include <zlib.h>

#include "cli/download.h"
#include "cli/image_store.h"
#include "cli/test_server.h"
#include "life/images.h"
#include "store/files.h"

namespace caisson::cli {
namespace {

class ImagePull : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "caisson-pull-XXXXXX";
    folder_ = ::mkdtemp(pattern.data());
    for (const char* variable : {"XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"}) {
      ::setenv(variable, folder_.c_str(), 1);
    }
    // The server is this host's: no proxy.
    for (const char* variable : {"http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"}) {
      ::unsetenv(variable);
    }
    // A disk with a boot sector, and something in it that no compression makes small.
    std::minstd_rand random{11};
    disk_.resize(1 << 20);
    for (size_t at = 4096; at < 900'000; ++at) disk_[at] = static_cast<char>(random() >> 8);
    disk_[0] = '\xeb', disk_[510] = '\x55', disk_[511] = '\xaa';
    server_["/disk.raw"]->body = disk_;
  }
  void TearDown() override {
    for (const char* variable : {"XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"}) ::unsetenv(variable);
    std::filesystem::remove_all(folder_);
  }

  [[nodiscard]] std::string sum(std::string_view bytes) const {
    std::ofstream{folder_ + "/summed", std::ios::binary} << bytes;
    return sha256_file(folder_ + "/summed").value_or("");
  }
  [[nodiscard]] life::CatalogueEntry entry(const std::string& path = "/disk.raw") const {
    return {.name = "mine", .url = server_.url(path), .sha256 = sum(disk_)};
  }
  Result<std::string> pull(const life::CatalogueEntry& what, unsigned tries = 2) const {
    return pull_image(what, {.force = true, .json = true, .tries = tries, .stall_s = 1});
  }
  std::string refused(const life::CatalogueEntry& what, unsigned tries = 1) const {
    const auto done = pull(what, tries);
    EXPECT_FALSE(done);
    EXPECT_FALSE(std::filesystem::exists(folder_ + "/caisson/images/mine"));
    return done ? "" : done.error().message;
  }
  [[nodiscard]] size_t downloads() const {
    const std::filesystem::directory_iterator all{folder_ + "/caisson/downloads"};
    return static_cast<size_t>(std::distance(begin(all), end(all)));
  }
  void expect_image() const {
    EXPECT_EQ(sha256_file(folder_ + "/caisson/images/mine/disk.raw").value_or("none"), sum(disk_));
    EXPECT_EQ(downloads(), 0u);
  }

  std::string folder_;
  std::string disk_;
  mutable TestServer server_;
};

TEST_F(ImagePull, GetsChecksAndImports) {
  const auto folder = pull(entry());
  ASSERT_TRUE(folder) << folder.error().message;
  expect_image();
  EXPECT_EQ(life::manifest_of(*life::parse_image_name("mine"))->source, entry().url);
}

TEST_F(ImagePull, GoesOnWhereItWasCutOff) {
  server_["/disk.raw"]->cut_after = 300'000;
  server_["/disk.raw"]->cuts = 100;
  ASSERT_TRUE(pull(entry()));
  expect_image();
  EXPECT_EQ(server_.requests().size(), 4u);
  EXPECT_EQ(server_.requests()[3], "/disk.raw bytes=900000-");
  EXPECT_EQ(server_.sent(), disk_.size()) << "something came twice";
}

TEST_F(ImagePull, ALaterCommandGoesOn) {
  server_["/disk.raw"]->cut_after = 500'000;
  server_["/disk.raw"]->cuts = 1;
  server_["/disk.raw"]->hangs = true;
  // Then it is away.
  const auto away = [this](bool is) { server_["/disk.raw"]->status = is ? 503 : 200; };
  server_["/disk.raw"]->cut_after = 500'000;
  auto download = Download::begin("mine.part");
  ASSERT_TRUE(download);
  std::thread later{[&] {
    while (server_.sent() < 500'000) ::usleep(1000);
    away(true);
    server_["/disk.raw"]->ranges = false;
  }};
  const auto got = download->get(entry().url, {.most_bytes = 1 << 30, .json = true, .tries = 2, .stall_s = 1});
  later.join();
  ASSERT_FALSE(got);
  EXPECT_NE(got.error().message.find("goes on from 488 KiB"), std::string::npos) << got.error().message;
  EXPECT_FALSE(Download::begin("mine.part")) << "there is a lock";
  download = fail("");  // and the lock is gone
  away(false);
  server_["/disk.raw"]->ranges = true;
  ASSERT_TRUE(pull(entry()));
  expect_image();
  EXPECT_EQ(server_.requests().back(), "/disk.raw bytes=500000-");
}

TEST_F(ImagePull, OfTwoVersionsNoMixtureIsMade) {
  server_["/disk.raw"]->cut_after = 300'000;
  server_["/disk.raw"]->cuts = 1;
  std::thread later{[&] {
    while (server_.sent() < 300'000) ::usleep(100);
    server_["/disk.raw"]->etag = "\"two\"";
  }};
  ASSERT_TRUE(pull(entry()));
  later.join();
  expect_image();
}

TEST_F(ImagePull, BeginsAnewWhereItCannotGoOn) {
  server_["/disk.raw"]->cut_after = 300'000;
  server_["/disk.raw"]->cuts = 1;
  server_["/disk.raw"]->ranges = false;
  ASSERT_TRUE(pull(entry()));
  expect_image();
  server_["/disk.raw"]->cuts = 1;
  server_["/disk.raw"]->etag = "W/\"weak\"";
  ASSERT_TRUE(pull(entry()));
  expect_image();
}

TEST_F(ImagePull, AWrongSumRemovesTheDownload) {
  server_["/disk.raw"]->body[5000] ^= 1;
  EXPECT_NE(refused(entry()).find("SHA-256"), std::string::npos);
  EXPECT_EQ(downloads(), 0u);
}

TEST_F(ImagePull, SaysWhatTheServerSays) {
  EXPECT_NE(refused(entry("/missing"), 5).find("404"), std::string::npos);
  EXPECT_EQ(server_.requests().size(), 1u) << "asked again for what is not there";
  server_["/disk.raw"]->status = 503;
  EXPECT_NE(refused(entry(), 2).find("503"), std::string::npos);
  EXPECT_EQ(server_.requests().size(), 3u);
  server_["/round"]->location = "/round";
  EXPECT_NE(refused(entry("/round")).find("redirects"), std::string::npos);
  server_["/file"]->location = "file:///etc/passwd";
  EXPECT_NE(refused(entry("/file")), "");
  EXPECT_NE(refused({.name = "mine", .url = "http://127.0.0.1:1/x", .sha256 = sum("")}).find("later"),
            std::string::npos);
  EXPECT_NE(refused({.name = "mine", .arch = "arm64", .url = entry().url}).find("arm64"), std::string::npos);
}

TEST_F(ImagePull, FollowsRedirects) {
  server_["/latest"]->location = server_.url("/disk.raw");
  ASSERT_TRUE(pull(entry("/latest")));
  expect_image();
}

TEST_F(ImagePull, TakesNoMoreThanIsAllowed) {
  auto small = entry();
  small.most_bytes = 500'000;
  EXPECT_NE(refused(small).find("500000 bytes"), std::string::npos);
  EXPECT_LT(server_.sent(), disk_.size() + 1);
  server_["/disk.raw"]->says_length = false;
  EXPECT_NE(refused(small).find("500000 bytes"), std::string::npos);
}

std::string gzip(const std::string& bytes) {
  z_stream stream{};
  ::deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
  std::string packed(::deflateBound(&stream, bytes.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  ::deflate(&stream, Z_FINISH);
  packed.resize(stream.total_out);
  ::deflateEnd(&stream);
  return packed;
}

TEST_F(ImagePull, UnpacksWithinBounds) {
  server_["/disk.raw.gz"]->body = gzip(disk_);
  auto packed = entry("/disk.raw.gz");
  packed.sha256 = sum(server_["/disk.raw.gz"]->body);
  packed.most_bytes = disk_.size() - 1;
  EXPECT_NE(refused(packed).find("unpacked it has more"), std::string::npos);
  packed.most_bytes = disk_.size();
  ASSERT_TRUE(pull(packed));
  expect_image();
}

// As minisign writes keys and signatures.
std::string base64(const std::string& bytes) {
  std::string text(bytes.size() / 3 * 4 + 8, '\0');
  const int size =
      ::EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()),
                        reinterpret_cast<const unsigned char*>(bytes.data()), static_cast<int>(bytes.size()));
  text.resize(static_cast<size_t>(size));
  return text;
}
std::string signed_with(EVP_PKEY* key, const std::string& message) {
  std::string bytes(64, '\0');
  size_t size = bytes.size();
  EVP_MD_CTX* const context = ::EVP_MD_CTX_new();
  ::EVP_DigestSignInit(context, nullptr, nullptr, nullptr, key);
  ::EVP_DigestSign(context, reinterpret_cast<unsigned char*>(bytes.data()), &size,
                   reinterpret_cast<const unsigned char*>(message.data()), message.size());
  ::EVP_MD_CTX_free(context);
  return bytes;
}

TEST_F(ImagePull, ChecksSignatures) {
  const std::string secret(32, 's');
  EVP_PKEY* const key = ::EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, nullptr,
                                                       reinterpret_cast<const unsigned char*>(secret.data()), 32);
  std::string public_half(32, '\0');
  size_t size = 32;
  ::EVP_PKEY_get_raw_public_key(key, reinterpret_cast<unsigned char*>(public_half.data()), &size);
  std::string hash(64, '\0');
  unsigned hash_size = 64;
  ::EVP_Digest(disk_.data(), disk_.size(), reinterpret_cast<unsigned char*>(hash.data()), &hash_size,
               ::EVP_blake2b512(), nullptr);
  const auto signature = [&](const std::string& message, const std::string& comment) {
    const std::string bytes = signed_with(key, message);
    return "untrusted comment: a test\n" + base64("ED" + std::string(8, 'i') + bytes) +
           "\ntrusted comment: " + comment + "\n" + base64(signed_with(key, bytes + comment)) + "\n";
  };
  auto what = entry();
  what.key = base64("Ed" + std::string(8, 'i') + public_half);
  EXPECT_NE(refused(what).find("404"), std::string::npos) << "there is no signature";
  server_["/disk.raw.minisig"]->body = signature(hash, "of today");
  ASSERT_TRUE(pull(what));
  expect_image();
  std::filesystem::remove_all(folder_ + "/caisson/images/mine");
  server_["/disk.raw.minisig"]->body = signature(std::string(64, 'x'), "of today");
  EXPECT_NE(refused(what).find("does not hold"), std::string::npos);
  std::string changed = signature(hash, "of today");
  changed.replace(changed.find("of today"), 8, "of noday");
  server_["/disk.raw.minisig"]->body = changed;
  EXPECT_NE(refused(what).find("comment"), std::string::npos);
  server_["/disk.raw.minisig"]->body = "nonsense";
  EXPECT_NE(refused(what).find("not a signature"), std::string::npos);
  server_["/disk.raw.minisig"]->body = std::string(100'000, 'x');
  EXPECT_NE(refused(what).find("16384"), std::string::npos);
  ::EVP_PKEY_free(key);
}

}  // namespace
}  // namespace caisson::cli
