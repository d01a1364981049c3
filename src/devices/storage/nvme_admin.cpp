// Admin commands, 5.
#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "devices/storage/nvme.h"

namespace caisson::storage {

using namespace nvme;

namespace {

constexpr uint16_t celsius_40 = 313;  // in kelvin, as all temperatures
constexpr std::string_view model = "Caisson NVMe disk", firmware = "1";

// A structure of so many bytes that is filled in by offset, little-endian.
class Page {
 public:
  explicit Page(size_t size) : bytes_(size) {}
  void put(size_t at, size_t width, uint64_t value) {
    for (size_t i = 0; i < width; ++i) bytes_[at + i] = static_cast<uint8_t>(value >> (8 * i));
  }
  // Padded with spaces.
  void text(size_t at, size_t width, std::string_view value) {
    std::fill_n(bytes_.begin() + static_cast<std::ptrdiff_t>(at), width, uint8_t{' '});
    std::copy_n(value.begin(), std::min(value.size(), width), bytes_.begin() + static_cast<std::ptrdiff_t>(at));
  }
  [[nodiscard]] std::vector<uint8_t> take() { return std::move(bytes_); }

 private:
  std::vector<uint8_t> bytes_;
};

// Features that are a number which a host sets and gets (5.21.1), and what of it can be set.
struct FeatureRow {
  Feature feature;
  uint32_t Nvme::Features::*member;
  uint32_t writable;
};
constexpr FeatureRow feature_rows[] = {
    {Feature::arbitration, &Nvme::Features::arbitration, 0xffff'ff07},
    {Feature::error_recovery, &Nvme::Features::error_recovery, 0x0000'ffff},
    {Feature::volatile_write_cache, &Nvme::Features::write_cache, 1},
    {Feature::interrupt_coalescing, &Nvme::Features::coalescing, 0x0000'ffff},
    {Feature::write_atomicity, &Nvme::Features::write_atomicity, 1},
    {Feature::asynchronous_events, &Nvme::Features::events, 0x0000'001f},
};
constexpr const FeatureRow* row_of(uint8_t feature) {
  for (const FeatureRow& row : feature_rows) {
    if (static_cast<uint8_t>(row.feature) == feature) return &row;
  }
  return nullptr;
}
constexpr uint32_t queues_granted = (Nvme::io_queues - 1) | (Nvme::io_queues - 1) << 16;
constexpr uint32_t feature_saves = 1u << 31;      // dword 10 of Set Features
constexpr uint32_t feature_changeable = 1u << 2;  // what Get Features says of one
constexpr unsigned select_default = 1, select_saved = 2, select_capabilities = 3;
constexpr uint32_t temperature_under_selected = 1u << 20;

}  // namespace

Nvme::MaybeAnswer Nvme::administrate(const Command& command) {
  switch (static_cast<Admin>(command.opcode)) {
    case Admin::delete_submission_queue: return delete_requests(command);
    case Admin::create_submission_queue: return create_requests(command);
    case Admin::get_log_page: return get_log_page(command);
    case Admin::delete_completion_queue: return delete_answers(command);
    case Admin::create_completion_queue: return create_answers(command);
    case Admin::identify: return identify(command);
    case Admin::abort: return abort(command);
    case Admin::set_features: {
      const bool cached = state_.features.write_cache != 0;
      const Answer answer = set_features(command);
      if (!cached || state_.features.write_cache != 0) return answer;
      // 5.21.1.6: what the cache had is on the medium when this has ended.
      auto active = std::make_unique<Active>();
      active->command = command;
      active->steps.push_back({.op = BlockOp::Flush});
      begin(std::move(active));
      return {};
    }
    case Admin::get_features: return get_features(command);
    case Admin::asynchronous_event: return request_event(command);
  }
  return Answer{Status::invalid_opcode};
}

// --- Queues, 5.3 to 5.6 ---

Nvme::Answer Nvme::create_answers(const Command& command) {
  const uint32_t index = command.dword10 & 0xffff, size = (command.dword10 >> 16) + 1, vector = command.dword11 >> 16;
  if (index == 0 || index >= queue_count || state_.answers[index].size != 0) return {Status::invalid_queue};
  if (size < 2 || size > most_entries) return {Status::invalid_queue_size};
  if ((command.dword11 & queue_contiguous) == 0 || (state_.control >> cc_completion_shift & 0xf) != completion_log2) {
    return {Status::invalid_field};
  }
  if (vector >= msix_.vectors()) return {Status::invalid_vector};
  if (command.prp1 % page_size != 0) return {Status::invalid_prp_offset};
  if (!memory_.contains(command.prp1, uint64_t{size} << completion_log2)) return {Status::invalid_field};
  state_.answers[index] = {
      .base = command.prp1, .size = size, .vector = vector, .interrupts = (command.dword11 & queue_interrupts) != 0};
  return {};
}

Nvme::Answer Nvme::create_requests(const Command& command) {
  const uint32_t index = command.dword10 & 0xffff, size = (command.dword10 >> 16) + 1;
  const uint32_t completion = command.dword11 >> 16;
  if (index == 0 || index >= queue_count || state_.requests[index].size != 0) return {Status::invalid_queue};
  if (completion == 0 || completion >= queue_count || state_.answers[completion].size == 0) {
    return {Status::completion_queue_invalid};
  }
  if (size < 2 || size > most_entries) return {Status::invalid_queue_size};
  if ((command.dword11 & queue_contiguous) == 0 || (state_.control >> cc_submission_shift & 0xf) != command_log2) {
    return {Status::invalid_field};
  }
  if (command.prp1 % page_size != 0) return {Status::invalid_prp_offset};
  if (!memory_.contains(command.prp1, uint64_t{size} << command_log2)) return {Status::invalid_field};
  state_.requests[index] = {.base = command.prp1, .size = size, .completion = completion};
  return {};
}

// 5.6: what the image has of it is completed first; what was not taken is forgotten.
Nvme::Answer Nvme::delete_requests(const Command& command) {
  const uint32_t index = command.dword10 & 0xffff;
  if (index == 0 || index >= queue_count || state_.requests[index].size == 0) return {Status::invalid_queue};
  settle();
  state_.requests[index] = {};
  return {};
}

Nvme::Answer Nvme::delete_answers(const Command& command) {
  const uint32_t index = command.dword10 & 0xffff;
  if (index == 0 || index >= queue_count || state_.answers[index].size == 0) return {Status::invalid_queue};
  const bool used = std::ranges::any_of(
      state_.requests, [&](const SubmissionQueue& queue) { return queue.size != 0 && queue.completion == index; });
  if (used) return {Status::invalid_queue_deletion};
  state_.answers[index] = {};
  update_interrupt();
  return {};
}

// --- Identify, 5.15 ---

Nvme::Answer Nvme::identify(const Command& command) {
  enum class What : uint8_t { name_space, controller, active_name_spaces, descriptors };
  std::vector<uint8_t> page(page_size);
  switch (static_cast<What>(command.dword10 & 0xff)) {
    case What::controller: page = describe_controller(); break;
    case What::name_space:
      if (command.name_space != the_name_space) return {Status::invalid_namespace};
      page = describe_name_space();
      break;
    case What::active_name_spaces:
      if (command.name_space >= every_name_space - 1) return {Status::invalid_namespace};
      if (command.name_space < the_name_space) page[0] = the_name_space;
      break;
    case What::descriptors:
      // None: an image's copies would have the same, which drivers take for two ways to one disk. The controller's
      // serial number tells disks apart.
      if (command.name_space != the_name_space) return {Status::invalid_namespace};
      break;
    default: return {Status::invalid_field};
  }
  return give(command, page);
}

std::vector<uint8_t> Nvme::describe_controller() const {
  Page page(page_size);
  page.put(0, 2, config_.get(pci::vendor_id, 2));
  page.put(2, 2, config_.get(pci::subsystem_vendor_id, 2));
  page.text(4, 20, serial_);
  page.text(24, 40, model);
  page.text(64, 8, firmware);
  page.put(72, 1, 6);  // RAB: 64 commands
  page.put(77, 1, transfer_log2);
  page.put(80, 4, version_1_4);
  page.put(111, 1, 1);  // an I/O controller
  page.put(258, 1, 3);  // ACL: four aborts at once, while one is carried out at once
  page.put(259, 1, most_event_requests - 1);
  page.put(260, 1, 0x03);  // one slot for firmware, read-only
  page.put(261, 1, 0x05);  // LPA: health of the name space, which is all there is; long offsets
  page.put(262, 1, error_entries - 1);
  page.put(266, 2, 343);  // WCTEMP, CCTEMP
  page.put(268, 2, 373);
  page.put(512, 1, command_log2 | command_log2 << 4);
  page.put(513, 1, completion_log2 | completion_log2 << 4);
  page.put(516, 4, 1);     // name spaces
  page.put(520, 2, 0x1c);  // ONCS: dataset management, write zeroes, selection in Get Features
  page.put(525, 1, 0x07);  // VWC: a cache; flush takes every name space
  const std::string name = "nqn.2014.08.org.nvmexpress:caisson:" + serial_;  // 7.9
  for (size_t i = 0; i < name.size(); ++i) page.put(768 + i, 1, static_cast<uint8_t>(name[i]));
  return page.take();
}

std::vector<uint8_t> Nvme::describe_name_space() const {
  Page page(page_size);
  const uint64_t blocks = image_.size() / block;
  for (const size_t at : {0, 8, 16}) page.put(at, 8, blocks);  // size, capacity, use
  page.put(24, 1, 1u << 4);                                    // NSFEAT: the preferences below count
  page.put(33, 1, 1u << 3);                                    // DLFEAT: write zeroes may deallocate
  const uint64_t preferred = image_.block_size() / block - 1;
  for (const size_t at : {64, 66, 68, 70}) page.put(at, 2, preferred);  // to write and deallocate: unit, alignment
  page.put(99, 1, image_.read_only() ? 1 : 0);
  page.put(128 + 2, 1, 9);  // blocks of 512 bytes, no metadata
  return page.take();
}

// --- Log pages, 5.14 ---

Nvme::Answer Nvme::get_log_page(const Command& command) {
  const uint64_t length = ((command.dword10 >> 16 | uint64_t{command.dword11 & 0xffff} << 16) + 1) * 4;
  const uint64_t offset = command.dword12 | uint64_t{command.dword13} << 32;
  const bool keeps_event = (command.dword10 & 1u << 15) != 0;
  if (length > page_size << transfer_log2 || offset % 4 != 0) return {Status::invalid_field};
  std::vector<uint8_t> page;
  const auto which = static_cast<LogPage>(command.dword10 & 0xff);
  switch (which) {
    case LogPage::errors: page = describe_errors(); break;
    case LogPage::health: page = describe_health(); break;
    case LogPage::firmware: {
      Page slots(512);
      slots.put(0, 1, 1);  // the first is active
      slots.text(8, 8, firmware);
      page = slots.take();
      break;
    }
    default: return {Status::invalid_log_page};
  }
  if (offset > page.size()) return {Status::invalid_field};
  page.erase(page.begin(), page.begin() + static_cast<std::ptrdiff_t>(offset));
  page.resize(length);  // beyond its end are zeroes
  const Answer answer = give(command, page);
  if (which == LogPage::errors && !keeps_event && answer.status == Status::success) {
    state_.event_masked = false;
    tell_events();
  }
  return answer;
}

// The latest first.
std::vector<uint8_t> Nvme::describe_errors() const {
  constexpr size_t size = 64;
  Page page(error_entries * size);
  const uint64_t all = state_.health.errors;
  for (uint64_t i = 0; i < std::min<uint64_t>(all, error_entries); ++i) {
    const ErrorEntry& entry = state_.error_log[(all - i) % error_entries];
    page.put(i * size, 8, entry.number);
    page.put(i * size + 8, 2, entry.queue);
    page.put(i * size + 10, 2, entry.id);
    page.put(i * size + 12, 2, entry.status);
    page.put(i * size + 14, 2, 0xffff);  // no place in the command is to blame
    page.put(i * size + 16, 8, entry.lba);
    page.put(i * size + 24, 4, entry.name_space);
  }
  return page.take();
}

std::vector<uint8_t> Nvme::describe_health() const {
  Page page(512);
  const Health& health = state_.health;
  const bool warm = celsius_40 >= state_.features.temperature_over || celsius_40 <= state_.features.temperature_under;
  page.put(0, 1, warm ? 1u << 1 : 0);
  page.put(1, 2, celsius_40);
  page.put(3, 1, 100);  // spare, and where too little begins
  page.put(4, 1, 10);
  // In thousands of blocks, rounded up.
  page.put(32, 8, (health.blocks_read + 999) / 1000);
  page.put(48, 8, (health.blocks_written + 999) / 1000);
  page.put(64, 8, health.read_commands);
  page.put(80, 8, health.write_commands);
  page.put(112, 8, 1);  // power cycles
  page.put(160, 8, health.media_errors);
  page.put(176, 8, health.errors);
  return page.take();
}

// --- Features, 5.9 and 5.21 ---

Nvme::Answer Nvme::set_features(const Command& command) {
  const auto id = static_cast<uint8_t>(command.dword10);
  const uint32_t value = command.dword11;
  if ((command.dword10 & feature_saves) != 0) return {Status::not_saveable};
  Features& features = state_.features;
  if (const FeatureRow* row = row_of(id)) {
    features.*row->member = value & row->writable;
    return {};
  }
  switch (static_cast<Feature>(id)) {
    case Feature::power_management: return {(value & 0x1f) == 0 ? Status::success : Status::invalid_field};
    case Feature::temperature_threshold: {
      const uint32_t sensor = value >> 16 & 0xf;
      if (sensor != 0 && sensor != 0xf) return {Status::invalid_field};  // the composite one is the only one
      const bool under = (value & temperature_under_selected) != 0;
      (under ? features.temperature_under : features.temperature_over) = value & 0xffff;
      return {};
    }
    case Feature::number_of_queues: {
      if ((value & 0xffff) == 0xffff || value >> 16 == 0xffff) return {Status::invalid_field};
      const auto made = [](const auto& queue) { return queue.size != 0; };
      if (std::any_of(state_.answers.begin() + 1, state_.answers.end(), made)) return {Status::command_sequence_error};
      return {.result = queues_granted};
    }
    case Feature::interrupt_vector:
      if ((value & 0xffff) >= queue_count) return {Status::invalid_field};
      features.coalescing_disabled[value & 0xffff] = (value >> 16 & 1) != 0;
      return {};
    default: return {Status::invalid_field};
  }
}

Nvme::Answer Nvme::get_features(const Command& command) const {
  const auto id = static_cast<uint8_t>(command.dword10);
  const unsigned select = command.dword10 >> 8 & 7;
  const uint32_t value = command.dword11;
  if (select > select_capabilities) return {Status::invalid_field};
  // Nothing is saved: what would be is the default.
  const Features defaults;
  const Features& features = select == select_default || select == select_saved ? defaults : state_.features;
  const FeatureRow* row = row_of(id);
  const auto feature = static_cast<Feature>(id);
  const bool known = row != nullptr || feature == Feature::power_management ||
                     feature == Feature::temperature_threshold || feature == Feature::number_of_queues ||
                     feature == Feature::interrupt_vector;
  if (!known) return {Status::invalid_field};
  if (select == select_capabilities) return {.result = feature_changeable};
  if (row != nullptr) return {.result = features.*row->member};
  switch (feature) {
    case Feature::temperature_threshold:
      if ((value >> 16 & 0xf) != 0) return {Status::invalid_field};
      return {.result =
                  (value & temperature_under_selected) != 0 ? features.temperature_under : features.temperature_over};
    case Feature::number_of_queues: return {.result = queues_granted};
    case Feature::interrupt_vector: {
      const uint32_t vector = value & 0xffff;
      if (vector >= queue_count) return {Status::invalid_field};
      return {.result = vector | uint32_t{features.coalescing_disabled[vector]} << 16};
    }
    default: return {};
  }
}

// --- Abort and events, 5.1 and 5.2 ---

// What the image has cannot be taken back (result 1); an event request that waits can.
Nvme::Answer Nvme::abort(const Command& command) {
  const uint32_t queue = command.dword10 & 0xffff;
  const auto id = static_cast<uint16_t>(command.dword10 >> 16);
  const auto end = state_.event_requests.begin() + state_.event_request_count;
  const auto found = std::find(state_.event_requests.begin(), end, id);
  if (queue != 0 || found == end || !has_room(0)) return {.result = 1};
  std::copy(found + 1, end, found);
  --state_.event_request_count;
  post(0, id, {Status::abort_requested});
  return {};
}

Nvme::MaybeAnswer Nvme::request_event(const Command& command) {
  if (state_.event_request_count == most_event_requests) return Answer{Status::too_many_event_requests};
  state_.event_requests[state_.event_request_count++] = command.id;
  return {};
}

}  // namespace caisson::storage
