// Sessions of viewers, spoken to byte by byte; what they are sent is decoded again.
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>

#include <zlib.h>

#include "backend/rfb/session.h"

namespace caisson::rfb {
namespace {

using Bytes = std::vector<uint8_t>;

Bytes bytes_of(std::string_view text) { return {text.begin(), text.end()}; }
Bytes operator+(Bytes left, const Bytes& right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}

class RecordingHands final : public Hands {
 public:
  void key(ScanCode key, bool down) override {
    keys.push_back(std::string(down ? "+" : "-") + (key.extended ? "e0" : "") + "0123456789abcdef"[key.code >> 4] +
                   "0123456789abcdef"[key.code & 15]);
  }
  void point(const Pointer& pointer) override { points.push_back(pointer); }
  bool resize(unsigned width, unsigned height) override {
    sizes.emplace_back(width, height);
    return resizes;
  }
  bool resizes = false;
  std::vector<std::string> keys;
  std::vector<Pointer> points;
  std::vector<std::pair<unsigned, unsigned>> sizes;
};

Frame frame_of(unsigned width, unsigned height, unsigned colours, uint32_t seed) {
  std::mt19937 random(seed);
  Frame frame{width, height, {}};
  uint32_t colour = 0;
  for (unsigned i = 0; i < width * height; ++i) {
    if (random() % 4 == 0) colour = random() % colours * 0x1b2d3f & 0xff'ffff;
    frame.pixels.push_back(colour);
  }
  return frame;
}

// A viewer's picture: the bytes of each pixel.
class Viewer {
 public:
  explicit Viewer(const PixelFormat& format)
      : size_(format.bits / 8u),
        rgb_(format.bits == 32 && format.depth == 24 && format.red_max == 255 && format.green_max == 255 &&
             format.blue_max == 255),
        writer_(format) {
    for (z_stream& stream : streams_) EXPECT_EQ(::inflateInit(&stream), Z_OK);
  }
  ~Viewer() {
    for (z_stream& stream : streams_) ::inflateEnd(&stream);
  }
  Viewer(const Viewer&) = delete;
  Viewer& operator=(const Viewer&) = delete;

  // Takes one FramebufferUpdate; how many rectangles it had.
  unsigned take(const Bytes& message) {
    in_ = message;
    at_ = 0;
    EXPECT_EQ(byte(), 0);
    byte();
    const unsigned count = word();
    for (unsigned i = 0; i < count; ++i) rect();
    EXPECT_EQ(at_, in_.size());
    return count;
  }
  [[nodiscard]] bool shows(const Frame& frame) const {
    for (unsigned y = 0; y < frame.height; ++y) {
      for (unsigned x = 0; x < frame.width; ++x) {
        Bytes wanted;
        writer_.put(wanted, frame.pixels[size_t{y} * frame.width + x]);
        const auto found = pixels.find({y, x});
        if (found == pixels.end() || found->second != wanted) return false;
      }
    }
    return true;
  }

  std::map<std::pair<unsigned, unsigned>, Bytes> pixels;
  std::vector<int32_t> told;  // pseudo-encodings
  unsigned width = 0, height = 0;
  std::array<unsigned, 4> cursor{};  // width, height, hot spot
  Bytes cursor_bytes;

