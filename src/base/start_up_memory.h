// What only a start needs is given back once the program is on its way: the host's pages of code and constants that
// are mapped, of this program and of its libraries, and the free ends of the heap. What is used again comes back from
// the page cache by itself, a fault of a microsecond or two for sixteen pages.
//   Threads  any; others may run meanwhile
#pragma once

namespace caisson {

void give_back_start_up_memory();

}  // namespace caisson
