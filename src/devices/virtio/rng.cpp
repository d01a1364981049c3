#include "devices/virtio/rng.h"

#include <array>

#include <sys/random.h>

namespace caisson::virtio {

void Rng::kick(unsigned index) {
  serve(*transport_, index, [&](Queue& queue, const Chain& chain) {
    std::array<uint8_t, most> bytes;
    const size_t wanted = std::min<uint64_t>(chain.writable_length, most);
    size_t got = 0;
    while (got < wanted) {
      // Neither blocks nor fails once the host's pool is initialised; a piece up to 256 bytes is never interrupted.
      const ssize_t more = getrandom(bytes.data() + got, std::min<size_t>(wanted - got, 256), 0);
      if (more <= 0) break;
      got += static_cast<size_t>(more);
    }
    scatter(transport_->memory(), chain.writable, 0, std::span(bytes).first(got));
    queue.push(chain.ticket, static_cast<uint32_t>(got));
    return true;
  });
}

}  // namespace caisson::virtio
