// A parallel NOR flash memory with Intel's command set: where UEFI firmware keeps its variables.
//   Spec     Intel StrataFlash Embedded Memory (P30) data sheet 306666, section 11 "Device Operations" and appendix A
//            "CFI"; JEDEC JESD68.01; one x8 part with one region of equal erase blocks
//   Models   read array, status, identifier and CFI query; program byte, buffered program, block erase, clear status,
//   block
//            locks (which can be set and protect; none is set at reset)
//   Omits    suspend, protection registers, configuration register, busy times
//   Differs  Clear Status clears "ready" too, until the next operation: OVMF knows a flash by that. What is programmed
//   only
//            clears bits, as in the part. The array need not have a power of two as its size
//   Stored   what was programmed or erased is in the store before a guest can see that it is done: by its status, or by
//            reading the array again
//   Threads  none of its own; called under the device lock, which is held while the store writes
//   Regions  0: the array
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>

#include "base/fields.h"
#include "bus/bus.h"
#include "bus/device.h"
#include "memory/page_memory.h"

namespace caisson {

class Flash final : public Device {
 public:
  static constexpr uint64_t block_size = 4096;
  static constexpr uint64_t largest = uint64_t{4} << 20;
  static constexpr size_t buffer_size = 64;  // bytes of one buffered program, which lie in one part of so many

  // Makes these bytes durable at this offset; an error becomes a failed program or erase.
  using Store = std::function<Result<>(uint64_t offset, std::span<const uint8_t> bytes)>;

  enum class Mode : uint8_t { Array, Status, Identifier, Query };
  // What the next write is.
  enum class Next : uint8_t { Command, ProgramData, EraseConfirm, LockConfirm, BufferCount, BufferData, BufferConfirm };

  struct State {
    Mode mode = Mode::Array;
    Next next = Next::Command;
    uint8_t status = 0x80;
    uint32_t block = 0;      // offset of the block that a command of two writes is about
    uint8_t buffered = 0;    // bytes that are still to come, less one
    uint32_t buffer_at = 0;  // the first byte's offset; ~0: none has come
    std::array<uint8_t, buffer_size> buffer{};
    std::array<uint8_t, buffer_size> buffer_valid{};         // 1: the byte is to be programmed
    std::array<uint8_t, largest / block_size / 8> locked{};  // a bit for each block
    static constexpr auto fields() {
      using fields::row;
      return fields::table<State>(row<1>("mode", &State::mode), row<2>("next", &State::next),
                                  row<3>("status", &State::status), row<4>("block", &State::block),
                                  row<5>("buffered", &State::buffered), row<6>("buffer_at", &State::buffer_at),
                                  row<7>("buffer", &State::buffer), row<8>("buffer_valid", &State::buffer_valid),
                                  row<9>("locked", &State::locked));
    }
  };

  // `content`: whole blocks, at most `largest`.
  Flash(std::span<const uint8_t> content, Store store);
  ~Flash() override;
  Flash(const Flash&) = delete;
  Flash& operator=(const Flash&) = delete;

  // All of it at `base`. While the array is read it is memory that an engine may let the guest at; `bus` outlives the
  // device.
  void map(Bus& bus, uint64_t base);

  [[nodiscard]] std::span<const uint8_t> content() const { return content_.bytes(); }

  [[nodiscard]] std::string_view name() const override { return "flash"; }
  uint64_t read(unsigned region, uint64_t offset, unsigned size) override;
  void write(unsigned region, uint64_t offset, unsigned size, uint64_t value) override;
  void reset() override;
  void save(fields::Buffer& out) const override { fields::save(state_, out); }
  [[nodiscard]] Result<> restore(std::span<const uint8_t> in) override;

 private:
  [[nodiscard]] uint8_t read_byte(uint64_t offset);
  void write_byte(uint64_t offset, uint8_t value);
  void command(uint64_t offset, uint8_t value);
  [[nodiscard]] bool is_locked(uint64_t offset) const;
  [[nodiscard]] bool refuse_locked(uint64_t offset, uint8_t kind);
  void program(uint64_t offset, uint8_t value);
  void erase(uint64_t block);
  void begin_buffer(uint8_t count);
  void take_buffered(uint64_t offset, uint8_t value);
  void program_buffer();
  void bad_sequence();
  void changed(uint64_t offset, uint64_t size);
  void settle();
  void show_array();

  Bus* bus_ = nullptr;
  PageMemory content_;
  Store store_;
  State state_;
  uint64_t changed_from_ = 0, changed_to_ = 0;  // what the store does not have yet
  bool failed_ = false;                         // said once
};

}  // namespace caisson
