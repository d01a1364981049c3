// Socket device: streams that the host opens.
#include "devices/virtio/vsock.h"

#include <gtest/gtest.h>

#include "devices/virtio/fake_backends.h"
#include "devices/virtio/test_machine.h"

namespace caisson::virtio {
namespace {

constexpr unsigned slot = 1;
constexpr Gpa incoming = 0x50'0000, outgoing = 0x70'0000;
constexpr uint32_t buffer_size = 4096;  // as Linux's driver gives
constexpr uint32_t port = 1024;

struct Packet {
  Vsock::Header header;
  std::string data;
};

class SocketFixture {
 public:
  explicit SocketFixture(RingChoice choice = ring_choices[0])
      : vsock(add_vsock(machine.bridge, machine.services)), indirect(choice.indirect) {
    driver.emplace(machine, slot);
    driver->enable_msix();
    driver->start(choice.features | Vsock::stream, 3);
    EXPECT_EQ(driver->status() & status::needs_reset, 0);
  }
  DriverQueue& rx() { return driver->queues[Vsock::receive_queue]; }
  DriverQueue& tx() { return driver->queues[Vsock::transmit_queue]; }

  void give_buffers(unsigned count, uint32_t size = buffer_size) {
    for (unsigned i = 0; i < count; ++i) {
      const uint16_t id = rx().add({{incoming + buffers * 0x1'1000ull, size, true}}, indirect);
      places[id] = incoming + buffers++ % 16 * 0x1'1000ull;
    }
    driver->kick(Vsock::receive_queue);
  }
  std::optional<Packet> next() {
    const auto used = rx().take_used();
    if (!used) return {};
    Packet packet{rx().get<Vsock::Header>(places[used->id]), {}};
    EXPECT_EQ(used->length, sizeof packet.header + packet.header.length);
    for (uint32_t i = 0; i < packet.header.length; ++i) {
      packet.data += rx().get<char>(places[used->id] + sizeof packet.header + i);
    }
    EXPECT_EQ(packet.header.source_cid, 2u);
    EXPECT_EQ(packet.header.destination_cid, 3u);
    EXPECT_EQ(packet.header.type, Vsock::type_stream);
    return packet;
  }
  // The next packet's operation, 0: there is none.
  unsigned operation() {
    const auto packet = next();
    return packet ? packet->header.operation : 0u;
  }
  void send(uint32_t host_port, uint16_t operation, std::string_view data = {}, uint32_t flags = 0) {
    Vsock::Header header{3, 2,         port,  host_port, static_cast<uint32_t>(data.size()),
                         1, operation, flags, credit,    forwarded};
    tx().put(outgoing, header);
    tx().put_bytes(outgoing + sizeof header, {reinterpret_cast<const uint8_t*>(data.data()), data.size()});
    tx().add({{outgoing, sizeof header},
              {outgoing + sizeof header, static_cast<uint32_t>(std::max<size_t>(data.size(), 1))}},
             indirect);
    driver->kick(Vsock::transmit_queue);
    EXPECT_TRUE(tx().take_used());
  }
  std::shared_ptr<FakePeer> connect() {
    auto peer = std::make_shared<FakePeer>();
    const std::lock_guard hold(machine.bus.lock());
    EXPECT_TRUE(vsock.connect(port, std::make_unique<FakeStream>(peer)));
    return peer;
  }
  // With the guest's answer; the host's port.
  uint32_t open(std::shared_ptr<FakePeer>& peer) {
    peer = connect();
    const auto request = next();
    EXPECT_TRUE(request && request->header.operation == Vsock::Request);
    if (!request) return 0;
    EXPECT_EQ(request->header.destination_port, port);
    EXPECT_EQ(request->header.buffer_size, Vsock::buffer);
    send(request->header.source_port, Vsock::Response);
    return request->header.source_port;
  }

  TestMachine machine;
  Vsock& vsock;
  std::optional<TestDriver> driver;
  const bool indirect;
  uint32_t credit = 65536, forwarded = 0;
  unsigned buffers = 0;
  std::array<Gpa, 256> places{};
};

class VsockEachRing : public EachRing {};

TEST_P(VsockEachRing, CarriesBytesBothWays) {
  SocketFixture f(GetParam());
  f.give_buffers(8);
  std::shared_ptr<FakePeer> peer;
  const uint32_t host_port = f.open(peer);
  peer->say("from the host");
  auto packet = f.next();
  ASSERT_TRUE(packet);
  EXPECT_EQ(packet->header.operation, Vsock::ReadWrite);
  EXPECT_EQ(packet->data, "from the host");
  f.send(host_port, Vsock::ReadWrite, "from the guest");
  EXPECT_EQ(peer->from_guest, "from the guest");
  peer->say("more");
  packet = f.next();
  ASSERT_TRUE(packet);
  EXPECT_EQ(packet->header.forwarded, 14u);
}
INSTANTIATE_TEST_SUITE_P(Rings, VsockEachRing, testing::ValuesIn(ring_choices));

TEST(Vsock, TellsTheGuestItsAddress) {
  SocketFixture f;
  EXPECT_EQ(f.driver->device_config(0, 8), 3u);
}

TEST(Vsock, SplitsWhatIsLongerThanABuffer) {
  SocketFixture f;
  f.give_buffers(6);
  std::shared_ptr<FakePeer> peer;
  f.open(peer);
  std::string text;
  for (unsigned i = 0; i < 10'000; ++i) text += static_cast<char>('a' + i % 26);
  peer->say(text);
  std::string got;
  while (const auto packet = f.next()) got += packet->data;
  EXPECT_EQ(got, text);
}

TEST(Vsock, WaitsForBuffers) {
  SocketFixture f;
  const auto peer = f.connect();
  EXPECT_EQ(f.operation(), 0u);
  f.give_buffers(1);
  const auto request = f.next();
  ASSERT_TRUE(request);
  f.send(request->header.source_port, Vsock::Response);
  peer->say("late");
  EXPECT_EQ(f.operation(), 0u);
  f.give_buffers(1);
  const auto packet = f.next();
  ASSERT_TRUE(packet);
  EXPECT_EQ(packet->data, "late");
}

TEST(Vsock, SendsNoMoreThanTheGuestHasRoomFor) {
  SocketFixture f;
  f.credit = 10;
  f.give_buffers(4);
  std::shared_ptr<FakePeer> peer;
  const uint32_t host_port = f.open(peer);
  peer->say("0123456789abcdef");
  auto packet = f.next();
  ASSERT_TRUE(packet);
  EXPECT_EQ(packet->data, "0123456789");
  EXPECT_EQ(f.operation(), Vsock::CreditRequest);
  EXPECT_EQ(f.operation(), 0u);
  f.forwarded = 4;
  f.send(host_port, Vsock::CreditUpdate);
  packet = f.next();
  ASSERT_TRUE(packet);
  EXPECT_EQ(packet->data, "abcd");
}

TEST(Vsock, KeepsWhatTheHostDoesNotTakeAndNoMoreThanItSaid) {
  SocketFixture f;
  f.give_buffers(8);
  std::shared_ptr<FakePeer> peer;
  const uint32_t host_port = f.open(peer);
  peer->room = 5;
  const std::string piece(60'000, 'x');
  for (unsigned i = 0; i < 4; ++i) f.send(host_port, Vsock::ReadWrite, piece);
  EXPECT_EQ(peer->from_guest.size(), 5u);
  EXPECT_EQ(f.operation(), 0u);
  peer->room = SIZE_MAX;
  peer->poll();
  EXPECT_EQ(peer->from_guest, std::string(240'000, 'x'));
  auto packet = f.next();
  ASSERT_TRUE(packet);
  EXPECT_EQ(packet->header.operation, Vsock::CreditUpdate);
  EXPECT_EQ(packet->header.forwarded, 240'000u);
  // More than the credit: the connection's end.
  peer->room = 0;
  for (unsigned i = 0; i < 5; ++i) f.send(host_port, Vsock::ReadWrite, piece);
  EXPECT_EQ(f.operation(), Vsock::Reset);
  EXPECT_TRUE(peer->destroyed);
}

TEST(Vsock, EndsEachDirectionByItself) {
  SocketFixture f;
  f.give_buffers(8);
  std::shared_ptr<FakePeer> peer;
  const uint32_t host_port = f.open(peer);
  peer->ended = true;
  peer->say("last words");
  auto packet = f.next();
  ASSERT_TRUE(packet);
  EXPECT_EQ(packet->data, "last words");
  packet = f.next();
  ASSERT_TRUE(packet);
  EXPECT_EQ(packet->header.operation, Vsock::Shutdown);
  EXPECT_EQ(packet->header.flags, Vsock::shutdown_send);
  f.send(host_port, Vsock::ReadWrite, "answer");
  EXPECT_EQ(peer->from_guest, "answer");
  EXPECT_FALSE(peer->output_ended);
  f.send(host_port, Vsock::Shutdown, {}, Vsock::shutdown_receive | Vsock::shutdown_send);
  EXPECT_EQ(f.operation(), Vsock::Reset);
  EXPECT_TRUE(peer->destroyed);
  EXPECT_EQ(f.vsock.connections(), 0u);
}

TEST(Vsock, DeliversWhatTheGuestSentBeforeItLeft) {
  SocketFixture f;
  f.give_buffers(8);
  std::shared_ptr<FakePeer> peer;
  const uint32_t host_port = f.open(peer);
  peer->room = 2;
  f.send(host_port, Vsock::ReadWrite, "the end");
  f.send(host_port, Vsock::Reset);
  EXPECT_FALSE(peer->destroyed);
  peer->room = SIZE_MAX;
  peer->poll();
  EXPECT_EQ(peer->from_guest, "the end");
  EXPECT_TRUE(peer->destroyed);
  EXPECT_EQ(f.operation(), 0u);
}

TEST(Vsock, NobodyListens) {
  SocketFixture f;
  f.give_buffers(8);
  const auto peer = f.connect();
  const auto request = f.next();
  ASSERT_TRUE(request);
  f.send(request->header.source_port, Vsock::Reset);
  EXPECT_TRUE(peer->destroyed);
  EXPECT_EQ(peer->from_guest, "");
}

TEST(Vsock, RefusesWhatTheGuestOpensAndWhatIsUnknown) {
  SocketFixture f;
  f.give_buffers(8);
  for (const uint16_t operation : {Vsock::Request, Vsock::ReadWrite, Vsock::Response}) {
    f.send(77, operation);
    const auto packet = f.next();
    ASSERT_TRUE(packet);
    EXPECT_EQ(packet->header.operation, Vsock::Reset);
    EXPECT_EQ(packet->header.source_port, 77u);
    EXPECT_EQ(packet->header.destination_port, port);
  }
  f.send(77, Vsock::Reset);
  EXPECT_EQ(f.operation(), 0u);
}

TEST(Vsock, AGuestWithoutReceiveBuffersIsNotListenedToForEver) {
  SocketFixture f;
  const Vsock::Header header{3, 2, port, 9, 0, 1, Vsock::Request, 0, 0, 0};
  f.tx().put(outgoing, header);
  unsigned answered = 0;
  for (unsigned i = 0; i < 200; ++i) {
    if (i - answered < 12) f.tx().add({{outgoing, sizeof header}});
    f.driver->kick(Vsock::transmit_queue);
    while (f.tx().take_used()) ++answered;
  }
  EXPECT_EQ(answered, Vsock::max_resets);
  f.give_buffers(12);
  f.machine.run_posted();
  while (f.tx().take_used()) ++answered;
  EXPECT_GT(answered, Vsock::max_resets);
}

TEST(Vsock, ADriversResetEndsAll) {
  SocketFixture f;
  f.give_buffers(8);
  std::shared_ptr<FakePeer> peer;
  f.open(peer);
  f.driver->set_status(0);
  EXPECT_TRUE(peer->destroyed);
  const std::lock_guard hold(f.machine.bus.lock());
  EXPECT_FALSE(f.vsock.connect(port, std::make_unique<FakeStream>(std::make_shared<FakePeer>())));
}

TEST(Vsock, ToldAfterARestoreThatConnectionsAreGone) {
  SocketFixture f;
  f.give_buffers(8);
  std::shared_ptr<FakePeer> peer;
  f.open(peer);
  fields::Buffer saved;
  {
    const std::lock_guard hold(f.machine.bus.lock());
    VirtioPci& device = f.machine.device(slot);
    device.quiesce();
    device.save(saved);
    ASSERT_TRUE(device.restore(saved));
  }
  EXPECT_TRUE(peer->destroyed);
  auto& events = f.driver->queues[Vsock::event_queue];
  events.put<uint32_t>(incoming, 0xffff'ffff);
  events.add({{incoming, 4, true}});
  f.driver->kick(Vsock::event_queue);
  ASSERT_TRUE(events.take_used());
  EXPECT_EQ(events.get<uint32_t>(incoming), Vsock::event_transport_reset);
}

}  // namespace
}  // namespace caisson::virtio
