// Names and numbers of virtio over PCI.
//   Spec     Virtual I/O Device (VIRTIO) Version 1.2, OASIS 2022: 2.1 (status), 4.1.4 (PCI structures), 6 (features)
#pragma once

#include <cstdint>

namespace caisson::virtio {

inline constexpr uint16_t pci_vendor = 0x1af4;
inline constexpr uint16_t pci_device_base = 0x1040;  // plus the device type, 4.1.2

// Device types, 5.
enum class DeviceType : uint16_t {
  Network = 1,
  Block = 2,
  Console = 3,
  Entropy = 4,
  Balloon = 5,
  Gpu = 16,
  Input = 18,
  Socket = 19
};

// device_status, 2.1.
namespace status {
inline constexpr uint8_t acknowledge = 1;
inline constexpr uint8_t driver = 2;
inline constexpr uint8_t driver_ok = 4;
inline constexpr uint8_t features_ok = 8;
inline constexpr uint8_t needs_reset = 64;
inline constexpr uint8_t failed = 128;
}  // namespace status

// Feature bits that do not belong to a device type, 6.
namespace feature {
inline constexpr uint64_t indirect_desc = 1ull << 28;
inline constexpr uint64_t event_idx = 1ull << 29;
inline constexpr uint64_t version_1 = 1ull << 32;
inline constexpr uint64_t ring_packed = 1ull << 34;
}  // namespace feature

// struct virtio_pci_common_cfg, 4.1.4.3.
enum class Common : uint8_t {
  DeviceFeatureSelect = 0x00,
  DeviceFeature = 0x04,
  DriverFeatureSelect = 0x08,
  DriverFeature = 0x0c,
  ConfigMsixVector = 0x10,
  NumQueues = 0x12,
  DeviceStatus = 0x14,
  ConfigGeneration = 0x15,
  QueueSelect = 0x16,
  QueueSize = 0x18,
  QueueMsixVector = 0x1a,
  QueueEnable = 0x1c,
  QueueNotifyOff = 0x1e,
  QueueDesc = 0x20,
  QueueDriver = 0x28,
  QueueDevice = 0x30,
};
inline constexpr uint64_t common_length = 0x38;

// cfg_type of the vendor capabilities, 4.1.4.
enum class CapabilityType : uint8_t { Common = 1, Notify = 2, Isr = 3, Device = 4, Pci = 5 };

// ISR status, 4.1.4.5.
inline constexpr uint8_t isr_queue = 1;
inline constexpr uint8_t isr_config = 2;

inline constexpr uint16_t no_vector = 0xffff;

}  // namespace caisson::virtio
