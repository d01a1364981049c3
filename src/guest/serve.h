// One connection of the host's, from Hello to the last frame.
//   Threads  one
#pragma once

namespace caisson::guest {

void serve(int connection);

}  // namespace caisson::guest
