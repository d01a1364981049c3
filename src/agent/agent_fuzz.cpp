// What the agent of a hostile guest may send to the command line: frames of any kind, and a tree that is received into
// a folder of which nothing must get out.
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>

#include "agent/frames.h"
#include "agent/tree.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace caisson::agent;
  static const std::string top = [] {
    char name[] = "/tmp/caisson-agent-fuzz-XXXXXX";
    return std::string{::mkdtemp(name)};
  }();
  const std::string inside = top + "/inside";
  std::filesystem::create_directory(inside);
  {
    FrameReader reader;
    reader.feed({reinterpret_cast<const char*>(data), size});
    auto receiver = TreeReceiver::create(inside);
    bool whole = !receiver;
    for (;;) {
      const auto frame = reader.next();
      if (!frame || !*frame) break;
      (void)unpack_execution((*frame)->payload);
      (void)unpack_place((*frame)->payload);
      (void)unpack_window((*frame)->payload);
      (void)plain((*frame)->payload);
      if (whole) continue;
      const auto end = receiver->take(**frame);
      whole = !end || *end;
    }
  }
  const auto entries = std::distance(std::filesystem::directory_iterator{top}, {});
  std::filesystem::remove_all(inside);
  if (entries != 1) std::abort();
  return 0;
}
