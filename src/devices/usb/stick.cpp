#include "devices/usb/stick.h"

#include <algorithm>
#include <cstring>
#include <string>

#include <fmt/core.h>

namespace caisson::usb {
namespace {

constexpr uint8_t class_storage = 8, subclass_scsi = 6, protocol_bulk_only = 0x50;
constexpr uint8_t request_reset = 0xff, request_most_lun = 0xfe;  // 3.1, 3.2

// 5.1 and 5.2
struct CommandWrapper {
  uint32_t signature = 0;
  uint32_t tag = 0;
  uint32_t length = 0;
  uint8_t flags = 0;  // bit 7: to the host
  uint8_t unit = 0;
  uint8_t block_length = 0;
  std::array<uint8_t, 16> block{};
};
constexpr size_t command_size = 31;
struct StatusWrapper {
  uint32_t signature = 0;
  uint32_t tag = 0;
  uint32_t residue = 0;
  uint8_t status = 0;
};
constexpr size_t status_size = 13;
constexpr uint32_t command_signature = 0x4342'5355, status_signature = 0x5342'5355;
constexpr uint8_t passed = 0, failed = 1, phase_error = 2;

// 4.1.1: twelve digits at least, of which the last make it unlike others; letters of hexadecimal numbers only, which
// others' serial numbers cannot all be written with, so each of their bytes is two digits.
std::string digits(std::string_view serial) {
  std::string out;
  for (const char letter : serial.substr(0, 20)) out += fmt::format("{:02X}", static_cast<unsigned char>(letter));
  if (out.size() < 12) out.insert(0, 12 - out.size(), '0');
  return out;
}

}  // namespace

Stick::Stick(BlockBackend& image, std::string_view serial)
    : UsbDevice(
          {.speed = Speed::Super,
           .vendor = 0x46f4,  // the ids of QEMU's, which systems know as one without quirks
           .product = 0x0001,
           .maker = "Caisson",
           .name = "USB Stick",
           .serial = digits(serial.empty() ? image.id() : serial),
           .interface_class = class_storage,
           .interface_subclass = subclass_scsi,
           .interface_protocol = protocol_bulk_only,
           .endpoints = {{to_host | type_in, endpoint_bulk, 1024, 0, 15}, {from_host, endpoint_bulk, 1024, 0, 15}}}),
      image_(image),
      disk_(image, std::string{serial.empty() ? image.id().substr(0, 20) : serial.substr(0, 20)}) {}

Stick::~Stick() {
  discarding_ = true;
  image_.drain();
}

void Stick::forget() {
  discarding_ = true;
  if (in_flight_) image_.drain();
  discarding_ = false;
  in_flight_ = false;
  disk_.reset();
  now_ = {};
}

// --- Requests, 3 ---

std::optional<std::vector<uint8_t>> Stick::class_in(const Setup& setup) {
  if ((setup.type & type_kind) != kind_class || setup.request != request_most_lun) return {};
  return std::vector<uint8_t>{0};
}

bool Stick::class_out(const Setup& setup, std::span<const uint8_t>) {
  if ((setup.type & type_kind) != kind_class || setup.request != request_reset) return false;
  forget();  // halts stay (3.1)
  return true;
}

// --- Commands, 5 and 6 ---

Moved Stick::take_command(std::span<const uint8_t> bytes, bool last) {
  std::vector<uint8_t>& buffer = now_.buffer.data;
  // One byte too many is enough to know.
  const auto kept = bytes.first(std::min(bytes.size(), command_size + 1 - std::min(buffer.size(), command_size + 1)));
  buffer.insert(buffer.end(), kept.begin(), kept.end());
  if (last && !buffer.empty()) command();
  return {.count = bytes.size()};
}

void Stick::command() {
  CommandWrapper wrapper;
  const bool whole = now_.buffer.data.size() == command_size;
  if (whole) std::memcpy(static_cast<void*>(&wrapper), now_.buffer.data.data(), command_size);
  now_.buffer.data.clear();
  // 6.2
  if (!whole || wrapper.signature != command_signature || wrapper.unit != 0 || wrapper.block_length == 0 ||
      wrapper.block_length > wrapper.block.size()) {
    now_.phase = Phase::Broken;
    halt(to_host, true);
    halt(from_host, false);
    return;
  }
  now_.tag = wrapper.tag;
  now_.host_left = wrapper.length;
  now_.status = passed;
  now_.taken = now_.left = 0;
  const ScsiPlan plan = disk_.start(std::span(wrapper.block).first(wrapper.block_length));
  begin(plan, (wrapper.flags & type_in) != 0);
}

// Nothing is left to do but what the host has announced: it gets nothing, or what comes is for nothing.
void Stick::end(bool host_reads) {
  now_.buffer.data.clear();
  now_.taken = 0;
  now_.left = host_reads ? 0 : now_.host_left;
  now_.phase = now_.host_left == 0 ? Phase::Status : host_reads ? Phase::Answer : Phase::Swallow;
}

// The host moves what it has announced, and hears that it was something else (6.7, cases 2, 3, 7, 8, 10 and 13).
void Stick::mismatched(bool host_reads) {
  now_.status = phase_error;
  end(host_reads);
}

void Stick::begin(const ScsiPlan& plan, bool host_reads) {
  using Kind = ScsiPlan::Kind;
  const uint64_t moves = plan.kind == Kind::Answer ? plan.bytes.size() : plan.length;
  const bool in = plan.kind == Kind::Answer || plan.kind == Kind::Read;
  if (moves > now_.host_left || (moves != 0 && in != host_reads)) return mismatched(host_reads);
  now_.offset = plan.offset;
  switch (plan.kind) {
    case Kind::Done:
      if (!disk_.good()) now_.status = failed;
      end(host_reads);
      break;
    case Kind::Answer:
      now_.buffer.data = plan.bytes;
      now_.phase = Phase::Answer;
      break;
    case Kind::Read:
      now_.left = static_cast<uint32_t>(plan.length);
      now_.phase = Phase::Read;
      submit(BlockOp::Read);
      break;
    case Kind::Write:
      now_.left = static_cast<uint32_t>(plan.length);
      now_.phase = Phase::Write;
      break;
    case Kind::Flush:
      if (now_.host_left != 0) return mismatched(host_reads);
      now_.phase = Phase::Flush;
      submit(BlockOp::Flush);
      break;
  }
}

void Stick::to_status() {
  now_.buffer.data.clear();
  now_.taken = now_.left = 0;
  now_.phase = Phase::Status;
}

// --- The image ---

void Stick::submit(BlockOp op) {
  BlockRequest request{.op = op};
  std::vector<uint8_t>& buffer = now_.buffer.data;
  if (op == BlockOp::Read) {
    buffer.resize(std::min<size_t>(piece, now_.left));
    now_.taken = 0;
  }
  if (op != BlockOp::Flush) {
    request.offset = now_.offset;
    request.length = buffer.size();
    request.buffers = {{buffer.data(), buffer.size()}};
  }
  request.done = [this, op](int error) { done(op, error); };
  in_flight_ = true;
  image_.submit(std::move(request));
}

// Submits nothing: the image may be draining.
void Stick::done(BlockOp op, int error) {
  in_flight_ = false;
  if (discarding_) return;
  const auto length = static_cast<uint32_t>(now_.buffer.data.size());
  if (error != 0) {
    disk_.failed(op != BlockOp::Read, error);
    now_.status = failed;
    end(op == BlockOp::Read);
  } else if (op == BlockOp::Read) {
    now_.offset += length;
    now_.left -= length;
  } else if (op == BlockOp::Write) {
    now_.offset += length;
    now_.left -= length;
    now_.buffer.data.clear();
    if (now_.left == 0) now_.phase = Phase::Flush;
  } else {
    end(false);
  }
  ready(from_host, false);
  ready(to_host, true);
}

// --- Pipes ---

Moved Stick::take(unsigned, std::span<const uint8_t> bytes, bool last) {
  if (!in_flight_ && now_.phase == Phase::Flush) submit(BlockOp::Flush);
  if (in_flight_) return {.kind = Moved::Kind::Later};
  switch (now_.phase) {
    case Phase::Command: return take_command(bytes, last);
    case Phase::Write: {
      std::vector<uint8_t>& buffer = now_.buffer.data;
      const size_t room = std::min<size_t>(piece, now_.left) - buffer.size();
      const auto kept = bytes.first(std::min(bytes.size(), room));
      buffer.insert(buffer.end(), kept.begin(), kept.end());
      now_.host_left -= static_cast<uint32_t>(kept.size());
      if (kept.size() == room) submit(BlockOp::Write);
      return {.count = kept.size()};
    }
    case Phase::Swallow: {
      const size_t count = std::min<size_t>(bytes.size(), now_.left);
      if (count == 0 && !bytes.empty()) return {.kind = Moved::Kind::Later};
      now_.left -= static_cast<uint32_t>(count);
      if (now_.left == 0) to_status();
      return {.count = count};
    }
    default: return {.kind = Moved::Kind::Later};
  }
}

Moved Stick::send(unsigned, std::span<uint8_t> into) {
  if (!in_flight_ && now_.phase == Phase::Flush) submit(BlockOp::Flush);
  if (!in_flight_ && now_.phase == Phase::Read && now_.taken == now_.buffer.data.size()) submit(BlockOp::Read);
  if (in_flight_) return {.kind = Moved::Kind::Later};
  switch (now_.phase) {
    case Phase::Answer:
    case Phase::Read: return give(into);
    case Phase::Status: {
      if (into.size() < status_size) return {.kind = Moved::Kind::TooLong};
      const StatusWrapper wrapper{status_signature, now_.tag, now_.host_left, now_.status};
      std::memcpy(into.data(), &wrapper, status_size);
      now_.phase = Phase::Command;
      return {.count = status_size, .ends = true};
    }
    default: return {.kind = Moved::Kind::Later};
  }
}

Moved Stick::give(std::span<uint8_t> into) {
  const std::span<const uint8_t> rest = std::span(now_.buffer.data).subspan(now_.taken);
  const size_t count = std::min(rest.size(), into.size());
  std::copy_n(rest.begin(), count, into.begin());
  now_.taken += static_cast<uint32_t>(count);
  now_.host_left -= static_cast<uint32_t>(count);
  if (count < rest.size() || (now_.phase == Phase::Read && now_.left != 0)) return {.count = count};
  // Where the host wanted more, it hears by a short packet that there is none.
  to_status();
  return {.count = count, .ends = true};
}

// --- Saving ---

void Stick::save(fields::Buffer& out) const {
  State state = now_;
  state.device = state_;
  state.disk = disk_.state();
  fields::save(state, out);
}

Result<> Stick::restore(std::span<const uint8_t> in) {
  State state = now_;
  state.device = state_;
  state.disk = disk_.state();
  if (auto done = fields::restore(state, in); !done) return done;
  const size_t held = state.buffer.data.size();
  const bool moves = state.phase == Phase::Read || state.phase == Phase::Write;
  const bool on_image = state.offset % ScsiDisk::block == 0 && state.left % ScsiDisk::block == 0 &&
                        state.offset <= image_.size() && state.left <= image_.size() - state.offset;
  if (!sound(state.device) || state.phase > Phase::Broken || state.taken > held || (moves && !on_image) ||
      (moves && held - state.taken + (state.phase == Phase::Read ? uint64_t{state.left} : 0) > state.host_left) ||
      (state.phase == Phase::Answer && held - state.taken > state.host_left) ||
      (state.phase == Phase::Read && state.taken == held && state.left == 0) ||
      (state.phase == Phase::Write &&
       (state.left == 0 || held >= std::min<size_t>(piece, state.left) || state.left - held > state.host_left)) ||
      (state.phase == Phase::Command && held > command_size)) {
    return fail("saved USB stick is in no possible state");
  }
  forget();
  state_ = state.device;
  disk_.restore(state.disk);
  now_ = std::move(state);
  return {};
}

}  // namespace caisson::usb
