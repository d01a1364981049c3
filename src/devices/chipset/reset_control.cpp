#include "devices/chipset/reset_control.h"

namespace caisson {
namespace {

enum Region : unsigned { Control, SystemControlA };

constexpr uint8_t control_kept = 0x0a;  // SYS_RST, full reset
constexpr uint8_t control_reset_cpu = 0x04;
constexpr uint8_t system_a_fast_reset = 0x01;

}  // namespace

Result<> ResetControl::restore(std::span<const uint8_t> in) {
  State state = state_;
  if (auto done = fields::restore(state, in); !done) return done;
  if ((state.reset_control & ~(control_kept | control_reset_cpu)) != 0) {
    return fail("reset-control: the saved register has reserved bits set; the snapshot is damaged");
  }
  state_ = state;
  return {};
}

uint64_t ResetControl::read(unsigned region, uint64_t, unsigned) {
  return region == Control ? state_.reset_control : state_.system_control_a;
}

void ResetControl::write(unsigned region, uint64_t, unsigned, uint64_t value) {
  const auto byte = static_cast<uint8_t>(value);
  uint8_t& old = region == Control ? state_.reset_control : state_.system_control_a;
  const uint8_t trigger = region == Control ? control_reset_cpu : system_a_fast_reset;
  const bool rises = (byte & trigger) != 0 && (old & trigger) == 0;
  old = region == Control ? byte & (control_kept | control_reset_cpu) : byte;
  if (rises) power_.request(PowerEvent::Reset);
}

}  // namespace caisson
