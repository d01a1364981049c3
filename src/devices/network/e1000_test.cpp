#include "devices/network/e1000.h"

#include <memory>
#include <random>

#include <gtest/gtest.h>

#include "base/log.h"
#include "bus/fake_clock.h"
#include "devices/device_test_support.h"
#include "devices/network/checksum.h"
#include "devices/pci/host_bridge.h"
#include "devices/virtio/fake_backends.h"

#define LLVMFuzzerTestOneInput e1000_fuzz_one_input  // the test program has the others' targets as well
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
#include "devices/network/e1000_fuzz.cpp"  // fuzz sources belong to no library

namespace caisson::network {
namespace {

using namespace e1000;
using Frame = std::vector<uint8_t>;

// A card with both rings set up, as a driver would.
class E1000Test : public testing::Test {
 protected:
  static constexpr uint64_t bar = 0xc010'0000, ports = 0xc100;
  static constexpr Gpa out_ring = 0x10000, in_ring = 0x20000, out_data = 0x40000, in_data = 0x80000;
  static constexpr uint32_t ring_size = 16;
  static constexpr E1000::Mac mac{0x52, 0x54, 0x00, 0x12, 0x34, 0x56};

  void SetUp() override {
    auto owned = std::make_unique<E1000>(*memory, clock, net, mac);
    card = owned.get();
    slot = bridge.plug(std::move(owned));
    config(pci::base_address, bar);
    config(pci::base_address + 4, ports);
    config(pci::command, pci::command_io | pci::command_memory | pci::command_bus_master);
    start();
  }
  void start() {
    set(Register::CTRL, ctrl_set_link_up);
    set(Register::TDBAL, out_ring);
    set(Register::TDLEN, ring_size * 16);
    set(Register::TCTL, tctl_enable | tctl_pad);
    set(Register::RDBAL, in_ring);
    set(Register::RDLEN, ring_size * 16);
    for (uint32_t i = 0; i < ring_size; ++i) {
      ASSERT_TRUE(memory->write_object(in_ring + i * 16, ReceiveDescriptor{.address = in_data + i * 0x1000}));
    }
    set(Register::RDT, ring_size - 1);
    set(Register::RCTL, rctl_enable | rctl_broadcast | rctl_strip_crc);
    out_tail = in_head = 0;
  }
  void config(unsigned offset, uint32_t value) {
    bus.write(Space::Memory, layout.ecam_base + (slot << 15) + offset, 4, value);
  }
  uint32_t get(uint32_t reg) { return static_cast<uint32_t>(bus.read(Space::Memory, bar + reg, 4)); }
  uint32_t get(Register reg) { return get(static_cast<uint32_t>(reg)); }
  void set(uint32_t reg, uint32_t value) { bus.write(Space::Memory, bar + reg, 4, value); }
  void set(Register reg, uint32_t value) { set(static_cast<uint32_t>(reg), value); }
  bool interrupt() { return lines[pci::intx_gsi(slot, 0) - pci::first_intx_gsi].level(); }

