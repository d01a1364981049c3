// A machine that starts by firmware: the devices and files that the firmware needs.
//   Threads  create() and load() before CPUs run; devices under the device lock
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/fd.h"
#include "boot/firmware.h"
#include "bus/bus.h"
#include "devices/firmware/debug_port.h"
#include "devices/firmware/flash.h"
#include "devices/firmware/fw_cfg.h"
#include "devices/pci/host_bridge.h"
#include "memory/guest_memory.h"

namespace caisson::machine {

// RAM ends early below 4 GiB so that PCIEXBAR has room where SeaBIOS and OVMF put it.
inline constexpr GuestMemory::Layout firmware_memory{
    .low_end = 0x8000'0000, .video_window = true, .rom_room = uint64_t{16} << 20};
[[nodiscard]] pci::Layout firmware_pci_layout(const GuestMemory& memory, unsigned physical_bits);

inline constexpr unsigned vga_slot = 2;
// An option ROM of at most 256 KiB.
[[nodiscard]] Result<std::vector<uint8_t>> read_rom(int fd, const std::string& name);

struct FirmwareOptions {
  int image = -1;  // open file of at most 16 MiB, a multiple of 4 KiB
  std::string image_name = "firmware";
  bool bios = true;  // the image's end stands below 1 MiB, too
  int variables =
      -1;  // open file of whole flash blocks, which stand below the image as a flash memory; -1: there are none
  std::string variables_name = "firmware variables";
  int log = -1;  // open file for what the firmware prints on its debug port; -1: nobody listens
  unsigned cpus = 1;
};

class Firmware {
 public:
  // Maps its devices on the bus, which outlives it, and gives the memory its ROM.
  [[nodiscard]] static Result<std::unique_ptr<Firmware>> create(Bus& bus, GuestMemory& memory,
                                                                const FirmwareOptions& options);
  ~Firmware();
  Firmware(const Firmware&) = delete;
  Firmware& operator=(const Firmware&) = delete;

  [[nodiscard]] FwCfg& files() { return fw_cfg_; }
  // Files of the tables; `acpi` says how the machine stands when the firmware asks.
  void add_tables(std::function<boot::AcpiConfig()> acpi, const boot::SmbiosConfig& smbios,
                  const std::vector<boot::firmware::BootDevice>& order);
  // Puts a BIOS below 1 MiB, as after power-on.
  [[nodiscard]] Result<> load();
  void reset();  // device lock held

 private:
  Firmware(Bus& bus, GuestMemory& memory, const FirmwareOptions& options);
  [[nodiscard]] Result<> add_variables(const FirmwareOptions& options);

  Bus& bus_;
  GuestMemory& memory_;
  Fd log_;
  Fd variables_;
  std::unique_ptr<Flash> flash_;
  const bool bios_;
  FwCfg fw_cfg_;
  FirmwareDebugPort debug_port_;
};

}  // namespace caisson::machine
