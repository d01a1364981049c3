// Guest RAM, and the one checked way to it for devices, loaders and engines.
//   Layout   RAM starts at 0; what does not fit below `low_limit` (the hole for devices) goes on at 4 GiB. The host
//   maps
//            all of it at one linear range: host address = base() + guest-physical address; the hole is inaccessible.
//   ROM      read-only memory at the end of the hole, which ends at 4 GiB: only engines see it. Devices, loaders and
//   page
//            walks do not, as contains() says no. It is in the linear range as well, write-protected on the host, too.
//   Threads  any. Guest memory changes while you look at it: copy once, check the copy, use the copy.
//   Dirty    every write by anyone but a vCPU's translated code must go through write()/write_object() or be followed
//   by
//            written(); pages that hold translated code are reported to the observer so that translations die.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>
#include <type_traits>

#include "base/fd.h"
#include "base/result.h"

namespace caisson {

using Gpa = uint64_t;  // guest-physical address

inline constexpr uint64_t page_size = 4096;

class DirtyPages;  // memory/dirty_log.h

class GuestMemory {
 public:
  // First guest-physical address of the device hole below 4 GiB.
  static constexpr Gpa low_limit = 0xc000'0000;
  static constexpr Gpa high_start = 0x1'0000'0000;

  struct Layout {
    Gpa low_end = low_limit;    // RAM from here on stands above 4 GiB: a multiple of the page size, at most low_limit
    bool video_window = false;  // a display's window lies over the RAM from video_start to video_end
    uint64_t rom_room = 0;      // set_rom() takes at most so much: whole pages, not more than fit above low_limit
  };
  static constexpr Gpa video_start = 0xa'0000;
  static constexpr Gpa video_end = 0xc'0000;

  // `size` in bytes: a multiple of the page size, at least 1 MiB. The error names size and remedy.
  [[nodiscard]] static Result<std::unique_ptr<GuestMemory>> create(uint64_t size, const Layout& layout);
  [[nodiscard]] static Result<std::unique_ptr<GuestMemory>> create(uint64_t size) { return create(size, {}); }
  ~GuestMemory();
  GuestMemory(const GuestMemory&) = delete;
  GuestMemory& operator=(const GuestMemory&) = delete;

  [[nodiscard]] uint64_t size() const { return size_; }
  [[nodiscard]] uint64_t low_size() const { return low_size_; }    // bytes of RAM from 0
  [[nodiscard]] uint64_t high_size() const { return high_size_; }  // bytes of RAM from 4 GiB
  [[nodiscard]] Gpa end() const { return high_size_ ? high_start + high_size_ : low_size_; }
  [[nodiscard]] uint8_t* base() const { return base_; }
  [[nodiscard]] int memfd() const { return memfd_.get(); }

  // A display's window lies over the RAM from video_start to video_end, so that no one but the host sees it.
  [[nodiscard]] bool has_video_window() const { return window_end_ != 0; }

  // True when [gpa, gpa+length) is RAM throughout. Never overflows; length 0 is true for any gpa in RAM (and in
  // the display's window).
  [[nodiscard]] bool contains(Gpa gpa, uint64_t length) const {
    if (gpa < low_size_) {
      if (gpa < window_end_ && length > window_start_ - std::min(gpa, window_start_)) return false;
      return length <= low_size_ - gpa;
    }
    return gpa >= high_start && gpa - high_start < high_size_ && length <= high_size_ - (gpa - high_start);
  }

  // Read-only memory that ends at 4 GiB: whole pages, at most Layout::rom_room. Once, before CPUs and engines are
  // there; it survives clear().
  [[nodiscard]] Result<> set_rom(std::span<const uint8_t> image);
  [[nodiscard]] uint64_t rom_size() const { return rom_size_; }
  [[nodiscard]] Gpa rom_start() const { return high_start - rom_size_; }
  // Whether the page that begins at `page` is of it.
  [[nodiscard]] bool is_rom_page(Gpa page) const { return page - rom_start() < rom_size_; }

