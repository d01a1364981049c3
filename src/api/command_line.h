// Work that has a process of its own, the command line's: it takes user namespaces, signals, standard streams, the
// network, or files of whoever knows what is in them.
//   Threads  any; waits for the process
#pragma once

#include <string>
#include <vector>

#include "api/http.h"
#include "base/result.h"
#include "control/json_fields.h"
#include "life/follow.h"

namespace caisson::api {

// `words`: of caisson. What it says is passed on; its last line is why it failed.
[[nodiscard]] Result<> run_caisson(std::vector<std::string> words, const life::Follow& follow);
// With --json among the words: the object that it prints is `result`. One that has found something has not failed,
// whatever its status says of it.
[[nodiscard]] Result<> search_by_caisson(std::vector<std::string> words, const life::Follow& follow,
                                         control::Json& result);
// With --dry-run added: what it would do.
[[nodiscard]] Answer dry_run_by_caisson(std::vector<std::string> words);

}  // namespace caisson::api
