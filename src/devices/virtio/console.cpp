#include "devices/virtio/console.h"

#include <algorithm>
#include <utility>

namespace caisson::virtio {
namespace {

constexpr size_t piece = 4096;
constexpr size_t bytes_per_kick =
    256 * 1024;  // a chain may be 4 GiB long; the device lock must not be held for all of it

}  // namespace

Console::Console(CharBackend& backend) : backend_(backend) { refresh_config(); }

Console::~Console() { stop(); }

// struct virtio_console_config, 5.3.4: cols, rows, max_nr_ports, emerg_wr.
void Console::refresh_config() {
  config_[0] = static_cast<uint8_t>(state_.columns);
  config_[1] = static_cast<uint8_t>(state_.columns >> 8);
  config_[2] = static_cast<uint8_t>(state_.rows);
  config_[3] = static_cast<uint8_t>(state_.rows >> 8);
  config_[4] = 1;
}

void Console::set_size(uint16_t columns, uint16_t rows) {
  if (columns == state_.columns && rows == state_.rows) return;
  state_.columns = columns;
  state_.rows = rows;
  refresh_config();
  transport_->config_changed();
}

void Console::start() {
  backend_.set_receiver([this](std::span<const uint8_t> bytes) { return receive(bytes); });
  backend_.set_writable_handler([this] { transmit(); });
}

void Console::stop() {
  backend_.set_receiver({});
  backend_.set_writable_handler({});
  starved_ = false;
  state_.sent = 0;
}

Result<> Console::restore(std::span<const uint8_t> in) {
  State state = state_;
  if (auto done = fields::restore(state, in); !done) return done;
  state_ = state;
  refresh_config();
  return {};
}

void Console::kick(unsigned index) {
  if (index == transmit_queue) {
    transmit();
    return;
  }
  if (Queue* queue = transport_->queue(index)) queue->suppress_kicks();  // until bytes find no buffer
  if (std::exchange(starved_, false)) backend_.receive_ready();
}

void Console::transmit() {
  size_t left = bytes_per_kick;
  serve(*transport_, transmit_queue, [&](Queue& queue, const Chain& chain) {
    std::array<uint8_t, piece> bytes;
    for (;;) {
      const size_t got =
          gather(transport_->memory(), chain.readable, state_.sent, std::span(bytes).first(std::min(piece, left)));
      if (got == 0 && left > 0) break;
      const size_t taken = got == 0 ? 0 : backend_.write(std::span(bytes).first(got));
      state_.sent += static_cast<uint32_t>(std::min(taken, got));
      left -= std::min(taken, got);
      if (left == 0) transport_->kick_later(transmit_queue);
      if (left == 0 || taken < got) return false;  // goes on by that, or when the backend is writable
    }
    state_.sent = 0;
    queue.push(chain.ticket, 0);
    return true;
  });
}

size_t Console::receive(std::span<const uint8_t> bytes) {
  Queue* queue = transport_->queue(receive_queue);
  if (queue == nullptr) {
    starved_ = true;  // until the device may access memory again
    return 0;
  }
  Chain chain;
  size_t taken = 0;
  unsigned retries = 4;
  while (taken < bytes.size()) {
    const Queue::Popped popped = queue->pop(chain);
    if (popped == Queue::Popped::Broken) {
      transport_->fail(queue->fault());
      return bytes.size();
    }
    if (popped == Queue::Popped::Empty) {
      if (retries-- > 0 && queue->allow_kicks()) continue;
      starved_ = true;
      break;
    }
    const size_t written = scatter(transport_->memory(), chain.writable, 0, bytes.subspan(taken));
    queue->push(chain.ticket, static_cast<uint32_t>(written));
    taken += written;
    if (written == 0) {
      transport_->fail("a console receive buffer without room");
      return bytes.size();
    }
  }
  transport_->signal(receive_queue);
  return taken;
}

}  // namespace caisson::virtio
