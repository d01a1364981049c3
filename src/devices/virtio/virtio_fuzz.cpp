// Fuzzes PCI and virtio as a guest reaches them: configuration space, BARs, rings and kicks of every device, mixed with
// what the host does meanwhile (completions, frames, input, saves and damaged restores). Whatever comes, nothing may
// crash, hang, or touch memory that is not the guest's.
#include <algorithm>
#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "bus/bus.h"
#include "devices/fuzz_input.h"
#include "devices/virtio/attach.h"
#include "devices/virtio/fake_backends.h"

namespace caisson::virtio {
namespace {

using Bytes = fuzz::Input;

class Sinks final : public MsiSink, public InterruptLine {
 public:
  void send_msi(uint64_t, uint32_t) override {}
  void set(bool) override {}
};

constexpr unsigned device_count = 9;
constexpr unsigned vsock_slot = 5;
constexpr unsigned balloon_slot = 8;
constexpr unsigned gpu_slot = 9;
constexpr unsigned queues = 4;  // of a device, that are used
constexpr uint64_t memory_size = 1 << 20;
constexpr Gpa rings = 0x1'0000;

class Machine {
 public:
  Machine() {
    const Services services{*memory_, sinks_, 2,
                            [this](std::function<void()> task) { posted_.push_back(std::move(task)); }};
    Blk::Options several;
    several.queues = 2;
    add_blk(bridge_, services, disk_, several);
    net_ = &add_net(bridge_, services, wire_);
    console_ = &add_console(bridge_, services, terminal_);
    add_rng(bridge_, services);
    vsock_ = &add_vsock(bridge_, services);
    keyboard_ = &add_input(bridge_, services, Input::Kind::Keyboard);
    tablet_ = &add_input(bridge_, services, Input::Kind::Tablet);
    balloon_ = &add_balloon(bridge_, services);
    gpu_ = &add_gpu(bridge_, services);
    functions_ = bridge_.functions();
  }

  void step(Bytes& in) {
    const auto choice = in.take(1);
    const auto slot = static_cast<unsigned>(1 + (choice >> 4) % device_count);
    const unsigned size = 1u << in.take(1) % 4;
    switch (choice % 13) {
      case 0: bus_.write(Space::Memory, ecam(slot) + in.take(1), size, in.take(size)); break;
      case 1: std::ignore = bus_.read(Space::Memory, ecam(slot) + in.take(1), size); break;
      case 2: bus_.write(Space::Memory, bar(slot) + in.take(2) % 0x4000, size, in.take(size)); break;
      case 3: std::ignore = bus_.read(Space::Memory, bar(slot) + in.take(2) % 0x4000, size); break;
      case 4: bus_.write(Space::Memory, bar(slot) + in.take(1) % 64, size, in.take(size)); break;  // common structure
      case 5: start(slot, in.take(1)); break;
      case 6: chain(in); break;
      case 7: poke(in); break;
      case 8: bus_.write(Space::Memory, bar(slot) + VirtioPci::notify_offset + 4 * (in.take(1) % 4), 2, 0); break;
      case 9: bus_.write(Space::Memory, msix(slot) + in.take(2) % 0x1000, size, in.take(size)); break;
      case 10: host(slot, in); break;
      case 11: request(slot, in); break;
      default: bus_.write(Space::Port, 0xcf8 + in.take(1) % 8, std::min(size, 4u), in.take(std::min(size, 4u))); break;
    }
    wire_.sent.clear();
    terminal_.written.clear();
  }

 private:
  [[nodiscard]] Gpa ecam(unsigned slot) const { return layout_.ecam_base + (slot << 15); }
  [[nodiscard]] Gpa bar(unsigned slot) const { return functions_[slot]->bar_address(VirtioPci::register_bar); }
  [[nodiscard]] Gpa msix(unsigned slot) const { return functions_[slot]->bar_address(VirtioPci::msix_bar); }

