#include "machine/vnc.h"

#include <mutex>
#include <utility>

namespace caisson::machine {

// The names are the same; a layout that is added is added to both.
static_assert(static_cast<int>(control::KeyboardLayout::Us) == static_cast<int>(rfb::Layout::Us) &&
              static_cast<int>(control::KeyboardLayout::De) == static_cast<int>(rfb::Layout::De) &&
              static_cast<int>(control::KeyboardLayout::Fr) == static_cast<int>(rfb::Layout::Fr) &&
              static_cast<int>(control::KeyboardLayout::Uk) == static_cast<int>(rfb::Layout::Uk));
// And so are the buttons' bits.
static_assert(int{rfb::Pointer::left} == int{Ps2Mouse::left} && int{rfb::Pointer::right} == int{Ps2Mouse::right} &&
              int{rfb::Pointer::middle} == int{Ps2Mouse::middle} && int{rfb::Pointer::back} == int{Ps2Mouse::fourth});

Result<std::unique_ptr<Vnc>> Vnc::create(Fd listener, const control::VmConfig& config, Bus& bus,
                                         display::Screen& screen, Inputs& inputs) {
  std::unique_ptr<Vnc> vnc(new Vnc(bus, screen, inputs));
  rfb::SessionOptions options;
  options.name = config.name;
  options.password = config.vnc_password;
  options.layout = static_cast<rfb::Layout>(config.keyboard_layout);
  auto server = rfb::Server::create(std::move(listener), std::move(options), *vnc);
  if (!server) return std::unexpected(server.error());
  vnc->server_ = std::move(*server);
  return vnc;
}

// A guest that is told moves, not places, has its pointer elsewhere than the viewer: then it is in the picture.
rfb::Cursor Vnc::cursor() {
  const std::lock_guard hold(bus_.lock());
  auto pointer = inputs_.absolute() ? screen_.pointer() : std::nullopt;
  if (!pointer) return {};
  return {pointer->width, pointer->height, pointer->hot_x, pointer->hot_y, std::move(pointer->pixels)};
}

uint64_t Vnc::changes() {
  const std::lock_guard hold(bus_.lock());
  return screen_.changes();
}

rfb::Frame Vnc::draw(bool pointer) {
  display::Picture picture;
  {
    const std::lock_guard hold(bus_.lock());
    picture = pointer || !inputs_.absolute() ? screen_.picture() : screen_.picture_below_pointer();
  }
  rfb::Frame frame{picture.width, picture.height, {}};
  frame.pixels.resize(size_t{picture.width} * picture.height);
  const uint8_t* from = picture.rgb.data();
  for (uint32_t& pixel : frame.pixels) {
    pixel = static_cast<uint32_t>(from[0] << 16 | from[1] << 8 | from[2]);
    from += 3;
  }
  return frame;
}

void Vnc::key(rfb::ScanCode key, bool down) {
  const std::lock_guard hold(bus_.lock());
  inputs_.key_soon({key.code, key.extended}, down);
}

void Vnc::point(const rfb::Pointer& pointer) {
  const std::lock_guard hold(bus_.lock());
  inputs_.point_soon({pointer.x, pointer.y, pointer.width, pointer.height, pointer.buttons, pointer.wheel});
}

bool Vnc::resize(unsigned width, unsigned height) {
  const std::lock_guard hold(bus_.lock());
  return screen_.want_size(width, height);
}

}  // namespace caisson::machine
