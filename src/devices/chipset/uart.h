// 16550A serial port.
//   Spec     National PC16550D data sheet, June 1995; names and order follow its section 8
//   Models   registers, interrupts and their priority, loop-back, both 16-byte FIFOs, character time-out, OUT2 as the
//   gate
//            of the interrupt line (as PCs wire it)
//   Omits    baud timing (a character is sent at once), breaks, parity and framing errors, DMA signals
//   Threads  none of its own; everything is called under the device lock
//   Regions  0: 8 ports
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "bus/clock.h"
#include "bus/device.h"
#include "bus/interrupt.h"

namespace caisson {

// Where a serial port's output goes. Device lock held; must not block.
class CharSink {
 public:
  virtual ~CharSink() = default;
  // How many bytes it took. The rest stays in the transmit FIFO, which then looks busy to the guest, until
  // Uart::transmit_ready(). A sink that buffers takes everything.
  virtual size_t write(std::span<const uint8_t> bytes) = 0;
};

class Uart final : public Device {
 public:
  static constexpr size_t fifo_size = 16;

  struct Fifo {
    std::array<uint8_t, fifo_size> bytes{};
    uint8_t head = 0;
    uint8_t count = 0;
    static constexpr auto fields() {
      using fields::row;
      return fields::table<Fifo>(row<1>("bytes", &Fifo::bytes), row<2>("head", &Fifo::head),
                                 row<3>("count", &Fifo::count));
    }
    void push(uint8_t byte) {
      bytes[(head + count) % fifo_size] = byte;
      ++count;
    }
    uint8_t pop() {
      const uint8_t byte = bytes[head];
      head = (head + 1) % fifo_size;
      --count;
      return byte;
    }
    void clear() { *this = Fifo{}; }
  };

  struct State {
    Fifo receive{};
    Fifo transmit{};
    uint8_t last_received = 0;
    uint8_t ier = 0;
    uint8_t fcr = 0;
    uint8_t lcr = 0;
    uint8_t mcr = 0;
    uint8_t line_errors = 0;  // LSR 4:1
    uint8_t modem_delta = 0;  // MSR 3:0
    uint8_t scr = 0;
    uint16_t divisor = 0;
    bool thre_pending = false;  // the transmitter-empty interrupt has not been seen yet
    bool timed_out = false;     // characters have waited below the trigger level
    uint64_t timeout_ns = 0;    // when they will have; 0: not running

    static constexpr auto fields() {
      using fields::row;
      return fields::table<State>(row<1>("receive", &State::receive), row<2>("transmit", &State::transmit),
                                  row<3>("last_received", &State::last_received), row<4>("ier", &State::ier),
                                  row<5>("fcr", &State::fcr), row<6>("lcr", &State::lcr), row<7>("mcr", &State::mcr),
                                  row<8>("line_errors", &State::line_errors),
                                  row<9>("modem_delta", &State::modem_delta), row<10>("scr", &State::scr),
                                  row<11>("divisor", &State::divisor), row<12>("thre_pending", &State::thre_pending),
                                  row<13>("timed_out", &State::timed_out), row<14>("timeout_ns", &State::timeout_ns));
    }
  };

  Uart(std::string name, InterruptLine& line, Clock& clock, CharSink& sink);

  [[nodiscard]] std::string_view name() const override { return name_; }
  uint64_t read(unsigned region, uint64_t offset, unsigned size) override;
  void write(unsigned region, uint64_t offset, unsigned size, uint64_t value) override;
  void reset() override;
  void save(fields::Buffer& out) const override { fields::save(state_, out); }
  [[nodiscard]] Result<> restore(std::span<const uint8_t> in) override;

  // Input from the host. receive() takes at most receive_space() bytes and says how many; keep the others and offer
  // them again when the space callback comes: no byte is lost then.
  [[nodiscard]] size_t receive_space() const;
  size_t receive(std::span<const uint8_t> bytes);
  // Called with the device lock held whenever space appears where there was none; may call receive().
  void on_space(std::function<void()> callback) { space_callback_ = std::move(callback); }

  // The sink takes bytes again.
  void transmit_ready();

 private:
  [[nodiscard]] bool fifo_enabled() const;
  [[nodiscard]] bool looped() const;
  [[nodiscard]] uint8_t interrupt_id() const;
  [[nodiscard]] uint8_t line_status() const;
  [[nodiscard]] uint8_t modem_lines() const;
  [[nodiscard]] uint8_t trigger_level() const;
  [[nodiscard]] uint8_t read_data();
  void write_data(uint8_t value);
  void write_fcr(uint8_t value);
  void write_mcr(uint8_t value);
  void put_received(uint8_t byte);
  void drain();
  void start_timeout();
  void timeout_expired();
  void tell_space(size_t before);
  void update();

  const std::string name_;
  InterruptLine& line_;
  Clock& clock_;
  CharSink& sink_;
  std::function<void()> space_callback_;
  State state_;
  std::unique_ptr<Clock::Timer> timer_;
};

}  // namespace caisson
