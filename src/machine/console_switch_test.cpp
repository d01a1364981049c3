#include "machine/console_switch.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>

namespace caisson::machine {
namespace {

class FakeConsole final : public CharBackend {
 public:
  [[nodiscard]] size_t write(std::span<const uint8_t> bytes) override {
    const size_t taken = std::min(bytes.size(), room);
    output.append(reinterpret_cast<const char*>(bytes.data()), taken);
    return taken;
  }
  void set_writable_handler(std::function<void()> handler) override { writable = std::move(handler); }
  void set_receiver(Receiver to) override { receive = std::move(to); }
  void receive_ready() override { ++asked; }

  std::string output;
  size_t room = 1000;
  std::function<void()> writable;
  Receiver receive;
  int asked = 0;
};

std::span<const uint8_t> bytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

CharBackend::Receiver into(std::string& text) {
  return [&text](std::span<const uint8_t> in) {
    text.append(reinterpret_cast<const char*>(in.data()), in.size());
    return in.size();
  };
}

TEST(ConsoleSwitch, OutputOfBothInputForWhoWroteLast) {
  FakeConsole console;
  ConsoleSwitch both(console);
  std::string serial, virtio;
  both.serial().set_receiver(into(serial));
  both.virtio().set_receiver(into(virtio));
  EXPECT_EQ(console.receive(bytes("a")), 1u);
  EXPECT_EQ(both.virtio().write(bytes("hvc0")), 4u);
  EXPECT_EQ(console.asked, 1);
  EXPECT_EQ(console.receive(bytes("b")), 1u);
  EXPECT_EQ(both.serial().write(bytes("ttyS0")), 5u);
  EXPECT_EQ(console.receive(bytes("c")), 1u);
  EXPECT_EQ(serial, "ac");
  EXPECT_EQ(virtio, "b");
  EXPECT_EQ(console.output, "hvc0ttyS0");
}

TEST(ConsoleSwitch, InputWaitsWhereNobodyReads) {
  FakeConsole console;
  ConsoleSwitch both(console);
  EXPECT_EQ(console.receive(bytes("a")), 0u);
}

TEST(ConsoleSwitch, RoomIsToldToBoth) {
  FakeConsole console;
  console.room = 2;
  ConsoleSwitch both(console);
  int told = 0;
  both.serial().set_writable_handler([&] { ++told; });
  both.virtio().set_writable_handler([&] { ++told; });
  EXPECT_EQ(both.serial().write(bytes("abc")), 2u);
  console.writable();
  EXPECT_EQ(told, 2);
}

}  // namespace
}  // namespace caisson::machine
