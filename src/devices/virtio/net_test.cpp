#include "devices/virtio/net.h"

#include <numeric>

#include <gtest/gtest.h>

#include "devices/virtio/fake_backends.h"
#include "devices/virtio/test_machine.h"

namespace caisson::virtio {
namespace {

constexpr unsigned slot = 1;
constexpr Gpa data = 0x50'0000;
constexpr uint64_t every_feature = Net::mac | Net::mrg_rxbuf | Net::status;

std::vector<uint8_t> frame_of(size_t length) {
  std::vector<uint8_t> frame(length);
  std::iota(frame.begin(), frame.end(), uint8_t{1});
  return frame;
}

class NetFixture {
 public:
  explicit NetFixture(RingChoice choice = ring_choices[0], uint64_t features = every_feature)
      : net(add_net(machine.bridge, machine.services, wire, {.mac = {2, 3, 4, 5, 6, 7}, .mtu = 1400})),
        indirect(choice.indirect) {
    driver.emplace(machine, slot);
    driver->enable_msix();
    driver->start(choice.features | features, 2);
    EXPECT_EQ(driver->status() & status::needs_reset, 0);
  }
  DriverQueue& rx() { return driver->queues[Net::receive_queue]; }
  DriverQueue& tx() { return driver->queues[Net::transmit_queue]; }
  void offer(unsigned index, uint32_t length) {
    rx().add(
        {{data + index * 0x1000, length / 2, true}, {data + index * 0x1000 + length / 2, length - length / 2, true}},
        indirect);
  }
  std::vector<uint8_t> at(Gpa address, size_t length) {
    std::vector<uint8_t> bytes(length);
    EXPECT_TRUE(machine.memory->read(address, bytes));
    return bytes;
  }

