// Registers and structures in memory of an xHCI host controller.
//   Spec     eXtensible Host Controller Interface for USB 1.2: 5 (registers), 6 (structures), 7 (capabilities)
//   Threads  constants
#pragma once

#include <cstdint>

namespace caisson::usb::xhci {

// Where things are in the BAR: capability registers with the extended capabilities, operational registers with the
// ports', runtime registers, doorbells.
inline constexpr uint64_t operational = 0x40, port_registers = operational + 0x400, runtime = 0x1000,
                          doorbell_registers = 0x2000;
inline constexpr uint64_t extended = 0x20;

enum class Capability : uint32_t {
  CAPLENGTH = 0x00,  // with HCIVERSION
  HCSPARAMS1 = 0x04,
  HCSPARAMS2 = 0x08,
  HCSPARAMS3 = 0x0c,
  HCCPARAMS1 = 0x10,
  DBOFF = 0x14,
  RTSOFF = 0x18,
  HCCPARAMS2 = 0x1c,
};
enum class Operational : uint32_t {
  USBCMD = 0x00,
  USBSTS = 0x04,
  PAGESIZE = 0x08,
  DNCTRL = 0x14,
  CRCR = 0x18,
  CRCR_high = 0x1c,
  DCBAAP = 0x30,
  DCBAAP_high = 0x34,
  CONFIG = 0x38,
};
enum class Runtime : uint32_t {  // of interrupter 0 from IMAN on
  MFINDEX = 0x00,
  IMAN = 0x20,
  IMOD = 0x24,
  ERSTSZ = 0x28,
  ERSTBA = 0x30,
  ERSTBA_high = 0x34,
  ERDP = 0x38,
  ERDP_high = 0x3c,
};

inline constexpr uint32_t version = 0x0100;
inline constexpr uint32_t hcc_64_bits = 1u << 0;

inline constexpr uint32_t cmd_run = 1u << 0, cmd_reset = 1u << 1, cmd_interrupts = 1u << 2, cmd_host_error = 1u << 3,
                          cmd_wrap = 1u << 10;
inline constexpr uint32_t sts_halted = 1u << 0, sts_host_error = 1u << 2, sts_event = 1u << 3, sts_port = 1u << 4;
inline constexpr uint32_t crcr_cycle = 1u << 0, crcr_stop = 1u << 1, crcr_abort = 1u << 2, crcr_running = 1u << 3;
inline constexpr uint32_t iman_pending = 1u << 0, iman_enable = 1u << 1;
inline constexpr uint32_t erdp_segment = 7, erdp_busy = 1u << 3;

// PORTSC, 5.4.8
inline constexpr uint32_t port_connected = 1u << 0, port_enabled = 1u << 1, port_reset = 1u << 4, port_link_shift = 5,
                          port_link = 15u << 5, port_power = 1u << 9, port_speed_shift = 10, port_speed = 15u << 10,
                          port_indicator = 3u << 14, port_link_write = 1u << 16, port_connect_change = 1u << 17,
                          port_enable_change = 1u << 18, port_warm_reset_change = 1u << 19, port_over_change = 1u << 20,
                          port_reset_change = 1u << 21, port_link_change = 1u << 22, port_error_change = 1u << 23,
                          port_wake = 7u << 25, port_warm_reset = 1u << 31;
inline constexpr uint32_t port_changes = port_connect_change | port_enable_change | port_warm_reset_change |
                                         port_over_change | port_reset_change | port_link_change | port_error_change;
enum class Link : uint8_t { U0 = 0, U3 = 3, Disabled = 4, RxDetect = 5, Polling = 7, Resume = 15 };

// 6.4
struct Trb {
  uint64_t parameter = 0;
  uint32_t status = 0;
  uint32_t control = 0;
};
static_assert(sizeof(Trb) == 16);

enum class TrbType : uint8_t {
  Normal = 1,
  SetupStage = 2,
  DataStage = 3,
  StatusStage = 4,
  Isoch = 5,
  Link = 6,
  EventData = 7,
  NoOp = 8,
  EnableSlot = 9,
  DisableSlot = 10,
  AddressDevice = 11,
  ConfigureEndpoint = 12,
  EvaluateContext = 13,
  ResetEndpoint = 14,
  StopEndpoint = 15,
  SetDequeue = 16,
  ResetDevice = 17,
  NoOpCommand = 23,
  TransferEvent = 32,
  CompletionEvent = 33,
  PortEvent = 34,
};
inline constexpr uint32_t trb_cycle = 1u << 0, trb_toggle = 1u << 1, trb_short = 1u << 2, trb_chain = 1u << 4,
                          trb_interrupt = 1u << 5, trb_immediate = 1u << 6, trb_block_event = 1u << 9;
inline constexpr uint32_t trb_block_address = 1u << 9;  // of Address Device
inline constexpr uint32_t trb_deconfigure = 1u << 9;    // of Configure Endpoint
inline constexpr uint32_t trb_in = 1u << 16;            // of data and status stages
inline constexpr uint32_t event_data = 1u << 2;         // of a transfer event
inline constexpr unsigned trb_type_shift = 10;
inline constexpr uint32_t trb_length = 0x1'ffff;
inline constexpr uint32_t longest_trb = 65536;
constexpr TrbType type_of(const Trb& trb) { return static_cast<TrbType>(trb.control >> trb_type_shift & 63); }

// 6.4.5
enum class Code : uint8_t {
  Invalid = 0,
  Success = 1,
  DataBufferError = 2,
  Babble = 3,
  TransactionError = 4,
  TrbError = 5,
  StallError = 6,
  NoSlots = 9,
  SlotNotEnabled = 11,
  EndpointNotEnabled = 12,
  ShortPacket = 13,
  ParameterError = 17,
  ContextStateError = 19,
  RingStopped = 24,
  Stopped = 26,
};

// 6.2.2 to 6.2.5, with contexts of 32 bytes.
struct SlotContext {
  uint32_t route = 0;    // with speed, context entries
  uint32_t port = 0;     // with exit latency
  uint32_t target = 0;   // interrupter
  uint32_t address = 0;  // with the slot's state
  uint32_t reserved[4] = {};
};
struct EndpointContext {
  uint32_t state = 0;  // with interval
  uint32_t kind = 0;   // type, errors, packet size
  uint64_t dequeue = 0;
  uint32_t average = 0;
  uint32_t reserved[3] = {};
};
static_assert(sizeof(SlotContext) == 32 && sizeof(EndpointContext) == 32);
inline constexpr uint64_t context_size = 32;
inline constexpr unsigned entries_shift = 27, slot_state_shift = 27, root_port_shift = 16;

enum class SlotState : uint8_t { Disabled = 0, Default = 1, Addressed = 2, Configured = 3, Enabled = 4 };
enum class EndpointState : uint8_t { Disabled = 0, Running = 1, Halted = 2, Stopped = 3, Error = 4 };
enum class EndpointType : uint8_t {
  None = 0,
  IsochOut = 1,
  BulkOut = 2,
  InterruptOut = 3,
  Control = 4,
  IsochIn = 5,
  BulkIn = 6,
  InterruptIn = 7,
};

// 6.5
struct SegmentEntry {
  uint64_t base = 0;
  uint32_t size = 0;  // in events: 16 to 4096
  uint32_t reserved = 0;
};
static_assert(sizeof(SegmentEntry) == 16);

}  // namespace caisson::usb::xhci