  void put(const TransmitDescriptor& descriptor) {
    ASSERT_TRUE(memory->write_object(out_ring + out_tail * 16, descriptor));
    out_tail = (out_tail + 1) % ring_size;
  }
  void go() { set(Register::TDT, out_tail); }
  // A packet by data descriptors of at most `piece` bytes.
  void put_data(const Frame& packet, uint32_t flags, uint32_t options, size_t piece = 4096) {
    ASSERT_TRUE(memory->write(out_data, packet));
    for (size_t at = 0; at < packet.size(); at += piece) {
      const auto length = static_cast<uint32_t>(std::min(piece, packet.size() - at));
      const bool last = at + length == packet.size();
      put({out_data + at, length | type_data << type_shift | command_extended | flags | (last ? command_end : 0),
           options});
    }
  }
  static Frame frame(size_t size, std::initializer_list<uint8_t> start = {0x52, 0x54, 0, 0x12, 0x34, 0x56}) {
    Frame out(size);
    for (size_t i = 0; i < size; ++i) out[i] = static_cast<uint8_t>(i * 7);
    std::copy(start.begin(), start.end(), out.begin());
    if (size > 13) out[12] = 0x88, out[13] = 0xb5;  // a type for experiments
    return out;
  }
  // Ethernet, IPv4 and TCP or UDP headers before `payload` bytes, without checksums.
  static Frame ip_packet(bool tcp, size_t payload) {
    const size_t header = tcp ? 20 : 8;
    Frame out(14 + 20 + header + payload);
    std::copy(mac.begin(), mac.end(), out.begin());
    put_big16(out, 12, 0x0800);
    out[14] = 0x45;
    put_big16(out, 16, static_cast<uint16_t>(20 + header + payload));
    put_big16(out, 18, 0x1234);
    out[22] = 64;
    out[23] = tcp ? 6 : 17;
    put_big32(out, 26, 0x0a00'020f);
    put_big32(out, 30, 0x0a00'0202);
    put_big16(out, 34, 1000);
    put_big16(out, 36, 80);
    if (tcp) {
      put_big32(out, 38, 0xffff'ff00);
      out[46] = 0x50;
      out[47] = 0x19;  // ACK, PSH, FIN
    } else {
      put_big16(out, 38, static_cast<uint16_t>(8 + payload));
    }
    for (size_t i = 0; i < payload; ++i) out[34 + header + i] = static_cast<uint8_t>(i * 13);
    return out;
  }
  static uint64_t pseudo(const Frame& packet, size_t length) {
    return word_sum(std::span(packet).subspan(26, 8)) + packet[23] + length;
  }
  static void expect_right(const Frame& packet) {
    const std::span all(packet);
    const size_t length = big16(all, 16) - 20u;
    EXPECT_EQ(folded(word_sum(all.subspan(14, 20))), 0xffff);
    EXPECT_EQ(folded(word_sum(all.subspan(34, length)) + pseudo(packet, length)), 0xffff);
  }
  static constexpr uint64_t ip_offsets(bool tcp) {
    return 14 | 24ull << 8 | 33ull << 16 | 34ull << 32 | (tcp ? 50ull : 40ull) << 40;
  }
  struct Received {
    ReceiveDescriptor descriptor;
    Frame bytes;
  };
  std::optional<Received> received() {
    Received out;
    EXPECT_TRUE(memory->read_object(in_ring + in_head * 16, out.descriptor));
    if ((out.descriptor.status & received_done) == 0) return {};
    out.bytes.resize(out.descriptor.length);
    EXPECT_TRUE(memory->read(out.descriptor.address, out.bytes));
    in_head = (in_head + 1) % ring_size;
    return out;
  }

  pci::Layout layout;
  Bus bus;
  FakeClock clock;
  std::array<test_support::RecordingLine, pci::intx_gsi_count> lines;
  std::unique_ptr<GuestMemory> memory = *GuestMemory::create(uint64_t{2} << 20);
  virtio::FakeNet net;
  pci::HostBridge bridge{bus, layout,
                         [this](unsigned gsi) -> InterruptLine& { return lines[gsi - pci::first_intx_gsi]; }};
  E1000* card = nullptr;
  unsigned slot = 0;
  uint32_t out_tail = 0, in_head = 0;
};

TEST_F(E1000Test, EepromByRegisterAndByWires) {
  uint16_t sum = 0;
  for (uint32_t word = 0; word < eeprom_words; ++word) {
    set(Register::EERD, word << 8 | eerd_start);
    const uint32_t by_register = get(Register::EERD);
    EXPECT_TRUE((by_register & eerd_done) != 0);
    sum = static_cast<uint16_t>(sum + (by_register >> 16));
    // As a driver: request, select, start bit with opcode 10, address, then 16 bits.
    set(Register::EECD, eecd_request);
    EXPECT_TRUE((get(Register::EECD) & eecd_grant) != 0);
    const uint32_t base = eecd_request | eecd_select;
    const auto clocked = [&](uint32_t in) {
      set(Register::EECD, base | in);
      set(Register::EECD, base | in | eecd_clock);
      const bool out = (get(Register::EECD) & eecd_out) != 0;
      set(Register::EECD, base | in);
      return out;
    };
    const uint32_t command = 6u << 6 | word;
    for (unsigned bit = 9; bit-- > 0;) clocked((command >> bit & 1) != 0 ? eecd_in : 0);
    uint32_t by_wires = 0;
    for (unsigned bit = 0; bit < 16; ++bit) by_wires = by_wires << 1 | (clocked(0) ? 1 : 0);
    EXPECT_EQ(by_wires, by_register >> 16) << "word " << word;
    set(Register::EECD, 0);
  }
  EXPECT_EQ(sum, eeprom_sum);
  EXPECT_EQ(get(receive_addresses), 0x1200'5452u);
  EXPECT_EQ(get(receive_addresses + 4), 0x8000'5634u);
}

TEST_F(E1000Test, PhyLinkAndReset) {
  const auto phy = [&](uint32_t index) {
    set(Register::MDIC, index << 16 | 1u << 21 | mdic_read << 26);
    return get(Register::MDIC);
  };
  EXPECT_EQ(phy(2) & 0xffff, 0x0141u);
  EXPECT_EQ(phy(3) & 0xffff, 0x0c20u);
  EXPECT_TRUE((phy(1) & 0x24) == 0x24);
  EXPECT_TRUE((get(Register::STATUS) & status_link_up) != 0);
  set(Register::MDIC, 2u << 21 | mdic_read << 26);  // nobody is at address 2
  EXPECT_TRUE((get(Register::MDIC) & mdic_error) != 0);
  set(Register::MDIC, 4u << 16 | 1u << 21 | mdic_write << 26 | 0x0de1);
  EXPECT_EQ(phy(4) & 0xffff, 0x0de1u);

  set(Register::IMS, cause_link);
  EXPECT_TRUE(interrupt()) << "the link came up in start()";
  EXPECT_EQ(get(Register::ICR), cause_link);
  EXPECT_FALSE(interrupt());
  card->set_link(false);
  EXPECT_TRUE(interrupt());
  EXPECT_EQ(get(Register::STATUS) & status_link_up, 0u);
  EXPECT_EQ(phy(1) & 4, 0u);
  card->set_link(true);

  set(Register::VET, 0x8100);
  set(Register::CTRL, ctrl_reset);
  EXPECT_EQ(get(Register::VET), 0u);
  EXPECT_EQ(get(Register::IMS), 0u);
  EXPECT_EQ(get(Register::CTRL) & ctrl_reset, 0u);
  // The same by the ports, which is how drivers reset this card.
  set(Register::VET, 0x8100);
  bus.write(Space::Port, ports, 4, static_cast<uint32_t>(Register::VET));
  EXPECT_EQ(bus.read(Space::Port, ports + 4, 4), 0x8100u);
  bus.write(Space::Port, ports, 4, 0);
  bus.write(Space::Port, ports + 4, 4, ctrl_reset);
  EXPECT_EQ(get(Register::VET), 0u);
}

TEST_F(E1000Test, SendsByLegacyDescriptors) {
  const Frame packet = frame(100);
  ASSERT_TRUE(memory->write(out_data, packet));
  set(Register::IMS, cause_transmit_written);
  put({out_data, 40, 0});
  go();
  EXPECT_TRUE(net.sent.empty()) << "its end has not come";
  put({out_data + 40, 60 | command_end | command_report, 0});
  go();
  ASSERT_EQ(net.sent.size(), 1u);
  EXPECT_EQ(net.sent[0], packet);
  EXPECT_TRUE(interrupt());
  TransmitDescriptor back;
  ASSERT_TRUE(memory->read_object(out_ring + 16, back));
  EXPECT_EQ(back.more & descriptor_done, descriptor_done);
  EXPECT_EQ(get(Register::TDH), 2u);
  EXPECT_EQ(get(Register::ICR), cause_transmit_written | cause_transmit_empty | cause_link);
  EXPECT_EQ(get(static_cast<uint32_t>(Statistic::GPTC)), 1u);
  EXPECT_EQ(get(static_cast<uint32_t>(Statistic::GPTC)), 0u) << "reading clears";
  // A short one gets padded, one with a checksum gets it: of all from byte 14 on, at 16.
  put({out_data, 20 | command_end | command_insert_checksum | 16u << 16, 14u << 8});
  go();
  ASSERT_EQ(net.sent.size(), 2u);
  EXPECT_EQ(net.sent[1].size(), 60u);
  // What stood there counts, and so the sum with the checksum in its place is all ones less that.
  const Frame& sent = net.sent[1];
  EXPECT_EQ(static_cast<uint16_t>(~big16(sent, 16)), folded(word_sum(std::span(packet).subspan(14, 6))));
}

TEST_F(E1000Test, InsertsChecksums) {
  for (const bool tcp : {true, false}) {
    net.sent.clear();
    Frame packet = ip_packet(tcp, 101);
    const size_t length = packet.size() - 34;
    put_big16(packet, tcp ? 50 : 40, folded(pseudo(packet, length)));
    put({ip_offsets(tcp), type_context << type_shift | command_extended | (tcp ? command_tcp : 0) | command_ipv4, 0});
    put_data(packet, 0, insert_ip_checksum | insert_tcp_checksum, 50);
    go();
    ASSERT_EQ(net.sent.size(), 1u);
    expect_right(net.sent[0]);
  }
}

TEST_F(E1000Test, CutsIntoSegments) {
  Frame packet = ip_packet(true, 2500);
  put_big16(packet, 50, folded(pseudo(packet, 0)));  // the length is the card's to add
  put({ip_offsets(true),
       2500u | type_context << type_shift | command_extended | command_tcp | command_ipv4 | command_segment,
       54u << 8 | 1000u << 16});
  put_data(packet, command_segment, insert_ip_checksum | insert_tcp_checksum, 700);
  go();
  ASSERT_EQ(net.sent.size(), 3u);
  Frame together;
  for (size_t i = 0; i < 3; ++i) {
    const Frame& piece = net.sent[i];
    expect_right(piece);
    const size_t payload = i < 2 ? 1000 : 500;
    ASSERT_EQ(piece.size(), 54 + payload);
    EXPECT_EQ(big16(piece, 16), 40 + payload);
    EXPECT_EQ(big16(piece, 18), 0x1234 + i);
    EXPECT_EQ(big32(piece, 38), static_cast<uint32_t>(0xffff'ff00 + i * 1000));
    EXPECT_EQ(piece[47], i == 2 ? 0x19 : 0x10);
    together.insert(together.end(), piece.begin() + 54, piece.end());
  }
  EXPECT_EQ(together, Frame(packet.begin() + 54, packet.end()));
}

TEST_F(E1000Test, NonsenseIsDropped) {
  // Headers that are not there, pieces of no size, buffers that are no memory, packets without end.
  const Frame packet = ip_packet(true, 100);
  for (const uint32_t sizes : {54u << 8, 200u << 8 | 1000u << 16, 20u << 8 | 1u << 16}) {
    put({ip_offsets(true), type_context << type_shift | command_extended | command_tcp | command_segment, sizes});
    put_data(packet, command_segment, insert_tcp_checksum);
    go();
  }
  put({0x7000'0000, 100 | command_end, 0});
  put({out_data, 100 | command_end | command_extended | 5u << type_shift, 0});
  put({out_data, 0 | command_end, 0});
  go();
  EXPECT_TRUE(net.sent.empty());
  for (unsigned i = 0; i < 10 * ring_size; ++i) {
    put({out_data, 0xf000 | command_extended | type_data << type_shift, 0});
    go();
  }
  put({out_data, 100 | command_extended | type_data << type_shift | command_end, 0});
  go();
  EXPECT_TRUE(net.sent.empty());
  put_data(frame(100), 0, 0);
  go();
  EXPECT_EQ(net.sent.size(), 1u);
  // A ring without descriptors, and a tail beyond it.
  set(Register::TDLEN, 0);
  set(Register::TDT, 5);
  set(Register::TDLEN, ring_size * 16);
  set(Register::TDT, ring_size + 5);
  EXPECT_EQ(net.sent.size(), 1u);
}

TEST_F(E1000Test, LongWorkGivesOthersATurn) {
  constexpr uint32_t entries = 4096;
  set(Register::TCTL, 0);
  set(Register::TDBAL, 0x100000);
  set(Register::TDLEN, entries * 16);
  set(Register::TDH, 0);
  for (uint32_t i = 0; i < entries; ++i) {
    ASSERT_TRUE(memory->write_object(0x100000 + i * 16, TransmitDescriptor{out_data, 64 | command_end, 0}));
  }
  set(Register::TDT, entries - 1);
  set(Register::TCTL, tctl_enable);
  EXPECT_LT(net.sent.size(), 1000u);
  for (unsigned i = 0; i < 20; ++i) clock.advance(1);
  EXPECT_EQ(net.sent.size(), entries - 1);
}

TEST_F(E1000Test, ReceivesWhatIsForIt) {
  set(Register::IMS, cause_received);
  EXPECT_TRUE(net.receiver(frame(200)));
  EXPECT_TRUE(interrupt());
  const auto got = received();
  ASSERT_TRUE(got);
  EXPECT_EQ(got->bytes, frame(200));
  EXPECT_EQ(got->descriptor.status, received_done | received_end | received_no_checksum);
  EXPECT_EQ(got->descriptor.errors, 0);
  const auto takes = [&](std::initializer_list<uint8_t> start) {
    EXPECT_TRUE(net.receiver(frame(60, start)));
    return received().has_value();
  };
  const auto other = {uint8_t{0x52}, uint8_t{0x54}, uint8_t{0}, uint8_t{0x12}, uint8_t{0x34}, uint8_t{0x57}};
  const auto everybody = {uint8_t{0xff}, uint8_t{0xff}, uint8_t{0xff}, uint8_t{0xff}, uint8_t{0xff}, uint8_t{0xff}};
  const auto group = {uint8_t{0x33}, uint8_t{0x33}, uint8_t{0}, uint8_t{0}, uint8_t{0x12}, uint8_t{0x34}};
  const uint32_t base = rctl_enable | rctl_strip_crc;
  EXPECT_FALSE(takes(other));
  EXPECT_TRUE(takes(everybody));
  EXPECT_FALSE(takes(group));
  set(Register::RCTL, base);
  EXPECT_FALSE(takes(everybody));
  set(Register::RCTL, base | rctl_unicast_all);
  EXPECT_TRUE(takes(other));
  set(Register::RCTL, base | rctl_multicast_all);
  EXPECT_TRUE(takes(group));
  set(Register::RCTL, base);
  const uint32_t hash = (0x3412 >> 4) & 0xfff;
  set(multicast_table + hash / 32 * 4, 1u << hash % 32);
  EXPECT_TRUE(takes(group));
  set(receive_addresses + 8, 0x1200'5452);
  set(receive_addresses + 12, 0x8000'5734);
  EXPECT_TRUE(takes(other));
  set(Register::RCTL, 0);
  EXPECT_FALSE(takes(other));
}

TEST_F(E1000Test, SpreadsOverBuffersAndWaitsForThem) {
  set(Register::RCTL, rctl_enable | rctl_strip_crc | 3u << rctl_size_shift);  // of 256 bytes
  const Frame packet = frame(700);
  EXPECT_TRUE(net.receiver(packet));
  Frame together;
  for (unsigned i = 0; i < 3; ++i) {
    const auto piece = received();
    ASSERT_TRUE(piece);
    EXPECT_EQ((piece->descriptor.status & received_end) != 0, i == 2);
    together.insert(together.end(), piece->bytes.begin(), piece->bytes.end());
  }
  EXPECT_EQ(together, packet);
  for (unsigned i = 0; i < 4; ++i) EXPECT_TRUE(net.receiver(packet));
  EXPECT_FALSE(net.receiver(packet)) << "none are left: it waits";
  EXPECT_TRUE((get(Register::ICR) & (cause_receive_overrun | cause_receive_low)) ==
              (cause_receive_overrun | cause_receive_low));
  EXPECT_EQ(net.ready, 0u);
  set(Register::RDT, 14);
  EXPECT_EQ(net.ready, 1u);
  EXPECT_TRUE(net.receiver(packet));
  // Too long without long packets; with them it comes.
  EXPECT_TRUE(net.receiver(frame(1600)));
  EXPECT_EQ(get(static_cast<uint32_t>(Statistic::ROC)), 1u);
  // What the whole ring has no room for does not keep others from coming.
  set(Register::RCTL, rctl_enable | rctl_strip_crc | rctl_long | 3u << rctl_size_shift);
  EXPECT_TRUE(net.receiver(frame(16 * 256)));
  EXPECT_FALSE(net.receiver(frame(15 * 256)));
}

TEST_F(E1000Test, ChecksWhatItReceives) {
  set(Register::RXCSUM, rxcsum_ip | rxcsum_tcp_udp);
  for (const bool tcp : {true, false}) {
    Frame packet = ip_packet(tcp, 55);
    const size_t place = tcp ? 50 : 40, length = packet.size() - 34;
    put_big16(packet, 24, static_cast<uint16_t>(~folded(word_sum(std::span(packet).subspan(14, 20)))));
    put_big16(packet, place,
              static_cast<uint16_t>(~folded(word_sum(std::span(packet).subspan(34)) + pseudo(packet, length))));
    EXPECT_TRUE(net.receiver(packet));
    auto got = received();
    ASSERT_TRUE(got);
    EXPECT_EQ(got->descriptor.status, received_done | received_end | received_ip_checked | received_tcp_checked);
    EXPECT_EQ(got->descriptor.errors, 0);
    packet[packet.size() - 1] ^= 1;
    EXPECT_TRUE(net.receiver(packet));
    got = received();
    ASSERT_TRUE(got);
    EXPECT_EQ(got->descriptor.errors, received_tcp_wrong);
    packet[22] ^= 1;
    EXPECT_TRUE(net.receiver(packet));
    got = received();
    ASSERT_TRUE(got);
    EXPECT_EQ(got->descriptor.errors, received_tcp_wrong | received_ip_wrong);
  }
}

TEST_F(E1000Test, VlanTags) {
  set(Register::VET, 0x8100);
  set(Register::CTRL, ctrl_set_link_up | ctrl_vlan_mode);
  Frame tagged = frame(100);
  put_big16(tagged, 12, 0x8100);
  put_big16(tagged, 14, 0x6005);
  EXPECT_TRUE(net.receiver(tagged));
  const auto got = received();
  ASSERT_TRUE(got);
  EXPECT_EQ(got->descriptor.special, 0x6005);
  EXPECT_TRUE((got->descriptor.status & received_vlan) != 0);
  Frame stripped = tagged;
  stripped.erase(stripped.begin() + 12, stripped.begin() + 16);
  EXPECT_EQ(got->bytes, stripped);
  set(Register::RCTL, rctl_enable | rctl_strip_crc | rctl_vlan_filter);
  EXPECT_TRUE(net.receiver(tagged));
  EXPECT_FALSE(received());
  set(vlan_table, 1u << 5);
  EXPECT_TRUE(net.receiver(tagged));
  EXPECT_TRUE(received());
  // And on the way out.
  put_data(stripped, command_vlan, 0x6005u << 16);
  go();
  ASSERT_EQ(net.sent.size(), 1u);
  EXPECT_EQ(net.sent[0], tagged);
}

TEST_F(E1000Test, InterruptsKeepTheirDistance) {
  get(Register::ICR);
  set(Register::IMS, cause_received);
  set(Register::ITR, 1000);  // 256 microseconds
  EXPECT_TRUE(net.receiver(frame(60)));
  EXPECT_TRUE(interrupt());
  get(Register::ICR);
  EXPECT_FALSE(interrupt());
  EXPECT_TRUE(net.receiver(frame(60)));
  EXPECT_FALSE(interrupt());
  clock.advance(255'000);
  EXPECT_FALSE(interrupt());
  clock.advance(2'000);
  EXPECT_TRUE(interrupt());
  set(Register::IMC, ~0u);
  EXPECT_FALSE(interrupt());
}

TEST_F(E1000Test, RoundTrip) {
  test_support::expect_round_trip<E1000>(*card, [&](E1000::State& state) {
    E1000::State now;
    ASSERT_TRUE(fields::restore(now, test_support::saved(*card)));
    state.config = now.config;
    state.causes = 0;
    for (E1000::Ring* ring : {&state.receive_ring, &state.transmit_ring}) {
      ring->base ^= 1;
      ring->length ^= 1;
    }
    state.io_address = 8;
    state.management = now.management;
    state.flow_low = now.flow_low;
    state.flow_high = now.flow_high;
  });
}

TEST(E1000Fuzz, RandomInputsDoNoHarm) {
  std::mt19937 random(20261129);
  std::vector<uint8_t> input(2000);
  for (unsigned round = 0; round < 300; ++round) {
    for (uint8_t& byte : input) byte = static_cast<uint8_t>(random());
    EXPECT_EQ(e1000_fuzz_one_input(input.data(), input.size()), 0);
  }
  log::set_level(log::Level::Info);
}

}  // namespace
}  // namespace caisson::network
