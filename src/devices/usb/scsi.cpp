#include "devices/usb/scsi.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <string_view>

namespace caisson::usb {
namespace {

enum Command : uint8_t {
  test_unit_ready = 0x00,
  request_sense = 0x03,
  read_6 = 0x08,
  write_6 = 0x0a,
  inquiry_command = 0x12,
  mode_sense_6 = 0x1a,
  start_stop_unit = 0x1b,
  prevent_allow_removal = 0x1e,
  read_capacity_10 = 0x25,
  read_10 = 0x28,
  write_10 = 0x2a,
  verify_10 = 0x2f,
  synchronize_cache_10 = 0x35,
  mode_sense_10 = 0x5a,
  read_16 = 0x88,
  write_16 = 0x8a,
  synchronize_cache_16 = 0x91,
  service_action_in_16 = 0x9e,
  report_luns = 0xa0,
  read_12 = 0xa8,
  write_12 = 0xaa,
};
constexpr uint8_t action_read_capacity = 0x10;

constexpr uint8_t key_not_ready = 2, key_medium_error = 3, key_hardware_error = 4, key_illegal_request = 5,
                  key_data_protect = 7;
constexpr uint16_t code_write_error = 0x0c00, code_read_error = 0x1100, code_invalid_command = 0x2000,
                   code_out_of_range = 0x2100, code_invalid_field = 0x2400, code_protected = 0x2700,
                   code_no_space = 0x2707, code_no_medium = 0x3a00;

// How long a block is, by the group in its first byte (SPC-4, 4.2.5.1).
size_t length_of(uint8_t command) {
  constexpr std::array<uint8_t, 8> lengths{6, 10, 10, 0, 16, 12, 0, 0};
  return lengths[command >> 5];
}

uint64_t big(std::span<const uint8_t> bytes, size_t at, size_t width) {
  uint64_t value = 0;
  for (const uint8_t byte : bytes.subspan(at, width)) value = value << 8 | byte;
  return value;
}

void put_big(std::vector<uint8_t>& out, uint64_t value, unsigned width) {
  for (unsigned i = width; i-- > 0;) out.push_back(static_cast<uint8_t>(value >> (8 * i)));
}

void put_padded(std::vector<uint8_t>& out, std::string_view text, size_t width) {
  for (size_t i = 0; i < width; ++i) out.push_back(i < text.size() ? static_cast<uint8_t>(text[i]) : uint8_t{' '});
}

ScsiPlan answer(std::vector<uint8_t> bytes, size_t room) {
  bytes.resize(std::min(bytes.size(), room));
  if (bytes.empty()) return {};
  return {.kind = ScsiPlan::Kind::Answer, .bytes = std::move(bytes)};
}

}  // namespace

ScsiPlan ScsiDisk::check(uint8_t key, uint16_t code) {
  state_.sense_key = key;
  state_.sense_code = code;
  return {};
}

void ScsiDisk::failed(bool writing, int error) {
  if (error == ENOSPC) {
    check(key_data_protect, code_no_space);
  } else if (error == EROFS) {
    check(key_data_protect, code_protected);
  } else {
    check(key_medium_error, writing ? code_write_error : code_read_error);
  }
}

ScsiPlan ScsiDisk::start(std::span<const uint8_t> given) {
  // A block that is shorter than its command ends in zeroes.
  std::array<uint8_t, 16> command{};
  std::ranges::copy(given.first(std::min(given.size(), command.size())), command.begin());
  const uint8_t opcode = command[0];
  if (opcode == request_sense) {
    // SPC-4, 6.37: fixed format, whatever was asked for; it tells of itself afterwards.
    std::vector<uint8_t> sense(18);
    sense[0] = 0x70;
    sense[2] = state_.sense_key;
    sense[7] = 10;
    sense[12] = static_cast<uint8_t>(state_.sense_code >> 8);
    sense[13] = static_cast<uint8_t>(state_.sense_code);
    check(0, 0);
    return answer(std::move(sense), command[4]);
  }
  check(0, 0);
  if (given.size() < length_of(opcode)) return check(key_illegal_request, code_invalid_field);
  const bool of_medium = opcode != inquiry_command && opcode != report_luns && opcode != start_stop_unit &&
                         opcode != prevent_allow_removal && opcode != mode_sense_6 && opcode != mode_sense_10;
  if (state_.stopped && of_medium) return check(key_not_ready, code_no_medium);
  switch (opcode) {
    case test_unit_ready:
    case prevent_allow_removal: return {};
    case inquiry_command: return inquiry(command);
    case mode_sense_6: return mode_sense(command, false);
    case mode_sense_10: return mode_sense(command, true);
    case start_stop_unit:
      // SBC-3, 5.25: LOEJ and START; whatever else is asked for it runs.
      if ((command[4] & 2) != 0) state_.stopped = (command[4] & 1) == 0;
      return {.kind = ScsiPlan::Kind::Flush};
    case read_capacity_10: {
      std::vector<uint8_t> out;
      put_big(out, std::min<uint64_t>(blocks() - 1, 0xffff'ffff), 4);
      put_big(out, block, 4);
      return answer(std::move(out), out.size());
    }
    case service_action_in_16: {
      if ((command[1] & 0x1f) != action_read_capacity) return check(key_illegal_request, code_invalid_field);
      std::vector<uint8_t> out;
      put_big(out, blocks() - 1, 8);
      put_big(out, block, 4);
      out.resize(32);
      return answer(std::move(out), big(command, 10, 4));
    }
    case read_6:
    case write_6: {
      const uint64_t count = command[4] == 0 ? 256 : command[4];
      return transfer(opcode == write_6, big(command, 1, 3) & 0x1f'ffff, count);
    }
    case read_10:
    case write_10: return transfer(opcode == write_10, big(command, 2, 4), big(command, 7, 2));
    case read_12:
    case write_12: return transfer(opcode == write_12, big(command, 2, 4), big(command, 6, 4));
    case read_16:
    case write_16: return transfer(opcode == write_16, big(command, 2, 8), big(command, 10, 4));
    case verify_10: {
      // SBC-3, 5.37: without BYTCHK nothing moves.
      const uint64_t first = big(command, 2, 4), count = big(command, 7, 2);
      if ((command[1] & 6) != 0) return check(key_illegal_request, code_invalid_field);
      if (first > blocks() || count > blocks() - first) return check(key_illegal_request, code_out_of_range);
      return {};
    }
    case synchronize_cache_10:
    case synchronize_cache_16: return {.kind = ScsiPlan::Kind::Flush};
    case report_luns: {
      std::vector<uint8_t> out;
      put_big(out, 8, 4);
      out.resize(16);
      return answer(std::move(out), big(command, 6, 4));
    }
    default: return check(key_illegal_request, code_invalid_command);
  }
}

ScsiPlan ScsiDisk::transfer(bool writes, uint64_t first, uint64_t count) {
  if (first > blocks() || count > blocks() - first) return check(key_illegal_request, code_out_of_range);
  if (writes && image_.read_only()) return check(key_data_protect, code_protected);
  if (count > most_blocks) return check(key_illegal_request, code_invalid_field);
  if (count == 0) return {};
  return {
      .kind = writes ? ScsiPlan::Kind::Write : ScsiPlan::Kind::Read, .offset = first * block, .length = count * block};
}

// SPC-4, 6.6
ScsiPlan ScsiDisk::inquiry(std::span<const uint8_t> command) {
  const size_t room = big(command, 3, 2);
  if ((command[1] & 1) != 0) return vital_page(command[2], room);
  if (command[2] != 0) return check(key_illegal_request, code_invalid_field);
  std::vector<uint8_t> out{0, 0x80, 6, 2, 31, 0, 0, 0};  // a disk, removable, SPC-4
  put_padded(out, "CAISSON", 8);
  put_padded(out, "USB STICK", 16);
  put_padded(out, "1", 4);
  return answer(std::move(out), room);
}

// SPC-4, 7.8; SBC-3, 6.5
ScsiPlan ScsiDisk::vital_page(uint8_t page, size_t room) {
  std::vector<uint8_t> body;
  switch (page) {
    case 0x00: body = {0x00, 0x80, 0x83, 0xb0, 0xb1}; break;
    case 0x80: body.assign(serial_.begin(), serial_.end()); break;
    case 0x83:
      body = {2, 1, 0, static_cast<uint8_t>(8 + serial_.size())};  // ASCII: by vendor and serial number
      put_padded(body, "CAISSON", 8);
      body.insert(body.end(), serial_.begin(), serial_.end());
      break;
    case 0xb0:
      body.assign(60, 0);
      body[4] = static_cast<uint8_t>(most_blocks >> 24);
      body[5] = static_cast<uint8_t>(most_blocks >> 16);
      break;
    case 0xb1:
      body.assign(60, 0);
      body[1] = 1;  // it does not rotate
      break;
    default: return check(key_illegal_request, code_invalid_field);
  }
  std::vector<uint8_t> out{0, page};
  put_big(out, body.size(), 2);
  out.insert(out.end(), body.begin(), body.end());
  return answer(std::move(out), room);
}

// SPC-4, 6.11 and 7.5; SBC-3, 6.4
ScsiPlan ScsiDisk::mode_sense(std::span<const uint8_t> command, bool ten) {
  const uint8_t page = command[2] & 0x3f, control = command[2] >> 6;
  if (control == 3) return check(key_illegal_request, 0x3900);  // nothing is saved
  std::vector<uint8_t> pages;
  if (page == 0x08 || page == 0x3f) {
    pages.assign(20, 0);  // caching, with everything off
    pages[0] = 0x08;
    pages[1] = 18;
  }
  if (pages.empty() && page != 0) return check(key_illegal_request, code_invalid_field);
  const uint8_t protection = image_.read_only() ? 0x80 : 0;
  std::vector<uint8_t> out;
  if (ten) {
    put_big(out, 6 + pages.size(), 2);
    out.insert(out.end(), {0, protection, 0, 0, 0, 0});
  } else {
    out = {static_cast<uint8_t>(3 + pages.size()), 0, protection, 0};
  }
  out.insert(out.end(), pages.begin(), pages.end());
  return answer(std::move(out), ten ? big(command, 7, 2) : command[4]);
}

}  // namespace caisson::usb
