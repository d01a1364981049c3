#include "devices/storage/nvme.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <utility>

#include "base/check.h"

namespace caisson::storage {
namespace {

using namespace nvme;

// The ids of QEMU's controller, which drivers know as one without quirks; they look for the class.
constexpr pci::Identity identity{.vendor = 0x1b36,
                                 .device = 0x0010,
                                 .revision = 2,
                                 .class_code = 0x010802,
                                 .subsystem_vendor = 0x1af4,
                                 .subsystem = 0x1100,
                                 .interrupt_pin = 1};

constexpr uint32_t low(uint64_t value) { return static_cast<uint32_t>(value); }
constexpr uint32_t high(uint64_t value) { return static_cast<uint32_t>(value >> 32); }
constexpr uint64_t with_low(uint64_t value, uint32_t part) { return (value & ~uint64_t{0xffff'ffff}) | part; }
constexpr uint64_t with_high(uint64_t value, uint32_t part) { return low(value) | uint64_t{part} << 32; }

constexpr uint32_t page_mask = page_size - 1;
constexpr uint32_t admin_sizes_writable = 0x0fff'0fff;
constexpr uint32_t shutdown_running = 1u << csts_shutdown_shift, shutdown_done = 2u << csts_shutdown_shift,
                   shutdown_bits = 3u << csts_shutdown_shift;

constexpr uint32_t entries(const Nvme::CompletionQueue& queue) {
  return (queue.tail + queue.size - queue.head) % queue.size;
}

}  // namespace

Nvme::Nvme(GuestMemory& memory, MsiSink& msi, BlockBackend& image, std::string_view serial)
    : PciDevice(identity),
      memory_(memory),
      image_(image),
      serial_(serial.empty() ? image.id() : serial),
      name_("nvme-" + serial_),
      msix_(msi, config_, queue_count, msix_bar) {
  add_bar(register_bar, {.size = register_size, .wide = true, .widths = {.min = 4, .max = 4}});
  add_bar(msix_bar, {.size = pci::Msix::bar_size});
}

Nvme::~Nvme() {
  draining_ = Draining::Discard;
  image_.drain();
}

// --- Registers, 3.1 ---

uint64_t Nvme::read(unsigned region, uint64_t offset, unsigned size) {
  return region == msix_bar ? msix_.read(offset, size) : read_register(offset);
}

void Nvme::write(unsigned region, uint64_t offset, unsigned size, uint64_t value) {
  if (region == msix_bar) {
    msix_.write(offset, size, value);
  } else if (offset >= doorbells_offset) {
    ring(offset - doorbells_offset, low(value));
  } else {
    write_register(offset, low(value));
  }
}

uint32_t Nvme::read_register(uint64_t offset) const {
  switch (static_cast<Register>(offset)) {
    case Register::CAP: return (most_entries - 1) | cap_contiguous | cap_timeout;
    case Register::CAP_high: return cap_high_nvm_commands;
    case Register::VS: return version_1_4;
    case Register::INTMS:
    case Register::INTMC: return state_.masked;
    case Register::CC: return state_.control;
    case Register::CSTS: return state_.status;
    case Register::AQA: return state_.admin_sizes;
    case Register::ASQ: return low(state_.admin_requests);
    case Register::ASQ_high: return high(state_.admin_requests);
    case Register::ACQ: return low(state_.admin_answers);
    case Register::ACQ_high: return high(state_.admin_answers);
  }
  return 0;  // doorbells, too
}

void Nvme::write_register(uint64_t offset, uint32_t value) {
  switch (static_cast<Register>(offset)) {
    case Register::INTMS:
      state_.masked |= value;
      update_interrupt();
      return;
    case Register::INTMC:
      state_.masked &= ~value;
      update_interrupt();
      return;
    case Register::CC: write_control(value); return;
    case Register::AQA: state_.admin_sizes = value & admin_sizes_writable; return;
    case Register::ASQ: state_.admin_requests = with_low(state_.admin_requests, value & ~page_mask); return;
    case Register::ASQ_high: state_.admin_requests = with_high(state_.admin_requests, value); return;
    case Register::ACQ: state_.admin_answers = with_low(state_.admin_answers, value & ~page_mask); return;
    case Register::ACQ_high: state_.admin_answers = with_high(state_.admin_answers, value); return;
    default: return;
  }
}

// --- Life cycle, 7.3 and 7.6 ---

void Nvme::write_control(uint32_t value) {
  const uint32_t before = state_.control;
  state_.control = value & cc_writable;
  if ((~before & value & cc_enable) != 0) enable();
  if ((before & ~value & cc_enable) != 0) disable();
  if ((value >> cc_shutdown_shift & 3) != 0 && (state_.status & shutdown_bits) == 0) shut_down();
}

void Nvme::enable() {
  const uint32_t requests = (state_.admin_sizes & 0xfff) + 1, answers = (state_.admin_sizes >> 16) + 1;
  const bool sound = (state_.control & cc_must_be_zero) == 0 && requests >= 2 && answers >= 2 &&
                     memory_.contains(state_.admin_requests, requests * sizeof(Command)) &&
                     memory_.contains(state_.admin_answers, answers * sizeof(Completion));
  if (!sound) {
    fatal();
    return;
  }
  state_.requests[0] = {.base = state_.admin_requests, .size = requests};
  state_.answers[0] = {.base = state_.admin_answers, .size = answers, .interrupts = true};
  state_.status |= csts_ready;
}

// 7.3.2: a controller reset. The admin queue's registers stay.
void Nvme::disable() {
  draining_ = Draining::Discard;
  image_.drain();
  draining_ = Draining::No;
  active_.clear();
  free_slots_.clear();
  step_later_.clear();
  promised_ = {};
  in_flight_ = 0;
  starved_ = flushing_ = false;
  state_.requests = {};
  state_.answers = {};
  state_.features = {};
  state_.event_request_count = 0;
  state_.events = 0;
  state_.event_masked = false;
  state_.status = 0;
  state_.masked = 0;
  update_interrupt();
}

// 7.6.2: what was written gets to the medium; then the host may cut the power.
void Nvme::shut_down() {
  state_.status |= shutdown_running;
  flushing_ = true;
  ++in_flight_;
  image_.submit({.op = BlockOp::Flush, .done = [this](int) {
                   if (draining_ == Draining::Discard) return;
                   --in_flight_;
                   flushing_ = false;
                   state_.status = (state_.status & ~shutdown_bits) | shutdown_done;
                 }});
}

void Nvme::fatal() { state_.status |= csts_fatal; }

void Nvme::config_write(unsigned offset, unsigned size, uint32_t value) {
  PciDevice::config_write(offset, size, value);
  msix_.update();
  update_interrupt();
  if (offset < pci::command + 2 && offset + size > pci::command) pump_all();
}

void Nvme::reset() {
  disable();
  state_ = {};
  msix_.reset();
  reset_config();
}

// --- Queues, 4.1 ---

bool Nvme::has_room(unsigned completion_queue) const {
  const CompletionQueue& queue = state_.answers[completion_queue];
  return entries(queue) + promised_[completion_queue] < queue.size - 1;
}

void Nvme::ring(uint64_t offset, uint32_t value) {
  const auto index = static_cast<unsigned>(offset / 8);
  const bool answers = (offset & 4) != 0;
  if (!running()) return;
  if (index >= queue_count || (answers ? state_.answers[index].size : state_.requests[index].size) == 0) {
    raise_event(event_bad_doorbell);
    return;
  }
  if (!answers) {
    SubmissionQueue& queue = state_.requests[index];
    if (value >= queue.size) {
      raise_event(event_bad_doorbell_value);
      return;
    }
    queue.tail = value;
    image_.begin_batch();
    pump(index);
    image_.end_batch();
  } else {
    CompletionQueue& queue = state_.answers[index];
    if (value >= queue.size || (value + queue.size - queue.head) % queue.size > entries(queue)) {
      raise_event(event_bad_doorbell_value);
      return;
    }
    queue.head = value;
    update_interrupt();
    if (index == 0) tell_events();
    for (unsigned i = 0; i < queue_count; ++i) {
      if (state_.requests[i].completion == index) pump(i);
    }
  }
  // A queue's deletion may have freed places.
  if (starved_ && in_flight_ < most_in_flight) pump_all();
}

void Nvme::pump_all() {
  starved_ = false;
  for (unsigned i = 0; i < queue_count; ++i) pump(i);
}

void Nvme::pump(unsigned index) {
  SubmissionQueue& queue = state_.requests[index];
  while (running() && bus_master() && draining_ == Draining::No && queue.size != 0 && queue.head != queue.tail &&
         has_room(queue.completion)) {
    if (in_flight_ >= most_in_flight) {
      starved_ = true;
      return;
    }
    Command command;
    if (!memory_.read_object(queue.base + uint64_t{queue.head} * sizeof command, command)) {
      fatal();
      return;
    }
    queue.head = (queue.head + 1) % queue.size;
    execute(index, command);
  }
}

void Nvme::execute(unsigned queue, const Command& command) {
  // An answer at once has its place, whatever events and answers of others are told meanwhile.
  unsigned& promised = promised_[state_.requests[queue].completion];
  ++promised;
  // Neither fused operations nor SGLs (4.2).
  const MaybeAnswer answer = command.flags != 0 ? MaybeAnswer{{Status::invalid_field}}
                             : queue == 0       ? administrate(command)
                                                : start(queue, command);
  --promised;
  if (answer) {
    complete(queue, command, *answer);
  } else if (queue == 0) {
    tell_events();
  }
}

void Nvme::complete(unsigned queue, const Command& command, Answer answer) {
  if (answer.status != Status::success) note_error(queue, command, answer.status);
  post(queue, command.id, answer);
}

void Nvme::post(unsigned queue, uint16_t id, Answer answer) {
  if (!running()) return;
  const SubmissionQueue& requests = state_.requests[queue];
  CompletionQueue& answers = state_.answers[requests.completion];
  CAISSON_CHECK(has_room(requests.completion));
  Completion entry;
  entry.result = answer.result;
  entry.head = static_cast<uint16_t>(requests.head);
  entry.queue = static_cast<uint16_t>(queue);
  entry.id = id;
  entry.status = static_cast<uint16_t>(static_cast<unsigned>(answer.status) << 1 | (answers.phase ? 1 : 0));
  const Gpa address = answers.base + uint64_t{answers.tail} * sizeof entry;
  const std::span bytes{reinterpret_cast<const uint8_t*>(&entry), sizeof entry};
  // The phase tag says that the rest is there (4.6), so it comes last.
  constexpr size_t last = offsetof(Completion, id);
  bool written = memory_.write(address, bytes.first(last));
  std::atomic_thread_fence(std::memory_order_release);
  written = written && memory_.write(address + last, bytes.subspan(last));
  if (!written) {
    fatal();
    return;
  }
  if (++answers.tail == answers.size) {
    answers.tail = 0;
    answers.phase = !answers.phase;
  }
  if (answers.interrupts) msix_.notify(answers.vector);
  update_interrupt();
}

void Nvme::note_error(unsigned queue, const Command& command, Status status) {
  const uint64_t number = ++state_.health.errors;
  state_.error_log[number % error_entries] = {.number = number,
                                              .queue = static_cast<uint16_t>(queue),
                                              .id = command.id,
                                              .status = static_cast<uint16_t>(static_cast<unsigned>(status) << 1),
                                              .lba = queue == 0 ? 0 : command.dword10 | uint64_t{command.dword11} << 32,
                                              .name_space = command.name_space};
}

// 7.5: the pin, while there is no MSI-X, shows whether any queue has answers that the host has not consumed.
void Nvme::update_interrupt() {
  const bool asserted = !msix_.enabled() && (state_.masked & 1) == 0 &&
                        std::ranges::any_of(state_.answers, [](const CompletionQueue& queue) {
                          return queue.interrupts && queue.head != queue.tail;
                        });
  const bool before = (config_.get(pci::status, 2) & pci::status_interrupt) != 0;
  if (asserted != before) set_intx(asserted);
}

// --- Asynchronous events, 5.2 ---

void Nvme::raise_event(uint8_t event) {
  state_.events = static_cast<uint8_t>(state_.events | 1u << event);
  // 5.14.1.1: no command is to blame.
  note_error(0, {.id = 0xffff}, Status::success);
  tell_events();
}

void Nvme::tell_events() {
  if (state_.events == 0 || state_.event_masked || state_.event_request_count == 0 || !running() || !has_room(0)) {
    return;
  }
  const auto event = static_cast<unsigned>(std::countr_zero(state_.events));
  const uint16_t id = state_.event_requests[0];
  state_.events = static_cast<uint8_t>(state_.events & ~(1u << event));
  std::shift_left(state_.event_requests.begin(), state_.event_requests.end(), 1);
  --state_.event_request_count;
  state_.event_masked = true;
  post(0, id, {.result = event << 8 | static_cast<uint32_t>(LogPage::errors) << 16});
}

// --- Saving ---

// Completes what is at the image.
void Nvme::settle() {
  while (in_flight_ != 0) {
    draining_ = Draining::Complete;
    image_.drain();
    draining_ = Draining::No;
    for (const size_t slot : std::exchange(step_later_, {})) submit_step(slot);
  }
}

void Nvme::quiesce() {
  do {
    settle();
    pump_all();
  } while (in_flight_ != 0);
}

void Nvme::save(fields::Buffer& out) const {
  State state = state_;
  state.config = config_.state();
  state.msix = msix_.state();
  fields::save(state, out);
}

Result<> Nvme::check(const State& state) const {
  for (unsigned i = 0; i < queue_count; ++i) {
    const SubmissionQueue& requests = state.requests[i];
    const CompletionQueue& answers = state.answers[i];
    const auto sound = [](const auto& queue, unsigned most) {
      return queue.size == 0
                 ? queue.head == 0 && queue.tail == 0
                 : queue.size >= 2 && queue.size <= most && queue.head < queue.size && queue.tail < queue.size;
    };
    const unsigned most = i == 0 ? 4096 : most_entries;
    if (!sound(requests, most) || !sound(answers, most) || answers.vector >= msix_.vectors()) {
      return fail("saved NVMe queue {} is none that a guest could make", i);
    }
    if (requests.completion >= queue_count || (requests.size != 0 && state.answers[requests.completion].size == 0)) {
      return fail("saved NVMe queue {} has nowhere to answer", i);
    }
  }
  if (state.event_request_count > most_event_requests) return fail("saved NVMe state holds too many event requests");
  if ((state.status & csts_ready) != 0 && (state.requests[0].size == 0 || state.answers[0].size == 0)) {
    return fail("saved NVMe controller is ready without an admin queue");
  }
  return {};
}

Result<> Nvme::restore(std::span<const uint8_t> in) {
  State state = state_;
  state.config = config_.state();
  state.msix = msix_.state();
  if (auto done = fields::restore(state, in); !done) return done;
  if (auto done = check(state); !done) return done;
  if (auto done = msix_.restore(state.msix); !done) return done;
  if (auto done = restore_config(state.config); !done) return done;
  disable();
  state_ = state;
  state_.control &= cc_writable;
  state_.admin_sizes &= admin_sizes_writable;
  state_.events &= 3;
  update_interrupt();
  return {};
}

}  // namespace caisson::storage