  FakeNet wire;
  TestMachine machine;
  Net& net;
  std::optional<TestDriver> driver;
  const bool indirect;
};

class NetEachRing : public EachRing {};

TEST_P(NetEachRing, SendsFrames) {
  NetFixture f(GetParam());
  for (unsigned round = 0; round < 40; ++round) {
    const auto frame = frame_of(60 + round);
    f.tx().put_bytes(data, std::vector<uint8_t>(12));
    f.tx().put_bytes(data + 12, frame);
    f.tx().add({{data, 12}, {data + 12, 30}, {data + 42, 30 + round}}, GetParam().indirect);
    f.driver->kick(Net::transmit_queue);
    ASSERT_EQ(f.wire.sent.size(), round + 1);
    EXPECT_EQ(f.wire.sent.back(), frame);
    const auto used = f.tx().take_used();
    ASSERT_TRUE(used);
    EXPECT_EQ(used->length, 0u);
  }
}

TEST_P(NetEachRing, ReceivesIntoOneBuffer) {
  NetFixture f(GetParam());
  for (unsigned round = 0; round < 40; ++round) {
    f.offer(0, 2000);
    f.driver->kick(Net::receive_queue);
    const auto frame = frame_of(1000 + round);
    EXPECT_TRUE(f.wire.receiver(frame));
    const auto used = f.rx().take_used();
    ASSERT_TRUE(used);
    EXPECT_EQ(used->length, frame.size() + 12);
    EXPECT_EQ(f.at(data, 12), (std::vector<uint8_t>{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0}));
    EXPECT_EQ(f.at(data + 12, frame.size()), frame);
  }
  EXPECT_GE(f.machine.msi.messages.size(), 40u);
  EXPECT_EQ(f.machine.msi.messages.front().data, 0x41u);
}

TEST_P(NetEachRing, ReceivesIntoMergedBuffersOrWaitsForThem) {
  NetFixture f(GetParam());
  const auto frame = frame_of(700);
  f.offer(0, 300);
  f.offer(1, 300);
  EXPECT_FALSE(f.wire.receiver(frame));
  EXPECT_FALSE(f.rx().take_used());
  f.offer(2, 300);
  EXPECT_EQ(f.wire.ready, 0u);
  f.driver->kick(Net::receive_queue);
  EXPECT_EQ(f.wire.ready, 1u);
  EXPECT_TRUE(f.wire.receiver(frame));
  std::vector<uint8_t> got;
  for (unsigned i = 0; i < 3; ++i) {
    const auto used = f.rx().take_used();
    ASSERT_TRUE(used);
    EXPECT_EQ(used->length, i < 2 ? 300u : 112u);
    const auto part = f.at(data + i * 0x1000, used->length);
    got.insert(got.end(), part.begin() + (i == 0 ? 12 : 0), part.end());
  }
  EXPECT_EQ(got, frame);
  EXPECT_EQ(f.at(data + 10, 2), (std::vector<uint8_t>{3, 0}));
}

INSTANTIATE_TEST_SUITE_P(, NetEachRing, testing::ValuesIn(ring_choices), ring_name);

TEST(Net, WithoutMergingAFrameThatDoesNotFitIsLost) {
  NetFixture f(ring_choices[0], Net::mac);
  EXPECT_FALSE(f.wire.receiver(frame_of(100)));  // no buffer: waits
  f.offer(0, 300);
  f.offer(1, 300);
  EXPECT_TRUE(f.wire.receiver(frame_of(400)));
  EXPECT_FALSE(f.rx().take_used());
  EXPECT_TRUE(f.wire.receiver(frame_of(288)));
  EXPECT_EQ(f.rx().take_used()->length, 300u);
}

TEST(Net, ConfigurationSaysMacLinkAndMtu) {
  NetFixture f;
  EXPECT_EQ(f.driver->device_config(0, 8), 0x0001'0706'0504'0302u);
  EXPECT_EQ(f.driver->device_config(10, 2), 1400u);
  EXPECT_EQ(f.driver->offered() & Net::mtu, Net::mtu);
}

TEST(Net, AnUnpluggedCableCarriesNothing) {
  NetFixture f;
  f.offer(0, 2000);
  f.net.set_link(false);
  EXPECT_EQ(f.driver->device_config(6, 2), 0u);
  ASSERT_EQ(f.machine.msi.messages.size(), 1u);
  EXPECT_EQ(f.machine.msi.messages[0].data, 0x40u);
  EXPECT_TRUE(f.wire.receiver(frame_of(100)));
  EXPECT_FALSE(f.rx().take_used());
  f.tx().add({{data, 100}});
  f.driver->kick(Net::transmit_queue);
  EXPECT_TRUE(f.tx().take_used());
  EXPECT_TRUE(f.wire.sent.empty());
  f.net.set_link(true);
  EXPECT_TRUE(f.wire.receiver(frame_of(100)));
  EXPECT_TRUE(f.rx().take_used());
}

TEST(Net, ShortAndHugeFramesAreDropped) {
  NetFixture f;
  f.tx().add({{data, 12}});
  f.tx().add({{data, 25}});
  f.tx().add({{0, 1 << 20}});
  f.tx().add({{data, 100, true}});
  f.driver->kick(Net::transmit_queue);
  for (unsigned i = 0; i < 4; ++i) EXPECT_TRUE(f.tx().take_used());
  EXPECT_TRUE(f.wire.sent.empty());
  f.tx().add({{data, 26}});
  f.driver->kick(Net::transmit_queue);
  EXPECT_EQ(f.wire.sent.size(), 1u);
  EXPECT_TRUE(f.wire.receiver(frame_of(NetBackend::max_frame + 1)));
  EXPECT_TRUE(f.wire.receiver({}));
}

TEST(Net, AReceiveBufferWithoutRoomBreaksTheDevice) {
  NetFixture f;
  f.rx().add({{data, 100}});  // nothing writable
  EXPECT_TRUE(f.wire.receiver(frame_of(100)));
  EXPECT_EQ(f.driver->status() & status::needs_reset, status::needs_reset);
  EXPECT_TRUE(f.wire.receiver(frame_of(100)));
}

TEST(Net, ResetEndsReception) {
  NetFixture f;
  EXPECT_TRUE(f.wire.receiver);
  f.driver->set_status(0);
  EXPECT_FALSE(f.wire.receiver);
}

TEST(Net, ADriverThatNeverStopsFeedingDoesNotHoldTheLockForEver) {
  NetFixture f;
  f.wire.on_send = [&] { f.tx().put_available(0); };  // another CPU offers the same chain again
  f.tx().add({{data, 100}});
  f.driver->kick(Net::transmit_queue);
  const size_t sent = f.wire.sent.size();
  EXPECT_LE(sent, 256u);
  ASSERT_EQ(f.machine.posted.size(), 1u);  // it goes on from the event loop
  f.wire.on_send = {};
  f.machine.run_posted();
  EXPECT_EQ(f.wire.sent.size(), sent + 1);
  EXPECT_EQ(f.driver->status() & status::needs_reset, 0);
}

}  // namespace
}  // namespace caisson::virtio