 private:
  uint8_t byte() { return at_ < in_.size() ? in_[at_++] : (ADD_FAILURE() << "it ends early", uint8_t{0}); }
  unsigned word() {
    const unsigned high = byte();
    return high << 8 | byte();
  }
  uint32_t dword() {
    const uint32_t high = word();
    return high << 16 | word();
  }
  Bytes take_bytes(size_t count) {
    Bytes out;
    for (size_t i = 0; i < count; ++i) out.push_back(byte());
    return out;
  }
  void rect() {
    const unsigned x = word(), y = word(), w = word(), h = word();
    const auto encoding = static_cast<int32_t>(dword());
    switch (encoding) {
      case 0:
        for (unsigned i = 0; i < w * h; ++i) pixels[{y + i / w, x + i % w}] = take_bytes(size_);
        return;
      case 5: return hextile(x, y, w, h);
      case 7: return tight(x, y, w, h);
      case 16: return zrle(x, y, w, h);
      case -239:
      case -314:
        if (encoding == -314) {
          EXPECT_EQ(dword(), 0u) << "raw";
        }
        cursor = {w, h, x, y};
        cursor_bytes = take_bytes(encoding == -314 ? size_t{w} * h * 4 : size_t{w} * h * size_ + (w + 7) / 8 * h);
        told.push_back(encoding);
        return;
      case -308: take_bytes(20); [[fallthrough]];
      case -223:
        width = w;
        height = h;
        [[fallthrough]];
      default: told.push_back(encoding);
    }
  }
  void hextile(unsigned x, unsigned y, unsigned w, unsigned h) {
    Bytes background, foreground;
    for (unsigned ty = y; ty < y + h; ty += 16) {
      for (unsigned tx = x; tx < x + w; tx += 16) {
        const unsigned tw = std::min(16u, x + w - tx), th = std::min(16u, y + h - ty);
        const uint8_t mask = byte();
        if ((mask & 1) != 0) {
          for (unsigned i = 0; i < tw * th; ++i) pixels[{ty + i / tw, tx + i % tw}] = take_bytes(size_);
          continue;
        }
        if ((mask & 2) != 0) background = take_bytes(size_);
        if ((mask & 4) != 0) foreground = take_bytes(size_);
        for (unsigned i = 0; i < tw * th; ++i) pixels[{ty + i / tw, tx + i % tw}] = background;
        if ((mask & 8) == 0) continue;
        for (unsigned count = byte(); count > 0; --count) {
          const Bytes colour = (mask & 16) != 0 ? take_bytes(size_) : foreground;
          const uint8_t place = byte(), shape = byte();
          for (unsigned dy = 0; dy <= (shape & 15u); ++dy) {
            for (unsigned dx = 0; dx <= (shape >> 4u); ++dx) {
              pixels[{ty + (place & 15u) + dy, tx + (place >> 4u) + dx}] = colour;
            }
          }
        }
      }
    }
  }
  // The next `length` bytes, unpacked by one of the streams; at most `most`.
  Bytes unpack(z_stream& stream, size_t length, size_t most) {
    Bytes packed = take_bytes(length);
    Bytes plain(most + 1);
    stream.next_in = packed.data();
    stream.avail_in = static_cast<uInt>(packed.size());
    stream.next_out = plain.data();
    stream.avail_out = static_cast<uInt>(plain.size());
    EXPECT_EQ(::inflate(&stream, Z_SYNC_FLUSH), Z_OK);
    EXPECT_EQ(stream.avail_in, 0u);
    plain.resize(plain.size() - stream.avail_out);
    return plain;
  }
  Bytes tight_pixel(const uint8_t* from) const {
    Bytes out;
    if (!rgb_) return {from, from + size_};
    writer_.put(out, uint32_t{from[0]} << 16 | uint32_t{from[1]} << 8 | from[2]);
    return out;
  }
  void tight(unsigned x, unsigned y, unsigned w, unsigned h) {
    EXPECT_LE(w, 2048u);
    const unsigned pixel = rgb_ ? 3 : size_;
    const auto put = [&](unsigned i, const Bytes& value) { pixels[{y + i / w, x + i % w}] = value; };
    const uint8_t control = byte();
    EXPECT_EQ(control & 15, 0) << "streams are never begun anew";
    if (control >> 4 == 8) {
      const Bytes colour = take_bytes(pixel);
      for (unsigned i = 0; i < w * h; ++i) put(i, tight_pixel(colour.data()));
      return;
    }
    EXPECT_EQ(control & 0x80, 0) << "no JPEG";
    std::vector<Bytes> palette;
    if ((control & 0x40) != 0) {
      EXPECT_EQ(byte(), 1) << "the palette's filter";
      for (unsigned left = byte() + 1u; left > 0; --left) palette.push_back(tight_pixel(take_bytes(pixel).data()));
    }
    const size_t row = palette.empty() ? size_t{w} * pixel : palette.size() == 2 ? (w + 7) / 8 : w;
    Bytes plain;
    if (row * h < 12) {
      plain = take_bytes(row * h);
    } else {
      size_t length = byte();
      if (length >= 0x80) length = (length & 0x7f) | size_t{byte()} << 7;
      if (length >= 0x4000) length = (length & 0x3fff) | size_t{byte()} << 14;
      plain = unpack(streams_[1 + (control >> 4 & 3)], length, row * h);
    }
    ASSERT_EQ(plain.size(), row * h);
    for (unsigned i = 0; i < w * h; ++i) {
      const uint8_t* const line = plain.data() + i / w * row;
      const unsigned at = i % w;
      put(i, palette.empty()       ? tight_pixel(line + size_t{at} * pixel)
             : palette.size() == 2 ? palette[line[at / 8] >> (7 - at % 8) & 1]
                                   : palette.at(line[at]));
    }
  }
  void zrle(unsigned x, unsigned y, unsigned w, unsigned h) {
    const size_t packed = dword();
    const Bytes plain = unpack(streams_[0], packed, size_t{w} * h * 5 + 65536);
    size_t at = 0;
    const auto next = [&]() -> uint8_t { return at < plain.size() ? plain[at++] : 0; };
    const auto pixel = [&] {
      Bytes out;
      for (unsigned i = 0; i < writer_.compact_size(); ++i) out.push_back(next());
      if (writer_.compact_size() != size_) out.insert(compact_front ? out.begin() : out.end(), 0);
      return out;
    };
    for (unsigned ty = y; ty < y + h; ty += 64) {
      for (unsigned tx = x; tx < x + w; tx += 64) {
        const unsigned tw = std::min(64u, x + w - tx), th = std::min(64u, y + h - ty);
        const auto put = [&](unsigned i, const Bytes& value) { pixels[{ty + i / tw, tx + i % tw}] = value; };
        const uint8_t kind = next();
        if (kind == 0) {
          for (unsigned i = 0; i < tw * th; ++i) put(i, pixel());
        } else if (kind <= 16) {
          std::vector<Bytes> palette;
          for (unsigned i = 0; i < kind; ++i) palette.push_back(pixel());
          const unsigned bits = kind == 1 ? 0 : kind == 2 ? 1 : kind <= 4 ? 2 : 4;
          for (unsigned row = 0; row < th; ++row) {
            unsigned have = 0, value = 0;
            for (unsigned i = 0; i < tw; ++i) {
              if (have == 0 && bits != 0) value = next(), have = 8;
              have -= bits;
              put(row * tw + i, palette[bits == 0 ? 0 : value >> have & ((1u << bits) - 1)]);
            }
          }
        } else {
          EXPECT_EQ(kind, 128);
          for (unsigned i = 0; i < tw * th;) {
            const Bytes value = pixel();
            unsigned length = 1;
            uint8_t more = 255;
            while (more == 255) length += more = next();
            for (; length > 0 && i < tw * th; --length) put(i++, value);
            EXPECT_EQ(length, 0u);
          }
        }
      }
    }
    EXPECT_EQ(at, plain.size());
  }

