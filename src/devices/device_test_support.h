// What the unit tests of all device models share.
//   expect_round_trip(device)  save → perturb → restore → compare, and the rejection of damaged saved states. `device`
//   is anything with a public State (a field table), save(Buffer&) const and restore(span). Where a blindly changed
//   State is not a valid one, `repair` turns it into one that is valid and still differs.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/fields.h"
#include "bus/device.h"
#include "bus/interrupt.h"
#include "bus/power.h"

namespace caisson::test_support {

// An interrupt wire that remembers its level and counts rising edges.
class RecordingLine final : public InterruptLine {
 public:
  void set(bool high) override {
    if (high && !level_) ++rises_;
    level_ = high;
  }
  [[nodiscard]] bool level() const { return level_; }
  [[nodiscard]] unsigned rises() const { return rises_; }

 private:
  bool level_ = false;
  unsigned rises_ = 0;
};

class RecordingPower final : public PowerSink {
 public:
  struct Request {
    PowerEvent event;
    uint8_t code;
    bool operator==(const Request&) const = default;
  };
  void request(PowerEvent event, uint8_t code) override { requests.push_back({event, code}); }
  std::vector<Request> requests;
};

class RecordingMsi final : public MsiSink {
 public:
  struct Message {
    uint64_t address;
    uint32_t data;
    bool operator==(const Message&) const = default;
  };
  void send_msi(uint64_t address, uint32_t data) override { messages.push_back({address, data}); }
  std::vector<Message> messages;
};

inline std::string join(const std::vector<std::string>& names) {
  std::string all;
  for (const auto& name : names) all += (all.empty() ? "" : ", ") + name;
  return all;
}

template <class DeviceType>
fields::Buffer saved(const DeviceType& device) {
  fields::Buffer out;
  device.save(out);
  return out;
}

template <class DeviceType>
void expect_round_trip(DeviceType& device, const std::function<void(typename DeviceType::State&)>& repair = {}) {
  using State = typename DeviceType::State;
  const fields::Buffer before = saved(device);

  State original{};
  ASSERT_TRUE(fields::restore(original, before).has_value()) << "save() wrote what State cannot read";
  State changed = original;
  fields::perturb(changed);
  if (repair) repair(changed);
  ASSERT_FALSE(fields::diff(original, changed).empty());

  fields::Buffer perturbed;
  fields::save(changed, perturbed);
  const auto done = device.restore(perturbed);
  ASSERT_TRUE(done.has_value()) << done.error().message;
  State after{};
  ASSERT_TRUE(fields::restore(after, saved(device)).has_value());
  EXPECT_EQ(join(fields::diff(changed, after)), "") << "restore() followed by save() changed these members";

  // Damaged input is refused, and changes nothing.
  const fields::Buffer steady = saved(device);
  if (!perturbed.empty()) {
    fields::Buffer cut(perturbed.begin(), perturbed.end() - 1);
    EXPECT_FALSE(device.restore(cut).has_value()) << "a state cut short was accepted";
    fields::Buffer longer = perturbed;
    longer.push_back(0);
    EXPECT_FALSE(device.restore(longer).has_value()) << "trailing bytes were accepted";
    fields::Buffer unknown = perturbed;
    unknown.insert(unknown.end(), {0xff, 0xff, 0, 0, 0, 0});
    EXPECT_FALSE(device.restore(unknown).has_value()) << "an unknown field was accepted";
  }
  EXPECT_EQ(saved(device), steady) << "a refused restore() changed the device";

  const auto back = device.restore(before);
  ASSERT_TRUE(back.has_value()) << back.error().message;
  State end{};
  ASSERT_TRUE(fields::restore(end, saved(device)).has_value());
  EXPECT_EQ(join(fields::diff(original, end)), "") << "the original state did not come back";
}

}  // namespace caisson::test_support
