#include "devices/chipset/uart.h"

#include <algorithm>
#include <utility>

#include "devices/chipset/scale.h"

namespace caisson {
namespace {

// Register offsets; Data and Ier are the divisor latch while LCR.DLAB is set.
enum Register : uint64_t { Data, Ier, IirFcr, Lcr, Mcr, Lsr, Msr, Scr };

constexpr uint8_t ier_received = 0x01;
constexpr uint8_t ier_thre = 0x02;
constexpr uint8_t ier_line_status = 0x04;
constexpr uint8_t ier_modem_status = 0x08;
constexpr uint8_t ier_writable = 0x0f;

constexpr uint8_t iir_none = 0x01;
constexpr uint8_t iir_modem_status = 0x00;
constexpr uint8_t iir_thre = 0x02;
constexpr uint8_t iir_received = 0x04;
constexpr uint8_t iir_line_status = 0x06;
constexpr uint8_t iir_timeout = 0x0c;
constexpr uint8_t iir_fifos = 0xc0;

constexpr uint8_t fcr_enable = 0x01;
constexpr uint8_t fcr_clear_receive = 0x02;
constexpr uint8_t fcr_clear_transmit = 0x04;
constexpr uint8_t fcr_kept = 0xc9;  // enable, DMA mode, trigger level

constexpr uint8_t lcr_dlab = 0x80;

constexpr uint8_t mcr_dtr = 0x01;
constexpr uint8_t mcr_rts = 0x02;
constexpr uint8_t mcr_out1 = 0x04;
constexpr uint8_t mcr_out2 = 0x08;
constexpr uint8_t mcr_loop = 0x10;
constexpr uint8_t mcr_writable = 0x1f;

constexpr uint8_t lsr_data_ready = 0x01;
constexpr uint8_t lsr_overrun = 0x02;
constexpr uint8_t lsr_errors = 0x1e;
constexpr uint8_t lsr_thre = 0x20;
constexpr uint8_t lsr_temt = 0x40;

constexpr uint8_t msr_delta_ri = 0x04;  // RI: trailing edge only
constexpr uint8_t msr_cts = 0x10;
constexpr uint8_t msr_dsr = 0x20;
constexpr uint8_t msr_ri = 0x40;
constexpr uint8_t msr_dcd = 0x80;

constexpr uint64_t input_clock_hz = 1'843'200;
constexpr uint64_t longest_timeout_ns = 10'000'000;

}  // namespace

Uart::Uart(std::string name, InterruptLine& line, Clock& clock, CharSink& sink)
    : name_(std::move(name)),
      line_(line),
      clock_(clock),
      sink_(sink),
      timer_(clock.create_timer([this] { timeout_expired(); })) {}

void Uart::reset() {
  const size_t before = receive_space();
  timer_->cancel();
  state_ = State{};
  update();
  tell_space(before);
}

Result<> Uart::restore(std::span<const uint8_t> in) {
  State state = state_;
  if (auto done = fields::restore(state, in); !done) return done;
  for (const Fifo* fifo : {&state.receive, &state.transmit}) {
    if (fifo->head >= fifo_size || fifo->count > fifo_size) {
      return fail("{}: a saved FIFO has impossible positions; the snapshot is damaged", name_);
    }
  }
  if ((state.ier & ~ier_writable) != 0 || (state.fcr & ~fcr_kept) != 0 || (state.mcr & ~mcr_writable) != 0 ||
      (state.line_errors & ~lsr_errors) != 0 || (state.modem_delta & ~0x0f) != 0) {
    return fail("{}: a saved register has reserved bits set; the snapshot is damaged", name_);
  }
  state_ = state;
  timer_->cancel();
  if (state_.timeout_ns != 0) timer_->arm(state_.timeout_ns);
  update();
  return {};
}

bool Uart::fifo_enabled() const { return (state_.fcr & fcr_enable) != 0; }
bool Uart::looped() const { return (state_.mcr & mcr_loop) != 0; }

uint8_t Uart::trigger_level() const {
  constexpr std::array<uint8_t, 4> levels{1, 4, 8, 14};
  return fifo_enabled() ? levels[state_.fcr >> 6] : 1;
}

uint64_t Uart::read(unsigned, uint64_t offset, unsigned) {
  switch (offset) {
    case Data: return (state_.lcr & lcr_dlab) != 0 ? state_.divisor & 0xffu : read_data();
    case Ier: return (state_.lcr & lcr_dlab) != 0 ? state_.divisor >> 8 : state_.ier;
    case IirFcr: {
      const uint8_t id = interrupt_id();
      if (id == iir_thre) {
        state_.thre_pending = false;
        update();
      }
      return static_cast<uint64_t>(id | (fifo_enabled() ? iir_fifos : 0));
    }
    case Lcr: return state_.lcr;
    case Mcr: return state_.mcr;
    case Lsr: {
      const uint8_t value = line_status();
      state_.line_errors = 0;
      update();
      return value;
    }
    case Msr: {
      const auto value = static_cast<uint8_t>(modem_lines() | state_.modem_delta);
      state_.modem_delta = 0;
      update();
      return value;
    }
    case Scr: return state_.scr;
    default: return 0xff;
  }
}

void Uart::write(unsigned, uint64_t offset, unsigned, uint64_t value) {
  const auto byte = static_cast<uint8_t>(value);
  switch (offset) {
    case Data:
      if ((state_.lcr & lcr_dlab) != 0) {
        state_.divisor = static_cast<uint16_t>((state_.divisor & 0xff00) | byte);
      } else {
        write_data(byte);
      }
      break;
    case Ier:
      if ((state_.lcr & lcr_dlab) != 0) {
        state_.divisor = static_cast<uint16_t>((state_.divisor & 0x00ff) | byte << 8);
      } else {
        // Enabling the interrupt while the transmitter is empty raises it at once.
        const bool enabled = (byte & ier_thre) != 0 && (state_.ier & ier_thre) == 0;
        if (enabled && (line_status() & lsr_thre) != 0) state_.thre_pending = true;
        state_.ier = byte & ier_writable;
      }
      break;
    case IirFcr: write_fcr(byte); break;
    case Lcr: state_.lcr = byte; break;
    case Mcr: write_mcr(byte); break;
    case Scr: state_.scr = byte; break;
    default: break;  // LSR and MSR: factory test only
  }
  update();
}

// 8.5 (table IV): highest priority first.
uint8_t Uart::interrupt_id() const {
  if ((state_.ier & ier_line_status) != 0 && state_.line_errors != 0) return iir_line_status;
  if ((state_.ier & ier_received) != 0) {
    if (state_.receive.count >= trigger_level()) return iir_received;
    if (state_.timed_out) return iir_timeout;
  }
  if ((state_.ier & ier_thre) != 0 && state_.thre_pending) return iir_thre;
  if ((state_.ier & ier_modem_status) != 0 && state_.modem_delta != 0) return iir_modem_status;
  return iir_none;
}

void Uart::update() { line_.set((state_.mcr & mcr_out2) != 0 && interrupt_id() != iir_none); }

uint8_t Uart::line_status() const {
  uint8_t value = state_.line_errors;
  if (state_.receive.count != 0) value |= lsr_data_ready;
  if (state_.transmit.count == 0) value |= lsr_thre | lsr_temt;
  return value;
}

// 8.7 and 8.8: in loop-back the modem inputs are the modem outputs; else the other side is always there.
uint8_t Uart::modem_lines() const {
  if (!looped()) return msr_cts | msr_dsr | msr_dcd;
  uint8_t value = 0;
  if ((state_.mcr & mcr_rts) != 0) value |= msr_cts;
  if ((state_.mcr & mcr_dtr) != 0) value |= msr_dsr;
  if ((state_.mcr & mcr_out1) != 0) value |= msr_ri;
  if ((state_.mcr & mcr_out2) != 0) value |= msr_dcd;
  return value;
}

void Uart::write_mcr(uint8_t value) {
  const size_t space = receive_space();
  const uint8_t before = modem_lines();
  const bool was_looped = looped();
  state_.mcr = value & mcr_writable;
  const uint8_t after = modem_lines();
  state_.modem_delta |= static_cast<uint8_t>((before ^ after) >> 4 & ~msr_delta_ri);
  if ((before & msr_ri) != 0 && (after & msr_ri) == 0) state_.modem_delta |= msr_delta_ri;
  if (was_looped && !looped()) drain();
  tell_space(space);
}

void Uart::write_fcr(uint8_t value) {
  const size_t space = receive_space();
  const bool toggled = ((value ^ state_.fcr) & fcr_enable) != 0;
  // 8.4: changing the enable bit clears both FIFOs; the other bits count only while it is set.
  if (toggled || (value & (fcr_enable | fcr_clear_receive)) == (fcr_enable | fcr_clear_receive)) {
    state_.receive.clear();
    state_.timed_out = false;
    state_.timeout_ns = 0;
    timer_->cancel();
  }
  if (toggled || (value & (fcr_enable | fcr_clear_transmit)) == (fcr_enable | fcr_clear_transmit)) {
    if (state_.transmit.count != 0) state_.thre_pending = true;
    state_.transmit.clear();
  }
  state_.fcr = (value & fcr_enable) != 0 ? value & fcr_kept : 0;
  tell_space(space);
}

uint8_t Uart::read_data() {
  if (state_.receive.count == 0) return state_.last_received;
  const size_t space = receive_space();
  state_.last_received = state_.receive.pop();
  state_.timed_out = false;
  start_timeout();
  update();
  tell_space(space);
  return state_.last_received;
}

void Uart::write_data(uint8_t value) {
  state_.thre_pending = false;
  if (looped()) {
    put_received(value);
    state_.thre_pending = true;
    return;
  }
  // One place without FIFOs. A guest that writes although the transmitter is full overwrites the last character.
  const size_t places = fifo_enabled() ? fifo_size : 1;
  if (state_.transmit.count >= places) {
    state_.transmit.bytes[(state_.transmit.head + state_.transmit.count - 1u) % fifo_size] = value;
  } else {
    state_.transmit.push(value);
  }
  drain();
}

void Uart::drain() {
  if (state_.transmit.count == 0 || looped()) return;
  std::array<uint8_t, fifo_size> bytes{};
  const size_t count = state_.transmit.count;
  for (size_t i = 0; i < count; ++i) bytes[i] = state_.transmit.bytes[(state_.transmit.head + i) % fifo_size];
  const size_t taken = std::min(sink_.write({bytes.data(), count}), count);
  for (size_t i = 0; i < taken; ++i) state_.transmit.pop();
  if (state_.transmit.count == 0) state_.thre_pending = true;
}

void Uart::transmit_ready() {
  drain();
  update();
}

size_t Uart::receive_space() const {
  if (looped()) return 0;  // the input pin is disconnected
  const size_t places = fifo_enabled() ? fifo_size : 1;
  return places - std::min<size_t>(state_.receive.count, places);
}

size_t Uart::receive(std::span<const uint8_t> bytes) {
  const size_t count = std::min(bytes.size(), receive_space());
  for (const uint8_t byte : bytes.first(count)) put_received(byte);
  if (count != 0) update();
  return count;
}

void Uart::put_received(uint8_t byte) {
  const size_t places = fifo_enabled() ? fifo_size : 1;
  if (state_.receive.count >= places) {
    // 8.6.1: without FIFOs the new character replaces the old one, with them it is lost.
    state_.line_errors |= lsr_overrun;
    if (!fifo_enabled()) state_.receive.bytes[state_.receive.head] = byte;
    return;
  }
  state_.receive.push(byte);
  start_timeout();
}

// 8.5 (FIFO interrupt mode operation): four character times after the last access to a FIFO that is not empty.
void Uart::start_timeout() {
  if (!fifo_enabled() || state_.receive.count == 0) {
    state_.timeout_ns = 0;
    return;
  }
  const uint64_t bits = 7 + (state_.lcr & 3u);  // start, 5 to 8 data, stop
  const uint64_t clocks = 4 * bits * 16 * std::max<uint64_t>(state_.divisor, 1);
  const uint64_t wait = chipset::scale_up(clocks, chipset::ns_per_s, input_clock_hz);
  const bool armed = state_.timeout_ns != 0;
  state_.timeout_ns = clock_.now_ns() + std::min(wait, longest_timeout_ns);
  // An armed timer is left alone and armed anew when it fires: one arm for a burst, not one for each character.
  if (!armed) timer_->arm(state_.timeout_ns);
}

void Uart::timeout_expired() {
  if (state_.timeout_ns == 0) return;
  if (clock_.now_ns() < state_.timeout_ns) {
    timer_->arm(state_.timeout_ns);
    return;
  }
  state_.timeout_ns = 0;
  if (state_.receive.count != 0) state_.timed_out = true;
  update();
}

void Uart::tell_space(size_t before) {
  if (before == 0 && receive_space() != 0 && space_callback_) space_callback_();
}

}  // namespace caisson
