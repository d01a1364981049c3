// A PCI function: configuration space, BARs, interrupt pin. Its Device regions are its BARs' numbers.
//   Spec     PCI Local Bus Specification 3.0, 6.2 and 2.2.6
//   Models   memory BARs of 32 and 64 bits, I/O BARs, INTx with its status and disable bits, bus mastering
//   Threads  under the device lock
// The registers say where a BAR is; the host bridge maps what they say (bars_changed()). Nothing else remembers
// addresses, so reset and restore need no second truth.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <vector>

#include "bus/bus.h"
#include "bus/device.h"
#include "devices/pci/config_space.h"
#include "memory/guest_memory.h"

namespace caisson::pci {

inline constexpr unsigned bar_count = 6;

// What a function sees of the slot that it stands in.
class Slot {
 public:
  virtual ~Slot() = default;
  virtual void bars_changed() = 0;           // memory decode or an address changed
  virtual void set_intx(bool asserted) = 0;  // the function's pin
};

class PciDevice : public Device {
 public:
  struct Bar {
    // In bytes, a power of two: of memory at least 4096, of ports 4 to 256; 0: no such BAR, or the upper half of a
    // 64-bit one.
    uint64_t size = 0;
    bool io = false;    // ports
    bool wide = false;  // 64 bits: takes the next register too
    bool prefetchable = false;
    Widths widths{};
  };

  // The guest's accesses, sizes 1, 2 and 4. A device that has registers with side effects there overrides them.
  [[nodiscard]] virtual uint32_t config_read(unsigned offset, unsigned size);
  virtual void config_write(unsigned offset, unsigned size, uint32_t value);

  // Completes what is in flight, so that save() finds all of it in guest memory. For the machine: CPUs stopped, or the
  // device lock held for what follows.
  virtual void quiesce() {}

  // Writes into BARs that mean no more than a call (bus/doorbell.h).
  struct Doorbell {
    unsigned bar;
    uint64_t offset;
    std::function<void()> ring;
  };
  [[nodiscard]] virtual std::vector<Doorbell> doorbells() { return {}; }

  [[nodiscard]] const std::array<Bar, bar_count>& bars() const { return bars_; }
  [[nodiscard]] uint64_t bar_address(unsigned bar) const;
  // Whether the command register has BARs of this kind decoded.
  [[nodiscard]] bool decodes(const Bar& bar) const {
    return (config_.get(command, 2) & (bar.io ? command_io : command_memory)) != 0;
  }
  [[nodiscard]] bool bus_master() const { return (config_.get(command, 2) & command_bus_master) != 0; }
  [[nodiscard]] uint8_t pin() const { return static_cast<uint8_t>(config_.get(interrupt_pin, 1)); }

  // By the host bridge, once each.
  void plug(Slot& slot) { slot_ = &slot; }
  void unplug() { slot_ = nullptr; }
  // The address that the BAR's registers hold after reset, as firmware would have left it.
  void place_bar(unsigned bar, uint64_t address);

 protected:
  explicit PciDevice(const Identity& identity) : config_(identity) {}

  void add_bar(unsigned bar, const Bar& description);
  void set_intx(bool asserted);
  void reset_config();
  [[nodiscard]] Result<> restore_config(const ConfigSpace::State& state);

  ConfigSpace config_;

 private:
  void update_intx();

  std::array<Bar, bar_count> bars_{};
  Slot* slot_ = nullptr;
};

}  // namespace caisson::pci
