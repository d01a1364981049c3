#include "backend/rfb/keymap.h"

#include <array>
#include <string_view>
#include <utility>

namespace caisson::rfb {
namespace {

// The keys with characters: digits, then the three rows of letters.
constexpr std::array<uint8_t, 48> places{0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d,
                                         0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1b,
                                         0x1e, 0x1f, 0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28, 0x29,
                                         0x2b, 0x2c, 0x2d, 0x2e, 0x2f, 0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x56};

// Keysyms of dead keys, which the tables have as they are.
#define GRAVE u"\ufe50"
#define ACUTE u"\ufe51"
#define CIRCUMFLEX u"\ufe52"
#define DIAERESIS u"\ufe57"

// Each string has the places' characters in their order; a blank where there is none.
struct Table {
  std::u16string_view plain, shift, altgr;
};
constexpr std::array<Table, 4> tables{{
    {u"1234567890-="
     u"qwertyuiop[]"
     u"asdfghjkl;'`"
     u"\\zxcvbnm,./<",
     u"!@#$%^&*()_+"
     u"QWERTYUIOP{}"
     u"ASDFGHJKL:\"~"
     u"|ZXCVBNM<>?>",
     u""},
    {u"1234567890\u00df" ACUTE u"qwertzuiop\u00fc+"
     u"asdfghjkl\u00f6\u00e4" CIRCUMFLEX u"#yxcvbnm,.-<",
     u"!\"\u00a7$%&/()=?" GRAVE u"QWERTZUIOP\u00dc*"
     u"ASDFGHJKL\u00d6\u00c4\u00b0"
     u"'YXCVBNM;:_>",
     u" \u00b2\u00b3   {[]}\\ "
     u"@ \u20ac        ~"
     u"            "
     u"       \u00b5   |"},
    {u"&\u00e9\"'(-\u00e8_\u00e7\u00e0)="
     u"azertyuiop" CIRCUMFLEX u"$"
     u"qsdfghjklm\u00f9\u00b2"
     u"*wxcvbn,;:!<",
     u"1234567890\u00b0+"
     u"AZERTYUIOP" DIAERESIS u"\u00a3"
     u"QSDFGHJKLM% "
     u"\u00b5WXCVBN?./\u00a7>",
     u" ~#{[|`\\^@]}"
     u"  \u20ac        \u00a4"
     u"            "
     u"            "},
    {u"1234567890-="
     u"qwertyuiop[]"
     u"asdfghjkl;'`"
     u"#zxcvbnm,./\\",
     u"!\"\u00a3$%^&*()_+"
     u"QWERTYUIOP{}"
     u"ASDFGHJKL:@\u00ac"
     u"~ZXCVBNM<>?|",
     u"   \u20ac        "
     u"            "
     u"           \u00a6"
     u"            "},
}};
#undef GRAVE
#undef ACUTE
#undef CIRCUMFLEX
#undef DIAERESIS
static_assert([] {
  for (const Table& table : tables) {
    if (table.plain.size() != places.size() || table.shift.size() != places.size()) return false;
    if (!table.altgr.empty() && table.altgr.size() != places.size()) return false;
  }
  return true;
}());

struct Named {
  uint32_t keysym;
  uint8_t code;
  bool extended = false;
};
constexpr Named names[]{
    {0x0020, 0x39},       {0xff08, 0x0e},       {0xff09, 0x0f},       {0xfe20, 0x0f},       {0xff0d, 0x1c},
    {0xff1b, 0x01},       {0xff13, 0x46, true}, {0xff14, 0x46},       {0xff50, 0x47, true}, {0xff51, 0x4b, true},
    {0xff52, 0x48, true}, {0xff53, 0x4d, true}, {0xff54, 0x50, true}, {0xff55, 0x49, true}, {0xff56, 0x51, true},
    {0xff57, 0x4f, true}, {0xff61, 0x37, true}, {0xff63, 0x52, true}, {0xff67, 0x5d, true}, {0xff7f, 0x45},
    {0xffff, 0x53, true}, {0xff8d, 0x1c, true}, {0xff95, 0x47},       {0xff96, 0x4b},       {0xff97, 0x48},
    {0xff98, 0x4d},       {0xff99, 0x50},       {0xff9a, 0x49},       {0xff9b, 0x51},       {0xff9c, 0x4f},
    {0xff9d, 0x4c},       {0xff9e, 0x52},       {0xff9f, 0x53},       {0xffaa, 0x37},       {0xffab, 0x4e},
    {0xffac, 0x53},       {0xffad, 0x4a},       {0xffae, 0x53},       {0xffaf, 0x35, true}, {0xffb0, 0x52},
    {0xffb1, 0x4f},       {0xffb2, 0x50},       {0xffb3, 0x51},       {0xffb4, 0x4b},       {0xffb5, 0x4c},
    {0xffb6, 0x4d},       {0xffb7, 0x47},       {0xffb8, 0x48},       {0xffb9, 0x49},       {0xffbe, 0x3b},
    {0xffbf, 0x3c},       {0xffc0, 0x3d},       {0xffc1, 0x3e},       {0xffc2, 0x3f},       {0xffc3, 0x40},
    {0xffc4, 0x41},       {0xffc5, 0x42},       {0xffc6, 0x43},       {0xffc7, 0x44},       {0xffc8, 0x57},
    {0xffc9, 0x58},       {0xffe1, 0x2a},       {0xffe2, 0x36},       {0xffe3, 0x1d},       {0xffe4, 0x1d, true},
    {0xffe5, 0x3a},       {0xffe7, 0x38},       {0xffe8, 0x38, true}, {0xffe9, 0x38},       {0xffea, 0x38, true},
    {0xfe03, 0x38, true}, {0xff7e, 0x38, true}, {0xffeb, 0x5b, true}, {0xffec, 0x5c, true}};

constexpr ScanCode left_shift{0x2a}, right_shift{0x36}, altgr{0x38, true};
constexpr uint32_t caps_lock = 0xffe5;

// Characters beyond Latin-1 have 0x1000000 added, or old names of their own.
char16_t character(uint32_t keysym) {
  if (keysym > 0x100'0000 && keysym <= 0x100'ffff) keysym -= 0x100'0000;
  return keysym <= 0xffff ? static_cast<char16_t>(keysym) : u'\0';
}

// Dead keys that a viewer sends as the accent itself.
char16_t as_dead(char16_t accent) {
  switch (accent) {
    case u'`': return u'\ufe50';
    case u'\u00b4': return u'\ufe51';
    case u'^': return u'\ufe52';
    case u'\u00a8': return u'\ufe57';
    default: return u'\0';
  }
}

struct Found {
  uint8_t code;
  bool shift, altgr;
};
// As it stands on a key.
std::optional<Found> find_exactly(Layout layout, char16_t wanted) {
  if (wanted <= u' ') return std::nullopt;
  const Table& table = tables[static_cast<size_t>(layout)];
  if (const auto at = table.plain.find(wanted); at != table.plain.npos) return Found{places[at], false, false};
  if (const auto at = table.shift.find(wanted); at != table.shift.npos) return Found{places[at], true, false};
  if (const auto at = table.altgr.find(wanted); at != table.altgr.npos) return Found{places[at], false, true};
  return std::nullopt;
}
std::optional<Found> find(Layout layout, char16_t wanted) {
  if (const auto found = find_exactly(layout, wanted)) return found;
  return find_exactly(layout, as_dead(wanted));
}

// Letters that a dead key makes of others.
struct Accented {
  char16_t dead;
  std::u16string_view letters, plain;
};
constexpr Accented accented[]{
    {u'\ufe50', u"\u00e0\u00e8\u00ec\u00f2\u00f9\u00c0\u00c8\u00cc\u00d2\u00d9", u"aeiouAEIOU"},
    {u'\ufe51', u"\u00e1\u00e9\u00ed\u00f3\u00fa\u00fd\u00c1\u00c9\u00cd\u00d3\u00da\u00dd", u"aeiouyAEIOUY"},
    {u'\ufe52', u"\u00e2\u00ea\u00ee\u00f4\u00fb\u00c2\u00ca\u00ce\u00d4\u00db", u"aeiouAEIOU"},
    {u'\ufe57', u"\u00e4\u00eb\u00ef\u00f6\u00fc\u00ff\u00c4\u00cb\u00cf\u00d6\u00dc", u"aeiouyAEIOU"},
};

bool is_letter(char16_t c) {
  return (c >= u'a' && c <= u'z') || (c >= u'A' && c <= u'Z') || (c >= u'\u00c0' && c <= u'\u00fe');
}

}  // namespace

std::vector<Typed> keys_of(Layout layout, char32_t character) {
  constexpr Typed space{ScanCode{0x39}};
  if (character == U' ') return {space};
  if (character > 0xffff) return {};
  const auto wanted = static_cast<char16_t>(character);
  const auto typed = [](const Found& found) { return Typed{ScanCode{found.code}, found.shift, found.altgr}; };
  if (const auto found = find_exactly(layout, wanted)) return {typed(*found)};
  // A dead key and a blank make the accent itself.
  if (const auto dead = find_exactly(layout, as_dead(wanted))) return {typed(*dead), space};
  for (const Accented& accent : accented) {
    const size_t at = accent.letters.find(wanted);
    if (at == std::u16string_view::npos) continue;
    const auto dead = find_exactly(layout, accent.dead), letter = find_exactly(layout, accent.plain[at]);
    if (dead && letter) return {typed(*dead), typed(*letter)};
  }
  return {};
}

void Keymap::send(ScanCode key, bool down) {
  if (down) {
    if (pressed_.size() >= most_down && !is_down(key)) return;
    pressed_[key] = true;
  } else if (pressed_.erase(key) == 0) {
    return;
  }
  press_(key, down);
}

void Keymap::key(ScanCode place, bool down) { send(place, down); }

void Keymap::key(uint32_t keysym, bool down) {
  if (!down) {
    const auto known = by_name_.find(keysym);
    if (known == by_name_.end()) return;
    const ScanCode place = known->second;
    by_name_.erase(known);
    return send(place, false);
  }
  if (by_name_.size() >= most_down && !by_name_.contains(keysym)) return;
  if (keysym == caps_lock && !by_name_.contains(keysym)) caps_ = !caps_;
  for (const Named& name : names) {
    if (name.keysym != keysym) continue;
    by_name_[keysym] = {name.code, name.extended};
    return send({name.code, name.extended}, true);
  }
  const char16_t wanted = character(keysym);
  const auto found = find(layout_, wanted);
  if (!found) return;
  const ScanCode place{found->code};
  by_name_[keysym] = place;
  const bool shift = found->shift != (caps_ && is_letter(wanted));
  const bool has_shift = is_down(left_shift) || is_down(right_shift), has_altgr = is_down(altgr);
  // With AltGr shift makes no difference to what is in the tables.
  const bool press_shift = shift && !has_shift && !has_altgr;
  const bool press_altgr = found->altgr && !has_altgr;
  const std::array lifted{std::pair{left_shift, !shift && !found->altgr && is_down(left_shift)},
                          std::pair{right_shift, !shift && !found->altgr && is_down(right_shift)}};
  if (press_shift) press_(left_shift, true);
  if (press_altgr) press_(altgr, true);
  for (const auto& [key, lift] : lifted) {
    if (lift) press_(key, false);
  }
  send(place, true);
  for (const auto& [key, lift] : lifted) {
    if (lift) press_(key, true);
  }
  if (press_altgr) press_(altgr, false);
  if (press_shift) press_(left_shift, false);
}

void Keymap::release_all() {
  by_name_.clear();
  for (const auto& [key, down] : std::exchange(pressed_, {})) press_(key, false);
}

}  // namespace caisson::rfb
