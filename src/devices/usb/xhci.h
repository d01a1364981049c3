// xHCI: a USB host controller with its root hub, and no other hubs.
//   Spec     eXtensible Host Controller Interface for USB 1.2 (sections are its unless said otherwise)
//   Models   four USB 2 and four USB 3 ports; command ring, one interrupter with its event ring; control, bulk and
//            interrupt endpoints; event data, immediate data, short packets, stalls; MSI-X, INTx
//   Omits    isochronous endpoints, streams, hubs, scratchpads, bandwidth, interrupt moderation, save and restore
//            of the controller's own (CMD.CSS), power switching and wake-up of ports
//   Threads  under the device lock
//
// Rings are gone through a TRB at a time, as far as the device has data or room; how far an endpoint has come is all
// that there is of a transfer. A TRB is copied once, checked once, and the copy is used. Nothing is done whose events
// would find no room. What a ring may do at once is bounded: it goes on after the event loop has done other things.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <vector>

#include "bus/clock.h"
#include "bus/interrupt.h"
#include "devices/pci/msix.h"
#include "devices/pci/pci_device.h"
#include "devices/usb/device.h"
#include "devices/usb/xhci_format.h"

namespace caisson::usb {

class Xhci final : public pci::PciDevice {
 public:
  static constexpr unsigned register_bar = 0, msix_bar = 2;
  static constexpr uint64_t register_size = 0x4000;
  // USB 3 ports first: firmware's paths (boot/firmware.h) count them so.
  static constexpr unsigned ports_3 = 4, ports_2 = 4, port_count = ports_2 + ports_3;
  static constexpr unsigned slot_count = 16;      // from 1 on
  static constexpr unsigned endpoint_count = 32;  // by device context index: 1 is the control endpoint
  static constexpr unsigned most_segments = 16;   // of the event ring
  static constexpr unsigned most_control = 4096;  // bytes of a control transfer's data
  static constexpr unsigned most_at_once = 1024;  // TRBs of a ring
  static constexpr unsigned most_links = 64;      // TRBs that only lead to another, one after the other

