// The oracle: runs cases on the host's CPU, in a child process that may come to grief.
//   Threads  the caller's
#pragma once

#include <memory>

#include <sys/types.h>

#include "base/fd.h"
#include "base/result.h"
#include "cpufuzz/case.h"

namespace caisson::cpufuzz {

class Native {
 public:
  // An error where the host lacks what the child needs (FSGSBASE for users, XSAVE).
  [[nodiscard]] static Result<std::unique_ptr<Native>> create();
  ~Native();

  // Ends after two seconds at the latest. A child that died is replaced; the outcome's vector is -1 then.
  [[nodiscard]] Outcome run(const Case& test);

  // Whether the child has something of its own at a user address (the C library, a sanitizer's shadow): a case that
  // reaches it tells nothing, and may have damaged the child.
  [[nodiscard]] static bool own_memory(uint64_t address);
  void renew();  // another child

 private:
  Native() = default;
  [[nodiscard]] Result<> start();
  void end();

  struct Shared;
  Shared* shared_ = nullptr;
  Fd memfd_, requests_, answers_;
  pid_t child_ = -1;
};

}  // namespace caisson::cpufuzz
