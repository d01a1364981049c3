// What the connections of a daemon share.
//   Threads  the event loop's; api and tokens, as theirs
#pragma once

#include <cstddef>

#include <boost/asio/thread_pool.hpp>

#include "api/api.h"
#include "daemon/listeners.h"
#include "daemon/tokens.h"

namespace caisson::daemon {

struct Shared {
  api::Api& api;
  const Tokens& tokens;
  asio::thread_pool& pool;
  Listeners listeners;
  size_t connections = 0;
  size_t streams = 0;
  size_t uploads = 0;  // each has a file of its own
};

// One of those that are there at once.
class Place {
 public:
  explicit Place(size_t& count) : count_(count) { ++count_; }
  ~Place() { --count_; }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;

 private:
  size_t& count_;
};

}  // namespace caisson::daemon
