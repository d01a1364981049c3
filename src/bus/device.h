// The contract of every device model.
//   A device knows neither its address nor its engine. It is told `region` (which of its windows: a PCI BAR's number,
//   or 0, 1, … in the order its file states) and the offset inside. The bus enforces the widths the window declares.
//   Threads  every call comes with the device lock (Bus::lock()) held, from vCPU threads or the event loop.
//   Errors   a guest can do nothing wrong that is an error here: answer as the hardware would.
//   State    what a guest can observe stands in one State struct with a field table (base/fields.h); save() and
//   restore()
//            are one line each. restore() validates: a snapshot is untrusted input.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "base/fields.h"
#include "base/result.h"

namespace caisson {

class Device {
 public:
  Device() = default;
  virtual ~Device() = default;
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  [[nodiscard]] virtual std::string_view name() const = 0;  // stable and unique within a machine
  // `size` is 1, 2, 4 or 8 and the value fits it.
  virtual uint64_t read(unsigned region, uint64_t offset, unsigned size) = 0;
  virtual void write(unsigned region, uint64_t offset, unsigned size, uint64_t value) = 0;
  virtual void reset() = 0;  // to the state after power-on

  virtual void save(fields::Buffer& out) const = 0;
  [[nodiscard]] virtual Result<> restore(std::span<const uint8_t> in) = 0;
};

}  // namespace caisson
