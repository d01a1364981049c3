// Virtio GPU: a screen that the driver draws to in memory of its own, and that is told what of it to take over.
//   Spec     VIRTIO 1.2, 5.7 (sections are its)
//   Models   one scanout, 2D resources of all formats with backing in pieces, a cursor with its picture, EDID, changes
//            of the size that the host would like
//   Omits    3D, blobs, several scanouts
//   Threads  under the device lock
//
// A resource's pixels are the device's own: what the driver does to its memory shows when it says so. How much memory
// all of them take is bounded, and how much is copied before the event loop has its turn.
#pragma once

#include <array>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>
#include <vector>

#include "devices/display/screen.h"
#include "devices/virtio/gpu_format.h"
#include "devices/virtio/model.h"

namespace caisson::virtio {

class Gpu final : public Model, public display::Screen {
 public:
  enum QueueIndex : uint8_t { control_queue, cursor_queue };
  static constexpr uint32_t largest = 4096;                    // width, height
  static constexpr uint64_t most_bytes = uint64_t{128} << 20;  // of all resources
  static constexpr size_t most_resources = 256;
  static constexpr size_t most_pieces = 65536;                  // of backing, all resources together
  static constexpr uint64_t most_at_once = uint64_t{64} << 20;  // bytes copied in a row
  static constexpr uint32_t cursor_size = 64;                   // 5.7.6.10: width and height
  static constexpr size_t most_saved = most_bytes + most_pieces * 12 + most_resources * 24;

  struct State {
    uint32_t events = 0;  // of the configuration
    uint32_t wanted_width = 1024, wanted_height = 768;
    uint32_t shown = 0;  // the scanout's resource; 0: off
    uint32_t x = 0, y = 0, width = 0, height = 0;
    uint32_t cursor = 0;  // its resource; 0: none
    uint32_t cursor_x = 0, cursor_y = 0, hot_x = 0, hot_y = 0;
    fields::Bytes<most_saved> resources;  // only while saving: see pack()
    static constexpr auto fields() {
      using fields::row;
      return fields::table<State>(row<1>("events", &State::events), row<2>("wanted_width", &State::wanted_width),
                                  row<3>("wanted_height", &State::wanted_height), row<4>("shown", &State::shown),
                                  row<5>("x", &State::x), row<6>("y", &State::y), row<7>("width", &State::width),
                                  row<8>("height", &State::height), row<9>("cursor", &State::cursor),
                                  row<10>("cursor_x", &State::cursor_x), row<11>("cursor_y", &State::cursor_y),
                                  row<12>("hot_x", &State::hot_x), row<13>("hot_y", &State::hot_y),
                                  row<14>("resources", &State::resources));
    }
  };

  Gpu();

  // 16 to `largest`; what is beyond is brought there.
  bool want_size(unsigned width, unsigned height) override;
  [[nodiscard]] std::pair<unsigned, unsigned> size() const override;
  [[nodiscard]] uint64_t changes() override { return changes_; }
  [[nodiscard]] display::Picture picture() const override;
  [[nodiscard]] display::Picture picture_below_pointer() const override;
  [[nodiscard]] std::optional<display::PointerPicture> pointer() const override;
  [[nodiscard]] std::string text() const override { return {}; }

  [[nodiscard]] std::string_view kind() const override { return "virtio-gpu"; }
  [[nodiscard]] DeviceType type() const override { return DeviceType::Gpu; }
  [[nodiscard]] uint32_t pci_class() const override { return 0x038000; }
  [[nodiscard]] uint64_t features() const override { return gpu::feature_edid; }
  [[nodiscard]] unsigned queue_count() const override { return 2; }
  [[nodiscard]] uint16_t queue_size() const override { return 64; }
  [[nodiscard]] std::span<const uint8_t> config() const override { return config_; }
  void write_config(unsigned offset, std::span<const uint8_t> bytes) override;
  void stop() override;
  void kick(unsigned queue) override;
  void save(fields::Buffer& out) const override;
  [[nodiscard]] Result<> restore(std::span<const uint8_t> in) override;

 private:
  struct Free {
    void operator()(uint8_t* bytes) const { std::free(bytes); }
  };
  struct Resource {
    uint32_t id = 0;
    gpu::Format format = gpu::Format::B8G8R8A8;
    uint32_t width = 0, height = 0;
    std::unique_ptr<uint8_t[], Free> pixels{};  // pages that nothing was written to are nobody's
    std::vector<Segment> backing{};
    [[nodiscard]] size_t stride() const { return size_t{width} * 4; }
    [[nodiscard]] size_t bytes() const { return stride() * height; }
  };
  using Reply = std::vector<uint8_t>;  // without its header

  // Commands: gpu.cpp
  void refresh_config();
  void changed() { ++changes_; }
  [[nodiscard]] Resource* find(uint32_t id);
  [[nodiscard]] const Resource* find(uint32_t id) const { return const_cast<Gpu*>(this)->find(id); }
  [[nodiscard]] static bool inside(const gpu::Rect& rect, const Resource& resource);
  [[nodiscard]] gpu::Answer add(uint32_t id, uint32_t format, uint32_t width, uint32_t height);
  [[nodiscard]] gpu::Answer execute(const gpu::Header& header, const Chain& chain, Reply& reply);
  [[nodiscard]] gpu::Answer remove(uint32_t id);
  [[nodiscard]] gpu::Answer set_scanout(const gpu::SetScanout& request);
  [[nodiscard]] gpu::Answer flush(const gpu::Flush& request);
  [[nodiscard]] gpu::Answer transfer(const gpu::Transfer& request);
  [[nodiscard]] gpu::Answer attach(const gpu::AttachBacking& request, const Chain& chain);
  [[nodiscard]] gpu::Answer detach(uint32_t id);
  [[nodiscard]] gpu::Answer set_cursor(const gpu::Cursor& request, bool moves_only);
  template <class Body>
  [[nodiscard]] bool get(const Chain& chain, Body& body) const;
  void pack(std::vector<uint8_t>& out) const;
  [[nodiscard]] bool unpack(std::span<const uint8_t> in);

  // Pictures: gpu_picture.cpp
  [[nodiscard]] std::array<uint8_t, gpu::edid_size> edid() const;

  State state_;  // `resources` only while saving
  std::array<uint8_t, 16> config_{};
  std::vector<Resource> resources_;
  uint64_t bytes_ = 0;   // of them
  size_t pieces_ = 0;    // of their backing
  uint64_t copied_ = 0;  // in a row
  uint64_t changes_ = 0;
};

}  // namespace caisson::virtio
