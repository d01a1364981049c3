// MSI-X: vector table and pending bits in a BAR, message control in the configuration space.
//   Spec     PCI Local Bus Specification 3.0, 6.8.2
//   Models   table, pending bit array, per-vector and function mask
//   Omits    nothing; accesses of 1 and 2 bytes, which the specification leaves undefined, act on those bytes
//   Threads  under the device lock
#pragma once

#include <array>
#include <cstdint>

#include "base/fields.h"
#include "bus/interrupt.h"
#include "devices/pci/config_space.h"

namespace caisson::pci {

class Msix {
 public:
  static constexpr unsigned max_vectors = 64;
  // The layout inside the BAR.
  static constexpr uint64_t table_offset = 0;
  static constexpr uint64_t pba_offset = 0x800;
  static constexpr uint64_t bar_size = 0x1000;

  struct Entry {
    uint32_t address_low = 0;
    uint32_t address_high = 0;
    uint32_t data = 0;
    uint32_t control = 1;  // bit 0: masked
    static constexpr auto fields() {
      using fields::row;
      return fields::table<Entry>(row<1>("address_low", &Entry::address_low),
                                  row<2>("address_high", &Entry::address_high), row<3>("data", &Entry::data),
                                  row<4>("control", &Entry::control));
    }
  };
  struct State {
    std::array<Entry, max_vectors> table{};
    uint64_t pending = 0;
    static constexpr auto fields() {
      return fields::table<State>(fields::row<1>("table", &State::table), fields::row<2>("pending", &State::pending));
    }
  };

  // Adds the capability to `config`, which must stay where it is. 1 to max_vectors vectors, table and PBA in BAR `bar`.
  Msix(MsiSink& sink, ConfigSpace& config, unsigned vectors, unsigned bar);

  [[nodiscard]] unsigned vectors() const { return vectors_; }
  [[nodiscard]] bool enabled() const;

  // Sends the vector's message, or keeps it pending while it is masked. Nothing while MSI-X is disabled.
  void notify(unsigned vector);
  // Message control, the bus master bit or a mask may have changed: sends what is pending and no longer masked.
  void update();

  [[nodiscard]] uint64_t read(uint64_t offset, unsigned size) const;
  void write(uint64_t offset, unsigned size, uint64_t value);

  void reset() { state_ = {}; }
  [[nodiscard]] const State& state() const { return state_; }
  [[nodiscard]] Result<> restore(const State& state);

 private:
  [[nodiscard]] uint8_t read_byte(uint64_t offset) const;
  [[nodiscard]] bool can_send(unsigned vector) const;
  void send(unsigned vector);

  MsiSink& sink_;
  ConfigSpace& config_;
  const unsigned vectors_;
  unsigned capability_;
  State state_;
};

}  // namespace caisson::pci
