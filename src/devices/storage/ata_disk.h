// A Serial ATA disk.
//   Spec     ACS-3, 7
//   Models   28 and 48 bit addresses, DMA and PIO, write cache with flush and FUA, TRIM
//   Omits    NCQ, SMART, security, host protected area, power states
//   Threads  under the device lock
#pragma once

#include <string>

#include "backend/block_backend.h"
#include "devices/storage/ata.h"

namespace caisson::storage {

class AtaDisk final : public AtaDevice {
 public:
  // `image` outlives this. `serial`: at most 20 characters are used; empty: the image's id.
  AtaDisk(const BlockBackend& image, std::string serial) : image_(image), serial_(std::move(serial)) {}

  [[nodiscard]] AtaPlan start(const AtaCommand& command) override;
  [[nodiscard]] AtaPlan data_out(const AtaCommand& command, std::span<const uint8_t> bytes) override;
  [[nodiscard]] AtaResult failed(const AtaCommand& command, int error) override;
  [[nodiscard]] AtaResult signature() const override;
  void reset() override { state_.write_cache = true; }

 private:
  enum class Command : uint8_t;
  struct Transfer;
  [[nodiscard]] AtaPlan transfer(const AtaCommand& command, const Transfer& kind);
  [[nodiscard]] AtaPlan identify() const;
  [[nodiscard]] AtaPlan set_features(const AtaCommand& command);
  [[nodiscard]] uint64_t sectors() const { return image_.size() / ata_sector; }

  const BlockBackend& image_;
  const std::string serial_;
};

}  // namespace caisson::storage
