// libFuzzer: a hostile guest and a lively host drive the whole chipset: ports, MMIO, MSRs, APIC pages, lines, time,
// input, messages, and damaged saved states. Whatever comes, nothing may crash, hang or make a sanitizer speak.
#include <array>
#include <cstdint>
#include <memory>

#include "base/log.h"
#include "bus/fake_clock.h"
#include "devices/chipset/attach.h"
#include "devices/fuzz_input.h"

namespace {

using namespace caisson;
using fuzz::Input;
using fuzz::NoPower;

class PartialSink final : public CharSink {
 public:
  size_t write(std::span<const uint8_t> bytes) override {
    return bytes.size() > 4 ? bytes.size() - 3 : bytes.size() & takes;
  }
  size_t takes = ~size_t{0};
};

struct Window {
  uint16_t base;
  uint16_t length;
};
constexpr std::array<Window, 16> windows{{{0x20, 2},
                                          {0xa0, 2},
                                          {0x4d0, 2},
                                          {0x40, 4},
                                          {0x60, 2},
                                          {0x64, 1},
                                          {0x70, 2},
                                          {0x92, 1},
                                          {0x3f8, 8},
                                          {0x600, 16},
                                          {0x620, 4},
                                          {0x6c0, 16},
                                          {0xcf9, 1},
                                          {0x505, 1},
                                          {0xf4, 4},
                                          {0x61, 1}}};
constexpr std::array<unsigned, 4> sizes{1, 2, 4, 8};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  log::set_level(log::Level::Error);
  Input input({data, size});
  Bus bus;
  FakeClock clock;
  NoPower power;
  PartialSink sink;
  auto chipset = *Chipset::create(bus, clock, power, sink, {.cpus = 3, .low_memory = 1 << 28, .debug_exit = true});
  auto shared = chipset->router().shared_line(16);
  chipset->com1().on_space([&] {
    const std::array<uint8_t, 3> more{'a', 'b', 'c'};
    chipset->com1().receive(more);
  });
  // A time budget, since one input could otherwise ask for days of 20 kHz ticks.
  uint64_t time_left = 2'000'000'000;
  while (!input.empty()) {
    const auto op = static_cast<uint8_t>(input.take(1));
    LocalApic& apic = chipset->local_apic(op >> 6 & 1);
    switch (op & 15) {
      case 0:
      case 1: {
        const Window window = windows[input.take(1) % windows.size()];
        const auto port = static_cast<uint16_t>(window.base + input.take(1) % window.length);
        const unsigned width = sizes[op >> 4 & 3];
        if ((op & 1) != 0) {
          bus.write(Space::Port, port, width, input.take(width));
        } else {
          (void)bus.read(Space::Port, port, width);
        }
        break;
      }
      case 2: bus.write(Space::Memory, 0xfec0'0000 + (input.take(1) & 0x7f), sizes[op >> 4 & 3], input.take(8)); break;
      case 3:
        if ((op & 0x80) != 0) {  // the HPET, with times that come soon
          const uint64_t at = chipset::hpet_address + (input.take(1) * 4 & 0x1ff);
          bus.write(Space::Memory, at, sizes[op >> 4 & 3], input.take((op & 0x40) != 0 ? 8 : 2));
          (void)bus.read(Space::Memory, at, sizes[op >> 4 & 3]);
          break;
        }
        (void)bus.read(Space::Memory, 0xfec0'0000 + (input.take(1) & 0x7f), sizes[op >> 4 & 3]);
        break;
      case 4:
        apic.write_register(static_cast<uint32_t>(input.take(1) << 4), static_cast<uint32_t>(input.take(4)));
        break;
      case 5: (void)apic.read_register(static_cast<uint32_t>(input.take(2))); break;
      case 6: (void)apic.write_msr(0x800 + static_cast<uint32_t>(input.take(1)), input.take(8)); break;
      case 7: (void)apic.read_msr(0x800 + static_cast<uint32_t>(input.take(1))); break;
      case 8: (void)apic.write_msr((op & 0x10) != 0 ? 0x1b : 0x6e0, input.take(8)); break;
      case 9:
        (void)apic.take_event((op & 0x10) != 0);
        if (apic.pending()) (void)apic.acknowledge();
        apic.set_cr8(static_cast<uint8_t>(input.take(1)));
        break;
      case 10: {
        const std::lock_guard hold(bus.lock());
        const auto which = static_cast<unsigned>(input.take(1));
        if (which % 25 == 24) {
          shared->set((op & 0x10) != 0);
        } else {
          chipset->router().line(which % 25).set((op & 0x10) != 0);
        }
        break;
      }
      case 11: {
        const std::lock_guard hold(bus.lock());
        const uint64_t step = std::min(input.take(3) << (op >> 4 & 7), time_left);
        time_left -= step;
        clock.advance(step);
        break;
      }
      case 12: chipset->msi().send_msi(0xfee0'0000 | input.take(3), static_cast<uint32_t>(input.take(3))); break;
      case 13: {
        const std::lock_guard hold(bus.lock());
        chipset->com1().receive(input.take_bytes(input.take(1)));
        sink.takes = (op & 0x10) != 0 ? ~size_t{0} : 0;
        chipset->com1().transmit_ready();
        if ((op & 0x20) != 0) chipset->acpi_pm().press_power_button();
        break;
      }
      case 14: {  // a saved state with some bytes changed
        const std::lock_guard hold(bus.lock());
        const auto& devices = chipset->devices();
        const auto which = static_cast<size_t>(input.take(1)) % (devices.size() + 1);
        fields::Buffer bytes;
        if (which < devices.size()) {
          devices[which]->save(bytes);
        } else {
          apic.save(bytes);
        }
        for (uint64_t n = input.take(1) % 8; n > 0 && !bytes.empty(); --n) {
          bytes[input.take(2) % bytes.size()] = static_cast<uint8_t>(input.take(1));
        }
        (void)(which < devices.size() ? devices[which]->restore(bytes) : apic.restore(bytes));
        break;
      }
      default: {
        const std::lock_guard hold(bus.lock());
        chipset->reset();
        break;
      }
    }
  }
  return 0;
}
