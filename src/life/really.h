// Of a change: to be made, or only looked at.
//   Threads  plain data
#pragma once

namespace caisson::life {

enum class Really : bool { No, Yes };  // No: only says whether it could be done

}  // namespace caisson::life
