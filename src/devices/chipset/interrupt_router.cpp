#include "devices/chipset/interrupt_router.h"

#include "base/check.h"

namespace caisson {

InterruptRouter::InterruptRouter(ApicBus& bus) : pic_(bus.ext_int_line()), ioapic_(bus) {
  bus.connect(static_cast<EoiListener&>(ioapic_));
  bus.connect(static_cast<ExtIntSource&>(pic_));
  for (unsigned gsi = 0; gsi < chipset::gsi_count; ++gsi) lines_[gsi] = std::make_unique<Source>(*this, gsi);
}

InterruptLine& InterruptRouter::line(unsigned gsi) {
  CAISSON_CHECK(gsi < chipset::gsi_count);
  return *lines_[gsi];
}

std::unique_ptr<InterruptLine> InterruptRouter::shared_line(unsigned gsi) {
  CAISSON_CHECK(gsi < chipset::gsi_count);
  return std::make_unique<Source>(*this, gsi);
}

// Only a change of the OR goes on. So a source that sets its level again after a restore, when the controllers'
// restored state has the line's level already, makes no edge.
void InterruptRouter::Source::set(bool high) {
  if (high == high_) return;
  high_ = high;
  unsigned& asserted = router_.asserted_[gsi_];
  if (high ? asserted++ == 0 : --asserted == 0) router_.drive(gsi_, high);
}

void InterruptRouter::drive(unsigned gsi, bool high) {
  if (gsi < chipset::isa_irq_count) pic_.set_input(gsi, high);
  if (gsi == chipset::pit_irq) {
    ioapic_.set_input(chipset::pit_gsi, high);
  } else {
    ioapic_.set_input(gsi, high);
  }
}

}  // namespace caisson