  struct Endpoint {
    xhci::EndpointState state = xhci::EndpointState::Disabled;
    xhci::EndpointType type = xhci::EndpointType::None;
    uint64_t dequeue = 0;
    bool cycle = false;
    uint32_t done = 0;     // bytes of the TRB there
    uint32_t total = 0;    // bytes since the last Event Data TRB (4.11.5.2)
    bool skips = false;    // the transfer ended with a short packet: to the end of its TRBs
    bool told = false;     // an event has told so
    bool chained = false;  // the TRB there belongs to the same transfer as the one before
    static constexpr auto fields() {
      using fields::row;
      using E = Endpoint;
      return fields::table<E>(row<1>("state", &E::state), row<2>("type", &E::type), row<3>("dequeue", &E::dequeue),
                              row<4>("cycle", &E::cycle), row<5>("done", &E::done), row<6>("total", &E::total),
                              row<7>("skips", &E::skips), row<8>("told", &E::told), row<9>("chained", &E::chained));
    }
  };
  struct Slot {
    xhci::SlotState state = xhci::SlotState::Disabled;
    uint8_t port = 0;  // from 1 on; 0: none yet
    std::array<Endpoint, endpoint_count> endpoints{};
    // The control transfer that is under way.
    std::array<uint8_t, 8> setup{};
    bool stalled = false;
    uint32_t control_done = 0;  // bytes of its data
    fields::Bytes<most_control> control;
    static constexpr auto fields() {
      using fields::row;
      using S = Slot;
      return fields::table<S>(row<1>("state", &S::state), row<2>("port", &S::port), row<3>("endpoints", &S::endpoints),
                              row<4>("setup", &S::setup), row<5>("stalled", &S::stalled),
                              row<6>("control_done", &S::control_done), row<7>("control", &S::control));
    }
  };
  struct Segment {
    uint64_t base = 0;
    uint32_t size = 0;
    static constexpr auto fields() {
      using fields::row;
      return fields::table<Segment>(row<1>("base", &Segment::base), row<2>("size", &Segment::size));
    }
  };
  struct State {
    pci::ConfigSpace::State config;
    pci::Msix::State msix;
    uint32_t command = 0;
    uint32_t status = 0;
    uint32_t notifications = 0;  // DNCTRL
    uint64_t command_ring = 0;   // where its next TRB is
    bool command_cycle = false;
    bool command_running = false;
    uint64_t contexts = 0;  // DCBAAP
    uint32_t configure = 0;
    std::array<uint32_t, port_count> ports{};  // PORTSC
    uint32_t told_later = 0;                   // bit n: port n has changed, and no event has told so
    uint32_t management = 0;                   // IMAN
    uint32_t moderation = 0;                   // IMOD
    uint32_t table_size = 0;                   // ERSTSZ
    uint64_t table = 0;                        // ERSTBA
    uint64_t dequeue = 0;                      // ERDP
    std::array<Segment, most_segments> segments{};
    uint32_t events = 0;    // of all segments
    uint32_t producer = 0;  // the place of the next event
    uint32_t consumer = 0;
    bool event_cycle = true;
    std::array<Slot, slot_count + 1> slots{};  // 0 is none
    std::array<fields::Bytes<UsbDevice::most_saved>, port_count> devices;
    static constexpr auto fields() {
      using fields::row;
      using S = State;
      return fields::table<S>(
          row<1>("config", &S::config), row<2>("msix", &S::msix), row<3>("command", &S::command),
          row<4>("status", &S::status), row<5>("notifications", &S::notifications),
          row<6>("command_ring", &S::command_ring), row<7>("command_cycle", &S::command_cycle),
          row<8>("command_running", &S::command_running), row<9>("contexts", &S::contexts),
          row<10>("configure", &S::configure), row<11>("ports", &S::ports), row<12>("told_later", &S::told_later),
          row<13>("management", &S::management), row<14>("moderation", &S::moderation),
          row<15>("table_size", &S::table_size), row<16>("table", &S::table), row<17>("dequeue", &S::dequeue),
          row<18>("segments", &S::segments), row<19>("events", &S::events), row<20>("producer", &S::producer),
          row<21>("consumer", &S::consumer), row<22>("event_cycle", &S::event_cycle), row<23>("slots", &S::slots),
          row<24>("devices", &S::devices));
    }
  };

  // `clock` outlives this.
  Xhci(GuestMemory& memory, MsiSink& msi, Clock& clock);

  // A device into the first free port of its speed, before the guest runs or while it does. None: all are taken; the
  // device is gone. The port, from 1 on.
  [[nodiscard]] std::optional<unsigned> connect(std::unique_ptr<UsbDevice> device);

  [[nodiscard]] std::string_view name() const override { return "xhci"; }
  uint64_t read(unsigned region, uint64_t offset, unsigned size) override;
  void write(unsigned region, uint64_t offset, unsigned size, uint64_t value) override;
  void config_write(unsigned offset, unsigned size, uint32_t value) override;
  void reset() override;
  void quiesce() override;
  void save(fields::Buffer& out) const override;
  [[nodiscard]] Result<> restore(std::span<const uint8_t> in) override;

 private:
  class Port final : public Wire {
   public:
    void ready(unsigned endpoint, bool in) override { controller->device_ready(number, 2 * endpoint + (in ? 1 : 0)); }
    Xhci* controller = nullptr;
    unsigned number = 0;  // from 1 on
    std::unique_ptr<UsbDevice> device;
  };
  // A transfer's TRB that has been looked at.
  enum class Outcome : uint8_t {
    Next,   // done with
    Later,  // the device has no more, or no room
    Halt,   // the endpoint stands
  };
  struct Position {
    Slot& slot;
    unsigned slot_id;
    unsigned index;  // of the endpoint's context
    Endpoint& endpoint;
  };

