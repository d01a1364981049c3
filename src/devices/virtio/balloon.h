// Virtio memory balloon device: pages that the guest gives up go back to the host.
//   Spec     VIRTIO 1.2, 5.5; queues as Linux numbers them, see queue_of_reports()
//   Models   inflation and deflation towards the host's target, deflation by a guest that runs out of memory, reports
//   of
//            free pages, the guest's statistics
//   Omits    hints of free pages for migration, page poisoning (a guest that poisons free pages with something else
//            than zeroes reports none then)
//   Hostile  pages that are no RAM, or given twice, do nothing; a chain's pages beyond max_pages keep their memory
//   Threads  under the device lock
#pragma once

#include <array>
#include <optional>

#include "devices/virtio/model.h"

namespace caisson::virtio {

class Balloon final : public Model {
 public:
  struct State {
    uint32_t target_pages = 0;  // of 4096 bytes, that the guest is to give up
    uint32_t actual_pages = 0;  // that it says it has given up
    static constexpr auto fields() {
      using fields::row;
      return fields::table<State>(row<1>("target_pages", &State::target_pages),
                                  row<2>("actual_pages", &State::actual_pages));
    }
  };

  // Feature bits, 5.5.3.
  static constexpr uint64_t statistics_queue = 1ull << 1;
  static constexpr uint64_t deflate_on_oom = 1ull << 2;
  static constexpr uint64_t page_reporting = 1ull << 5;

  enum QueueIndex : uint8_t { inflate_queue, deflate_queue, statistics_index };

  static constexpr size_t max_pages = 1024;  // of one chain to the inflate queue; Linux gives 256

  // What the guest says of its memory, 5.5.6.3, in bytes; 0: nothing yet.
  struct Statistics {
    uint64_t free = 0;
    uint64_t total = 0;
    uint64_t available = 0;
  };

  // What the guest is to be left with, in bytes; more than it has is all of it. It may take its time, or not do it.
  void set_target(uint64_t memory_bytes);
  [[nodiscard]] uint64_t target() const;        // as set
  [[nodiscard]] uint64_t memory_bytes() const;  // what it has by its own word
  [[nodiscard]] uint64_t reported_bytes() const { return reported_; }
  [[nodiscard]] const Statistics& statistics() const { return statistics_; }
  // Has the guest say it anew, soon.
  void refresh_statistics();

  [[nodiscard]] std::string_view kind() const override { return "virtio-balloon"; }
  [[nodiscard]] DeviceType type() const override { return DeviceType::Balloon; }
  [[nodiscard]] uint32_t pci_class() const override { return 0x00ff00; }
  [[nodiscard]] uint64_t features() const override { return statistics_queue | deflate_on_oom | page_reporting; }
  [[nodiscard]] unsigned queue_count() const override { return 5; }
  [[nodiscard]] uint16_t queue_size() const override { return 64; }
  [[nodiscard]] std::span<const uint8_t> config() const override { return config_; }
  void write_config(unsigned offset, std::span<const uint8_t> bytes) override;
  void stop() override;
  void quiesce() override { refresh_statistics(); }
  void kick(unsigned queue) override;
  void save(fields::Buffer& out) const override { fields::save(state_, out); }
  [[nodiscard]] Result<> restore(std::span<const uint8_t> in) override;

 private:
  void inflate(const Chain& chain);
  void report(const Chain& chain);
  void read_statistics(const Chain& chain);
  void refresh_config();
  [[nodiscard]] uint64_t bytes_without(uint32_t pages) const;

  State state_;
  std::array<uint8_t, 8> config_{};
  std::optional<Ticket> statistics_buffer_;  // the driver's, which it gets back to fill it again
  Statistics statistics_;
  uint64_t reported_ = 0;
};

}  // namespace caisson::virtio
