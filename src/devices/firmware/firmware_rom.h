// The read-only memory that firmware starts from, below 4 GiB.
//   Threads  none of its own; called under the device lock
//   Regions  0: the image; writes vanish
#pragma once

#include <cstdint>
#include <vector>

#include "bus/device.h"

namespace caisson {

class FirmwareRom final : public Device {
 public:
  explicit FirmwareRom(std::vector<uint8_t> image) : image_(std::move(image)) {}

  [[nodiscard]] const std::vector<uint8_t>& image() const { return image_; }

  [[nodiscard]] std::string_view name() const override { return "firmware-rom"; }
  uint64_t read(unsigned region, uint64_t offset, unsigned size) override;
  void write(unsigned, uint64_t, unsigned, uint64_t) override {}
  void reset() override {}
  void save(fields::Buffer&) const override {}
  [[nodiscard]] Result<> restore(std::span<const uint8_t> in) override;

 private:
  const std::vector<uint8_t> image_;
};

}  // namespace caisson
