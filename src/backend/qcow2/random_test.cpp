// Random sequences of operations on images of ours and of QEMU's, by us and by QEMU, against a model in memory.
// CAISSON_QCOW2_SEQUENCES says how many (default: a few), CAISSON_QCOW2_SEED where they begin.
#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>

#include "backend/qcow2/test_images.h"

namespace caisson::qcow2 {
namespace {

using namespace test;

unsigned from_environment(const char* name, unsigned otherwise) {
  const char* const text = std::getenv(name);
  return text == nullptr ? otherwise : static_cast<unsigned>(std::strtoul(text, nullptr, 10));
}

class Sequence {
 public:
  explicit Sequence(unsigned seed) : random_(seed) {}

  void run() {
    make();
    if (testing::Test::HasFatalFailure()) return;
    const uint64_t rounds = 2 + below(3);
    for (uint64_t round = 0; round < rounds && !testing::Test::HasFailure(); ++round) {
      if (have_qemu() && below(3) == 0) {
        others_turn();
      } else {
        our_turn();
      }
      compare();
    }
  }
  std::string story;

 private:
  uint64_t below(uint64_t bound) { return bound == 0 ? 0 : random_() % bound; }
  bool chance(unsigned percent) { return below(100) < percent; }
  void tell(const std::string& what) { story += what + "\n"; }

  // Sectors; often at the edges of clusters.
  uint64_t place(uint64_t bound) {
    const uint64_t cluster = uint64_t{1} << cluster_bits_;
    uint64_t at = below(bound);
    if (chance(40)) at = at / cluster * cluster;
    return at / 512 * 512;
  }
  uint64_t extent_from(uint64_t offset) {
    const uint64_t cluster = uint64_t{1} << cluster_bits_, left = model_.size() - offset;
    uint64_t length = 512 * (1 + below(chance(50) ? 8 : std::max<uint64_t>(cluster * 5 / 512, 64)));
    if (chance(20)) length = cluster * (1 + below(4));
    return std::min(left, length);
  }

  void make() {
    cluster_bits_ = chance(5) ? 21 : 9 + static_cast<unsigned>(below(8));
    version_ = chance(25) ? 2 : 3;
    const unsigned order = version_ == 2 ? 4 : static_cast<unsigned>(below(7));
    widest_ = order;
    const uint64_t cluster = uint64_t{1} << cluster_bits_;
    const uint64_t size = 512 * (1 + below(std::clamp<uint64_t>(cluster * 40, 65536, 8 << 20) / 512));
    model_.assign(size, 0);
    std::string backing;
    if (chance(50)) {
      base_is_raw_ = chance(50);
      const uint64_t base_size = chance(50) ? size : 512 * (1 + below(2 * size / 512));
      base_.resize(base_size);
      for (auto& byte : base_) byte = static_cast<uint8_t>(random_());
      backing = folder_.file("base");
      if (base_is_raw_) {
        std::ofstream{backing, std::ios::binary}.write(reinterpret_cast<char*>(base_.data()),
                                                       static_cast<std::streamsize>(base_size));
      } else {
        make_image(backing, {.size = base_size});
        const auto image = open_image(backing);
        ASSERT_EQ(write(*image, 0, base_), 0);
        ASSERT_EQ(image->flush(), 0);
      }
      std::copy_n(base_.begin(), std::min(size, base_size), model_.begin());
      backed_ = true;
    }
    const bool theirs = have_qemu() && chance(40);
    zstd_ = theirs && version_ == 3 && chance(50);
    tell(fmt::format("{} version {} clusters 2^{} refcounts 2^{} size {} backing {}{}", theirs ? "theirs" : "ours",
                     version_, cluster_bits_, order, size, backed_ ? base_is_raw_ ? "raw " : "qcow2 " : "none",
                     backed_ ? base_.size() : 0));
    if (theirs) {
      std::string options = fmt::format("compat={},cluster_size={},refcount_bits={}", version_ == 2 ? "0.10" : "1.1",
                                        cluster, 1u << order);
      if (zstd_) options += ",compression_type=zstd";
      if (version_ == 3 && chance(20)) options += ",lazy_refcounts=on";
      const std::string back = backed_ ? fmt::format("-b {} -F {}", backing, base_is_raw_ ? "raw" : "qcow2") : "";
      const Outcome made = shell(fmt::format("qemu-img create -f qcow2 -o {} {} {} {}", options, back, path_, size));
      ASSERT_EQ(made.status, 0) << made.out;
      compressed_clusters();
    } else {
      CreateOptions options{.size = size, .version = version_, .cluster_bits = cluster_bits_, .refcount_order = order};
      if (backed_) {
        options.backing_file = backing;
        options.backing_format = base_is_raw_ ? "raw" : "qcow2";
      }
      make_image(path_, options);
    }
  }

