#include "devices/firmware/flash.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/log.h"

namespace caisson {
namespace {

// Table "Command Bus Cycles".
enum Command : uint8_t {
  program_setup_40 = 0x40,
  program_setup_10 = 0x10,
  erase_setup = 0x20,
  clear_status = 0x50,
  lock_setup = 0x60,
  read_status = 0x70,
  read_identifier = 0x90,
  read_query = 0x98,
  buffered_program = 0xe8,
  confirm = 0xd0,
  lock_block = 0x01,
  lock_down_block = 0x2f,
  read_array = 0xff,
};

// Table "Status Register Description".
enum Status : uint8_t {
  ready = 1 << 7,
  erase_error = 1 << 5,
  program_error = 1 << 4,
  voltage_error = 1 << 3,
  locked_error = 1 << 1,
};
constexpr uint8_t sequence_error = erase_error | program_error;

constexpr uint8_t manufacturer = 0x89, device = 0x18;
constexpr uint32_t no_buffer = ~uint32_t{0};

constexpr uint64_t block_of(uint64_t offset) { return offset / Flash::block_size * Flash::block_size; }

// JESD68.01, tables 1 to 4, and the primary vendor's table behind them. Offsets from 0x10 on.
std::array<uint8_t, 0x36> query_table(uint64_t size) {
  const auto blocks = static_cast<uint32_t>(size / Flash::block_size - 1);
  std::array<uint8_t, 0x36> table{};
  const auto put = [&](unsigned offset, std::initializer_list<uint32_t> bytes) {
    for (const uint32_t byte : bytes) table[offset++ - 0x10] = static_cast<uint8_t>(byte);
  };
  put(0x10, {'Q', 'R', 'Y', 0x01, 0x00, 0x31, 0x00});            // Intel's extended command set, its table at 0x31
  put(0x1b, {0x17, 0x20});                                       // 1.7 to 2.0 V
  put(0x1f, {7, 7, 10, 0, 1, 1, 2, 0});                          // typical times and how much longer at most: 2^n
  put(0x27, {static_cast<uint32_t>(std::bit_width(size - 1))});  // 2^n bytes, of which not all need be there
  put(0x28, {0, 0});                                             // x8
  put(0x2a, {std::countr_zero(Flash::buffer_size), 0});
  put(0x2c, {1, blocks, blocks >> 8, Flash::block_size >> 8, Flash::block_size >> 16});
  // Version 1.4; instant individual block locking.
  put(0x31, {'P', 'R', 'I', '1', '4', 1 << 5, 0, 0, 0, 0, 1, 0, 0x18, 0x00});
  return table;
}

}  // namespace

Flash::Flash(std::span<const uint8_t> content, Store store) : content_(content.size()), store_(std::move(store)) {
  CAISSON_CHECK(content.size() % block_size == 0 && content.size() <= largest);
  std::ranges::copy(content, content_.bytes().begin());
}

Flash::~Flash() {
  settle();
  if (bus_ == nullptr) return;
  bus_->remove_direct(*this);
  bus_->unmap(Space::Memory, *this, 0);
}

void Flash::map(Bus& bus, uint64_t base) {
  bus_ = &bus;
  bus.map(Space::Memory, base, content_.size(), *this, 0);
  show_array();
}

// By every way to the array all that was done to it is in the store.
void Flash::show_array() {
  if (bus_ == nullptr) return;
  const bool show = state_.mode == Mode::Array && state_.next == Next::Command;
  bus_->set_direct(*this, 0, show ? content_.bytes() : std::span<uint8_t>{}, false);
}

uint64_t Flash::read(unsigned, uint64_t offset, unsigned size) {
  uint64_t value = 0;
  if (state_.mode == Mode::Array && offset + size <= content_.size()) {
    std::memcpy(&value, &content_[offset], size);
    return value;
  }
  for (unsigned i = 0; i < size; ++i) value |= uint64_t{read_byte(offset + i)} << (8 * i);
  return value;
}

uint8_t Flash::read_byte(uint64_t offset) {
  switch (state_.mode) {
    case Mode::Array: break;
    case Mode::Status: settle(); return state_.status;
    case Mode::Identifier:
      switch (offset % block_size) {
        case 0: return manufacturer;
        case 1: return device;
        case 2: return is_locked(offset) ? 1 : 0;
        default: return 0;
      }
    case Mode::Query: {
      const auto table = query_table(content_.size());
      const uint64_t at = offset % 0x100;
      return at >= 0x10 && at - 0x10 < table.size() ? table[at - 0x10] : 0;
    }
  }
  return offset < content_.size() ? content_[offset] : 0xff;
}

// An 8-bit part sees a wider write as several.
void Flash::write(unsigned, uint64_t offset, unsigned size, uint64_t value) {
  for (unsigned i = 0; i < size && offset + i < content_.size(); ++i) {
    write_byte(offset + i, static_cast<uint8_t>(value >> (8 * i)));
  }
  show_array();
}

void Flash::write_byte(uint64_t offset, uint8_t value) {
  switch (std::exchange(state_.next, Next::Command)) {
    case Next::Command: command(offset, value); break;
    case Next::ProgramData:
      if (!refuse_locked(offset, program_error)) program(offset, value);
      state_.status |= ready;
      break;
    case Next::EraseConfirm:
      if (value != confirm) {
        bad_sequence();
      } else {
        if (!refuse_locked(state_.block, erase_error)) erase(state_.block);
        state_.status |= ready;
      }
      break;
    case Next::LockConfirm: {
      uint8_t& byte = state_.locked[state_.block / block_size / 8];
      const auto bit = static_cast<uint8_t>(1u << (state_.block / block_size % 8));
      if (value == lock_block || value == lock_down_block) {
        byte |= bit;
      } else if (value == confirm) {
        byte &= static_cast<uint8_t>(~bit);
      } else {
        bad_sequence();
        break;
      }
      state_.status |= ready;
      break;
    }
    case Next::BufferCount: begin_buffer(value); break;
    case Next::BufferData: take_buffered(offset, value); break;
    case Next::BufferConfirm:
      if (value == confirm && block_of(offset) == state_.block) {
        program_buffer();
      } else {
        bad_sequence();
      }
      break;
  }
}

void Flash::command(uint64_t offset, uint8_t value) {
  state_.block = static_cast<uint32_t>(block_of(offset));
  state_.mode = Mode::Status;
  switch (value) {
    case program_setup_40:
    case program_setup_10: state_.next = Next::ProgramData; break;
    case erase_setup: state_.next = Next::EraseConfirm; break;
    case lock_setup: state_.next = Next::LockConfirm; break;
    case buffered_program:
      settle();
      state_.status |= ready;  // a buffer is free
      state_.next = Next::BufferCount;
      break;
    case read_status: break;
    case clear_status:
      settle();
      state_.status = 0;
      state_.mode = Mode::Array;
      break;
    case read_identifier: state_.mode = Mode::Identifier; break;
    case read_query: state_.mode = Mode::Query; break;
    // Read array; what is no command leads there, too.
    default:
      settle();
      state_.mode = Mode::Array;
      break;
  }
}

bool Flash::is_locked(uint64_t offset) const {
  const uint64_t block = offset / block_size;
  return (state_.locked[block / 8] >> (block % 8) & 1) != 0;
}

bool Flash::refuse_locked(uint64_t offset, uint8_t kind) {
  if (!is_locked(offset)) return false;
  state_.status |= locked_error | kind;
  return true;
}

void Flash::program(uint64_t offset, uint8_t value) {
  if ((content_[offset] & ~value) == 0) return;
  content_[offset] &= value;
  changed(offset, 1);
}

void Flash::erase(uint64_t block) {
  std::ranges::fill(content_.bytes().subspan(block, block_size), uint8_t{0xff});
  changed(block, block_size);
}

void Flash::begin_buffer(uint8_t count) {
  if (count >= buffer_size) {
    bad_sequence();
    return;
  }
  state_.buffered = count;
  state_.buffer_at = no_buffer;
  state_.buffer_valid = {};
  state_.next = Next::BufferData;
}

void Flash::take_buffered(uint64_t offset, uint8_t value) {
  if (state_.buffer_at == no_buffer) state_.buffer_at = static_cast<uint32_t>(offset / buffer_size * buffer_size);
  if (offset / buffer_size * buffer_size != state_.buffer_at || block_of(offset) != state_.block) {
    bad_sequence();
    return;
  }
  state_.buffer[offset % buffer_size] = value;
  state_.buffer_valid[offset % buffer_size] = 1;
  state_.next = state_.buffered == 0 ? Next::BufferConfirm : Next::BufferData;
  if (state_.buffered != 0) --state_.buffered;
}

void Flash::program_buffer() {
  state_.status |= ready;
  if (refuse_locked(state_.block, program_error)) return;
  for (size_t i = 0; i < buffer_size; ++i) {
    if (state_.buffer_valid[i] != 0) program(state_.buffer_at + i, state_.buffer[i]);
  }
}

void Flash::bad_sequence() { state_.status |= ready | sequence_error; }

void Flash::changed(uint64_t offset, uint64_t size) {
  const bool none = changed_from_ == changed_to_;
  changed_from_ = none ? offset : std::min(changed_from_, offset);
  changed_to_ = none ? offset + size : std::max(changed_to_, offset + size);
}

void Flash::settle() {
  if (changed_from_ == changed_to_) return;
  const auto bytes = content_.bytes().subspan(changed_from_, changed_to_ - changed_from_);
  const auto done = store_(changed_from_, bytes);
  if (done) {
    changed_from_ = changed_to_ = 0;
    return;
  }
  // Kept, so that the next time tries again.
  if (!std::exchange(failed_, true)) log::error("{}", done.error().message);
  state_.status |= voltage_error | sequence_error;
}

void Flash::reset() {
  settle();
  state_ = State{};
  show_array();
}

Result<> Flash::restore(std::span<const uint8_t> in) {
  State state = state_;
  if (auto done = fields::restore(state, in); !done) return done;
  if (state.mode > Mode::Query || state.next > Next::BufferConfirm || state.block % block_size != 0 ||
      state.block >= content_.size() || state.buffered >= buffer_size) {
    return fail("flash: the saved state is not one that it can be in");
  }
  const bool in_array = state.buffer_at % buffer_size == 0 && state.buffer_at < content_.size();
  if (!(in_array && block_of(state.buffer_at) == state.block) && state.buffer_at != no_buffer) {
    return fail("flash: the saved state has a buffer at {:#x}, which is not in its block", state.buffer_at);
  }
  if (state.next == Next::BufferConfirm && state.buffer_at == no_buffer) {
    return fail("flash: the saved state is about to program what has not come");
  }
  settle();
  state_ = state;
  show_array();
  return {};
}

}  // namespace caisson
