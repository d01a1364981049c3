// Wires global system interrupts to the PIC and the I/O APIC, both of which it owns.
//   Routing  ISA interrupt n (GSI 0-15) drives PIC input n and I/O APIC pin n; ISA 0 drives pin 2 instead, GSI 2 pin 2
//   alone.
//            GSIs 16-23 drive the I/O APIC alone. Which source drives a line does not matter: a line is the OR of them
//            all.
//   Threads  none of its own; called under the device lock
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "bus/interrupt.h"
#include "devices/chipset/apic_bus.h"
#include "devices/chipset/ioapic.h"
#include "devices/chipset/layout.h"
#include "devices/chipset/pic.h"

namespace caisson {

class InterruptRouter {
 public:
  explicit InterruptRouter(ApicBus& bus);
  InterruptRouter(const InterruptRouter&) = delete;
  InterruptRouter& operator=(const InterruptRouter&) = delete;

  [[nodiscard]] Pic& pic() { return pic_; }
  [[nodiscard]] IoApic& ioapic() { return ioapic_; }

  // For a line with one source. `gsi` < 24.
  [[nodiscard]] InterruptLine& line(unsigned gsi);
  // One more source of a line; its level counts until it is destroyed. The router must outlive it.
  [[nodiscard]] std::unique_ptr<InterruptLine> shared_line(unsigned gsi);

 private:
  class Source final : public InterruptLine {
   public:
    Source(InterruptRouter& router, unsigned gsi) : router_(router), gsi_(gsi) {}
    ~Source() override { set(false); }
    void set(bool high) override;

   private:
    InterruptRouter& router_;
    const unsigned gsi_;
    bool high_ = false;
  };

  void drive(unsigned gsi, bool high);

  Pic pic_;
  IoApic ioapic_;
  std::array<unsigned, chipset::gsi_count> asserted_{};  // how many sources hold each line up
  std::array<std::unique_ptr<Source>, chipset::gsi_count> lines_;
};

}  // namespace caisson
