// NVMe controller with one namespace, which is a disk image.
//   Spec     NVM Express 1.4 (sections are its unless said otherwise)
//   Models   admin queue and up to 32 pairs of I/O queues; read, write, flush, write zeroes, deallocation; PRP lists;
//            write cache, FUA, write protection; error, health and firmware log; asynchronous events of bad doorbells;
//            MSI-X with a vector for each queue, INTx; enable, disable, shutdown
//   Omits    SGLs, metadata, namespace management, formatting, power states, fused commands, priorities of queues,
//            boot partitions, subsystem reset
//   Threads  under the device lock; commands are at the image between a doorbell and their completion
//
// A submission queue's entry is taken only when its completion queue has room for the answer, so an answer never
// waits. What commands and PRP lists say is copied once, checked once, and the copy is used. What the controller
// cannot read or write of its own queues is fatal (CSTS.CFS); software disables it and starts anew.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backend/block_backend.h"
#include "bus/interrupt.h"
#include "devices/pci/msix.h"
#include "devices/pci/pci_device.h"
#include "devices/storage/nvme_format.h"

namespace caisson::storage {

class Nvme final : public pci::PciDevice {
 public:
  static constexpr unsigned register_bar = 0;
  static constexpr uint64_t register_size = 0x4000;  // 2.1.10: no less
  static constexpr unsigned msix_bar = 4;
  static constexpr unsigned io_queues = 32;
  static constexpr unsigned queue_count = io_queues + 1;  // the admin queue is 0
  static constexpr unsigned most_entries = 1024;          // of a queue
  static constexpr unsigned most_in_flight = 1024;        // commands at the image, of all queues
  static constexpr unsigned transfer_log2 = 8;            // pages of the longest transfer: 1 MiB
  static constexpr unsigned block = 512;
  static constexpr unsigned most_event_requests = 4;
  static constexpr unsigned error_entries = 16;

