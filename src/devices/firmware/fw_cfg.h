// QEMU's firmware configuration device: how SeaBIOS and OVMF learn what the machine is.
//   Spec     QEMU docs/specs/fw_cfg.rst: selector and data ports, DMA interface, file directory
//   Models   16-bit selector, byte-wise data port, DMA read, write (refused), skip and select, directory of named files
//   Omits    writable items; the memory-mapped variant of other architectures
//   Threads  none of its own; called under the device lock
//   Regions  0: selector and data port (0x510, 2 ports); 1: DMA address register (0x514, 8 ports)
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "bus/device.h"
#include "memory/guest_memory.h"

namespace caisson {

class FwCfg final : public Device {
 public:
  static constexpr uint16_t port = 0x510;
  static constexpr uint64_t port_length = 2;
  static constexpr uint16_t dma_port = 0x514;
  static constexpr uint64_t dma_port_length = 8;

  // Items with fixed keys that firmware reads.
  enum Key : uint16_t {
    signature = 0x00,
    interface_version = 0x01,
    cpu_count = 0x05,
    boot_menu = 0x0e,
    most_cpus = 0x0f,
    file_directory = 0x19,
    first_file = 0x20,
    irq0_override = 0x8002,
  };
  static constexpr size_t longest_name = 55;
  static constexpr size_t most_files = 64;

  struct State {
    uint16_t selected = 0;
    uint32_t offset = 0;    // of the next byte in the selected item
    uint32_t dma_high = 0;  // upper half of the next descriptor's address
    static constexpr auto fields() {
      using fields::row;
      return fields::table<State>(row<1>("selected", &State::selected), row<2>("offset", &State::offset),
                                  row<3>("dma_high", &State::dma_high));
    }
  };

  explicit FwCfg(GuestMemory& memory);

  // Building, before the guest runs.
  void add(uint16_t key, std::vector<uint8_t> content);
  void add_number(uint16_t key, uint64_t value, unsigned size);
  void add_file(std::string_view name, std::vector<uint8_t> content);
  // Made anew each time the guest selects it; always as long as the first time.
  void add_file(std::string_view name, std::function<std::vector<uint8_t>()> make);

  [[nodiscard]] std::string_view name() const override { return "fw-cfg"; }
  uint64_t read(unsigned region, uint64_t offset, unsigned size) override;
  void write(unsigned region, uint64_t offset, unsigned size, uint64_t value) override;
  void reset() override { state_ = State{}; }
  void save(fields::Buffer& out) const override { fields::save(state_, out); }
  [[nodiscard]] Result<> restore(std::span<const uint8_t> in) override;

 private:
  struct Item {
    std::vector<uint8_t> content;
    std::function<std::vector<uint8_t>()> make;
  };

  void select(uint16_t key);
  [[nodiscard]] std::span<const uint8_t> rest() const;
  void transfer(Gpa descriptor);
  void update_directory();

  GuestMemory& memory_;
  std::map<uint16_t, Item> items_;
  std::vector<std::string> names_;  // of the files, whose keys count from first_file
  State state_;
};

}  // namespace caisson
