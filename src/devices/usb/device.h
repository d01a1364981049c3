// What stands behind a port of a USB host controller: the control pipe with the standard requests, and pipes of bytes.
//   Spec     USB 2.0 chapter 9; USB 3.2 chapter 9 for SuperSpeed
//   Models   one configuration with one interface; descriptors, status, halted endpoints
//   Omits    alternate settings, remote wake-up, power management beyond acceptance of its requests
//   Threads  under the device lock
//
// A device never waits: what it has not got yet is answered with Later, as hardware answers NAK, and it calls
// Wire::ready() once it has; never from within a call of its own.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/fields.h"
#include "base/result.h"
#include "devices/usb/format.h"

namespace caisson::usb {

// What a pipe did with the bytes that it was given, or the room.
struct Moved {
  enum class Kind : uint8_t {
    Bytes,    // `count` of them
    Later,    // none now
    Stall,    // the endpoint is halted
    TooLong,  // what the device sends has no room there: babble
  };
  Kind kind = Kind::Bytes;
  size_t count = 0;
  bool ends = false;  // to the host: a short packet; what follows is another transfer
};

// What a device sees of its port.
class Wire {
 public:
  virtual ~Wire() = default;
  virtual void ready(unsigned endpoint, bool in) = 0;  // it would no longer answer Later
};

class UsbDevice {
 public:
  static constexpr size_t most_saved = 128 * 1024;

  struct State {
    uint8_t configuration = 0;
    uint32_t halted = 0;  // bit 2 n: endpoint n to the device, 2 n + 1: to the host
    static constexpr auto fields() {
      using fields::row;
      return fields::table<State>(row<1>("configuration", &State::configuration), row<2>("halted", &State::halted));
    }
  };

  virtual ~UsbDevice() = default;
  UsbDevice(const UsbDevice&) = delete;
  UsbDevice& operator=(const UsbDevice&) = delete;

  [[nodiscard]] Speed speed() const { return description_.speed; }
  void plug(Wire* wire) { wire_ = wire; }
  [[nodiscard]] bool configured() const { return state_.configuration != 0; }

  // A control transfer to the host: at most setup.length bytes. None: a stall.
  [[nodiscard]] std::optional<std::vector<uint8_t>> control_in(const Setup& setup);
  // One to the device, whose data has come. False: a stall.
  [[nodiscard]] bool control_out(const Setup& setup, std::span<const uint8_t> data);
  // Endpoints from 1 on. `last`: a short packet follows, or nothing; the host's transfer is over.
  [[nodiscard]] Moved in(unsigned endpoint, std::span<uint8_t> into);
  [[nodiscard]] Moved out(unsigned endpoint, std::span<const uint8_t> bytes, bool last);

  // By the port, to the default state (9.1.1.3).
  void reset();
  // Waits for what is in flight; afterwards state can be saved.
  virtual void quiesce() {}
  virtual void save(fields::Buffer& out) const = 0;
  [[nodiscard]] virtual Result<> restore(std::span<const uint8_t> in) = 0;

 protected:
  struct Endpoint {
    uint8_t address;  // bit 7: to the host
    uint8_t attributes;
    uint16_t packet;   // most bytes of a packet
    uint8_t interval;  // bInterval
    uint8_t burst;     // SuperSpeed only: packets less one
  };
  struct Description {
    Speed speed;
    uint16_t vendor, product;
    std::string maker, name, serial;
    uint8_t interface_class, interface_subclass, interface_protocol;
    std::vector<uint8_t> of_class{};  // descriptors that follow the interface's
    std::vector<Endpoint> endpoints;
  };
  explicit UsbDevice(Description description) : description_(std::move(description)) {}

  // Class requests, and standard ones of an interface that are not known here.
  [[nodiscard]] virtual std::optional<std::vector<uint8_t>> class_in(const Setup&) { return {}; }
  [[nodiscard]] virtual bool class_out(const Setup&, std::span<const uint8_t>) { return false; }
  [[nodiscard]] virtual Moved send(unsigned endpoint, std::span<uint8_t> into) = 0;
  [[nodiscard]] virtual Moved take(unsigned endpoint, std::span<const uint8_t> bytes, bool last) = 0;
  virtual void forget() = 0;  // after a reset, or another configuration
  // The host has cleared a halt; whether that is the end of it.
  [[nodiscard]] virtual bool may_go_on(unsigned, bool) { return true; }

  void halt(unsigned endpoint, bool in) { state_.halted |= bit(endpoint, in); }
  void ready(unsigned endpoint, bool in) {
    if (wire_ != nullptr) wire_->ready(endpoint, in);
  }
  [[nodiscard]] static bool sound(const State& state) { return state.configuration <= 1; }

  State state_;

 private:
  [[nodiscard]] static uint32_t bit(unsigned endpoint, bool in) { return 1u << (2 * endpoint + (in ? 1 : 0)); }
  [[nodiscard]] bool has(unsigned endpoint, bool in) const;
  [[nodiscard]] std::optional<std::vector<uint8_t>> descriptor(uint8_t type, uint8_t index) const;
  [[nodiscard]] std::vector<uint8_t> configuration() const;
  [[nodiscard]] std::optional<std::vector<uint8_t>> string(uint8_t index) const;
  [[nodiscard]] bool standard_out(const Setup& setup);

  const Description description_;
  Wire* wire_ = nullptr;
};

}  // namespace caisson::usb
