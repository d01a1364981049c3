// Virtio block device.
//   Spec     VIRTIO 1.2, 5.2
//   Models   read, write, flush, discard, write zeroes, get id; write cache that can be switched; several queues
//   Omits    secure erase, lifetime, zoned devices, barriers of the legacy interface
//   Threads  under the device lock; requests are in flight at the backend between kicks and completions
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "backend/block_backend.h"
#include "base/log.h"
#include "devices/virtio/model.h"

namespace caisson::virtio {

class Blk final : public Model {
 public:
  struct Options {
    unsigned queues = 0;   // up to most_queues; 0: add_blk() chooses
    std::string serial{};  // at most 20 bytes are used; empty: the backend's id
  };
  struct State {
    bool write_back = true;
    static constexpr auto fields() { return fields::table<State>(fields::row<1>("write_back", &State::write_back)); }
  };

  // Feature bits, 5.2.3.
  static constexpr uint64_t seg_max = 1ull << 2;
  static constexpr uint64_t read_only = 1ull << 5;
  static constexpr uint64_t blk_size = 1ull << 6;
  static constexpr uint64_t flush = 1ull << 9;
  static constexpr uint64_t topology = 1ull << 10;
  static constexpr uint64_t config_wce = 1ull << 11;
  static constexpr uint64_t mq = 1ull << 12;
  static constexpr uint64_t discard = 1ull << 13;
  static constexpr uint64_t write_zeroes = 1ull << 14;

  static constexpr unsigned most_queues = 8;
  static constexpr unsigned sector = 512;
  static constexpr unsigned max_ranges = 32;              // segments of one discard or write zeroes request
  static constexpr uint32_t max_range_sectors = 1 << 22;  // 2 GiB

  Blk(BlockBackend& backend, const Options& options);

  // The backend is larger than it was: tells the driver (5.2.5, configuration change).
  void size_changed();

  [[nodiscard]] std::string_view kind() const override { return "virtio-blk"; }
  [[nodiscard]] DeviceType type() const override { return DeviceType::Block; }
  [[nodiscard]] uint32_t pci_class() const override { return 0x010000; }
  [[nodiscard]] uint64_t features() const override;
  [[nodiscard]] unsigned queue_count() const override { return queues_; }
  [[nodiscard]] std::span<const uint8_t> config() const override { return config_; }
  void write_config(unsigned offset, std::span<const uint8_t> bytes) override;
  void stop() override;
  void quiesce() override;
  void kick(unsigned queue) override;
  void save(fields::Buffer& out) const override { fields::save(state_, out); }
  [[nodiscard]] Result<> restore(std::span<const uint8_t> in) override;

 private:
  enum class Status : uint8_t { Ok = 0, IoError = 1, Unsupported = 2 };
  struct Header {
    uint32_t type = 0;
    uint64_t sector = 0;
  };
  // One chain on its way through the backend, possibly in several parts.
  struct Request {
    unsigned queue = 0;
    Ticket ticket;
    Gpa status_address = 0;
    std::vector<Segment> filled;  // what the backend writes to in guest memory
    uint64_t filled_length = 0;
    unsigned parts = 0;  // still at the backend
    bool flush_after = false;
    int error = 0;
  };

  bool handle(unsigned index, Queue& queue, const Chain& chain);
  void transfer(unsigned index, const Chain& chain, const Header& header);
  void ranges(unsigned index, const Chain& chain, const Header& header);
  void identify(Queue& queue, const Chain& chain);
  [[nodiscard]] bool in_range(uint64_t first, uint64_t length) const;
  void answer(Queue& queue, const Chain& chain, Status status, uint32_t data_written = 0);
  void finish(size_t slot);
  size_t begin(unsigned index, const Chain& chain);
  void submit(size_t slot, BlockRequest request);
  void part_done(size_t slot, int error);
  [[nodiscard]] bool write_through() const;
  void refresh_config();

  BlockBackend& backend_;
  const unsigned queues_;
  std::array<uint8_t, 20> id_{};
  std::array<uint8_t, 60> config_{};
  State state_;
  std::vector<std::unique_ptr<Request>> requests_;  // by slot; null: free
  std::vector<size_t> free_slots_;
  std::array<unsigned, most_queues> in_flight_{};  // chains per queue
  enum class Draining : uint8_t { No, Complete, Discard };
  Draining draining_ = Draining::No;
  std::vector<size_t> flush_later_;  // requests whose flush had to wait for the end of a drain
};

}  // namespace caisson::virtio
