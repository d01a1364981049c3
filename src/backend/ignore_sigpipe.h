// Writing to a connection that the other side has closed must give EPIPE, not end the process. Any thread, any number
// of times; callers are the backends that write to sockets and pipes through calls without MSG_NOSIGNAL.
#pragma once

#include <csignal>

namespace caisson {

inline void ignore_sigpipe() { std::signal(SIGPIPE, SIG_IGN); }

}  // namespace caisson
