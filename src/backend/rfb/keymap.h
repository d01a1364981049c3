// Keys by the names that viewers give them (X11 keysyms), as keys of a keyboard.
//   Spec     RFC 6143, 7.5.4; X11's keysymdef.h
//   Models   American, German, French and British layouts; shift and AltGr are pressed or let go for the moment where
//   the
//            character needs it, since not every viewer sends them
//   Threads  one object, one thread
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <vector>

namespace caisson::rfb {

enum class Layout : uint8_t { Us, De, Fr, Uk };

// Of scan code set 1.
struct ScanCode {
  uint8_t code = 0;
  bool extended = false;
  auto operator<=>(const ScanCode&) const = default;
};

// How a layout types a character: one key after the other (a dead key, and then the letter). Nothing: it cannot.
struct Typed {
  ScanCode key;
  bool shift = false, altgr = false;
  bool operator==(const Typed&) const = default;
};
[[nodiscard]] std::vector<Typed> keys_of(Layout layout, char32_t character);

class Keymap {
 public:
  using Press = std::function<void(ScanCode key, bool down)>;
  // Keys that one viewer can have down.
  static constexpr size_t most_down = 64;

  Keymap(Layout layout, Press press) : layout_(layout), press_(std::move(press)) {}

  // By name. What is no key of the layout is left out.
  void key(uint32_t keysym, bool down);
  // By place.
  void key(ScanCode place, bool down);
  // The viewer has gone: lets all keys go that it has down.
  void release_all();

 private:
  void send(ScanCode key, bool down);
  [[nodiscard]] bool is_down(ScanCode key) const { return pressed_.contains(key); }

  const Layout layout_;
  const Press press_;
  std::map<uint32_t, ScanCode> by_name_;  // what is down by its name: it comes up where it went down
  std::map<ScanCode, bool> pressed_;
  bool caps_ = false;  // the viewer has sent Caps Lock an odd number of times
};

}  // namespace caisson::rfb
