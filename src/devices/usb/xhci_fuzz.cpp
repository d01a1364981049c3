// libFuzzer: a hostile guest at the USB controller through its window, with rings, contexts and TRBs in its memory, a
// stick and a tablet behind it, mixed with what the host does meanwhile: completions, errors, moves of the pointer,
// saves and damaged restores.
#include <cerrno>
#include <cstdint>
#include <memory>

#include "base/log.h"
#include "bus/fake_clock.h"
#include "devices/fuzz_input.h"
#include "devices/pci/host_bridge.h"
#include "devices/usb/attach.h"
#include "devices/virtio/fake_backends.h"

namespace {

using namespace caisson;
namespace format = caisson::usb::xhci;
using caisson::usb::Xhci;
using format::Trb;

class NoPin final : public InterruptLine {
 public:
  void set(bool) override {}
};
class NoMessages final : public MsiSink {
 public:
  void send_msi(uint64_t, uint32_t) override {}
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  constexpr uint64_t bar = 0xc010'0000, table = 0xc020'0000;
  constexpr Gpa contexts = 0x1000, segments = 0x2000, event_ring = 0x3000, commands = 0x5000, input_context = 0x6000,
                device_contexts = 0x8000, rings = 0x10000, data = 0x40000;
  log::set_level(log::Level::Error);
  fuzz::Input input({bytes, size});
  Bus bus;
  NoPin pin;
  NoMessages msi;
  FakeClock clock;
  const auto memory = *GuestMemory::create(uint64_t{1} << 20);
  virtio::FakeDisk disk(64 * 1024);
  pci::Layout layout;
  pci::HostBridge bridge(bus, layout, [&](unsigned) -> InterruptLine& { return pin; });
  const auto added = usb::add_xhci(bridge, *memory, msi, clock);
  Xhci& device = added.controller;
  auto owned = std::make_unique<usb::Tablet>();
  usb::Tablet& tablet = *owned;
  const unsigned tablet_port = *device.connect(std::move(owned));
  const unsigned stick_port = *device.connect(std::make_unique<usb::Stick>(disk, "fuzz"));
  const uint64_t ecam = layout.ecam_base + (uint64_t{added.slot} << 15);
  const auto set = [&](uint64_t offset, uint64_t value) { bus.write(Space::Memory, bar + offset, 8, value); };
  const auto ring_bell = [&](unsigned slot, uint32_t value) {
    bus.write(Space::Memory, bar + format::doorbell_registers + slot * 4, 4, value);
  };
  uint32_t command_tail = 0;
  const auto command = [&](format::TrbType type, uint64_t parameter, uint32_t more) {
    const Trb trb{parameter, 0, static_cast<uint32_t>(type) << format::trb_type_shift | more | format::trb_cycle};
    (void)memory->write_object(commands + command_tail * sizeof trb, trb);
    command_tail = (command_tail + 1) % 200;
    (void)memory->write_object(commands + command_tail * sizeof trb, Trb{});
    ring_bell(0, 0);
  };
  const auto ring_of = [](unsigned slot, unsigned index) { return rings + (slot % 4 * 32 + index) * 0x400; };
  std::array<std::array<uint32_t, 32>, 4> tails{};
  const auto transfer = [&](unsigned slot, unsigned index, const Trb& trb) {
    uint32_t& tail = tails[slot % 4][index];
    (void)memory->write_object(ring_of(slot, index) + tail * sizeof trb, trb);
    tail = (tail + 1) % 60;
    (void)memory->write_object(ring_of(slot, index) + tail * sizeof trb, Trb{});
  };
  const auto context_of = [&](unsigned slot, uint32_t add, unsigned port) {
    (void)memory->write_object(input_context, std::array<uint32_t, 2>{0, add});
    (void)memory->write_object(input_context + 32, format::SlotContext{.route = 5u << 27, .port = port << 16});
    for (unsigned index = 1; index < 5; ++index) {
      constexpr std::array<uint32_t, 5> types{0, 4, 0, 7, 2};  // control, interrupt in at 3, bulk out at 4
      uint32_t type = types[index];
      if (port == stick_port && index == 3) type = 6;
      (void)memory->write_object(
          input_context + 32 * (index + 1),
          format::EndpointContext{.kind = type << 3 | 64 << 16, .dequeue = ring_of(slot, index) | 1});
      tails[slot % 4][index] = 0;
      (void)memory->write_object(ring_of(slot, index), Trb{});
    }
  };
  const auto control = [&](unsigned slot, uint64_t setup, uint32_t length, bool in) {
    const auto type = [](format::TrbType which) {
      return static_cast<uint32_t>(which) << format::trb_type_shift | format::trb_cycle | format::trb_interrupt;
    };
    transfer(slot, 1, {setup, 8, type(format::TrbType::SetupStage) | format::trb_immediate});
    if (length != 0) transfer(slot, 1, {data, length, type(format::TrbType::DataStage) | (in ? format::trb_in : 0)});
    transfer(slot, 1, {0, 0, type(format::TrbType::StatusStage) | (in ? 0 : format::trb_in)});
    ring_bell(slot, 1);
  };
  const auto configure = [&] {
    bus.write(Space::Memory, ecam + pci::base_address, 4, bar);
    bus.write(Space::Memory, ecam + pci::base_address + 4, 4, 0);
    bus.write(Space::Memory, ecam + pci::base_address + 4 * Xhci::msix_bar, 4, table);
    bus.write(Space::Memory, ecam + pci::command, 2, pci::command_memory | pci::command_bus_master);
  };
  const auto enable = [&] {
    constexpr uint64_t op = format::operational, run = format::runtime;
    bus.write(Space::Memory, bar + op, 4, format::cmd_reset);
    (void)memory->write_object(segments, format::SegmentEntry{event_ring, 256, 0});
    for (uint64_t slot = 1; slot < 8; ++slot)
      (void)memory->write_object(contexts + slot * 8, device_contexts + slot * 0x400);
    command_tail = 0;
    (void)memory->write_object(commands, Trb{});
    set(op + static_cast<uint32_t>(format::Operational::CONFIG), 8);
    set(op + static_cast<uint32_t>(format::Operational::DCBAAP), contexts);
    set(op + static_cast<uint32_t>(format::Operational::CRCR), commands | 1);
    bus.write(Space::Memory, bar + run + static_cast<uint32_t>(format::Runtime::ERSTSZ), 4, 1);
    set(run + static_cast<uint32_t>(format::Runtime::ERDP), event_ring);
    set(run + static_cast<uint32_t>(format::Runtime::ERSTBA), segments);
    bus.write(Space::Memory, bar + run + static_cast<uint32_t>(format::Runtime::IMAN), 4, 2);
    bus.write(Space::Memory, bar + op, 4, format::cmd_run | format::cmd_interrupts);
    // Slot 1 the tablet, slot 2 the stick, both ready for use.
    unsigned slot = 0;
    for (const unsigned port : {tablet_port, stick_port}) {
      bus.write(Space::Memory, bar + format::port_registers + (port - 1) * 16, 4,
                format::port_reset | format::port_power);
      command(format::TrbType::EnableSlot, 0, 0);
      ++slot;
      context_of(slot, 3, port);
      command(format::TrbType::AddressDevice, input_context, slot << 24);
      context_of(slot, port == stick_port ? 0x19 : 0x09, port);
      tails[slot][1] = 0;
      command(format::TrbType::ConfigureEndpoint, input_context, slot << 24);
      control(slot, 0x0001'0900, 0, false);  // set configuration 1
    }
  };
  configure();
  enable();

  while (!input.empty()) {
    const auto op = static_cast<uint8_t>(input.take(1));
    const unsigned slot = 1 + (op >> 4 & 1), index = (op >> 5 & 3) + 1;
    switch (op & 15) {
      case 0: (void)bus.read(Space::Memory, bar + input.take(2) % 0x2100, 4); break;
      case 1: bus.write(Space::Memory, bar + input.take(2) % 0x2100 / 4 * 4, 4, input.take(4)); break;
      case 2: bus.write(Space::Memory, ecam + input.take(1), 1u << (op >> 4 & 1), input.take(4)); break;
      case 3: bus.write(Space::Memory, table + input.take(2) % 0x1000, 4, input.take(4)); break;
      case 4:
        command(static_cast<format::TrbType>(9 + input.take(1) % 16), input_context + (op & 32) * 0x80,
                slot << 24 | index << 16 | (op & 128) << 2);
        break;
      case 5: {  // one that is nearly right
        context_of(slot, static_cast<uint32_t>(input.take(1)), op & 32 ? stick_port : tablet_port);
        (void)memory->write(input_context + input.take(1), input.take_bytes(4));
        command(static_cast<format::TrbType>(11 + input.take(1) % 3), input_context, slot << 24);
        break;
      }
      case 6: {  // a TRB of any kind
        Trb trb;
        trb.parameter = data + input.take(2) * ((op & 128) != 0 ? 16 : 1);
        trb.status = static_cast<uint32_t>(input.take(3));
        trb.control = static_cast<uint32_t>(input.take(2) | input.take(1) << 16) | format::trb_cycle;
        transfer(slot, index, trb);
        break;
      }
      case 7:
        transfer(slot, index,
                 {ring_of(slot, static_cast<unsigned>(input.take(1) % 5)), 0,
                  static_cast<uint32_t>(format::TrbType::Link) << format::trb_type_shift | (op & 128 ? 3u : 1u)});
        break;
      case 8: ring_bell(slot, index); break;
      case 9: {  // a control transfer
        const uint64_t setup = input.take(8);
        control(slot, setup, static_cast<uint32_t>(input.take(1)), (setup & 0x80) != 0);
        break;
      }
      case 10:
      case 11: {  // a command for the stick, its data, its status
        std::array<uint8_t, 31> wrapper{'U', 'S', 'B', 'C'};
        const auto length = static_cast<uint32_t>(input.take(2) * 64);
        const bool in = (op & 32) != 0;
        wrapper[8] = static_cast<uint8_t>(length);
        wrapper[9] = static_cast<uint8_t>(length >> 8);
        wrapper[10] = static_cast<uint8_t>(length >> 16);
        wrapper[12] = in ? 0x80 : 0;
        wrapper[14] = static_cast<uint8_t>(input.take(1) % 17);
        constexpr std::array<uint8_t, 16> known{0x00, 0x03, 0x12, 0x1a, 0x1b, 0x25, 0x28, 0x2a,
                                                0x35, 0x5a, 0x88, 0x8a, 0x9e, 0xa0, 0xaa, 0x2f};
        wrapper[15] = (op & 64) != 0 ? known[input.take(1) % 16] : static_cast<uint8_t>(input.take(1));
        const auto rest = input.take_bytes(15);
        std::ranges::copy(rest, wrapper.begin() + 16);
        (void)memory->write(data, wrapper);
        const uint32_t normal = static_cast<uint32_t>(format::TrbType::Normal) << format::trb_type_shift |
                                format::trb_cycle | format::trb_interrupt;
        transfer(2, 4, {data, 31, normal});
        if (length != 0) transfer(2, in ? 3 : 4, {data + 0x1000, length & 0xffff, normal | ((op & 128) >> 5)});
        transfer(2, 3, {data + 0x800, 13, normal});
        ring_bell(2, 4);
        ring_bell(2, 3);
        break;
      }
      case 12:
        if (!disk.waiting.empty()) disk.complete(input.take(1) % disk.waiting.size(), (op & 32) != 0 ? EIO : 0);
        clock.advance(10);
        break;
      case 13: {
        device.quiesce();
        fields::Buffer saved;
        device.save(saved);
        for (unsigned i = 0; i < (op >> 4) && !saved.empty(); ++i) {
          saved[input.take(2) % saved.size()] = static_cast<uint8_t>(input.take(1));
        }
        (void)device.restore(saved);
        break;
      }
      case 14:
        if ((op & 16) != 0) device.reset();
        configure();
        enable();
        break;
      default:
        disk.complete_all();
        (void)tablet.point(static_cast<uint16_t>(input.take(2)), 5, op >> 4, 1);
        bus.write(Space::Memory, bar + format::runtime + static_cast<uint32_t>(format::Runtime::ERDP), 4,
                  (event_ring + input.take(1) * 16) | 8);
        clock.advance(2'000'000);
        break;
    }
  }
  return 0;
}
