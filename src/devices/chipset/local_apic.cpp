#include "devices/chipset/local_apic.h"

#include <algorithm>
#include <atomic>
#include <bit>

#include <fmt/core.h>

#include "devices/chipset/layout.h"
#include "devices/chipset/scale.h"

namespace caisson {
namespace {

// Register numbers: offset / 16 in the xAPIC page, MSR - 0x800 in x2APIC mode (table 11-6).
enum Register : uint32_t {
  Id = 0x02,
  Version = 0x03,
  Tpr = 0x08,
  Apr = 0x09,  // xAPIC only
  Ppr = 0x0a,
  Eoi = 0x0b,
  Rrd = 0x0c,  // xAPIC only
  Ldr = 0x0d,
  Dfr = 0x0e,  // xAPIC only
  Svr = 0x0f,
  IsrFirst = 0x10,
  TmrFirst = 0x18,
  IrrFirst = 0x20,
  Esr = 0x28,
  IcrLow = 0x30,
  IcrHigh = 0x31,  // xAPIC only
  LvtFirst = 0x32,
  InitialCount = 0x38,
  CurrentCount = 0x39,
  DivideConfiguration = 0x3e,
  SelfIpi = 0x3f,  // x2APIC only
};

constexpr uint32_t msr_apic_base = 0x1b;
constexpr uint32_t msr_tsc_deadline = 0x6e0;
constexpr uint32_t msr_x2apic_first = 0x800;
constexpr uint32_t msr_x2apic_last = 0x8ff;

// An integrated APIC with 6 local vectors (11.4.8).
constexpr uint32_t version_value = 0x14 | (LocalApic::lvt_count - 1) << 16;
constexpr uint32_t lvt_end = uint32_t{LvtFirst} + LocalApic::lvt_count;

// IA32_APIC_BASE (11.4.4).
constexpr uint64_t base_bsp = 1u << 8;
constexpr uint64_t base_x2apic = 1u << 10;
constexpr uint64_t base_enable = 1u << 11;

constexpr uint32_t svr_enable = 1u << 8;
constexpr uint32_t svr_writable = 0x3ff;
constexpr uint32_t lvt_mask = 1u << 16;
constexpr uint32_t lvt_ext_int_unmasked = 0x700;
constexpr uint32_t lvt_mode_bits = 0x700;
constexpr uint32_t divide_writable = 0xb;

// Figure 11-8: what can be written, and what reads back but cannot be written (delivery status, remote IRR).
constexpr std::array<uint32_t, LocalApic::lvt_count> lvt_writable{0x7'00ff, 0x1'07ff, 0x1'07ff,
                                                                  0x1'a7ff, 0x1'a7ff, 0x1'00ff};
constexpr uint32_t lvt_read_only = 1u << 12 | 1u << 14;

// ESR (11.5.3).
constexpr uint32_t error_send_illegal_vector = 1u << 5;
constexpr uint32_t error_receive_illegal_vector = 1u << 6;
constexpr uint32_t error_illegal_register = 1u << 7;

// ICR (11.6.1). Bit 12 is the delivery status: always idle here.
constexpr uint64_t icr_status = 1u << 12;
constexpr uint64_t icr_low_writable = 0xc'cfff;
constexpr uint64_t icr_x2apic_writable = 0xffff'ffff'000c'cfff;

// Events that RFLAGS.IF does not hold back; the SIPI's vector stands in bits 15:8.
constexpr uint32_t event_init = LocalApicState::event_init;
constexpr uint32_t event_sipi = LocalApicState::event_sipi;
constexpr uint32_t event_nmi = LocalApicState::event_nmi;
constexpr uint32_t event_bits = 0xff07;

// A periodic timer faster than this is delivered at this rate: the guest chooses the period, the host pays for it.
constexpr uint64_t shortest_interval_ns = 50'000;
constexpr uint64_t longest_delay_ns = uint64_t{1} << 60;
static_assert(chipset::apic_timer_hz == 1'000'000'000, "one undivided timer count is one nanosecond");

// What other threads touch is accessed through these. (atomic_ref of a const object comes with C++26.)
template <class T>
T load(const T& word, std::memory_order order = std::memory_order_relaxed) {
  return std::atomic_ref<T>(const_cast<T&>(word)).load(order);
}
template <class T>
void store(T& word, T value) {
  std::atomic_ref<T>(word).store(value, std::memory_order_relaxed);
}

void set_bit(std::array<uint32_t, 8>& bits, unsigned n) {
  std::atomic_ref<uint32_t>(bits[n / 32]).fetch_or(1u << n % 32);
}
void clear_bit(std::array<uint32_t, 8>& bits, unsigned n) {
  std::atomic_ref<uint32_t>(bits[n / 32]).fetch_and(~(1u << n % 32));
}
bool test_bit(const std::array<uint32_t, 8>& bits, unsigned n) { return (load(bits[n / 32]) >> n % 32 & 1) != 0; }

// -1 where no bit is set.
int highest(const std::array<uint32_t, 8>& bits) {
  for (int word = 7; word >= 0; --word) {
    if (const uint32_t value = load(bits[word], std::memory_order_acquire)) {
      return word * 32 + 31 - std::countl_zero(value);
    }
  }
  return -1;
}

}  // namespace

LocalApic::LocalApic(ApicBus& bus, Clock& clock, unsigned index, unsigned physical_bits, bool x2apic_supported)
    : bus_(bus),
      clock_(clock),
      index_(index),
      base_reserved_(~((uint64_t{1} << physical_bits) - 1) | 0x2ff | (x2apic_supported ? 0 : base_x2apic)),
      name_(fmt::format("local-apic-{}", index)),
      timer_(clock.create_timer([this] { timer_expired(); })) {
  reset();
}

LocalApic::~LocalApic() = default;

void LocalApic::reset() {
  store(state_.apic_base, chipset::local_apic_address | base_enable | (index_ == 0 ? base_bsp : 0));
  store(state_.events, 0u);
  initialize();
}

void LocalApic::initialize() {
  {
    const std::lock_guard hold(timer_lock_);
    stop_timer();
    state_.tsc_deadline = 0;
    state_.initial_count = 0;
    state_.divide_configuration = 0;
  }
  state_.tpr = 0;
  store(state_.ldr, 0u);
  store(state_.dfr, 0xffff'ffffu);
  store(state_.svr, 0xffu);
  state_.esr = 0;
  store(state_.pending_errors, 0u);
  state_.icr = 0;
  for (uint32_t& lvt : state_.lvt) store(lvt, lvt_mask);
  // Firmware leaves the first CPU in virtual wire mode (MultiProcessor Specification 1.4, 3.6.2.2); where a kernel is
  // loaded without firmware, the reset state has to be that.
  if (index_ == 0) store(state_.lvt[LvtLint0], lvt_ext_int_unmasked);
  for (unsigned i = 0; i < 8; ++i) {
    store(state_.irr[i], 0u);
    store(state_.tmr[i], 0u);
    store(state_.isr[i], 0u);
  }
  update_ppr();
}

void LocalApic::save(fields::Buffer& out) const { fields::save(state_, out); }

Result<> LocalApic::restore(std::span<const uint8_t> in) {
  State state = state_;
  if (auto done = fields::restore(state, in); !done) return done;
  const bool enabled = (state.apic_base & base_enable) != 0;
  if ((state.apic_base & base_reserved_) != 0 || (!enabled && (state.apic_base & base_x2apic) != 0)) {
    return fail("{}: saved IA32_APIC_BASE {:#x} is not a value it can have", name_, state.apic_base);
  }
  bool valid = state.tpr <= 0xff && (state.svr & ~svr_writable) == 0 && (state.ldr & 0x00ff'ffff) == 0 &&
               (state.dfr | 0xf000'0000) == 0xffff'ffff && (state.events & ~event_bits) == 0 &&
               (state.divide_configuration & ~divide_writable) == 0 && (state.esr & ~0xffu) == 0 &&
               (state.pending_errors & ~0xffu) == 0 && (state.icr & icr_status) == 0;
  for (unsigned i = 0; i < lvt_count; ++i) valid = valid && (state.lvt[i] & ~lvt_writable[i]) == 0;
  valid = valid && ((state.irr[0] | state.isr[0]) & 0xffff) == 0;  // vectors below 16 do not exist
  if (!valid) return fail("{}: a saved register has reserved bits set; the snapshot is damaged", name_);
  {
    const std::lock_guard hold(timer_lock_);
    state_ = state;
    armed_ns_ = 0;
    if (state_.timer_deadline_ns != 0) arm(state_.timer_deadline_ns);
  }
  update_ppr();
  notify();
  return {};
}

// --- in the hands of an engine

LocalApic::State LocalApic::state() const {
  const std::lock_guard hold(timer_lock_);
  return state_;
}

// An engine's local APIC may have features that ours has not: what ours cannot hold is dropped.
void LocalApic::take(const State& from) {
  const std::lock_guard hold(timer_lock_);
  const bool lint0 = load(state_.lint0);
  state_ = from;
  state_.lint0 = lint0;
  state_.apic_base &= ~base_reserved_;
  state_.tpr &= 0xff;
  state_.ldr &= 0xff00'0000;
  state_.dfr |= 0x0fff'ffff;
  state_.svr &= svr_writable;
  state_.esr &= 0xff;
  state_.pending_errors &= 0xff;
  state_.icr &= mode() == Mode::X2apic ? icr_x2apic_writable : 0xff00'0000'0000'0000 | icr_low_writable;
  for (unsigned i = 0; i < lvt_count; ++i) state_.lvt[i] &= lvt_writable[i];
  state_.irr[0] &= 0xffff'0000;
  state_.isr[0] &= 0xffff'0000;
  state_.events &= event_bits;
  state_.divide_configuration &= divide_writable;
}

bool LocalApic::ext_int() const { return load(state_.lint0, std::memory_order_acquire); }

void LocalApic::keep() {
  kept_.store(true);
  const std::lock_guard hold(timer_lock_);
  timer_->cancel();
  armed_ns_ = 0;
}

void LocalApic::release() {
  kept_.store(false);
  bool passed = false;
  {
    const std::lock_guard hold(timer_lock_);
    armed_ns_ = 0;
    if (timer_mode() == TimerMode::TscDeadline) {
      const bool running = state_.tsc_deadline != 0;
      start_deadline();
      passed = running && state_.tsc_deadline == 0;
    } else if (state_.timer_deadline_ns != 0) {
      arm(state_.timer_deadline_ns);
    }
  }
  update_ppr();
  if (passed) post_local(LvtTimer);
  notify();
}

LocalApic::Mode LocalApic::mode() const {
  const uint64_t base = load(state_.apic_base);
  if ((base & base_enable) == 0) return Mode::Disabled;
  return (base & base_x2apic) != 0 ? Mode::X2apic : Mode::Xapic;
}

// --- towards the CPU

void LocalApic::notify() const {
  if (sink_ != nullptr) sink_->interrupts_changed();
}

void LocalApic::notify_if_ready() const {
  if (interrupt_ready()) notify();
}

bool LocalApic::ext_int_ready() const {
  if (!load(state_.lint0, std::memory_order_acquire)) return false;
  if (mode() == Mode::Disabled) return true;  // LINT0 is then the CPU's INTR pin (11.4.3)
  const uint32_t lvt = load(state_.lvt[LvtLint0]);
  return (lvt & (lvt_mask | lvt_mode_bits)) == lvt_ext_int_unmasked;
}

bool LocalApic::interrupt_ready() const {
  if (ext_int_ready()) return true;
  if (mode() == Mode::Disabled) return false;
  const int vector = highest(state_.irr);
  return vector >= 0 && static_cast<uint32_t>(vector) >> 4 > load(ppr_) >> 4;
}

bool LocalApic::pending() const { return load(state_.events, std::memory_order_acquire) != 0 || interrupt_ready(); }

std::optional<CpuInterrupts::Taken> LocalApic::take_event(bool nmi_allowed) {
  if (load(state_.events) == 0) return std::nullopt;
  std::atomic_ref<uint32_t> events(state_.events);
  uint32_t seen = events.load();
  for (;;) {
    uint32_t left = seen;
    std::optional<Taken> taken;
    if ((seen & event_init) != 0) {
      left &= ~event_init;
      taken = {Event::Init};
    } else if ((seen & event_sipi) != 0) {
      left &= ~(event_sipi | 0xff00);
      taken = {Event::Sipi, static_cast<uint8_t>(seen >> 8)};
    } else if ((seen & event_nmi) != 0 && nmi_allowed) {
      left &= ~event_nmi;
      taken = {Event::Nmi};
    }
    if (!taken) return std::nullopt;
    if (events.compare_exchange_weak(seen, left)) {
      if (taken->event == Event::Init) initialize();
      return taken;
    }
  }
}

std::optional<uint8_t> LocalApic::acknowledge() {
  if (ext_int_ready()) {
    if (const auto vector = bus_.acknowledge_ext_int()) return vector;
  }
  if (mode() == Mode::Disabled) return std::nullopt;
  const int vector = highest(state_.irr);
  if (vector < 0 || static_cast<uint32_t>(vector) >> 4 <= ppr_ >> 4) return std::nullopt;
  clear_bit(state_.irr, static_cast<unsigned>(vector));
  uint32_t& word = state_.isr[vector / 32];
  store(word, word | 1u << vector % 32);
  update_ppr();
  return static_cast<uint8_t>(vector);
}

// 11.8.3.1.
void LocalApic::update_ppr() {
  const int in_service = highest(state_.isr);
  const uint32_t service_class = in_service < 0 ? 0 : static_cast<uint32_t>(in_service) & 0xf0;
  store(ppr_, (state_.tpr & 0xf0) >= service_class ? state_.tpr : service_class);
}

uint64_t LocalApic::apic_base() const { return load(state_.apic_base); }

uint8_t LocalApic::cr8() const { return static_cast<uint8_t>(state_.tpr >> 4); }

void LocalApic::set_cr8(uint8_t value) { set_tpr((value & 0xfu) << 4); }

void LocalApic::set_tpr(uint32_t value) {
  const uint32_t before = ppr_;
  state_.tpr = value;
  update_ppr();
  if (ppr_ < before) notify_if_ready();
}

// 11.8.5.
void LocalApic::end_of_interrupt() {
  const int vector = highest(state_.isr);
  if (vector < 0) return;
  uint32_t& word = state_.isr[vector / 32];
  store(word, word & ~(1u << vector % 32));
  update_ppr();
  if (test_bit(state_.tmr, static_cast<unsigned>(vector))) bus_.end_of_interrupt(static_cast<uint8_t>(vector));
  notify_if_ready();
}

// --- from the bus

bool LocalApic::accepts_fixed() const { return mode() != Mode::Disabled && (load(state_.svr) & svr_enable) != 0; }

unsigned LocalApic::processor_priority() const {
  const int requested = highest(state_.irr);
  const uint32_t request_class = requested < 0 ? 0 : static_cast<uint32_t>(requested) & 0xf0;
  return std::max(load(ppr_) & 0xf0, request_class);
}

// 11.6.2.2 and 11.12.10.2.
bool LocalApic::matches_logical(uint32_t destination, bool wide) const {
  switch (mode()) {
    case Mode::Disabled: return false;
    case Mode::X2apic: return destination >> 16 == index_ >> 4 && (destination >> (index_ & 15) & 1) != 0;
    case Mode::Xapic: break;
  }
  if (wide && destination > 0xff) return false;
  const uint32_t logical_id = load(state_.ldr) >> 24;
  switch (load(state_.dfr) >> 28) {
    case 0xf: return (logical_id & destination) != 0;
    case 0x0: return logical_id >> 4 == destination >> 4 && (logical_id & destination & 0xf) != 0;
    default: return false;
  }
}

bool LocalApic::accept(DeliveryMode how, uint8_t vector, bool level) {
  if (mode() == Mode::Disabled) return false;
  switch (how) {
    case DeliveryMode::Fixed:
    case DeliveryMode::LowestPriority: return accepts_fixed() && post(vector, level);
    case DeliveryMode::Nmi:
    case DeliveryMode::Init:
    case DeliveryMode::StartUp: post_event(how, vector); return true;
    case DeliveryMode::Smi:
    case DeliveryMode::Reserved3:
    case DeliveryMode::ExtInt: return false;
  }
  return false;
}

bool LocalApic::post(uint8_t vector, bool level) {
  if (vector < 16) {
    raise_error(error_receive_illegal_vector);
    return false;
  }
  if (test_bit(state_.tmr, vector) != level) {
    if (level) {
      set_bit(state_.tmr, vector);
    } else {
      clear_bit(state_.tmr, vector);
    }
  }
  const uint32_t bit = 1u << vector % 32;
  const uint32_t before = std::atomic_ref<uint32_t>(state_.irr[vector / 32]).fetch_or(bit);
  // Where it was requested already the CPU has been told, and has not looked yet.
  if ((before & bit) == 0) notify();
  return true;
}

void LocalApic::post_event(DeliveryMode how, uint8_t vector) {
  std::atomic_ref<uint32_t> events(state_.events);
  uint32_t seen = events.load();
  uint32_t next = 0;
  do {
    switch (how) {
      case DeliveryMode::Init: next = event_init; break;  // what waited before it is lost
      case DeliveryMode::StartUp: next = (seen & 0xff) | event_sipi | static_cast<uint32_t>(vector) << 8; break;
      default: next = seen | event_nmi; break;
    }
  } while (!events.compare_exchange_weak(seen, next));
  notify();
}

bool LocalApic::lvt_masked(unsigned which) const { return (load(state_.lvt[which]) & lvt_mask) != 0; }

void LocalApic::post_local(LocalVector which) {
  if (mode() == Mode::Disabled || lvt_masked(which)) return;
  const uint32_t lvt = load(state_.lvt[which]);
  const auto vector = static_cast<uint8_t>(lvt);
  const bool has_mode = which != LvtTimer && which != LvtError;
  switch (has_mode ? static_cast<DeliveryMode>(lvt >> 8 & 7) : DeliveryMode::Fixed) {
    case DeliveryMode::Fixed:
      // An error vector that is itself illegal must not raise errors for ever.
      if (which == LvtError && vector < 16) return;
      post(vector, false);
      return;
    case DeliveryMode::Nmi: post_event(DeliveryMode::Nmi, 0); return;
    case DeliveryMode::Init: post_event(DeliveryMode::Init, 0); return;
    default: return;  // ExtInt follows the line's level: ext_int_ready()
  }
}

void LocalApic::raise_error(uint32_t error) {
  const uint32_t before = std::atomic_ref<uint32_t>(state_.pending_errors).fetch_or(error);
  if ((before & error) != error) post_local(LvtError);
}

void LocalApic::set_lint0(bool high) {
  const bool before = std::atomic_ref<bool>(state_.lint0).exchange(high);
  if (before || !high) return;
  if (kept_.load(std::memory_order_relaxed)) {
    notify();
    return;
  }
  post_local(LvtLint0);
  if (ext_int_ready()) notify();
}

// --- registers

std::optional<uint32_t> LocalApic::read_common(uint32_t number) {
  switch (number) {
    case Version: return version_value;
    case Tpr: return state_.tpr;
    case Ppr: return ppr_;
    case Svr: return state_.svr;
    case Esr: return state_.esr;
    case InitialCount: {
      const std::lock_guard hold(timer_lock_);
      return state_.initial_count;
    }
    case CurrentCount: {
      const std::lock_guard hold(timer_lock_);
      return current_count();
    }
    case DivideConfiguration: return state_.divide_configuration;
    default: break;
  }
  if (number >= IsrFirst && number < TmrFirst) return load(state_.isr[number - IsrFirst]);
  if (number >= TmrFirst && number < IrrFirst) return load(state_.tmr[number - TmrFirst]);
  if (number >= IrrFirst && number < Esr) return load(state_.irr[number - IrrFirst]);
  if (number >= LvtFirst && number < lvt_end) return load(state_.lvt[number - LvtFirst]);
  return std::nullopt;
}

// False where there is no such register to write, or, in x2APIC mode, where a reserved bit is set.
bool LocalApic::write_common(uint32_t number, uint32_t value) {
  const bool strict = mode() == Mode::X2apic;
  const auto legal = [&](uint32_t writable) { return !strict || (value & ~writable) == 0; };
  switch (number) {
    case Tpr:
      if (!legal(0xff)) return false;
      set_tpr(value & 0xff);
      return true;
    case Eoi:
      if (!legal(0)) return false;
      end_of_interrupt();
      return true;
    case Svr:
      if (!legal(svr_writable)) return false;
      set_svr(value & svr_writable);
      return true;
    case Esr:
      if (!legal(0)) return false;
      // A write latches what has happened since the last one (11.5.3).
      state_.esr = std::atomic_ref<uint32_t>(state_.pending_errors).exchange(0);
      return true;
    case InitialCount: {
      const std::lock_guard hold(timer_lock_);
      if (timer_mode() == TimerMode::TscDeadline) return true;
      state_.initial_count = value;
      start_count();
      return true;
    }
    case DivideConfiguration: {
      if (!legal(divide_writable)) return false;
      const std::lock_guard hold(timer_lock_);
      const uint32_t count = current_count();
      state_.divide_configuration = value & divide_writable;
      if (count != 0) {
        state_.timer_deadline_ns = clock_.now_ns() + count * divisor();
        arm(state_.timer_deadline_ns);
      }
      return true;
    }
    default: break;
  }
  if (number >= LvtFirst && number < lvt_end) {
    const unsigned which = number - LvtFirst;
    if (!legal(lvt_writable[which] | lvt_read_only)) return false;
    set_lvt(which, value & lvt_writable[which]);
    return true;
  }
  return false;
}

void LocalApic::set_svr(uint32_t value) {
  store(state_.svr, value);
  if ((value & svr_enable) != 0) return;
  for (uint32_t& lvt : state_.lvt) store(lvt, lvt | lvt_mask);  // 11.4.7.2
}

void LocalApic::set_lvt(unsigned which, uint32_t value) {
  if ((state_.svr & svr_enable) == 0) value |= lvt_mask;
  if (which == LvtTimer) {
    const std::lock_guard hold(timer_lock_);
    const bool was_deadline = timer_mode() == TimerMode::TscDeadline;
    store(state_.lvt[which], value);
    // Changing to or from TSC-deadline mode disarms the timer (11.5.4.1).
    if (was_deadline != (timer_mode() == TimerMode::TscDeadline)) {
      stop_timer();
      state_.tsc_deadline = 0;
    }
    return;
  }
  store(state_.lvt[which], value);
  if (which == LvtLint0) notify_if_ready();
}

uint32_t LocalApic::read_register(uint32_t offset) {
  if (mode() != Mode::Xapic) return 0xffff'ffff;
  if (offset % 16 != 0 || offset >= 0x1000) return 0;
  const uint32_t number = offset / 16;
  switch (number) {
    case Id: return index_ << 24;
    case Apr:
    case Eoi:
    case Rrd: return 0;
    case Ldr: return state_.ldr;
    case Dfr: return state_.dfr;
    case IcrLow: return static_cast<uint32_t>(state_.icr);
    case IcrHigh: return static_cast<uint32_t>(state_.icr >> 32);
    default: break;
  }
  if (const auto value = read_common(number)) return *value;
  raise_error(error_illegal_register);
  return 0;
}

void LocalApic::write_register(uint32_t offset, uint32_t value) {
  if (mode() != Mode::Xapic || offset % 16 != 0 || offset >= 0x1000) return;
  const uint32_t number = offset / 16;
  switch (number) {
    case Id: return;
    case Ldr: store(state_.ldr, value & 0xff00'0000); return;
    case Dfr: store(state_.dfr, value | 0x0fff'ffff); return;
    case IcrLow:
      state_.icr = (state_.icr & 0xffff'ffff'0000'0000) | (value & icr_low_writable);
      send_ipi(state_.icr, false);
      return;
    case IcrHigh: state_.icr = (state_.icr & 0xffff'ffff) | static_cast<uint64_t>(value & 0xff00'0000) << 32; return;
    default: break;
  }
  if (!write_common(number, value)) raise_error(error_illegal_register);
}

std::optional<uint64_t> LocalApic::read_msr(uint32_t msr) {
  if (msr == msr_apic_base) return load(state_.apic_base);
  if (msr == msr_tsc_deadline) {
    const std::lock_guard hold(timer_lock_);
    return state_.tsc_deadline;
  }
  if (msr < msr_x2apic_first || msr > msr_x2apic_last || mode() != Mode::X2apic) return std::nullopt;
  const uint32_t number = msr - msr_x2apic_first;
  switch (number) {
    case Id: return index_;
    case Ldr: return (index_ >> 4) << 16 | 1u << (index_ & 15);
    case IcrLow: return state_.icr;
    default: return read_common(number);
  }
}

bool LocalApic::write_msr(uint32_t msr, uint64_t value) {
  if (msr == msr_apic_base) return set_apic_base(value);
  if (msr == msr_tsc_deadline) {
    {
      const std::lock_guard hold(timer_lock_);
      if (timer_mode() != TimerMode::TscDeadline) return true;
      state_.tsc_deadline = value;
      start_deadline();
      if (value == 0 || state_.tsc_deadline != 0) return true;
    }
    post_local(LvtTimer);  // the deadline has passed already
    return true;
  }
  if (msr < msr_x2apic_first || msr > msr_x2apic_last || mode() != Mode::X2apic) return false;
  const uint32_t number = msr - msr_x2apic_first;
  if (number == IcrLow) {
    value &= ~icr_status;
    if ((value & ~icr_x2apic_writable) != 0) return false;
    state_.icr = value;
    send_ipi(value, true);
    return true;
  }
  if (value >> 32 != 0) return false;
  const auto low = static_cast<uint32_t>(value);
  if (number == SelfIpi) {
    if (low > 0xff) return false;
    self_ipi(static_cast<uint8_t>(low));
    return true;
  }
  return write_common(number, low);
}

// 11.12.5.1: from disabled only to xAPIC, from x2APIC only to disabled.
bool LocalApic::set_apic_base(uint64_t value) {
  if ((value & base_reserved_) != 0) return false;
  const Mode before = mode();
  const bool enable = (value & base_enable) != 0;
  const bool x2apic = (value & base_x2apic) != 0;
  if (x2apic && !enable) return false;
  if (before == Mode::X2apic && enable && !x2apic) return false;
  if (before == Mode::Disabled && x2apic) return false;
  if (before != Mode::Disabled && !enable) {
    // What was programmed is lost; the local vectors come back masked (11.4.3).
    initialize();
    store(state_.lvt[LvtLint0], lvt_mask);
  }
  store(state_.apic_base, value);
  if (before == Mode::Xapic && x2apic) state_.icr &= 0xffff'ffff;
  notify_if_ready();
  return true;
}

// --- interprocessor interrupts (11.6.1)

void LocalApic::send_ipi(uint64_t icr, bool wide) {
  const ApicMessage message{.destination = static_cast<uint32_t>(wide ? icr >> 32 : icr >> 56),
                            .logical = (icr >> 11 & 1) != 0,
                            .wide = wide,
                            .mode = static_cast<DeliveryMode>(icr >> 8 & 7),
                            .vector = static_cast<uint8_t>(icr)};
  const bool asserted = (icr >> 14 & 1) != 0;
  const bool level_triggered = (icr >> 15 & 1) != 0;
  const bool fixed = message.mode == DeliveryMode::Fixed || message.mode == DeliveryMode::LowestPriority;
  // INIT level de-assert does nothing since the Pentium 4.
  if (message.mode == DeliveryMode::Init && level_triggered && !asserted) return;
  if (fixed && message.vector < 16) {
    raise_error(error_send_illegal_vector);
    return;
  }
  switch (icr >> 18 & 3) {
    case 0: bus_.deliver(message); return;
    case 1:
      if (fixed || message.mode == DeliveryMode::Nmi) accept(message.mode, message.vector, false);
      return;
    case 2: bus_.broadcast(message, nullptr); return;
    default: bus_.broadcast(message, this); return;
  }
}

void LocalApic::self_ipi(uint8_t vector) {
  if (vector < 16) {
    raise_error(error_send_illegal_vector);
    return;
  }
  accept(DeliveryMode::Fixed, vector, false);
}

// --- timer (11.5.4)

LocalApic::TimerMode LocalApic::timer_mode() const {
  return static_cast<TimerMode>(load(state_.lvt[LvtTimer]) >> 17 & 3);
}

uint64_t LocalApic::divisor() const { return state_.timer_divisor(); }

uint32_t LocalApic::current_count() const {
  if (state_.timer_deadline_ns == 0 || timer_mode() == TimerMode::TscDeadline) return 0;
  const uint64_t now = clock_.now_ns();
  uint64_t left = 0;
  if (now < state_.timer_deadline_ns) {
    left = state_.timer_deadline_ns - now;
  } else if (timer_mode() == TimerMode::Periodic) {
    const uint64_t period = state_.initial_count * divisor();
    if (period == 0) return 0;
    left = period - (now - state_.timer_deadline_ns) % period;
  }
  return static_cast<uint32_t>(std::min<uint64_t>((left + divisor() - 1) / divisor(), 0xffff'ffff));
}

void LocalApic::stop_timer() { state_.timer_deadline_ns = 0; }

void LocalApic::start_count() {
  if (state_.initial_count == 0) {
    stop_timer();
    return;
  }
  state_.timer_deadline_ns = clock_.now_ns() + state_.initial_count * divisor();
  arm(state_.timer_deadline_ns);
}

void LocalApic::start_deadline() {
  stop_timer();
  if (state_.tsc_deadline == 0) return;
  const uint64_t tsc = clock_.tsc();
  if (state_.tsc_deadline <= tsc) {
    state_.tsc_deadline = 0;
    return;
  }
  // Rounded up: never early.
  const uint64_t ns = chipset::scale_up(state_.tsc_deadline - tsc, chipset::ns_per_s, clock_.tsc_hz());
  state_.timer_deadline_ns = clock_.now_ns() + std::min(ns, longest_delay_ns);
  arm(state_.timer_deadline_ns);
}

// Guests move the deadline far more often than it passes: a timer that is armed for an earlier time stays as it is, and
// is armed anew when it fires.
void LocalApic::arm(uint64_t deadline_ns) {
  if (kept_.load(std::memory_order_relaxed)) return;
  if (armed_ns_ != 0 && armed_ns_ <= deadline_ns) return;
  armed_ns_ = deadline_ns;
  timer_->arm(deadline_ns);
}

void LocalApic::timer_expired() {
  {
    const std::lock_guard hold(timer_lock_);
    armed_ns_ = 0;
    if (state_.timer_deadline_ns == 0 || kept_.load(std::memory_order_relaxed)) return;
    const uint64_t now = clock_.now_ns();
    if (now < state_.timer_deadline_ns) {
      arm(state_.timer_deadline_ns);
      return;
    }
    const uint64_t period = state_.initial_count * divisor();
    if (timer_mode() == TimerMode::Periodic && period != 0) {
      // What was missed comes as one interrupt, not as a burst.
      state_.timer_deadline_ns += ((now - state_.timer_deadline_ns) / period + 1) * period;
      arm(std::max(state_.timer_deadline_ns, now + shortest_interval_ns));
    } else {
      stop_timer();
      state_.tsc_deadline = 0;
    }
  }
  post_local(LvtTimer);
}

}  // namespace caisson
