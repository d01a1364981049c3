#include "devices/virtio/net.h"

#include <algorithm>
#include <utility>

namespace caisson::virtio {
namespace {

// struct virtio_net_hdr with num_buffers, 5.1.6; all zero but that, as no offload is offered.
constexpr size_t header_size = 12;
constexpr size_t header_num_buffers = 10;
constexpr size_t ethernet_header = 14;

constexpr uint8_t status_link_up = 1;

}  // namespace

Net::Net(NetBackend& backend, const Options& options) : backend_(backend), mtu_(options.mtu) {
  state_.mac = options.mac;
  refresh_config();
}

Net::~Net() { backend_.set_receiver({}); }

// struct virtio_net_config, 5.1.4: mac, status, max_virtqueue_pairs, mtu.
void Net::refresh_config() {
  std::ranges::copy(state_.mac, config_.begin());
  config_[6] = state_.link_up ? status_link_up : 0;
  config_[8] = 1;
  config_[10] = static_cast<uint8_t>(mtu_);
  config_[11] = static_cast<uint8_t>(mtu_ >> 8);
}

void Net::set_link(bool up) {
  if (up == state_.link_up) return;
  state_.link_up = up;
  refresh_config();
  transport_->config_changed();
}

uint64_t Net::features() const { return mac | mrg_rxbuf | status | (mtu_ != 0 ? mtu : 0); }

void Net::start() {
  backend_.set_receiver([this](std::span<const uint8_t> frame) { return receive(frame); });
}

void Net::stop() {
  backend_.set_receiver({});
  starved_ = false;
}

Result<> Net::restore(std::span<const uint8_t> in) {
  State state = state_;
  if (auto done = fields::restore(state, in); !done) return done;
  state_ = state;
  refresh_config();
  return {};
}

void Net::kick(unsigned index) {
  if (index == transmit_queue) {
    serve(*transport_, index, [&](Queue& queue, const Chain& chain) {
      transmit(chain);
      queue.push(chain.ticket, 0);
      return true;
    });
    return;
  }
  if (Queue* queue = transport_->queue(index)) queue->suppress_kicks();  // until a frame finds no buffer
  if (std::exchange(starved_, false)) backend_.receive_ready();
}

void Net::transmit(const Chain& chain) {
  if (chain.readable_length < header_size + ethernet_header || !state_.link_up) return;
  const uint64_t length = chain.readable_length - header_size;
  if (length > NetBackend::max_frame) return;
  packet_.resize(length);
  gather(transport_->memory(), chain.readable, header_size, packet_);
  backend_.send(packet_);
}

// --- Receiving ---

void Net::put_back(Queue& queue) {
  while (buffers_used_ > 0) queue.unpop(buffers_[--buffers_used_]);
}

// Takes buffers for `length` bytes. False: none are left and the frame waits, or `dropped`.
bool Net::collect(Queue& queue, uint64_t length, bool& dropped) {
  const bool mergeable = (transport_->features() & mrg_rxbuf) != 0;
  uint64_t room = 0;
  unsigned retries = 4;
  buffers_used_ = 0;
  while (room < length) {
    if (buffers_.size() == buffers_used_) buffers_.emplace_back();
    Chain& chain = buffers_[buffers_used_];
    switch (queue.pop(chain)) {
      case Queue::Popped::Chain: break;
      case Queue::Popped::Broken:
        transport_->fail(queue.fault());
        dropped = true;
        return false;
      case Queue::Popped::Empty:
        // Asked before the buffers are put back: a kick is wanted for more than these.
        if (retries-- > 0 && queue.allow_kicks()) continue;
        put_back(queue);
        return false;
    }
    ++buffers_used_;
    if (chain.writable_length < header_size) {
      transport_->fail("a receive buffer without room for a header");
      dropped = true;
      return false;
    }
    room += chain.writable_length;
    if (!mergeable && room < length) {
      // 5.1.6.4.1: a frame that does not fit is lost, the buffer is not.
      put_back(queue);
      dropped = true;
      return false;
    }
  }
  return true;
}

bool Net::receive(std::span<const uint8_t> frame) {
  Queue* queue = transport_->queue(receive_queue);
  if (queue == nullptr || !state_.link_up || frame.empty() || frame.size() > NetBackend::max_frame) return true;
  bool dropped = false;
  if (!collect(*queue, header_size + frame.size(), dropped)) {
    starved_ = !dropped;
    return dropped;
  }
  packet_.assign(header_size, 0);
  packet_[header_num_buffers] = static_cast<uint8_t>(buffers_used_);
  packet_[header_num_buffers + 1] = static_cast<uint8_t>(buffers_used_ >> 8);
  packet_.insert(packet_.end(), frame.begin(), frame.end());
  std::span<const uint8_t> rest = packet_;
  used_.clear();
  for (size_t i = 0; i < buffers_used_; ++i) {
    const size_t written = scatter(transport_->memory(), buffers_[i].writable, 0, rest);
    used_.push_back({buffers_[i].ticket, static_cast<uint32_t>(written)});
    rest = rest.subspan(written);
  }
  queue->push(used_);
  transport_->signal(receive_queue);
  return true;
}

}  // namespace caisson::virtio