 public:
  bool compact_front = false;  // the byte that a CPIXEL leaves out is the first one

 private:
  const unsigned size_;
  const bool rgb_;  // a TPIXEL is red, green and blue
  PixelWriter writer_;
  std::array<z_stream, 5> streams_{};  // ZRLE's, and Tight's four
  Bytes in_;
  size_t at_ = 0;
};

class RfbTest : public testing::Test {
 protected:
  void begin(SessionOptions options = {}) { session_.emplace(options, challenge_, hands_, view_); }
  Bytes say(const Bytes& bytes) {
    going_ = session_->feed(bytes);
    return std::exchange(session_->output(), {});
  }
  void connect(SessionOptions options = {}) {
    begin(std::move(options));
    say(bytes_of("RFB 003.008\n"));
    say({1});
    say({1});
    EXPECT_TRUE(session_->running());
  }
  Bytes update() {
    session_->update();
    return std::exchange(session_->output(), {});
  }
  static Bytes encodings(const std::vector<int32_t>& list) {
    Bytes out{2, 0};
    put16(out, static_cast<unsigned>(list.size()));
    for (const int32_t one : list) put32(out, static_cast<uint32_t>(one));
    return out;
  }
  static Bytes request(bool incremental, unsigned width = 4096, unsigned height = 4096) {
    Bytes out{3, incremental};
    for (const unsigned value : {0u, 0u, width, height}) put16(out, value);
    return out;
  }
  static Bytes key(uint32_t keysym, bool down) {
    Bytes out{4, down, 0, 0};
    put32(out, keysym);
    return out;
  }
  void tap(uint32_t keysym) {
    say(key(keysym, true));
    say(key(keysym, false));
  }
  static Bytes format(const PixelFormat& format) {
    const auto bytes = format.serialise();
    return Bytes{0, 0, 0, 0} + Bytes(bytes.begin(), bytes.end());
  }

