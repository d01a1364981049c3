// A machine's screen for viewers (VNC): its picture, and its keyboard and pointer.
//   Threads  create() and the destructor without the device lock; the server's thread takes it for each key, each move
//            of the pointer and each picture
#pragma once

#include <memory>

#include "backend/rfb/server.h"
#include "base/fd.h"
#include "bus/bus.h"
#include "control/vm_config.h"
#include "devices/display/screen.h"
#include "machine/inputs.h"

namespace caisson::machine {

class Vnc final : private rfb::Machine {
 public:
  // `listener`: a bound stream socket. The others outlive the server.
  [[nodiscard]] static Result<std::unique_ptr<Vnc>> create(Fd listener, const control::VmConfig& config, Bus& bus,
                                                           display::Screen& screen, Inputs& inputs);

 private:
  Vnc(Bus& bus, display::Screen& screen, Inputs& inputs) : bus_(bus), screen_(screen), inputs_(inputs) {}

  [[nodiscard]] uint64_t changes() override;
  [[nodiscard]] rfb::Frame draw(bool pointer) override;
  [[nodiscard]] rfb::Cursor cursor() override;
  void key(rfb::ScanCode key, bool down) override;
  void point(const rfb::Pointer& pointer) override;
  bool resize(unsigned width, unsigned height) override;

  Bus& bus_;
  display::Screen& screen_;
  Inputs& inputs_;
  std::unique_ptr<rfb::Server> server_;
};

}  // namespace caisson::machine
