#include "control/keys.h"

#include <algorithm>
#include <array>
#include <optional>

namespace caisson::control {
namespace {

struct Named {
  std::string_view name;
  uint8_t code;
  bool extended = false;
};
constexpr std::array names{
    Named{"esc", 0x01},          Named{"backspace", 0x0e},
    Named{"tab", 0x0f},          Named{"enter", 0x1c},
    Named{"space", 0x39},        Named{"capslock", 0x3a},
    Named{"f1", 0x3b},           Named{"f2", 0x3c},
    Named{"f3", 0x3d},           Named{"f4", 0x3e},
    Named{"f5", 0x3f},           Named{"f6", 0x40},
    Named{"f7", 0x41},           Named{"f8", 0x42},
    Named{"f9", 0x43},           Named{"f10", 0x44},
    Named{"f11", 0x57},          Named{"f12", 0x58},
    Named{"home", 0x47, true},   Named{"up", 0x48, true},
    Named{"pageup", 0x49, true}, Named{"left", 0x4b, true},
    Named{"right", 0x4d, true},  Named{"end", 0x4f, true},
    Named{"down", 0x50, true},   Named{"pagedown", 0x51, true},
    Named{"insert", 0x52, true}, Named{"delete", 0x53, true},
    Named{"ctrl", 0x1d},         Named{"shift", 0x2a},
    Named{"alt", 0x38},          Named{"altgr", 0x38, true},
    Named{"super", 0x5b, true},  Named{"menu", 0x5d, true},
};

// Rows of the keyboard: the key with this code has these characters, without and with shift.
struct Row {
  uint8_t first;
  std::string_view plain, shifted;
};
constexpr std::array rows{
    Row{0x02, "1234567890-=", "!@#$%^&*()_+"},
    Row{0x10, "qwertyuiop[]", "QWERTYUIOP{}"},
    Row{0x1e, "asdfghjkl;'`", "ASDFGHJKL:\"~"},
    Row{0x2b, "\\zxcvbnm,./", "|ZXCVBNM<>?"},
    Row{0x39, " ", ""},
};
constexpr uint8_t shift_code = 0x2a, enter_code = 0x1c, alt_code = 0x38;

// The first character, and how many bytes it has; none: it is no UTF-8.
struct Decoded {
  char32_t character = 0;
  size_t length = 1;
};
std::optional<Decoded> decode(std::string_view text) {
  const auto byte = [&](size_t at) { return static_cast<unsigned char>(text[at]); };
  if (byte(0) < 0x80) return Decoded{byte(0)};
  const size_t length = byte(0) >= 0xf0 ? 4 : byte(0) >= 0xe0 ? 3 : 2;
  if (byte(0) < 0xc2 || byte(0) > 0xf4 || text.size() < length) return {};
  char32_t character = byte(0) & (0x7fu >> length);
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return {};
    character = character << 6 | (byte(i) & 0x3fu);
  }
  return Decoded{character, length};
}

std::vector<Stroke> of_character(char32_t character, const Characters& characters) {
  if (character == U'\n') return {{enter_code}};
  return characters(character);
}

std::vector<Stroke> named(std::string_view name, const Characters& characters) {
  if (const auto found = std::ranges::find(names, name, &Named::name); found != names.end()) {
    return {{found->code, found->extended}};
  }
  if (name.empty()) return {};
  const auto one = decode(name);
  return one && one->length == name.size() ? of_character(one->character, characters) : std::vector<Stroke>{};
}

struct Pressed {
  uint8_t code = 0;
  bool extended = false;
};
void add(std::vector<Pressed>& chord, const Stroke& stroke) {
  if (stroke.shift) chord.push_back({shift_code});
  if (stroke.altgr) chord.push_back({alt_code, true});
  chord.push_back({stroke.code, stroke.extended});
}
void press(std::vector<KeyEvent>& out, const std::vector<Pressed>& chord) {
  for (const Pressed& key : chord) out.push_back({key.code, key.extended, true});
  for (size_t i = chord.size(); i > 0; --i) out.push_back({chord[i - 1].code, chord[i - 1].extended, false});
}
void press(std::vector<KeyEvent>& out, const std::vector<Stroke>& strokes) {
  for (const Stroke& stroke : strokes) {
    std::vector<Pressed> chord;
    add(chord, stroke);
    press(out, chord);
  }
}

}  // namespace

std::vector<Stroke> american_keys(char32_t character) {
  if (character >= 0x80) return {};
  const auto c = static_cast<char>(character);
  for (const Row& row : rows) {
    if (const size_t at = row.plain.find(c); at != std::string_view::npos) {
      return {{static_cast<uint8_t>(row.first + at)}};
    }
    if (const size_t at = row.shifted.find(c); at != std::string_view::npos) {
      return {{.code = static_cast<uint8_t>(row.first + at), .shift = true}};
    }
  }
  return {};
}

Result<std::vector<KeyEvent>> parse_keys(std::string_view text, const Characters& characters) {
  std::vector<KeyEvent> out;
  while (!text.empty()) {
    if (text[0] == '<' && !text.starts_with("<<")) {
      const size_t end = text.find('>', 2);
      if (end == std::string_view::npos) return fail("{}: \"<\" without \">\"; write << for the character", text);
      std::string_view inside = text.substr(1, end - 1);
      text.remove_prefix(end + 1);
      std::vector<Pressed> chord;
      for (;;) {
        const size_t dash = inside.find('-', 1);
        const std::string_view name = inside.substr(0, dash);
        const auto keys = named(name, characters);
        // What takes several keys in a row is no part of a chord.
        if (keys.size() != 1)
          return fail("<{}>: there is no such key; for example <enter>, <f2>, <ctrl-alt-delete>", name);
        add(chord, keys[0]);
        if (dash == std::string_view::npos) break;
        inside.remove_prefix(dash + 1);
      }
      press(out, chord);
      continue;
    }
    const auto one = decode(text);
    if (!one) return fail("byte {:#04x}: the text is not UTF-8", static_cast<unsigned char>(text[0]));
    const auto keys = of_character(one->character, characters);
    if (keys.empty()) {
      if (one->character < 0x20)
        return fail("character {:#04x}: there is no key for it", static_cast<uint32_t>(one->character));
      return fail("{}: the machine's keyboard has no key for it; --keyboard-layout names the layout",
                  text.substr(0, one->length));
    }
    press(out, keys);
    text.remove_prefix(text.starts_with("<<") ? 2 : one->length);
  }
  return out;
}

}  // namespace caisson::control