  Challenge challenge_{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
  RecordingHands hands_;
  View view_;
  TiledFrame& screen_ = view_.whole;
  std::optional<Session> session_;
  bool going_ = true;
};

TEST_F(RfbTest, HandshakesOfAllVersions) {
  screen_.replace(frame_of(640, 480, 4, 1));
  begin({.name = "pc"});
  EXPECT_EQ(say({}), bytes_of("RFB 003.008\n"));
  EXPECT_EQ(say(bytes_of("RFB 003.0")), Bytes{});
  EXPECT_EQ(say(bytes_of("08\n")), (Bytes{1, 1}));
  EXPECT_EQ(say({1}), (Bytes{0, 0, 0, 0}));
  const Bytes init = say({0});
  ASSERT_EQ(init.size(), 26u);
  EXPECT_EQ(Bytes(init.begin(), init.begin() + 8), (Bytes{2, 128, 1, 224, 32, 24, 0, 1}));
  EXPECT_EQ(Bytes(init.end() - 6, init.end()), (Bytes{0, 0, 0, 2, 'p', 'c'}));
  begin();
  EXPECT_EQ(say(bytes_of("RFB 003.007\n")), bytes_of("RFB 003.008\n") + Bytes({1, 1}));
  EXPECT_EQ(say({1}), Bytes{}) << "3.7 tells no result without a password";
  EXPECT_GT(say({1}).size(), 24u);
  begin();
  EXPECT_EQ(say(bytes_of("RFB 003.003\n")), bytes_of("RFB 003.008\n") + Bytes({0, 0, 0, 1}));
  EXPECT_GT(say({1}).size(), 24u);
  for (const char* bad : {"RFB 004.000\n", "GET / HTTP/1", "RFB 003.0x8\n"}) {
    begin();
    say(bytes_of(bad));
    EXPECT_FALSE(going_) << bad;
    EXPECT_FALSE(session_->feed(Bytes{1}));
  }
}

TEST_F(RfbTest, PasswordsAreChecked) {
  EXPECT_EQ(des_encrypt(0x0123'4567'89ab'cdef, 0x1334'5779'9bbc'dff1), 0x85e8'1354'0f0a'b405u);
  const SessionOptions options{.password = "secret"};
  begin(options);
  EXPECT_EQ(say(bytes_of("RFB 003.008\n")), bytes_of("RFB 003.008\n") + Bytes({1, 2}));
  EXPECT_EQ(say({2}), Bytes(challenge_.begin(), challenge_.end()));
  const Challenge right = answer_to(challenge_, "secret");
  EXPECT_EQ(say(Bytes(right.begin(), right.end())), (Bytes{0, 0, 0, 0}));
  EXPECT_TRUE(going_);
  begin(options);
  say(bytes_of("RFB 003.008\n"));
  say({2});
  const Challenge wrong = answer_to(challenge_, "Secret");
  EXPECT_EQ(say(Bytes(wrong.begin(), wrong.end())), Bytes({0, 0, 0, 1, 0, 0, 0, 14}) + bytes_of("wrong password"));
  EXPECT_FALSE(going_);
  EXPECT_TRUE(session_->refused());
  begin(options);
  say(bytes_of("RFB 003.008\n"));
  say({1});
  EXPECT_FALSE(going_) << "without the password there is no way in";
}

TEST_F(RfbTest, EveryEncodingInEveryFormatShowsThePicture) {
  const PixelFormat formats[]{{},
                              {.big_endian = true},
                              {.red_shift = 24, .green_shift = 16, .blue_shift = 8},
                              {.depth = 32},
                              {.bits = 16,
                               .depth = 16,
                               .red_max = 31,
                               .green_max = 63,
                               .blue_max = 31,
                               .red_shift = 11,
                               .green_shift = 5,
                               .blue_shift = 0},
                              {.bits = 8,
                               .depth = 8,
                               .red_max = 7,
                               .green_max = 7,
                               .blue_max = 3,
                               .red_shift = 0,
                               .green_shift = 3,
                               .blue_shift = 6}};
  for (const PixelFormat& one : formats) {
    for (const int32_t encoding : {0, 5, 7, 16}) {
      for (const unsigned colours : {1u, 2u, 3u, 11u, 300u, 100000u}) {
        screen_.replace(frame_of(150, 70, colours, colours));
        connect();
        Viewer viewer(one);
        viewer.compact_front = one.big_endian || one.red_shift == 24;
        EXPECT_EQ(say(format(one)), Bytes{});
        say(encodings({6, encoding}));
        say(request(false));
        viewer.take(update());
        EXPECT_TRUE(viewer.shows(screen_.frame())) << encoding << " " << colours << " " << unsigned{one.bits};
        Frame next = screen_.frame();
        next.pixels[0] ^= 0xff'ffff;
        screen_.replace(std::move(next));
        say(request(true));
        EXPECT_EQ(viewer.take(update()), 1u);
        EXPECT_TRUE(viewer.shows(screen_.frame()));
      }
    }
  }
}

TEST_F(RfbTest, TightOfVerySmallAndVeryWidePictures) {
  for (const auto& [width, height] : {std::pair{1u, 1u}, {3u, 1u}, {2u, 2u}, {11u, 2u}, {4096u, 3u}}) {
    for (const unsigned colours : {1u, 2u, 3u, 256u, 100000u}) {
      screen_.replace(frame_of(width, height, colours, colours + width));
      connect();
      Viewer viewer({});
      say(encodings({7}));
      say(request(false));
      EXPECT_EQ(viewer.take(update()), width > 2048 ? 2u : 1u);
      EXPECT_TRUE(viewer.shows(screen_.frame())) << width << " " << colours;
    }
  }
}

TEST_F(RfbTest, AColourMapIsSent) {
  connect();
  const Bytes map = say(format({.bits = 8, .depth = 8, .true_colour = false}));
  ASSERT_EQ(map.size(), 6u + 256 * 6);
  EXPECT_EQ(map[0], 1);
  EXPECT_EQ(Bytes(map.end() - 6, map.end()), Bytes(6, 255));
  say(format({.bits = 16, .true_colour = false}));
  EXPECT_FALSE(going_);
}

TEST_F(RfbTest, OnlyWhatHasChangedComesAndOnlyWhenAsked) {
  screen_.replace(frame_of(300, 200, 9, 1));
  connect();
  Viewer viewer({});
  EXPECT_EQ(update(), Bytes{});
  say(request(true));
  EXPECT_TRUE(session_->wants_update());
  viewer.take(update());
  EXPECT_TRUE(viewer.shows(screen_.frame()));
  EXPECT_FALSE(session_->wants_update());
  say(request(true));
  EXPECT_EQ(update(), Bytes{});
  Frame next = screen_.frame();
  next.pixels[100 * 300 + 130] ^= 1;
  next.pixels[100 * 300 + 191] ^= 1;
  screen_.replace(next);
  const Bytes one = update();
  EXPECT_EQ(Bytes(one.begin(), one.begin() + 12), (Bytes{0, 0, 0, 1, 0, 128, 0, 64, 0, 64, 0, 64}));
  say(request(false, 64, 64));
  EXPECT_EQ(update().size(), 4u + 12 + 64 * 64 * 4);
}

TEST_F(RfbTest, LargeUpdatesComeInParts) {
  screen_.replace(frame_of(1600, 1000, 9, 1));
  connect();
  Viewer viewer({});
  unsigned parts = 0;
  say(request(false));
  for (Bytes part = update(); !part.empty(); part = update()) {
    EXPECT_LT(part.size(), Session::most_update + 1600 * 64 * 4 + 1000);
    viewer.take(part);
    say(request(true));
    ++parts;
  }
  EXPECT_EQ(parts, 2u);
  EXPECT_TRUE(viewer.shows(screen_.frame()));
}

TEST_F(RfbTest, TheSizeIsToldToWhoUnderstandsIt) {
  for (const int32_t encoding : {-223, -308}) {
    screen_.replace(frame_of(100, 80, 3, 1));
    connect();
    Viewer viewer({});
    say(encodings({encoding, 0}));
    say(request(false));
    if (encoding == -308) {
      viewer.take(update());
      EXPECT_EQ(viewer.told, std::vector<int32_t>{-308}) << "at once";
      say(request(false));
    }
    viewer.take(update());
    screen_.replace(frame_of(130, 90, 3, 2));
    say(request(true));
    viewer.take(update());
    EXPECT_EQ(viewer.told.back(), encoding);
    EXPECT_EQ(viewer.width, 130u);
    EXPECT_EQ(viewer.height, 90u);
    say(request(true));
    viewer.take(update());
    EXPECT_TRUE(viewer.shows(screen_.frame()));
  }
  Bytes resize{251, 0, 1, 0, 1, 0, 1, 0};
  resize.resize(24);
  const Bytes answer = say(resize);
  ASSERT_GT(answer.size(), 8u);
  EXPECT_EQ(answer[5], 1);  // asked for by a client,
  EXPECT_EQ(answer[7], 1);  // and prohibited
  hands_.resizes = true;
  EXPECT_EQ(say(resize)[7], 4) << "the guest is asked";
  EXPECT_EQ(hands_.sizes.back(), (std::pair{256u, 256u}));
}

TEST_F(RfbTest, WhoCannotResizeGetsACutOrFilledPicture) {
  screen_.replace(frame_of(100, 80, 3, 1));
  connect();
  screen_.replace(frame_of(50, 200, 3, 1));
  Viewer viewer({});
  say(request(false));
  viewer.take(update());
  EXPECT_EQ(viewer.pixels.size(), 100u * 80);
  EXPECT_EQ((viewer.pixels[{0, 99}]), (Bytes{0, 0, 0, 0}));
}

TEST_F(RfbTest, KeysByPlace) {
  connect();
  Viewer viewer({});
  say(encodings({-258}));
  say(request(true));
  viewer.take(update());
  EXPECT_EQ(viewer.told, std::vector<int32_t>{-258});
  const auto extended = [&](bool down, uint32_t keysym, uint32_t code) {
    Bytes out{255, 0, 0, down};
    put32(out, keysym);
    put32(out, code);
    say(out);
  };
  extended(true, 'z', 0x15);
  extended(false, 'z', 0x15);
  extended(true, 0xff52, 0xc8);
  extended(false, 0xff52, 0xc8);
  extended(true, 'a', 0);
  EXPECT_EQ(hands_.keys, (std::vector<std::string>{"+15", "-15", "+e048", "-e048", "+1e"}));
  hands_.keys.clear();
  session_.reset();
  EXPECT_EQ(hands_.keys, std::vector<std::string>{"-1e"}) << "who goes leaves no key down";
}

TEST_F(RfbTest, KeysByNameOfAllLayouts) {
  using Keys = std::vector<std::string>;
  const struct {
    Layout layout;
    uint32_t keysym;
    Keys keys;
  } cases[]{
      {Layout::Us, 'a', {"+1e", "-1e"}},
      {Layout::Us, 'A', {"+2a", "+1e", "-2a", "-1e"}},
      {Layout::Us, '|', {"+2a", "+2b", "-2a", "-2b"}},
      {Layout::Us, 0xff0d, {"+1c", "-1c"}},
      {Layout::Us, 0xff52, {"+e048", "-e048"}},
      {Layout::Us, 0xe4, {}},
      {Layout::De, 'z', {"+15", "-15"}},
      {Layout::De, '@', {"+e038", "+10", "-e038", "-10"}},
      {Layout::De, 0x20ac, {"+e038", "+12", "-e038", "-12"}},
      {Layout::De, 0x10020ac, {"+e038", "+12", "-e038", "-12"}},
      {Layout::De, 0xfc, {"+1a", "-1a"}},
      {Layout::De, '/', {"+2a", "+08", "-2a", "-08"}},
      {Layout::De, 0xfe52, {"+29", "-29"}},
      {Layout::De, '^', {"+29", "-29"}},
      {Layout::De, '|', {"+e038", "+56", "-e038", "-56"}},
      {Layout::Fr, 'a', {"+10", "-10"}},
      {Layout::Fr, '1', {"+2a", "+02", "-2a", "-02"}},
      {Layout::Fr, 0xe9, {"+03", "-03"}},
      {Layout::Fr, '@', {"+e038", "+0b", "-e038", "-0b"}},
      {Layout::Fr, '.', {"+2a", "+33", "-2a", "-33"}},
      {Layout::Uk, '#', {"+2b", "-2b"}},
      {Layout::Uk, 0xa3, {"+2a", "+04", "-2a", "-04"}},
      {Layout::Uk, '\\', {"+56", "-56"}},
  };
  for (const auto& one : cases) {
    connect({.layout = one.layout});
    hands_.keys.clear();
    tap(one.keysym);
    EXPECT_EQ(hands_.keys, one.keys) << one.keysym << " " << static_cast<int>(one.layout);
  }
  for (unsigned layout = 0; layout < 4; ++layout) {
    connect({.layout = static_cast<Layout>(layout)});
    for (uint32_t c = 0x21; c < 0x7f; ++c) {
      hands_.keys.clear();
      tap(c);
      EXPECT_GE(hands_.keys.size(), 2u) << static_cast<char>(c) << " " << layout;
    }
  }
}

TEST_F(RfbTest, ShiftIsUsedAsTheViewerHasItWhereItFits) {
  using Keys = std::vector<std::string>;
  connect();
  say(key(0xffe1, true));
  tap('A');
  EXPECT_EQ(hands_.keys, (Keys{"+2a", "+1e", "-1e"}));
  hands_.keys.clear();
  tap('7');  // of a viewer with a French keyboard
  EXPECT_EQ(hands_.keys, (Keys{"-2a", "+08", "+2a", "-08"}));
  say(key(0xffe1, false));
  tap(0xffe5);
  hands_.keys.clear();
  tap('A');
  tap('1');
  EXPECT_EQ(hands_.keys, (Keys{"+1e", "-1e", "+02", "-02"})) << "Caps Lock is on";
}

TEST_F(RfbTest, PointerButtonsAndWheel) {
  screen_.replace(frame_of(100, 80, 3, 1));
  connect();
  say({5, 1, 0, 10, 0, 20});
  say({5, 6, 0, 10, 0, 20});
  say({5, 8, 0, 200, 0, 200});
  say({5, 8, 0, 0, 0, 0});
  say({5, 16, 0, 0, 0, 0});
  ASSERT_EQ(hands_.points.size(), 5u);
  EXPECT_EQ(hands_.points[0], (Pointer{10, 20, 100, 80, Pointer::left, 0}));
  EXPECT_EQ(hands_.points[1].buttons, Pointer::middle | Pointer::right);
  EXPECT_EQ(hands_.points[2], (Pointer{99, 79, 100, 80, 0, -1}));
  EXPECT_EQ(hands_.points[3].wheel, 0);
  EXPECT_EQ(hands_.points[4].wheel, 1);
}

TEST_F(RfbTest, WhatNobodyWantsIsSkippedAndWhatIsWrongEndsIt) {
  connect();
  Bytes text{6, 0, 0, 0, 0, 0, 0x20, 0};
  text.resize(8 + 0x1000, 'x');
  say(text);
  say(Bytes(0x1000, 'x') + key('a', true));
  EXPECT_EQ(hands_.keys, std::vector<std::string>{"+1e"});
  const Bytes bad[]{
      {6, 0, 0, 0, 0x7f, 0, 0, 0}, {9}, {255, 7}, {2, 0, 0xff, 0xff}, format({.bits = 24}), format({.red_shift = 31}),
      format({.red_max = 0})};
  for (const Bytes& one : bad) {
    connect();
    say(one);
    EXPECT_FALSE(going_) << unsigned{one[0]};
  }
}

TEST_F(RfbTest, APointerThatTheViewerDraws) {
  screen_.replace(frame_of(100, 80, 3, 1));
  view_.bare.replace(frame_of(100, 80, 3, 2));
  connect();
  Viewer viewer{PixelFormat{}};
  say(request(false));
  viewer.take(update());
  EXPECT_TRUE(viewer.shows(screen_.frame()));
  say(encodings({0, -239}));
  EXPECT_TRUE(session_->draws_pointer());
  say(request(true));
  viewer.take(update());
  EXPECT_TRUE(viewer.shows(view_.bare.frame()));
  EXPECT_TRUE(viewer.told.empty()) << "the guest has none so far";
  // Half of red, dark green, and two that are not there; its hot spot is the guest's word.
  const Cursor cursor{2, 2, 1, 7, {0x8080'0000, 0xff00'4000, 0x7f00'007f, 0}};
  view_.replace(cursor);
  view_.replace(cursor);
  EXPECT_EQ(view_.cursor_version, 1u);
  say(request(true));
  EXPECT_EQ(viewer.take(update()), 1u);
  EXPECT_EQ(viewer.told, std::vector<int32_t>{-239});
  EXPECT_EQ(viewer.cursor, (std::array{2u, 2u, 1u, 1u}));
  EXPECT_EQ(viewer.cursor_bytes, (Bytes{0, 0, 255, 0, 0, 64, 0, 0, 255, 0, 0, 0, 0, 0, 0, 0, 0xc0, 0}));
  say(request(true));
  EXPECT_EQ(update(), Bytes{}) << "told once";
  // With alpha; and a viewer that takes none of it any more.
  say(encodings({0, -239, -314}));
  view_.replace(Cursor{1, 1, 0, 0, {0x8040'2010}});
  viewer.take(update());
  EXPECT_EQ(viewer.told.back(), -314);
  EXPECT_EQ(viewer.cursor_bytes, (Bytes{0x40, 0x20, 0x10, 0x80}));
  view_.replace(Cursor{257, 1, 0, 0, std::vector<uint32_t>(257)});
  say(request(true));
  viewer.take(update());
  EXPECT_EQ(viewer.cursor, (std::array{0u, 0u, 0u, 0u})) << "there is none any more";
  say(encodings({0}));
  say(request(true));
  viewer.take(update());
  EXPECT_TRUE(viewer.shows(screen_.frame()));
  // Somebody who comes now keeps the pointer of the viewer's own.
  connect();
  say(encodings({0, -314}));
  say(request(true));
  viewer.told.clear();
  viewer.take(update());
  EXPECT_TRUE(viewer.told.empty());
}

TEST(KeysOf, LettersDeadKeysAndWhatALayoutLacks) {
  using All = std::vector<Typed>;
  EXPECT_EQ(keys_of(Layout::De, 'y'), (All{{ScanCode{0x2c}}}));
  EXPECT_EQ(keys_of(Layout::De, '{'), (All{{ScanCode{0x08}, false, true}}));
  EXPECT_EQ(keys_of(Layout::De, '^'), (All{{ScanCode{0x29}}, {ScanCode{0x39}}}));
  EXPECT_EQ(keys_of(Layout::De, U'\u00e9'), (All{{ScanCode{0x0d}}, {ScanCode{0x12}}}));
  EXPECT_EQ(keys_of(Layout::De, U'\u00c4'), (All{{ScanCode{0x28}, true}}));
  EXPECT_EQ(keys_of(Layout::Fr, '^'), (All{{ScanCode{0x0a}, false, true}})) << "AltGr rather than the dead key";
  EXPECT_EQ(keys_of(Layout::Fr, U'\u00ea'), (All{{ScanCode{0x1a}}, {ScanCode{0x12}}}));
  EXPECT_EQ(keys_of(Layout::Uk, U'\u00a3'), (All{{ScanCode{0x04}, true}}));
  for (const char32_t none : {U'\u00e9', U'\u4e2d', U'\U0001f600', U'\0', U'\n'})
    EXPECT_TRUE(keys_of(Layout::Uk, none).empty());
  // Everything that a prompt may need.
  for (const Layout layout : {Layout::De, Layout::Fr, Layout::Uk}) {
    for (char32_t c = ' '; c <= '~'; ++c) EXPECT_FALSE(keys_of(layout, c).empty()) << uint32_t{c};
  }
}

TEST_F(RfbTest, WhoAsksAndDoesNotReadIsCutOff) {
  connect();
  const Bytes map = format({.bits = 8, .depth = 8, .true_colour = false});
  unsigned count = 0;
  while (session_->feed(map) && count < 1000) ++count;
  EXPECT_LT(count, 100u);
  EXPECT_LT(session_->output().size(), Session::most_replies + 2000);
}

TEST_F(RfbTest, ManyKeysDownAreBounded) {
  connect();
  for (uint32_t c = 0; c < 5000; ++c) say(key(0x100'0000 + c, true));
  for (uint8_t c = 1; c < 0x80; ++c) say({255, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, c});
  hands_.keys.clear();
  session_.reset();
  EXPECT_LE(hands_.keys.size(), Keymap::most_down);
}

}  // namespace
}  // namespace caisson::rfb

#include "backend/rfb/rfb_fuzz.cpp"  // the target itself; fuzz sources belong to no library

namespace caisson::rfb {
namespace {

TEST(RfbFuzz, RandomInputsDoNoHarm) {
  std::mt19937 random(20261129);
  for (unsigned round = 0; round < 2000; ++round) {
    std::vector<uint8_t> input(random() % 600);
    for (uint8_t& byte : input) byte = static_cast<uint8_t>(random() % 4 == 0 ? random() : random() % 8);
    EXPECT_EQ(LLVMFuzzerTestOneInput(input.data(), input.size()), 0);
  }
}

}  // namespace
}  // namespace caisson::rfb
