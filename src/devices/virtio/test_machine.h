// What the virtio tests share: a small machine with a host bridge, and a driver that works as a guest's would: through
// configuration space, BARs, and rings in guest memory.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "bus/bus.h"
#include "devices/device_test_support.h"
#include "devices/virtio/attach.h"

namespace caisson::virtio {

class TestMachine {
 public:
  TestMachine()
      : services{*memory, msi, 1, [this](std::function<void()> task) { posted.push_back(std::move(task)); }} {}

  // Runs what the devices asked the event loop for; says how many tasks there were.
  size_t run_posted() {
    size_t count = 0;
    while (!posted.empty() && count < 1000) {
      auto task = std::move(posted.front());
      posted.pop_front();
      const std::lock_guard hold(bus.lock());
      task();
      ++count;
    }
    return count;
  }

  [[nodiscard]] uint64_t config(unsigned slot, unsigned offset, unsigned size) {
    return bus.read(Space::Memory, layout.ecam_base + (slot << 15) + offset, size);
  }
  void set_config(unsigned slot, unsigned offset, unsigned size, uint64_t value) {
    bus.write(Space::Memory, layout.ecam_base + (slot << 15) + offset, size, value);
  }
  [[nodiscard]] VirtioPci& device(unsigned slot) {
    for (pci::PciDevice* function : bridge.functions()) {
      auto* found = dynamic_cast<VirtioPci*>(function);
      if (found != nullptr && found->name().ends_with("." + std::to_string(slot))) return *found;
    }
    abort();
  }

  pci::Layout layout;
  Bus bus;
  std::unique_ptr<GuestMemory> memory = std::move(GuestMemory::create(16 << 20).value());
  test_support::RecordingMsi msi;
  std::array<test_support::RecordingLine, pci::intx_gsi_count> lines;
  std::deque<std::function<void()>> posted;
  pci::HostBridge bridge{bus, layout,
                         [this](unsigned gsi) -> InterruptLine& { return lines[gsi - pci::first_intx_gsi]; }};
  Services services;
};

// A guest's side of one queue. Areas are laid out one after the other from `base`.
class DriverQueue {
 public:
  struct Buffer {
    Gpa address;
    uint32_t length;
    bool writable = false;
  };

  DriverQueue(GuestMemory& memory, Gpa base, uint16_t size, uint64_t features)
      : memory_(memory),
        size_(size),
        packed_((features & feature::ring_packed) != 0),
        event_idx_((features & feature::event_idx) != 0),
        descriptors(base),
        driver(base + 16ull * size),
        device((driver + 6 + 2ull * size + 3) & ~3ull),
        indirect_(base + 0x8000) {
    const std::vector<uint8_t> zeroes(0x8000);
    put_bytes(base, zeroes);
    for (uint16_t i = 0; i < size; ++i) free_.push_back(i);
  }

  // Makes a chain available; its id.
  uint16_t add(const std::vector<Buffer>& buffers, bool indirect = false) {
    return packed_ ? add_packed(buffers, indirect) : add_split(buffers, indirect);
  }

  struct UsedChain {
    uint32_t id;
    uint32_t length;
  };
  std::optional<UsedChain> take_used() {
    if (packed_) {
      const uint16_t flags = get<uint16_t>(descriptors + 16ull * used_at_ + 14);
      if (((flags & 0x80) != 0) != used_wrap_ || ((flags & 0x8000) != 0) != used_wrap_) return {};
      const UsedChain used{get<uint16_t>(descriptors + 16ull * used_at_ + 12),
                           get<uint32_t>(descriptors + 16ull * used_at_ + 8)};
      const uint16_t slots = slots_[used.id];
      used_at_ = static_cast<uint16_t>(used_at_ + slots);
      if (used_at_ >= size_) {
        used_at_ = static_cast<uint16_t>(used_at_ - size_);
        used_wrap_ = !used_wrap_;
      }
      if (event_idx_) put<uint32_t>(driver, used_at_ | (used_wrap_ ? 0x8000u : 0) | 2u << 16);
      return used;
    }
    if (get<uint16_t>(device + 2) == used_at_) return {};
    const Gpa element = device + 4 + 8ull * (used_at_ % size_);
    const UsedChain used{get<uint32_t>(element), get<uint32_t>(element + 4)};
    ++used_at_;
    if (event_idx_) put<uint16_t>(driver + 4 + 2ull * size_, used_at_);
    for (const uint16_t index : chains_[used.id]) free_.push_back(index);
    return used;
  }

  template <class T>
  [[nodiscard]] T get(Gpa address) const {
    T value{};
    EXPECT_TRUE(memory_.read_object(address, value));
    return value;
  }
  template <class T>
  void put(Gpa address, T value) {
    EXPECT_TRUE(memory_.write_object(address, value));
  }
  void put_bytes(Gpa address, std::span<const uint8_t> bytes) { EXPECT_TRUE(memory_.write(address, bytes)); }

