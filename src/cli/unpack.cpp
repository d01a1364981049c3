#include "cli/unpack.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include <lzma.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "backend/qcow2/file_io.h"

namespace caisson::cli {
namespace {

constexpr size_t piece = 1 << 20;
constexpr size_t grain = 64 * 1024;                    // zeroes of this size become holes
constexpr uint64_t most_memory = uint64_t{256} << 20;  // of xz, whose largest preset takes 65 MiB
constexpr int most_window = 27;                        // of zstd, as a power of two: what zstd itself takes unasked

enum class Step { More, End, Damaged, Memory };

// One packed stream after another: each of them may be followed by a next.
class Unpacker {
 public:
  virtual ~Unpacker() = default;
  // Takes from the front of `in`, puts at the front of `out`; both become what is left. More: call again.
  virtual Step step(std::span<const uint8_t>& in, std::span<uint8_t>& out, bool last) = 0;
};

class Gzip : public Unpacker {
 public:
  Gzip() { ready_ = ::inflateInit2(&stream_, 15 + 16) == Z_OK; }
  ~Gzip() override { ::inflateEnd(&stream_); }
  Gzip(const Gzip&) = delete;
  Gzip& operator=(const Gzip&) = delete;
  Step step(std::span<const uint8_t>& in, std::span<uint8_t>& out, bool last) override {
    if (!ready_) return Step::Memory;
    if (ended_ && last && in.empty()) return Step::End;
    if (ended_) {
      if (in.empty()) return Step::More;
      if (::inflateReset(&stream_) != Z_OK) return Step::Damaged;
      ended_ = false;
    }
    stream_.next_in = const_cast<Bytef*>(in.data());
    stream_.avail_in = static_cast<uInt>(in.size());
    stream_.next_out = out.data();
    stream_.avail_out = static_cast<uInt>(out.size());
    const int code = ::inflate(&stream_, Z_NO_FLUSH);
    const bool stuck = stream_.avail_in == in.size() && stream_.avail_out == out.size();
    in = in.last(stream_.avail_in);
    out = out.last(stream_.avail_out);
    ended_ = code == Z_STREAM_END;
    if (code == Z_MEM_ERROR) return Step::Memory;
    if (code != Z_OK && code != Z_STREAM_END && code != Z_BUF_ERROR) return Step::Damaged;
    return stuck && last && !ended_ ? Step::Damaged : Step::More;
  }

 private:
  z_stream stream_{};
  bool ready_ = false;
  bool ended_ = false;
};

class Xz : public Unpacker {
 public:
  Xz() { ready_ = ::lzma_stream_decoder(&stream_, most_memory, LZMA_CONCATENATED) == LZMA_OK; }
  ~Xz() override { ::lzma_end(&stream_); }
  Xz(const Xz&) = delete;
  Xz& operator=(const Xz&) = delete;
  Step step(std::span<const uint8_t>& in, std::span<uint8_t>& out, bool last) override {
    if (!ready_) return Step::Memory;
    stream_.next_in = in.data();
    stream_.avail_in = in.size();
    stream_.next_out = out.data();
    stream_.avail_out = out.size();
    const lzma_ret code = ::lzma_code(&stream_, last ? LZMA_FINISH : LZMA_RUN);
    in = in.last(stream_.avail_in);
    out = out.last(stream_.avail_out);
    if (code == LZMA_STREAM_END) return Step::End;
    if (code == LZMA_MEM_ERROR || code == LZMA_MEMLIMIT_ERROR) return Step::Memory;
    return code == LZMA_OK || (code == LZMA_BUF_ERROR && !last) ? Step::More : Step::Damaged;
  }

