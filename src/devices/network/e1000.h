// Intel 82540EM (e1000), a gigabit network card that most systems have a driver for.
//   Spec     Intel PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual (317453; sections are
//   its) Models   legacy, context and data descriptors with checksums, segmentation and VLAN tags; filters of addresses
//   and
//            VLANs; checksums of received packets; EEPROM by EERD and by its wires; PHY by MDIC; INTx with ITR;
//            registers in memory and by I/O ports
//   Omits    writes to the EEPROM, delay timers of descriptors, loopback, wake-up, management, flow control frames;
//   where
//            a driver has the frame check sequence kept, it is four zeroes
//   Threads  under the device lock
//
// A frame that finds no descriptors waits at the backend, where a card would drop it. A frame to be sent that is too
// long for any driver's use is dropped, and so is one that its descriptors say nonsense of.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <vector>

#include "backend/net_backend.h"
#include "bus/clock.h"
#include "devices/network/e1000_registers.h"
#include "devices/pci/pci_device.h"

namespace caisson::network {

class E1000 final : public pci::PciDevice {
 public:
  using Mac = std::array<uint8_t, 6>;
  static constexpr unsigned register_bar = 0, io_bar = 1;
  static constexpr uint64_t register_size = 0x2'0000, io_size = 64;
  static constexpr size_t most_gathered = 256 * 1024;  // bytes of one packet before it is cut into segments

  struct Ring {
    uint64_t base = 0;
    uint32_t length = 0;  // in bytes
    uint32_t head = 0;    // in descriptors, as `tail`
    uint32_t tail = 0;
    static constexpr auto fields() {
      using fields::row;
      return fields::table<Ring>(row<1>("base", &Ring::base), row<2>("length", &Ring::length),
                                 row<3>("head", &Ring::head), row<4>("tail", &Ring::tail));
    }
    [[nodiscard]] uint32_t size() const { return length / 16; }
    // Whether head and tail are such that there is a ring to walk.
    [[nodiscard]] bool sound() const { return head < size() && tail < size(); }
  };
  // 3.3.6: what a context descriptor says; one for segmentation, one without, stand side by side.
  struct Context {
    uint64_t offsets = 0;
    uint32_t command = 0;
    uint32_t sizes = 0;
    static constexpr auto fields() {
      using fields::row;
      return fields::table<Context>(row<1>("offsets", &Context::offsets), row<2>("command", &Context::command),
                                    row<3>("sizes", &Context::sizes));
    }
  };
  // The EEPROM's side of the wires.
  struct Eeprom {
    uint32_t wires = 0;    // EECD as written
    uint16_t shifted = 0;  // opcode and address, as far as they have come
    uint8_t bits = 0;      // of them; the start bit is the first
    uint8_t out_bit = 0;   // of the word that is shifted out
    uint8_t address = 0;
    bool out = false;
    static constexpr auto fields() {
      using fields::row;
      using E = Eeprom;
      return fields::table<E>(row<1>("wires", &E::wires), row<2>("shifted", &E::shifted), row<3>("bits", &E::bits),
                              row<4>("out_bit", &E::out_bit), row<5>("address", &E::address), row<6>("out", &E::out));
    }
  };
  struct State {
    pci::ConfigSpace::State config;
    uint32_t control = 0;           // CTRL
    uint32_t extended_control = 0;  // CTRL_EXT
    uint32_t eeprom_read = 0;       // EERD
    uint32_t management_data = 0;   // MDIC
    uint32_t flow_address_low = 0;
    uint32_t flow_address_high = 0;
    uint32_t flow_type = 0;
    uint32_t vlan_type = 0;      // VET
    uint32_t causes = 0;         // ICR
    uint32_t throttle = 0;       // ITR
    uint32_t enabled = 0;        // IMS
    uint32_t receive = 0;        // RCTL
    uint32_t flow_time = 0;      // FCTTV
    uint32_t transmit_word = 0;  // TXCW
    uint32_t transmit = 0;       // TCTL
    uint32_t gap = 0;            // TIPG
    uint32_t adaptive = 0;       // AIT
    uint32_t lights = 0;         // LEDCTL
    uint32_t buffer = 0;         // PBA
    uint32_t flow_low = 0;       // FCRTL
    uint32_t flow_high = 0;      // FCRTH
    Ring receive_ring;
    uint32_t receive_delay = 0;        // RDTR
    uint32_t receive_descriptors = 0;  // RXDCTL
    uint32_t receive_absolute = 0;     // RADV
    uint32_t small_packets = 0;        // RSRPD
    Ring transmit_ring;
    uint32_t transmit_delay = 0;        // TIDV
    uint32_t transmit_descriptors = 0;  // TXDCTL
    uint32_t transmit_absolute = 0;     // TADV
    uint32_t segmentation_pad = 0;      // TSPMT
    uint32_t checksums = 0;             // RXCSUM
    uint32_t wake_control = 0;
    uint32_t wake_filter = 0;
    uint32_t management = 0;  // MANC
    std::array<uint32_t, e1000::table_words> multicast{};
    std::array<uint32_t, 2 * e1000::address_count> addresses{};
    std::array<uint32_t, e1000::table_words> vlans{};
    std::array<uint32_t, e1000::statistics_words> statistics{};
    std::array<uint16_t, 32> phy{};
    Eeprom eeprom{};
    uint32_t io_address = 0;
    std::array<Context, 2> contexts{};  // without and with segmentation
    // The packet that is being gathered: its bytes, and what its first descriptor said of all.
    fields::Bytes<most_gathered> packet;
    uint32_t packet_flags = 0;
    uint32_t packet_options = 0;
    uint32_t packet_checksum = 0;  // a legacy descriptor's CSO and CSS
    bool packet_begun = false;
    bool packet_dropped = false;
    bool cable = true;  // is plugged in
    static constexpr auto fields();
  };

