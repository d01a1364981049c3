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
constexpr uint8_t shift_code = 0x2a, enter_code = 0x1c;

struct Stroke {
  uint8_t code = 0;
  bool extended = false;
  bool shift = false;
};

std::optional<Stroke> character(char c) {
  if (c == '\n') return Stroke{enter_code};
  for (const Row& row : rows) {
    if (const size_t at = row.plain.find(c); at != std::string_view::npos) {
      return Stroke{static_cast<uint8_t>(row.first + at)};
    }
    if (const size_t at = row.shifted.find(c); at != std::string_view::npos) {
      return Stroke{static_cast<uint8_t>(row.first + at), false, true};
    }
  }
  return {};
}

std::optional<Stroke> named(std::string_view name) {
  if (const auto found = std::ranges::find(names, name, &Named::name); found != names.end()) {
    return Stroke{found->code, found->extended};
  }
  return name.size() == 1 ? character(name[0]) : std::nullopt;
}

void press(std::vector<KeyEvent>& out, const std::vector<Stroke>& chord) {
  for (const Stroke& key : chord) out.push_back({key.code, key.extended, true});
  for (size_t i = chord.size(); i > 0; --i) out.push_back({chord[i - 1].code, chord[i - 1].extended, false});
}

}  // namespace

Result<std::vector<KeyEvent>> parse_keys(std::string_view text) {
  std::vector<KeyEvent> out;
  while (!text.empty()) {
    std::vector<Stroke> chord;
    const auto add = [&](const Stroke& key) {
      if (key.shift) chord.push_back({shift_code});
      chord.push_back(key);
    };
    size_t used = 1;
    if (text.starts_with("<<")) {
      used = 2;
      add(*character('<'));
    } else if (text[0] == '<') {
      const size_t end = text.find('>', 2);
      if (end == std::string_view::npos) return fail("{}: \"<\" without \">\"; write << for the character", text);
      std::string_view inside = text.substr(1, end - 1);
      used = end + 1;
      for (;;) {
        const size_t dash = inside.find('-', 1);
        const std::string_view name = inside.substr(0, dash);
        const auto key = named(name);
        if (!key) return fail("<{}>: there is no such key; for example <enter>, <f2>, <ctrl-alt-delete>", name);
        add(*key);
        if (dash == std::string_view::npos) break;
        inside.remove_prefix(dash + 1);
      }
    } else if (const auto key = character(text[0])) {
      add(*key);
    } else {
      return fail("character {:#04x}: only printable ASCII can be typed", static_cast<unsigned char>(text[0]));
    }
    press(out, chord);
    text.remove_prefix(used);
  }
  return out;
}

}  // namespace caisson::control
