// libFuzzer: a hostile guest at the hot-plug registers, the GPE block and the configuration space of functions that
// come and go, while the host plugs, asks back and gives up. Whatever comes, nothing may crash or make a sanitizer
// speak, and what is in a slot is what the registers say.
#include <array>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "base/check.h"
#include "bus/fake_clock.h"
#include "devices/chipset/layout.h"
#include "devices/chipset/pci_hotplug.h"
#include "devices/fuzz_input.h"
#include "devices/pci/host_bridge.h"

namespace caisson::hotplug_fuzz {

using fuzz::Input;

class Wire final : public InterruptLine {
 public:
  void set(bool) override {}
};

// A BAR of either kind, a doorbell, and a pin that follows what is written.
class Function final : public pci::PciDevice {
 public:
  Function() : PciDevice({.vendor = 0x1af4, .device = 0x10ff, .class_code = 0xff0102, .interrupt_pin = 1}) {
    add_bar(0, {.size = 0x1000});
    add_bar(1, {.size = 32, .io = true});
    add_bar(2, {.size = 0x4000, .wide = true, .prefetchable = true});
  }
  std::string_view name() const override { return "function"; }
  uint64_t read(unsigned region, uint64_t offset, unsigned) override { return region + offset; }
  void write(unsigned, uint64_t, unsigned, uint64_t value) override { set_intx((value & 1) != 0); }
  void reset() override { reset_config(); }
  void save(fields::Buffer&) const override {}
  Result<> restore(std::span<const uint8_t>) override { return {}; }
  std::vector<Doorbell> doorbells() override {
    return {{2, 0x10, [this] { set_intx(true); }}};
  }
};

class Machine final : public HotPlugSlots {
 public:
  Machine() { registers_.connect(this); }
  ~Machine() override { registers_.connect(nullptr); }

  uint32_t occupied() const override { return bridge_.occupied(); }
  void ejected(unsigned slot) override {
    ++ejects_;
    if ((asked_ >> slot & 1) == 0) {
      if ((occupied() >> slot & 1) != 0) registers_.inserted(slot);
      return;
    }
    asked_ &= ~(1u << slot);
    gone_.push_back(bridge_.unplug(slot));  // as the machine has it: destroyed later
    CAISSON_CHECK(gone_.back() != nullptr);
  }

  void step(Input& in) {
    const auto op = static_cast<unsigned>(in.take(1));
    const auto slot = 1 + (op >> 3) % 31;
    const unsigned size = 1u << in.take(1) % 3;
    switch (op & 7) {
      case 0: bus_.write(Space::Port, chipset::hotplug_port + in.take(1) % 20, size, in.take(size)); break;
      case 1: (void)bus_.read(Space::Port, chipset::hotplug_port + in.take(1) % 20, size); break;
      case 2: bus_.write(Space::Port, chipset::gpe0_port + in.take(1) % 4, size, in.take(size)); break;
      case 3: bus_.write(Space::Memory, layout_.ecam_base + (slot << 15) + in.take(1), size, in.take(size)); break;
      case 4: bus_.write(Space::Memory, layout_.mmio32_base + in.take(2), size, in.take(size)); break;
      case 5: {
        const std::lock_guard hold(bus_.lock());
        if ((occupied() >> slot & 1) != 0) break;
        bridge_.plug(std::make_unique<Function>(), slot);
        registers_.inserted(slot);
        break;
      }
      case 6: {
        const std::lock_guard hold(bus_.lock());
        if ((occupied() >> slot & 1) == 0) break;
        asked_ |= 1u << slot;
        registers_.want_back(slot);
        break;
      }
      default: {
        const std::lock_guard hold(bus_.lock());
        gone_.clear();
        if (in.take(1) % 8 == 0) registers_.reset();
        registers_.want_no_more(slot);
        asked_ &= ~(1u << slot);
        break;
      }
    }
    CAISSON_CHECK(bus_.read(Space::Port, chipset::hotplug_port + 12, 4) == bridge_.occupied());
    CAISSON_CHECK((bridge_.occupied() & asked_) == asked_);
  }

  [[nodiscard]] unsigned ejects() const { return ejects_; }

 private:
  pci::Layout layout_;
  Bus bus_;
  FakeClock clock_;
  fuzz::NoPower power_;
  Wire wire_;
  AcpiPm acpi_{wire_, clock_, power_};
  PciHotPlug registers_{acpi_};
  pci::HostBridge bridge_{bus_, layout_, [this](unsigned) -> InterruptLine& { return wire_; }};
  std::vector<std::unique_ptr<pci::PciDevice>> gone_;
  uint32_t asked_ = 0;
  unsigned ejects_ = 0;
  const bool mapped_ = [this] {
    bus_.map(Space::Port, chipset::hotplug_port, chipset::hotplug_length, registers_, 0, {1, 4});
    bus_.map(Space::Port, chipset::gpe0_port, chipset::gpe0_length, acpi_, 3, {1, 4});
    return true;
  }();
};

// How often the guest ejected.
inline unsigned run(std::span<const uint8_t> bytes) {
  Input input(bytes);
  Machine machine;
  while (!input.empty()) machine.step(input);
  return machine.ejects();
}

}  // namespace caisson::hotplug_fuzz

#ifndef CAISSON_FUZZ_AS_TEST
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  caisson::hotplug_fuzz::run({data, size});
  return 0;
}
#endif