  // Brings a device up as a driver would, so that chance need not find the way.
  void start(unsigned slot, uint64_t flavour) {
    const auto set = [&](Common field, unsigned size, uint64_t value) {
      bus_.write(Space::Memory, bar(slot) + static_cast<uint64_t>(field), size, value);
    };
    bus_.write(Space::Memory, ecam(slot) + pci::command, 2, pci::command_memory | pci::command_bus_master);
    set(Common::DeviceStatus, 1, 0);
    set(Common::DeviceStatus, 1, 3);
    for (unsigned i = 0; i < 2; ++i) {
      set(Common::DeviceFeatureSelect, 4, i);
      uint64_t features = bus_.read(Space::Memory, bar(slot) + static_cast<uint64_t>(Common::DeviceFeature), 4);
      if (i == 1 && (flavour & 1) == 0) features &= ~(feature::ring_packed >> 32);
      if (i == 0 && (flavour & 2) == 0) features &= ~feature::event_idx;
      set(Common::DriverFeatureSelect, 4, i);
      set(Common::DriverFeature, 4, features);
    }
    set(Common::DeviceStatus, 1, 11);
    for (unsigned queue = 0; queue < queues; ++queue) {
      const Gpa at = rings + slot * 0x4000 + queue * 0x1000;
      set(Common::QueueSelect, 2, queue);
      set(Common::QueueSize, 2, 8);
      set(Common::QueueDesc, 8, at);
      set(Common::QueueDriver, 8, at + 0x100);
      set(Common::QueueDevice, 8, at + 0x200);
      set(Common::QueueEnable, 2, 1);
    }
    set(Common::DeviceStatus, 1, 15);
    packed_[slot] = (flavour & 1) != 0;
    positions_[slot] = {};
  }

  // A well-formed chain with small contents of chance, as a driver would offer it, and a kick: what garbage alone
  // seldom is.
  void request(unsigned slot, Bytes& in) {
    const uint64_t shape = in.take(1);
    const uint64_t queue = slot == balloon_slot ? (shape & 1) + (shape >> 6 & 2) : shape & 1;
    const Gpa at = rings + slot * 0x4000 + queue * 0x1000;
    const Gpa header = 0x8000 + in.take(1) * 16;
    constexpr std::array<uint32_t, 8> types{0, 1, 4, 8, 11, 13, 14, 0};
    std::ignore = memory_->write_object(header, types[in.take(1) % types.size()]);
    std::ignore = memory_->write_object(header + 8, in.take(1));
    if (slot == vsock_slot && queue == Vsock::transmit_queue) socket_packet(header, in);
    if (slot == gpu_slot) gpu_command(header, in);
    struct Part {
      uint64_t address;
      uint32_t length;
      bool writable;
    };
    std::array<Part, 4> parts{Part{header, slot == vsock_slot ? 44u : slot == gpu_slot ? 88u : 16u, false}};
    if (slot == vsock_slot && queue == Vsock::receive_queue) parts[0].writable = true;
    const size_t count = 2 + (shape >> 1) % 3;
    for (size_t i = 1; i < count; ++i) {
      const auto length = static_cast<uint32_t>(in.take(1) * 16 + (i + 1 == count ? 1 : 0));
      parts[i] = {0x9000 + i * 0x2000, length, (shape >> 3 & 1) != 0 || i + 1 == count};
    }
    uint64_t& position = positions_[slot][queue];
    const size_t first = packed_[slot] ? 0 : (shape >> 4) % 5;
    const uint64_t start = position;
    for (size_t i = 0; i < count; ++i) {
      auto flags = static_cast<uint16_t>((parts[i].writable ? 2 : 0) | (i + 1 < count ? 1 : 0));
      auto link = static_cast<uint16_t>(first + i + 1);
      if (packed_[slot]) {
        flags |= (start + i) / 8 % 2 == 0 ? 0x80 : 0x8000;
        std::swap(flags, link);
      }
      const Gpa descriptor = at + 16 * (packed_[slot] ? (start + i) % 8 : first + i);
      std::ignore = memory_->write_object(descriptor, parts[i].address);
      std::ignore = memory_->write_object(descriptor + 8, parts[i].length);
      std::ignore = memory_->write_object(descriptor + 12, flags);
      std::ignore = memory_->write_object(descriptor + 14, link);
    }
    position += packed_[slot] ? count : 1;
    if (!packed_[slot]) {
      std::ignore = memory_->write_object(at + 0x104 + 2 * (start % 8), static_cast<uint16_t>(first));
      std::ignore = memory_->write_object(at + 0x102, static_cast<uint16_t>(position));
    }
    bus_.write(Space::Memory, bar(slot) + VirtioPci::notify_offset + 4 * queue, 2, 0);
  }

