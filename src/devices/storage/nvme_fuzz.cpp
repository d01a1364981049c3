// libFuzzer: a hostile guest at the NVMe controller through its window, with queues, lists and commands in its memory,
// mixed with what the host does meanwhile: completions, errors, saves and damaged restores.
#include <cerrno>
#include <cstdint>
#include <memory>

#include "base/log.h"
#include "devices/fuzz_input.h"
#include "devices/pci/host_bridge.h"
#include "devices/storage/nvme.h"
#include "devices/virtio/fake_backends.h"

namespace {

using namespace caisson;
using caisson::storage::Nvme;
using caisson::storage::nvme::Command;

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
  namespace nvme = storage::nvme;
  constexpr uint64_t bar = 0xc010'0000, table = 0xc020'0000;
  constexpr Gpa queues = 0x10000, data = 0x40000;
  constexpr unsigned queue_size = 8;
  log::set_level(log::Level::Error);
  fuzz::Input input({bytes, size});
  Bus bus;
  NoPin pin;
  NoMessages msi;
  const auto memory = *GuestMemory::create(uint64_t{1} << 20);
  virtio::FakeDisk disk(64 * 1024);
  disk.at_once = size % 2 != 0;
  pci::Layout layout;
  pci::HostBridge bridge(bus, layout, [&](unsigned) -> InterruptLine& { return pin; });
  auto owned = std::make_unique<Nvme>(*memory, msi, disk, "fuzz");
  Nvme& device = *owned;
  const uint64_t ecam = layout.ecam_base + (uint64_t{bridge.plug(std::move(owned))} << 15);
  const auto set = [&](nvme::Register reg, uint32_t value) {
    bus.write(Space::Memory, bar + static_cast<uint32_t>(reg), 4, value);
  };
  const auto place = [](unsigned queue, bool answers) { return queues + queue * 0x2000 + (answers ? 0x1000 : 0); };
  std::array<unsigned, 4> tails{};
  const auto send = [&](unsigned queue, const Command& command) {
    (void)memory->write_object(place(queue, false) + tails[queue] * sizeof command, command);
    tails[queue] = (tails[queue] + 1) % queue_size;
    bus.write(Space::Memory, bar + nvme::doorbells_offset + queue * 8, 4, tails[queue]);
  };
  const auto configure = [&] {
    bus.write(Space::Memory, ecam + pci::base_address, 4, bar);
    bus.write(Space::Memory, ecam + pci::base_address + 4, 4, 0);
    bus.write(Space::Memory, ecam + pci::base_address + 4 * Nvme::msix_bar, 4, table);
    bus.write(Space::Memory, ecam + pci::command, 2, pci::command_memory | pci::command_bus_master);
  };
  const auto enable = [&] {
    set(nvme::Register::CC, 0);
    set(nvme::Register::AQA, (queue_size - 1) | (queue_size - 1) << 16);
    set(nvme::Register::ASQ, place(0, false));
    set(nvme::Register::ASQ_high, 0);
    set(nvme::Register::ACQ, place(0, true));
    set(nvme::Register::ACQ_high, 0);
    set(nvme::Register::CC, nvme::cc_enable | nvme::command_log2 << nvme::cc_submission_shift |
                                nvme::completion_log2 << nvme::cc_completion_shift);
    tails = {};
    for (uint32_t i = 1; i < tails.size(); ++i) {
      const uint32_t which = i | (queue_size - 1) << 16;
      send(0, {.opcode = 5, .prp1 = place(i, true), .dword10 = which, .dword11 = 3 | i << 16});
      send(0, {.opcode = 1, .prp1 = place(i, false), .dword10 = which, .dword11 = 1 | i << 16});
    }
  };
  configure();
  enable();

  while (!input.empty()) {
    const auto op = static_cast<uint8_t>(input.take(1));
    const unsigned queue = op >> 4 & 3;
    switch (op & 15) {
      case 0: (void)bus.read(Space::Memory, bar + input.take(2) % 0x1200, 4); break;
      case 1: bus.write(Space::Memory, bar + input.take(2) % 0x1200, 1u << (op >> 4 & 3), input.take(4)); break;
      case 2: bus.write(Space::Memory, ecam + input.take(1), 1u << (op >> 4 & 1), input.take(4)); break;
      case 3: bus.write(Space::Memory, table + input.take(2) % 0x1000, 4, input.take(4)); break;
      case 4:
      case 5:
      case 6:
      case 7:
      case 8: {  // a command that is nearly right
        Command command;
        command.opcode = static_cast<uint8_t>(input.take(1) % 16);
        command.id = static_cast<uint16_t>(input.take(1));
        command.name_space = (op & 64) != 0 ? static_cast<uint32_t>(input.take(4)) : 1;
        command.prp1 = data + input.take(2) * 8;
        command.prp2 = data + input.take(2) * ((op & 128) != 0 ? 4096 : 8);
        command.dword10 = static_cast<uint32_t>(input.take(2) | input.take(1) << 16);
        command.dword11 = static_cast<uint32_t>(queue == 0 ? input.take(3) : input.take(1) & 4);
        command.dword12 = static_cast<uint32_t>(input.take(1) | input.take(1) << 24);
        send(queue, command);
        break;
      }
      case 9: (void)memory->write(data + input.take(2) * 8, input.take_bytes(32)); break;
      case 10: {  // a piece of a list
        const Gpa at = data + input.take(2) * 8;
        for (unsigned i = 0; i < 16; ++i) (void)memory->write_object(at + i * 8, Gpa{data + input.take(1) * 0x1000});
        break;
      }
      case 11:
        bus.write(Space::Memory, bar + nvme::doorbells_offset + queue * 8 + 4, 4, input.take(1) % queue_size);
        break;
      case 12:
        if (!disk.waiting.empty()) disk.complete(input.take(1) % disk.waiting.size(), (op & 32) != 0 ? EIO : 0);
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
      default: disk.complete_all(); break;
    }
  }
  return 0;
}
