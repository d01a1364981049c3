#include "cpufuzz/compare.h"

#include <Zydis/Zydis.h>
#include <fmt/format.h>

#include <cstring>

#include "x86/registers.h"

namespace caisson::cpufuzz {
namespace {

using namespace x86;

constexpr std::array names{"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                           "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};

// Whether a byte of the XSAVE image is state that both sides keep: not the x87 pointers, MXCSR_MASK, header, PKRU.
bool counts(size_t at) {
  static const uint64_t xcr0 = host_xcr0();
  if (at < 416) return (at < 6 || at >= 24) && (at < 28 || at >= 32);
  if (at >= 576 && at < 832) return xcr0 & 4;
  return at >= 1088 && at < 2688 && (xcr0 & 0xe0) == 0xe0;
}

std::string compare(const Case& test, const Comparison::Tolerance& tolerance, const Outcome& expected,
                    const Outcome& actual, bool translates, bool user) {
  std::string text;
  const auto differ = [&](std::string_view what, uint64_t host, uint64_t guest) {
    text += fmt::format("  {} is {:#x}, on the host {:#x}\n", what, guest, host);
  };
  // Known: the interpreter, as SDM vol. 2 has it for RET, JMP and CALL, raises #GP at the branch; translated code at
  // the target, which is not canonical, with the branch done.
  const int64_t target = static_cast<int64_t>(actual.state.rip);
  if (translates && expected.vector == Gp && actual.vector == Gp && target != target << 16 >> 16) return {};
  const auto memory_fault = [](const Outcome& outcome) { return outcome.vector == Pf || outcome.vector == Gp; };
  if (tolerance.may_fault && memory_fault(expected) && actual.vector == Ud) return {};
  if (tolerance.half_done && memory_fault(expected) && memory_fault(actual) && expected.vector != actual.vector)
    return {};  // two things are wrong with the address: either may be told
  if (expected.vector != actual.vector)
    differ("vector", static_cast<uint64_t>(expected.vector), static_cast<uint64_t>(actual.vector));
  if (expected.state.rip != actual.state.rip) differ("rip", expected.state.rip, actual.state.rip);
  if (!text.empty()) return text;
  const bool ended = expected.vector == Ud && expected.state.rip == test.state.rip + tolerance.end;
  if (expected.vector == Pf) {
    const bool same =
        tolerance.half_done ? (expected.cr2 >> 12) - (actual.cr2 >> 12) + 1 <= 2 : expected.cr2 == actual.cr2;
    if (!same) differ("cr2", expected.cr2, actual.cr2);
    // The host's kernel has pages of its own in the upper half, and under some hypervisors in the lower half's last
    // page, which Linux gives to nobody: what is present there is not the same.
    const bool not_ours = expected.cr2 >= 0x7fff'ffff'f000;
    const uint64_t mask = (user ? 0x1fu : 0x1bu) & ~uint64_t{not_ours};
    if ((expected.error ^ actual.error) & mask) differ("error", expected.error, actual.error);
  }
  for (unsigned i = 0; i < 16; ++i) {
    if (expected.state.gpr[i] != actual.state.gpr[i]) differ(names[i], expected.state.gpr[i], actual.state.gpr[i]);
  }
  // The translator keeps no dead flags for an exception's frame.
  uint64_t mask = rflags::status | rflags::df;
  if (ended) mask &= ~tolerance.flags;
  if (!ended && translates) mask = rflags::df;
  if ((expected.state.rflags ^ actual.state.rflags) & mask)
    differ("rflags", expected.state.rflags & mask, actual.state.rflags & mask);
  for (size_t i = 0; i < data_size; ++i) {
    if (expected.state.data[i] == actual.state.data[i]) continue;
    differ(fmt::format("byte at {:#x}", data_address + i), expected.state.data[i], actual.state.data[i]);
    break;
  }
  for (size_t i = 0; i < xsave_size; ++i) {
    if (expected.state.xsave[i] == actual.state.xsave[i] || !counts(i)) continue;
    if (!ended && tolerance.half_done) break;
    differ(fmt::format("xsave byte {}", i), expected.state.xsave[i], actual.state.xsave[i]);
    break;
  }
  return text;
}

}  // namespace

Result<Comparison> Comparison::create() {
  Comparison made;
  auto native = Native::create();
  if (!native) return std::unexpected(native.error());
  made.native_ = std::move(*native);
  made.contenders_.push_back({"interpreter", Guest::By::Interpreter, true, nullptr});
  made.contenders_.push_back({"translator", Guest::By::Translator, true, nullptr});
  made.contenders_.push_back({"translator, CPL 0", Guest::By::Translator, false, nullptr});
  made.contenders_.push_back({"translator, mirrored", Guest::By::Mirror, true, nullptr});
  made.contenders_.push_back({"directly", Guest::By::Direct, true, nullptr});
  for (Contender& contender : made.contenders_) {
    auto guest = Guest::create(contender.by, contender.user);
    if (!guest) return std::unexpected(guest.error());
    contender.guest = std::move(*guest);
  }
  return made;
}

std::string Comparison::difference(const Case& test, const Tolerance& tolerance, Outcome* out) {
  const Outcome expected = native_->run(test);
  if (out != nullptr) *out = expected;
  if (expected.vector == -1) return {};  // endless, or the end of the child: nothing to compare with
  for (const Contender& contender : contenders_) {
    const bool translates = contender.by != Guest::By::Interpreter;
    for (unsigned round = 0; round < (translates ? 2u : 1u); ++round) {
      const Outcome actual = contender.guest->run(test);
      const std::string text = compare(test, tolerance, expected, actual, translates, contender.user);
      if (!text.empty() && actual.vector == Pf && Native::own_memory(actual.cr2)) {
        native_->renew();
        return {};
      }
      if (!text.empty()) return fmt::format("{}, round {}:\n{}", contender.name, round + 1, text);
    }
  }
  return {};
}

std::string Comparison::difference(const Flow& flow, Outcome* expected) {
  const Flow::Image image = flow.assemble();
  return difference({.code = image.code, .state = flow.state}, {.end = image.end, .half_done = true}, expected);
}

Flow Comparison::shrink(Flow flow) {
  for (bool again = true; again;) {
    again = false;
    for (size_t i = flow.items.size(); i-- > 0;) {
      Item& item = flow.items[i];
      if (item.kind == Item::Kind::Nothing || item.kind == Item::Kind::End) continue;
      const Item kept = std::exchange(item, Item{});
      if (!difference(flow).empty()) {
        again = true;
      } else {
        flow.items[i] = kept;
      }
    }
  }
  return flow;
}

std::string listing(const Case& test) {
  std::string text;
  for (size_t at = 0; at < test.code.size();) {
    ZydisDisassembledInstruction line;
    const size_t left = test.code.size() - at;
    size_t length = 1;
    std::string words = "(bad)";
    if (ZYAN_SUCCESS(ZydisDisassembleIntel(ZYDIS_MACHINE_MODE_LONG_64, test.state.rip + at, test.code.data() + at, left,
                                           &line))) {
      length = line.info.length;
      words = line.text;
    }
    std::string hex;
    for (size_t i = 0; i < length; ++i) hex += fmt::format("{:02x}", test.code[at + i]);
    text += fmt::format("  {:#x}  {:<32}{}\n", test.state.rip + at, hex, words);
    at += length;
  }
  for (unsigned i = 0; i < 16; ++i)
    text += fmt::format("  {} {:#x}{}", names[i], test.state.gpr[i], i % 4 == 3 ? "\n" : "");
  text +=
      fmt::format("  rflags {:#x}  fs {:#x}  gs {:#x}\n", test.state.rflags, test.state.fs_base, test.state.gs_base);
  return text;
}

}  // namespace caisson::cpufuzz
