// KVM's structures that end in a list, and their requests. <linux/kvm.h> declares the lists so that C++ compilers take
// the head for larger than it is; the size is part of the request's number.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <span>

#include <linux/kvm.h>
#include <sys/ioctl.h>

namespace caisson::kvm {

struct ListHead {
  uint32_t count;
  uint32_t padding;
};

inline constexpr unsigned long get_supported_cpuid = _IOWR(KVMIO, 0x05, ListHead);  // KVM_GET_SUPPORTED_CPUID
inline constexpr unsigned long set_cpuid2 = _IOW(KVMIO, 0x90, ListHead);            // KVM_SET_CPUID2
inline constexpr unsigned long get_msrs = _IOWR(KVMIO, 0x88, ListHead);             // KVM_GET_MSRS
inline constexpr unsigned long set_msrs = _IOW(KVMIO, 0x89, ListHead);              // KVM_SET_MSRS
inline constexpr unsigned long set_gsi_routing = _IOW(KVMIO, 0x6a, ListHead);       // KVM_SET_GSI_ROUTING
inline constexpr unsigned long set_signal_mask = _IOW(KVMIO, 0x8b, uint32_t);       // KVM_SET_SIGNAL_MASK

// struct kvm_xsave without its tail.
struct XsaveArea {
  uint8_t bytes[4096];
};
inline constexpr unsigned long get_xsave_area = _IOR(KVMIO, 0xa4, XsaveArea);   // KVM_GET_XSAVE
inline constexpr unsigned long set_xsave_area = _IOW(KVMIO, 0xa5, XsaveArea);   // KVM_SET_XSAVE
inline constexpr unsigned long get_xsave_area2 = _IOR(KVMIO, 0xcf, XsaveArea);  // KVM_GET_XSAVE2

// A head and `Entry`s behind it.
template <class Entry>
class List {
 public:
  explicit List(uint32_t count)
      : words_(std::make_unique<uint64_t[]>((sizeof(ListHead) + count * sizeof(Entry) + 7) / 8)) {
    head().count = count;
  }
  [[nodiscard]] void* get() const { return words_.get(); }
  [[nodiscard]] std::span<Entry> entries() const {
    return {reinterpret_cast<Entry*>(words_.get() + sizeof(ListHead) / 8), head().count};
  }

 private:
  [[nodiscard]] ListHead& head() const { return *reinterpret_cast<ListHead*>(words_.get()); }
  std::unique_ptr<uint64_t[]> words_;
};

}  // namespace caisson::kvm
