// A small driver at the controller: it has a tablet in slot 1 and a stick in slot 2, at whose rings the tests work.
#include <memory>
#include <random>
#include <string>

#include <gtest/gtest.h>

#include "base/log.h"
#include "bus/fake_clock.h"
#include "devices/device_test_support.h"
#include "devices/pci/host_bridge.h"
#include "devices/usb/attach.h"
#include "devices/virtio/fake_backends.h"

#define LLVMFuzzerTestOneInput xhci_fuzz_one_input  // the test program has the others' targets as well
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
#include "devices/usb/xhci_fuzz.cpp"  // fuzz sources belong to no library

namespace caisson::usb {
namespace {

using namespace xhci;
using virtio::FakeDisk;

constexpr uint32_t kind(TrbType type) { return static_cast<uint32_t>(type) << trb_type_shift; }

class XhciTest : public testing::Test {
 protected:
  static constexpr uint64_t bar = 0xc010'0000, table = 0xc020'0000;
  static constexpr Gpa contexts = 0x1000, segments = 0x2000, first_segment = 0x3000, second_segment = 0x5000,
                       commands = 0x8000, input_context = 0x9000, outputs = 0xa000, rings = 0x10000, data = 0x100000;
  static constexpr uint32_t events = 48;  // of two segments
  static constexpr unsigned tablet_slot = 1, stick_slot = 2, bulk_in = 3, bulk_out = 4, interrupt_in = 3;

  XhciTest() {
    for (size_t i = 0; i < disk.contents.size(); ++i) disk.contents[i] = static_cast<uint8_t>(i / 512 + i);
    auto pointer = std::make_unique<Tablet>();
    tablet = pointer.get();
    tablet_port = *xhci.connect(std::move(pointer));
    stick_port = *xhci.connect(std::make_unique<Stick>(disk, "serial"));
    config(pci::base_address, bar);
    config(pci::base_address + 4, 0);
    config(pci::base_address + 4 * Xhci::msix_bar, table);
    config(pci::command, pci::command_memory | pci::command_bus_master);
    enable();
  }
  void config(unsigned offset, uint32_t value) {
    bus.write(Space::Memory, layout.ecam_base + (added.slot << 15) + offset, 4, value);
  }
  uint32_t get(uint64_t offset) { return static_cast<uint32_t>(bus.read(Space::Memory, bar + offset, 4)); }
  void set(uint64_t offset, uint32_t value) { bus.write(Space::Memory, bar + offset, 4, value); }
  void set64(uint64_t offset, uint64_t value) { bus.write(Space::Memory, bar + offset, 8, value); }
  uint32_t get(Operational reg) { return get(operational + static_cast<uint32_t>(reg)); }
  void set(Operational reg, uint32_t value) { set(operational + static_cast<uint32_t>(reg), value); }
  static uint64_t at(Runtime reg) { return runtime + static_cast<uint32_t>(reg); }
  static uint64_t at(Operational reg) { return operational + static_cast<uint32_t>(reg); }
  static uint64_t port_at(unsigned port) { return port_registers + (port - 1) * 16; }
  bool interrupt() { return lines[pci::intx_gsi(added.slot, 0) - pci::first_intx_gsi].level(); }
  void bell(unsigned slot, uint32_t value) { set(doorbell_registers + slot * 4, value); }