  struct SubmissionQueue {
    uint64_t base = 0;
    uint32_t size = 0;  // in entries; 0: there is none
    uint32_t head = 0;
    uint32_t tail = 0;
    uint32_t completion = 0;  // its completion queue
    static constexpr auto fields() {
      using fields::row;
      using Q = SubmissionQueue;
      return fields::table<Q>(row<1>("base", &Q::base), row<2>("size", &Q::size), row<3>("head", &Q::head),
                              row<4>("tail", &Q::tail), row<5>("completion", &Q::completion));
    }
  };
  struct CompletionQueue {
    uint64_t base = 0;
    uint32_t size = 0;
    uint32_t head = 0;
    uint32_t tail = 0;
    uint32_t vector = 0;
    bool interrupts = false;
    bool phase = true;  // of the next entry
    static constexpr auto fields() {
      using fields::row;
      using Q = CompletionQueue;
      return fields::table<Q>(row<1>("base", &Q::base), row<2>("size", &Q::size), row<3>("head", &Q::head),
                              row<4>("tail", &Q::tail), row<5>("vector", &Q::vector),
                              row<6>("interrupts", &Q::interrupts), row<7>("phase", &Q::phase));
    }
  };
  // 5.14.1.1
  struct ErrorEntry {
    uint64_t number = 0;  // counts from 1 on
    uint16_t queue = 0;
    uint16_t id = 0;
    uint16_t status = 0;
    uint64_t lba = 0;
    uint32_t name_space = 0;
    static constexpr auto fields() {
      using fields::row;
      using Q = ErrorEntry;
      return fields::table<Q>(row<1>("number", &Q::number), row<2>("queue", &Q::queue), row<3>("id", &Q::id),
                              row<4>("status", &Q::status), row<5>("lba", &Q::lba),
                              row<6>("name_space", &Q::name_space));
    }
  };
  // What Set Features can change, by the number of the feature.
  struct Features {
    uint32_t arbitration = 0;
    uint32_t temperature_over = 0x157;  // kelvin: 70 °C
    uint32_t temperature_under = 0;
    uint32_t error_recovery = 0;
    uint32_t write_cache = 1;
    uint32_t coalescing = 0;
    uint32_t write_atomicity = 0;
    uint32_t events = 0;
    std::array<uint8_t, queue_count> coalescing_disabled{};
    static constexpr auto fields() {
      using fields::row;
      using Q = Features;
      return fields::table<Q>(row<1>("arbitration", &Q::arbitration), row<2>("temperature_over", &Q::temperature_over),
                              row<3>("temperature_under", &Q::temperature_under),
                              row<4>("error_recovery", &Q::error_recovery), row<5>("write_cache", &Q::write_cache),
                              row<6>("coalescing", &Q::coalescing), row<7>("write_atomicity", &Q::write_atomicity),
                              row<8>("events", &Q::events), row<9>("coalescing_disabled", &Q::coalescing_disabled));
    }
  };
  // 5.14.1.2; counted since the machine's last reset.
  struct Health {
    uint64_t blocks_read = 0;
    uint64_t blocks_written = 0;
    uint64_t read_commands = 0;
    uint64_t write_commands = 0;
    uint64_t media_errors = 0;
    uint64_t errors = 0;  // entries of the error log, ever
    static constexpr auto fields() {
      using fields::row;
      using Q = Health;
      return fields::table<Q>(row<1>("blocks_read", &Q::blocks_read), row<2>("blocks_written", &Q::blocks_written),
                              row<3>("read_commands", &Q::read_commands), row<4>("write_commands", &Q::write_commands),
                              row<5>("media_errors", &Q::media_errors), row<6>("errors", &Q::errors));
    }
  };
  struct State {
    pci::ConfigSpace::State config;
    pci::Msix::State msix;
    uint32_t control = 0;         // CC
    uint32_t status = 0;          // CSTS
    uint32_t masked = 0;          // INTMS
    uint32_t admin_sizes = 0;     // AQA
    uint64_t admin_requests = 0;  // ASQ
    uint64_t admin_answers = 0;   // ACQ
    std::array<SubmissionQueue, queue_count> requests{};
    std::array<CompletionQueue, queue_count> answers{};
    Features features{};
    Health health{};
    std::array<ErrorEntry, error_entries> error_log{};  // by their number
    std::array<uint16_t, most_event_requests> event_requests{};
    uint8_t event_request_count = 0;
    uint8_t events = 0;         // bit n: the error event n waits
    bool event_masked = false;  // told, and the log not read since
    static constexpr auto fields() {
      using fields::row;
      return fields::table<State>(
          row<1>("config", &State::config), row<2>("msix", &State::msix), row<3>("control", &State::control),
          row<4>("status", &State::status), row<5>("masked", &State::masked),
          row<6>("admin_sizes", &State::admin_sizes), row<7>("admin_requests", &State::admin_requests),
          row<8>("admin_answers", &State::admin_answers), row<9>("requests", &State::requests),
          row<10>("answers", &State::answers), row<11>("features", &State::features), row<12>("health", &State::health),
          row<13>("error_log", &State::error_log), row<14>("event_requests", &State::event_requests),
          row<15>("event_request_count", &State::event_request_count), row<16>("events", &State::events),
          row<17>("event_masked", &State::event_masked));
    }
  };

  // `image` outlives this. `serial`: at most 20 characters are used; no two controllers of a machine may have the
  // same, as drivers tell controllers apart by it. Empty: the image's id.
  Nvme(GuestMemory& memory, MsiSink& msi, BlockBackend& image, std::string_view serial);
  ~Nvme() override;

  [[nodiscard]] std::string_view name() const override { return name_; }
  uint64_t read(unsigned region, uint64_t offset, unsigned size) override;
  void write(unsigned region, uint64_t offset, unsigned size, uint64_t value) override;
  void config_write(unsigned offset, unsigned size, uint32_t value) override;
  void reset() override;
  void quiesce() override;
  void save(fields::Buffer& out) const override;
  [[nodiscard]] Result<> restore(std::span<const uint8_t> in) override;

 private:
  struct Segment {
    Gpa address;
    uint64_t length;
  };
  // An I/O command that is at the image, step by step.
  struct Active {
    unsigned queue = 0;
    nvme::Command command;
    std::vector<BlockRequest> steps;  // done one after the other
    size_t next = 0;
    std::vector<Segment> filled;  // what a read writes
  };
  // An answer: a status, and dword 0.
  struct Answer {
    nvme::Status status = nvme::Status::success;
    uint32_t result = 0;
  };
  using MaybeAnswer = std::optional<Answer>;  // none: it comes later
  enum class Draining : uint8_t { No, Complete, Discard };