 private:
  lzma_stream stream_ = LZMA_STREAM_INIT;
  bool ready_ = false;
};

class Zstd : public Unpacker {
 public:
  Zstd() : stream_(::ZSTD_createDStream(), ::ZSTD_freeDStream) {
    ready_ = stream_ && ::ZSTD_isError(::ZSTD_DCtx_setParameter(stream_.get(), ZSTD_d_windowLogMax, most_window)) == 0;
  }
  Step step(std::span<const uint8_t>& in, std::span<uint8_t>& out, bool last) override {
    if (!ready_) return Step::Memory;
    if (in.empty() && last && between_) return Step::End;
    ZSTD_inBuffer from{in.data(), in.size(), 0};
    ZSTD_outBuffer to{out.data(), out.size(), 0};
    const size_t code = ::ZSTD_decompressStream(stream_.get(), &to, &from);
    if (::ZSTD_isError(code) != 0) {
      const auto name = ::ZSTD_getErrorCode(code);
      return name == ZSTD_error_frameParameter_windowTooLarge || name == ZSTD_error_memory_allocation ? Step::Memory
                                                                                                      : Step::Damaged;
    }
    in = in.subspan(from.pos);
    out = out.subspan(to.pos);
    between_ = code == 0;
    return last && from.pos == 0 && to.pos == 0 && !between_ ? Step::Damaged : Step::More;
  }

 private:
  std::unique_ptr<ZSTD_DStream, size_t (*)(ZSTD_DStream*)> stream_;
  bool ready_ = false;
  bool between_ = false;  // frames
};

std::unique_ptr<Unpacker> unpacker(std::string_view kind) {
  if (kind == "gz") return std::make_unique<Gzip>();
  if (kind == "xz") return std::make_unique<Xz>();
  if (kind == "zst") return std::make_unique<Zstd>();
  return nullptr;
}

bool all_zero(std::span<const uint8_t> bytes) {
  return bytes[0] == 0 && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0;
}

// Leaves out what is zeroes: the file has a hole there.
int write_sparse(int to, uint64_t offset, std::span<const uint8_t> bytes) {
  while (!bytes.empty()) {
    const auto part = bytes.first(std::min(grain - offset % grain, bytes.size()));
    if (!all_zero(part)) {
      if (const int error = qcow2::write_at(to, offset, part)) return error;
    }
    offset += part.size();
    bytes = bytes.subspan(part.size());
  }
  return 0;
}

}  // namespace

Result<> unpack(int from, std::string_view kind, int to, const UnpackOptions& options) {
  const auto one = unpacker(kind);
  if (one == nullptr) return fail("it is packed by {}, which is unknown here; gz, xz and zst are known", kind);
  struct stat status {};
  if (::fstat(from, &status) != 0) return fail_errno(errno, "cannot read it");
  const auto total = static_cast<uint64_t>(status.st_size);
  std::vector<uint8_t> in(piece), out(piece);
  std::span<const uint8_t> rest;
  uint64_t taken = 0, made = 0;
  for (;;) {
    if (rest.empty() && taken < total) {
      const auto length = static_cast<size_t>(std::min<uint64_t>(piece, total - taken));
      if (const int error = qcow2::read_at(from, taken, {in.data(), length}))
        return fail_errno(error, "cannot read it");
      taken += length;
      rest = {in.data(), length};
    }
    std::span<uint8_t> room{out};
    const Step step = one->step(rest, room, taken == total);
    const size_t size = out.size() - room.size();
    if (size > options.most_bytes - made) {
      return fail("unpacked it has more than the {} bytes that are allowed", options.most_bytes);
    }
    if (size != 0) {
      if (const int error = write_sparse(to, made, {out.data(), size})) return fail_errno(error, "cannot unpack it");
    }
    made += size;
    if (options.progress) options.progress(taken - rest.size(), total);
    if (step == Step::Damaged) return fail("it is damaged, or not packed by {}", kind);
    if (step == Step::Memory) return fail("unpacking it takes more memory than {} MiB", most_memory >> 20);
    if (step == Step::End) break;
  }
  if (!rest.empty() || taken != total) return fail("something follows what is packed in it");
  if (::ftruncate(to, static_cast<off_t>(made)) != 0 || ::fsync(to) != 0) return fail_errno(errno, "cannot unpack it");
  return {};
}

}  // namespace caisson::cli
