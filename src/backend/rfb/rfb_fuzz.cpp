// libFuzzer: a hostile viewer in every phase of a connection, with a picture that changes and a socket that takes
// little.
#include <cstdint>
#include <vector>

#include "backend/rfb/session.h"

namespace {

using namespace caisson::rfb;

class NoHands final : public Hands {
 public:
  void key(ScanCode, bool) override {}
  void point(const Pointer&) override {}
  bool resize(unsigned width, unsigned) override { return width % 2 == 0; }
};

// Handshakes that chance would not find.
constexpr uint8_t none[]{'R', 'F', 'B', ' ', '0', '0', '3', '.', '0', '0', '8', '\n', 1, 1};
constexpr uint8_t old[]{'R', 'F', 'B', ' ', '0', '0', '3', '.', '0', '0', '3', '\n', 1};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const uint8_t flavour = data[0];
  SessionOptions options;
  options.layout = static_cast<Layout>(flavour >> 2 & 3);
  if ((flavour & 0x10) != 0) options.password = "secret";
  NoHands hands;
  View view;
  Session session(options, Challenge{}, hands, view);
  bool going = true;
  if ((flavour & 3) == 1) going = session.feed(none);
  if ((flavour & 3) == 2) going = session.feed(old);
  std::span<const uint8_t> rest{data + 1, size - 1};
  unsigned frames = 4;  // they take long
  while (going && !rest.empty()) {
    const uint8_t control = rest[0];
    rest = rest.subspan(1);
    const auto part = rest.first(std::min<size_t>(rest.size(), control & 63));
    rest = rest.subspan(part.size());
    going = session.feed(part);
    if ((control & 64) != 0 && frames > 0) {
      --frames;
      Frame next{1 + control * 3u % 200, 1 + control * 7u % 150, {}};
      for (unsigned i = 0; i < next.width * next.height; ++i) {
        next.pixels.push_back(i % (control + 1u) < 5 ? i * 0x10101 : control);
      }
      const unsigned side = control & 31u;
      view.replace({side, side, control, 5, std::vector<uint32_t>(size_t{side} * side, control * 0x1234567u)});
      view.bare.replace(next);
      view.whole.replace(std::move(next));
    }
    if ((control & 128) != 0) {
      session.update();
      auto& output = session.output();
      const size_t taken = output.size() / (1 + (control & 1u));
      output.erase(output.begin(), output.begin() + static_cast<ptrdiff_t>(taken));
    }
  }
  return 0;
}
