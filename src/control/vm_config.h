// What one virtual machine is made of: everything the CLI tells the VMM before it starts.
//   Form     one JSON object; the tables in vm_config.cpp state every key and its bounds once, for both directions
//   Files    never by path: a member called *_fd is an index into the descriptors that came with the message
//   Checks   parse() is strict: unknown keys, wrong types and values out of bounds are errors. It checks what can be
//   said
//            without the host; whether memory fits the host or a port is free is for others to find out.
//   Threads  plain data
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "control/limits.h"

namespace caisson::control {

// What keys mean that come by name instead of by place: those of a VNC viewer.
enum class KeyboardLayout : uint8_t { Us, De, Fr, Uk };
inline constexpr std::array<std::string_view, 4> keyboard_layouts{"us", "de", "fr", "uk"};
enum class NetKind : uint8_t { None, User };
enum class NetCard : uint8_t { Virtio, E1000 };
enum class FirmwareKind : uint8_t { None, Bios, Uefi };
enum class EngineChoice : uint8_t { Auto, Jit, Kvm };
enum class Protocol : uint8_t { Tcp, Udp };

enum class DiskImage : uint8_t { Raw, Qcow2 };
// What the guest sees: a virtio disk, a Serial ATA disk, a Serial ATA CD-ROM drive, an NVMe disk, or a USB stick.
enum class DiskBus : uint8_t { Virtio, Sata, Cdrom, Nvme, Usb };
// Whether it stands at the one Serial ATA controller.
[[nodiscard]] constexpr bool is_sata(DiskBus bus) { return bus == DiskBus::Sata || bus == DiskBus::Cdrom; }
// Whether such a disk comes to a machine that runs, and leaves it.
[[nodiscard]] constexpr bool comes_and_goes(DiskBus bus) { return bus == DiskBus::Virtio || bus == DiskBus::Nvme; }
// The pointer that says where on the screen it is.
enum class Tablet : uint8_t { Virtio, Usb };
// What shows the picture. Virtio: no VGA, for systems that have its driver.
enum class Graphics : uint8_t { Vga, Virtio };
// What firmware tries first.
enum class BootFirst : uint8_t { Disk, Cdrom };

// What an image is based on: its backing file.
struct DiskLayerConfig {
  uint32_t image_fd = 0;
  DiskImage format = DiskImage::Raw;
  std::string label = "disk";
  bool operator==(const DiskLayerConfig&) const = default;
};

struct DiskConfig {
  uint32_t image_fd = 0;
  bool read_only = false;
  std::string serial;          // at most 20 bytes; what the guest sees as the disk's serial number
  std::string label = "disk";  // how messages call it: the path, or its end
  DiskBus bus = DiskBus::Virtio;
  DiskImage format = DiskImage::Raw;
  std::vector<DiskLayerConfig> backing{};  // of a qcow2 image: its backing file, that one's, …
  std::optional<RateLimit> limit{};

  // For a disk that comes alone, with exactly so many descriptors.
  [[nodiscard]] Result<> validate(size_t descriptors) const;
  bool operator==(const DiskConfig&) const = default;
};

struct PortForward {
  Protocol protocol = Protocol::Tcp;
  std::string host_address = "127.0.0.1";  // IPv4, dotted
  uint32_t host_port = 0;                  // 1 to 65535
  uint32_t guest_port = 0;                 // 1 to 65535
  bool operator==(const PortForward&) const = default;
};

// What --jit-off takes: classes of instructions that the translator leaves to the interpreter, and its optimisations.
struct JitClass {
  std::string_view name, what;
};
inline constexpr std::array<JitClass, 18> jit_classes{{
    {"translate", "everything: no translator"},
    {"all", "all instructions, one block each"},
    {"integer", "what is in no other class"},
    {"x87", "x87 and MMX"},
    {"sse", "SSE"},
    {"avx", "AVX and AVX-512"},
    {"simd", "x87, sse and avx"},
    {"string", "MOVS and STOS"},
    {"atomic", "LOCK, XCHG with memory"},
    {"branch", "jumps, calls and returns"},
    {"system", "SYSCALL, STI, STAC, RDTSC…"},
    {"windows", "accesses checked together"},
    {"flags", "dead flags not kept"},
    {"chain", "blocks linked to each other"},
    {"seldom", "interpreting what runs for the first or second time: everything is translated at once"},
    {"mirror", "address spaces mirrored in the host's"},
    {"patience", "waiting until an address space is worth a mirror, or direct execution"},
    {"direct", "user code that the host's CPU runs as it is"},
}};

inline constexpr std::array<std::string_view, 5> cpu_models{"auto", "x86-64-v2", "x86-64-v3", "x86-64-v4", "host"};

struct VmConfig {
  static constexpr uint32_t max_cpus = 64;
  static constexpr uint64_t min_memory = uint64_t{16} << 20;
  static constexpr uint64_t max_memory = uint64_t{1} << 40;
  static constexpr size_t max_append = 2047;  // x86's COMMAND_LINE_SIZE less the closing zero
  static constexpr size_t max_disks = 20;
  static constexpr size_t max_sata = 6;      // of them, together with CD-ROMs
  static constexpr size_t max_usb = 4;       // of them, USB sticks
  static constexpr size_t max_backing = 15;  // files below an image
  static constexpr size_t max_forwards = 64;
  static constexpr size_t max_label = 255;
  static constexpr size_t max_reason = 255;

