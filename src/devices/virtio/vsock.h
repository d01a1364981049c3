// Virtio socket device: byte streams between host and guest, opened by the host.
//   Spec     VIRTIO 1.2, 5.10
//   Models   stream sockets with credits, both half closes, the transport's reset after a restore
//   Omits    datagrams and sequenced packets; connections that the guest opens are refused: nothing listens on the host
//   Bounds   max_connections streams; of each `buffer` bytes that the guest has sent and the host not taken; a guest
//            that gives no receive buffers is not listened to once max_resets answers wait for it
//   Threads  under the device lock
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <utility>
#include <vector>

#include "backend/host_stream.h"
#include "devices/virtio/model.h"

namespace caisson::virtio {

class Vsock final : public Model {
 public:
  static constexpr uint64_t guest_cid = 3;  // the first that is nobody's; each machine is alone with its host
  static constexpr uint64_t host_cid = 2;
  static constexpr size_t max_connections = 128;
  static constexpr size_t max_resets = 64;
  static constexpr uint32_t buffer = 256 * 1024;  // our buf_alloc

  // Feature bits, 5.10.3.
  static constexpr uint64_t stream = 1ull << 0;

  enum QueueIndex : uint8_t { receive_queue, transmit_queue, event_queue };

  // struct virtio_vsock_hdr, 5.10.6.
  struct [[gnu::packed]] Header {
    uint64_t source_cid, destination_cid;
    uint32_t source_port, destination_port;
    uint32_t length;
    uint16_t type, operation;
    uint32_t flags;
    uint32_t buffer_size, forwarded;  // buf_alloc, fwd_cnt
  };
  static constexpr uint16_t type_stream = 1;
  enum Operation : uint16_t { Request = 1, Response, Reset, Shutdown, ReadWrite, CreditUpdate, CreditRequest };
  static constexpr uint32_t shutdown_receive = 1, shutdown_send = 2;
  static constexpr uint32_t event_transport_reset = 0;  // 5.10.6.7

  Vsock();
  ~Vsock() override;

  // Opens a stream to a port that somebody in the guest listens on; the other end of `host` reads the end at once
  // where nobody does. An error where the guest has no driver for this device running.
  [[nodiscard]] Result<> connect(uint32_t guest_port, std::unique_ptr<HostStream> host);
  [[nodiscard]] size_t connections() const { return connections_.size(); }

  [[nodiscard]] std::string_view kind() const override { return "virtio-vsock"; }
  [[nodiscard]] DeviceType type() const override { return DeviceType::Socket; }
  [[nodiscard]] uint32_t pci_class() const override { return 0x078000; }
  [[nodiscard]] uint64_t features() const override { return stream; }
  [[nodiscard]] unsigned queue_count() const override { return 3; }
  [[nodiscard]] std::span<const uint8_t> config() const override { return config_; }
  using Model::connect;
  void stop() override;
  void kick(unsigned queue) override;
  [[nodiscard]] Result<> restore(std::span<const uint8_t> in) override;

 private:
  enum class Phase : uint8_t {
    Requested,  // the guest has not answered
    Open,
    Draining,  // the guest is done with it; what it has sent goes to the host yet
  };
  struct Connection {
    uint32_t host_port = 0, guest_port = 0;
    std::unique_ptr<HostStream> stream;
    Phase phase = Phase::Requested;
    bool owes_request = true;
    bool owes_credit = false;
    bool owes_shutdown = false;
    bool readable = false;     // the stream may have something
    bool host_ended = false;   // no more from the host
    bool guest_ended = false;  // no more from the guest
    bool guest_deaf = false;   // the guest takes no more
    bool output_ended = false;
    bool asked_credit = false;
    uint32_t guest_buffer = 0, guest_forwarded = 0;  // its buf_alloc, fwd_cnt
    uint32_t sent = 0;                               // to the guest, modulo 2^32
    uint32_t received = 0, taken = 0;                // from the guest; by the host
    uint32_t told = 0;                               // of `taken`, to the guest
    std::vector<uint8_t> pending;                    // from the guest, not taken yet: at most `buffer`
    size_t pending_start = 0;

    [[nodiscard]] uint32_t room() const {
      const uint32_t in_flight = sent - guest_forwarded;
      return in_flight >= guest_buffer ? 0 : guest_buffer - in_flight;
    }
  };
  struct Ports {
    uint32_t host_port, guest_port;
  };
  using Connections = std::vector<std::unique_ptr<Connection>>;

  bool handle(const Chain& chain);
  void handle_of(Connection& connection, const Header& header, const Chain& chain);
  void receive_data(Connection& connection, const Header& header, const Chain& chain);
  void flush(Connection& connection);
  // To the guest, as long as it gives buffers.
  void pump();
  bool serve_control(Queue& queue);
  bool serve_data(Queue& queue, Connection& connection);
  // A buffer of at least that length. False: there is none now, or the driver has failed.
  [[nodiscard]] bool take_buffer(Queue& queue, Chain& chain, size_t least);
  void put(Queue& queue, const Chain& chain, Header header, std::span<const uint8_t> data);
  [[nodiscard]] Header header_of(Connection& connection, Operation operation);
  void close(Connection& connection, bool tell);
  [[nodiscard]] Connection* find(uint32_t host_port, uint32_t guest_port);
  void send_event();

  std::array<uint8_t, 8> config_{};
  Connections connections_;
  std::deque<Ports> resets_;  // answers owed
  uint32_t last_port_ = 1u << 30;
  size_t next_ = 0;              // whose turn it is
  bool reset_owed_ = false;      // the guest has to hear that all connections are gone
  bool transmit_waits_ = false;  // a chain of the guest's was left because of max_resets
  bool pumping_ = false;
  std::vector<uint8_t> packet_;
};

}  // namespace caisson::virtio
