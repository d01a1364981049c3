#include "devices/virtio/blk.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>

#include "base/check.h"

namespace caisson::virtio {
namespace {

// Request types, 5.2.6.
constexpr uint32_t type_in = 0;
constexpr uint32_t type_out = 1;
constexpr uint32_t type_flush = 4;
constexpr uint32_t type_get_id = 8;
constexpr uint32_t type_discard = 11;
constexpr uint32_t type_write_zeroes = 13;

constexpr unsigned header_size = 16;
constexpr unsigned range_size = 16;
constexpr uint32_t range_unmap = 1;

// struct virtio_blk_config, 5.2.4.
struct ConfigField {
  enum Offset : uint8_t {
    capacity = 0,
    seg_max = 12,
    blk_size = 20,
    physical_block_exp = 24,
    min_io_size = 26,
    writeback = 32,
    num_queues = 34,
    max_discard_sectors = 36,
    max_discard_seg = 40,
    discard_sector_alignment = 44,
    max_write_zeroes_sectors = 48,
    max_write_zeroes_seg = 52,
    write_zeroes_may_unmap = 56,
  };
};

uint64_t number(std::span<const uint8_t> bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < bytes.size(); ++i) value |= uint64_t{bytes[i]} << (8 * i);
  return value;
}

}  // namespace

Blk::Blk(BlockBackend& backend, const Options& options) : backend_(backend), queues_(options.queues) {
  CAISSON_CHECK(queues_ >= 1 && queues_ <= most_queues);
  const std::string_view serial = options.serial.empty() ? backend.id() : std::string_view{options.serial};
  std::copy_n(serial.begin(), std::min(serial.size(), id_.size()), id_.begin());
  refresh_config();
}

void Blk::refresh_config() {
  const auto put = [&](unsigned at, unsigned width, uint64_t value) {
    for (unsigned i = 0; i < width; ++i) config_[at + i] = static_cast<uint8_t>(value >> (8 * i));
  };
  // Logical blocks are always sectors, so that an image keeps its partition table on any host; the backend's own unit
  // is told as the physical block size.
  const unsigned per_block = backend_.block_size() / sector;
  put(ConfigField::capacity, 8, backend_.size() / sector);
  put(ConfigField::seg_max, 4, queue_size() - 2u);  // header and status take two
  put(ConfigField::blk_size, 4, sector);
  put(ConfigField::physical_block_exp, 1, static_cast<unsigned>(std::bit_width(per_block)) - 1);
  put(ConfigField::min_io_size, 2, per_block);
  put(ConfigField::writeback, 1, state_.write_back);
  put(ConfigField::num_queues, 2, queues_);
  put(ConfigField::max_discard_sectors, 4, max_range_sectors);
  put(ConfigField::max_discard_seg, 4, max_ranges);
  put(ConfigField::discard_sector_alignment, 4, per_block);
  put(ConfigField::max_write_zeroes_sectors, 4, max_range_sectors);
  put(ConfigField::max_write_zeroes_seg, 4, max_ranges);
  put(ConfigField::write_zeroes_may_unmap, 1, 1);
}

void Blk::size_changed() {
  refresh_config();
  transport_->config_changed();
}

uint64_t Blk::features() const {
  uint64_t bits = seg_max | blk_size | topology | flush;
  if (queues_ > 1) bits |= mq;
  bits |= backend_.read_only() ? read_only : config_wce | discard | write_zeroes;
  return bits;
}

void Blk::write_config(unsigned offset, std::span<const uint8_t> bytes) {
  if (offset != ConfigField::writeback || bytes.size() != 1 || (transport_->features() & config_wce) == 0) return;
  state_.write_back = bytes[0] != 0;
  refresh_config();
}

// 5.2.6.2: the cache is write-through unless the driver can flush it and has not switched it off.
bool Blk::write_through() const {
  return (transport_->features() & flush) == 0 || ((transport_->features() & config_wce) != 0 && !state_.write_back);
}

Result<> Blk::restore(std::span<const uint8_t> in) {
  State state = state_;
  if (auto done = fields::restore(state, in); !done) return done;
  state_ = state;
  refresh_config();
  return {};
}

// --- In flight ---

