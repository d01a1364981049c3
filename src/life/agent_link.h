// The agent in a running machine's guest (src/guest), reached through the machine's socket device.
//   Threads  any; one object, one thread
#pragma once

#include <optional>
#include <string_view>

#include "agent/frames.h"
#include "base/fd.h"
#include "base/result.h"
#include "life/vm_client.h"
#include "store/vm_folder.h"

namespace caisson::life {

// A connection to the agent, which has said Hello; it waits for the one request. None: no agent answers, now or ever.
[[nodiscard]] std::optional<Fd> connect_agent(VmClient& client);

// A read or write that moves nothing for so long fails; 0: never.
void set_patience(const Fd& connection, uint64_t ms);

// What has come, into the reader; nothing where there is nothing yet. For conversations that do not wait.
[[nodiscard]] Result<> feed(agent::FrameReader& reader, int connection);

// The agent's last word on a request: an error where it failed, sent something else, or has gone (none).
[[nodiscard]] Result<> last_word(const std::optional<agent::Frame>& frame);

// One request without more, and its answer; so long at most.
[[nodiscard]] Result<> ask_agent(const Fd& connection, agent::Type request, std::string_view payload,
                                 uint64_t timeout_ms);

// Tells the guest what time it is, where it has an agent; a guest's own clock has stood still in a pause.
void set_guest_clock(const store::VmFolder& folder);

}  // namespace caisson::life
