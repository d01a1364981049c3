#include "bus/bus.h"

#include <algorithm>
#include <ranges>
#include <utility>

#include "base/check.h"

namespace caisson {
namespace {

uint64_t mask(unsigned size) { return size >= 8 ? ~uint64_t{0} : (uint64_t{1} << (8 * size)) - 1; }

}  // namespace

void Bus::map(Space space, uint64_t base, uint64_t length, Device& device, unsigned region, Widths widths) {
  CAISSON_CHECK(length > 0 && base + (length - 1) >= base);
  unmap(space, device, region);
  windows_[static_cast<int>(space)].push_back({base, length, &device, region, widths});
  if (space != Space::Memory) return;
  for (Doorbell& doorbell : doorbells_) {
    if (doorbell.device == &device && doorbell.region == region) bind(doorbell);
  }
  place_directs();
}

void Bus::unmap(Space space, const Device& device, unsigned region) {
  std::erase_if(windows_[static_cast<int>(space)],
                [&](const Window& window) { return window.device == &device && window.region == region; });
  if (space != Space::Memory) return;
  for (Doorbell& doorbell : doorbells_) {
    if (doorbell.device == &device && doorbell.region == region) unbind(doorbell);
  }
  place_directs();
}

void Bus::add_doorbell(const Device& device, unsigned region, uint64_t offset, std::function<void()> ring) {
  doorbells_.push_back({&device, region, offset, std::move(ring), {}});
  bind(doorbells_.back());
}

void Bus::remove_doorbells(const Device& device) {
  for (Doorbell& doorbell : doorbells_) {
    if (doorbell.device == &device) unbind(doorbell);
  }
  std::erase_if(doorbells_, [&](const Doorbell& doorbell) { return doorbell.device == &device; });
}

void Bus::set_binder(DoorbellBinder* binder) {
  for (Doorbell& doorbell : doorbells_) unbind(doorbell);
  binder_ = binder;
  for (Doorbell& doorbell : doorbells_) bind(doorbell);
}

void Bus::bind(Doorbell& doorbell) {
  if (binder_ == nullptr || doorbell.bound) return;
  const Window* const window = window_of(*doorbell.device, doorbell.region);
  if (window == nullptr || doorbell.offset >= window->length) return;
  // Where another window lies over it the write is that device's.
  const uint64_t address = window->base + doorbell.offset;
  if (find(Space::Memory, address) == window && binder_->bind(address, doorbell.ring)) doorbell.bound = address;
}

void Bus::unbind(Doorbell& doorbell) {
  if (const auto address = std::exchange(doorbell.bound, std::nullopt)) binder_->unbind(*address);
}

Bus::Direct* Bus::direct_of(const Device& device, unsigned region) {
  const auto found = std::ranges::find_if(
      directs_, [&](const Direct& direct) { return direct.device == &device && direct.region == region; });
  return found == directs_.end() ? nullptr : &*found;
}

void Bus::set_direct(const Device& device, unsigned region, std::span<uint8_t> memory, bool writable) {
  Direct* direct = direct_of(device, region);
  if (direct == nullptr) direct = &directs_.emplace_back(Direct{.device = &device, .region = region});
  const bool same = direct->memory.data() == memory.data() && direct->memory.size() == memory.size();
  if (same && direct->writable == writable) return;
  unbind(*direct);
  direct->memory = memory;
  direct->writable = writable;
  place_directs();
}

void Bus::remove_direct(const Device& device) {
  for (Direct& direct : directs_) {
    if (direct.device == &device) unbind(direct);
  }
  std::erase_if(directs_, [&](const Direct& direct) { return direct.device == &device; });
}

bool Bus::direct_written(const Device& device, unsigned region) {
  Direct* const direct = direct_of(device, region);
  if (direct == nullptr) return false;
  const bool now = direct->bound && direct->writable && direct_binder_->written(*direct->bound);
  return std::exchange(direct->written, false) || now;
}

void Bus::set_direct_binder(DirectBinder* binder) {
  for (Direct& direct : directs_) unbind(direct);
  direct_binder_ = binder;
  place_directs();
}

const Bus::Window* Bus::window_of(const Device& device, unsigned region) const {
  const auto& windows = windows_[static_cast<int>(Space::Memory)];
  const auto found = std::ranges::find_if(
      windows, [&](const Window& window) { return window.device == &device && window.region == region; });
  return found == windows.end() ? nullptr : &*found;
}

// Where the guest may be let at the memory: all of its window, when that shares no address with another.
std::optional<uint64_t> Bus::place_of(const Direct& direct) const {
  constexpr uint64_t page = 4096;
  const Window* const window = window_of(*direct.device, direct.region);
  if (direct_binder_ == nullptr || direct.memory.empty() || window == nullptr) return {};
  if (window->length != direct.memory.size() || window->base % page != 0 || window->length % page != 0) return {};
  for (const Window& other : windows_[static_cast<int>(Space::Memory)]) {
    const bool apart =
        other.base + (other.length - 1) < window->base || window->base + (window->length - 1) < other.base;
    if (&other != window && !apart) return {};
  }
  return window->base;
}

void Bus::unbind(Direct& direct) {
  const auto address = std::exchange(direct.bound, std::nullopt);
  if (!address) return;
  direct.written |= direct.writable && direct_binder_->written(*address);
  direct_binder_->unbind(*address);
}

void Bus::place_directs() {
  for (Direct& direct : directs_) {
    const auto place = place_of(direct);
    if (direct.bound != place) unbind(direct);
    if (!direct.bound && place && direct_binder_->bind(*place, direct.memory, direct.writable)) direct.bound = place;
  }
}

const Bus::Window* Bus::find(Space space, uint64_t address) {
  for (const Window& window : std::views::reverse(windows_[static_cast<int>(space)])) {
    if (address - window.base < window.length) return &window;
  }
  return nullptr;
}

uint64_t Bus::read_window(const Window& window, uint64_t offset, unsigned size) {
  if (size < window.widths.min) {
    const uint64_t unit = offset & ~uint64_t{window.widths.min - 1u};
    const uint64_t whole = window.device->read(window.region, unit, window.widths.min);
    return whole >> (8 * (offset - unit)) & mask(size);
  }
  if (size > window.widths.max) {
    uint64_t value = 0;
    for (unsigned done = 0; done < size; done += window.widths.max) {
      const uint64_t part = window.device->read(window.region, offset + done, window.widths.max);
      value |= (part & mask(window.widths.max)) << (8 * done);
    }
    return value;
  }
  return window.device->read(window.region, offset, size) & mask(size);
}

void Bus::write_window(const Window& window, uint64_t offset, unsigned size, uint64_t value) {
  if (size < window.widths.min) return;
  if (size > window.widths.max) {
    for (unsigned done = 0; done < size; done += window.widths.max) {
      window.device->write(window.region, offset + done, window.widths.max,
                           value >> (8 * done) & mask(window.widths.max));
    }
    return;
  }
  window.device->write(window.region, offset, size, value & mask(size));
}

uint64_t Bus::read(Space space, uint64_t address, unsigned size) {
  const std::lock_guard hold(lock_);
  const Window* window = find(space, address);
  if (window != nullptr && size <= window->length - (address - window->base)) {
    return read_window(*window, address - window->base, size);
  }
  if (window == nullptr && size == 1) {
    ++unclaimed_;
    return 0xff;
  }
  uint64_t value = 0;
  for (unsigned i = 0; i < size; ++i) {
    window = find(space, address + i);
    uint64_t byte = 0xff;
    if (window != nullptr) {
      byte = read_window(*window, address + i - window->base, 1);
    } else {
      ++unclaimed_;
    }
    value |= byte << (8 * i);
  }
  return value;
}

void Bus::write(Space space, uint64_t address, unsigned size, uint64_t value) {
  const std::lock_guard hold(lock_);
  const Window* window = find(space, address);
  if (window != nullptr && size <= window->length - (address - window->base)) {
    write_window(*window, address - window->base, size, value);
    return;
  }
  for (unsigned i = 0; i < size; ++i) {
    window = find(space, address + i);
    if (window != nullptr) {
      write_window(*window, address + i - window->base, 1, value >> (8 * i) & 0xff);
    } else {
      ++unclaimed_;
    }
  }
}

}  // namespace caisson
