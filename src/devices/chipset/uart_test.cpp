#include "devices/chipset/uart.h"

#include <string>

#include <gtest/gtest.h>

#include "bus/fake_clock.h"
#include "devices/device_test_support.h"

namespace caisson {
namespace {

enum Register : uint64_t { Data, Ier, Iir, Lcr, Mcr, Lsr, Msr, Scr };

class RecordingSink final : public CharSink {
 public:
  size_t write(std::span<const uint8_t> bytes) override {
    const size_t taken = std::min(bytes.size(), room);
    text.append(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(taken));
    room -= taken;
    return taken;
  }
  std::string text;
  size_t room = ~size_t{0};
};

class UartTest : public ::testing::Test {
 protected:
  UartTest() : uart_("com1", line_, clock_, sink_) {}
  uint8_t get(Register r) { return static_cast<uint8_t>(uart_.read(0, r, 1)); }
  void put(Register r, uint8_t value) { uart_.write(0, r, 1, value); }
  size_t type(std::string_view text) {
    return uart_.receive({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
  }
  // 115200 8n1, FIFOs on with trigger level 8, OUT2.
  void open(uint8_t ier) {
    put(Lcr, 0x83);
    put(Data, 1);
    put(Ier, 0);
    put(Lcr, 0x03);
    put(Iir, 0x81);
    put(Mcr, 0x0b);
    put(Ier, ier);
  }

  test_support::RecordingLine line_;
  FakeClock clock_;
  RecordingSink sink_;
  Uart uart_;
};

TEST_F(UartTest, ReadsAsAnIdle16550AAfterPowerOn) {
  EXPECT_EQ(get(Lsr), 0x60);
  EXPECT_EQ(get(Iir), 0x01);
  EXPECT_EQ(get(Msr), 0xb0);
  put(Scr, 0x5a);
  EXPECT_EQ(get(Scr), 0x5a);
  put(Ier, 0xff);
  EXPECT_EQ(get(Ier), 0x0f);
  // How drivers tell a 16550A: both FIFO bits read back after FCR.0.
  put(Iir, 0x01);
  EXPECT_EQ(get(Iir) & 0xc0, 0xc0);
}

TEST_F(UartTest, DivisorLatch) {
  put(Lcr, 0x80);
  put(Data, 0x34);
  put(Ier, 0x12);
  EXPECT_EQ(get(Data), 0x34);
  EXPECT_EQ(get(Ier), 0x12);
  put(Lcr, 0x03);
  EXPECT_EQ(get(Ier), 0);
  EXPECT_EQ(sink_.text, "");
}

TEST_F(UartTest, TransmitInterrupt) {
  open(0x02);
  EXPECT_TRUE(line_.level()) << "enabling it with an empty transmitter raises it";
  EXPECT_EQ(get(Iir), 0xc2);
  EXPECT_FALSE(line_.level()) << "reading IIR answers it";
  EXPECT_EQ(get(Iir), 0xc1);
  // Linux's test for UART_BUG_THRE turns it off and on again.
  put(Ier, 0);
  put(Ier, 0x02);
  EXPECT_EQ(get(Iir), 0xc2);
  for (const char c : std::string_view("hello")) put(Data, static_cast<uint8_t>(c));
  EXPECT_EQ(sink_.text, "hello");
  EXPECT_EQ(get(Lsr), 0x60);
  EXPECT_EQ(get(Iir), 0xc2);
}

TEST_F(UartTest, AFullSinkHoldsTheTransmitterBusy) {
  open(0x02);
  (void)get(Iir);
  sink_.room = 2;
  for (const char c : std::string_view("abcdef")) put(Data, static_cast<uint8_t>(c));
  EXPECT_EQ(sink_.text, "ab");
  EXPECT_EQ(get(Lsr) & 0x60, 0);
  EXPECT_EQ(get(Iir), 0xc1);
  sink_.room = 100;
  uart_.transmit_ready();
  EXPECT_EQ(sink_.text, "abcdef");
  EXPECT_EQ(get(Lsr) & 0x60, 0x60);
  EXPECT_EQ(get(Iir), 0xc2);
}

TEST_F(UartTest, ReceiveTriggerAndTimeout) {
  open(0x01);
  EXPECT_EQ(type("1234567"), 7u);
  EXPECT_FALSE(line_.level());
  clock_.advance(1'000'000);
  EXPECT_TRUE(line_.level());
  EXPECT_EQ(get(Iir), 0xcc);
  EXPECT_EQ(get(Data), '1');
  EXPECT_FALSE(line_.level()) << "a read restarts the wait";
  EXPECT_EQ(type("89"), 2u);
  EXPECT_EQ(get(Iir), 0xc4);
  EXPECT_EQ(get(Data), '2');
  EXPECT_EQ(get(Iir), 0xc1) << "below the trigger level";
  clock_.advance(1'000'000);
  EXPECT_EQ(get(Iir), 0xcc);
  std::string rest;
  while ((get(Lsr) & 1) != 0) rest += static_cast<char>(get(Data));
  EXPECT_EQ(rest, "3456789");
  EXPECT_EQ(get(Iir), 0xc1);
  clock_.advance(1'000'000);
  EXPECT_FALSE(line_.level());
}

TEST_F(UartTest, NoInputIsLost) {
  open(0x01);
  const std::string sent(1000, 'x');
  std::string waiting = sent + "end";
  const auto offer = [&] { waiting.erase(0, type(waiting)); };
  uart_.on_space(offer);
  offer();
  EXPECT_EQ(uart_.receive_space(), 0u);
  std::string got;
  while ((get(Lsr) & 1) != 0) got += static_cast<char>(get(Data));
  EXPECT_EQ(got, sent + "end");
  EXPECT_EQ(get(Lsr) & 0x02, 0) << "no overrun";
}

TEST_F(UartTest, WithoutFifosThereIsOnePlace) {
  put(Mcr, 0x08);
  put(Ier, 0x01);
  EXPECT_EQ(type("ab"), 1u);
  EXPECT_EQ(get(Iir), 0x04);
  EXPECT_EQ(get(Data), 'a');
  EXPECT_FALSE(line_.level());
}

// Linux's autoconfig() looks for the modem lines in loop-back.
TEST_F(UartTest, LoopBack) {
  put(Mcr, 0x1a);
  EXPECT_EQ(get(Msr) & 0xf0, 0x90);
  put(Iir, 0x01);
  put(Ier, 0x04);
  EXPECT_EQ(uart_.receive_space(), 0u);
  for (int i = 0; i < 17; ++i) put(Data, static_cast<uint8_t>('a' + i));
  EXPECT_EQ(sink_.text, "") << "nothing goes out";
  EXPECT_EQ(get(Iir), 0xc6);
  EXPECT_EQ(get(Lsr) & 0x03, 0x03) << "overrun";
  EXPECT_EQ(get(Lsr) & 0x02, 0) << "reading LSR clears it";
  EXPECT_EQ(get(Data), 'a');
}

TEST_F(UartTest, InterruptPriority) {
  open(0x0f);
  put(Mcr, 0x1b);  // loop-back: DSR, CTS, DCD stay
  put(Mcr, 0x18);  // and DSR, CTS fall
  for (int i = 0; i < 17; ++i) put(Data, 'x');
  EXPECT_EQ(get(Iir), 0xc6);
  (void)get(Lsr);
  EXPECT_EQ(get(Iir), 0xc4);
  put(Iir, 0x83);  // clear the receive FIFO
  EXPECT_EQ(get(Iir), 0xc2);
  EXPECT_EQ(get(Iir), 0xc0);
  EXPECT_EQ(get(Msr) & 0x03, 0x03);
  EXPECT_EQ(get(Iir), 0xc1);
}

TEST_F(UartTest, Out2GatesTheLine) {
  open(0x02);
  EXPECT_TRUE(line_.level());
  put(Mcr, 0x03);
  EXPECT_FALSE(line_.level());
}

TEST_F(UartTest, RoundTrip) {
  open(0x05);
  type("abc");
  test_support::expect_round_trip<Uart>(uart_, [](Uart::State& state) { state.line_errors = 2; });
}

TEST_F(UartTest, RestoreRefusesImpossibleFifos) {
  Uart::State state{};
  state.receive.count = 17;
  fields::Buffer bytes;
  fields::save(state, bytes);
  EXPECT_FALSE(uart_.restore(bytes).has_value());
  state.receive.count = 1;
  state.receive.head = 16;
  bytes.clear();
  fields::save(state, bytes);
  EXPECT_FALSE(uart_.restore(bytes).has_value());
}

}  // namespace
}  // namespace caisson
