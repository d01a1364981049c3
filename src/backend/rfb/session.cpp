#include "backend/rfb/session.h"

#include <algorithm>
#include <string_view>
#include <utility>

namespace caisson::rfb {
namespace {

constexpr std::string_view our_version = "RFB 003.008\n";
constexpr uint8_t security_none = 1, security_vnc = 2;
constexpr uint32_t result_ok = 0, result_failed = 1;
// Encodings that say what a viewer can do, or tell it something.
constexpr int32_t desktop_size = -223, qemu_extended_key = -258, extended_desktop_size = -308;
constexpr unsigned reason_server = 0, reason_client = 1, status_ok = 0, status_prohibited = 1, status_forwarded = 4;
// A viewer's buttons, bits of its mask, 7.5.5.
constexpr uint8_t mask_left = 1, mask_middle = 2, mask_right = 4, mask_wheel_up = 8, mask_wheel_down = 16,
                  mask_back = 128;
constexpr uint8_t keycode_extended = 0x80;

void put_text(std::vector<uint8_t>& out, std::string_view text) { out.insert(out.end(), text.begin(), text.end()); }

}  // namespace

Session::Session(const SessionOptions& options, const Challenge& challenge, Hands& hands, const View& view)
    : options_(options),
      challenge_(challenge),
      hands_(hands),
      view_(view),
      keymap_(options.layout, [this](ScanCode key, bool down) { hands_.key(key, down); }),
      width_(view.whole.frame().width),
      height_(view.whole.frame().height) {
  put_text(output_, our_version);
}

Session::~Session() {
  keymap_.release_all();
  if (pointer_.buttons != 0) {
    pointer_.buttons = 0;
    pointer_.wheel = 0;
    hands_.point(pointer_);
  }
}

bool Session::feed(std::span<const uint8_t> bytes) {
  if (phase_ == Phase::Over) return false;
  const size_t skipped = std::min<uint64_t>(skip_, bytes.size());
  skip_ -= skipped;
  bytes = bytes.subspan(skipped);
  input_.insert(input_.end(), bytes.begin(), bytes.end());
  if (output_.empty()) replies_ = 0;
  bool going = true;
  size_t before = 0;
  do {
    before = used_;
    const size_t output_before = output_.size();
    going = step();
    replies_ += output_.size() - output_before;
    if (skip_ != 0) {
      const size_t more = std::min<uint64_t>(skip_, input_.size() - used_);
      skip_ -= more;
      used_ += more;
    }
    if (replies_ > most_replies) going = false;
  } while (going && used_ != before);
  input_.erase(input_.begin(), input_.begin() + static_cast<ptrdiff_t>(used_));
  used_ = 0;
  if (!going) phase_ = Phase::Over;
  return going;
}

// One message. False: the end. Where more bytes are needed nothing is used.
bool Session::step() {
  switch (phase_) {
    case Phase::Version: return take_version();
    case Phase::SecurityType: return take_security();
    case Phase::Response: return take_response();
    case Phase::Init:
      if (!has(1)) return true;
      ++used_;  // all viewers share the machine, whatever this one wants
      init();
      return true;
    case Phase::Running: {
      const auto parsed = parse_message(std::span(input_).subspan(used_));
      if (!parsed) return false;
      if (!*parsed) return true;
      used_ += (*parsed)->used;
      return handle((*parsed)->message);
    }
    case Phase::Over: break;
  }
  return false;
}

bool Session::take_version() {
  if (!has(our_version.size())) return true;
  const auto bytes = front(our_version.size());
  const std::string_view text{reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  if (!text.starts_with("RFB 003.") || text.back() != '\n') return false;
  unsigned minor = 0;
  for (const char digit : text.substr(8, 3)) {
    if (digit < '0' || digit > '9') return false;
    minor = 10 * minor + static_cast<unsigned>(digit - '0');
  }
  used_ += our_version.size();
  minor_ = minor >= 8 ? 8 : minor == 7 ? 7 : 3;
  const uint8_t type = options_.password.empty() ? security_none : security_vnc;
  if (minor_ == 3) {
    put32(output_, type);
    begin_security(type == security_none);
    return true;
  }
  output_.push_back(1);
  output_.push_back(type);
  phase_ = Phase::SecurityType;
  return true;
}

bool Session::take_security() {
  if (!has(1)) return true;
  const uint8_t type = front(1)[0];
  ++used_;
  if (type != (options_.password.empty() ? security_none : security_vnc)) return false;
  begin_security(type == security_none);
  return true;
}

void Session::begin_security(bool none) {
  if (none) {
    if (minor_ == 8) put32(output_, result_ok);
    phase_ = Phase::Init;
    return;
  }
  output_.insert(output_.end(), challenge_.begin(), challenge_.end());
  phase_ = Phase::Response;
}

bool Session::take_response() {
  if (!has(challenge_.size())) return true;
  const auto given = front(challenge_.size());
  used_ += challenge_.size();
  const Challenge right = answer_to(challenge_, options_.password);
  unsigned difference = 0;
  for (size_t i = 0; i < right.size(); ++i) difference |= given[i] ^ right[i];
  if (difference == 0) {
    put32(output_, result_ok);
    phase_ = Phase::Init;
    return true;
  }
  refused_ = true;
  put32(output_, result_failed);
  if (minor_ == 8) {
    constexpr std::string_view why = "wrong password";
    put32(output_, why.size());
    put_text(output_, why);
  }
  return false;
}

void Session::init() {
  width_ = screen().frame().width;
  height_ = screen().frame().height;
  put16(output_, width_);
  put16(output_, height_);
  const auto format = PixelFormat{}.serialise();
  output_.insert(output_.end(), format.begin(), format.end());
  put32(output_, static_cast<uint32_t>(options_.name.size()));
  put_text(output_, options_.name);
  phase_ = Phase::Running;
}

bool Session::handle(const Message& message) {
  if (const auto* format = std::get_if<SetPixelFormat>(&message)) {
    pixels_ = PixelWriter(format->format);
    seen_.fill(0);
    if (!format->format.true_colour) {
      const auto map = colour_map();
      output_.insert(output_.end(), map.begin(), map.end());
    }
  } else if (const auto* given = std::get_if<SetEncodings>(&message)) {
    encodings(*given);
  } else if (const auto* wanted = std::get_if<UpdateRequest>(&message)) {
    request(*wanted);
  } else if (const auto* key = std::get_if<KeyEvent>(&message)) {
    const auto code = static_cast<uint8_t>(key->keycode & 0x7f);
    if (key->keycode > 0xff || code == 0) {
      keymap_.key(key->keysym, key->down);
    } else {
      keymap_.key(ScanCode{code, (key->keycode & keycode_extended) != 0}, key->down);
    }
  } else if (const auto* event = std::get_if<PointerEvent>(&message)) {
    pointer(*event);
  } else if (const auto* text = std::get_if<CutText>(&message)) {
    skip_ = text->length;
  } else if (const auto* size = std::get_if<SetDesktopSize>(&message)) {
    // The guest's driver alone decides. The answer is an update of its own (rfbproto, ExtendedDesktopSize).
    const bool asked = hands_.resize(size->width, size->height);
    if (resizes_extended_) put_desktop(reason_client, asked ? status_forwarded : status_prohibited);
  }
  return true;
}

void Session::encodings(const SetEncodings& message) {
  const auto has_one = [&](int32_t wanted) {
    return std::ranges::find(message.encodings, wanted) != message.encodings.end();
  };
  encoding_ = Encoding::Raw;
  for (const int32_t number : message.encodings) {
    const auto known = {Encoding::Raw, Encoding::Hextile, Encoding::Tight, Encoding::Zrle};
    if (std::ranges::find(known, static_cast<Encoding>(number)) == known.end()) continue;
    encoding_ = static_cast<Encoding>(number);
    break;
  }
  knows_alpha_ = has_one(alpha_cursor_encoding);
  if (const bool draws = knows_alpha_ || has_one(cursor_encoding); std::exchange(draws_pointer_, draws) != draws) {
    seen_.fill(0);  // the numbers of another picture's tiles
    cursor_seen_ = 0;
  }
  resizes_ = has_one(desktop_size);
  const bool extended = has_one(extended_desktop_size), keys = has_one(qemu_extended_key);
  if (!std::exchange(resizes_extended_, extended) && extended) tell_desktop_ = true;
  if (!std::exchange(extended_keys_, keys) && keys) tell_keys_ = true;
}

void Session::pointer(const PointerEvent& event) {
  Pointer next{.x = std::min<unsigned>(event.x, width_ - 1),
               .y = std::min<unsigned>(event.y, height_ - 1),
               .width = width_,
               .height = height_};
  const auto has_one = [&](uint8_t bit) { return (event.buttons & bit) != 0; };
  next.buttons =
      static_cast<uint8_t>((has_one(mask_left) ? Pointer::left : 0) | (has_one(mask_middle) ? Pointer::middle : 0) |
                           (has_one(mask_right) ? Pointer::right : 0) | (has_one(mask_back) ? Pointer::back : 0));
  // A step of the wheel is a press of such a button.
  const uint8_t wheel = event.buttons & (mask_wheel_up | mask_wheel_down);
  const auto pressed = static_cast<uint8_t>(wheel & ~std::exchange(wheel_down_, wheel));
  next.wheel = ((pressed & mask_wheel_down) != 0 ? 1 : 0) - ((pressed & mask_wheel_up) != 0 ? 1 : 0);
  pointer_ = next;
  hands_.point(next);
}

void Session::request(const UpdateRequest& request) {
  // Several requests are one for all that they ask for.
  if (!wanted_) region_ = {};
  const Rect& more = request.rect;
  if (region_.width == 0 || region_.height == 0) {
    region_ = more;
  } else {
    const unsigned right = std::max(region_.x + region_.width, more.x + more.width);
    const unsigned bottom = std::max(region_.y + region_.height, more.y + more.height);
    region_.x = std::min(region_.x, more.x);
    region_.y = std::min(region_.y, more.y);
    region_.width = right - region_.x;
    region_.height = bottom - region_.y;
  }
  wanted_ = true;
  if (request.incremental) return;
  constexpr unsigned tile = TiledFrame::tile;
  const unsigned right = std::min(more.x + more.width, most_side), bottom = std::min(more.y + more.height, most_side);
  for (unsigned y = more.y / tile * tile; y < bottom; y += tile) {
    for (unsigned x = more.x / tile * tile; x < right; x += tile) {
      seen_[size_t{y / tile} * TiledFrame::grid + x / tile] = 0;
    }
  }
}

// An update that tells the picture's size and nothing else.
void Session::put_desktop(unsigned reason, unsigned status) {
  put16(output_, 0);
  put16(output_, 1);
  if (!resizes_extended_) return put_rect(output_, {0, 0, width_, height_}, desktop_size);
  put_rect(output_, {reason, status, width_, height_}, extended_desktop_size);
  // One screen, without name or flags, of all of it.
  put32(output_, 1u << 24);
  put32(output_, 0);
  put32(output_, 0);
  put16(output_, width_);
  put16(output_, height_);
  put32(output_, 0);
}

void Session::update() {
  if (!wants_update()) return;
  const Frame& frame = screen().frame();
  if (resizes_ || resizes_extended_) {
    if (frame.width != width_ || frame.height != height_ || std::exchange(tell_desktop_, false)) {
      width_ = frame.width;
      height_ = frame.height;
      seen_.fill(0);
      wanted_ = false;
      return put_desktop(reason_server, status_ok);
    }
  }
  std::vector<uint8_t> body;
  unsigned rects = 0;
  if (std::exchange(tell_keys_, false)) {
    put_rect(body, {}, qemu_extended_key);
    ++rects;
  }
  append_cursor(body, rects);
  append_screen(body, rects);
  if (rects == 0) return;
  put16(output_, 0);
  put16(output_, rects);
  output_.insert(output_.end(), body.begin(), body.end());
  wanted_ = false;
}

// A viewer that was told none keeps its own pointer; one that was is told as well that there is none any more.
void Session::append_cursor(std::vector<uint8_t>& out, unsigned& rects) {
  if (!draws_pointer_ || std::exchange(cursor_seen_, view_.cursor_version) == view_.cursor_version) return;
  if (view_.cursor.width == 0 && !has_cursor_) return;
  has_cursor_ = true;
  if (knows_alpha_) {
    put_alpha_cursor(out, view_.cursor);
  } else {
    put_cursor(out, view_.cursor, pixels_);
  }
  ++rects;
}

// Runs of changed tiles beside each other, until the update is large enough.
void Session::append_screen(std::vector<uint8_t>& out, unsigned& rects) {
  constexpr unsigned tile = TiledFrame::tile;
  const unsigned right = std::min(region_.x + region_.width, width_);
  const unsigned bottom = std::min(region_.y + region_.height, height_);
  for (unsigned y = region_.y / tile * tile; y < bottom; y += tile) {
    const size_t row = size_t{y / tile} * TiledFrame::grid;
    for (unsigned x = region_.x / tile * tile; x < right;) {
      if (out.size() >= most_update) return;
      unsigned end = x;
      while (end < right && end - x < Encoder::most_width(encoding_) &&
             seen_[row + end / tile] != screen().versions()[row + end / tile]) {
        seen_[row + end / tile] = screen().versions()[row + end / tile];
        end += tile;
      }
      if (end == x) {
        x += tile;
        continue;
      }
      const Rect rect{x, y, std::min(end, width_) - x, std::min(tile, height_ - y)};
      encoder_.encode(screen().frame(), rect, encoding_, pixels_, out);
      ++rects;
      x = end;
    }
  }
}

}  // namespace caisson::rfb