  // What a driver would send, often about a connection that there is.
  void socket_packet(Gpa at, Bytes& in) {
    Vsock::Header header{};
    header.source_cid = Vsock::guest_cid;
    header.destination_cid = Vsock::host_cid;
    header.source_port = 1024;
    header.destination_port = (1u << 30) + static_cast<uint32_t>(in.take(1) % 8);
    header.length = static_cast<uint32_t>(in.take(2));
    header.type = Vsock::type_stream;
    header.operation = static_cast<uint16_t>(in.take(1) % 10);
    header.flags = static_cast<uint32_t>(in.take(1) % 4);
    header.buffer_size = static_cast<uint32_t>(in.take(2));
    header.forwarded = static_cast<uint32_t>(in.take(2));
    std::ignore = memory_->write_object(at, header);
  }

  // Few resources of small sizes, so that commands find what others have made.
  void gpu_command(Gpa at, Bytes& in) {
    constexpr std::array<uint32_t, 12> commands{0x100, 0x101, 0x101, 0x102, 0x103, 0x104,
                                                0x105, 0x106, 0x107, 0x10a, 0x300, 0x301};
    std::array<uint32_t, 22> words{commands[in.take(1) % commands.size()], static_cast<uint32_t>(in.take(1) & 1)};
    const uint32_t resource = 1 + static_cast<uint32_t>(in.take(1) % 4);
    for (size_t i = 6; i < words.size(); ++i) words[i] = static_cast<uint32_t>(in.take(1) % 80);
    switch (words[0]) {
      case 0x101:
        words[6] = resource;
        words[7] = 1 + static_cast<uint32_t>(in.take(1) % 4);
        if (in.take(1) % 2 == 0) words[8] = words[9] = Gpu::cursor_size;
        break;
      case 0x102:
      case 0x107: words[6] = resource; break;
      case 0x103:
        words[10] = 0;
        words[11] = resource;
        break;
      case 0x104: words[10] = resource; break;
      case 0x105:
        words[11] = in.take(1) == 0 ? ~0u : 0;
        words[12] = resource;
        break;
      case 0x106:
        words[6] = resource;
        words[7] %= 4;
        for (size_t i = 8; i + 3 < words.size(); i += 4) {
          words[i] *= 0x1010;
          words[i + 1] = 0;
          words[i + 2] *= 64;
        }
        break;
      default:
        words[6] = 0;
        words[10] = resource;
        break;
    }
    std::ignore = memory_->write_object(at, words);
  }

  // A descriptor with fields that are often sensible, somewhere in a ring.
  void chain(Bytes& in) {
    const auto where = static_cast<unsigned>(in.take(1));
    const Gpa at = rings + (1 + where % device_count) * 0x4000 + (where >> 2 & 1) * 0x1000;
    const uint64_t index = where >> 3 & 7;
    const uint64_t address = in.take(1) * 0x1010;
    const auto length = static_cast<uint32_t>(in.take(2));
    const auto flags = static_cast<uint16_t>(in.take(1) % 8 | (in.take(1) & 0x81) << 8 | (in.take(1) & 1) << 7);
    const auto other = static_cast<uint16_t>(in.take(1) % 9);
    const bool packed = (flags & 0x100) != 0;
    std::ignore = memory_->write_object(at + 16 * index, address);
    std::ignore = memory_->write_object(at + 16 * index + 8, length);
    std::ignore = memory_->write_object(at + 16 * index + (packed ? 14 : 12), flags);
    std::ignore = memory_->write_object(at + 16 * index + (packed ? 12 : 14), other);
    // Split: made available.
    uint16_t available = 0;
    std::ignore = memory_->read_object(at + 0x102, available);
    std::ignore = memory_->write_object(at + 0x104 + 2 * (available % 8u), static_cast<uint16_t>(index));
    std::ignore = memory_->write_object(at + 0x102, static_cast<uint16_t>(available + 1));
  }

  void poke(Bytes& in) {
    const Gpa at = in.take(1) % 2 == 0 ? rings + in.take(2) % 0x2'0000 : in.take(1) * 0x1010;
    for (unsigned i = 0; i < 8; ++i) std::ignore = memory_->write_object(at + i, static_cast<uint8_t>(in.take(1)));
  }

