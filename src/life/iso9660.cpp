#include "life/iso9660.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <ctime>

#include <fmt/format.h>

namespace caisson::life {
namespace {

constexpr size_t sector = 2048;
// ECMA-119, 6.2.1: the first 16 sectors are the system's. Then ours, in this order.
constexpr uint32_t at_primary = 16, at_terminator = 17, at_little_table = 18, at_big_table = 19, at_root = 20,
                   at_files = 21;

// A record or sector that is being written.
class Bytes {
 public:
  void byte(uint8_t value) { text_.push_back(static_cast<char>(value)); }
  void text(std::string_view value) { text_ += value; }
  void padded(std::string_view value, size_t size, char with = ' ') {
    text_ += value.substr(0, size);
    if (value.size() < size) text_.append(size - value.size(), with);
  }
  void zeroes(size_t count) { text_.append(count, '\0'); }
  void little(uint32_t value, unsigned size) {
    for (unsigned index = 0; index < size; ++index) byte(static_cast<uint8_t>(value >> (8 * index)));
  }
  void big(uint32_t value, unsigned size) {
    for (unsigned index = size; index > 0; --index) byte(static_cast<uint8_t>(value >> (8 * (index - 1))));
  }
  // 7.2.3 and 7.3.3: both orders, one after the other.
  void both(uint32_t value, unsigned size = 4) {
    little(value, size);
    big(value, size);
  }
  void fill(size_t size) { text_.resize(size, '\0'); }
  [[nodiscard]] size_t size() const { return text_.size(); }
  [[nodiscard]] const std::string& taken() const { return text_; }

