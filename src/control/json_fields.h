// Tables that map a struct's members to JSON keys, each with its bounds, stated once for parsing, serialising and
// checking.
//   Kinds    integers (least, most), bool, enums (names), strings (most bytes), optionals and vectors of these, and
//   vectors
//            of structs with a table of their own
//   Threads  pure functions
// Included by the .cpp files of control/, store/, life/ and api/ only.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/result.h"

namespace caisson::control {

using Json = nlohmann::json;

// Names of an enum's values in order; specialised beside the enum's table.
template <class E>
struct EnumNames;  // static constexpr std::array<std::string_view, N> names;

// Table of a struct: specialise with `static constexpr auto fields()` returning std::tuple of Key.
template <class T>
struct JsonTable;

struct Bounds {
  uint64_t least = 0;
  uint64_t most = std::numeric_limits<uint64_t>::max();  // value of an integer; bytes of a string; elements of a vector
  uint64_t element_most = 64;                            // bytes of a vector's strings
  bool any_text = false;                                 // line ends and other control characters as well
};

template <class Owner, class Member>
struct Key {
  std::string_view name;
  Member Owner::*member;
  Bounds bounds;
  bool required = false;
};
template <class Owner, class Member>
constexpr Key<Owner, Member> key(std::string_view name, Member Owner::*member, Bounds bounds = {},
                                 bool required = false) {
  return {name, member, bounds, required};
}

template <class T>
concept HasTable = requires {
  JsonTable<T>::fields();
};

namespace detail {

template <class T>
struct Kind {
  static constexpr bool optional = false, vector = false;
};
template <class T>
struct Kind<std::optional<T>> {
  static constexpr bool optional = true, vector = false;
};
template <class T>
struct Kind<std::vector<T>> {
  static constexpr bool optional = false, vector = true;
};

// Printable text without control characters, so that no message can break a line or speak to a terminal.
inline bool is_plain(std::string_view text) {
  for (const char c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) return false;
  }
  return true;
}

}  // namespace detail

template <HasTable T>
[[nodiscard]] Json to_json(const T& value);

template <class T>
[[nodiscard]] Json value_to_json(const T& value) {
  if constexpr (HasTable<T>) {
    return to_json(value);
  } else if constexpr (std::is_enum_v<T>) {
    return std::string{EnumNames<T>::names[static_cast<size_t>(value)]};
  } else if constexpr (detail::Kind<T>::vector) {
    Json array = Json::array();
    for (const auto& element : value) array.push_back(value_to_json(element));
    return array;
  } else {
    return value;
  }
}

template <HasTable T>
Json to_json(const T& value) {
  Json object = Json::object();
  std::apply(
      [&](const auto&... row) {
        (
            [&] {
              const auto& member = value.*row.member;
              if constexpr (detail::Kind<std::remove_cvref_t<decltype(member)>>::optional) {
                if (member) object[std::string{row.name}] = value_to_json(*member);
              } else {
                object[std::string{row.name}] = value_to_json(member);
              }
            }(),
            ...);
      },
      JsonTable<T>::fields());
  return object;
}

template <HasTable T>
[[nodiscard]] Result<> check_bounds(const T& value);

template <class T>
[[nodiscard]] Result<> check_value(const T& value, const Bounds& bounds, std::string_view name) {
  if constexpr (HasTable<T>) {
    return check_bounds(value);
  } else if constexpr (std::is_enum_v<T>) {
    if (static_cast<size_t>(value) >= EnumNames<T>::names.size()) return fail("{} has an unknown value", name);
  } else if constexpr (std::is_same_v<T, std::string>) {
    if (value.size() > bounds.most)
      return fail("{} has {} bytes, at most {} are allowed", name, value.size(), bounds.most);
    if (value.size() < bounds.least) return fail("{} is empty", name);
    if (!bounds.any_text && !detail::is_plain(value)) return fail("{} has control characters", name);
  } else if constexpr (detail::Kind<T>::optional) {
    if (value) return check_value(*value, bounds, name);
  } else if constexpr (detail::Kind<T>::vector) {
    if (value.size() > bounds.most)
      return fail("{} has {} entries, at most {} are allowed", name, value.size(), bounds.most);
    if (value.size() < bounds.least) return fail("{} is empty", name);
    for (const auto& element : value) {
      if (auto ok = check_value(element, Bounds{1, bounds.element_most, 0, bounds.any_text}, name); !ok) return ok;
    }
  } else if constexpr (!std::is_same_v<T, bool>) {
    if (value < bounds.least || value > bounds.most) {
      return fail("{} is {}, allowed are {} to {}", name, value, bounds.least, bounds.most);
    }
  }
  return {};
}