  // Writes descriptor `index` of the table at `table` raw; `link` is next (split) or id (packed).
  void put_descriptor(Gpa table, unsigned index, uint64_t address, uint32_t length, uint16_t flags, uint16_t link) {
    const Gpa at = table + 16ull * index;
    put(at, address);
    put(at + 8, length);
    put(at + 12, packed_ ? link : flags);
    put(at + 14, packed_ ? flags : link);
  }
  // Split: makes `head` available without regard to what it is.
  void put_available(uint16_t head) {
    put(driver + 4 + 2ull * (available_ % size_), head);
    put(driver + 2, ++available_);
  }
  [[nodiscard]] uint16_t available_flags(bool last_turn = false) const {
    return static_cast<uint16_t>(wrap_ != last_turn ? 0x80 : 0x8000);
  }
  [[nodiscard]] uint16_t size() const { return size_; }

 private:
  GuestMemory& memory_;
  const uint16_t size_;
  const bool packed_;
  const bool event_idx_;

 public:
  const Gpa descriptors;
  const Gpa driver;
  const Gpa device;

 private:
  uint16_t add_split(const std::vector<Buffer>& buffers, bool indirect) {
    std::vector<uint16_t> indexes;
    const size_t needed = indirect ? 1 : buffers.size();
    for (size_t i = 0; i < needed; ++i) {
      indexes.push_back(free_.front());
      free_.pop_front();
    }
    const uint16_t head = indexes.front();
    Gpa table = descriptors;
    if (indirect) {
      table = indirect_ + head * 1024ull;
      put_descriptor(descriptors, head, table, static_cast<uint32_t>(16 * buffers.size()), 4, 0);
    }
    for (size_t i = 0; i < buffers.size(); ++i) {
      const bool last = i + 1 == buffers.size();
      const auto index = static_cast<uint16_t>(indirect ? i : indexes[i]);
      const auto next = static_cast<uint16_t>(last ? 0 : indirect ? i + 1 : indexes[i + 1]);
      put_descriptor(table, index, buffers[i].address, buffers[i].length,
                     static_cast<uint16_t>((buffers[i].writable ? 2 : 0) | (last ? 0 : 1)), next);
    }
    chains_[head] = indexes;
    put_available(head);
    return head;
  }

  uint16_t add_packed(const std::vector<Buffer>& buffers, bool indirect) {
    const uint16_t id = next_id_++ % size_;
    const auto slots = static_cast<uint16_t>(indirect ? 1 : buffers.size());
    slots_[id] = slots;
    const unsigned first = available_;
    uint16_t first_flags = 0;
    for (uint16_t i = 0; i < slots; ++i) {
      auto flags = static_cast<uint16_t>(available_flags() | (i + 1 == slots ? 0 : 1));
      Buffer buffer = buffers[i];
      if (indirect) {
        flags |= 4;
        buffer = {indirect_ + id * 1024ull, static_cast<uint32_t>(16 * buffers.size())};
        for (unsigned j = 0; j < buffers.size(); ++j) {
          put_descriptor(buffer.address, j, buffers[j].address, buffers[j].length, buffers[j].writable ? 2 : 0, 0);
        }
      }
      if (buffer.writable) flags |= 2;
      // The first descriptor's flags go last.
      if (i == 0) first_flags = flags;
      const uint16_t turn_before = available_flags(true);
      put_descriptor(descriptors, available_, buffer.address, buffer.length, i == 0 ? turn_before : flags, id);
      if (++available_ == size_) {
        available_ = 0;
        wrap_ = !wrap_;
      }
    }
    put(descriptors + 16ull * first + 14, first_flags);
    return id;
  }

  Gpa indirect_;
  std::deque<uint16_t> free_;
  std::array<std::vector<uint16_t>, Queue::max_size> chains_;
  std::array<uint16_t, Queue::max_size> slots_{};
  uint16_t available_ = 0;  // split: index; packed: position
  bool wrap_ = true;
  uint16_t used_at_ = 0;
  bool used_wrap_ = true;
  uint16_t next_id_ = 0;
};

// A guest's driver for the device in one slot.
class TestDriver {
 public:
  static constexpr uint64_t msi_address = 0xfee0'0000;

  TestDriver(TestMachine& machine, unsigned slot) : machine_(machine), slot_(slot) {
    machine.set_config(slot, pci::command, 2, pci::command_memory | pci::command_bus_master);
    registers_ = machine.config(slot, pci::base_address + 4 * VirtioPci::register_bar, 8) & ~0xfull;
    msix_ = machine.config(slot, pci::base_address + 4 * VirtioPci::msix_bar, 4) & ~0xfull;
  }

