// What happens to all machines, told from their folders: made, removed, renamed, changed, what their VMMs write into
// their records, and that one was killed.
//   State    only what the last look saw, so that the next can tell the difference
//   Cost     a look is a few system calls for each machine; there is none while nobody listens
//   Threads  one object, one thread at a time
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "control/json_fields.h"
#include "store/store.h"

namespace caisson::life {

// As the interface and `caisson events` tell it: "at_ms", "machine", "type", and "detail" where there is more.
[[nodiscard]] control::Json event_json(std::string_view machine, const store::TimedEvent& event);

class Feed {
 public:
  // The events since the last look, in order for each machine; the first
  // one finds none. Each is as of event_json().
  [[nodiscard]] std::vector<control::Json> look();

 private:
  struct Seen {
    uint64_t inode = 0;  // of the folder: a machine that is renamed keeps it
    bool alive = false;
    bool ended = true;  // its record says how its last life ended
    uint64_t record_inode = 0;
    uint64_t record_bytes = 0;
    uint64_t last_at_ms = 0;
    uint64_t config_inode = 0;  // it is replaced whole
  };
  void look_at(const store::VmFolder& folder, Seen& seen, bool tell, std::vector<control::Json>& events);

  bool first_ = true;
  std::map<std::string, Seen> machines_;
};

}  // namespace caisson::life