template <HasTable T>
Result<> check_bounds(const T& value) {
  Result<> result;
  std::apply(
      [&](const auto&... row) {
        ((result = result ? check_value(value.*row.member, row.bounds, row.name) : std::move(result)), ...);
      },
      JsonTable<T>::fields());
  return result;
}

template <HasTable T>
[[nodiscard]] Result<> from_json(const Json& json, T& value);

template <class T>
[[nodiscard]] Result<> value_from_json(const Json& json, T& value, std::string_view name) {
  if constexpr (HasTable<T>) {
    return from_json(json, value);
  } else if constexpr (std::is_enum_v<T>) {
    if (!json.is_string()) return fail("{} is not a string", name);
    const auto& text = json.get_ref<const std::string&>();
    for (size_t i = 0; i < EnumNames<T>::names.size(); ++i) {
      if (EnumNames<T>::names[i] == text) {
        value = static_cast<T>(i);
        return {};
      }
    }
    return fail("{} has an unknown value", name);
  } else if constexpr (std::is_same_v<T, std::string>) {
    if (!json.is_string()) return fail("{} is not a string", name);
    value = json.get_ref<const std::string&>();
  } else if constexpr (std::is_same_v<T, bool>) {
    if (!json.is_boolean()) return fail("{} is not true or false", name);
    value = json.get<bool>();
  } else if constexpr (detail::Kind<T>::optional) {
    return value_from_json(json, value.emplace(), name);
  } else if constexpr (detail::Kind<T>::vector) {
    if (!json.is_array()) return fail("{} is not a list", name);
    value.clear();
    for (const auto& element : json) {
      if (auto ok = value_from_json(element, value.emplace_back(), name); !ok) return ok;
    }
  } else {
    static_assert(std::is_unsigned_v<T>);
    if (!json.is_number_unsigned()) return fail("{} is not a whole number", name);
    const auto number = json.get<uint64_t>();
    if (number > std::numeric_limits<T>::max()) return fail("{} is {}, which is too large", name, number);
    value = static_cast<T>(number);
  }
  return {};
}

// Keys may be left out (the member keeps its value) unless required; unknown keys are errors. Bounds are not checked
// here.
template <HasTable T>
Result<> from_json(const Json& json, T& value) {
  if (!json.is_object()) return fail("not a JSON object");
  Result<> result;
  size_t known = 0;
  std::apply(
      [&](const auto&... row) {
        (
            [&] {
              if (!result) return;
              const auto found = json.find(std::string{row.name});
              if (found == json.end()) {
                if (row.required) result = fail("{} is missing", row.name);
                return;
              }
              ++known;
              result = value_from_json(*found, value.*row.member, row.name);
            }(),
            ...);
      },
      JsonTable<T>::fields());
  if (!result || known == json.size()) return result;
  for (const auto& item : json.items()) {
    bool found = false;
    std::apply([&](const auto&... row) { ((found = found || row.name == item.key()), ...); }, JsonTable<T>::fields());
    if (!found)
      return fail("the key {} is unknown",
                  Json(item.key().substr(0, 64)).dump(-1, ' ', true, Json::error_handler_t::replace));
  }
  return result;
}

// JSON text to a tree without exceptions; bounded in size by the caller.
[[nodiscard]] inline Result<Json> parse_json(std::string_view text) {
  auto json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return fail("not valid JSON");
  return json;
}

// Text that cannot be JSON (bytes that are not UTF-8) is replaced, never thrown about.
[[nodiscard]] inline std::string dump_json(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace caisson::control
