// Serial ATA controller: an AHCI host bus adapter with six ports.
//   Spec     Serial ATA AHCI 1.3.1 (sections are its unless said otherwise); Serial ATA 3.1, 10.3 for frames
//   Models   32 command slots a port, 64 bit addresses, COMRESET, software reset, INTx; ICH9's identity
//   Omits    NCQ, port multipliers, command completion coalescing, enclosure management, hot-plug, power states, MSI
//   Threads  under the device lock; commands are at images between a write to PxCI and their completion
//
// A port has one command at its device at a time, as without NCQ a drive is busy until it has ended one. What a command
// says stands in guest memory, which changes while we look: header, table and each descriptor are copied once, checked
// once, and the copy is used. What points to no RAM is a host bus fatal error (6.1.2): the port stops until software
// starts it anew.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <vector>

#include "backend/block_backend.h"
#include "devices/pci/pci_device.h"
#include "devices/storage/ata.h"

namespace caisson::storage {

class Ahci final : public pci::PciDevice {
 public:
  static constexpr unsigned port_count = 6;
  static constexpr unsigned slot_count = 32;
  static constexpr unsigned register_bar = 5;
  static constexpr uint64_t register_size = 0x1000;

  struct PortState {
    uint64_t command_list = 0;  // PxCLB, PxCLBU
    uint64_t received_fis = 0;  // PxFB, PxFBU
    uint32_t interrupts = 0;    // PxIS
    uint32_t enabled = 0;       // PxIE
    uint32_t command = 0;       // PxCMD
    uint32_t task_file = 0x7f;  // PxTFD
    uint32_t signature = ~0u;   // PxSIG
    uint32_t control = 0;       // PxSCTL
    uint32_t errors = 0;        // PxSERR
    uint32_t issued = 0;        // PxCI
    bool halted = false;        // by an error, until ST is cleared
    bool in_reset = false;      // software reset, its second frame has not come
    bool first_frame = false;   // the device's first frame waits for FRE
    AtaDevice::State device{};
    static constexpr auto fields() {
      using fields::row;
      return fields::table<PortState>(
          row<1>("command_list", &PortState::command_list), row<2>("received_fis", &PortState::received_fis),
          row<3>("interrupts", &PortState::interrupts), row<4>("enabled", &PortState::enabled),
          row<5>("command", &PortState::command), row<6>("task_file", &PortState::task_file),
          row<7>("signature", &PortState::signature), row<8>("control", &PortState::control),
          row<9>("errors", &PortState::errors), row<10>("issued", &PortState::issued),
          row<11>("halted", &PortState::halted), row<12>("in_reset", &PortState::in_reset),
          row<13>("first_frame", &PortState::first_frame), row<14>("device", &PortState::device));
    }
  };
  struct State {
    pci::ConfigSpace::State config;
    uint32_t control = 0;     // GHC
    uint32_t interrupts = 0;  // IS
    std::array<PortState, port_count> ports{};
    static constexpr auto fields() {
      using fields::row;
      return fields::table<State>(row<1>("config", &State::config), row<2>("control", &State::control),
                                  row<3>("interrupts", &State::interrupts), row<4>("ports", &State::ports));
    }
  };

  explicit Ahci(GuestMemory& memory);
  ~Ahci() override;

  // Before the guest runs: puts a device behind a free port. `image` is where its plans go, and outlives this; null
  // for a drive that never has a medium.
  void connect(unsigned port, std::unique_ptr<AtaDevice> device, BlockBackend* image);
  [[nodiscard]] std::optional<unsigned> free_port() const;

  [[nodiscard]] std::string_view name() const override { return "ahci"; }
  uint64_t read(unsigned region, uint64_t offset, unsigned size) override;
  void write(unsigned region, uint64_t offset, unsigned size, uint64_t value) override;
  void config_write(unsigned offset, unsigned size, uint32_t value) override;
  void reset() override;
  void quiesce() override;
  void save(fields::Buffer& out) const override;
  [[nodiscard]] Result<> restore(std::span<const uint8_t> in) override;

 private:
  struct Segment {
    Gpa address;
    uint64_t length;
  };
  // The command that a port's device is busy with.
  struct Active {
    unsigned slot = 0;
    Gpa header = 0;
    Gpa table = 0;
    unsigned descriptors = 0;  // of the table
    AtaCommand command;
    AtaPlan plan;
    std::vector<Segment> segments;
    uint64_t transferred = 0;
    unsigned parts = 0;  // at the image
    int error = 0;
  };
  enum class Draining : uint8_t { No, Complete, Discard };
  struct Port {
    std::unique_ptr<AtaDevice> device;
    BlockBackend* image = nullptr;
    std::unique_ptr<Active> active;
    unsigned next_slot = 0;
    Draining draining = Draining::No;
    bool ended_in_drain = false;  // the plan's next step waits for the end of a drain
  };

  [[nodiscard]] uint32_t read_port(unsigned index, unsigned offset) const;
  void write_port(unsigned index, unsigned offset, uint32_t value);
  void write_command(unsigned index, uint32_t value);
  void write_control(unsigned index, uint32_t value);
  void reset_port(unsigned index);
  void power_on();
  void abort(unsigned index);
  void send_first_frame(unsigned index);

  void pump(unsigned index);
  void pump_all();
  void issue(unsigned index, unsigned slot);
  void carry_out(unsigned index);
  void submit(unsigned index, BlockRequest request);
  void part_done(unsigned index, int error);
  void image_done(unsigned index);
  void finish(unsigned index, AtaResult result);
  void complete_slot(unsigned index, unsigned slot);
  void fatal(unsigned index, uint32_t cause);
  // What the table's descriptors name of the first `length` bytes; none where they name what is no RAM.
  [[nodiscard]] std::optional<std::vector<Segment>> gather(const Active& active, uint64_t length,
                                                           uint64_t& found) const;

  void receive(unsigned index, unsigned offset, std::span<const uint8_t> frame);
  void receive_registers(unsigned index, const AtaResult& result);
  void receive_pio_setup(unsigned index, const AtaResult& result, uint64_t length);
  void raise(unsigned index, uint32_t causes);
  void update_interrupt();

  GuestMemory& memory_;
  std::array<Port, port_count> ports_;
  State state_;  // `config` and the ports' `device` only while saving
};

}  // namespace caisson::storage
