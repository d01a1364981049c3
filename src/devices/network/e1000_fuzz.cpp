// libFuzzer: a hostile guest at the e1000 through its windows, with rings and packets in its memory, mixed with frames
// that come, time that passes, saves and damaged restores.
#include <cstdint>
#include <memory>

#include "base/log.h"
#include "bus/fake_clock.h"
#include "devices/fuzz_input.h"
#include "devices/network/e1000.h"
#include "devices/pci/host_bridge.h"
#include "devices/virtio/fake_backends.h"

namespace {

using namespace caisson;
using caisson::network::E1000;

class NoCardLine final : public InterruptLine {
 public:
  void set(bool) override {}
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  namespace e1000 = network::e1000;
  constexpr uint64_t bar = 0xc010'0000, ports = 0xc000;
  constexpr Gpa out_ring = 0x1000, in_ring = 0x2000, data = 0x10000;
  constexpr uint32_t ring_bytes = 256;
  log::set_level(log::Level::Error);
  fuzz::Input input({bytes, size});
  Bus bus;
  NoCardLine line;
  FakeClock clock;
  const auto memory = *GuestMemory::create(uint64_t{1} << 20);
  virtio::FakeNet net;
  pci::Layout layout;
  pci::HostBridge bridge(bus, layout, [&](unsigned) -> InterruptLine& { return line; });
  auto owned = std::make_unique<E1000>(*memory, clock, net, E1000::Mac{2, 0, 0, 0, 0, 1});
  E1000& card = *owned;
  const uint64_t ecam = layout.ecam_base + (uint64_t{bridge.plug(std::move(owned))} << 15);
  const auto set = [&](e1000::Register reg, uint32_t value) {
    bus.write(Space::Memory, bar + static_cast<uint32_t>(reg), 4, value);
  };
  const auto configure = [&] {
    using enum e1000::Register;
    bus.write(Space::Memory, ecam + pci::base_address, 4, bar);
    bus.write(Space::Memory, ecam + pci::base_address + 4, 4, ports);
    bus.write(Space::Memory, ecam + pci::command, 2, 7);
    set(CTRL, e1000::ctrl_set_link_up | e1000::ctrl_vlan_mode);
    set(TDBAL, out_ring);
    set(TDLEN, ring_bytes);
    set(TDH, 0);
    set(TDT, 0);
    set(TCTL, e1000::tctl_enable | e1000::tctl_pad);
    set(RDBAL, in_ring);
    set(RDLEN, ring_bytes);
    set(RDH, 0);
    set(RDT, ring_bytes / 16 - 1);
    set(RXCSUM, 0x300);
    set(IMS, ~0u);
    set(RCTL, e1000::rctl_enable | e1000::rctl_unicast_all | e1000::rctl_multicast_all);
  };
  configure();
  uint32_t tail = 0;
  while (!input.empty()) {
    const auto op = static_cast<uint8_t>(input.take(1));
    switch (op & 15) {
      case 0: (void)bus.read(Space::Memory, bar + (input.take(3) & ~uint64_t{3}) % E1000::register_size, 4); break;
      case 1:
        bus.write(Space::Memory, bar + (input.take(3) & ~uint64_t{3}) % E1000::register_size, 4, input.take(4));
        break;
      case 2: bus.write(Space::Memory, ecam + input.take(1), 1u << (op >> 4 & 1), input.take(4)); break;
      case 3: {  // a register that does something
        constexpr uint32_t registers[] = {0x0,   0x10,   0x14,   0x20,   0xc0,   0xc4,   0xc8,   0x100,
                                          0x400, 0x2808, 0x2810, 0x2818, 0x3808, 0x3810, 0x3818, 0x5000};
        bus.write(Space::Memory, bar + registers[op >> 4], 4, input.take(4));
        break;
      }
      case 4: bus.write(Space::Port, ports + (op >> 4) % 2 * 4, 4, input.take(op >> 6)); break;
      case 5: (void)bus.read(Space::Port, ports + (op >> 4) % 2 * 4, 4); break;
      case 6:
      case 7:
      case 8:
      case 9: {  // a descriptor that is nearly right
        e1000::TransmitDescriptor descriptor;
        const bool context = (op & 0x30) == 0;
        descriptor.address = context ? input.take(8) : data + input.take(2);
        descriptor.flags =
            static_cast<uint32_t>(input.take(2) | input.take(1) << 24) | (context ? e1000::command_extended : 1u << 20);
        descriptor.more = static_cast<uint32_t>(input.take(4));
        (void)memory->write_object(out_ring + tail * sizeof descriptor, descriptor);
        tail = (tail + 1) % (ring_bytes / 16);
        set(e1000::Register::TDT, tail);
        break;
      }
      case 10: (void)memory->write(data + input.take(2), input.take_bytes(40)); break;
      case 11: {
        std::vector<uint8_t> frame(input.take(2) % 2000);
        const auto start = input.take_bytes(40);
        std::copy_n(start.begin(), std::min(start.size(), frame.size()), frame.begin());
        if (net.receiver) (void)net.receiver(frame);
        break;
      }
      case 12: clock.advance(input.take(2) * 100); break;
      case 13: {
        fields::Buffer saved;
        card.save(saved);
        for (unsigned i = 0; i < (op >> 4) && !saved.empty(); ++i) {
          saved[input.take(2) % saved.size()] = static_cast<uint8_t>(input.take(1));
        }
        (void)card.restore(saved);
        break;
      }
      case 14:
        if ((op & 16) != 0) card.reset();
        card.set_link((op & 32) == 0);
        configure();
        tail = 0;
        break;
      default: {  // buffers for what comes
        for (unsigned i = 0; i < ring_bytes / 16; ++i) {
          (void)memory->write_object(in_ring + i * 16, data + input.take(1) * 0x100);
        }
        set(e1000::Register::RDT, static_cast<uint32_t>(input.take(1)) % (ring_bytes / 16));
        break;
      }
    }
    net.sent.clear();
  }
  return 0;
}
