// Runs a program on the host and on every half of the engine, and tells the first difference.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cpufuzz/flow.h"
#include "cpufuzz/guest.h"
#include "cpufuzz/native.h"

namespace caisson::cpufuzz {

class Comparison {
 public:
  [[nodiscard]] static Result<Comparison> create();

  struct Tolerance {
    size_t end = 0;          // offset of the UD2 at which all status flags count
    uint64_t flags = 0;      // that do not count there
    bool half_done = false;  // vector state after a fault, and which of the bytes CR2 tells, are the CPU's affair
    bool may_fault = false;  // the host may find a fault where the engine finds none
  };
  // Empty where all agree. `expected`, if given, takes what the host did.
  [[nodiscard]] std::string difference(const Case& test, const Tolerance& tolerance, Outcome* expected = nullptr);

  [[nodiscard]] std::string difference(const Flow& flow, Outcome* expected = nullptr);
  // The smallest program found that still differs.
  [[nodiscard]] Flow shrink(Flow flow);
  [[nodiscard]] const x86::CpuModel& model() const { return contenders_.front().guest->model(); }

 private:
  struct Contender {
    const char* name;
    Guest::By by;
    bool user;
    std::unique_ptr<Guest> guest;
  };
  std::unique_ptr<Native> native_;
  std::vector<Contender> contenders_;
};

// Bytes and disassembly.
[[nodiscard]] std::string listing(const Case& test);

}  // namespace caisson::cpufuzz
