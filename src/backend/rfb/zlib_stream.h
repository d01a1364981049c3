// One of the zlib streams of a connection: what is appended continues what the viewer has unpacked before.
//   Spec     RFC 1950; RFC 6143, 7.7.6: what is given is flushed, so that it can be unpacked at once
//   Threads  one object, one thread
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace caisson::rfb {

class ZlibStream {
 public:
  ZlibStream();
  ~ZlibStream();
  ZlibStream(const ZlibStream&) = delete;
  ZlibStream& operator=(const ZlibStream&) = delete;

  // False where the library fails: the stream is of no use any more, and `out` may have more than before.
  [[nodiscard]] bool append(std::span<const uint8_t> plain, std::vector<uint8_t>& out);

 private:
  struct Deflate;
  std::unique_ptr<Deflate> deflate_;  // from the first use on: a quarter of a megabyte
};

}  // namespace caisson::rfb
