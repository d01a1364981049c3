// A Serial ATA CD-ROM drive: a packet device that reads one image of 2048-byte blocks.
//   Spec     ACS-3, 7.18 (PACKET); MMC-6 and SPC-4 for packet commands
//   Models   one data track; tray, medium lock, sense data
//   Omits    audio, writing, CSS, several sessions
//   Threads  under the device lock
#pragma once

#include "backend/block_backend.h"
#include "devices/storage/ata.h"

namespace caisson::storage {

class Cdrom final : public AtaDevice {
 public:
  static constexpr unsigned block = 2048;

  // `image` outlives this; null: no medium, ever.
  explicit Cdrom(const BlockBackend* image) : image_(image) {}

  [[nodiscard]] AtaPlan start(const AtaCommand& command) override;
  [[nodiscard]] AtaPlan data_out(const AtaCommand& command, std::span<const uint8_t> bytes) override;
  [[nodiscard]] AtaResult failed(const AtaCommand& command, int error) override;
  [[nodiscard]] AtaResult signature() const override;
  void reset() override;

 private:
  using Packet = std::array<uint8_t, 16>;

  [[nodiscard]] AtaPlan identify() const;
  [[nodiscard]] AtaPlan packet(const Packet& packet);
  [[nodiscard]] AtaPlan read(uint64_t first, uint64_t count);
  [[nodiscard]] AtaPlan answer(std::vector<uint8_t> bytes, size_t most) const;
  [[nodiscard]] AtaPlan check(uint8_t key, uint16_t code);  // ends with CHECK CONDITION
  [[nodiscard]] AtaResult checked() const;

  [[nodiscard]] AtaPlan request_sense(const Packet& packet);
  [[nodiscard]] AtaPlan inquiry(const Packet& packet);
  [[nodiscard]] AtaPlan mode_sense(const Packet& packet, bool ten);
  [[nodiscard]] AtaPlan start_stop(const Packet& packet);
  [[nodiscard]] AtaPlan read_toc(const Packet& packet);
  [[nodiscard]] AtaPlan get_configuration(const Packet& packet);
  [[nodiscard]] AtaPlan event_status(const Packet& packet);
  [[nodiscard]] AtaPlan disc_information(const Packet& packet);
  [[nodiscard]] AtaPlan read_cd(const Packet& packet);

  [[nodiscard]] bool has_medium() const { return image_ != nullptr && !state_.tray_open; }
  [[nodiscard]] uint64_t blocks() const { return has_medium() ? image_->size() / block : 0; }

  const BlockBackend* image_;
};

}  // namespace caisson::storage
