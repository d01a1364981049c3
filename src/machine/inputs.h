// The keyboard and the pointer of a machine, whichever devices the guest uses for them: virtio's, or the USB tablet,
// where its driver runs, else those at the PS/2 ports.
//   Pointer  positions are pixels of the screen. A PS/2 mouse only tells how far it moved: what the guest makes of that
//            (acceleration) decides where its pointer goes; a tablet's is exact.
//   Threads  under the device lock
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>

#include "bus/clock.h"
#include "control/vm_config.h"
#include "devices/chipset/keyboard_controller.h"
#include "devices/usb/tablet.h"
#include "devices/virtio/input.h"
#include "machine/usb_ports.h"

namespace caisson::machine {

// Where the pointer is on a screen of this size, and what of its buttons is down.
struct Pointing {
  uint32_t x = 0, y = 0;
  uint32_t width = 1, height = 1;
  uint8_t buttons = 0;  // Ps2Mouse::Button
  int wheel = 0;        // steps towards the user
};

class Inputs {
 public:
  // Each of the last three may be null.
  Inputs(Clock& clock, KeyboardController& ps2, virtio::Input* keyboard, virtio::Input* tablet,
         usb::Tablet* usb_tablet = nullptr);

  // False: the guest has not taken what came before; try again later.
  bool key(Key key, bool down);
  bool point(const Pointing& to);
  // The guest's pointer is where point() says.
  [[nodiscard]] bool absolute() const { return usb_driven() || (tablet_ != nullptr && tablet_->driven()); }
  // The next point() with a mouse is counted from the upper left corner. False: not there yet, try again.
  bool home();

  // The same for somebody who cannot wait: what the guest does not take now comes later, and where a lot waits, moves
  // of the pointer are joined and keys are lost.
  void key_soon(Key key, bool down);
  void point_soon(const Pointing& to);

 private:
  static constexpr size_t most_waiting = 256;
  static constexpr uint64_t pace_ns = 5'000'000;
  static constexpr int most_wheel = 64;
  struct Waiting {
    std::optional<Key> key;  // none: the pointer
    bool down = false;
    Pointing pointing;
  };

  [[nodiscard]] bool usb_driven() const { return usb_tablet_ != nullptr && usb_tablet_->driven(); }
  bool try_now(const Waiting& one);
  void add(const Waiting& one);
  void retry();

  Clock& clock_;
  KeyboardController& ps2_;
  virtio::Input* keyboard_;
  virtio::Input* tablet_;
  usb::Tablet* usb_tablet_;
  // Keys that virtio's keyboard has down: they come up there, too. By code and prefix.
  std::array<bool, 512> down_there_{};
  Pointing last_;
  bool known_ = false;  // where last_ is, for a mouse
  bool goes_home_ = false;
  std::deque<Waiting> waiting_;
  std::unique_ptr<Clock::Timer> timer_;
};

// With devices in the first free slots.
[[nodiscard]] std::unique_ptr<Inputs> add_inputs(Clock& clock, KeyboardController& ps2, pci::HostBridge& bridge,
                                                 const virtio::Services& services, UsbPorts& usb,
                                                 control::Tablet tablet);

}  // namespace caisson::machine
