// A USB stick: a disk image behind Bulk-Only Transport.
//   Spec     USB Mass Storage Class Bulk-Only Transport 1.0 (sections are its)
//   Models   commands of a SCSI disk (scsi.h) on one logical unit, the thirteen cases of what host and device expect,
//            reset recovery
//   Omits    several logical units
//   Threads  under the device lock
//
// A driver of this transport takes a stick for one without a cache, so a write ends when it is on the medium. Data is
// copied in pieces: what the guest's rings name has nothing to do with an image's sectors.
#pragma once

#include <array>
#include <cstdint>

#include "backend/block_backend.h"
#include "devices/usb/device.h"
#include "devices/usb/scsi.h"

namespace caisson::usb {

class Stick final : public UsbDevice {
 public:
  static constexpr size_t piece = 64 * 1024;  // of a transfer: a multiple of the block
  static constexpr uint8_t to_host = 1, from_host = 2;

  enum class Phase : uint8_t {
    Command,  // waits for one
    Answer,   // `buffer` goes to the host, then nothing
    Read,     // pieces of the image go to the host
    Write,    // pieces come from the host
    Flush,    // of what was written
    Swallow,  // what comes from the host is for nothing
    Status,
    Broken,  // no valid command came: until a reset (6.6.1)
  };
  struct State {
    UsbDevice::State device;
    ScsiDisk::State disk;
    Phase phase = Phase::Command;
    uint8_t status = 0;  // bCSWStatus
    uint32_t tag = 0;
    uint32_t host_left = 0;  // of what the host wants to move; in the end the residue
    uint64_t offset = 0;     // of the image, where the next piece is
    uint32_t left = 0;       // bytes that are still to be read, written, swallowed
    uint32_t taken = 0;      // of `buffer`, by the host
    fields::Bytes<piece> buffer;
    static constexpr auto fields() {
      using fields::row;
      return fields::table<State>(row<1>("device", &State::device), row<2>("disk", &State::disk),
                                  row<3>("phase", &State::phase), row<4>("status", &State::status),
                                  row<5>("tag", &State::tag), row<6>("host_left", &State::host_left),
                                  row<7>("offset", &State::offset), row<8>("left", &State::left),
                                  row<9>("taken", &State::taken), row<10>("buffer", &State::buffer));
    }
  };

  // `image` outlives this. `serial`: letters, digits, signs; drivers tell sticks apart by it. Empty: the image's id.
  Stick(BlockBackend& image, std::string_view serial);
  ~Stick() override;

  void quiesce() override { image_.drain(); }
  void save(fields::Buffer& out) const override;
  [[nodiscard]] Result<> restore(std::span<const uint8_t> in) override;

 protected:
  [[nodiscard]] std::optional<std::vector<uint8_t>> class_in(const Setup& setup) override;
  [[nodiscard]] bool class_out(const Setup& setup, std::span<const uint8_t> data) override;
  [[nodiscard]] Moved send(unsigned endpoint, std::span<uint8_t> into) override;
  [[nodiscard]] Moved take(unsigned endpoint, std::span<const uint8_t> bytes, bool last) override;
  void forget() override;
  [[nodiscard]] bool may_go_on(unsigned, bool) override { return now_.phase != Phase::Broken; }

 private:
  void command();
  void begin(const ScsiPlan& plan, bool host_reads);
  void end(bool host_reads);
  void mismatched(bool host_reads);
  void submit(BlockOp op);
  void done(BlockOp op, int error);
  void to_status();
  [[nodiscard]] Moved take_command(std::span<const uint8_t> bytes, bool last);
  [[nodiscard]] Moved give(std::span<uint8_t> into);

  BlockBackend& image_;
  ScsiDisk disk_;
  State now_;  // `device` and `disk` only while saving
  bool in_flight_ = false;
  bool discarding_ = false;  // what the image still answers is for nobody
};

}  // namespace caisson::usb
