// What a Serial ATA port and the device behind it say to each other: a command, what it takes, and how it ended.
//   Spec     ATA/ATAPI Command Set 3 (ACS-3), 4 (registers), 7 (commands); Serial ATA 3.1, 10.3 (frames)
//   Models   a device as a function from commands to plans: it touches neither guest memory nor an image; the host bus
//            adapter carries plans out
//   Threads  under the device lock
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "base/fields.h"

namespace caisson::storage {

inline constexpr unsigned ata_sector = 512;

// Status register, ACS-3 6.2.
inline constexpr uint8_t status_error = 1 << 0;
inline constexpr uint8_t status_data = 1 << 3;   // DRQ
inline constexpr uint8_t status_seek = 1 << 4;   // obsolete; real drives set it
inline constexpr uint8_t status_ready = 1 << 6;  // DRDY
inline constexpr uint8_t status_busy = 1 << 7;
inline constexpr uint8_t status_good = status_ready | status_seek;

// Error register, ACS-3 6.3. A packet device has its sense key in bits 7:4.
inline constexpr uint8_t error_abort = 1 << 2;
inline constexpr uint8_t error_no_such_address = 1 << 4;
inline constexpr uint8_t error_uncorrectable = 1 << 6;

// The host's registers as they come in a frame (Serial ATA 3.1, 10.3.4).
struct AtaCommand {
  uint8_t command = 0;
  uint16_t features = 0;
  uint64_t lba = 0;  // 48 bits
  uint16_t count = 0;
  uint8_t device = 0;
  bool has_packet = false;
  std::array<uint8_t, 16> packet{};
};

// The device's registers as they go back (10.3.5).
struct AtaResult {
  uint8_t status = status_good;
  uint8_t error = 0;
  uint64_t lba = 0;  // 48 bits
  uint16_t count = 0;
  uint8_t device = 0;
};

struct AtaPlan {
  enum class Kind : uint8_t {
    Done,     // nothing to transfer: `result`
    DataIn,   // `bytes` to the host
    DataOut,  // `length` bytes from the host, then data_out()
    Read,     // image → host: `length` bytes at `offset`
    Write,    // host → image
    Flush,
    Discard,  // `ranges` of the image
  };
  struct Range {
    uint64_t offset = 0, length = 0;  // in bytes
  };
  Kind kind = Kind::Done;
  AtaResult result{};  // if all goes well
  std::vector<uint8_t> bytes{};
  uint64_t offset = 0, length = 0;  // in bytes, multiples of 512 and inside the image
  std::vector<Range> ranges{};
  bool pio = false;          // the frames of a PIO transfer go along
  bool flush_after = false;  // Write: ends when the data is on the disk
};

class AtaDevice {
 public:
  // What a guest can observe of either kind of device, besides the port's registers.
  struct State {
    bool write_cache = true;      // disk
    bool tray_open = false;       // the rest: packet device
    bool locked = false;          // PREVENT ALLOW MEDIUM REMOVAL
    bool medium_changed = false;  // to be told by a unit attention
    uint8_t sense_key = 0;
    uint16_t sense_code = 0;  // additional sense code, qualifier in the low byte
    static constexpr auto fields() {
      using fields::row;
      return fields::table<State>(row<1>("write_cache", &State::write_cache), row<2>("tray_open", &State::tray_open),
                                  row<3>("locked", &State::locked), row<4>("medium_changed", &State::medium_changed),
                                  row<5>("sense_key", &State::sense_key), row<6>("sense_code", &State::sense_code));
    }
  };

  virtual ~AtaDevice() = default;
  [[nodiscard]] virtual AtaPlan start(const AtaCommand& command) = 0;
  // A plan's DataOut has its bytes: what to do with them. Never DataOut again.
  [[nodiscard]] virtual AtaPlan data_out(const AtaCommand& command, std::span<const uint8_t> bytes) = 0;
  // The image could not do what a plan said; `error` is an errno value.
  [[nodiscard]] virtual AtaResult failed(const AtaCommand& command, int error) = 0;
  // Registers after a reset: the device's signature (ACS-3, 9).
  [[nodiscard]] virtual AtaResult signature() const = 0;
  // Power-on, COMRESET and software reset. The tray stays where it is.
  virtual void reset() = 0;

  [[nodiscard]] const State& state() const { return state_; }
  void set_state(const State& state) { state_ = state; }

 protected:
  State state_;
};

// Words of an IDENTIFY answer.
class IdentifyData {
 public:
  void word(unsigned index, unsigned value) {
    bytes_[2 * index] = static_cast<uint8_t>(value);
    bytes_[2 * index + 1] = static_cast<uint8_t>(value >> 8);
  }
  // `words` words of text padded with spaces, the first character of each pair in the high byte (ACS-3, 3.3.10).
  void text(unsigned index, unsigned words, std::string_view characters) {
    for (unsigned i = 0; i < 2 * words; ++i) {
      const char c = i < characters.size() ? characters[i] : ' ';
      bytes_[2 * index + (i ^ 1)] = static_cast<uint8_t>(c >= 0x20 && c < 0x7f ? c : ' ');
    }
  }
  // Makes word 255 what it must be (7.12.7.92).
  [[nodiscard]] std::vector<uint8_t> take() {
    bytes_[510] = 0xa5;
    uint8_t sum = 0;
    for (unsigned i = 0; i < 511; ++i) sum = static_cast<uint8_t>(sum + bytes_[i]);
    bytes_[511] = static_cast<uint8_t>(-sum);
    return {bytes_.begin(), bytes_.end()};
  }

 private:
  std::array<uint8_t, 512> bytes_{};
};

}  // namespace caisson::storage
