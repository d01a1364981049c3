#include "backend/char_file.h"

#include <cerrno>
#include <cstring>

#include <fmt/format.h>
#include <unistd.h>

#include "base/log.h"

namespace caisson {

size_t CharFile::write(std::span<const uint8_t> bytes) {
  for (std::span<const uint8_t> rest = bytes; !rest.empty();) {
    const ssize_t done = ::write(fd_.get(), rest.data(), rest.size());
    if (done > 0) {
      rest = rest.subspan(static_cast<size_t>(done));
    } else if (done == 0 || errno != EINTR) {
      if (!failed_) {
        log::line(log::Level::Warning, fmt::format("{}: {}; what the guest writes there is lost", name_,
                                                   done == 0 ? "it takes nothing" : std::strerror(errno)));
      }
      failed_ = true;
      break;
    }
  }
  return bytes.size();
}

}  // namespace caisson
