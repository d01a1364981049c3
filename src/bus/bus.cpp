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
}

void Bus::unmap(Space space, const Device& device, unsigned region) {
  std::erase_if(windows_[static_cast<int>(space)],
                [&](const Window& window) { return window.device == &device && window.region == region; });
  if (space != Space::Memory) return;
  for (Doorbell& doorbell : doorbells_) {
    if (doorbell.device == &device && doorbell.region == region) unbind(doorbell);
  }
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
  const auto& windows = windows_[static_cast<int>(Space::Memory)];
  const auto window = std::ranges::find_if(windows, [&](const Window& candidate) {
    return candidate.device == doorbell.device && candidate.region == doorbell.region;
  });
  if (window == windows.end() || doorbell.offset >= window->length) return;
  // Where another window lies over it the write is that device's.
  const uint64_t address = window->base + doorbell.offset;
  if (find(Space::Memory, address) == &*window && binder_->bind(address, doorbell.ring)) doorbell.bound = address;
}

void Bus::unbind(Doorbell& doorbell) {
  if (const auto address = std::exchange(doorbell.bound, std::nullopt)) binder_->unbind(*address);
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
