// One viewer of a machine's screen: what it says and is told, without its socket.
//   Spec     RFC 6143: protocol 3.3, 3.7 and 3.8; security None and VNC; the community's rfbproto for DesktopSize,
//            ExtendedDesktopSize, QEMU's extended key events and pointers that viewers draw (backend/rfb/cursor.h)
//   Omits    Tight and its like, sound, files, pasting
//   Bounds   the output is at most one update of about most_update bytes, or most_replies bytes of answers
//   Threads  one object, one thread
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "backend/rfb/cursor.h"
#include "backend/rfb/encoder.h"
#include "backend/rfb/frame.h"
#include "backend/rfb/keymap.h"
#include "backend/rfb/messages.h"
#include "backend/rfb/vnc_auth.h"

namespace caisson::rfb {

// A viewer's pointer.
struct Pointer {
  enum Button : uint8_t { left = 1, right = 2, middle = 4, back = 8 };
  unsigned x = 0, y = 0;
  unsigned width = 1, height = 1;  // of the picture that it points at
  uint8_t buttons = 0;
  int wheel = 0;  // steps towards the user
  bool operator==(const Pointer&) const = default;
};

// Who gets what viewers do.
class Hands {
 public:
  virtual ~Hands() = default;
  virtual void key(ScanCode key, bool down) = 0;
  virtual void point(const Pointer& pointer) = 0;
  // Would like a picture of this size, which comes later if the guest agrees. False: nobody could give it.
  [[nodiscard]] virtual bool resize(unsigned width, unsigned height) = 0;
};

struct SessionOptions {
  std::string name = "caisson";  // what viewers have as the window's title
  std::string password{};        // empty: none is asked for
  Layout layout = Layout::Us;
};

class Session {
 public:
  static constexpr size_t most_update = size_t{4} << 20;
  static constexpr size_t most_replies = size_t{64} << 10;

  // `challenge`: random bytes, never used before. `view` outlives the session; of its pictures `whole` is kept up to
  // date for a session, and `bare` once draws_pointer().
  Session(const SessionOptions& options, const Challenge& challenge, Hands& hands, const View& view);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // Takes what came from the viewer. False: it is to be cut off once the output is written.
  [[nodiscard]] bool feed(std::span<const uint8_t> bytes);
  // What goes to it; whoever has written some of it takes that from the front.
  [[nodiscard]] std::vector<uint8_t>& output() { return output_; }

  // It waits for an update, and has taken all before.
  [[nodiscard]] bool wants_update() const { return phase_ == Phase::Running && wanted_ && output_.empty(); }
  // Appends what has changed for it since the last time, if anything.
  void update();

  // It shows the guest's pointer itself, and gets the picture without it.
  [[nodiscard]] bool draws_pointer() const { return draws_pointer_; }
  [[nodiscard]] bool running() const { return phase_ == Phase::Running; }
  [[nodiscard]] bool refused() const { return refused_; }  // by its password

 private:
  enum class Phase : uint8_t { Version, SecurityType, Response, Init, Running, Over };

  [[nodiscard]] bool step();
  [[nodiscard]] bool take_version();
  [[nodiscard]] bool take_security();
  [[nodiscard]] bool take_response();
  void begin_security(bool none);
  void accept();
  void init();
  [[nodiscard]] bool handle(const Message& message);
  [[nodiscard]] bool has(size_t count) const { return input_.size() - used_ >= count; }
  [[nodiscard]] std::span<const uint8_t> front(size_t count) const { return std::span(input_).subspan(used_, count); }
  void encodings(const SetEncodings& message);
  void pointer(const PointerEvent& event);
  void request(const UpdateRequest& request);
  void put_desktop(unsigned reason, unsigned status);
  [[nodiscard]] const TiledFrame& screen() const { return draws_pointer_ ? view_.bare : view_.whole; }
  void append_cursor(std::vector<uint8_t>& out, unsigned& rects);
  void append_screen(std::vector<uint8_t>& out, unsigned& rects);

  const SessionOptions options_;
  const Challenge challenge_;
  Hands& hands_;
  const View& view_;
  Keymap keymap_;

  Phase phase_ = Phase::Version;
  unsigned minor_ = 8;
  bool refused_ = false;
  std::vector<uint8_t> input_;
  size_t used_ = 0;    // of it, from the front
  uint64_t skip_ = 0;  // bytes of the input that nobody wants
  std::vector<uint8_t> output_;
  size_t replies_ = 0;  // bytes of answers since the output was empty

  Encoder encoder_;
  PixelWriter pixels_;
  Encoding encoding_ = Encoding::Raw;
  bool resizes_ = false, resizes_extended_ = false, extended_keys_ = false;
  bool tell_keys_ = false, tell_desktop_ = false;
  bool draws_pointer_ = false, knows_alpha_ = false;
  bool has_cursor_ = false;   // it was told one
  uint64_t cursor_seen_ = 0;  // of the view's versions
  unsigned width_, height_;   // as it knows the picture
  bool wanted_ = false;
  Rect region_;
  TiledFrame::Versions seen_{};  // of each tile, what it has; 0: nothing
  uint8_t wheel_down_ = 0;       // its buttons that stand for a wheel
  Pointer pointer_;
};

}  // namespace caisson::rfb
