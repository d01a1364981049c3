#include "devices/chipset/attach.h"

namespace caisson {

Result<std::unique_ptr<Chipset>> Chipset::create(Bus& bus, Clock& clock, PowerSink& power, CharSink& serial,
                                                 const ChipsetOptions& options) {
  if (options.cpus < 1 || options.cpus > chipset::max_cpus) {
    return fail("{} CPUs: a machine has 1 to {}", options.cpus, chipset::max_cpus);
  }
  return std::unique_ptr<Chipset>(new Chipset(bus, clock, power, serial, options));
}

Chipset::Chipset(Bus& bus, Clock& clock, PowerSink& power, CharSink& serial, const ChipsetOptions& options)
    : bus_(bus),
      apic_bus_(bus.lock(), clock,
                {.cpus = options.cpus, .physical_bits = options.physical_bits, .x2apic = options.x2apic}),
      router_(apic_bus_),
      pit_gate_(router_.line(chipset::pit_irq)),
      rtc_gate_(router_.line(chipset::rtc_irq)),
      pit_(pit_gate_, clock),
      rtc_(rtc_gate_, clock),
      hpet_(
          clock, [this](unsigned gsi) { return router_.shared_line(gsi); }, pit_gate_, rtc_gate_),
      com1_("com1", router_.line(chipset::com1_irq), clock, serial),
      acpi_pm_(router_.line(chipset::sci_gsi), clock, power),
      hotplug_(acpi_pm_),
      reset_control_(power),
      keyboard_controller_(router_.line(chipset::keyboard_irq), router_.line(chipset::mouse_irq), power,
                           options.keyboard),
      debug_exit_(power),
      pvpanic_(power) {
  rtc_.set_memory_size(options.low_memory, options.high_memory);

  constexpr Widths bytes{1, 1};
  constexpr Widths up_to_dwords{1, 4};
  constexpr Widths dwords{4, 4};
  const auto port = [&](uint16_t base, uint64_t length, Device& device, unsigned region, Widths widths) {
    bus.map(Space::Port, base, length, device, region, widths);
  };
  port(chipset::pic_primary_port, 2, router_.pic(), 0, bytes);
  port(chipset::pic_secondary_port, 2, router_.pic(), 1, bytes);
  port(chipset::elcr_port, 2, router_.pic(), 2, bytes);
  port(chipset::pit_port, 4, pit_, 0, bytes);
  port(chipset::system_control_b_port, 1, pit_, 1, bytes);
  port(chipset::i8042_data_port, 1, keyboard_controller_, 0, bytes);
  port(chipset::i8042_command_port, 1, keyboard_controller_, 1, bytes);
  port(chipset::rtc_port, 2, rtc_, 0, bytes);
  port(chipset::system_control_a_port, 1, reset_control_, 1, bytes);
  port(chipset::com1_port, 8, com1_, 0, bytes);
  port(chipset::pm1a_event_port, 4, acpi_pm_, 0, up_to_dwords);
  port(chipset::pm1a_control_port, 2, acpi_pm_, 1, up_to_dwords);
  port(chipset::pm_timer_port, 4, acpi_pm_, 2, up_to_dwords);
  port(chipset::gpe0_port, chipset::gpe0_length, acpi_pm_, 3, up_to_dwords);
  port(chipset::hotplug_port, chipset::hotplug_length, hotplug_, 0, up_to_dwords);
  raise_reset_port();
  bus.map(Space::Memory, chipset::ioapic_address, chipset::ioapic_length, router_.ioapic(), 0, dwords);
  bus.map(Space::Memory, chipset::hpet_address, chipset::hpet_length, hpet_, 0, {4, 8});

  // The HPET before those whose lines it may have.
  devices_ = {&router_.ioapic(), &router_.pic(),       &hpet_, &pit_, &rtc_, &com1_, &acpi_pm_, &hotplug_,
              &reset_control_,   &keyboard_controller_};
  if (options.serial2 != nullptr) {
    com2_ = std::make_unique<Uart>("com2", router_.line(chipset::com2_irq), clock, *options.serial2);
    port(chipset::com2_port, 8, *com2_, 0, bytes);
    devices_.push_back(com2_.get());
  }
  if (options.debug_exit) {
    port(chipset::debug_exit_port, 4, debug_exit_, 0, up_to_dwords);
    devices_.push_back(&debug_exit_);
  }
  if (options.pvpanic) {
    port(chipset::pvpanic_port, 1, pvpanic_, 0, bytes);
    devices_.push_back(&pvpanic_);
  }
}

void Chipset::raise_reset_port() { bus_.map(Space::Port, chipset::reset_control_port, 1, reset_control_, 0, {1, 1}); }

void Chipset::reset() {
  for (unsigned cpu = 0; cpu < apic_bus_.count(); ++cpu) apic_bus_.local_apic(cpu).reset();
  for (Device* device : devices_) device->reset();
}

}  // namespace caisson
