// Virtio network device.
//   Spec     VIRTIO 1.2, 5.1
//   Models   one receive and one transmit queue, MAC address, mergeable receive buffers, link status, MTU
//   Omits    checksum and segmentation offload, control queue, several queue pairs
//   Threads  under the device lock
#pragma once

#include <array>
#include <vector>

#include "backend/net_backend.h"
#include "devices/virtio/model.h"

namespace caisson::virtio {

class Net final : public Model {
 public:
  using Mac = std::array<uint8_t, 6>;
  struct Options {
    Mac mac{0x52, 0x54, 0x00, 0x12, 0x34, 0x56};
    uint16_t mtu = 0;  // told to the guest unless 0
  };
  struct State {
    Mac mac{};
    bool link_up = true;
    static constexpr auto fields() {
      return fields::table<State>(fields::row<1>("mac", &State::mac), fields::row<2>("link_up", &State::link_up));
    }
  };

  // Feature bits, 5.1.3.
  static constexpr uint64_t mtu = 1ull << 3;
  static constexpr uint64_t mac = 1ull << 5;
  static constexpr uint64_t mrg_rxbuf = 1ull << 15;
  static constexpr uint64_t status = 1ull << 16;

  enum QueueIndex : uint8_t { receive_queue, transmit_queue };

  Net(NetBackend& backend, const Options& options);
  ~Net() override;

  void set_link(bool up);  // plugs or unplugs the cable

  [[nodiscard]] std::string_view kind() const override { return "virtio-net"; }
  [[nodiscard]] DeviceType type() const override { return DeviceType::Network; }
  [[nodiscard]] uint32_t pci_class() const override { return 0x020000; }
  [[nodiscard]] uint64_t features() const override;
  [[nodiscard]] unsigned queue_count() const override { return 2; }
  [[nodiscard]] std::span<const uint8_t> config() const override { return config_; }
  void start() override;
  void stop() override;
  void kick(unsigned queue) override;
  void save(fields::Buffer& out) const override { fields::save(state_, out); }
  [[nodiscard]] Result<> restore(std::span<const uint8_t> in) override;

 private:
  bool receive(std::span<const uint8_t> frame);
  [[nodiscard]] bool collect(Queue& queue, uint64_t length, bool& dropped);
  void put_back(Queue& queue);
  void transmit(const Chain& chain);
  void refresh_config();

  NetBackend& backend_;
  const uint16_t mtu_;
  State state_;
  std::array<uint8_t, 12> config_{};
  bool starved_ = false;        // a frame waits at the backend for buffers
  std::vector<Chain> buffers_;  // of the frame being received; kept for their capacity
  size_t buffers_used_ = 0;
  std::vector<Used> used_;
  std::vector<uint8_t> packet_;
};

}  // namespace caisson::virtio
