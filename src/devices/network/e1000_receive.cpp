// Receiving: filters, checksums and descriptors, 3.2.
#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstring>
#include <utility>

#include "devices/network/checksum.h"
#include "devices/network/e1000.h"

namespace caisson::network {

using namespace e1000;

namespace {

constexpr size_t ethernet_header = 14, least_frame = 60, longest_frame = 1518, longest_long = 16384, vlan_tag = 4,
                 address_bytes = 12, check_sequence = 4;
constexpr uint16_t type_ipv4 = 0x0800, type_ipv6 = 0x86dd;
constexpr uint8_t protocol_tcp = 6, protocol_udp = 17;

}  // namespace

uint32_t E1000::buffer_size() const {
  const unsigned code = state_.receive >> rctl_size_shift & 3;
  if ((state_.receive & rctl_size_extended) == 0) return 2048u >> code;
  return code == 0 ? 2048 : 32768u >> code;  // 0 is reserved
}

// 3.2.1: which addresses the card listens to.
bool E1000::wanted(std::span<const uint8_t> frame) const {
  const bool group = (frame[0] & 1) != 0;
  const auto first = frame.first(6);
  if (std::ranges::all_of(first, [](uint8_t byte) { return byte == 0xff; })) {
    return (state_.receive & (rctl_broadcast | rctl_multicast_all)) != 0;
  }
  if ((state_.receive & (group ? rctl_multicast_all : rctl_unicast_all)) != 0) return true;
  for (unsigned i = 0; i < address_count; ++i) {
    const uint32_t low = state_.addresses[2 * i], high = state_.addresses[2 * i + 1];
    if ((high & address_valid) == 0) continue;
    const uint64_t address = low | uint64_t{high & 0xffff} << 32;
    bool same = true;
    for (unsigned at = 0; at < 6; ++at) same = same && frame[at] == (address >> (8 * at) & 0xff);
    if (same) return true;
  }
  if (!group) return false;
  // 13.5.1: twelve bits of the address's end, from one of four places on.
  constexpr std::array<unsigned, 4> shifts{4, 3, 2, 0};
  const unsigned end = frame[4] | frame[5] << 8;
  const unsigned hash = end >> shifts[state_.receive >> rctl_multicast_shift & 3] & 0xfff;
  return (state_.multicast[hash >> 5] >> (hash & 31) & 1) != 0;
}

bool E1000::wanted_vlan(std::span<const uint8_t> frame) const {
  if ((state_.receive & rctl_vlan_filter) == 0 || big16(frame, address_bytes) != state_.vlan_type) return true;
  const unsigned vlan = big16(frame, address_bytes + 2) & 0xfff;
  return (state_.vlans[vlan >> 5] >> (vlan & 31) & 1) != 0;
}

// 3.2.9: the checksum of all from PCSS on, and whether those of IPv4, TCP and UDP are right.
void E1000::check(std::span<const uint8_t> packet, ReceiveDescriptor& descriptor) const {
  const size_t start = state_.checksums & 0xff;
  if (start < packet.size()) descriptor.checksum = __builtin_bswap16(folded(word_sum(packet.subspan(start))));
  size_t at = address_bytes;
  if (big16(packet, at) == state_.vlan_type && packet.size() >= at + vlan_tag + 2) at += vlan_tag;
  const uint16_t type = big16(packet, at);
  at += 2;
  std::span<const uint8_t> rest = packet.subspan(std::min(at, packet.size()));
  uint64_t pseudo = 0;
  uint8_t protocol = 0;
  if (type == type_ipv4 && rest.size() >= 20 && rest[0] >> 4 == 4) {
    const size_t header = (rest[0] & 0xf) * size_t{4}, length = big16(rest, 2);
    if (header < 20 || length < header || length > rest.size()) return;
    if ((state_.checksums & rxcsum_ip) != 0) {
      descriptor.status |= received_ip_checked;
      if (folded(word_sum(rest.first(header))) != 0xffff) descriptor.errors |= received_ip_wrong;
    }
    if ((big16(rest, 6) & 0x3fff) != 0) return;  // of a fragment nobody can tell
    protocol = rest[9];
    pseudo = word_sum(rest.subspan(12, 8)) + protocol + (length - header);
    rest = rest.subspan(header, length - header);
  } else if (type == type_ipv6 && rest.size() >= 40 && rest[0] >> 4 == 6) {
    const size_t length = big16(rest, 4);
    if (length > rest.size() - 40) return;
    protocol = rest[6];
    pseudo = word_sum(rest.subspan(8, 32)) + protocol + length;
    rest = rest.subspan(40, length);
  }
  const bool udp = protocol == protocol_udp && rest.size() >= 8 && big16(rest, 6) != 0;
  const bool tcp = protocol == protocol_tcp && rest.size() >= 20;
  if ((state_.checksums & rxcsum_tcp_udp) == 0 || (!udp && !tcp)) return;
  descriptor.status |= received_tcp_checked;
  if (folded(pseudo + word_sum(rest)) != 0xffff) descriptor.errors |= received_tcp_wrong;
}

void E1000::receive_again() {
  if (std::exchange(starved_, false)) backend_.receive_ready();
}

bool E1000::receive(std::span<const uint8_t> frame) {
  Ring& ring = state_.receive_ring;
  const bool on = (state_.receive & rctl_enable) != 0 && link_up() && bus_master() && ring.sound();
  if (!on || frame.size() < ethernet_header || !wanted(frame)) return true;
  if (frame.size() >= address_bytes + vlan_tag && !wanted_vlan(frame)) return true;
  const bool tagged = big16(frame, address_bytes) == state_.vlan_type && frame.size() >= ethernet_header + vlan_tag;
  const size_t most = (state_.receive & rctl_long) != 0 ? longest_long - check_sequence
                                                        : longest_frame - check_sequence + (tagged ? vlan_tag : 0);
  if (frame.size() > most) {
    count(Statistic::ROC);
    return true;
  }
  frame_.assign(frame.begin(), frame.end());
  ReceiveDescriptor descriptor;
  if (frame_.size() < least_frame) frame_.resize(least_frame);  // as it would come over a wire
  if (tagged && (state_.control & ctrl_vlan_mode) != 0) {
    descriptor.special = big16(frame_, address_bytes + 2);
    descriptor.status |= received_vlan;
    frame_.erase(frame_.begin() + address_bytes, frame_.begin() + address_bytes + vlan_tag);
  }
  if ((state_.checksums & (rxcsum_ip | rxcsum_tcp_udp)) == 0) {
    descriptor.status |= received_no_checksum;
  }
  check(frame_, descriptor);
  if ((state_.receive & rctl_strip_crc) == 0) frame_.resize(frame_.size() + check_sequence);

  const size_t room = buffer_size();
  const size_t needed = (frame_.size() + room - 1) / room;
  if (needed >= ring.size()) return true;  // it would wait for ever
  const uint32_t free = (ring.tail + ring.size() - ring.head) % ring.size();
  if (free < needed) {
    starved_ = true;
    if ((state_.causes & cause_receive_overrun) == 0) raise(cause_receive_overrun);
    return false;
  }
  std::span<const uint8_t> rest = frame_;
  for (size_t i = 0; i < needed; ++i) {
    const Gpa at = ring.base + uint64_t{ring.head} * sizeof descriptor;
    const auto piece = rest.first(std::min(room, rest.size()));
    rest = rest.subspan(piece.size());
    // Where there is no memory nothing is written, as on a bus.
    uint64_t address = 0;
    if (memory_.read_object(at, address) && address != 0) std::ignore = memory_.write(address, piece);
    ReceiveDescriptor back = descriptor;
    back.length = static_cast<uint16_t>(piece.size());
    back.status |= received_done;
    if (rest.empty()) back.status |= received_end;
    // The status says that the rest is there: one word, after the data.
    uint64_t second = 0;
    std::memcpy(&second, reinterpret_cast<const uint8_t*>(&back) + offsetof(ReceiveDescriptor, length), sizeof second);
    std::atomic_thread_fence(std::memory_order_release);
    std::ignore = memory_.write_object(at + offsetof(ReceiveDescriptor, length), second);
    ring.head = ring.head + 1 >= ring.size() ? 0 : ring.head + 1;
  }
  count(Statistic::TPR);
  count(Statistic::GPRC);
  count_octets(Statistic::GORC, frame.size() + check_sequence);
  count_octets(Statistic::TOR, frame.size() + check_sequence);
  if ((frame[0] & 1) != 0) count(frame[1] == 0xff && frame[0] == 0xff ? Statistic::BPRC : Statistic::MPRC);
  // 13.4.22: half, a quarter or an eighth of the ring is left.
  const uint32_t left = free - static_cast<uint32_t>(needed);
  const uint32_t threshold = ring.size() >> (1 + std::min(state_.receive >> rctl_threshold_shift & 3, 2u));
  raise(cause_received | (left <= threshold ? cause_receive_low : 0));
  return true;
}

}  // namespace caisson::network