 private:
  std::string text_;
};

tm utc(uint64_t made_ms) {
  const auto seconds = static_cast<time_t>(made_ms / 1000);
  tm time{};
  ::gmtime_r(&seconds, &time);
  return time;
}

// 9.1.5: years since 1900, and the rest of the time in one byte each.
void record_time(Bytes& to, const tm& time) {
  for (const int part : {time.tm_year, time.tm_mon + 1, time.tm_mday, time.tm_hour, time.tm_min, time.tm_sec, 0}) {
    to.byte(static_cast<uint8_t>(part));
  }
}
// 8.4.26.1: digits, down to hundredths of seconds, and the zone.
void volume_time(Bytes& to, const tm& time) {
  to.text(fmt::format("{:04}{:02}{:02}{:02}{:02}{:02}00", time.tm_year + 1900, time.tm_mon + 1, time.tm_mday,
                      time.tm_hour, time.tm_min, time.tm_sec));
  to.byte(0);
}

struct Record {
  uint32_t at;    // sector
  uint32_t size;  // bytes
  std::string_view identifier;
  bool folder = false;
  bool first = false;  // of the root folder: says that Rock Ridge follows
  std::string_view real_name{};
};

// 9.1, and behind the identifier what SUSP calls the system use area.
void directory_record(Bytes& to, const Record& record, const tm& time) {
  Bytes use;
  if (record.first) {
    // SUSP 5.3, SP: its check bytes, and none to skip. 5.5, ER: RRIP's identifier, without description and source.
    use.text("SP");
    for (const int value : {7, 1, 0xbe, 0xef, 0}) use.byte(static_cast<uint8_t>(value));
    constexpr std::string_view extension = "RRIP_1991A";
    use.text("ER");
    for (const size_t value : {8 + extension.size(), size_t{1}, extension.size(), size_t{0}, size_t{0}, size_t{1}}) {
      use.byte(static_cast<uint8_t>(value));
    }
    use.text(extension);
  }
  // RRIP 4.1.1, PX: mode as stat() has it, links, owner, group.
  use.text("PX");
  use.byte(36);
  use.byte(1);
  use.both(record.folder ? 0040555 : 0100444);
  use.both(record.folder ? 2 : 1);
  use.both(0);
  use.both(0);
  if (!record.real_name.empty()) {
    // RRIP 4.1.4, NM.
    use.text("NM");
    use.byte(static_cast<uint8_t>(5 + record.real_name.size()));
    use.byte(1);
    use.byte(0);
    use.text(record.real_name);
  }
  if (use.size() % 2 != 0) use.byte(0);
  const size_t padding = record.identifier.size() % 2 == 0 ? 1 : 0;
  to.byte(static_cast<uint8_t>(33 + record.identifier.size() + padding + use.size()));
  to.byte(0);
  to.both(record.at);
  to.both(record.size);
  record_time(to, time);
  to.byte(record.folder ? 2 : 0);
  to.zeroes(2);
  to.both(1, 2);
  to.byte(static_cast<uint8_t>(record.identifier.size()));
  to.text(record.identifier);
  to.zeroes(padding);
  to.text(use.taken());
}

constexpr std::string_view itself{"\0", 1}, parent{"\1", 1};

// 8.4.18: that of the volume descriptor has nothing but the first record's beginning.
void root_record(Bytes& to, const tm& time) {
  to.byte(34);
  to.byte(0);
  to.both(at_root);
  to.both(sector);
  record_time(to, time);
  to.byte(2);
  to.zeroes(2);
  to.both(1, 2);
  to.byte(1);
  to.byte(0);
}

// 8.4
std::string primary_descriptor(std::string_view label, uint32_t sectors, const tm& time) {
  Bytes to;
  to.byte(1);
  to.text("CD001");
  to.byte(1);
  to.byte(0);
  to.padded("LINUX", 32);
  to.padded(label, 32);
  to.zeroes(8);
  to.both(sectors);
  to.zeroes(32);
  to.both(1, 2);
  to.both(1, 2);
  to.both(sector, 2);
  to.both(10);  // bytes of a path table
  to.little(at_little_table, 4);
  to.little(0, 4);
  to.big(at_big_table, 4);
  to.big(0, 4);
  root_record(to, time);
  to.padded("", 128);
  to.padded("", 128);
  to.padded("", 128);
  to.padded("CAISSON", 128);
  for (int file = 0; file < 3; ++file) to.padded("", 37);
  volume_time(to, time);
  volume_time(to, time);
  for (int none = 0; none < 2; ++none) {
    to.padded("", 16, '0');
    to.byte(0);
  }
  to.byte(1);
  to.fill(sector);
  return to.taken();
}

// 9.4: one record, the root's.
std::string path_table(bool little) {
  Bytes to;
  to.byte(1);
  to.byte(0);
  little ? to.little(at_root, 4) : to.big(at_root, 4);
  little ? to.little(1, 2) : to.big(1, 2);
  to.zeroes(2);
  to.fill(sector);
  return to.taken();
}

uint32_t sectors_of(size_t bytes) { return static_cast<uint32_t>((bytes + sector - 1) / sector); }

}  // namespace

Result<std::string> make_iso(std::string_view label, const std::vector<IsoFile>& files, uint64_t made_ms) {
  const auto fits = [](unsigned char c) { return (c >= 'A' && c <= 'Z') || std::isdigit(c) != 0 || c == '_'; };
  if (label.empty() || label.size() > 32 || !std::ranges::all_of(label, fits))
    return fail("{}: no label of a disc", label);
  if (files.size() > max_iso_files) return fail("{} files, at most {} fit on this disc", files.size(), max_iso_files);
  size_t total = 0;
  for (const IsoFile& file : files) {
    if (file.name.empty() || file.name.size() > 64 || file.name.find('/') != std::string::npos) {
      return fail("{}: no name of a file on a disc", file.name);
    }
    if (file.content.size() > max_iso_bytes - total) return fail("more than {} MiB for a disc", max_iso_bytes >> 20);
    total += file.content.size();
  }
  const tm time = utc(made_ms);
  Bytes root;
  directory_record(root, {.at = at_root, .size = sector, .identifier = itself, .folder = true, .first = true}, time);
  directory_record(root, {.at = at_root, .size = sector, .identifier = parent, .folder = true}, time);
  uint32_t next = at_files;
  std::string contents;
  for (size_t index = 0; index < files.size(); ++index) {
    const std::string& content = files[index].content;
    // 10.1: eight characters, a point, three, and the version. Rock Ridge has the real name.
    const std::string identifier = fmt::format("FILE{:04}.;1", index);
    directory_record(root,
                     {.at = next,
                      .size = static_cast<uint32_t>(content.size()),
                      .identifier = identifier,
                      .real_name = files[index].name},
                     time);
    next += sectors_of(content.size());
    contents += content;
    contents.resize((next - at_files) * sector, '\0');
  }
  if (root.size() > sector) return fail("the files' names are too long for this disc");
  root.fill(sector);
  std::string disc(at_primary * sector, '\0');
  disc += primary_descriptor(label, next, time);
  Bytes terminator;  // 8.3
  terminator.byte(255);
  terminator.text("CD001");
  terminator.byte(1);
  terminator.fill(sector);
  static_assert(at_terminator == at_primary + 1 && at_little_table == at_terminator + 1);
  disc += terminator.taken();
  disc += path_table(true);
  disc += path_table(false);
  disc += root.taken();
  disc += contents;
  return disc;
}

}  // namespace caisson::life
