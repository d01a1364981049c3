// What is done inside of a running machine's guest by the agent there, for the daemon: a command with its output whole,
// and files one at a time. The guest is not believed: all that it sends is bounded.
//   Errors   one line each, which says what to do
//   Threads  any; each call waits, as long as it says at most
#pragma once

#include <cstdint>
#include <stop_token>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "store/vm_folder.h"

namespace caisson::life {

struct GuestCommand {
  static constexpr uint32_t max_timeout_s = 300;
  std::vector<std::string> words;  // the program, found in root's PATH, and its arguments
  std::string directory;           // empty: root's home
  std::string input;               // on its standard input, which then ends
  uint32_t timeout_s = 60;         // 1 to max_timeout_s; for a machine that is still starting as well
};

struct GuestOutput {
  static constexpr size_t max_text = 1 << 20;  // bytes of each; what is more is dropped
  uint32_t status = 0;                         // the command's exit status, 128 + n after signal n
  std::string out;
  std::string errors;
  bool truncated = false;
};

// A command that takes longer is hung up. `ended`: nobody waits any more.
[[nodiscard]] Result<GuestOutput> run_in_guest(const store::VmFolder& folder, const GuestCommand& command,
                                               const std::stop_token& ended);

constexpr uint64_t max_guest_file = uint64_t{1} << 30;  // bytes

// A regular file of the guest into `to`, at its beginning; returns its size. An error leaves `to` as it came out.
[[nodiscard]] Result<uint64_t> get_guest_file(const store::VmFolder& folder, const std::string& path, const Fd& to,
                                              const std::stop_token& ended);
// The first `size` bytes of `from` as `path`, which appears when it is whole. `mode`: permission bits.
[[nodiscard]] Result<> put_guest_file(const store::VmFolder& folder, const std::string& path, uint32_t mode,
                                      const Fd& from, uint64_t size, const std::stop_token& ended);

// The same on a connection to an agent that has said Hello.
[[nodiscard]] Result<GuestOutput> run_by_agent(const Fd& connection, const GuestCommand& command,
                                               const std::stop_token& ended);
[[nodiscard]] Result<uint64_t> get_by_agent(const Fd& connection, const std::string& path, const Fd& to,
                                            const std::stop_token& ended);
[[nodiscard]] Result<> put_by_agent(const Fd& connection, const std::string& path, uint32_t mode, const Fd& from,
                                    uint64_t size, const std::stop_token& ended);

}  // namespace caisson::life