  // Registers and life cycle: nvme.cpp
  [[nodiscard]] uint32_t read_register(uint64_t offset) const;
  void write_register(uint64_t offset, uint32_t value);
  void write_control(uint32_t value);
  void enable();
  void disable();
  void shut_down();
  void fatal();
  [[nodiscard]] bool running() const {
    return (state_.status & (nvme::csts_ready | nvme::csts_fatal)) == nvme::csts_ready;
  }
  void ring(uint64_t offset, uint32_t value);
  void pump(unsigned queue);
  void pump_all();
  [[nodiscard]] bool has_room(unsigned completion_queue) const;
  void execute(unsigned queue, const nvme::Command& command);
  void complete(unsigned queue, const nvme::Command& command, Answer answer);
  void post(unsigned queue, uint16_t id, Answer answer);
  void note_error(unsigned queue, const nvme::Command& command, nvme::Status status);
  void update_interrupt();
  void raise_event(uint8_t event);
  void tell_events();
  void settle();
  [[nodiscard]] Result<> check(const State& state) const;

  // Admin commands: nvme_admin.cpp
  [[nodiscard]] MaybeAnswer administrate(const nvme::Command& command);
  [[nodiscard]] Answer create_answers(const nvme::Command& command);
  [[nodiscard]] Answer create_requests(const nvme::Command& command);
  [[nodiscard]] Answer delete_requests(const nvme::Command& command);
  [[nodiscard]] Answer delete_answers(const nvme::Command& command);
  [[nodiscard]] Answer identify(const nvme::Command& command);
  [[nodiscard]] Answer get_log_page(const nvme::Command& command);
  [[nodiscard]] Answer set_features(const nvme::Command& command);
  [[nodiscard]] Answer get_features(const nvme::Command& command) const;
  [[nodiscard]] Answer abort(const nvme::Command& command);
  [[nodiscard]] MaybeAnswer request_event(const nvme::Command& command);
  [[nodiscard]] std::vector<uint8_t> describe_controller() const;
  [[nodiscard]] std::vector<uint8_t> describe_name_space() const;
  [[nodiscard]] std::vector<uint8_t> describe_errors() const;
  [[nodiscard]] std::vector<uint8_t> describe_health() const;
  // Copies to what the command's PRPs name.
  [[nodiscard]] Answer give(const nvme::Command& command, std::span<const uint8_t> bytes);

  // I/O commands and PRPs: nvme_io.cpp
  [[nodiscard]] MaybeAnswer start(unsigned queue, const nvme::Command& command);
  [[nodiscard]] Answer transfer(Active& active, bool writes);
  [[nodiscard]] Answer write_zeroes(Active& active);
  [[nodiscard]] Answer manage_dataset(Active& active);
  [[nodiscard]] nvme::Status gather(const nvme::Command& command, uint64_t length, std::vector<Segment>& out) const;
  [[nodiscard]] bool in_range(uint64_t first, uint64_t blocks) const;
  [[nodiscard]] bool to_medium(const nvme::Command& command) const;
  void begin(std::unique_ptr<Active> active);
  void submit_step(size_t slot);
  void step_done(size_t slot, int error);
  void finish(size_t slot, int error);

  GuestMemory& memory_;
  BlockBackend& image_;
  const std::string serial_;
  std::string name_;
  pci::Msix msix_;
  State state_;  // `config` and `msix` only while saving

  std::vector<std::unique_ptr<Active>> active_;  // by slot; null: free
  std::vector<size_t> free_slots_;
  unsigned in_flight_ = 0;
  std::array<unsigned, queue_count> promised_{};  // entries of completion queues for what is in flight
  bool starved_ = false;                          // a queue has waited for most_in_flight
  bool flushing_ = false;                         // for a shutdown
  Draining draining_ = Draining::No;
  std::vector<size_t> step_later_;  // a completion may submit nothing while the image drains
};

}  // namespace caisson::storage