  // Registers, ports, life cycle, saving: xhci.cpp
  [[nodiscard]] uint32_t read_register(uint64_t offset) const;
  [[nodiscard]] uint32_t read_extended(uint64_t offset) const;
  void write_register(uint64_t offset, uint32_t value);
  void write_operational(xhci::Operational reg, uint32_t value);
  void write_command(uint32_t value);
  void write_ring(uint32_t value, bool high);
  void write_port(unsigned index, uint32_t value);
  void reset_link(unsigned index);
  void reset_port(unsigned index, bool warm);
  void change_port(unsigned index, uint32_t changes);
  void power_on();
  [[nodiscard]] bool running() const { return (state_.status & xhci::sts_halted) == 0 && bus_master(); }
  void host_error();
  void device_ready(unsigned port, unsigned index);
  void go_on();
  void everything();
  [[nodiscard]] Result<> check(const State& state) const;

  // The event ring and the interrupt: xhci_events.cpp
  void write_runtime(xhci::Runtime reg, uint32_t value);
  void load_segments();
  void consume();
  [[nodiscard]] std::optional<uint32_t> place_of(uint64_t address) const;
  [[nodiscard]] bool room() const;
  void post(uint64_t parameter, uint32_t status, uint32_t control, bool silent = false);
  void tell_ports();
  void raise();
  void update_interrupt();

  // The command ring: xhci_commands.cpp
  void run_commands();
  [[nodiscard]] xhci::Code carry_out(const xhci::Trb& trb, unsigned& slot);
  [[nodiscard]] xhci::Code enable_slot(unsigned& slot);
  [[nodiscard]] xhci::Code disable_slot(unsigned id);
  [[nodiscard]] xhci::Code address_device(unsigned id, const xhci::Trb& trb);
  [[nodiscard]] xhci::Code configure(unsigned id, const xhci::Trb& trb);
  [[nodiscard]] xhci::Code evaluate(unsigned id, const xhci::Trb& trb);
  [[nodiscard]] xhci::Code reset_endpoint(unsigned id, unsigned index);
  [[nodiscard]] xhci::Code stop_endpoint(unsigned id, unsigned index);
  [[nodiscard]] xhci::Code set_dequeue(unsigned id, unsigned index, const xhci::Trb& trb);
  [[nodiscard]] xhci::Code reset_device(unsigned id);
  [[nodiscard]] std::optional<Gpa> output(unsigned id) const;
  [[nodiscard]] bool put_state(unsigned id, unsigned index);
  void set_state(unsigned id, unsigned index, xhci::EndpointState state);
  [[nodiscard]] static bool takes(unsigned index, const xhci::EndpointContext& context);

  // Transfer rings: xhci_transfers.cpp
  void ring(unsigned slot, uint32_t value);
  void run(unsigned slot, unsigned index);
  [[nodiscard]] bool follow(Position& at, xhci::Trb& trb);
  [[nodiscard]] Outcome step(Position& at, const xhci::Trb& trb);
  [[nodiscard]] Outcome begin_control(Position& at, const xhci::Trb& trb);
  [[nodiscard]] Outcome end_control(Position& at, const xhci::Trb& trb);
  [[nodiscard]] Outcome move(Position& at, const xhci::Trb& trb);
  [[nodiscard]] Outcome move_in(Position& at, const xhci::Trb& trb, uint32_t length);
  [[nodiscard]] Outcome move_out(Position& at, const xhci::Trb& trb, uint32_t length);
  [[nodiscard]] Moved pull(Position& at, std::span<uint8_t> into);
  [[nodiscard]] Moved push(Position& at, std::span<const uint8_t> bytes, bool last);
  void finished(Position& at, const xhci::Trb& trb, uint32_t length, bool short_packet);
  Outcome halt(Position& at, const xhci::Trb& trb, xhci::Code code, uint32_t left);
  void report(const Position& at, uint64_t pointer, xhci::Code code, uint32_t length, bool data, bool silent = false);
  [[nodiscard]] UsbDevice* device_of(const Slot& slot) const;

  GuestMemory& memory_;
  Clock& clock_;
  pci::Msix msix_;
  State state_;  // `config`, `msix` and `devices` only while saving
  std::array<Port, port_count> ports_;
  std::array<uint32_t, slot_count + 1> wanting_{};  // bit n: endpoint n shall be gone on with
  bool commands_wanting_ = false;
  std::unique_ptr<Clock::Timer> timer_;  // goes on
  std::vector<uint8_t> bytes_;           // of a TRB, on their way
};

}  // namespace caisson::usb
