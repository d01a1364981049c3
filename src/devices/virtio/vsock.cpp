#include "devices/virtio/vsock.h"

#include <algorithm>
#include <cstring>

namespace caisson::virtio {
namespace {

static_assert(sizeof(Vsock::Header) == 44);
constexpr size_t header_size = sizeof(Vsock::Header);
// One packet's payload: what Linux's driver gives as one buffer, and as much as it sends in one.
constexpr size_t max_payload = 64 * 1024;
// The guest is told of room once it is worth a packet.
constexpr uint32_t credit_step = Vsock::buffer / 4;
// Packets to the guest in one go; the device lock must not be held for ever.
constexpr unsigned pump_most = 512;

}  // namespace

Vsock::Vsock() {
  const uint64_t cid = guest_cid;
  std::memcpy(config_.data(), &cid, sizeof cid);
}

Vsock::~Vsock() = default;

Result<> Vsock::connect(uint32_t guest_port, std::unique_ptr<HostStream> host) {
  if (transport_->queue(receive_queue) == nullptr) {
    return fail("the guest has no driver for its socket device running; it may still be booting");
  }
  if (connections_.size() >= max_connections) {
    return fail("the machine has {} connections to its guest already", connections_.size());
  }
  auto& connection = *connections_.emplace_back(std::make_unique<Connection>());
  do {
    ++last_port_;
  } while (last_port_ < 1024 ||
           std::ranges::any_of(connections_, [&](const auto& one) { return one->host_port == last_port_; }));
  connection.host_port = last_port_;
  connection.guest_port = guest_port;
  connection.stream = std::move(host);
  connection.stream->set_handlers(
      [this, &connection] {
        connection.readable = true;
        // Nothing is said before the guest has answered; but who has left waits for no answer.
        if (connection.phase == Phase::Open) pump();
      },
      [this, &connection] { flush(connection); });
  connection.stream->wait_readable();
  pump();
  return {};
}

void Vsock::stop() {
  connections_.clear();
  resets_.clear();
  reset_owed_ = transmit_waits_ = false;
}

Result<> Vsock::restore(std::span<const uint8_t> in) {
  if (auto done = Model::restore(in); !done) return done;
  stop();
  reset_owed_ = true;
  return {};
}

Vsock::Connection* Vsock::find(uint32_t host_port, uint32_t guest_port) {
  const auto found = std::ranges::find_if(connections_, [&](const auto& one) {
    return one->host_port == host_port && one->guest_port == guest_port && one->phase != Phase::Draining;
  });
  return found == connections_.end() ? nullptr : found->get();
}

void Vsock::kick(unsigned index) {
  switch (index) {
    case receive_queue: pump(); break;
    case transmit_queue:
      transmit_waits_ = false;
      serve(*transport_, index, [&](Queue& queue, const Chain& chain) {
        if (!handle(chain)) return false;
        queue.push(chain.ticket, 0);
        return true;
      });
      pump();
      break;
    default: send_event(); break;
  }
}

// --- From the guest ---

// False: the answer that this may need has no room now.
bool Vsock::handle(const Chain& chain) {
  if (resets_.size() >= max_resets) {
    transmit_waits_ = true;
    return false;
  }
  Header header{};
  if (gather(transport_->memory(), chain.readable, 0, {reinterpret_cast<uint8_t*>(&header), header_size}) <
      header_size) {
    return true;
  }
  // 5.10.6.4.2: what claims to come from elsewhere, or goes elsewhere than to the host, is not delivered.
  if (header.source_cid != guest_cid || header.destination_cid != host_cid) return true;
  Connection* connection = find(header.destination_port, header.source_port);
  if (connection == nullptr || header.type != type_stream) {
    if (header.operation != Reset) resets_.push_back({header.destination_port, header.source_port});
    return true;
  }
  handle_of(*connection, header, chain);
  return true;
}

void Vsock::handle_of(Connection& connection, const Header& header, const Chain& chain) {
  connection.guest_buffer = header.buffer_size;
  connection.guest_forwarded = header.forwarded;
  connection.asked_credit = false;
  switch (header.operation) {
    case Response:
      if (connection.phase != Phase::Requested || connection.owes_request) {
        close(connection, true);
        break;
      }
      connection.phase = Phase::Open;
      break;
    case ReadWrite: receive_data(connection, header, chain); break;
    case Shutdown:
      if ((header.flags & shutdown_receive) != 0) connection.guest_deaf = true;
      if ((header.flags & shutdown_send) != 0) connection.guest_ended = true;
      flush(connection);
      break;
    case Reset:
      connection.guest_ended = connection.guest_deaf = true;
      connection.phase = Phase::Draining;
      flush(connection);
      break;
    case CreditUpdate: break;
    case CreditRequest: connection.owes_credit = true; break;
    default: close(connection, true); break;  // a second Request, or what is no operation
  }
}

void Vsock::receive_data(Connection& connection, const Header& header, const Chain& chain) {
  const uint32_t length = header.length;
  // More than it was given credit for, more than it brought, or before it has answered and after it has ended.
  if (connection.phase != Phase::Open || connection.guest_ended || length > chain.readable_length - header_size ||
      length > buffer - (connection.received - connection.taken)) {
    close(connection, true);
    return;
  }
  const size_t old = connection.pending.size();
  connection.pending.resize(old + length);
  gather(transport_->memory(), chain.readable, header_size, std::span(connection.pending).subspan(old));
  connection.received += length;
  flush(connection);
}

// Gives the host what it takes of what the guest has sent; the connection may be gone afterwards.
void Vsock::flush(Connection& connection) {
  while (connection.pending_start < connection.pending.size()) {
    const auto outcome = connection.stream->write(std::span(connection.pending).subspan(connection.pending_start));
    if (outcome.state == HostStream::State::Later) {
      connection.stream->wait_writable();
      break;
    }
    if (outcome.state == HostStream::State::Ended) {
      close(connection, connection.phase != Phase::Draining);
      if (!pumping_) pump();
      return;
    }
    connection.pending_start += outcome.bytes;
    connection.taken += static_cast<uint32_t>(outcome.bytes);
  }
  if (connection.pending_start == connection.pending.size()) {
    connection.pending.clear();
    connection.pending_start = 0;
    if (connection.phase == Phase::Draining) return close(connection, false);
    if (connection.guest_ended && !connection.output_ended) {
      connection.output_ended = true;
      connection.stream->end_output();
    }
    // 5.10.6.5: both directions have ended, so the ports are free again once the guest reads Reset.
    if (connection.guest_ended && (connection.guest_deaf || connection.host_ended)) {
      close(connection, true);
      if (!pumping_) pump();
      return;
    }
  } else if (connection.pending_start >= buffer / 2) {
    connection.pending.erase(connection.pending.begin(),
                             connection.pending.begin() + static_cast<ptrdiff_t>(connection.pending_start));
    connection.pending_start = 0;
  }
  if (connection.taken - connection.told >= credit_step) {
    connection.owes_credit = true;
    if (!pumping_) pump();
  }
}

void Vsock::close(Connection& connection, bool tell) {
  // At most one for each connection beside the max_resets of handle().
  if (tell && !connection.owes_request) resets_.push_back({connection.host_port, connection.guest_port});
  std::erase_if(connections_, [&](const auto& one) { return one.get() == &connection; });
}

// --- To the guest ---

Vsock::Header Vsock::header_of(Connection& connection, Operation operation) {
  connection.told = connection.taken;
  connection.owes_credit = false;
  Header header{};
  header.source_port = connection.host_port;
  header.destination_port = connection.guest_port;
  header.operation = operation;
  header.buffer_size = buffer;
  header.forwarded = connection.taken;
  return header;
}

bool Vsock::take_buffer(Queue& queue, Chain& chain, size_t least) {
  unsigned retries = 4;
  for (;;) {
    switch (queue.pop(chain)) {
      case Queue::Popped::Chain:
        if (chain.writable_length >= least) return true;
        transport_->fail("a socket receive buffer without room");
        return false;
      case Queue::Popped::Broken: transport_->fail(queue.fault()); return false;
      case Queue::Popped::Empty:
        if (retries-- > 0 && queue.allow_kicks()) continue;
        return false;
    }
  }
}

void Vsock::put(Queue& queue, const Chain& chain, Header header, std::span<const uint8_t> data) {
  header.source_cid = host_cid;
  header.destination_cid = guest_cid;
  header.type = type_stream;
  header.length = static_cast<uint32_t>(data.size());
  scatter(transport_->memory(), chain.writable, 0, {reinterpret_cast<const uint8_t*>(&header), header_size});
  scatter(transport_->memory(), chain.writable, header_size, data);
  queue.push(chain.ticket, static_cast<uint32_t>(header_size + data.size()));
}

// One packet without data, if any is owed. False: none, or no buffer.
bool Vsock::serve_control(Queue& queue) {
  Chain chain;
  if (!resets_.empty()) {
    if (!take_buffer(queue, chain, header_size)) return false;
    Header header{};
    header.source_port = resets_.front().host_port;
    header.destination_port = resets_.front().guest_port;
    header.operation = Reset;
    resets_.pop_front();
    put(queue, chain, header, {});
    return true;
  }
  for (const auto& one : connections_) {
    Connection& connection = *one;
    Operation operation{};
    uint32_t flags = 0;
    if (connection.owes_request) {
      operation = Request;
    } else if (connection.phase != Phase::Open) {
      continue;
    } else if (connection.owes_shutdown) {
      operation = Shutdown;
      flags = shutdown_send;
    } else if (connection.owes_credit) {
      operation = CreditUpdate;
    } else if (connection.readable && connection.room() == 0 && !connection.asked_credit && !connection.host_ended) {
      operation = CreditRequest;
    } else {
      continue;
    }
    if (!take_buffer(queue, chain, header_size)) return false;
    if (operation == Request) connection.owes_request = false;
    if (operation == Shutdown) connection.owes_shutdown = false;
    if (operation == CreditRequest) connection.asked_credit = true;
    Header header = header_of(connection, operation);
    header.flags = flags;
    put(queue, chain, header, {});
    return true;
  }
  return false;
}

// One packet with data. False: there is none, or no buffer.
bool Vsock::serve_data(Queue& queue, Connection& connection) {
  if (connection.phase != Phase::Open || !connection.readable || connection.host_ended) return false;
  if (connection.room() == 0 && !connection.guest_deaf) return false;
  Chain chain;
  if (!take_buffer(queue, chain, header_size + 1)) return false;
  packet_.resize(std::min<uint64_t>(
      {chain.writable_length - header_size, max_payload, connection.guest_deaf ? max_payload : connection.room()}));
  const auto outcome = connection.stream->read(packet_);
  if (outcome.state != HostStream::State::Moved || connection.guest_deaf) queue.unpop(chain);
  switch (outcome.state) {
    case HostStream::State::Moved:
      if (connection.guest_deaf) return true;  // nobody takes it
      connection.sent += static_cast<uint32_t>(outcome.bytes);
      put(queue, chain, header_of(connection, ReadWrite), std::span(packet_).first(outcome.bytes));
      return true;
    case HostStream::State::Later:
      connection.readable = false;
      connection.stream->wait_readable();
      return false;
    case HostStream::State::Ended: break;
  }
  connection.readable = false;
  connection.host_ended = true;
  connection.owes_shutdown = true;
  // Also where the guest has ended already: then that is all.
  flush(connection);
  return true;
}

void Vsock::pump() {
  Queue* queue = transport_->queue(receive_queue);
  if (queue == nullptr || pumping_) return;
  pumping_ = true;
  queue->suppress_kicks();
  unsigned left = pump_most;
  bool idle = false;
  while (!idle && left > 0) {
    idle = true;
    while (left > 0 && serve_control(*queue)) {
      --left;
      idle = false;
    }
    // A round of everybody's, beginning with another each time.
    ++next_;
    for (size_t i = 0; i < connections_.size() && left > 0; ++i) {
      if (transport_->queue(receive_queue) == nullptr) break;
      if (!serve_data(*queue, *connections_[(next_ + i) % connections_.size()])) continue;
      --left;
      idle = false;
    }
    queue = transport_->queue(receive_queue);
    if (queue == nullptr) break;
  }
  pumping_ = false;
  if (queue == nullptr) return;
  transport_->signal(receive_queue);
  if (left == 0) transport_->kick_later(receive_queue);
  if (transmit_waits_ && resets_.size() < max_resets) transport_->kick_later(transmit_queue);
}

// 5.10.6.7: tells a guest that was moved that no connection is there any more.
void Vsock::send_event() {
  Queue* queue = transport_->queue(event_queue);
  if (queue == nullptr) return;
  queue->suppress_kicks();
  if (!reset_owed_) return;
  Chain chain;
  const uint32_t event = event_transport_reset;
  if (!take_buffer(*queue, chain, sizeof event)) return;
  reset_owed_ = false;
  scatter(transport_->memory(), chain.writable, 0, {reinterpret_cast<const uint8_t*>(&event), sizeof event});
  queue->push(chain.ticket, sizeof event);
  transport_->signal(event_queue);
}

}  // namespace caisson::virtio