  // QEMU compresses only into clusters that were not written yet.
  void compressed_clusters() {
    const uint64_t cluster = uint64_t{1} << cluster_bits_;
    std::string commands;
    for (uint64_t at = 0; at + cluster <= model_.size() && commands.size() < 20000; at += cluster) {
      if (!chance(30)) continue;
      const auto value = static_cast<uint8_t>(1 + below(255));
      commands += fmt::format(" -c 'write -c -P {} {} {}'", value, at, cluster);
      std::fill_n(model_.begin() + static_cast<ptrdiff_t>(at), cluster, value);
    }
    if (commands.empty()) return;
    tell("they" + commands);
    const Outcome outcome = shell(fmt::format("qemu-io -f qcow2 {} {}", commands, path_));
    ASSERT_EQ(outcome.status, 0) << outcome.out;
  }

  std::unique_ptr<Image> open(bool read_only, const std::string& snapshot = {}) {
    OpenOptions options{.read_only = read_only, .snapshot = snapshot, .cache_bytes = chance(50) ? 4096u : 1u << 20};
    if (backed_ && base_is_raw_) {
      options.backing = std::move(*RawSource::open(open_file(folder_.file("base"), O_RDONLY), "base"));
    } else if (backed_) {
      options.backing = open_image(folder_.file("base"), {.read_only = true});
    }
    return open_image(path_, std::move(options));
  }

  void our_turn() {
    auto image = open(false);
    ASSERT_NE(image, nullptr);
    for (uint64_t step = 5 + below(60); step > 0 && !testing::Test::HasFailure(); --step) our_step(*image);
    ASSERT_EQ(image->flush(), 0);
    tell("we close");
  }

  void our_step(Image& image) {
    const uint64_t offset = place(model_.size()), length = extent_from(offset);
    const auto model = model_.begin() + static_cast<ptrdiff_t>(offset);
    switch (below(12)) {
      case 0:
      case 1:
      case 2:
      case 3:
      case 4: {
        Bytes bytes(length, static_cast<uint8_t>(random_()));
        if (chance(50)) std::ranges::generate(bytes, [&] { return static_cast<uint8_t>(random_()); });
        tell(fmt::format("write {} {}", offset, length));
        const uint64_t cut = below(length);
        ASSERT_EQ(image.write(offset, length, {{bytes.data(), cut}, {bytes.data() + cut, length - cut}}), 0);
        std::ranges::copy(bytes, model);
        break;
      }
      case 5:
      case 6: {
        Bytes bytes(length, 0xee);
        tell(fmt::format("read {} {}", offset, length));
        ASSERT_EQ(image.read(offset, length, {{bytes.data(), length}}), 0);
        ASSERT_TRUE(std::equal(bytes.begin(), bytes.end(), model));
        break;
      }
      case 7:
      case 8: {
        const bool unmap = chance(50);
        tell(fmt::format("zeroes {} {} {}", offset, length, unmap));
        ASSERT_EQ(image.write_zeroes(offset, length, unmap), 0);
        std::fill_n(model, length, uint8_t{0});
        break;
      }
      case 9: {
        tell(fmt::format("discard {} {}", offset, length));
        ASSERT_EQ(image.discard(offset, length), 0);
        Bytes bytes(length, 0xee);
        ASSERT_EQ(image.read(offset, length, {{bytes.data(), length}}), 0);
        for (uint64_t i = 0; i < length; ++i) {
          ASSERT_TRUE(bytes[i] == model[static_cast<ptrdiff_t>(i)] || bytes[i] == 0) << "byte " << offset + i;
        }
        std::ranges::copy(bytes, model);
        break;
      }
      case 10: {
        tell("flush");
        ASSERT_EQ(image.flush(), 0);
        break;
      }
      case 11: {
        if (!chance(25)) break;
        const uint64_t size = 512 * (1 + below(model_.size() * 3 / 2 / 512));
        tell(fmt::format("resize {}", size));
        const int error = image.resize(size);
        if (!snapshots_.empty() && (version_ == 2 || size < model_.size())) {
          ASSERT_EQ(error, ENOTSUP);
          break;
        }
        ASSERT_EQ(error, 0);
        model_.resize(size, 0);
        break;
      }
      default: break;
    }
  }