  void host(unsigned slot, Bytes& in) {
    const std::lock_guard hold(bus_.lock());
    std::array<uint8_t, 3000> bytes{};
    const auto some = std::span<const uint8_t>(bytes).first(in.take(2) % bytes.size());
    switch (in.take(1) % 12) {
      case 0:
        if (!disk_.waiting.empty()) {
          disk_.complete(in.take(1) % disk_.waiting.size(), in.take(1) % 2 == 0 ? 0 : 5);
        } else {
          disk_.at_once = !disk_.at_once;
        }
        break;
      case 1:
        if (wire_.receiver) std::ignore = wire_.receiver(some);
        break;
      case 2:
        if (terminal_.receiver) std::ignore = terminal_.receiver(some);
        break;
      case 3:
        terminal_.room = in.take(2);
        if (terminal_.writable) terminal_.writable();
        break;
      case 4:
        for (auto& task : std::exchange(posted_, {})) task();
        break;
      case 5: functions_[slot]->quiesce(); break;
      case 6: functions_[slot]->reset(); break;
      case 8: {
        auto peer = std::make_shared<FakePeer>();
        if (vsock_->connect(1024, std::make_unique<FakeStream>(peer))) peers_.push_back(std::move(peer));
        if (peers_.size() > 16) peers_.pop_front();
        break;
      }
      case 9:
        if (!peers_.empty()) {
          FakePeer& peer = *peers_[in.take(1) % peers_.size()];
          peer.room = in.take(2);
          peer.ended = in.take(1) % 8 == 0;
          peer.gone = in.take(1) % 8 == 0;
          peer.from_guest.clear();
          if (!peer.destroyed && peer.to_guest.size() < 1 << 20)
            peer.say({reinterpret_cast<const char*>(some.data()), some.size()});
        }
        break;
      case 7:
        balloon_->set_target(in.take(2) * page_size);
        balloon_->refresh_statistics();
        net_->set_link(in.take(1) % 2 == 0);
        console_->set_size(static_cast<uint16_t>(in.take(1)), 25);
        std::ignore = gpu_->want_size(static_cast<uint32_t>(in.take(1)), 480);
        std::ignore = gpu_->picture();
        std::ignore = gpu_->picture_below_pointer();
        break;
      case 10: {
        const std::array<InputEvent, 2> events{InputEvent{input::ev_key, static_cast<uint16_t>(in.take(1)), 1},
                                               InputEvent{input::ev_abs, 0, static_cast<uint32_t>(in.take(2))}};
        for (uint64_t times = in.take(1) % 40; times > 0; --times) {
          std::ignore = (times % 2 == 0 ? keyboard_ : tablet_)->send(std::span(events).first(1 + times % 2));
        }
        break;
      }
      default: {
        // A snapshot, perhaps a damaged one.
        functions_[slot]->quiesce();
        fields::Buffer saved;
        functions_[slot]->save(saved);
        for (uint64_t damages = in.take(1) % 4; damages > 0; --damages) {
          saved[in.take(2) % saved.size()] = static_cast<uint8_t>(in.take(1));
        }
        std::ignore = functions_[slot]->restore(saved);
      }
    }
  }

  pci::Layout layout_;
  FakeDisk disk_{1 << 16};
  FakeNet wire_;
  FakeConsole terminal_;
  Sinks sinks_;
  Bus bus_;
  std::unique_ptr<GuestMemory> memory_ = std::move(GuestMemory::create(memory_size).value());
  std::deque<std::function<void()>> posted_;
  pci::HostBridge bridge_{bus_, layout_, [this](unsigned) -> InterruptLine& { return sinks_; }};
  Net* net_ = nullptr;
  Console* console_ = nullptr;
  Vsock* vsock_ = nullptr;
  std::deque<std::shared_ptr<FakePeer>> peers_;
  Balloon* balloon_ = nullptr;
  Gpu* gpu_ = nullptr;
  Input* keyboard_ = nullptr;
  Input* tablet_ = nullptr;
  std::vector<pci::PciDevice*> functions_;
  std::array<bool, device_count + 1> packed_{};                             // how each device was started
  std::array<std::array<uint64_t, queues>, device_count + 1> positions_{};  // where its driver stands in each ring
};

}  // namespace
}  // namespace caisson::virtio

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  caisson::log::set_level(caisson::log::Level::Error);
  caisson::virtio::Bytes in({data, size});
  caisson::virtio::Machine machine;
  while (!in.empty()) machine.step(in);
  return 0;
}
