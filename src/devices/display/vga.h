// VGA with the Bochs display interface: what SeaBIOS's VGA BIOS, OVMF and every system have a driver for.
//   Spec     IBM PS/2 Hardware Interface Technical Reference, "Video Subsystem"; FreeVGA for what that leaves open;
//   QEMU
//            docs/specs/standard-vga.rst for the PCI function and the VBE registers
//   Models   text modes with fonts from plane 2, planar, CGA and 256-colour modes, write modes 0 to 3, DAC, linear
//   modes
//            of 8, 15, 16, 24 and 32 bits; legacy window 0xA0000, linear frame buffer (BAR 0), registers in BAR 2
//   Omits    timing (retrace is told from the clock), split screen and pixel panning when drawn, PCI decode of the
//   legacy
//            ports, expansion ROM (firmware gets it by fw_cfg)
//   Threads  under the device lock
//   Regions  0, 2: the BARs; 8: legacy memory window; 9: ports 0x3b0 to 0x3df; 10: ports 0x1ce to 0x1d1
#pragma once

#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "bus/clock.h"
#include "devices/display/screen.h"
#include "devices/pci/pci_device.h"
#include "memory/page_memory.h"

namespace caisson::display {

class Vga final : public pci::PciDevice, public Screen {
 public:
  static constexpr size_t memory_size = size_t{16} << 20;
  static constexpr unsigned largest_width = 4096, largest_height = 4096;
  enum Region : uint8_t { frame_buffer = 0, registers = 2, legacy_memory = 8, legacy_ports = 9, vbe_ports = 10 };
  static constexpr uint16_t first_port = 0x3b0, port_count = 0x30, first_vbe_port = 0x1ce, vbe_port_count = 4;

  struct State {
    pci::ConfigSpace::State config;
    uint8_t misc = 0;
    uint8_t feature = 0;
    uint8_t sequencer_index = 0, graphics_index = 0, crtc_index = 0, attribute_index = 0;
    bool attribute_data = false;  // the next write to 0x3c0 is data
    std::array<uint8_t, 8> sequencer{};
    std::array<uint8_t, 16> graphics{};
    std::array<uint8_t, 32> crtc{};
    std::array<uint8_t, 32> attribute{};
    uint8_t dac_mask = 0xff, dac_read = 0, dac_write = 0, dac_component = 0;
    bool dac_reading = false;
    std::array<uint8_t, 768> dac{};
    std::array<uint8_t, 4> latch{};
    uint16_t vbe_index = 0;
    std::array<uint16_t, 16> vbe{};
    fields::Bytes<memory_size> memory;

    static constexpr auto fields() {
      using fields::row;
      return fields::table<State>(
          row<1>("config", &State::config), row<2>("misc", &State::misc), row<3>("feature", &State::feature),
          row<4>("sequencer_index", &State::sequencer_index), row<5>("graphics_index", &State::graphics_index),
          row<6>("crtc_index", &State::crtc_index), row<7>("attribute_index", &State::attribute_index),
          row<8>("attribute_data", &State::attribute_data), row<9>("sequencer", &State::sequencer),
          row<10>("graphics", &State::graphics), row<11>("crtc", &State::crtc), row<12>("attribute", &State::attribute),
          row<13>("dac_mask", &State::dac_mask), row<14>("dac_read", &State::dac_read),
          row<15>("dac_write", &State::dac_write), row<16>("dac_component", &State::dac_component),
          row<17>("dac_reading", &State::dac_reading), row<18>("dac", &State::dac), row<19>("latch", &State::latch),
          row<20>("vbe_index", &State::vbe_index), row<21>("vbe", &State::vbe), row<22>("memory", &State::memory));
    }
  };

  explicit Vga(Clock& clock);
  ~Vga() override;
  Vga(const Vga&) = delete;
  Vga& operator=(const Vga&) = delete;
  // Legacy ports and memory; before the guest runs. From then on the frame buffer is memory that an engine may let the
  // guest at; `bus` outlives the device.
  void map_legacy(Bus& bus);

  // A black picture of 32 bits a pixel, and the frame buffer's BAR decoded: as firmware that knows the device leaves
  // it.
  void start_linear(uint16_t width, uint16_t height);
  [[nodiscard]] std::pair<unsigned, unsigned> size() const override;
  [[nodiscard]] uint64_t changes() override;
  [[nodiscard]] Picture picture() const override;
  [[nodiscard]] std::string text() const override;

  [[nodiscard]] std::string_view name() const override { return "vga"; }
  uint64_t read(unsigned region, uint64_t offset, unsigned size) override;
  void write(unsigned region, uint64_t offset, unsigned size, uint64_t value) override;
  void reset() override;
  void save(fields::Buffer& out) const override;
  [[nodiscard]] Result<> restore(std::span<const uint8_t> in) override;

 private:
  void changed() { ++changes_; }
  uint8_t read_port(uint16_t port);
  void write_port(uint16_t port, uint8_t value);
  uint8_t read_byte(uint64_t offset);
  void write_byte(uint64_t offset, uint8_t value);
  [[nodiscard]] uint16_t read_vbe(unsigned index) const;
  void write_vbe(unsigned index, uint16_t value);
  // Offset of a legacy address in its 64 or 32 KiB, or none where it is not mapped.
  [[nodiscard]] std::optional<uint32_t> window(uint64_t offset) const;

  [[nodiscard]] bool linear() const;
  struct TextShape {
    unsigned columns, rows, height, width;
  };
  [[nodiscard]] std::optional<TextShape> text_shape() const;
  [[nodiscard]] uint32_t start_address() const;
  [[nodiscard]] unsigned lines() const;
  [[nodiscard]] std::array<uint8_t, 3> color(uint8_t index) const;
  [[nodiscard]] uint8_t palette(uint8_t attribute) const;
  [[nodiscard]] uint8_t byte_at(uint64_t offset) const { return memory_[offset % memory_size]; }
  void draw_text(Picture& out, const TextShape& shape) const;
  void draw_graphics(Picture& out) const;
  void draw_linear(Picture& out) const;

  Clock& clock_;
  Bus* bus_ = nullptr;
  uint64_t changes_ = 0;
  PageMemory memory_{memory_size};
  State state_;  // config and memory stand elsewhere; filled in by save()
};

}  // namespace caisson::display
