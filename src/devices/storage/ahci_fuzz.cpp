// libFuzzer: a hostile guest at the AHCI controller through its window, with lists, tables and descriptors in its
// memory, mixed with what the host does meanwhile: completions, errors, saves and damaged restores.
#include <cerrno>
#include <cstdint>
#include <memory>

#include "base/log.h"
#include "devices/fuzz_input.h"
#include "devices/pci/host_bridge.h"
#include "devices/storage/ahci.h"
#include "devices/storage/ahci_registers.h"
#include "devices/storage/ata_disk.h"
#include "devices/storage/cdrom.h"
#include "devices/virtio/fake_backends.h"

namespace {

using namespace caisson;
using fuzz::Input;
using storage::Ahci;

class NoLine final : public InterruptLine {
 public:
  void set(bool) override {}
};

constexpr uint64_t bar = 0xc010'0000;
constexpr Gpa list = 0x1000, received = 0x3000, tables = 0x4000, data = 0x20000;

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  log::set_level(log::Level::Error);
  Input input({bytes, size});
  Bus bus;
  NoLine line;
  const auto memory = *GuestMemory::create(uint64_t{1} << 20);
  virtio::FakeDisk disk(64 * 1024), disc(32 * 2048, true);
  pci::Layout layout;
  pci::HostBridge bridge(bus, layout, [&](unsigned) -> InterruptLine& { return line; });
  auto owned = std::make_unique<Ahci>(*memory);
  Ahci& ahci = *owned;
  ahci.connect(0, std::make_unique<storage::AtaDisk>(disk, ""), &disk);
  ahci.connect(1, std::make_unique<storage::Cdrom>(&disc), &disc);
  ahci.connect(2, std::make_unique<storage::Cdrom>(nullptr), nullptr);
  const uint64_t ecam = layout.ecam_base + (uint64_t{bridge.plug(std::move(owned))} << 15);
  const auto configure = [&] {
    bus.write(Space::Memory, ecam + pci::base_address + 4 * Ahci::register_bar, 4, bar);
    bus.write(Space::Memory, ecam + pci::command, 2, pci::command_memory | pci::command_bus_master);
  };
  const auto port_register = [](unsigned port, storage::PortRegister reg) {
    return bar + storage::ports_offset + port * storage::port_size + static_cast<uint32_t>(reg);
  };
  configure();

  while (!input.empty()) {
    const auto op = static_cast<uint8_t>(input.take(1));
    const unsigned port = (op >> 4) % 4;
    switch (op & 15) {
      case 0: (void)bus.read(Space::Memory, bar + input.take(2) % 0x500, 4); break;
      case 1: bus.write(Space::Memory, bar + input.take(2) % 0x500, 1u << (op >> 4 & 3), input.take(4)); break;
      case 2: bus.write(Space::Memory, ecam + input.take(1), 1u << (op >> 4 & 1), input.take(4)); break;
      case 3: {  // starts a port
        using storage::PortRegister;
        bus.write(Space::Memory, port_register(port, PortRegister::CLB), 4, list + port * 0x400);
        bus.write(Space::Memory, port_register(port, PortRegister::FB), 4, received + port * 0x100);
        bus.write(Space::Memory, port_register(port, PortRegister::IE), 4, ~0u);
        bus.write(Space::Memory, port_register(port, PortRegister::CMD), 4, storage::cmd_receive_enable);
        bus.write(Space::Memory, port_register(port, PortRegister::CMD), 4,
                  storage::cmd_receive_enable | storage::cmd_start);
        break;
      }
      case 4:
      case 5:
      case 6:
      case 7: {  // a command that is nearly right
        const unsigned slot = input.take(1) % 4;
        storage::CommandHeader header;
        header.flags = static_cast<uint16_t>(input.take(2));
        if ((op & 1) != 0) header.flags |= storage::header_packet;
        header.descriptors = static_cast<uint16_t>(input.take(1) % 8);
        header.table_low = static_cast<uint32_t>(tables + slot * 0x1000);
        (void)memory->write_object(list + port * 0x400 + slot * sizeof header, header);
        std::array<uint8_t, 16> frame{storage::fis_host_registers, storage::fis_is_command};
        const auto rest = input.take_bytes(14);
        std::copy(rest.begin(), rest.end(), frame.begin() + 2);
        if ((op & 1) != 0) frame[2] = 0xa0;
        (void)memory->write(header.table_low, frame);
        (void)memory->write(header.table_low + storage::packet_offset, input.take_bytes(12));
        for (unsigned i = 0; i < header.descriptors; ++i) {
          const auto place = static_cast<uint32_t>(input.take(1));
          const storage::Descriptor descriptor{static_cast<uint32_t>(data + place * 0x1000), 0, 0,
                                               static_cast<uint32_t>(input.take(2))};
          (void)memory->write_object(header.table_low + storage::command_table_fixed + i * sizeof descriptor,
                                     descriptor);
        }
        bus.write(Space::Memory, port_register(port, storage::PortRegister::CI), 4, 1u << slot);
        break;
      }
      case 8: (void)memory->write(input.take(2), input.take_bytes(16)); break;
      case 9: bus.write(Space::Memory, port_register(port, storage::PortRegister::CI), 4, input.take(4)); break;
      case 10: {
        auto& one = (op & 16) != 0 ? disk : disc;
        if (!one.waiting.empty()) one.complete(input.take(1) % one.waiting.size(), (op & 32) != 0 ? EIO : 0);
        break;
      }
      case 11: {
        ahci.quiesce();
        fields::Buffer saved;
        ahci.save(saved);
        for (unsigned i = 0; i < (op >> 4) && !saved.empty(); ++i) {
          saved[input.take(2) % saved.size()] = static_cast<uint8_t>(input.take(1));
        }
        (void)ahci.restore(saved);
        break;
      }
      case 12:
        ahci.reset();
        configure();
        break;
      case 13: configure(); break;
      default:
        disk.complete_all();
        disc.complete_all();
        break;
    }
  }
  return 0;
}
