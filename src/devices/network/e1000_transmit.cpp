// Sending: descriptors to frames, 3.3 to 3.5.
#include <algorithm>
#include <array>

#include "devices/network/checksum.h"
#include "devices/network/e1000.h"

namespace caisson::network {

using namespace e1000;

namespace {

// What one turn does at most, so that the device lock gets free for others.
constexpr unsigned descriptors_a_turn = 512;
constexpr size_t bytes_a_turn = 4 << 20;
// More than any driver makes of a packet: 64 KiB by the smallest segments that TCP has (RFC 791: 68 bytes with
// headers).
constexpr size_t most_segments = 4096;
constexpr uint32_t length_mask = 0xf'ffff, legacy_length_mask = 0xffff;
constexpr size_t ethernet_header = 14, least_frame = 60, vlan_tag = 4, address_bytes = 12;

constexpr unsigned byte_of(uint64_t value, unsigned at) { return static_cast<unsigned>(value >> (8 * at) & 0xff); }
constexpr unsigned half_of(uint64_t value, unsigned at) { return static_cast<unsigned>(value >> (16 * at) & 0xffff); }

// Puts the checksum of the bytes from `start` to `end` (0: all) in at `at`; what stands there counts, and `extra`.
void insert_checksum(std::span<uint8_t> frame, unsigned start, unsigned at, unsigned end, uint64_t extra, bool udp) {
  const size_t stop = end == 0 ? frame.size() : std::min<size_t>(end + size_t{1}, frame.size());
  if (start >= stop || at + size_t{2} > frame.size()) return;
  uint16_t sum = static_cast<uint16_t>(~folded(word_sum(frame.subspan(start, stop - start)) + extra));
  if (udp && sum == 0) sum = 0xffff;  // RFC 768: 0 says that there is none
  put_big16(frame, at, sum);
}

}  // namespace

void E1000::pump() {
  Ring& ring = state_.transmit_ring;
  uint32_t causes = 0;
  size_t bytes = 0;
  unsigned turn = 0;
  while ((state_.transmit & tctl_enable) != 0 && bus_master() && ring.sound() && ring.head != ring.tail) {
    if (turn++ == descriptors_a_turn || bytes > bytes_a_turn) {
      more_->arm(clock_.now_ns());
      break;
    }
    const Gpa address = ring.base + uint64_t{ring.head} * sizeof(TransmitDescriptor);
    TransmitDescriptor descriptor;
    if (!memory_.read_object(address, descriptor)) {
      ring.head = ring.tail;  // there is nothing; a card would wait for ever
      break;
    }
    bytes += descriptor.flags & length_mask;
    take(descriptor);
    if ((descriptor.flags & command_report) != 0) {
      const uint32_t done = descriptor.more | descriptor_done;
      std::ignore = memory_.write_object(address + offsetof(TransmitDescriptor, more), done);
      causes |= cause_transmit_written;
    }
    // A driver that writes TDH while the card works gets what it asks for.
    ring.head = ring.head + 1 >= ring.size() ? 0 : ring.head + 1;
    if (ring.head == ring.tail) causes |= cause_transmit_empty;
  }
  if (causes != 0) raise(causes);
}

void E1000::take(const TransmitDescriptor& descriptor) {
  const bool extended = (descriptor.flags & command_extended) != 0;
  const unsigned type = descriptor.flags >> type_shift & 0xf;
  if (extended && type == type_context) {
    const unsigned which = (descriptor.flags & command_segment) != 0 ? 1 : 0;
    state_.contexts[which] = {.offsets = descriptor.address, .command = descriptor.flags, .sizes = descriptor.more};
    if (which == 1) count(Statistic::TSCTC);
    return;
  }
  if (!state_.packet_begun) {
    // 3.3.7: options count in the first descriptor of a packet.
    state_.packet_begun = true;
    state_.packet_dropped = extended && type != type_data;
    state_.packet_flags = descriptor.flags & (command_extended | command_segment | command_insert_checksum);
    state_.packet_options = descriptor.more & (insert_ip_checksum | insert_tcp_checksum);
    state_.packet.data.clear();
  }
  append(descriptor.address, descriptor.flags & (extended ? length_mask : legacy_length_mask));
  if ((descriptor.flags & command_end) == 0) return;
  // The tag and a legacy descriptor's checksum are of the last.
  state_.packet_flags |= descriptor.flags & command_vlan;
  state_.packet_checksum = (descriptor.flags >> 16 & 0xff) | (descriptor.more & 0xff00);
  state_.packet_options |= descriptor.more & 0xffff'0000;
  if (!extended) state_.packet_flags |= descriptor.flags & command_insert_checksum;
  if (!state_.packet_dropped) send_packet();
  state_.packet.data.clear();
  state_.packet_begun = false;
}

void E1000::append(uint64_t address, uint32_t length) {
  std::vector<uint8_t>& packet = state_.packet.data;
  if (length == 0 || state_.packet_dropped) return;
  if (packet.size() + length > most_gathered || !memory_.contains(address, length)) {
    state_.packet_dropped = true;
    return;
  }
  const size_t at = packet.size();
  packet.resize(at + length);
  std::ignore = memory_.read(address, std::span(packet).subspan(at));
}

void E1000::send_packet() {
  const bool extended = (state_.packet_flags & command_extended) != 0;
  if (extended && (state_.packet_flags & command_segment) != 0) {
    send_segments(state_.contexts[1]);
    return;
  }
  frame_ = state_.packet.data;
  if (extended) {
    const Context& context = state_.contexts[0];
    const uint64_t at = context.offsets;
    if ((state_.packet_options & insert_ip_checksum) != 0) {
      insert_checksum(frame_, byte_of(at, 0), byte_of(at, 1), half_of(at, 1), 0, false);
    }
    if ((state_.packet_options & insert_tcp_checksum) != 0) {
      insert_checksum(frame_, byte_of(at, 4), byte_of(at, 5), half_of(at, 3), 0, (context.command & command_tcp) == 0);
    }
  } else if ((state_.packet_flags & command_insert_checksum) != 0) {
    insert_checksum(frame_, state_.packet_checksum >> 8, state_.packet_checksum & 0xff, 0, 0, false);
  }
  send_frame();
}

// 3.5: the headers once more for each piece, with lengths, numbers, flags and checksums as they are to be.
void E1000::send_segments(const Context& context) {
  const std::span<const uint8_t> packet = state_.packet.data;
  const size_t header = context.sizes >> 8 & 0xff, most = context.sizes >> 16;
  const uint64_t at = context.offsets;
  const size_t ip = byte_of(at, 0), ip_sum = byte_of(at, 1), tcp = byte_of(at, 4), tcp_sum = byte_of(at, 5);
  const bool is_tcp = (context.command & command_tcp) != 0, is_ipv4 = (context.command & command_ipv4) != 0;
  if (header < ethernet_header || header > packet.size() || most == 0) return;
  // What is changed below lies in the headers.
  if (ip + (is_ipv4 ? 6 : 40) > header || tcp + (is_tcp ? 14 : 6) > header) return;
  const std::span<const uint8_t> payload = packet.subspan(header);
  const size_t count = std::max<size_t>((payload.size() + most - 1) / most, 1);
  if (count > most_segments) return;
  for (size_t i = 0; i < count; ++i) {
    const auto piece = payload.subspan(i * most, std::min(most, payload.size() - i * most));
    frame_.assign(packet.begin(), packet.begin() + static_cast<std::ptrdiff_t>(header));
    frame_.insert(frame_.end(), piece.begin(), piece.end());
    const std::span<uint8_t> frame = frame_;
    if (is_ipv4) {
      put_big16(frame, ip + 2, static_cast<uint16_t>(frame.size() - ip));
      put_big16(frame, ip + 4, static_cast<uint16_t>(big16(packet, ip + 4) + i));
    } else {
      put_big16(frame, ip + 4, static_cast<uint16_t>(frame.size() - ip - 40));
    }
    if (is_tcp) {
      put_big32(frame, tcp + 4, static_cast<uint32_t>(big32(packet, tcp + 4) + i * most));
      if (i + 1 < count) frame[tcp + 13] &= static_cast<uint8_t>(~0x09u);  // FIN and PSH are the last one's
    } else {
      put_big16(frame, tcp + 4, static_cast<uint16_t>(frame.size() - tcp));
    }
    if ((state_.packet_options & insert_tcp_checksum) != 0) {
      // The driver has left the pseudo header's sum in the checksum's place, but for the length.
      insert_checksum(frame, static_cast<unsigned>(tcp), static_cast<unsigned>(tcp_sum), half_of(at, 3),
                      frame.size() - tcp, !is_tcp);
    }
    if ((state_.packet_options & insert_ip_checksum) != 0) {
      insert_checksum(frame, static_cast<unsigned>(ip), static_cast<unsigned>(ip_sum), half_of(at, 1), 0, false);
    }
    send_frame();
  }
}

void E1000::send_frame() {
  if (frame_.size() < ethernet_header || !link_up()) return;
  if ((state_.packet_flags & command_vlan) != 0 && (state_.control & ctrl_vlan_mode) != 0) {
    const uint16_t tag[]{static_cast<uint16_t>(state_.vlan_type), static_cast<uint16_t>(state_.packet_options >> 16)};
    frame_.insert(frame_.begin() + address_bytes, vlan_tag, 0);
    for (size_t i = 0; i < 2; ++i) put_big16(frame_, address_bytes + 2 * i, tag[i]);
  }
  if ((state_.transmit & tctl_pad) != 0 && frame_.size() < least_frame) frame_.resize(least_frame);
  if (frame_.size() > NetBackend::max_frame) return;
  count(Statistic::TPT);
  count(Statistic::GPTC);
  count_octets(Statistic::GOTC, frame_.size() + 4);
  count_octets(Statistic::TOT, frame_.size() + 4);
  const bool group = (frame_[0] & 1) != 0;
  const bool all = std::all_of(frame_.begin(), frame_.begin() + 6, [](uint8_t byte) { return byte == 0xff; });
  if (group) count(all ? Statistic::BPTC : Statistic::MPTC);
  backend_.send(frame_);
}

}  // namespace caisson::network