  // Host view of guest memory, or an empty span where any byte is not RAM (or length is 0). Call written() after
  // writing.
  [[nodiscard]] std::span<uint8_t> span(Gpa gpa, uint64_t length) const {
    if (!contains(gpa, length)) return {};
    return {base_ + gpa, length};
  }

  // False, with nothing copied, where any byte is not RAM.
  [[nodiscard]] bool read(Gpa gpa, std::span<uint8_t> out) const;
  [[nodiscard]] bool write(Gpa gpa, std::span<const uint8_t> in);
  // As read(), of RAM or of ROM.
  [[nodiscard]] bool read_with_rom(Gpa gpa, std::span<uint8_t> out) const;

  template <class T>
  requires std::is_trivially_copyable_v<T>
  [[nodiscard]] bool read_object(Gpa gpa, T& out) const {
    return read(gpa, {reinterpret_cast<uint8_t*>(&out), sizeof(T)});
  }
  template <class T>
  requires std::is_trivially_copyable_v<T>
  [[nodiscard]] bool write_object(Gpa gpa, const T& in) {
    return write(gpa, {reinterpret_cast<const uint8_t*>(&in), sizeof(T)});
  }

  // To be called after bytes in RAM were changed through span().
  void written(Gpa gpa, uint64_t length);

  // Only for the dirty log: the page at this address was written.
  void note_dirty(Gpa page);

  // Page flags, one atomic word per page of RAM or ROM, for the engine (see jit/mmu). Index: page_index(gpa), where the
  // ROM's pages follow RAM's.
  //   bit 31  page holds translated code: written() reports writes to the observer
  static constexpr uint32_t code_flag = 1u << 31;
  [[nodiscard]] size_t page_index(Gpa gpa) const {
    if (gpa < low_limit) return gpa / page_size;
    return (gpa >= high_start ? gpa - high_start + low_size_ : gpa - rom_start() + size_) / page_size;
  }
  [[nodiscard]] Gpa page_address(size_t index) const {
    const uint64_t offset = index * page_size;
    if (offset < low_size_) return offset;
    return offset < size_ ? high_start + offset - low_size_ : rom_start() + offset - size_;
  }
  [[nodiscard]] std::atomic<uint32_t>& page_flags(Gpa gpa) { return flags_[page_index(gpa)]; }

  // Told of writes (by any thread) to pages whose code_flag is set. One engine at most; set before CPUs run.
  class CodeWriteObserver {
   public:
    virtual ~CodeWriteObserver() = default;
    virtual void code_written(Gpa gpa, uint64_t length) = 0;
  };
  void set_observer(CodeWriteObserver* observer) { observer_ = observer; }

  // Where written() notes pages, too; null: nowhere. The set outlives its use: no thread writes while it is taken away.
  void set_dirty_pages(DirtyPages* pages) { dirty_.store(pages); }

  // Whole pages of RAM that the guest needs no more: their memory goes back to the host, and they read as zeroes until
  // they are written. Nothing happens where a byte of them is not RAM, or is not a whole page's.
  void discard(Gpa gpa, uint64_t length);

  // Zeroes RAM (gives the pages back to the host). No CPU may run.
  [[nodiscard]] Result<> clear();

 private:
  GuestMemory() = default;

  Fd memfd_;
  uint8_t* base_ = nullptr;
  uint64_t reserved_ = 0;
  uint64_t size_ = 0;
  uint64_t low_size_ = 0;
  uint64_t high_size_ = 0;
  uint64_t rom_room_ = 0;
  uint64_t rom_size_ = 0;
  Gpa window_start_ = 0;  // an empty window without a display
  Gpa window_end_ = 0;
  std::unique_ptr<std::atomic<uint32_t>[], void (*)(void*)> flags_ { nullptr, std::free };
  CodeWriteObserver* observer_ = nullptr;
  std::atomic<DirtyPages*> dirty_{nullptr};
};

}  // namespace caisson
