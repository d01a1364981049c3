#include "devices/virtio/balloon.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

namespace caisson::virtio {
namespace {

// struct virtio_balloon_config, 5.5.4: num_pages, actual.
constexpr unsigned config_actual = 4;

// struct virtio_balloon_stat, 5.5.6.3: a tag of two bytes and a value of eight.
constexpr size_t statistic_size = 10;
constexpr size_t max_statistics = 64;
constexpr uint16_t tag_free = 4, tag_total = 5, tag_available = 6;

}  // namespace

void Balloon::refresh_config() {
  std::memcpy(config_.data(), &state_.target_pages, 4);
  std::memcpy(config_.data() + config_actual, &state_.actual_pages, 4);
}

void Balloon::write_config(unsigned offset, std::span<const uint8_t> bytes) {
  if (offset < config_actual) return;
  auto* actual = reinterpret_cast<uint8_t*>(&state_.actual_pages);
  std::ranges::copy(bytes, actual + (offset - config_actual));
  refresh_config();
}

Result<> Balloon::restore(std::span<const uint8_t> in) {
  State state = state_;
  if (auto done = fields::restore(state, in); !done) return done;
  state_ = state;
  refresh_config();
  return {};
}

void Balloon::stop() {
  // The host's wish stays for the next driver; after a reset the guest has all its memory again.
  statistics_buffer_.reset();
  statistics_ = {};
  state_.actual_pages = 0;
  refresh_config();
}

void Balloon::set_target(uint64_t memory_bytes) {
  const uint64_t size = transport_->memory().size();
  state_.target_pages = static_cast<uint32_t>((size - std::min(size, memory_bytes)) / page_size);
  refresh_config();
  transport_->config_changed();
}

uint64_t Balloon::bytes_without(uint32_t pages) const {
  const uint64_t size = transport_->memory().size();
  return size - std::min(size, pages * page_size);
}
uint64_t Balloon::target() const { return bytes_without(state_.target_pages); }
uint64_t Balloon::memory_bytes() const { return bytes_without(state_.actual_pages); }

void Balloon::kick(unsigned index) {
  // Queues whose features were not accepted are not there, and Linux numbers those that are there one after the other,
  // other than 5.5.2 has it: with statistics and reports, reports are the fourth or the fifth.
  const bool statistics = index == statistics_index && (transport_->features() & statistics_queue) != 0;
  serve(*transport_, index, [&](Queue& queue, const Chain& chain) {
    if (statistics) {
      read_statistics(chain);
      // Kept until the host wants to know more; a driver that gives several gets the others back.
      if (const auto before = std::exchange(statistics_buffer_, chain.ticket)) queue.push(*before, 0);
      return true;
    }
    if (index == inflate_queue) inflate(chain);
    if (index >= statistics_index && (transport_->features() & page_reporting) != 0) report(chain);
    // Pages that come out of the balloon get their memory as they are used.
    queue.push(chain.ticket, 0);
    return true;
  });
}

void Balloon::inflate(const Chain& chain) {
  std::array<uint32_t, max_pages> given;
  const size_t bytes =
      gather(transport_->memory(), chain.readable, 0, {reinterpret_cast<uint8_t*>(given.data()), sizeof given});
  const auto pages = std::span(given).first(bytes / sizeof given[0]);
  // Linux gives pages from the highest down, mostly: runs of them go at once.
  std::ranges::sort(pages);
  for (size_t i = 0; i < pages.size();) {
    size_t end = i + 1;
    while (end < pages.size() && pages[end] <= pages[end - 1] + uint64_t{1}) ++end;
    transport_->memory().discard(pages[i] * page_size, (pages[end - 1] - pages[i] + uint64_t{1}) * page_size);
    i = end;
  }
}

void Balloon::report(const Chain& chain) {
  for (const Segment& segment : chain.writable) {
    const Gpa first = (segment.address + page_size - 1) / page_size * page_size;
    const Gpa end = (segment.address + segment.length) / page_size * page_size;
    if (first < segment.address || end <= first) continue;
    transport_->memory().discard(first, end - first);
    reported_ += end - first;
  }
}

void Balloon::read_statistics(const Chain& chain) {
  std::array<uint8_t, statistic_size * max_statistics> bytes;
  const size_t size = gather(transport_->memory(), chain.readable, 0, bytes);
  for (size_t at = 0; at + statistic_size <= size; at += statistic_size) {
    uint16_t tag = 0;
    uint64_t value = 0;
    std::memcpy(&tag, &bytes[at], sizeof tag);
    std::memcpy(&value, &bytes[at + sizeof tag], sizeof value);
    if (tag == tag_free) statistics_.free = value;
    if (tag == tag_total) statistics_.total = value;
    if (tag == tag_available) statistics_.available = value;
  }
}

void Balloon::refresh_statistics() {
  Queue* const queue = transport_->queue(statistics_index);
  if (queue == nullptr || !statistics_buffer_) return;
  queue->push(*std::exchange(statistics_buffer_, std::nullopt), 0);
  transport_->signal(statistics_index);
}

}  // namespace caisson::virtio
