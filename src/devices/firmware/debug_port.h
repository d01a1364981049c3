// The port that SeaBIOS and OVMF write their messages to (0x402). A read gives 0xe9, by which they know it is there.
//   Models   lines of at most `longest` bytes, handed on whole and made printable; what is beyond is dropped
//   Threads  none of its own; called under the device lock
//   Regions  0: the port
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "bus/device.h"

namespace caisson {

class FirmwareDebugPort final : public Device {
 public:
  static constexpr uint16_t port = 0x402;
  static constexpr uint8_t present = 0xe9;
  static constexpr size_t longest = 240;

  using Sink = std::function<void(const std::string& line)>;
  explicit FirmwareDebugPort(Sink sink) : sink_(std::move(sink)) {}

  [[nodiscard]] std::string_view name() const override { return "firmware-debug-port"; }
  uint64_t read(unsigned, uint64_t, unsigned) override { return present; }
  void write(unsigned region, uint64_t offset, unsigned size, uint64_t value) override;
  void reset() override { line_.clear(); }
  void save(fields::Buffer&) const override {}  // nothing that a guest could see
  [[nodiscard]] Result<> restore(std::span<const uint8_t> in) override;

 private:
  Sink sink_;
  std::string line_;
};

}  // namespace caisson
