// Devices that come into a running machine and leave it, and disks that grow in one.
//   Coming   the device stands in its slot at once; the guest is told by ACPI and need not answer
//   Leaving  the guest is asked by ACPI and lets go of the device by _EJ0 (or the machine is reset); then it is taken
//   out
//            of its slot at once, and destroyed with its backend on the event loop. A guest that has not let go in
//            control::detach_patience_ms keeps it. What it lets go of without being asked, it is told of anew: only the
//            host takes devices away.
//   Threads  made and destroyed under the device lock or before anything runs; requests come on the event loop under
//            it, ejected() and occupied() from any CPU's thread under it
#pragma once

#include <list>
#include <memory>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "control/messages.h"
#include "devices/chipset/pci_hotplug.h"
#include "devices/pci/host_bridge.h"
#include "devices/virtio/attach.h"
#include "machine/control_server.h"
#include "machine/disks.h"
#include "machine/network.h"

namespace caisson::machine {

class LiveDevices final : public HotPlugSlots {
 public:
  // What the machine has; all of it outlives this.
  struct Parts {
    EventLoop& loop;
    Clock& clock;
    pci::HostBridge& bridge;
    PciHotPlug& registers;
    virtio::Services services;
    Disks& disks;
    std::unique_ptr<Network>& network;
    uint32_t fixed_slots;  // bit n: what is in slot n stays
  };
  using Tell = std::function<void(const control::Event&)>;

  LiveDevices(Parts parts, Tell tell);
  ~LiveDevices() override;

  // Slots whose devices may come and go: what the ACPI tables name.
  [[nodiscard]] uint32_t slots() const;

  // Whether the request was one of those for this; then it has been, or will be, answered. `fds`: what came with it.
  // `paused`: the guest cannot answer.
  [[nodiscard]] bool handle(const control::Request& request, const std::vector<Fd>& fds, bool paused,
                            const ControlServer::Reply& reply);
  // The machine was reset: the guest holds nothing any more. No CPU runs.
  void was_reset();

  [[nodiscard]] uint32_t occupied() const override { return parts_.bridge.occupied(); }
  void ejected(unsigned slot) override;

 private:
  struct Leaving {
    unsigned slot = 0;
    std::string device;  // as events call it
    bool network = false;
    ControlServer::Reply reply;
    std::unique_ptr<EventLoop::Timer> timer{};
    std::unique_ptr<pci::PciDevice> function{};  // out of its slot
  };

  [[nodiscard]] Result<unsigned> free_slot() const;
  [[nodiscard]] Result<> attach_disk(const control::AttachDisk& request, const std::vector<Fd>& fds);
  [[nodiscard]] Result<> attach_net(const control::AttachNet& request);
  [[nodiscard]] Result<> grow_disk(const control::GrowDisk& request);
  [[nodiscard]] Result<> detach(unsigned slot, std::string device, bool network, const ControlServer::Reply& reply);
  void arrived(unsigned slot, std::string device);
  void gone(unsigned slot);
  void refused(unsigned slot);
  [[nodiscard]] Leaving* leaving(unsigned slot);

  Parts parts_;
  Tell tell_;
  std::list<Leaving> leaving_;
};

}  // namespace caisson::machine
