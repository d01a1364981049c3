#include "devices/virtio/virtio_pci.h"

#include <utility>

#include "base/check.h"

namespace caisson::virtio {
namespace {

constexpr uint8_t vendor_capability = 0x09;
// In the PCI configuration access capability, from its start (4.1.4.9).
constexpr unsigned window_bar = 4;
constexpr unsigned window_offset = 8;
constexpr unsigned window_length = 12;
constexpr unsigned window_data = 16;
constexpr unsigned window_size = 20;

pci::Identity identity(const Model& model) {
  return {.vendor = pci_vendor,
          .device = static_cast<uint16_t>(pci_device_base + static_cast<uint16_t>(model.type())),
          .revision = 1,  // 4.1.2.1
          .class_code = model.pci_class(),
          .subsystem_vendor = pci_vendor,
          .subsystem = 0x1100,
          .interrupt_pin = 1};
}

struct CommonField {
  Common field;
  uint8_t width;
};
constexpr CommonField common_fields[] = {
    {Common::DeviceFeatureSelect, 4}, {Common::DeviceFeature, 4},    {Common::DriverFeatureSelect, 4},
    {Common::DriverFeature, 4},       {Common::ConfigMsixVector, 2}, {Common::NumQueues, 2},
    {Common::DeviceStatus, 1},        {Common::ConfigGeneration, 1}, {Common::QueueSelect, 2},
    {Common::QueueSize, 2},           {Common::QueueMsixVector, 2},  {Common::QueueEnable, 2},
    {Common::QueueNotifyOff, 2},      {Common::QueueDesc, 8},        {Common::QueueDriver, 8},
    {Common::QueueDevice, 8},
};

const CommonField* field_at(uint64_t offset) {
  for (const CommonField& entry : common_fields) {
    if (offset - static_cast<uint64_t>(entry.field) < entry.width) return &entry;
  }
  return nullptr;
}

uint64_t half(uint64_t features, uint32_t select) { return select < 2 ? features >> (32 * select) & 0xffff'ffff : 0; }

}  // namespace

VirtioPci::VirtioPci(std::string name, std::unique_ptr<Model> model, GuestMemory& memory, MsiSink& msi, Post post)
    : PciDevice(identity(*model)),
      name_(std::move(name)),
      model_(std::move(model)),
      memory_(memory),
      post_(std::move(post)),
      msix_(msi, config_, model_->queue_count() + 1, msix_bar) {
  CAISSON_CHECK(model_->queue_count() <= max_queues && model_->queue_size() <= Queue::max_size);
  add_bar(msix_bar, {.size = pci::Msix::bar_size});
  add_bar(register_bar, {.size = register_bar_size, .wide = true, .prefetchable = true});
  add_capabilities();
  model_->connect(*this);
  reset_device();
}

VirtioPci::~VirtioPci() { model_->stop(); }

void VirtioPci::add_capabilities() {
  struct Structure {
    CapabilityType type;
    uint64_t offset;
    uint64_t length;
  };
  const Structure structures[] = {
      {CapabilityType::Common, common_offset, common_length},
      {CapabilityType::Isr, isr_offset, 1},
      {CapabilityType::Device, device_offset, model_->config().size()},
      {CapabilityType::Notify, notify_offset, uint64_t{notify_multiplier} * model_->queue_count()},
      {CapabilityType::Pci, 0, 0},
  };
  for (const Structure& structure : structures) {
    if (structure.type == CapabilityType::Device && structure.length == 0) continue;
    const bool window = structure.type == CapabilityType::Pci;
    const bool notify = structure.type == CapabilityType::Notify;
    // struct virtio_pci_cap without its first two bytes.
    std::vector<uint8_t> body(window || notify ? 18 : 14);
    const auto put = [&](unsigned at, uint64_t value) {
      for (unsigned i = 0; i < 4; ++i) body[at + i] = static_cast<uint8_t>(value >> (8 * i));
    };
    body[0] = static_cast<uint8_t>(body.size() + 2);
    body[1] = static_cast<uint8_t>(structure.type);
    body[2] = window ? 0 : register_bar;
    put(6, structure.offset);
    put(10, structure.length);
    if (notify) put(14, notify_multiplier);
    std::vector<uint8_t> writable;
    if (window) {
      writable.resize(body.size());
      writable[window_bar - 2] = 0xff;
      for (unsigned i = window_offset; i < window_size; ++i) writable[i - 2] = 0xff;
    }
    const unsigned at = config_.add_capability(vendor_capability, body, writable);
    if (window) window_capability_ = at;
  }
}

// --- Transport: what the model may ask ---

uint64_t VirtioPci::offered() const {
  return model_->features() | feature::version_1 | feature::indirect_desc | feature::event_idx | feature::ring_packed;
}

uint64_t VirtioPci::features() const { return (state_.status & status::features_ok) != 0 ? state_.driver_features : 0; }

Queue* VirtioPci::queue(unsigned index) {
  auto* active = std::get_if<Active>(&life_);
  if (active == nullptr || index >= max_queues || (state_.status & status::needs_reset) != 0 || !bus_master()) {
    return nullptr;
  }
  auto& queue = active->queues[index];
  return queue ? &*queue : nullptr;
}

void VirtioPci::signal(unsigned index) {
  Queue* target = queue(index);
  if (target != nullptr && target->should_signal()) interrupt(state_.queues[index].vector, isr_queue);
}

void VirtioPci::config_changed() {
  ++state_.config_generation;
  if ((state_.status & status::driver_ok) != 0) interrupt(state_.config_vector, isr_config);
}

void VirtioPci::fail(std::string_view why) {
  if (failures_.allow()) log::warning("{}: the guest's driver broke a rule: {}; the device needs a reset", name_, why);
  if ((state_.status & status::needs_reset) != 0) return;
  state_.status |= status::needs_reset;
  // 2.1.2: a started driver is told by a configuration change.
  if ((state_.status & status::driver_ok) != 0) interrupt(state_.config_vector, isr_config);
}

void VirtioPci::kick_later(unsigned index) {
  post_([this, index, alive = std::weak_ptr(alive_)] {
    if (!alive.expired()) kick(index);
  });
}

void VirtioPci::interrupt(uint16_t vector, uint8_t isr_bit) {
  if (msix_.enabled()) {
    msix_.notify(vector);
    return;
  }
  state_.isr |= isr_bit;
  set_intx(true);
}

// --- Life cycle ---

void VirtioPci::status_write(uint8_t value) {
  if (value == 0) {
    reset_device();
    return;
  }
  // Bits are only ever added, in the order of 3.1.1; what comes out of order or takes back is not heeded.
  const uint8_t added = value & ~state_.status;
  uint8_t& now = state_.status;
  if ((added & status::acknowledge) != 0) now |= status::acknowledge;
  if ((added & status::driver) != 0 && (now & status::acknowledge) != 0) now |= status::driver;
  if ((added & status::features_ok) != 0 && (now & status::driver) != 0) {
    const bool fine = (state_.driver_features & ~offered()) == 0 && (state_.driver_features & feature::version_1) != 0;
    if (fine) now |= status::features_ok;  // otherwise the driver reads that it was not taken (2.2.2)
  }
  if ((added & status::failed) != 0) now |= status::failed;
  if ((added & status::driver_ok) != 0 && (now & status::features_ok) != 0 && (now & status::needs_reset) == 0) {
    now |= status::driver_ok;
    activate();
  }
}

std::optional<VirtioPci::Active> VirtioPci::create_queues(std::string_view& fault) {
  Active active;
  for (unsigned i = 0; i < model_->queue_count(); ++i) {
    if (!state_.queues[i].enabled) continue;
    active.queues[i] = Queue::create(memory_, state_.queues[i], features(), fault);
    if (!active.queues[i]) return {};
  }
  return active;
}

void VirtioPci::activate() {
  std::string_view fault;
  auto active = create_queues(fault);
  if (!active) {
    fail(fault);
    return;
  }
  life_ = std::move(*active);
  model_->start();
  kick_all();
}

void VirtioPci::reset_device() {
  model_->stop();
  life_ = Inactive{};
  state_ = State{};
  // A packed ring starts at its first round; queue sizes start at the largest (4.1.4.3).
  for (unsigned i = 0; i < model_->queue_count(); ++i) state_.queues[i].size = model_->queue_size();
  set_intx(false);
}

void VirtioPci::reset() {
  reset_device();
  msix_.reset();
  reset_config();
}

void VirtioPci::kick(unsigned index) {
  if (queue(index) != nullptr) model_->kick(index);
}

void VirtioPci::kick_all() {
  for (unsigned i = 0; i < model_->queue_count(); ++i) kick(i);
}

std::vector<pci::PciDevice::Doorbell> VirtioPci::doorbells() {
  std::vector<Doorbell> all;
  for (unsigned i = 0; i < model_->queue_count(); ++i) {
    all.push_back({register_bar, notify_offset + uint64_t{notify_multiplier} * i, [this, i] { kick(i); }});
  }
  return all;
}

// --- Registers ---

uint16_t VirtioPci::valid_vector(uint64_t vector) const {
  return vector < msix_.vectors() ? static_cast<uint16_t>(vector) : no_vector;
}

uint64_t VirtioPci::common_field(Common field) const {
  const bool selected = state_.queue_select < model_->queue_count();
  // A queue that does not exist has size 0 (4.1.4.3).
  const QueueState none;
  const QueueState& queue = selected ? state_.queues[state_.queue_select] : none;
  switch (field) {
    case Common::DeviceFeatureSelect: return state_.device_feature_select;
    case Common::DeviceFeature: return half(offered(), state_.device_feature_select);
    case Common::DriverFeatureSelect: return state_.driver_feature_select;
    case Common::DriverFeature: return half(state_.driver_features, state_.driver_feature_select);
    case Common::ConfigMsixVector: return state_.config_vector;
    case Common::NumQueues: return model_->queue_count();
    case Common::DeviceStatus: return state_.status;
    case Common::ConfigGeneration: return state_.config_generation;
    case Common::QueueSelect: return state_.queue_select;
    case Common::QueueSize: return queue.size;
    case Common::QueueMsixVector: return queue.vector;
    case Common::QueueEnable: return queue.enabled;
    case Common::QueueNotifyOff: return selected ? state_.queue_select : 0;
    case Common::QueueDesc: return queue.descriptors;
    case Common::QueueDriver: return queue.driver;
    case Common::QueueDevice: return queue.device;
  }
  return 0;
}

uint64_t VirtioPci::common_read(uint64_t offset, unsigned size) const {
  uint64_t value = 0;
  for (unsigned i = 0; i < size; ++i) {
    const CommonField* entry = field_at(offset + i);
    if (entry == nullptr) continue;
    const uint64_t shift = 8 * (offset + i - static_cast<uint64_t>(entry->field));
    value |= (common_field(entry->field) >> shift & 0xff) << (8 * i);
  }
  return value;
}

void VirtioPci::common_write(uint64_t offset, unsigned size, uint64_t value) {
  // 4.1.3.1: the driver uses a field's own width, and for 64-bit fields that or 32-bit halves. Others have no effect.
  const CommonField* entry = field_at(offset);
  if (entry == nullptr) return;
  const uint64_t within = offset - static_cast<uint64_t>(entry->field);
  const bool whole = within == 0 && size == entry->width;
  const bool half_of_wide = entry->width == 8 && size == 4 && within % 4 == 0;
  if (!whole && !half_of_wide) return;
  switch (entry->field) {
    case Common::DeviceFeatureSelect: state_.device_feature_select = static_cast<uint32_t>(value); break;
    case Common::DriverFeatureSelect: state_.driver_feature_select = static_cast<uint32_t>(value); break;
    case Common::DriverFeature: {
      // Settled once FEATURES_OK is set (3.1.1).
      if ((state_.status & status::features_ok) != 0 || state_.driver_feature_select > 1) break;
      const unsigned shift = 32 * state_.driver_feature_select;
      state_.driver_features = (state_.driver_features & ~(0xffff'ffffull << shift)) | value << shift;
      break;
    }
    case Common::ConfigMsixVector: state_.config_vector = valid_vector(value); break;
    case Common::DeviceStatus: status_write(static_cast<uint8_t>(value)); break;
    case Common::QueueSelect: state_.queue_select = static_cast<uint16_t>(value); break;
    case Common::QueueSize:
    case Common::QueueMsixVector:
    case Common::QueueEnable:
    case Common::QueueDesc:
    case Common::QueueDriver:
    case Common::QueueDevice: queue_write(entry->field, within, size, value); break;
    case Common::DeviceFeature:
    case Common::NumQueues:
    case Common::ConfigGeneration:
    case Common::QueueNotifyOff: break;  // read-only
  }
}

void VirtioPci::queue_write(Common field, uint64_t within, unsigned size, uint64_t value) {
  if (state_.queue_select >= model_->queue_count()) return;
  QueueState& queue = state_.queues[state_.queue_select];
  if (field == Common::QueueMsixVector) {
    queue.vector = valid_vector(value);
    return;
  }
  // 4.1.4.3.2: an enabled queue does not change, and none can be disabled but by a reset.
  if (queue.enabled || (state_.status & status::driver_ok) != 0) return;
  const auto set = [&](uint64_t& address) {
    if (size == 8) {
      address = value;
    } else {
      address = (address & ~(0xffff'ffffull << (8 * within))) | value << (8 * within);
    }
  };
  switch (field) {
    case Common::QueueSize:
      // Never larger than offered; whether it suits the ring's format shows when the device is started.
      if (value >= 1 && value <= model_->queue_size()) queue.size = static_cast<uint16_t>(value);
      break;
    case Common::QueueEnable: queue.enabled = value == 1; break;
    case Common::QueueDesc: set(queue.descriptors); break;
    case Common::QueueDriver: set(queue.driver); break;
    case Common::QueueDevice: set(queue.device); break;
    default: break;
  }
}

uint64_t VirtioPci::register_read(uint64_t offset, unsigned size) {
  if (offset < isr_offset) return common_read(offset - common_offset, size);
  if (offset < device_offset) {
    if (offset != isr_offset) return 0;
    set_intx(false);  // reading acknowledges (4.1.4.5)
    return std::exchange(state_.isr, 0);
  }
  if (offset < notify_offset) {
    const auto config = model_->config();
    uint64_t value = 0;
    for (unsigned i = 0; i < size; ++i) {
      const uint64_t at = offset - device_offset + i;
      if (at < config.size()) value |= uint64_t{config[at]} << (8 * i);
    }
    return value;
  }
  return 0;
}

void VirtioPci::register_write(uint64_t offset, unsigned size, uint64_t value) {
  if (offset < isr_offset) {
    common_write(offset - common_offset, size, value);
  } else if (offset >= notify_offset) {
    kick(static_cast<unsigned>((offset - notify_offset) / notify_multiplier));
  } else if (offset >= device_offset) {
    const uint64_t at = offset - device_offset;
    if (at + size > model_->config().size()) return;
    std::array<uint8_t, 8> bytes{};
    for (unsigned i = 0; i < size; ++i) bytes[i] = static_cast<uint8_t>(value >> (8 * i));
    model_->write_config(static_cast<unsigned>(at), std::span(bytes).first(size));
  }
}

uint64_t VirtioPci::read(unsigned region, uint64_t offset, unsigned size) {
  return region == msix_bar ? msix_.read(offset, size) : register_read(offset, size);
}

void VirtioPci::write(unsigned region, uint64_t offset, unsigned size, uint64_t value) {
  region == msix_bar ? msix_.write(offset, size, value) : register_write(offset, size, value);
}

// --- Configuration space ---

// 4.1.4.9: what the access capability's fields name, if that is an access it allows.
bool VirtioPci::window_access(uint64_t& offset, unsigned& size, unsigned& bar) const {
  bar = config_.get(window_capability_ + window_bar, 1);
  offset = config_.get(window_capability_ + window_offset, 4);
  size = config_.get(window_capability_ + window_length, 4);
  if ((size != 1 && size != 2 && size != 4) || offset % size != 0) return false;
  if (bar != msix_bar && bar != register_bar) return false;
  return offset < bars()[bar].size;
}

uint32_t VirtioPci::config_read(unsigned offset, unsigned size) {
  const unsigned data = window_capability_ + window_data;
  if (offset < data + 4 && offset + size > data) {
    uint64_t at = 0;
    unsigned length = 0;
    unsigned bar = 0;
    if (window_access(at, length, bar)) config_.set(data, length, static_cast<uint32_t>(read(bar, at, length)));
  }
  return PciDevice::config_read(offset, size);
}

void VirtioPci::config_write(unsigned offset, unsigned size, uint32_t value) {
  const bool was_master = bus_master();
  const bool covers_command = offset <= pci::command && pci::command < offset + size;
  // What is in flight ends while the device may still write to memory.
  if (was_master && covers_command && (value >> (8 * (pci::command - offset)) & pci::command_bus_master) == 0) {
    model_->quiesce();
  }
  PciDevice::config_write(offset, size, value);
  msix_.update();
  if (!was_master && bus_master()) kick_all();

  const unsigned data = window_capability_ + window_data;
  if (offset < data + 4 && offset + size > data) {
    uint64_t at = 0;
    unsigned length = 0;
    unsigned bar = 0;
    if (window_access(at, length, bar)) write(bar, at, length, config_.get(data, length));
  }
}

// --- Saving ---

void VirtioPci::save(fields::Buffer& out) const {
  State all = state_;
  all.config = config_.state();
  all.msix = msix_.state();
  model_->save(all.model.data);
  fields::save(all, out);
}

Result<> VirtioPci::restore(std::span<const uint8_t> in) {
  State all = state_;
  all.config = config_.state();
  all.msix = msix_.state();
  if (auto done = fields::restore(all, in); !done) return done;

  const auto refuse = [&](std::string_view what) {
    return caisson::fail("saved state of {} has an impossible {}; the file is damaged", name_, what);
  };
  const bool running = (all.status & status::driver_ok) != 0 && (all.status & status::needs_reset) == 0;
  if ((all.status & status::features_ok) != 0 && (all.driver_features & ~offered()) != 0) return refuse("feature");
  if ((all.status & status::driver_ok) != 0 && (all.status & status::features_ok) == 0) return refuse("status");
  if (all.config_vector != valid_vector(all.config_vector)) return refuse("configuration vector");
  for (unsigned i = 0; i < max_queues; ++i) {
    QueueState& queue = all.queues[i];
    const unsigned largest = i < model_->queue_count() ? model_->queue_size() : 0;
    if (queue.size > largest) return refuse("queue size");
    if (queue.vector != valid_vector(queue.vector)) return refuse("queue vector");
    if (!queue.enabled || !running) continue;
    std::string_view fault;
    if (!Queue::create(memory_, queue, all.driver_features, fault)) return refuse(fault);
  }

  // From here on pieces are replaced; each checks itself, and what was is put back where one refuses.
  fields::Buffer model_before;
  model_->save(model_before);
  model_->stop();
  life_ = Inactive{};
  const State before = std::exchange(state_, all);
  const pci::ConfigSpace::State config_before = config_.state();
  const pci::Msix::State msix_before = msix_.state();
  Result<> done = model_->restore(all.model.data);
  if (done) done = msix_.restore(all.msix);
  if (done) done = restore_config(all.config);
  if (!done) {
    state_ = before;
    std::ignore = model_->restore(model_before);
    std::ignore = msix_.restore(msix_before);
    std::ignore = restore_config(config_before);
  }
  state_.model.data.clear();
  set_intx(state_.isr != 0);
  if ((state_.status & status::driver_ok) != 0 && (state_.status & status::needs_reset) == 0) {
    std::string_view fault;
    auto active = create_queues(fault);
    CAISSON_CHECK(active.has_value());  // checked above
    life_ = std::move(*active);
    model_->start();
    // A kick or a completion may have been lost on the way (event index): look into every queue when the guest runs.
    for (unsigned i = 0; i < model_->queue_count(); ++i) kick_later(i);
  }
  return done;
}

}  // namespace caisson::virtio
