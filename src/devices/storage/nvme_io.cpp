// I/O commands, and the memory that commands name.
#include <algorithm>
#include <array>
#include <cerrno>

#include "devices/storage/nvme.h"

namespace caisson::storage {

using namespace nvme;

// --- Physical region pages, 4.3 ---

// What the command's PRPs name of `length` bytes, neighbours put together.
Status Nvme::gather(const Command& command, uint64_t length, std::vector<Segment>& out) const {
  const auto add = [&](Gpa address, uint64_t size) {
    if (!memory_.contains(address, size)) return false;
    if (!out.empty() && out.back().address + out.back().length == address &&
        memory_.contains(out.back().address, out.back().length + size)) {
      out.back().length += size;
    } else {
      out.push_back({address, size});
    }
    length -= size;
    return true;
  };
  constexpr uint64_t in_page = page_size - 1;
  if ((command.prp1 & 3) != 0) return Status::invalid_prp_offset;
  if (!add(command.prp1, std::min(length, page_size - (command.prp1 & in_page)))) return Status::data_transfer_error;
  if (length == 0) return Status::success;
  if (length <= page_size) {
    if ((command.prp2 & in_page) != 0) return Status::invalid_prp_offset;
    return add(command.prp2, length) ? Status::success : Status::data_transfer_error;
  }
  // A list. It ends at its page's end, where the last entry names the next page of the list if that does not suffice.
  Gpa list = command.prp2;
  if ((list & 7) != 0) return Status::invalid_prp_offset;
  std::array<uint64_t, page_size / 8> page;
  while (length != 0) {
    const size_t room = (page_size - (list & in_page)) / 8;
    const uint64_t needed = (length + in_page) / page_size;
    const auto count = static_cast<size_t>(std::min<uint64_t>(room, needed));
    if (!memory_.read(list, {reinterpret_cast<uint8_t*>(page.data()), count * 8})) return Status::data_transfer_error;
    const bool goes_on = needed > room;
    for (size_t i = 0; i < count - (goes_on ? 1 : 0); ++i) {
      if ((page[i] & in_page) != 0) return Status::invalid_prp_offset;
      if (!add(page[i], std::min(length, page_size))) return Status::data_transfer_error;
    }
    if (!goes_on) break;
    list = page[count - 1];
    // Pages but the first are full ones, so each brings the end nearer.
    if ((list & in_page) != 0) return Status::invalid_prp_offset;
  }
  return Status::success;
}

Nvme::Answer Nvme::give(const Command& command, std::span<const uint8_t> bytes) {
  std::vector<Segment> segments;
  if (const Status status = gather(command, bytes.size(), segments); status != Status::success) return {status};
  for (const Segment& segment : segments) {
    // Checked by gather(); RAM does not go away.
    std::ignore = memory_.write(segment.address, bytes.first(segment.length));
    bytes = bytes.subspan(segment.length);
  }
  return {};
}

// --- Commands, 6 ---

bool Nvme::in_range(uint64_t first, uint64_t blocks) const {
  const uint64_t all = image_.size() / block;
  return first <= all && blocks <= all - first;
}

bool Nvme::to_medium(const Command& command) const {
  return (command.dword12 & force_unit_access) != 0 || state_.features.write_cache == 0;
}

Nvme::MaybeAnswer Nvme::start(unsigned queue, const Command& command) {
  auto active = std::make_unique<Active>();
  active->queue = queue;
  active->command = command;
  const auto opcode = static_cast<Io>(command.opcode);
  const bool all = opcode == Io::flush && command.name_space == every_name_space;
  const bool known = opcode == Io::flush || opcode == Io::write || opcode == Io::read || opcode == Io::write_zeroes ||
                     opcode == Io::dataset_management;
  if (!known) return Answer{Status::invalid_opcode};
  if (command.name_space != the_name_space && !all) return Answer{Status::invalid_namespace};
  if (image_.read_only() && opcode != Io::read && opcode != Io::flush) return Answer{Status::write_protected};
  Answer answer;
  switch (opcode) {
    case Io::flush: active->steps.push_back({.op = BlockOp::Flush}); break;
    case Io::read:
    case Io::write: answer = transfer(*active, opcode == Io::write); break;
    case Io::write_zeroes: answer = write_zeroes(*active); break;
    case Io::dataset_management: answer = manage_dataset(*active); break;
  }
  if (answer.status != Status::success || active->steps.empty()) return answer;
  begin(std::move(active));
  return {};
}

Nvme::Answer Nvme::transfer(Active& active, bool writes) {
  const Command& command = active.command;
  const uint64_t first = command.dword10 | uint64_t{command.dword11} << 32;
  const uint64_t blocks = (command.dword12 & 0xffff) + 1;
  const uint64_t length = blocks * block;
  if (length > page_size << transfer_log2) return {Status::invalid_field};
  if (!in_range(first, blocks)) return {Status::lba_out_of_range};
  std::vector<Segment> segments;
  if (const Status status = gather(command, length, segments); status != Status::success) return {status};
  BlockRequest request{.op = writes ? BlockOp::Write : BlockOp::Read, .offset = first * block, .length = length};
  request.buffers.reserve(segments.size());
  for (const Segment& segment : segments) request.buffers.push_back({memory_.base() + segment.address, segment.length});
  active.steps.push_back(std::move(request));
  Health& health = state_.health;
  if (writes) {
    if (to_medium(command)) active.steps.push_back({.op = BlockOp::Flush});
    ++health.write_commands;
    health.blocks_written += blocks;
  } else {
    active.filled = std::move(segments);
    ++health.read_commands;
    health.blocks_read += blocks;
  }
  return {};
}

Nvme::Answer Nvme::write_zeroes(Active& active) {
  const Command& command = active.command;
  const uint64_t first = command.dword10 | uint64_t{command.dword11} << 32;
  const uint64_t blocks = (command.dword12 & 0xffff) + 1;
  if (!in_range(first, blocks)) return {Status::lba_out_of_range};
  active.steps.push_back({.op = BlockOp::WriteZeroes,
                          .may_unmap = (command.dword12 & deallocate) != 0,
                          .offset = first * block,
                          .length = blocks * block});
  if (to_medium(command)) active.steps.push_back({.op = BlockOp::Flush});
  return {};
}

// 6.7: what it says of future accesses is a hint that nobody heeds.
Nvme::Answer Nvme::manage_dataset(Active& active) {
  const Command& command = active.command;
  if ((command.dword11 & dataset_deallocate) == 0) return {};
  std::vector<Range> ranges((command.dword10 & 0xff) + 1);
  const uint64_t length = ranges.size() * sizeof(Range);
  std::vector<Segment> segments;
  if (const Status status = gather(command, length, segments); status != Status::success) return {status};
  std::span bytes{reinterpret_cast<uint8_t*>(ranges.data()), length};
  for (const Segment& segment : segments) {
    std::ignore = memory_.read(segment.address, bytes.first(segment.length));
    bytes = bytes.subspan(segment.length);
  }
  for (const Range& range : ranges) {
    if (!in_range(range.first, range.blocks)) return {Status::lba_out_of_range};
    if (range.blocks == 0) continue;
    active.steps.push_back(
        {.op = BlockOp::Discard, .offset = range.first * block, .length = uint64_t{range.blocks} * block});
  }
  return {};
}

// --- The image ---

void Nvme::begin(std::unique_ptr<Active> active) {
  ++in_flight_;
  ++promised_[state_.requests[active->queue].completion];
  size_t slot = active_.size();
  if (free_slots_.empty()) {
    active_.emplace_back();
  } else {
    slot = free_slots_.back();
    free_slots_.pop_back();
  }
  active_[slot] = std::move(active);
  submit_step(slot);
}

void Nvme::submit_step(size_t slot) {
  Active& active = *active_[slot];
  BlockRequest request = std::move(active.steps[active.next]);
  request.done = [this, slot](int error) { step_done(slot, error); };
  image_.submit(std::move(request));
}

void Nvme::step_done(size_t slot, int error) {
  Active& active = *active_[slot];
  // The image wrote past written(); translations of these pages die now, whatever becomes of the command.
  for (const Segment& segment : active.filled) memory_.written(segment.address, segment.length);
  if (draining_ == Draining::Discard) return;
  if (error != 0 || ++active.next == active.steps.size()) {
    finish(slot, error);
  } else if (draining_ == Draining::Complete) {
    step_later_.push_back(slot);
  } else {
    submit_step(slot);
  }
}

void Nvme::finish(size_t slot, int error) {
  const auto active = std::move(active_[slot]);
  free_slots_.push_back(slot);
  --in_flight_;
  --promised_[state_.requests[active->queue].completion];
  Answer answer;
  if (error != 0) {
    ++state_.health.media_errors;
    answer.status = active->queue == 0       ? Status::internal_error
                    : error == ENOSPC        ? Status::capacity_exceeded
                    : error == EROFS         ? Status::write_protected
                    : active->filled.empty() ? Status::write_fault
                                             : Status::read_error;
  }
  complete(active->queue, active->command, answer);
  if (starved_ && draining_ == Draining::No) pump_all();
}

}  // namespace caisson::storage
