// Virtio over PCI: the registers of a modern device around any Model.
//   Spec     VIRTIO 1.2, 2.1 (status), 2.2 (features), 4.1 (PCI transport)
//   Models   common, notify, ISR, device and PCI configuration structures; MSI-X and INTx; status order; both ring
//   formats;
//            DEVICE_NEEDS_RESET
//   Omits    the legacy interface, queue reset, notification data, administration of several functions
//   Threads  under the device lock
//
// Layout    BAR 0 MSI-X; BAR 2 (64 bits) the structures, each in a page of its own.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/log.h"
#include "bus/interrupt.h"
#include "devices/pci/msix.h"
#include "devices/pci/pci_device.h"
#include "devices/virtio/model.h"

namespace caisson::virtio {

// Runs a task soon on the event loop's thread with the device lock held.
using Post = std::function<void(std::function<void()>)>;

class VirtioPci final : public pci::PciDevice, private Transport {
 public:
  static constexpr unsigned msix_bar = 0;
  static constexpr unsigned register_bar = 2;
  static constexpr unsigned max_queues = 16;
  // Offsets in the register BAR.
  static constexpr uint64_t common_offset = 0x0000;
  static constexpr uint64_t isr_offset = 0x1000;
  static constexpr uint64_t device_offset = 0x2000;
  static constexpr uint64_t notify_offset = 0x3000;
  static constexpr uint64_t register_bar_size = 0x4000;
  static constexpr uint32_t notify_multiplier = 4;

  struct State {
    pci::ConfigSpace::State config;
    pci::Msix::State msix;
    uint32_t device_feature_select = 0;
    uint32_t driver_feature_select = 0;
    uint64_t driver_features = 0;
    uint16_t config_vector = no_vector;
    uint8_t status = 0;
    uint8_t isr = 0;
    uint8_t config_generation = 0;
    uint16_t queue_select = 0;
    std::array<QueueState, max_queues> queues{};
    fields::Bytes<65536> model;

    static constexpr auto fields() {
      using fields::row;
      return fields::table<State>(row<1>("config", &State::config), row<2>("msix", &State::msix),
                                  row<3>("device_feature_select", &State::device_feature_select),
                                  row<4>("driver_feature_select", &State::driver_feature_select),
                                  row<5>("driver_features", &State::driver_features),
                                  row<6>("config_vector", &State::config_vector), row<7>("status", &State::status),
                                  row<8>("isr", &State::isr), row<9>("config_generation", &State::config_generation),
                                  row<10>("queue_select", &State::queue_select), row<11>("queues", &State::queues),
                                  row<12>("model", &State::model));
    }
  };

  VirtioPci(std::string name, std::unique_ptr<Model> model, GuestMemory& memory, MsiSink& msi, Post post);
  ~VirtioPci() override;

  void quiesce() override { model_->quiesce(); }

  [[nodiscard]] std::string_view name() const override { return name_; }
  uint64_t read(unsigned region, uint64_t offset, unsigned size) override;
  void write(unsigned region, uint64_t offset, unsigned size, uint64_t value) override;
  void reset() override;
  void save(fields::Buffer& out) const override;
  [[nodiscard]] Result<> restore(std::span<const uint8_t> in) override;

  [[nodiscard]] std::vector<Doorbell> doorbells() override;
  [[nodiscard]] uint32_t config_read(unsigned offset, unsigned size) override;
  void config_write(unsigned offset, unsigned size, uint32_t value) override;

  [[nodiscard]] uint64_t failures() const { return failures_.count(); }

 private:
  // Queues exist only while the driver runs the device.
  struct Inactive {};
  struct Active {
    std::array<std::optional<Queue>, max_queues> queues;
  };

  GuestMemory& memory() override { return memory_; }
  [[nodiscard]] uint64_t features() const override;
  Queue* queue(unsigned index) override;
  void signal(unsigned index) override;
  void config_changed() override;
  void fail(std::string_view why) override;
  void kick_later(unsigned index) override;

  void add_capabilities();
  [[nodiscard]] uint64_t offered() const;
  [[nodiscard]] uint64_t common_read(uint64_t offset, unsigned size) const;
  [[nodiscard]] uint64_t common_field(Common field) const;
  void common_write(uint64_t offset, unsigned size, uint64_t value);
  void queue_write(Common field, uint64_t offset, unsigned size, uint64_t value);
  void status_write(uint8_t value);
  [[nodiscard]] std::optional<Active> create_queues(std::string_view& fault);
  void activate();
  void reset_device();
  void kick(unsigned index);
  void kick_all();
  void interrupt(uint16_t vector, uint8_t isr_bit);
  [[nodiscard]] uint16_t valid_vector(uint64_t vector) const;
  [[nodiscard]] bool started() const { return std::holds_alternative<Active>(life_); }
  [[nodiscard]] uint64_t register_read(uint64_t offset, unsigned size);
  void register_write(uint64_t offset, unsigned size, uint64_t value);
  [[nodiscard]] bool window_access(uint64_t& offset, unsigned& size, unsigned& bar) const;

  const std::string name_;
  std::unique_ptr<Model> model_;
  GuestMemory& memory_;
  Post post_;
  pci::Msix msix_;
  unsigned window_capability_ = 0;  // VIRTIO_PCI_CAP_PCI_CFG
  State state_;                     // config, msix and model stand elsewhere; filled in by save()
  std::variant<Inactive, Active> life_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // outlived by tasks that were posted
  log::Limit failures_{4};
};

}  // namespace caisson::virtio