void Blk::stop() {
  draining_ = Draining::Discard;
  backend_.drain();
  draining_ = Draining::No;
  requests_.clear();
  free_slots_.clear();
  flush_later_.clear();
  in_flight_ = {};
  state_ = {};
  refresh_config();
}

void Blk::quiesce() {
  while (std::accumulate(in_flight_.begin(), in_flight_.end(), 0u) != 0) {
    draining_ = Draining::Complete;
    backend_.drain();
    draining_ = Draining::No;
    for (const size_t slot : std::exchange(flush_later_, {})) submit(slot, {.op = BlockOp::Flush});
  }
}

size_t Blk::begin(unsigned index, const Chain& chain) {
  size_t slot = requests_.size();
  if (free_slots_.empty()) {
    requests_.emplace_back();
  } else {
    slot = free_slots_.back();
    free_slots_.pop_back();
  }
  const Segment& last = chain.writable.back();
  requests_[slot] = std::make_unique<Request>();
  requests_[slot]->queue = index;
  requests_[slot]->ticket = chain.ticket;
  requests_[slot]->status_address = last.address + last.length - 1;
  ++in_flight_[index];
  return slot;
}

void Blk::submit(size_t slot, BlockRequest request) {
  ++requests_[slot]->parts;
  request.done = [this, slot](int error) { part_done(slot, error); };
  backend_.submit(std::move(request));
}

void Blk::part_done(size_t slot, int error) {
  Request& request = *requests_[slot];
  // The backend wrote past written(); translations of these pages die now, whatever becomes of the request.
  for (const Segment& segment : request.filled) transport_->memory().written(segment.address, segment.length);
  if (error != 0) request.error = error;
  if (--request.parts != 0 || draining_ == Draining::Discard) return;
  if (request.flush_after && request.error == 0) {
    request.flush_after = false;
    if (draining_ == Draining::Complete) {
      flush_later_.push_back(slot);
    } else {
      submit(slot, {.op = BlockOp::Flush});
    }
    return;
  }
  finish(slot);
}

void Blk::finish(size_t slot) {
  const auto request = std::move(requests_[slot]);
  free_slots_.push_back(slot);
  --in_flight_[request->queue];
  Queue* queue = transport_->queue(request->queue);
  if (queue == nullptr) return;  // failed meanwhile
  const Status status = request->error == 0 ? Status::Ok : Status::IoError;
  // After an error nobody knows how much of the front was written, so none of it is claimed.
  const uint64_t written = status == Status::Ok ? request->filled_length + 1 : request->filled_length == 0 ? 1 : 0;
  std::ignore = transport_->memory().write_object(request->status_address, status);
  queue->push(request->ticket, static_cast<uint32_t>(written));
  transport_->signal(request->queue);
}

// Answers at once, without the backend.
void Blk::answer(Queue& queue, const Chain& chain, Status status, uint32_t data_written) {
  const Segment& last = chain.writable.back();
  std::ignore = transport_->memory().write_object(last.address + last.length - 1, status);
  const bool all = data_written + 1 == chain.writable_length;
  queue.push(chain.ticket, all ? data_written + 1 : data_written);
}

// --- Requests ---

void Blk::kick(unsigned index) {
  backend_.begin_batch();
  serve(*transport_, index, [&](Queue& queue, const Chain& chain) { return handle(index, queue, chain); });
  backend_.end_batch();
}

