#include "devices/storage/ata_disk.h"

#include <algorithm>
#include <bit>

namespace caisson::storage {

// ACS-3, 7, in the order of their codes.
enum class AtaDisk::Command : uint8_t {
  data_set_management = 0x06,
  read_sectors = 0x20,
  read_sectors_ext = 0x24,
  read_dma_ext = 0x25,
  read_native_max_ext = 0x27,
  read_multiple_ext = 0x29,
  write_sectors = 0x30,
  write_sectors_ext = 0x34,
  write_dma_ext = 0x35,
  write_multiple_ext = 0x39,
  write_dma_fua_ext = 0x3d,
  read_verify = 0x40,
  read_verify_ext = 0x42,
  diagnose = 0x90,
  set_parameters = 0x91,
  read_multiple = 0xc4,
  write_multiple = 0xc5,
  set_multiple = 0xc6,
  read_dma = 0xc8,
  write_dma = 0xca,
  standby_immediate = 0xe0,
  idle_immediate = 0xe1,
  standby = 0xe2,
  idle = 0xe3,
  check_power_mode = 0xe5,
  flush = 0xe7,
  flush_ext = 0xea,
  identify_device = 0xec,
  set_features = 0xef,
  read_native_max = 0xf8,
};

struct AtaDisk::Transfer {
  AtaPlan::Kind kind;
  bool wide = false;  // 48 bit addresses
  bool pio = false;
  bool to_medium = false;  // FUA
};

namespace {

constexpr uint8_t device_lba = 1 << 6;
constexpr uint64_t short_addresses = (1u << 28) - 1;
constexpr unsigned most_per_multiple = 16;

AtaPlan done(AtaResult result = {}) { return {.kind = AtaPlan::Kind::Done, .result = result}; }
AtaPlan refuse(uint8_t error) { return done({.status = status_good | status_error, .error = error}); }

}  // namespace

AtaPlan AtaDisk::start(const AtaCommand& command) {
  using Kind = AtaPlan::Kind;
  switch (static_cast<Command>(command.command)) {
    case Command::read_dma: return transfer(command, {.kind = Kind::Read});
    case Command::read_dma_ext: return transfer(command, {.kind = Kind::Read, .wide = true});
    case Command::read_sectors:
    case Command::read_multiple: return transfer(command, {.kind = Kind::Read, .pio = true});
    case Command::read_sectors_ext:
    case Command::read_multiple_ext: return transfer(command, {.kind = Kind::Read, .wide = true, .pio = true});
    case Command::write_dma: return transfer(command, {.kind = Kind::Write});
    case Command::write_dma_ext: return transfer(command, {.kind = Kind::Write, .wide = true});
    case Command::write_dma_fua_ext: return transfer(command, {.kind = Kind::Write, .wide = true, .to_medium = true});
    case Command::write_sectors:
    case Command::write_multiple: return transfer(command, {.kind = Kind::Write, .pio = true});
    case Command::write_sectors_ext:
    case Command::write_multiple_ext: return transfer(command, {.kind = Kind::Write, .wide = true, .pio = true});
    case Command::read_verify: return transfer(command, {.kind = Kind::Done});
    case Command::read_verify_ext: return transfer(command, {.kind = Kind::Done, .wide = true});

    case Command::flush:
    case Command::flush_ext: return {.kind = Kind::Flush};
    case Command::data_set_management:
      // 7.5: TRIM is the only function; `count` blocks of ranges follow.
      if ((command.features & 0xff) != 1 || command.count == 0 || command.count > 8 || image_.read_only()) break;
      return {.kind = Kind::DataOut, .length = uint64_t{command.count} * ata_sector};

    case Command::identify_device: return identify();
    case Command::set_features: return set_features(command);
    case Command::read_native_max: return done({.lba = std::min(sectors() - 1, short_addresses), .device = device_lba});
    case Command::read_native_max_ext: return done({.lba = sectors() - 1, .device = device_lba});
    case Command::set_multiple:
      if (command.count > most_per_multiple || !std::has_single_bit(command.count | 0u)) break;
      return done();
    case Command::check_power_mode: return done({.count = 0xff});  // active
    case Command::diagnose: {
      AtaResult passed = signature();
      passed.error = 1;
      return done(passed);
    }
    case Command::set_parameters:
    case Command::standby_immediate:
    case Command::idle_immediate:
    case Command::standby:
    case Command::idle: return done();
  }
  return refuse(error_abort);
}

AtaPlan AtaDisk::transfer(const AtaCommand& command, const Transfer& kind) {
  if ((command.device & device_lba) == 0) return refuse(error_abort);  // no cylinders and heads
  const uint64_t lba = kind.wide ? command.lba : (command.lba & 0xff'ffff) | uint64_t{command.device & 0xfu} << 24;
  uint64_t count = kind.wide ? command.count : command.count & 0xffu;
  if (count == 0) count = kind.wide ? 65536 : 256;
  if (lba > sectors() || count > sectors() - lba) return refuse(error_no_such_address);
  if (kind.kind == AtaPlan::Kind::Write && image_.read_only()) return refuse(error_abort);
  return {.kind = kind.kind,
          .result = {.lba = lba + count - 1, .device = command.device},
          .offset = lba * ata_sector,
          .length = count * ata_sector,
          .pio = kind.pio,
          .flush_after = kind.to_medium || !state_.write_cache};
}

AtaPlan AtaDisk::data_out(const AtaCommand&, std::span<const uint8_t> bytes) {
  // 7.5.3: each range is 48 bits of address and 16 of count; those with count 0 are padding.
  AtaPlan plan{.kind = AtaPlan::Kind::Discard};
  for (size_t at = 0; at + 8 <= bytes.size(); at += 8) {
    uint64_t entry = 0;
    for (unsigned i = 0; i < 8; ++i) entry |= uint64_t{bytes[at + i]} << (8 * i);
    const uint64_t lba = entry & 0xffff'ffff'ffff, count = entry >> 48;
    if (count == 0) continue;
    if (lba > sectors() || count > sectors() - lba) return refuse(error_no_such_address);
    plan.ranges.push_back({lba * ata_sector, count * ata_sector});
  }
  return plan.ranges.empty() ? done() : plan;
}

AtaResult AtaDisk::failed(const AtaCommand& command, int) {
  return {.status = status_good | status_error, .error = error_uncorrectable, .lba = command.lba};
}

// 7.12.7
AtaPlan AtaDisk::identify() const {
  IdentifyData data;
  const uint64_t addresses = std::min(sectors(), short_addresses);
  data.word(0, 0x0040);  // not removable
  data.word(1, static_cast<unsigned>(std::clamp<uint64_t>(sectors() / (16 * 63), 2, 16383)));
  data.word(3, 16);
  data.word(6, 63);
  data.text(10, 10, serial_.empty() ? image_.id() : std::string_view{serial_});
  data.text(23, 4, "1.0");
  data.text(27, 20, "CAISSON HARDDISK");
  data.word(47, 0x8000 | most_per_multiple);
  data.word(49, 0x0f00);  // LBA, DMA, IORDY
  data.word(50, 0x4000);
  data.word(53, 0x0006);  // words 64 to 70 and 88 are valid
  data.word(59, 0x0100 | most_per_multiple);
  data.word(60, static_cast<unsigned>(addresses & 0xffff));
  data.word(61, static_cast<unsigned>(addresses >> 16));
  data.word(63, 0x0007);                                  // multiword DMA 0 to 2
  data.word(64, 0x0003);                                  // PIO 3 and 4
  for (unsigned i = 65; i <= 68; ++i) data.word(i, 120);  // cycle times in ns
  data.word(69, image_.read_only() ? 0 : 0x4020);         // TRIM is deterministic
  data.word(75, 0);                                       // no queue
  data.word(76, 0x000e);                                  // 1.5, 3 and 6 Gb/s
  data.word(80, 0x01f0);                                  // ATA/ATAPI-4 to ACS-3's predecessors
  data.word(82, 0x4020);                                  // write cache
  data.word(83, 0x7400);                                  // 48 bit addresses, both flushes
  data.word(84, 0x4040);                                  // FUA
  data.word(85, 0x4000 | (state_.write_cache ? 0x20u : 0u));
  data.word(86, 0x3400);
  data.word(87, 0x4040);
  data.word(88, 0x203f);  // Ultra DMA 0 to 5; 5 is selected
  data.word(93, 0);       // Serial ATA
  for (unsigned i = 0; i < 4; ++i) data.word(100 + i, static_cast<unsigned>(sectors() >> (16 * i) & 0xffff));
  // A physical block holds 2^n logical ones (7.12.7.58).
  data.word(106, 0x6000 | (static_cast<unsigned>(std::bit_width(image_.block_size() / ata_sector)) - 1));
  data.word(105, 8);                             // blocks of one TRIM
  data.word(169, image_.read_only() ? 0u : 1u);  // TRIM
  data.word(217, 1);                             // does not rotate
  data.word(222, 0x1020);                        // Serial ATA 2.6 or later
  return {.kind = AtaPlan::Kind::DataIn, .bytes = data.take(), .pio = true};
}

AtaPlan AtaDisk::set_features(const AtaCommand& command) {
  switch (command.features & 0xff) {  // 7.44
    case 0x02: state_.write_cache = true; return done();
    case 0x82: {
      state_.write_cache = false;
      return {.kind = AtaPlan::Kind::Flush};
    }
    case 0x03:  // transfer mode: all are as fast
    case 0x05:
    case 0x85:  // power management
    case 0x10:
    case 0x90:  // Serial ATA features
    case 0x55:
    case 0xaa:  // read look-ahead
    case 0x66:
    case 0xcc: return done();  // what stays over a software reset
    default: return refuse(error_abort);
  }
}

AtaResult AtaDisk::signature() const { return {.status = status_good, .error = 1, .lba = 1, .count = 1}; }

}  // namespace caisson::storage