  void others_turn() {
    if (widest_ >= 3 && chance(50)) {
      const std::string name = fmt::format("s{}", snapshots_.size());
      tell("they make snapshot " + name);
      const Outcome outcome = shell(fmt::format("qemu-img snapshot -c {} {}", name, path_));
      ASSERT_EQ(outcome.status, 0) << outcome.out;
      snapshots_.emplace_back(name, model_);
    }
    std::string commands;
    for (uint64_t step = 1 + below(12); step > 0; --step) {
      const uint64_t offset = place(model_.size()), length = extent_from(offset);
      const auto model = model_.begin() + static_cast<ptrdiff_t>(offset);
      const auto value = static_cast<uint8_t>(1 + below(255));
      if (chance(25)) {
        commands += fmt::format(" -c 'write -z {} {} {}'", chance(50) ? "-u" : "", offset, length);
        std::fill_n(model, length, uint8_t{0});
      } else {
        commands += fmt::format(" -c 'write -P {} {} {}'", value, offset, length);
        std::fill_n(model, length, value);
      }
    }
    tell("they" + commands);
    const Outcome outcome = shell(fmt::format("qemu-io -f qcow2 {} {}", commands, path_));
    ASSERT_EQ(outcome.status, 0) << outcome.out;
  }

  void compare() {
    expect_clean(path_);
    auto image = open(true);
    ASSERT_NE(image, nullptr);
    ASSERT_EQ(image->size(), model_.size());
    ASSERT_TRUE(read_all(*image) == model_) << "the disk differs from the model";
    for (const auto& [name, content] : snapshots_) {
      auto snapshot = open(true, name);
      ASSERT_NE(snapshot, nullptr);
      ASSERT_TRUE(read_all(*snapshot) == content) << "snapshot " << name << " differs";
    }
    if (!have_qemu()) return;
    const std::string raw = folder_.file("model");
    std::ofstream{raw, std::ios::binary}.write(reinterpret_cast<char*>(model_.data()),
                                               static_cast<std::streamsize>(model_.size()));
    const Outcome outcome = shell(fmt::format("qemu-img compare -f raw -F qcow2 {} {}", raw, path_));
    ASSERT_EQ(outcome.status, 0) << outcome.out;
  }

  std::mt19937 random_;
  TemporaryFolder folder_;
  const std::string path_ = folder_.file("disk.qcow2");
  unsigned cluster_bits_ = 16, version_ = 3, widest_ = 4;
  bool backed_ = false, base_is_raw_ = false, zstd_ = false;
  Bytes base_, model_;
  std::vector<std::pair<std::string, Bytes>> snapshots_;
};

TEST(Qcow2Random, SequencesAgreeWithTheModelAndWithQemu) {
  const unsigned first = from_environment("CAISSON_QCOW2_SEED", 1);
  const unsigned count = from_environment("CAISSON_QCOW2_SEQUENCES", 40);
  for (unsigned seed = first; seed < first + count; ++seed) {
    Sequence sequence{seed};
    sequence.run();
    if (testing::Test::HasFailure()) {
      FAIL() << "seed " << seed << "\n" << sequence.story;
    }
  }
}

}  // namespace
}  // namespace caisson::qcow2
