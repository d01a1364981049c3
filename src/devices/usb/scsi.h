// The commands of a SCSI disk: what each one moves. Who carries them (stick.h) moves it.
//   Spec     SPC-4 and SBC-3 (sections as marked)
//   Models   INQUIRY with VPD pages, capacity, reads, writes, write protection, sense data, mode pages
//   Omits    caches (what is written is on the medium), formatting, reservations, VERIFY with data
//   Threads  under the device lock
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "backend/block_backend.h"
#include "base/fields.h"

namespace caisson::usb {

struct ScsiPlan {
  enum class Kind : uint8_t {
    Done,    // nothing moves; whether it has failed the sense data tells
    Answer,  // `bytes` to the host
    Read,    // image to host
    Write,   // host to image, and to the medium
    Flush,
  };
  Kind kind = Kind::Done;
  std::vector<uint8_t> bytes{};
  uint64_t offset = 0, length = 0;  // of the image, in bytes; inside it
};

class ScsiDisk {
 public:
  static constexpr uint64_t block = 512;
  static constexpr uint64_t most_blocks = 65536;  // of a command: 32 MiB

  struct State {
    uint8_t sense_key = 0;    // SPC-4, 4.5.6; 0: the last command went well
    uint16_t sense_code = 0;  // annex D
    bool stopped = false;     // by START STOP UNIT: the medium is ejected
    static constexpr auto fields() {
      using fields::row;
      return fields::table<State>(row<1>("sense_key", &State::sense_key), row<2>("sense_code", &State::sense_code),
                                  row<3>("stopped", &State::stopped));
    }
  };

  // `image` outlives this. `serial`: letters, digits, signs.
  ScsiDisk(const BlockBackend& image, std::string serial) : image_(image), serial_(std::move(serial)) {}

  // A command descriptor block of 1 to 16 bytes.
  [[nodiscard]] ScsiPlan start(std::span<const uint8_t> block);
  // The image has answered a plan with an error (errno).
  void failed(bool writing, int error);
  [[nodiscard]] bool good() const { return state_.sense_key == 0; }
  void reset() { state_ = {}; }
  [[nodiscard]] const State& state() const { return state_; }
  void restore(const State& state) { state_ = state; }

 private:
  ScsiPlan check(uint8_t key, uint16_t code);
  [[nodiscard]] ScsiPlan inquiry(std::span<const uint8_t> command);
  [[nodiscard]] ScsiPlan vital_page(uint8_t page, size_t room);
  [[nodiscard]] ScsiPlan transfer(bool writes, uint64_t first, uint64_t count);
  [[nodiscard]] ScsiPlan mode_sense(std::span<const uint8_t> command, bool ten);
  [[nodiscard]] uint64_t blocks() const { return image_.size() / block; }

  const BlockBackend& image_;
  const std::string serial_;
  State state_;
};

}  // namespace caisson::usb