  [[nodiscard]] uint64_t common(Common field, unsigned size) {
    return read(VirtioPci::common_offset + at(field), size);
  }
  void set_common(Common field, unsigned size, uint64_t value) {
    write(VirtioPci::common_offset + at(field), size, value);
  }
  [[nodiscard]] uint64_t read(uint64_t offset, unsigned size) {
    return machine_.bus.read(Space::Memory, registers_ + offset, size);
  }
  void write(uint64_t offset, unsigned size, uint64_t value) {
    machine_.bus.write(Space::Memory, registers_ + offset, size, value);
  }
  [[nodiscard]] uint64_t device_config(unsigned offset, unsigned size) {
    return read(VirtioPci::device_offset + offset, size);
  }
  [[nodiscard]] uint8_t status() { return static_cast<uint8_t>(common(Common::DeviceStatus, 1)); }
  void set_status(uint8_t value) { set_common(Common::DeviceStatus, 1, value); }

  [[nodiscard]] uint64_t offered() {
    set_common(Common::DeviceFeatureSelect, 4, 0);
    const uint64_t low = common(Common::DeviceFeature, 4);
    set_common(Common::DeviceFeatureSelect, 4, 1);
    return low | common(Common::DeviceFeature, 4) << 32;
  }
  void accept(uint64_t features) {
    for (unsigned i = 0; i < 2; ++i) {
      set_common(Common::DriverFeatureSelect, 4, i);
      set_common(Common::DriverFeature, 4, features >> (32 * i) & 0xffff'ffff);
    }
  }

  // MSI-X on, vector i with data 0x40 + i, all unmasked.
  void enable_msix() {
    const unsigned capability = find_capability(0x11);
    const uint64_t vectors = (machine_.config(slot_, capability + 2, 2) & 0x7ff) + 1;
    for (unsigned i = 0; i < vectors; ++i) {
      machine_.bus.write(Space::Memory, msix_ + 16 * i, 8, msi_address);
      machine_.bus.write(Space::Memory, msix_ + 16 * i + 8, 8, 0x40 + i);
    }
    machine_.set_config(slot_, capability + 2, 2, 0x8000);
  }

  [[nodiscard]] unsigned find_capability(uint8_t id) {
    unsigned offset = static_cast<unsigned>(machine_.config(slot_, pci::capabilities_pointer, 1));
    while (offset != 0 && machine_.config(slot_, offset, 1) != id) {
      offset = static_cast<unsigned>(machine_.config(slot_, offset + 1, 1));
    }
    return offset;
  }

  // Everything up to DRIVER_OK: queue i lies at queue_base(i), interrupts with vector i + 1, configuration with 0.
  void start(uint64_t features, unsigned queue_count, uint16_t queue_size = 16) {
    set_up(features, queue_count, queue_size);
    set_status(status::acknowledge | status::driver | status::features_ok | status::driver_ok);
  }
  void set_up(uint64_t features, unsigned queue_count, uint16_t queue_size = 16) {
    set_status(0);
    set_status(status::acknowledge);
    set_status(status::acknowledge | status::driver);
    accept(features | feature::version_1);
    set_status(status::acknowledge | status::driver | status::features_ok);
    set_common(Common::ConfigMsixVector, 2, 0);
    queues.clear();
    for (unsigned i = 0; i < queue_count; ++i) {
      auto& queue = queues.emplace_back(*machine_.memory, queue_base(i), queue_size, features);
      set_common(Common::QueueSelect, 2, i);
      set_common(Common::QueueSize, 2, queue_size);
      set_common(Common::QueueMsixVector, 2, i + 1);
      set_common(Common::QueueDesc, 8, queue.descriptors);
      set_common(Common::QueueDriver, 4, queue.driver & 0xffff'ffff);
      set_common(static_cast<Common>(at(Common::QueueDriver) + 4), 4, queue.driver >> 32);
      set_common(Common::QueueDevice, 8, queue.device);
      set_common(Common::QueueEnable, 2, 1);
    }
  }
  [[nodiscard]] static Gpa queue_base(unsigned index) { return 0x10'0000 + index * 0x10'0000ull; }
  void kick(unsigned queue) {
    write(VirtioPci::notify_offset + uint64_t{VirtioPci::notify_multiplier} * queue, 2, queue);
  }

  std::deque<DriverQueue> queues;

 private:
  static constexpr uint64_t at(Common field) { return static_cast<uint64_t>(field); }

  TestMachine& machine_;
  const unsigned slot_;
  uint64_t registers_ = 0;
  uint64_t msix_ = 0;
};

// The ring formats and options that a driver may choose; tests of data paths run with each.
struct RingChoice {
  std::string_view name;
  uint64_t features;
  bool indirect = false;
};
inline constexpr RingChoice ring_choices[] = {
    {"split", 0},
    {"split_event_idx", feature::event_idx},
    {"split_indirect", feature::indirect_desc | feature::event_idx, true},
    {"packed", feature::ring_packed},
    {"packed_event_idx", feature::ring_packed | feature::event_idx},
    {"packed_indirect", feature::ring_packed | feature::event_idx | feature::indirect_desc, true},
};
class EachRing : public testing::TestWithParam<RingChoice> {};
inline std::string ring_name(const testing::TestParamInfo<RingChoice>& info) { return std::string{info.param.name}; }

}  // namespace caisson::virtio
