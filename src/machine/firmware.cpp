#include "machine/firmware.h"

#include <algorithm>
#include <cerrno>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace caisson::machine {
namespace {

// What of the image lies below 1 MiB, too. SeaBIOS takes it for RAM that is there already (PAM0, host_bridge.cpp).
constexpr uint64_t largest_shadow = uint64_t{256} << 10;
constexpr uint64_t least_memory = uint64_t{16} << 20;
constexpr Gpa one_mib = 0x10'0000;
// The chipset's own memory-mapped devices begin and end here: IOAPIC, RCBA, local APICs.
constexpr Gpa devices_start = 0xfec0'0000, devices_end = 0xff00'0000;

// A whole file, of `unit` to `most` bytes.
Result<std::vector<uint8_t>> read_image(int fd, const std::string& name, uint64_t unit, uint64_t most) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) return fail_errno(errno, name);
  const auto size = static_cast<uint64_t>(info.st_size);
  if (size == 0 || size > most || size % unit != 0) {
    return fail("{}: {} bytes are no such image: it is a multiple of {} bytes and at most {} KiB", name, size, unit,
                most >> 10);
  }
  std::vector<uint8_t> image(size);
  for (size_t done = 0; done < size;) {
    const ssize_t got = ::pread(fd, image.data() + done, size - done, static_cast<off_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail_errno(errno, name);
    if (got == 0) return fail("{}: it ends early", name);
    done += static_cast<size_t>(got);
  }
  return image;
}

// Written and on the disk.
Result<> store(int fd, const std::string& name, uint64_t offset, std::span<const uint8_t> bytes) {
  while (!bytes.empty()) {
    const ssize_t done = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) return fail_errno(errno, name + ": the firmware's variables cannot be kept");
    bytes = bytes.subspan(static_cast<size_t>(done));
    offset += static_cast<uint64_t>(done);
  }
  if (::fdatasync(fd) != 0) return fail_errno(errno, name + ": the firmware's variables cannot be kept");
  return {};
}

}  // namespace

Result<std::vector<uint8_t>> read_rom(int fd, const std::string& name) {
  return read_image(fd, name, 512, uint64_t{256} << 10);
}

pci::Layout firmware_pci_layout(const GuestMemory& memory, unsigned physical_bits) {
  pci::Layout layout;
  layout.ecam_base = 0xb000'0000;  // until firmware says where; see HostBridge::Kind::Q35
  layout.ecam_buses = 256;
  layout.mmio32_base = firmware_memory.low_end;
  layout.mmio32_size = devices_start - layout.mmio32_base;
  constexpr uint64_t gib = uint64_t{1} << 30;
  layout.mmio64_base = std::max((memory.end() + gib - 1) / gib * gib, uint64_t{4} * gib);
  layout.mmio64_size = (uint64_t{1} << std::min(physical_bits, 46u)) - layout.mmio64_base;
  return layout;
}

Result<std::unique_ptr<Firmware>> Firmware::create(Bus& bus, GuestMemory& memory, const FirmwareOptions& options) {
  if (memory.size() < least_memory) {
    return fail("{} MiB of memory are too little for firmware; give more --memory", memory.size() >> 20);
  }
  auto image = read_image(options.image, options.image_name, page_size, firmware_memory.rom_room);
  if (!image) return std::unexpected(image.error());
  if (auto done = memory.set_rom(*image); !done) return with_context(options.image_name, done.error());
  std::unique_ptr<Firmware> firmware(new Firmware(bus, memory, options));
  if (options.variables >= 0) {
    if (auto done = firmware->add_variables(options); !done) return std::unexpected(done.error());
  }
  return firmware;
}

Firmware::Firmware(Bus& bus, GuestMemory& memory, const FirmwareOptions& options)
    : bus_(bus),
      memory_(memory),
      log_(options.log < 0 ? Fd{} : Fd{::dup(options.log)}),
      bios_(options.bios),
      fw_cfg_(memory),
      debug_port_([this](const std::string& line) {
        const std::string text = line + "\n";
        // A log that cannot be written is no reason to stop a machine.
        if (log_.valid() && ::write(log_.get(), text.data(), text.size()) < 0) log_ = Fd{};
      }) {
  bus.map(Space::Port, FwCfg::port, FwCfg::port_length, fw_cfg_, 0, {1, 2});
  bus.map(Space::Port, FwCfg::dma_port, FwCfg::dma_port_length, fw_cfg_, 1, {1, 8});
  bus.map(Space::Port, FirmwareDebugPort::port, 1, debug_port_, 0, {1, 1});
  fw_cfg_.add_number(FwCfg::cpu_count, options.cpus, 2);
  fw_cfg_.add_number(FwCfg::most_cpus, options.cpus, 2);
  fw_cfg_.add_number(FwCfg::boot_menu, 0, 2);
  fw_cfg_.add_number(FwCfg::irq0_override, 1, 1);
}

Firmware::~Firmware() {
  bus_.unmap(Space::Port, fw_cfg_, 0);
  bus_.unmap(Space::Port, fw_cfg_, 1);
  bus_.unmap(Space::Port, debug_port_, 0);
}

void Firmware::add_tables(std::function<boot::AcpiConfig()> acpi, const boot::SmbiosConfig& smbios,
                          const std::vector<boot::firmware::BootDevice>& order) {
  using namespace boot::firmware;
  fw_cfg_.add_file(e820_file, e820(memory_));
  fw_cfg_.add_file(tables_file, [acpi] { return acpi_files(acpi()).tables; });
  fw_cfg_.add_file(rsdp_file, [acpi] { return acpi_files(acpi()).rsdp; });
  fw_cfg_.add_file(loader_file, [acpi] { return acpi_files(acpi()).loader; });
  const auto [anchor, tables] = boot::smbios::pieces(smbios, memory_);
  fw_cfg_.add_file(smbios_anchor_file, anchor);
  fw_cfg_.add_file(smbios_tables_file, tables);
  if (auto text = boot_order(order); !text.empty()) fw_cfg_.add_file(boot_order_file, std::move(text));
}

// OVMF is built so that both stand side by side.
Result<> Firmware::add_variables(const FirmwareOptions& options) {
  auto content = read_image(options.variables, options.variables_name, Flash::block_size, Flash::largest);
  if (!content) return std::unexpected(content.error());
  const Gpa end = memory_.rom_start();
  const uint64_t size = content->size();
  if (end - size < devices_end) return fail("{}: too large to stand below the firmware", options.variables_name);
  variables_ = Fd{::fcntl(options.variables, F_DUPFD_CLOEXEC, 0)};
  if (!variables_.valid()) return fail_errno(errno, options.variables_name);
  flash_ = std::make_unique<Flash>(
      *content, [fd = variables_.get(), name = options.variables_name](
                    uint64_t offset, std::span<const uint8_t> bytes) { return store(fd, name, offset, bytes); });
  flash_->map(bus_, end - size);
  return {};
}

Result<> Firmware::load() {
  if (!bios_) return {};
  const uint64_t size = std::min<uint64_t>(memory_.rom_size(), largest_shadow);
  const std::span<const uint8_t> image{memory_.base() + GuestMemory::high_start - size, size};
  if (!memory_.write(one_mib - size, image)) return fail("firmware does not fit into memory");
  return {};
}

void Firmware::reset() {
  if (flash_) flash_->reset();
  fw_cfg_.reset();
  debug_port_.reset();
}

}  // namespace caisson::machine
