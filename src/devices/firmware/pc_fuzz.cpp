// libFuzzer: a hostile guest at the devices of a machine that starts by firmware: fw_cfg, VGA, flash, keyboard, Q35's
// bridges, through the bus; and damaged saved states. What an engine may read past the devices is what they give.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>

#include "base/log.h"
#include "bus/fake_clock.h"
#include "devices/chipset/attach.h"
#include "devices/display/vga.h"
#include "devices/firmware/flash.h"
#include "devices/firmware/fw_cfg.h"
#include "devices/fuzz_input.h"
#include "devices/pci/host_bridge.h"
#include "devices/pci/lpc_bridge.h"

namespace {

using namespace caisson;
using fuzz::Input;
using fuzz::NoPower;

class NoSerial final : public CharSink {
 public:
  size_t write(std::span<const uint8_t> bytes) override { return bytes.size(); }
};

class CheckingBinder final : public DirectBinder {
 public:
  bool bind(uint64_t address, std::span<uint8_t> memory, bool) override {
    if (address % page_size != 0 || memory.empty() || !bound_.emplace(address, memory).second) std::abort();
    return true;
  }
  void unbind(uint64_t address) override {
    if (bound_.erase(address) != 1) std::abort();
  }
  bool written(uint64_t address) override { return address % (2 * page_size) != 0; }
  void check(uint64_t address, unsigned width, uint64_t value) const {
    for (const auto& [start, memory] : bound_) {
      if (address < start || address - start > memory.size() - width) continue;
      if (std::memcmp(&value, &memory[address - start], width) != 0) std::abort();
    }
  }

 private:
  std::map<uint64_t, std::span<uint8_t>> bound_;
};

constexpr uint64_t flash_base = 0xffc0'0000, flash_size = 4 * Flash::block_size;

struct Window {
  Space space;
  uint64_t base, length;
};
constexpr Window windows[] = {{Space::Port, 0x510, 2},
                              {Space::Port, 0x514, 8},
                              {Space::Port, 0x3b0, 0x30},
                              {Space::Port, 0x1ce, 4},
                              {Space::Port, 0x60, 5},
                              {Space::Port, 0xcf8, 8},
                              {Space::Memory, 0xa0000, 0x20000},
                              {Space::Memory, 0xb000'0000, 0x10'0000},
                              {Space::Memory, 0xc000'0000, 0x200'0000},
                              {Space::Memory, flash_base, flash_size}};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  log::set_level(log::Level::Error);
  Input input({data, size});
  Bus bus;
  FakeClock clock;
  NoPower power;
  NoSerial serial;
  const auto memory = *GuestMemory::create(uint64_t{2} << 20, {.low_end = 0x8000'0000, .video_window = true});
  const auto chipset = *Chipset::create(bus, clock, power, serial, {.keyboard = true});
  const pci::Layout layout{.ecam_base = 0xb000'0000, .mmio32_base = 0x8000'0000, .mmio32_size = 0x7ec0'0000};
  pci::HostBridge bridge(
      bus, layout, [&](unsigned gsi) -> InterruptLine& { return chipset->router().line(gsi); },
      pci::HostBridge::Kind::Q35);
  bridge.plug(std::make_unique<pci::LpcBridge>(), pci::LpcBridge::slot);
  auto owned = std::make_unique<display::Vga>(clock);
  display::Vga& vga = *owned;
  vga.map_legacy(bus);
  bridge.plug(std::move(owned), 2);
  FwCfg files(*memory);
  files.add_file("file", std::vector<uint8_t>(100, 7));
  bus.map(Space::Port, FwCfg::port, FwCfg::port_length, files, 0, {1, 2});
  bus.map(Space::Port, FwCfg::dma_port, FwCfg::dma_port_length, files, 1, {1, 8});
  bool full = false;  // the disk that has the flash's content
  Flash flash(std::vector<uint8_t>(flash_size, 0xff), [&full](uint64_t, std::span<const uint8_t>) -> Result<> {
    if (full) return fail("no room");
    return {};
  });
  flash.map(bus, flash_base);
  CheckingBinder binder;
  bus.set_direct_binder(&binder);
  unsigned pictures = 2;  // they take long
  while (!input.empty()) {
    const auto op = static_cast<uint8_t>(input.take(1));
    const Window& window = windows[(op >> 3 & 15) % std::size(windows)];
    const uint64_t address = window.base + input.take(3) % window.length;
    const unsigned width = window.space == Space::Port ? 1u << (op & 1) << (op >> 2 & 1) : 1u << (op & 3);
    switch (op & 7) {
      case 0:
      case 1: {
        const uint64_t value = bus.read(window.space, address, width);
        if (window.space == Space::Memory) binder.check(address, width, value);
        break;
      }
      case 2:
        if ((op & 32) != 0) {
          const auto at = [&] { return static_cast<int32_t>(input.take(4)) >> (op >> 6 & 3) * 8; };
          const int right = at(), up = at(), wheel = at();
          chipset->keyboard().move(right, up, wheel, static_cast<uint8_t>(input.take(1)));
        } else {
          chipset->keyboard().key({static_cast<uint8_t>(address), (op & 8) != 0}, (op & 16) != 0);
        }
        break;
      case 3: {
        const std::lock_guard hold(bus.lock());
        fields::Buffer bytes;
        Device* const devices[] = {&files, &chipset->keyboard(), &flash, &files};
        Device& device = *devices[op >> 3 & 3];
        device.save(bytes);
        if (!bytes.empty()) bytes[input.take(2) % bytes.size()] = static_cast<uint8_t>(input.take(1));
        (void)device.restore(bytes);
        break;
      }
      case 4:
        if (pictures > 0) {
          --pictures;
          (void)vga.changes();
          (void)vga.picture();
          (void)vga.text();
        }
        full = (op & 0x80) != 0;
        break;
      default: bus.write(window.space, address, width, input.take(width)); break;
    }
  }
  bus.set_direct_binder(nullptr);
  return 0;
}
