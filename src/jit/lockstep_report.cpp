// What a difference looks like.
#include <array>
#include <string_view>

#include <fmt/core.h>

#include "jit/disassembly.h"
#include "jit/lockstep.h"

namespace caisson::jit {
namespace {

using namespace x86;

constexpr std::array<std::string_view, 16> register_names{"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                                          "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
constexpr std::array<std::string_view, 6> segment_names{"es", "cs", "ss", "ds", "fs", "gs"};
constexpr std::array<std::string_view, 5> leave_names{"at its end", "for the interpreter", "for a memory access",
                                                      "by a host fault", "for a system instruction"};

std::string flag_names(uint32_t flags) {
  static constexpr std::array<std::pair<uint32_t, std::string_view>, 6> names{
      {{1, "CF"}, {4, "PF"}, {0x10, "AF"}, {0x40, "ZF"}, {0x80, "SF"}, {0x800, "OF"}}};
  std::string text;
  for (const auto& [bit, name] : names) {
    if (flags & bit) text += fmt::format("{}{}", text.empty() ? "" : " ", name);
  }
  return text;
}

std::string hex(const uint8_t* bytes, size_t size) {
  std::string text;
  for (size_t i = 0; i < size; ++i) text += fmt::format("{:02x}", bytes[i]);
  return text;
}

std::string row(std::string_view name, uint64_t before, uint64_t interpreter, uint64_t translator) {
  return fmt::format("  {:<16} {:016x}  {:016x}  {:016x}\n", name, before, interpreter, translator);
}

}  // namespace

std::string Lockstep::code_text(const Block& block, const Items& items, uint64_t mark) const {
  std::vector<uint8_t> bytes(block.guest_size);
  const size_t here = block.guest_size - block.next_size;
  (void)cpu_.memory->read_with_rom(block.key.gpa, std::span(bytes).first(here));
  if (block.next_size != 0) (void)cpu_.memory->read_with_rom(block.next_page, std::span(bytes).subspan(here));
  std::string text = fmt::format("the block, at guest-physical {:x}, mode word {:x}:\n", block.key.gpa, block.key.mode);
  const uint64_t start = points_.front().rip;
  for (const Item& item : items) {
    unsigned length;
    const std::string line = disassemble(std::span<const uint8_t>(bytes).subspan(item.offset),
                                         block.key.mode & mode_bits::code_32 ? 32 : 64, start + item.offset, length);
    text += fmt::format("{} {:x}  {}\n", start + item.offset == mark ? "=>" : "  ", start + item.offset, line);
  }
  return text;
}

std::string Lockstep::flags_lost(uint32_t flags, uint64_t reader) const {
  return fmt::format(
      "lock-step: CPU {}: the translation of the block at {:x} did not keep {}, which the instruction at {:x} reads\n",
      cpu_.index, dropped_by_, flag_names(flags), reader);
}

std::string Lockstep::report(const Block& block, const Items& items) const {
  // The state to compare with: where the translator stopped, or where the interpreter did.
  const Point* point = &points_.back();
  bool on_the_way = false;
  for (const Point& one : points_) {
    if (one.rip == cpu_.rip) point = &one, on_the_way = true;
  }
  const Point& start = points_.front();
  std::string text = fmt::format(
      "lock-step: CPU {}: interpreter and translator differ in the block at {:x}\n"
      "translated code was left at {:x}, {}; the interpreter did {} of {} instructions\n",
      cpu_.index, start.rip, cpu_.rip, cpu_.leave < leave_names.size() ? leave_names[cpu_.leave] : "somehow",
      points_.size() - 1, items.size());
  if (!on_the_way) text += fmt::format("the interpreter never came there: it ended at {:x}\n", point->rip);
  text += code_text(block, items, cpu_.rip);
  text += fmt::format("  {:<16} {:<16}  {:<16}  {:<16}\n", "what differs", "before", "interpreter", "translator");
  if (point->rip != cpu_.rip) text += row("rip", start.rip, point->rip, cpu_.rip);
  for (unsigned i = 0; i < 16; ++i) {
    if (point->gpr[i] != cpu_.gpr[i]) text += row(register_names[i], start.gpr[i], point->gpr[i], cpu_.gpr[i]);
  }
  const uint64_t flags = (point->rflags ^ cpu_.rflags) & ~(uint64_t{point->undefined} | rflags::rf);
  if (flags != 0) {
    text += row("rflags", start.rflags, point->rflags, cpu_.rflags);
    if (const auto status = static_cast<uint32_t>(flags & rflags::status))
      text += fmt::format("    {} (no difference by itself: it may be dropped where nobody reads it)\n",
                          flag_names(status));
  }
  for (unsigned i = 0; i < 6; ++i) {
    const Segment &before = start.segments[i], &a = point->segments[i], &b = cpu_.segments[i];
    const auto part = [&](std::string_view what, uint64_t old, uint64_t one, uint64_t two) {
      if (one != two) text += row(fmt::format("{} {}", segment_names[i], what), old, one, two);
    };
    part("selector", before.selector, a.selector, b.selector);
    part("base", before.base, a.base, b.base);
    part("limit", before.limit, a.limit, b.limit);
    part("attributes", before.attributes, a.attributes, b.attributes);
  }
  const uint64_t kernel_gs = cpu_.msrs[static_cast<size_t>(MsrSlot::KernelGsBase)];
  if (kernel_gs != point->kernel_gs_base)
    text += row("kernel gs base", start.kernel_gs_base, point->kernel_gs_base, kernel_gs);
  if (with_fpu_ && !same_fpu_state(images_[point->fpu], cpu_.xsave)) {
    const Image &was = images_.front(), &image = images_[point->fpu];
    for (size_t at = 0; at < image.size(); at += 8) {
      uint64_t before, a, b;
      std::memcpy(&before, &was[at], 8);
      std::memcpy(&a, &image[at], 8);
      std::memcpy(&b, &cpu_.xsave[at], 8);
      if (a != b) text += row(fmt::format("xsave +{:x}", at), before, a, b);
    }
  }
  const auto& writes = log_.writes();
  for (size_t i = 0; i < point->writes; ++i) {
    const TrialLog::Write& write = writes[i];
    if (log_.difference(i, writes.size()) == write.size) continue;
    text +=
        fmt::format("  memory at guest-physical {:x}:\n    before      {}\n    interpreter {}\n    translator  {}\n",
                    write.host - cpu_.memory->base(), hex(log_.before(write), write.size),
                    hex(log_.after(write), write.size), hex(write.host, write.size));
  }
  return text;
}

}  // namespace caisson::jit
