#include "cli/limit_options.h"

#include "cli/numbers.h"
#include "control/vm_config.h"

namespace caisson::cli {
namespace {

constexpr std::string_view example = "write for example bps=50M or bps=10M,";

// All of them, or "none". What is not given has no limit.
Result<control::RateLimit> parse_rates(std::string_view option, std::string_view operations, std::string_view text) {
  control::RateLimit limit;
  if (text == "none") return limit;
  for (const std::string_view word : split(text)) {
    const auto taken = take_rate(option, operations, word, limit);
    if (!taken) return std::unexpected(taken.error());
    if (!*taken) return fail("{} {}: {}{}=1000, or none", option, text, example, operations);
  }
  return limit;
}

}  // namespace

Result<bool> take_rate(std::string_view option, std::string_view operations, std::string_view word,
                       control::RateLimit& limit) {
  const size_t equals = word.find('=');
  if (equals == std::string_view::npos) return false;
  const std::string_view name = word.substr(0, equals), value = word.substr(equals + 1);
  if (name != "bps" && name != operations) return false;
  const auto number = name == "bps" ? parse_bytes(value, 0) : parse_number<uint64_t>(value);
  if (!number || *number == 0 || *number > control::RateLimit::most) {
    return fail("{} {}: not a number of {} in a second; {}{}=1000", option, word,
                name == "bps" ? "bytes" : "operations", example, operations);
  }
  (name == "bps" ? limit.bytes_per_s : limit.ops_per_s) = *number;
  return true;
}

Result<control::DiskLimit> parse_disk_limit(std::string_view text) {
  // A file's name may have commas: the words at the end are ours.
  size_t rest = text.size();
  for (size_t comma = text.rfind(','); comma != std::string_view::npos && comma != 0;
       comma = text.rfind(',', comma - 1)) {
    const std::string_view word = text.substr(comma + 1, rest - comma - 1);
    if (word != "none" && !word.starts_with("bps=") && !word.starts_with("iops=")) break;
    rest = comma;
  }
  if (rest == text.size() || rest == 0) {
    return fail("--disk-limit {}: write DISK,bps=50M or DISK,iops=1000 or DISK,none; caisson inspect lists the disks",
                text);
  }
  const auto limit = parse_rates("--disk-limit", "iops", text.substr(rest + 1));
  if (!limit) return std::unexpected(limit.error());
  return control::DiskLimit{std::string{text.substr(0, rest)}, *limit};
}

Result<control::RateLimit> parse_net_limit(std::string_view text) { return parse_rates("--net-limit", "pps", text); }

Result<uint32_t> parse_cpu_cap(std::string_view text) {
  if (text == "none") return 0;
  const auto percent = text.ends_with('%') ? parse_number<uint32_t>(text.substr(0, text.size() - 1)) : std::nullopt;
  if (!percent || *percent == 0 || *percent > control::max_cpu_cap_percent) {
    return fail("--cpu-cap {}: write 50% for half a CPU of the host, 150% for one and a half, or none", text);
  }
  return *percent;
}

Result<uint32_t> parse_cpu_share(std::string_view text) {
  const auto share = parse_number<uint32_t>(text);
  if (!share || *share == 0 || *share > control::max_cpu_share) {
    return fail("--cpu-share {}: write 1 to {}; the usual share is {}", text, control::max_cpu_share,
                control::usual_cpu_share);
  }
  return *share;
}

Result<uint64_t> parse_memory_now(std::string_view text) {
  const auto bytes = parse_bytes(text, 20);
  using control::VmConfig;
  if (!bytes || *bytes % (1 << 20) != 0 || *bytes < VmConfig::min_memory || *bytes > VmConfig::max_memory) {
    return fail("--memory-now {}: not a size of memory; write for example 256M, at least {}M", text,
                VmConfig::min_memory >> 20);
  }
  return *bytes;
}

}  // namespace caisson::cli