  void enable() {
    const std::vector<uint8_t> zeroes(0xc0000);
    ASSERT_TRUE(memory->write(contexts, zeroes));
    set(Operational::USBCMD, cmd_reset);
    ASSERT_NE(get(Operational::USBSTS) & sts_halted, 0u);
    ASSERT_TRUE(memory->write_object(segments, SegmentEntry{first_segment, 16, 0}));
    ASSERT_TRUE(memory->write_object(segments + 16, SegmentEntry{second_segment, 32, 0}));
    for (uint64_t slot = 1; slot <= 16; ++slot) {
      ASSERT_TRUE(memory->write_object(contexts + slot * 8, outputs + slot * 0x400));
    }
    set(Operational::CONFIG, 16);
    set64(at(Operational::DCBAAP), contexts);
    set64(at(Operational::CRCR), commands | 1);
    set(at(Runtime::ERSTSZ), 2);
    set64(at(Runtime::ERDP), first_segment);
    set64(at(Runtime::ERSTBA), segments);
    set(at(Runtime::IMAN), iman_enable);
    set(Operational::USBCMD, cmd_run | cmd_interrupts);
    command_tail = consumer = 0;
    consumer_cycle = true;
    tails = {};
  }
  static Gpa event_at(uint32_t place) {
    return place < 16 ? first_segment + place * 16 : second_segment + (place - 16) * 16;
  }
  // The next event, if it has come; consumed.
  std::optional<Trb> event() {
    Trb trb;
    EXPECT_TRUE(memory->read_object(event_at(consumer), trb));
    if (((trb.control & trb_cycle) != 0) != consumer_cycle) return {};
    if (++consumer == events) {
      consumer = 0;
      consumer_cycle = !consumer_cycle;
    }
    set64(at(Runtime::ERDP), event_at(consumer) | erdp_busy);
    return trb;
  }
  void forget_events() {
    while (event()) {
    }
  }
  static Code code(const std::optional<Trb>& event) {
    return event ? static_cast<Code>(event->status >> 24) : Code::Invalid;
  }
  static uint32_t left(const std::optional<Trb>& event) { return event ? event->status & 0xff'ffff : ~0u; }

  Code command(TrbType type, uint64_t parameter, uint32_t more, unsigned* slot = nullptr) {
    const Gpa address = commands + command_tail * sizeof(Trb);
    EXPECT_TRUE(memory->write_object(address, Trb{parameter, 0, kind(type) | more | trb_cycle}));
    ++command_tail;
    bell(0, 0);
    for (auto got = event(); got; got = event()) {
      if (type_of(*got) != TrbType::CompletionEvent) continue;
      EXPECT_EQ(got->parameter, address);
      if (slot != nullptr) *slot = got->control >> 24;
      return code(got);
    }
    return Code::Invalid;
  }
  static Gpa ring_of(unsigned slot, unsigned index) { return rings + (slot * 32 + index) * 0x400; }
  void put_input(uint32_t drop, uint32_t add, unsigned slot, unsigned port) {
    ASSERT_TRUE(memory->write_object(input_context, std::array<uint32_t, 8>{drop, add}));
    ASSERT_TRUE(memory->write_object(input_context + 32, SlotContext{.route = 5u << 27, .port = port << 16}));
    const auto endpoint = [&](unsigned index, EndpointType type) {
      ASSERT_TRUE(memory->write_object(
          input_context + 32 * (index + 1),
          EndpointContext{.kind = static_cast<uint32_t>(type) << 3 | 512 << 16, .dequeue = ring_of(slot, index) | 1}));
    };
    endpoint(1, EndpointType::Control);
    endpoint(3, port == stick_port ? EndpointType::BulkIn : EndpointType::InterruptIn);
    endpoint(4, EndpointType::BulkOut);
  }
  Code address(unsigned slot, unsigned port) {
    set(port_at(port), port_power | port_reset);
    put_input(0, 3, slot, port);
    return command(TrbType::AddressDevice, input_context, slot << 24);
  }
  // A device as its driver would have it.
  void set_up(unsigned port, unsigned wanted_slot) {
    unsigned slot = 0;
    ASSERT_EQ(command(TrbType::EnableSlot, 0, 0, &slot), Code::Success);
    ASSERT_EQ(slot, wanted_slot);
    ASSERT_EQ(address(slot, port), Code::Success);
    put_input(0, port == stick_port ? 0x19 : 0x9, slot, port);
    ASSERT_EQ(command(TrbType::ConfigureEndpoint, input_context, slot << 24), Code::Success);
    ASSERT_EQ(code(control(slot, 0, Request::set_configuration, 1, 0, 0)), Code::Success);
  }
  void set_up() {
    set_up(tablet_port, tablet_slot);
    set_up(stick_port, stick_slot);
    forget_events();
  }
  uint32_t context(unsigned slot, unsigned index, unsigned word) {
    uint32_t value = 0;
    EXPECT_TRUE(memory->read_object(outputs + slot * 0x400 + index * 32 + word * 4, value));
    return value;
  }
  EndpointState endpoint_state(unsigned slot, unsigned index) {
    return static_cast<EndpointState>(context(slot, index, 0) & 7);
  }

  Gpa put(unsigned slot, unsigned index, uint64_t parameter, uint32_t status, uint32_t control) {
    const Gpa address = ring_of(slot, index) + tails[slot][index] * sizeof(Trb);
    EXPECT_TRUE(memory->write_object(address, Trb{parameter, status, control | trb_cycle}));
    ++tails[slot][index];
    EXPECT_TRUE(memory->write_object(address + sizeof(Trb), Trb{}));  // the end, whatever was there
    return address;
  }
  Gpa normal(unsigned slot, unsigned index, Gpa address, uint32_t length, uint32_t flags = trb_interrupt) {
    return put(slot, index, address, length, kind(TrbType::Normal) | flags);
  }
  // A whole control transfer; the last event.
  std::optional<Trb> control(unsigned slot, uint8_t type, Request request, uint16_t value, uint16_t index,
                             uint16_t length) {
    const usb::Setup setup{type, static_cast<uint8_t>(request), value, index, length};
    uint64_t parameter = 0;
    std::memcpy(&parameter, &setup, sizeof setup);
    const bool in = (type & type_in) != 0;
    put(slot, 1, parameter, 8, kind(TrbType::SetupStage) | trb_immediate);
    if (length != 0) put(slot, 1, data, length, kind(TrbType::DataStage) | (in ? trb_in : 0) | trb_short);
    put(slot, 1, 0, 0, kind(TrbType::StatusStage) | trb_interrupt | (in ? 0 : trb_in));
    bell(slot, 1);
    std::optional<Trb> last;
    while (const auto got = event()) {
      if (type_of(*got) == TrbType::TransferEvent) last = got;
    }
    return last;
  }
  std::vector<uint8_t> bytes(Gpa address, size_t count) {
    std::vector<uint8_t> out(count);
    EXPECT_TRUE(memory->read(address, out));
    return out;
  }
  // Everything that waits for the image and the event loop.
  void settle() {
    for (int i = 0; i < 100 && (i == 0 || !disk.waiting.empty()); ++i) {
      disk.complete_all();
      clock.advance(1000);
    }
  }
  void wrap(std::vector<uint8_t> block, uint32_t length, bool in, Gpa address = data + 0x100000) {
    std::array<uint8_t, 31> wrapper{'U', 'S', 'B', 'C', 1, 2, 3, 4};
    std::memcpy(&wrapper[8], &length, 4);
    wrapper[12] = in ? 0x80 : 0;
    wrapper[14] = static_cast<uint8_t>(block.size());
    std::ranges::copy(block, wrapper.begin() + 15);
    ASSERT_TRUE(memory->write(address, wrapper));
    normal(stick_slot, bulk_out, address, 31, 0);
    bell(stick_slot, bulk_out);
  }
  // The status of the command before: bCSWStatus, residue.
  std::pair<int, uint32_t> status() {
    normal(stick_slot, bulk_in, data + 0x101000, 13);
    bell(stick_slot, bulk_in);
    settle();
    const auto got = event();
    EXPECT_EQ(code(got), Code::Success);
    const auto wrapper = bytes(data + 0x101000, 13);
    EXPECT_EQ(std::vector<uint8_t>(wrapper.begin(), wrapper.begin() + 8),
              (std::vector<uint8_t>{'U', 'S', 'B', 'S', 1, 2, 3, 4}));
    uint32_t residue = 0;
    std::memcpy(&residue, &wrapper[8], 4);
    return {wrapper[12], residue};
  }
  using Status = std::pair<int, uint32_t>;
  // What a command gives, of at most `length` bytes to data.
  std::vector<uint8_t> ask(std::vector<uint8_t> block, uint32_t length, Status wanted = {0, 0}) {
    wrap(std::move(block), length, true);
    normal(stick_slot, bulk_in, data, length, trb_interrupt | trb_short);
    bell(stick_slot, bulk_in);
    settle();
    const auto got = event();
    EXPECT_TRUE(code(got) == Code::Success || code(got) == Code::ShortPacket);
    const uint32_t count = length - left(got);
    const auto out = bytes(data, count);
    EXPECT_EQ(status(), wanted);
    return out;
  }
  static std::vector<uint8_t> read_10(uint32_t first, uint16_t count, bool writes = false) {
    return {static_cast<uint8_t>(writes ? 0x2a : 0x28),
            0,
            static_cast<uint8_t>(first >> 24),
            static_cast<uint8_t>(first >> 16),
            static_cast<uint8_t>(first >> 8),
            static_cast<uint8_t>(first),
            0,
            static_cast<uint8_t>(count >> 8),
            static_cast<uint8_t>(count),
            0};
  }
  std::vector<uint8_t> on_disk(uint64_t first, uint64_t blocks) {
    const auto from = disk.contents.begin() + static_cast<std::ptrdiff_t>(first * 512);
    return {from, from + static_cast<std::ptrdiff_t>(blocks * 512)};
  }

  pci::Layout layout;
  Bus bus;
  FakeClock clock;
  std::array<test_support::RecordingLine, pci::intx_gsi_count> lines;
  test_support::RecordingMsi msi;
  std::unique_ptr<GuestMemory> memory = *GuestMemory::create(uint64_t{4} << 20);
  FakeDisk disk{4 << 20};
  pci::HostBridge bridge{bus, layout,
                         [this](unsigned gsi) -> InterruptLine& { return lines[gsi - pci::first_intx_gsi]; }};
  AddedXhci added = add_xhci(bridge, *memory, msi, clock);
  Xhci& xhci = added.controller;
  Tablet* tablet = nullptr;
  unsigned tablet_port = 0, stick_port = 0;
  uint32_t command_tail = 0, consumer = 0;
  bool consumer_cycle = true;
  std::array<std::array<uint32_t, 32>, 4> tails{};
};

TEST_F(XhciTest, SaysWhatItIs) {
  EXPECT_EQ(get(0), 0x0100'0040u);
  EXPECT_EQ(get(0x04), 16u | 1 << 8 | 8 << 24);
  // Both kinds of ports, in a list.
  uint64_t list = get(0x10) >> 16 << 2;
  EXPECT_EQ(get(list), 2u | 4 << 8 | 0x0300u << 16);
  EXPECT_EQ(get(list + 8), 1u | 4 << 8);
  list += 16;
  EXPECT_EQ(get(list), 2u | 0x0200u << 16);
  EXPECT_EQ(get(list + 8), 5u | 4 << 8);
  const auto now = get(at(Runtime::MFINDEX));
  clock.advance(125'000 * 3);
  EXPECT_EQ(get(at(Runtime::MFINDEX)), now + 3);
}

TEST_F(XhciTest, PortsTellOfDevices) {
  // Since the start: two changes, of which each has an event.
  std::vector<uint64_t> ports;
  while (const auto got = event()) {
    EXPECT_EQ(type_of(*got), TrbType::PortEvent);
    ports.push_back(got->parameter >> 24);
  }
  EXPECT_EQ(ports, (std::vector<uint64_t>{stick_port, tablet_port}));
  EXPECT_EQ(get(port_at(stick_port)), port_connected | port_enabled | port_power | 4u << 10 | port_connect_change);
  EXPECT_EQ(get(port_at(tablet_port)), port_connected | port_power | 3u << 10 | 7u << 5 | port_connect_change);
  EXPECT_EQ(get(port_at(2)), port_power | 5u << 5);
  set(port_at(tablet_port), port_power | port_connect_change);
  set(port_at(tablet_port), port_power | port_reset);
  EXPECT_EQ(get(port_at(tablet_port)), port_connected | port_enabled | port_power | 3u << 10 | port_reset_change);
  EXPECT_EQ(type_of(event().value_or(Trb{})), TrbType::PortEvent);
  set(port_at(2), port_power | port_reset);
  EXPECT_FALSE(event()) << "nothing is there";
}

TEST_F(XhciTest, CommandsWantWhatIsThere) {
  EXPECT_EQ(command(TrbType::NoOpCommand, 0, 0), Code::Success);
  EXPECT_EQ(command(TrbType::AddressDevice, input_context, 1 << 24), Code::SlotNotEnabled);
  EXPECT_EQ(command(static_cast<TrbType>(40), 0, 0), Code::TrbError);
  unsigned slot = 0;
  for (unsigned i = 1; i <= 16; ++i) {
    EXPECT_EQ(command(TrbType::EnableSlot, 0, 0, &slot), Code::Success);
    EXPECT_EQ(slot, i);
  }
  EXPECT_EQ(command(TrbType::EnableSlot, 0, 0), Code::NoSlots);
  EXPECT_EQ(address(1, 2), Code::TransactionError) << "an empty port";
  EXPECT_EQ(address(1, 9), Code::ParameterError) << "no port";
  EXPECT_EQ(address(1, tablet_port), Code::Success);
  EXPECT_EQ(context(1, 0, 3), 2u << 27 | 1);
  EXPECT_EQ(endpoint_state(1, 1), EndpointState::Running);
  EXPECT_EQ(address(2, tablet_port), Code::TransactionError) << "another slot has it";
  EXPECT_EQ(command(TrbType::SetDequeue, ring_of(1, 1), 1 << 24 | 1 << 16), Code::ContextStateError);
  EXPECT_EQ(command(TrbType::StopEndpoint, 0, 1 << 24 | 5 << 16), Code::EndpointNotEnabled);
  EXPECT_EQ(command(TrbType::StopEndpoint, 0, 1 << 24 | 1 << 16), Code::Success);
  EXPECT_EQ(endpoint_state(1, 1), EndpointState::Stopped);
  EXPECT_EQ(command(TrbType::SetDequeue, ring_of(1, 1) | 1, 1 << 24 | 1 << 16), Code::Success);
  EXPECT_EQ(command(TrbType::DisableSlot, 0, 1 << 24), Code::Success);
  EXPECT_EQ(address(2, tablet_port), Code::Success);
}

TEST_F(XhciTest, StandardRequests) {
  set_up();
  ASSERT_EQ(code(control(tablet_slot, 0x80, Request::get_descriptor, 0x0100, 0, 18)), Code::Success);
  EXPECT_EQ(bytes(data, 4), (std::vector<uint8_t>{18, 1, 0, 2}));
  ASSERT_EQ(code(control(stick_slot, 0x80, Request::get_descriptor, 0x0100, 0, 18)), Code::Success);
  EXPECT_EQ(bytes(data + 2, 2), (std::vector<uint8_t>{0, 3}));
  ASSERT_EQ(code(control(stick_slot, 0x80, Request::get_descriptor, 0x0f00, 0, 64)), Code::Success);
  EXPECT_EQ(bytes(data + 2, 3), (std::vector<uint8_t>{22, 0, 2}));
  // The configuration is as long as it says, and its parts follow one another.
  for (const unsigned slot : {tablet_slot, stick_slot}) {
    ASSERT_EQ(code(control(slot, 0x80, Request::get_descriptor, 0x0200, 0, 255)), Code::Success);
    const auto whole = bytes(data, 255);
    const size_t length = whole[2] | whole[3] << 8;
    size_t at = 0;
    while (at < length) at += whole[at];
    EXPECT_EQ(at, length);
  }
  ASSERT_EQ(code(control(tablet_slot, 0x81, Request::get_descriptor, 0x2200, 0, 255)), Code::Success);
  EXPECT_EQ(bytes(data, 2), (std::vector<uint8_t>{5, 1}));
  EXPECT_EQ(code(control(tablet_slot, 0x80, Request::get_configuration, 0, 0, 1)), Code::Success);
  EXPECT_EQ(bytes(data, 1), std::vector<uint8_t>{1});
  // A string, and none.
  ASSERT_EQ(code(control(stick_slot, 0x80, Request::get_descriptor, 0x0303, 0, 255)), Code::Success);
  EXPECT_EQ(bytes(data, 4), (std::vector<uint8_t>{26, 3, '7', 0}));
  EXPECT_EQ(code(control(stick_slot, 0x80, Request::get_descriptor, 0x0309, 0, 255)), Code::StallError);
  EXPECT_EQ(endpoint_state(stick_slot, 1), EndpointState::Halted);
  bell(stick_slot, 1);
  EXPECT_FALSE(event()) << "a halted endpoint";
  EXPECT_EQ(command(TrbType::ResetEndpoint, 0, stick_slot << 24 | 1 << 16), Code::Success);
  tails[stick_slot][1] = 0;
  EXPECT_EQ(command(TrbType::SetDequeue, ring_of(stick_slot, 1) | 1, stick_slot << 24 | 1 << 16), Code::Success);
  EXPECT_EQ(code(control(stick_slot, 0x80, Request::get_status, 0, 0, 2)), Code::Success);
  // Halts are seen, and cleared.
  EXPECT_EQ(code(control(stick_slot, 2, Request::set_feature, 0, 0x81, 0)), Code::Success);
  EXPECT_EQ(code(control(stick_slot, 0x82, Request::get_status, 0, 0x81, 2)), Code::Success);
  EXPECT_EQ(bytes(data, 2), (std::vector<uint8_t>{1, 0}));
  EXPECT_EQ(code(control(stick_slot, 2, Request::clear_feature, 0, 0x81, 0)), Code::Success);
  EXPECT_EQ(code(control(stick_slot, 0x82, Request::get_status, 0, 0x81, 2)), Code::Success);
  EXPECT_EQ(bytes(data, 2), (std::vector<uint8_t>{0, 0}));
}

TEST_F(XhciTest, TheTabletTells) {
  EXPECT_FALSE(tablet->point(1, 2, 0, 0)) << "nobody drives it";
  set_up();
  EXPECT_TRUE(tablet->point(0x1234, 0x7fff, 1, -2));
  const Gpa first = normal(tablet_slot, interrupt_in, data, 8, trb_interrupt | trb_short);
  bell(tablet_slot, interrupt_in);
  auto got = event();
  EXPECT_EQ(code(got), Code::ShortPacket);
  EXPECT_EQ(left(got), 2u);
  EXPECT_EQ(got->parameter, first);
  EXPECT_EQ(bytes(data, 6), (std::vector<uint8_t>{1, 0x34, 0x12, 0xff, 0x7f, 0xfe}));
  // The other way round: the host asks, and it comes later.
  normal(tablet_slot, interrupt_in, data, 6);
  bell(tablet_slot, interrupt_in);
  EXPECT_FALSE(event());
  EXPECT_TRUE(tablet->point(5, 6, 0, 0));
  clock.advance(1000);
  EXPECT_EQ(code(event()), Code::Success);
  EXPECT_EQ(bytes(data, 6), (std::vector<uint8_t>{0, 5, 0, 6, 0, 0}));
  for (unsigned i = 0; i < Tablet::most_waiting; ++i) EXPECT_TRUE(tablet->point(7, 8, 0, 0));
  EXPECT_FALSE(tablet->point(7, 8, 0, 0));
  normal(tablet_slot, interrupt_in, data, 5);
  bell(tablet_slot, interrupt_in);
  EXPECT_EQ(code(event()), Code::Babble);
  EXPECT_EQ(endpoint_state(tablet_slot, interrupt_in), EndpointState::Halted);
}

TEST_F(XhciTest, AStoppedEndpointSaysWhereItIs) {
  set_up();
  const Gpa waits = normal(tablet_slot, interrupt_in, data, 8);
  bell(tablet_slot, interrupt_in);
  const Gpa address = commands + command_tail * sizeof(Trb);
  ASSERT_TRUE(memory->write_object(
      address, Trb{0, 0, kind(TrbType::StopEndpoint) | trb_cycle | tablet_slot << 24 | interrupt_in << 16}));
  ++command_tail;
  bell(0, 0);
  const auto got = event();
  EXPECT_EQ(code(got), Code::Stopped);
  EXPECT_EQ(left(got), 8u);
  EXPECT_EQ(got->parameter, waits);
  EXPECT_EQ(code(event()), Code::Success);
  EXPECT_TRUE(tablet->point(1, 1, 0, 0));
  clock.advance(1000);
  EXPECT_FALSE(event()) << "it stands";
  bell(tablet_slot, interrupt_in);
  EXPECT_EQ(code(event()), Code::ShortPacket);
}

TEST_F(XhciTest, TheStickIsADisk) {
  set_up();
  const auto inquiry = ask({0x12, 0, 0, 0, 36, 0}, 36);
  ASSERT_EQ(inquiry.size(), 36u);
  EXPECT_EQ(std::string(inquiry.begin() + 8, inquiry.begin() + 25), "CAISSON USB STICK");
  EXPECT_EQ(ask({0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 8), (std::vector<uint8_t>{0, 0, 0x1f, 0xff, 0, 0, 2, 0}));
  EXPECT_EQ(ask({0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0}, 32)[6], 0x1f);
  EXPECT_EQ(ask({0x12, 1, 0x80, 0, 255, 0}, 255, {0, 245}),
            (std::vector<uint8_t>{0, 0x80, 0, 6, 's', 'e', 'r', 'i', 'a', 'l'}));
  EXPECT_EQ(ask({0x1a, 0, 0x3f, 0, 192, 0}, 192, {0, 168})[2], 0) << "it can be written";
  wrap({0, 0, 0, 0, 0, 0}, 0, false);
  EXPECT_EQ(status(), (Status{0, 0}));
  // What it does not know, and what it says about that.
  wrap({0xee, 0, 0, 0, 0, 0}, 0, false);
  EXPECT_EQ(status(), (Status{1, 0}));
  const auto sense = ask({3, 0, 0, 0, 18, 0}, 18);
  EXPECT_EQ(sense[2], 5);
  EXPECT_EQ(sense[12], 0x20);
  EXPECT_EQ(ask({3, 0, 0, 0, 18, 0}, 18)[2], 0) << "told once";
}

TEST_F(XhciTest, TheStickReadsAndWrites) {
  set_up();
  // Longer than a piece, into pages.
  constexpr uint32_t length = 200 * 512;
  wrap(read_10(7, 200), length, true);
  for (uint32_t at = 0; at < length; at += 4096) {
    normal(stick_slot, bulk_in, data + at, 4096, at + 4096 < length ? trb_chain | trb_short : trb_interrupt);
  }
  bell(stick_slot, bulk_in);
  EXPECT_FALSE(event());
  settle();
  EXPECT_EQ(code(event()), Code::Success);
  EXPECT_EQ(bytes(data, length), on_disk(7, 200));
  EXPECT_EQ(status(), (Status{0, 0}));
  disk.log.clear();
  wrap(read_10(1000, 200, true), length, false);
  normal(stick_slot, bulk_out, data, 65536, trb_chain);
  normal(stick_slot, bulk_out, data + 65536, length - 65536);
  bell(stick_slot, bulk_out);
  settle();
  EXPECT_EQ(code(event()), Code::Success);
  EXPECT_EQ(status(), (Status{0, 0}));
  EXPECT_EQ(on_disk(1000, 200), on_disk(7, 200));
  EXPECT_EQ(disk.log.back(), BlockOp::Flush) << "a write ends on the medium";
  // Beyond the end; the host still moves what it has announced.
  wrap(read_10(8192, 1, true), 512, false);
  normal(stick_slot, bulk_out, data, 512);
  bell(stick_slot, bulk_out);
  EXPECT_EQ(code(event()), Code::Success);
  EXPECT_EQ(status(), (Status{1, 512}));
  EXPECT_TRUE(ask(read_10(8191, 2), 1024, {1, 1024}).empty());
  // The image fails.
  wrap(read_10(0, 1), 512, true);
  normal(stick_slot, bulk_in, data, 512, trb_interrupt | trb_short);
  bell(stick_slot, bulk_in);
  disk.complete(0, EIO);
  clock.advance(1000);
  EXPECT_EQ(code(event()), Code::ShortPacket);
  EXPECT_EQ(status(), (Status{1, 512}));
  EXPECT_EQ(ask({3, 0, 0, 0, 18, 0}, 18)[2], 3);
  // Host and device want different things.
  EXPECT_TRUE(ask(read_10(0, 2), 512, {2, 512}).empty());
}

TEST_F(XhciTest, EventDataAndShortPackets) {
  set_up();
  wrap({0x12, 0, 0, 0, 36, 0}, 100, true);
  normal(stick_slot, bulk_in, data, 20, trb_chain);
  const Gpa shorter = normal(stick_slot, bulk_in, data + 20, 40, trb_chain | trb_short);
  normal(stick_slot, bulk_in, data + 60, 40, trb_chain | trb_interrupt);
  put(stick_slot, bulk_in, 0x1234'5678'9abc, 0, kind(TrbType::EventData) | trb_interrupt);
  bell(stick_slot, bulk_in);
  auto got = event();
  EXPECT_EQ(code(got), Code::ShortPacket);
  EXPECT_EQ(got->parameter, shorter);
  EXPECT_EQ(left(got), 24u);
  got = event();
  EXPECT_EQ(code(got), Code::ShortPacket);
  EXPECT_EQ(got->parameter, 0x1234'5678'9abcu);
  EXPECT_EQ(left(got), 36u) << "what has come";
  EXPECT_NE(got->control & event_data, 0u);
  EXPECT_FALSE(event()) << "the end was told of";
  EXPECT_EQ(status(), (Status{0, 64}));
  // A command whose last bytes are followed by event data, and whose first are in the TRB.
  std::array<uint8_t, 31> wrapper{'U', 'S', 'B', 'C', 1, 2, 3, 4};
  wrapper[14] = 6;
  uint64_t front = 0;
  std::memcpy(&front, wrapper.data(), 8);
  ASSERT_TRUE(memory->write(data, std::span(wrapper).subspan(8)));
  put(stick_slot, bulk_out, front, 8, kind(TrbType::Normal) | trb_immediate | trb_chain);
  normal(stick_slot, bulk_out, data, 23, trb_chain);
  put(stick_slot, bulk_out, 5, 0, kind(TrbType::EventData) | trb_interrupt);
  bell(stick_slot, bulk_out);
  got = event();
  EXPECT_EQ(code(got), Code::Success);
  EXPECT_EQ(left(got), 31u);
  EXPECT_EQ(status(), (Status{0, 0}));
}

TEST_F(XhciTest, WhatIsNoCommandHaltsUntilAReset) {
  set_up();
  normal(stick_slot, bulk_out, data, 30);
  bell(stick_slot, bulk_out);
  EXPECT_EQ(code(event()), Code::Success);
  normal(stick_slot, bulk_in, data, 13);
  bell(stick_slot, bulk_in);
  EXPECT_EQ(code(event()), Code::StallError);
  const auto recover = [&] {
    ASSERT_EQ(command(TrbType::ResetEndpoint, 0, stick_slot << 24 | bulk_in << 16), Code::Success);
    tails[stick_slot][bulk_in] = 0;
    ASSERT_EQ(command(TrbType::SetDequeue, ring_of(stick_slot, bulk_in) | 1, stick_slot << 24 | bulk_in << 16),
              Code::Success);
    ASSERT_EQ(code(control(stick_slot, 2, Request::clear_feature, 0, 0x81, 0)), Code::Success);
    ASSERT_EQ(code(control(stick_slot, 2, Request::clear_feature, 0, 0x02, 0)), Code::Success);
  };
  recover();
  normal(stick_slot, bulk_in, data, 13);
  bell(stick_slot, bulk_in);
  EXPECT_EQ(code(event()), Code::StallError) << "the device has not been reset";
  ASSERT_EQ(code(control(stick_slot, 0x21, static_cast<Request>(0xff), 0, 0, 0)), Code::Success);
  recover();
  wrap({0, 0, 0, 0, 0, 0}, 0, false);
  EXPECT_EQ(status(), (Status{0, 0}));
}

TEST_F(XhciTest, InterruptsByPinAndMessage) {
  EXPECT_TRUE(interrupt()) << "ports have changed";
  set(at(Runtime::IMAN), iman_enable | iman_pending);
  EXPECT_FALSE(interrupt());
  forget_events();
  set(at(Runtime::IMAN), iman_enable | iman_pending);
  EXPECT_FALSE(interrupt());
  bus.write(Space::Memory, table, 8, 0xfee0'0000);
  bus.write(Space::Memory, table + 8, 8, 0x41);
  const auto capability =
      static_cast<unsigned>(bus.read(Space::Memory, layout.ecam_base + (added.slot << 15) + 0x34, 1));
  config(capability, 0x8000'0000u | 0x11);
  msi.messages.clear();
  EXPECT_EQ(command(TrbType::NoOpCommand, 0, 0), Code::Success);
  EXPECT_EQ(msi.messages.size(), 1u);
  EXPECT_FALSE(interrupt());
  EXPECT_EQ(get(at(Runtime::IMAN)), iman_enable);
}

TEST_F(XhciTest, AFullEventRingHoldsEverythingBack) {
  set_up();
  for (uint32_t i = 0; i < 2 * events; ++i) {
    ASSERT_TRUE(memory->write_object(commands + (command_tail + i) * sizeof(Trb),
                                     Trb{0, 0, kind(TrbType::NoOpCommand) | trb_cycle}));
  }
  bell(0, 0);
  uint32_t told = 0;
  for (int rounds = 0; rounds < 10; ++rounds) {
    uint32_t now = 0;
    while (event()) ++now;
    EXPECT_LT(now, events);
    told += now;
    clock.advance(1000);
  }
  EXPECT_EQ(told, 2 * events);
}

TEST_F(XhciTest, RingsWithoutEndAreBounded) {
  set_up();
  // To itself.
  const Gpa ring = ring_of(stick_slot, bulk_out);
  ASSERT_TRUE(memory->write_object(ring, Trb{ring, 0, kind(TrbType::Link) | trb_cycle}));
  bell(stick_slot, bulk_out);
  EXPECT_EQ(code(event()), Code::TrbError);
  EXPECT_EQ(endpoint_state(stick_slot, bulk_out), EndpointState::Error);
  // A ring of things to do: it goes on later, for ever.
  const Gpa other = ring_of(tablet_slot, 1);
  ASSERT_EQ(command(TrbType::StopEndpoint, 0, tablet_slot << 24 | 1 << 16), Code::Success);
  ASSERT_EQ(command(TrbType::SetDequeue, other | 1, tablet_slot << 24 | 1 << 16), Code::Success);
  ASSERT_TRUE(memory->write_object(other, Trb{0, 0, kind(TrbType::NoOp) | trb_cycle}));
  ASSERT_TRUE(memory->write_object(other + 16, Trb{other, 0, kind(TrbType::Link) | trb_cycle}));
  bell(tablet_slot, 1);
  clock.advance(10'000'000);
  EXPECT_EQ(endpoint_state(tablet_slot, 1), EndpointState::Running);
  ASSERT_TRUE(memory->write_object(commands + command_tail * 16,
                                   Trb{commands + command_tail * 16, 0, kind(TrbType::Link) | trb_cycle}));
  bell(0, 0);
  clock.advance(10'000'000);
  EXPECT_NE(get(Operational::CRCR) & crcr_running, 0u);
  set(Operational::CRCR, crcr_stop);
  EXPECT_EQ(code(event()), Code::RingStopped);
}

TEST_F(XhciTest, AddressesThatAreNoMemory) {
  set_up();
  wrap(read_10(0, 1), 512, true);
  settle();
  normal(stick_slot, bulk_in, uint64_t{1} << 40, 512);
  bell(stick_slot, bulk_in);
  EXPECT_EQ(code(event()), Code::DataBufferError);
  set64(at(Operational::DCBAAP), uint64_t{1} << 40);
  EXPECT_EQ(command(TrbType::AddressDevice, input_context, stick_slot << 24), Code::ContextStateError);
  unsigned slot = 0;
  EXPECT_EQ(command(TrbType::EnableSlot, 0, 0, &slot), Code::Success);
  EXPECT_EQ(command(TrbType::AddressDevice, input_context, slot << 24), Code::ParameterError);
  set(Operational::USBCMD, 0);
  set64(at(Operational::CRCR), uint64_t{1} << 40 | 1);
  set(Operational::USBCMD, cmd_run);
  bell(0, 0);
  EXPECT_EQ(get(Operational::USBSTS) & (sts_halted | sts_host_error), sts_halted | sts_host_error);
}

TEST_F(XhciTest, AResetForgets) {
  set_up();
  wrap(read_10(0, 1), 512, true);
  EXPECT_EQ(disk.waiting.size(), 1u);
  set(Operational::USBCMD, cmd_reset);
  EXPECT_TRUE(disk.waiting.empty());
  EXPECT_FALSE(tablet->driven());
  enable();
  forget_events();
  set_up();
  EXPECT_EQ(ask({0x12, 0, 0, 0, 36, 0}, 36).size(), 36u);
}

TEST_F(XhciTest, RoundTrip) {
  set_up();
  set(at(Runtime::IMAN), iman_pending);  // the pin is low, as the changed state wants it
  EXPECT_TRUE(tablet->point(1, 2, 3, 4));
  const auto repair = [this](Xhci::State& state) {
    // A state that a guest could make: of a ring of events, and of devices.
    state.management = 0;
    state.events = 64;
    state.producer = 5;
    state.consumer = 4;
    state.segments = {};
    state.segments[0] = {0x1000, 64};
    for (auto& slot : state.slots) {
      slot.port = slot.state == SlotState::Disabled ? 0 : 1;
      slot.state = SlotState::Default;
      slot.control_done = 0;
      for (auto& endpoint : slot.endpoints) {
        endpoint.state = EndpointState::Stopped;
        endpoint.type = EndpointType::BulkIn;
        endpoint.done = 3;
      }
    }
    state.slots[0].state = SlotState::Disabled;
    fields::Buffer now;
    xhci.save(now);
    Xhci::State actual;
    ASSERT_TRUE(fields::restore(actual, now));
    state.devices = actual.devices;
    state.config = actual.config;
    state.msix = actual.msix;
  };
  test_support::expect_round_trip<Xhci>(xhci, repair);
}

TEST_F(XhciTest, AMachineGoesOnFromASavedState) {
  set_up();
  wrap(read_10(3, 300), 300 * 512, true);
  normal(stick_slot, bulk_in, data, 65536, trb_chain);
  normal(stick_slot, bulk_in, data + 65536, 65536, trb_chain);
  normal(stick_slot, bulk_in, data + 131072, 300 * 512 - 131072);
  bell(stick_slot, bulk_in);
  disk.complete();
  clock.advance(1000);
  xhci.quiesce();
  const auto saved = test_support::saved(xhci);
  xhci.reset();
  ASSERT_TRUE(xhci.restore(saved));
  clock.advance(1000);
  settle();
  EXPECT_EQ(code(event()), Code::Success);
  EXPECT_EQ(bytes(data, 300 * 512), on_disk(3, 300));
  EXPECT_EQ(status(), (Status{0, 0}));
}

TEST_F(XhciTest, DamagedStatesOfDevices) {
  Stick stick(disk, "");
  test_support::expect_round_trip<Stick>(stick, [](Stick::State& changed) {
    changed.device.configuration = 1;
    changed.phase = Stick::Phase::Answer;
    changed.status = 1;
    changed.taken = 0;
    changed.host_left = 4096;
    changed.buffer.data.resize(4);
  });
  Stick::State state;
  const auto refused = [&] {
    fields::Buffer out;
    fields::save(state, out);
    return !stick.restore(out).has_value();
  };
  state.phase = Stick::Phase::Read;
  state.left = state.host_left = 512;
  EXPECT_FALSE(refused());
  state.offset = disk.size();
  EXPECT_TRUE(refused()) << "beyond the image";
  state.offset = 0;
  state.host_left = 511;
  EXPECT_TRUE(refused()) << "more than the host wants";
  state.host_left = 512;
  state.phase = Stick::Phase::Write;
  state.buffer.data.resize(512);
  EXPECT_TRUE(refused()) << "a piece that should have been written";
  Tablet other;
  test_support::expect_round_trip<Tablet>(other, [](Tablet::State& changed) {
    changed.device.configuration = 1;
    changed.count = 3;
  });
}

TEST(XhciFuzz, RandomInputsDoNoHarm) {
  std::mt19937 random(20261129);
  std::vector<uint8_t> input(2000);
  for (unsigned round = 0; round < 200; ++round) {
    for (uint8_t& byte : input) byte = static_cast<uint8_t>(random());
    EXPECT_EQ(xhci_fuzz_one_input(input.data(), input.size()), 0);
  }
  log::set_level(log::Level::Info);
}

}  // namespace
}  // namespace caisson::usb