  std::string name = "vm";
  uint32_t cpus = 1;
  uint64_t memory_bytes = uint64_t{1} << 30;  // a multiple of 1 MiB
  std::string cpu_model = "auto";             // "auto", "x86-64-v2", "x86-64-v3", "x86-64-v4" or "host"
  EngineChoice engine = EngineChoice::Auto;
  std::optional<uint32_t> kvm_fd;  // /dev/kvm, opened; never with Jit, always with Kvm
  std::string kvm_missing;         // with Auto and no kvm_fd: why /dev/kvm could not be opened

  // Either a kernel or firmware.
  std::optional<uint32_t> kernel_fd;
  std::string kernel_label = "kernel";  // how messages call it: the path, or its end
  std::optional<uint32_t> initrd_fd;
  std::string initrd_label = "initrd";
  FirmwareKind firmware = FirmwareKind::None;
  std::optional<uint32_t> firmware_fd;  // its image
  std::string firmware_label = "firmware";
  std::optional<uint32_t> firmware_vars_fd;  // the file of its flash memory; with UEFI only, and always
  std::string firmware_vars_label = "firmware variables";
  std::optional<uint32_t> vga_bios_fd;      // a VGA with this option ROM; only with firmware
  std::optional<uint32_t> firmware_log_fd;  // gets what the firmware prints on its debug port
  std::optional<uint32_t> control_fd;       // a listening socket for further requests
  std::string append;                       // the whole kernel command line
  uint32_t console_fd = 0;                  // a stream socket: the serial console's bytes both ways

  std::optional<uint32_t> serial2_fd;  // COM2: a file that gets its output, or a socket or terminal for both ways
  std::string serial2_label = "serial port 2";

  std::vector<DiskConfig> disks;  // virtio disks are vda, vdb, … in this order
  BootFirst boot_first = BootFirst::Disk;
  NetKind net = NetKind::None;
  NetCard net_card = NetCard::Virtio;
  std::vector<PortForward> forwards;
  std::optional<RateLimit> net_limit;
  uint32_t cpu_cap_percent = 0;  // of one of the host's CPUs, all threads together; 0: no cap
  uint32_t cpu_share = usual_cpu_share;
  bool cpu_group = false;  // a control group that this process is in keeps both
  bool balloon = true;     // a balloon device: memory that the guest does not need goes back to the host
  bool vsock = false;      // a socket device: streams that clients open to the guest (messages.h, Connect)

  bool display = false;               // a VGA, a keyboard and a pointer, which firmware always has, with a kernel, too
  Graphics graphics = Graphics::Vga;  // with a display; Virtio not with BIOS firmware, which knows no such
  Tablet tablet = Tablet::Virtio;     // with a display
  std::optional<uint32_t> vnc_fd;     // a bound stream socket, by which the display is shown
  std::string vnc_password;           // at most 8 characters; empty: none is asked for
  static constexpr size_t max_vnc_password = 8;
  KeyboardLayout keyboard_layout = KeyboardLayout::Us;
  bool no_reboot = false;            // a reset ends the VM with ExitReason::Reset
  bool debug_exit = false;           // a write to port 0xf4 ends the VM with ExitReason::DebugExit
  std::vector<std::string> jit_off;  // names from jit_classes
  bool lockstep = false;             // each block is compared with the interpreter
  bool profile = false;              // the engine samples and counts: event Profiled
  std::optional<uint32_t> dump_fd;   // translated blocks as text
  std::vector<std::string> dump_at;  // only those with one of these addresses: hexadecimal, without 0x

  // What ties the VM to its folder (store/); all absent for a VM that has none.
  bool detached = false;               // outlives whoever started it
  std::optional<uint32_t> alive_fd;    // holds the lock that says that the VM lives; kept open to the end
  std::optional<uint32_t> listen_fd;   // a bound SOCK_SEQPACKET socket: clients connect to it (messages.h)
  std::optional<uint32_t> events_fd;   // opened for appending: a line for each event
  std::optional<uint32_t> log_fd;      // what the guest prints, at most max_log bytes, …
  std::optional<uint32_t> old_log_fd;  // … and what was in it before; both or none
  static constexpr uint64_t max_log = 512 * 1024;

  // Start-up: a reading of the host's TSC and CLOCK_MONOTONIC_RAW (base/tsc_reading.h) by whoever starts the VM, so
  // that the VMM need not wait to measure the TSC's frequency; 0: none.
  uint64_t tsc_before = 0;
  uint64_t tsc_before_ns = 0;

  bool operator==(const VmConfig&) const = default;

  // `descriptors`: how many descriptors came along; every *_fd must be below it and stand for itself alone.
  [[nodiscard]] static Result<VmConfig> parse(std::string_view json, size_t descriptors);
  [[nodiscard]] std::string serialise() const;
  // The bounds that parse() enforces, for a configuration made in memory.
  [[nodiscard]] Result<> validate(size_t descriptors) const;
};

}  // namespace caisson::control
