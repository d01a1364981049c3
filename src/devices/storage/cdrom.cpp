#include "devices/storage/cdrom.h"

#include <algorithm>

namespace caisson::storage {
namespace {

// ACS-3, 7.
constexpr uint8_t ata_device_reset = 0x08, ata_diagnose = 0x90, ata_packet = 0xa0, ata_identify_packet = 0xa1,
                  ata_standby_immediate = 0xe0, ata_idle_immediate = 0xe1, ata_check_power = 0xe5, ata_identify = 0xec,
                  ata_set_features = 0xef;

// MMC-6, 6 and SPC-4, 6.
enum PacketCommand : uint8_t {
  test_unit_ready = 0x00,
  request_sense_command = 0x03,
  inquiry_command = 0x12,
  mode_sense_6 = 0x1a,
  start_stop_unit = 0x1b,
  prevent_allow = 0x1e,
  read_capacity = 0x25,
  read_10 = 0x28,
  seek_10 = 0x2b,
  read_toc_command = 0x43,
  get_configuration_command = 0x46,
  get_event_status = 0x4a,
  read_disc_information = 0x51,
  mode_sense_10 = 0x5a,
  report_luns = 0xa0,
  read_12 = 0xa8,
  set_cd_speed = 0xbb,
  mechanism_status = 0xbd,
  read_cd_command = 0xbe,
};

// Sense keys (SPC-4, 4.5.6) and additional codes with qualifiers (annex D).
constexpr uint8_t key_none = 0, key_not_ready = 2, key_medium_error = 3, key_illegal_request = 5,
                  key_unit_attention = 6;
constexpr uint16_t code_unrecovered = 0x1100, code_invalid_command = 0x2000, code_out_of_range = 0x2100,
                   code_invalid_field = 0x2400, code_medium_changed = 0x2800, code_no_medium = 0x3a00,
                   code_tray_open = 0x3a02, code_removal_prevented = 0x5302;

// Interrupt reason in the count register after the end of a packet command: IO and CD.
constexpr uint16_t reason_end = 3;

constexpr uint16_t profile_cd_rom = 0x0008, profile_dvd_rom = 0x0010;
constexpr uint64_t largest_cd = 360'000;  // blocks of an 80 minute CD; what is larger is a DVD

uint32_t big(std::span<const uint8_t> bytes) {
  uint32_t value = 0;
  for (const uint8_t byte : bytes) value = value << 8 | byte;
  return value;
}

void put_big(std::vector<uint8_t>& out, uint64_t value, unsigned width) {
  for (unsigned i = width; i-- > 0;) out.push_back(static_cast<uint8_t>(value >> (8 * i)));
}

// An address as the guest asked for: a block number, or minute, second and frame (MMC-6, 6.25.3.2).
void put_address(std::vector<uint8_t>& out, uint64_t lba, bool msf) {
  if (!msf) return put_big(out, lba, 4);
  const uint64_t frame = lba + 150;
  put_big(out, (frame / 75 / 60 & 0xff) << 16 | (frame / 75 % 60) << 8 | frame % 75, 4);
}

AtaPlan ended(AtaResult result = {.count = reason_end}) { return {.kind = AtaPlan::Kind::Done, .result = result}; }

}  // namespace

void Cdrom::reset() {
  state_.locked = false;
  state_.sense_key = key_none;
  state_.sense_code = 0;
}

AtaResult Cdrom::signature() const { return {.status = 0, .error = 1, .lba = 0xeb1401, .count = 1}; }

AtaPlan Cdrom::start(const AtaCommand& command) {
  constexpr AtaResult aborted{.status = status_good | status_error, .error = error_abort};
  switch (command.command) {
    case ata_packet: {
      if (!command.has_packet) break;
      AtaPlan plan = packet(command.packet);
      // Without the DMA bit data comes with PIO's frames.
      plan.pio =
          (command.features & 1) == 0 && (plan.kind == AtaPlan::Kind::DataIn || plan.kind == AtaPlan::Kind::Read);
      return plan;
    }
    case ata_identify_packet: return identify();
    case ata_identify: {
      // A packet device aborts it with its signature (ACS-3, 7.12.2).
      AtaResult result = signature();
      result.status = aborted.status;
      result.error = aborted.error;
      return ended(result);
    }
    case ata_diagnose:
    case ata_device_reset: reset(); return ended(signature());
    case ata_set_features: return (command.features & 0xff) == 0x03 ? ended({}) : ended(aborted);
    case ata_check_power: return ended({.count = 0xff});
    case ata_standby_immediate:
    case ata_idle_immediate: return ended({});
    default: break;
  }
  return ended(aborted);
}

AtaPlan Cdrom::data_out(const AtaCommand&, std::span<const uint8_t>) {
  return check(key_illegal_request, code_invalid_command);
}

AtaResult Cdrom::failed(const AtaCommand&, int) {
  std::ignore = check(key_medium_error, code_unrecovered);
  return checked();
}

AtaResult Cdrom::checked() const {
  return {.status = status_good | status_error,
          .error = static_cast<uint8_t>(state_.sense_key << 4 | error_abort),
          .count = reason_end};
}

AtaPlan Cdrom::check(uint8_t key, uint16_t code) {
  state_.sense_key = key;
  state_.sense_code = code;
  return ended(checked());
}

AtaPlan Cdrom::answer(std::vector<uint8_t> bytes, size_t most) const {
  bytes.resize(std::min(bytes.size(), most));
  if (bytes.empty()) return ended();
  const auto length = static_cast<uint64_t>(bytes.size());
  return {.kind = AtaPlan::Kind::DataIn,
          .result = {.lba = length << 8 & 0xffff00, .count = reason_end},  // byte count
          .bytes = std::move(bytes)};
}

// 7.13
AtaPlan Cdrom::identify() const {
  IdentifyData data;
  data.word(0, 0x8580);  // CD-ROM, removable, packets of 12 bytes, DRQ within 50 µs
  data.text(10, 10, "CAISSON-CD");
  data.text(23, 4, "1.0");
  data.text(27, 20, "CAISSON CD-ROM");
  data.word(49, 0x0f00);
  data.word(53, 0x0006);
  data.word(63, 0x0007);
  data.word(64, 0x0003);
  for (unsigned i = 65; i <= 68; ++i) data.word(i, 120);
  data.word(76, 0x000e);
  data.word(80, 0x01f0);
  data.word(82, 0x4010);  // PACKET
  data.word(83, 0x4000);
  data.word(84, 0x4000);
  data.word(85, 0x4010);
  data.word(87, 0x4000);
  data.word(88, 0x203f);
  return {.kind = AtaPlan::Kind::DataIn, .bytes = data.take(), .pio = true};
}

AtaPlan Cdrom::packet(const Packet& packet) {
  const uint8_t command = packet[0];
  // These answer in any case and leave sense data and attention alone (SPC-4, 5.14).
  switch (command) {
    case inquiry_command: return inquiry(packet);
    case request_sense_command: return request_sense(packet);
    case get_event_status: return event_status(packet);
    case report_luns:
      return answer({0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, big(std::span(packet).subspan(6, 4)));
    default: break;
  }
  if (state_.medium_changed) {
    state_.medium_changed = false;
    return check(key_unit_attention, code_medium_changed);
  }
  switch (command) {
    case start_stop_unit: return start_stop(packet);
    case prevent_allow: state_.locked = (packet[4] & 1) != 0; return ended();
    case mode_sense_6: return mode_sense(packet, false);
    case mode_sense_10: return mode_sense(packet, true);
    case get_configuration_command: return get_configuration(packet);
    case mechanism_status:
      return answer({0, static_cast<uint8_t>(state_.tray_open ? 0x10 : 0), 0, 0, 0, 1, 0, 0},
                    big(std::span(packet).subspan(8, 2)));
    case set_cd_speed: return ended();
    case test_unit_ready:
    case read_capacity:
    case read_10:
    case read_12:
    case seek_10:
    case read_toc_command:
    case read_disc_information:
    case read_cd_command: break;
    default: return check(key_illegal_request, code_invalid_command);
  }
  if (!has_medium()) return check(key_not_ready, state_.tray_open ? code_tray_open : code_no_medium);
  const auto bytes = std::span(packet);
  switch (command) {
    case read_capacity: {
      std::vector<uint8_t> out;
      put_big(out, std::min<uint64_t>(std::max<uint64_t>(blocks(), 1) - 1, UINT32_MAX), 4);
      put_big(out, block, 4);
      return answer(std::move(out), 8);
    }
    case read_10: return read(big(bytes.subspan(2, 4)), big(bytes.subspan(7, 2)));
    case read_12: return read(big(bytes.subspan(2, 4)), big(bytes.subspan(6, 4)));
    case seek_10: return big(bytes.subspan(2, 4)) < blocks() ? ended() : check(key_illegal_request, code_out_of_range);
    case read_toc_command: return read_toc(packet);
    case read_disc_information: return disc_information(packet);
    case read_cd_command: return read_cd(packet);
    default: return ended();  // TEST UNIT READY
  }
}

AtaPlan Cdrom::read(uint64_t first, uint64_t count) {
  // A transfer of more than this no drive takes; it bounds what one command can ask of us.
  constexpr uint64_t most = (uint64_t{32} << 20) / block;
  if (first > blocks() || count > blocks() - first) return check(key_illegal_request, code_out_of_range);
  if (count > most) return check(key_illegal_request, code_invalid_field);
  if (count == 0) return ended();
  return {
      .kind = AtaPlan::Kind::Read, .result = {.count = reason_end}, .offset = first * block, .length = count * block};
}

// MMC-6, 6.19: only whole user data of data blocks.
AtaPlan Cdrom::read_cd(const Packet& packet) {
  const unsigned type = packet[1] >> 2 & 7;  // 0: any, 2: mode 1
  const uint64_t count = big(std::span(packet).subspan(6, 3));
  if (count == 0 || (packet[9] & 0xf8) == 0) return ended();
  if ((type != 0 && type != 2) || (packet[9] & 0xf8) != 0x10 || (packet[10] & 7) != 0) {
    return check(key_illegal_request, code_invalid_field);
  }
  return read(big(std::span(packet).subspan(2, 4)), count);
}

// SPC-4, 4.5.3: fixed format.
AtaPlan Cdrom::request_sense(const Packet& packet) {
  std::vector<uint8_t> out(18);
  out[0] = 0x70;
  out[2] = state_.sense_key;
  out[7] = 10;
  out[12] = static_cast<uint8_t>(state_.sense_code >> 8);
  out[13] = static_cast<uint8_t>(state_.sense_code);
  state_.sense_key = key_none;
  state_.sense_code = 0;
  return answer(std::move(out), packet[4]);
}

AtaPlan Cdrom::inquiry(const Packet& packet) {
  const size_t most = big(std::span(packet).subspan(3, 2));
  if ((packet[1] & 1) != 0) {
    if (packet[2] != 0) return check(key_illegal_request, code_invalid_field);
    return answer({5, 0, 0, 1, 0}, most);  // vital product data: only the list of pages
  }
  std::vector<uint8_t> out{5, 0x80, 0x05, 0x32, 31, 0, 0, 0};  // CD-ROM, removable; SPC-3; ATAPI's response format
  for (const char c : std::string_view{"CAISSON CD-ROM          1.0 "}) out.push_back(static_cast<uint8_t>(c));
  return answer(std::move(out), most);
}

AtaPlan Cdrom::mode_sense(const Packet& packet, bool ten) {
  const unsigned page = packet[2] & 0x3f;
  if (packet[2] >> 6 == 3) return check(key_illegal_request, 0x3900);  // no saved values
  std::vector<uint8_t> pages;
  const auto add = [&](std::initializer_list<uint8_t> bytes) { pages.insert(pages.end(), bytes); };
  if (page == 0x01 || page == 0x3f) add({0x01, 6, 0, 5, 0, 0, 0, 0});  // error recovery
  if (page == 0x2a || page == 0x3f) {
    // Capabilities (MMC-3, 5.5.10): mode 2 not written; tray, ejects, locks; 16x.
    const auto mechanism = static_cast<uint8_t>(0x29 | (state_.locked ? 2 : 0));
    add({0x2a, 18, 0x08, 0, 0x70, 0, mechanism, 0, 0x0b, 0, 0, 0, 0x02, 0, 0x0b, 0, 0, 0, 0, 0});
  }
  if (pages.empty()) return check(key_illegal_request, code_invalid_field);
  std::vector<uint8_t> out;
  const size_t header = ten ? 8 : 4;
  put_big(out, header + pages.size() - (ten ? 2 : 1), ten ? 2 : 1);
  out.push_back(has_medium() ? 0x01 : 0x70);  // medium type: 120 mm data, or none
  out.resize(header);
  out.insert(out.end(), pages.begin(), pages.end());
  return answer(std::move(out), ten ? big(std::span(packet).subspan(7, 2)) : packet[4]);
}

// MMC-6, 6.42
AtaPlan Cdrom::start_stop(const Packet& packet) {
  const bool start = (packet[4] & 1) != 0, load_eject = (packet[4] & 2) != 0;
  if (!load_eject) return ended();
  if (!start) {
    if (state_.locked) return check(key_illegal_request, code_removal_prevented);
    state_.tray_open = true;
  } else if (state_.tray_open) {
    state_.tray_open = false;
    state_.medium_changed = image_ != nullptr;
  }
  return ended();
}

// MMC-6, 6.25
AtaPlan Cdrom::read_toc(const Packet& packet) {
  const bool msf = (packet[1] & 2) != 0;
  const unsigned format = (packet[2] & 0xf) != 0 ? packet[2] & 0xfu : packet[9] >> 6;
  const size_t most = big(std::span(packet).subspan(7, 2));
  constexpr uint8_t data_track = 0x14, lead_out = 0xaa;
  std::vector<uint8_t> out;
  switch (format) {
    case 0: {
      const uint8_t first = packet[6];
      if (first > 1 && first != lead_out) return check(key_illegal_request, code_invalid_field);
      out = {0, 0, 1, 1};
      if (first <= 1) {
        out.insert(out.end(), {0, data_track, 1, 0});
        put_address(out, 0, msf);
      }
      out.insert(out.end(), {0, data_track, lead_out, 0});
      put_address(out, blocks(), msf);
      break;
    }
    case 1:
      out = {0, 0, 1, 1, 0, data_track, 1, 0};
      put_address(out, 0, msf);
      break;
    case 2: {  // raw: first and last track, lead-out, the track
      out = {0, 0, 1, 1};
      const auto entry = [&](uint8_t point, uint64_t lba) {
        out.insert(out.end(), {1, data_track, 0, point, 0, 0, 0});
        put_address(out, lba, true);
      };
      out.insert(out.end(), {1, data_track, 0, 0xa0, 0, 0, 0, 0, 1, 0, 0});
      out.insert(out.end(), {1, data_track, 0, 0xa1, 0, 0, 0, 0, 1, 0, 0});
      entry(0xa2, blocks());
      entry(1, 0);
      break;
    }
    default: return check(key_illegal_request, code_invalid_field);
  }
  const size_t length = out.size() - 2;
  out[0] = static_cast<uint8_t>(length >> 8);
  out[1] = static_cast<uint8_t>(length);
  return answer(std::move(out), most);
}

// MMC-6, 6.5: profile list, core, medium removal.
AtaPlan Cdrom::get_configuration(const Packet& packet) {
  if ((packet[1] & 3) == 3) return check(key_illegal_request, code_invalid_field);
  const unsigned wanted = big(std::span(packet).subspan(2, 2));
  const uint16_t current = !has_medium() ? 0 : blocks() > largest_cd ? profile_dvd_rom : profile_cd_rom;
  std::vector<uint8_t> features;
  const auto add = [&](uint16_t code, uint8_t flags, std::span<const uint8_t> body) {
    if ((packet[1] & 3) == 2 ? code != wanted : code < wanted) return;
    put_big(features, code, 2);
    features.push_back(flags);
    features.push_back(static_cast<uint8_t>(body.size()));
    features.insert(features.end(), body.begin(), body.end());
  };
  const std::array<uint8_t, 8> profiles{0, profile_dvd_rom, current == profile_dvd_rom, 0,
                                        0, profile_cd_rom,  current == profile_cd_rom,  0};
  constexpr std::array<uint8_t, 8> core{0, 0, 0, 2, 1, 0, 0, 0};  // ATAPI
  constexpr std::array<uint8_t, 4> removal{0x29, 0, 0, 0};        // tray, ejects, locks
  add(0, 0x03, profiles);
  add(1, 0x0b, core);
  add(3, 0x03, removal);
  std::vector<uint8_t> out;
  put_big(out, features.size() + 4, 4);
  put_big(out, current, 4);
  out.insert(out.end(), features.begin(), features.end());
  return answer(std::move(out), big(std::span(packet).subspan(7, 2)));
}

// MMC-6, 6.6: media events, polled.
AtaPlan Cdrom::event_status(const Packet& packet) {
  constexpr uint8_t media_class = 4;
  if ((packet[1] & 1) == 0) return check(key_illegal_request, code_invalid_field);  // asynchronous
  const size_t most = big(std::span(packet).subspan(7, 2));
  if ((packet[4] & 1 << media_class) == 0) return answer({0, 2, 0x80, 1 << media_class}, most);
  const auto event = static_cast<uint8_t>(state_.medium_changed ? 2 : 0);  // new medium
  const auto status = static_cast<uint8_t>((has_medium() ? 2 : 0) | (state_.tray_open ? 1 : 0));
  return answer({0, 6, media_class, 1 << media_class, event, status, 0, 0}, most);
}

// MMC-6, 6.21: a finished disc of one session.
AtaPlan Cdrom::disc_information(const Packet& packet) {
  std::vector<uint8_t> out(34);
  out[1] = 32;
  out[2] = 0x0e;
  out[3] = out[4] = out[5] = out[6] = 1;
  out[7] = 0x20;
  return answer(std::move(out), big(std::span(packet).subspan(7, 2)));
}

}  // namespace caisson::storage
