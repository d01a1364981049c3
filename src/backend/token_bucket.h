// A rate that may be used up in bursts: a bucket fills with tokens at the rate, up to its depth, and what happens takes
// tokens out. Whoever finds any may take more than there are, and those after it wait until that is made good: so what
// is larger than the bucket passes, too, and the rate holds over time.
//   Units    tokens are what the rate counts (bytes, operations); times are nanoseconds of one monotonic clock
//   Threads  the owner's
#pragma once

#include <algorithm>
#include <cstdint>

namespace caisson {

class TokenBucket {
 public:
  static constexpr uint64_t most_per_s = uint64_t{1} << 50;

  // `per_s`: 0 for no limit, at most most_per_s. `depth`: 1 or more. It starts full.
  TokenBucket(uint64_t per_s, uint64_t depth, uint64_t now_ns)
      : per_s_(std::min(per_s, most_per_s)), depth_(static_cast<double>(depth)), tokens_(depth_), at_ns_(now_ns) {}
  TokenBucket() = default;  // no limit

  // When something may be taken: `now_ns` or earlier for at once.
  [[nodiscard]] uint64_t ready_at(uint64_t now_ns) {
    if (per_s_ == 0) return 0;
    fill(now_ns);
    if (tokens_ >= 1) return now_ns;
    // A nanosecond more than the exact time, so that who comes back then finds a whole token.
    return now_ns + static_cast<uint64_t>((1 - tokens_) * 1e9 / static_cast<double>(per_s_)) + 1;
  }

  void take(uint64_t now_ns, uint64_t tokens) {
    if (per_s_ == 0) return;
    fill(now_ns);
    tokens_ -= static_cast<double>(tokens);
  }

 private:
  void fill(uint64_t now_ns) {
    if (now_ns <= at_ns_) return;
    const double filled = static_cast<double>(now_ns - at_ns_) * 1e-9 * static_cast<double>(per_s_);
    tokens_ = std::min(depth_, tokens_ + filled);
    at_ns_ = now_ns;
  }

  uint64_t per_s_ = 0;
  double depth_ = 0;
  double tokens_ = 0;
  uint64_t at_ns_ = 0;
};

// Bytes and operations (packets) at once: what is over one of them waits.
struct RateLimit {
  uint64_t bytes_per_s = 0;  // 0: as many as there are
  uint64_t ops_per_s = 0;
  bool operator==(const RateLimit&) const = default;
  [[nodiscard]] bool none() const { return bytes_per_s == 0 && ops_per_s == 0; }
};

class RateLimiter {
 public:
  // So much may come at once after a rest: what the rate gives in a tenth of a second.
  static constexpr uint64_t bursts_per_s = 10;

  RateLimiter() = default;
  RateLimiter(const RateLimit& limit, uint64_t now_ns)
      : bytes_(limit.bytes_per_s, depth(limit.bytes_per_s), now_ns),
        ops_(limit.ops_per_s, depth(limit.ops_per_s), now_ns) {}

  [[nodiscard]] uint64_t ready_at(uint64_t now_ns) { return std::max(bytes_.ready_at(now_ns), ops_.ready_at(now_ns)); }
  // One operation of so many bytes.
  void take(uint64_t now_ns, uint64_t bytes) {
    bytes_.take(now_ns, bytes);
    ops_.take(now_ns, 1);
  }

 private:
  static uint64_t depth(uint64_t per_s) { return std::max<uint64_t>(1, per_s / bursts_per_s); }

  TokenBucket bytes_, ops_;
};

}  // namespace caisson