  E1000(GuestMemory& memory, Clock& clock, NetBackend& backend, const Mac& mac);
  ~E1000() override;

  void set_link(bool up);  // plugs or unplugs the cable

  [[nodiscard]] std::string_view name() const override { return "e1000"; }
  uint64_t read(unsigned region, uint64_t offset, unsigned size) override;
  void write(unsigned region, uint64_t offset, unsigned size, uint64_t value) override;
  void config_write(unsigned offset, unsigned size, uint32_t value) override;
  void reset() override;
  void save(fields::Buffer& out) const override;
  [[nodiscard]] Result<> restore(std::span<const uint8_t> in) override;

 private:
  struct Plain;
  static const Plain plain_registers[];

  // Registers: e1000.cpp
  [[nodiscard]] uint32_t read_register(uint32_t offset);
  void write_register(uint32_t offset, uint32_t value);
  void write_control(uint32_t value);
  void reset_card();
  void reset_phy();
  void load_address();
  void write_wires(uint32_t value);
  void write_management_data(uint32_t value);
  void write_phy(unsigned index, uint16_t value);
  [[nodiscard]] bool link_up() const;
  void link_changed();
  void raise(uint32_t causes);
  void update_interrupt();
  void count(e1000::Statistic what, uint64_t by = 1);
  void count_octets(e1000::Statistic what, uint64_t by);

  // Transmit: e1000_transmit.cpp
  void pump();
  void take(const e1000::TransmitDescriptor& descriptor);
  void append(uint64_t address, uint32_t length);
  void send_packet();
  void send_segments(const Context& context);
  void send_frame();

  // Receive: e1000_receive.cpp
  bool receive(std::span<const uint8_t> frame);
  [[nodiscard]] bool wanted(std::span<const uint8_t> frame) const;
  [[nodiscard]] bool wanted_vlan(std::span<const uint8_t> frame) const;
  [[nodiscard]] uint32_t buffer_size() const;
  void check(std::span<const uint8_t> packet, e1000::ReceiveDescriptor& descriptor) const;
  void receive_again();

  GuestMemory& memory_;
  Clock& clock_;
  NetBackend& backend_;
  std::array<uint16_t, e1000::eeprom_words> eeprom_{};
  State state_;              // `config` only while saving
  bool starved_ = false;     // a frame waits at the backend for descriptors
  bool interrupt_ = false;   // the pin
  uint64_t not_before_ = 0;  // the next interrupt, by ITR
  std::unique_ptr<Clock::Timer> throttle_;
  std::unique_ptr<Clock::Timer> more_;  // to be sent after others had their turn
  std::vector<uint8_t> frame_;          // being made; kept for its capacity
};

constexpr auto E1000::State::fields() {
  using fields::row;
  using S = State;
  return caisson::fields::table<S>(
      row<1>("config", &S::config), row<2>("control", &S::control), row<3>("extended_control", &S::extended_control),
      row<4>("eeprom_read", &S::eeprom_read), row<5>("management_data", &S::management_data),
      row<6>("flow_address_low", &S::flow_address_low), row<7>("flow_address_high", &S::flow_address_high),
      row<8>("flow_type", &S::flow_type), row<9>("vlan_type", &S::vlan_type), row<10>("causes", &S::causes),
      row<11>("throttle", &S::throttle), row<12>("enabled", &S::enabled), row<13>("receive", &S::receive),
      row<14>("flow_time", &S::flow_time), row<15>("transmit_word", &S::transmit_word),
      row<16>("transmit", &S::transmit), row<17>("gap", &S::gap), row<18>("adaptive", &S::adaptive),
      row<19>("lights", &S::lights), row<20>("buffer", &S::buffer), row<21>("flow_low", &S::flow_low),
      row<22>("flow_high", &S::flow_high), row<23>("receive_ring", &S::receive_ring),
      row<24>("receive_delay", &S::receive_delay), row<25>("receive_descriptors", &S::receive_descriptors),
      row<26>("receive_absolute", &S::receive_absolute), row<27>("small_packets", &S::small_packets),
      row<28>("transmit_ring", &S::transmit_ring), row<29>("transmit_delay", &S::transmit_delay),
      row<30>("transmit_descriptors", &S::transmit_descriptors), row<31>("transmit_absolute", &S::transmit_absolute),
      row<32>("segmentation_pad", &S::segmentation_pad), row<33>("checksums", &S::checksums),
      row<34>("wake_control", &S::wake_control), row<35>("wake_filter", &S::wake_filter),
      row<36>("management", &S::management), row<37>("multicast", &S::multicast), row<38>("addresses", &S::addresses),
      row<39>("vlans", &S::vlans), row<40>("statistics", &S::statistics), row<41>("phy", &S::phy),
      row<42>("eeprom", &S::eeprom), row<43>("io_address", &S::io_address), row<44>("contexts", &S::contexts),
      row<45>("packet", &S::packet), row<46>("packet_flags", &S::packet_flags),
      row<47>("packet_options", &S::packet_options), row<48>("packet_checksum", &S::packet_checksum),
      row<49>("packet_begun", &S::packet_begun), row<50>("packet_dropped", &S::packet_dropped),
      row<51>("cable", &S::cable));
}

}  // namespace caisson::network