bool Blk::handle(unsigned index, Queue& queue, const Chain& chain) {
  if (chain.readable_length < header_size || chain.writable_length < 1) {
    transport_->fail("a block request without a header or a status byte");
    return true;
  }
  if (in_flight_[index] >= queue.size()) {
    transport_->fail("more block requests at once than the queue has descriptors");
    return true;
  }
  std::array<uint8_t, header_size> raw{};
  gather(transport_->memory(), chain.readable, 0, raw);
  const Header header{static_cast<uint32_t>(number(std::span(raw).first(4))), number(std::span(raw).subspan(8, 8))};
  const uint64_t accepted = transport_->features();
  const uint64_t data_in = chain.writable_length - 1;
  const uint64_t data_out = chain.readable_length - header_size;

  switch (header.type) {
    case type_in:
    case type_out: {
      const uint64_t length = header.type == type_in ? data_in : data_out;
      const bool refused = header.type == type_out && backend_.read_only();
      if (refused || length % sector != 0 || !in_range(header.sector, length / sector)) {
        answer(queue, chain, Status::IoError);
      } else if (length == 0) {
        answer(queue, chain, Status::Ok);
      } else {
        transfer(index, chain, header);
      }
      return true;
    }
    case type_flush: {
      if ((accepted & flush) == 0) break;
      submit(begin(index, chain), {.op = BlockOp::Flush});
      return true;
    }
    case type_get_id: identify(queue, chain); return true;
    case type_discard:
    case type_write_zeroes:
      if ((accepted & (header.type == type_discard ? discard : write_zeroes)) == 0) break;
      if (data_out == 0 || data_out % range_size != 0 || data_out / range_size > max_ranges) {
        answer(queue, chain, Status::IoError);
      } else {
        ranges(index, chain, header);
      }
      return true;
    default: break;
  }
  answer(queue, chain, Status::Unsupported);
  return true;
}

bool Blk::in_range(uint64_t first, uint64_t length) const {
  const uint64_t sectors = backend_.size() / sector;
  return first <= sectors && length <= sectors - first;
}

void Blk::transfer(unsigned index, const Chain& chain, const Header& header) {
  const bool reads = header.type == type_in;
  const std::vector<Segment> data = reads ? slice(chain.writable, 0, chain.writable_length - 1)
                                          : slice(chain.readable, header_size, chain.readable_length - header_size);
  BlockRequest request{.op = reads ? BlockOp::Read : BlockOp::Write, .offset = header.sector * sector};
  request.buffers.reserve(data.size());
  for (const Segment& segment : data) {
    request.buffers.push_back({transport_->memory().base() + segment.address, segment.length});
    request.length += segment.length;
  }
  const size_t slot = begin(index, chain);
  if (reads) {
    requests_[slot]->filled = data;
    requests_[slot]->filled_length = request.length;
  } else {
    requests_[slot]->flush_after = write_through();
  }
  submit(slot, std::move(request));
}

void Blk::ranges(unsigned index, const Chain& chain, const Header& header) {
  Queue& queue = *transport_->queue(index);
  std::vector<uint8_t> raw(chain.readable_length - header_size);
  gather(transport_->memory(), chain.readable, header_size, raw);
  std::vector<BlockRequest> parts;
  for (size_t at = 0; at < raw.size(); at += range_size) {
    const auto range = std::span<const uint8_t>(raw).subspan(at, range_size);
    const uint64_t first = number(range.first(8));
    const auto count = static_cast<uint32_t>(number(range.subspan(8, 4)));
    const auto flags = static_cast<uint32_t>(number(range.subspan(12, 4)));
    // 5.2.6.2: unknown flags, and unmap in a discard, are unsupported.
    const uint32_t known = header.type == type_write_zeroes ? range_unmap : 0;
    if ((flags & ~known) != 0) {
      answer(queue, chain, Status::Unsupported);
      return;
    }
    if (count > max_range_sectors || !in_range(first, count)) {
      answer(queue, chain, Status::IoError);
      return;
    }
    if (count == 0) continue;
    parts.push_back({.op = header.type == type_discard ? BlockOp::Discard : BlockOp::WriteZeroes,
                     .may_unmap = (flags & range_unmap) != 0,
                     .offset = first * sector,
                     .length = uint64_t{count} * sector});
  }
  if (parts.empty()) {
    answer(queue, chain, Status::Ok);
    return;
  }
  const size_t slot = begin(index, chain);
  requests_[slot]->flush_after = header.type == type_write_zeroes && write_through();
  for (BlockRequest& part : parts) submit(slot, std::move(part));
}

void Blk::identify(Queue& queue, const Chain& chain) {
  const uint64_t room = std::min<uint64_t>(chain.writable_length - 1, id_.size());
  const size_t written = scatter(transport_->memory(), chain.writable, 0, std::span(id_).first(room));
  answer(queue, chain, Status::Ok, static_cast<uint32_t>(written));
}

}  // namespace caisson::virtio
