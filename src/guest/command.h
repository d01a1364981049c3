// Runs a command for the host: its streams are frames on the connection (agent/frames.h).
//   Threads  one; the process serves this connection alone and ends after it
#pragma once

#include "agent/frames.h"

namespace caisson::guest {

// Until the command has ended and its output is sent, or the host has gone: then the command gets SIGHUP.
// The exit status for the frame Exit; an error for Failed.
[[nodiscard]] Result<uint64_t> run_command(int connection, agent::FrameReader& reader, const agent::Execution& wanted);

}  // namespace caisson::guest
