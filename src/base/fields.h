// Field tables: what a guest can observe of a device stands in one plain State struct whose members are declared once,
// in a table of (id, name, member). The table drives save, restore, diff and the generic round-trip test.
//
//   struct State {
//     uint8_t divisor_low = 0;
//     std::array<uint8_t, 16> fifo{};
//     static constexpr auto fields() {
//       return caisson::fields::table<State>(caisson::fields::row<1>("divisor_low", &State::divisor_low),
//                                            caisson::fields::row<2>("fifo", &State::fifo));
//     }
//   };
//
// A member without a row, or two rows with one id, do not compile. Ids are never reused. Members may be integers, bool,
// enums, std::array of these, other State structs, or Bytes (bounded byte vectors). Threads: none of its own.
//
// Saved form, little-endian: for each row {uint16 id, uint32 size, size bytes}; nested structs nest.
// Restored data is untrusted: sizes are checked, unknown ids are an error, missing ids keep the value they had.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <vector>

#include "base/result.h"

namespace caisson::fields {

using Buffer = std::vector<uint8_t>;

// A byte vector member, at most `Max` bytes when restored.
template <size_t Max>
struct Bytes {
  static constexpr size_t max = Max;
  std::vector<uint8_t> data;
  bool operator==(const Bytes&) const = default;
};

template <class Owner, class Member, uint16_t Id>
struct Row {
  static constexpr uint16_t id = Id;
  std::string_view name;
  Member Owner::*member;
};

template <uint16_t Id, class Owner, class Member>
constexpr Row<Owner, Member, Id> row(std::string_view name, Member Owner::*member) {
  return {name, member};
}

template <class T>
concept HasFields = requires {
  T::fields();
};

namespace detail {

struct Anything {
  template <class T>
  constexpr operator T() const;  // never defined: used in unevaluated operands only
};

template <class T, size_t... I>
constexpr bool constructible_from(std::index_sequence<I...>) {
  return requires { T{((void)I, Anything{})...}; };
}

// How many members the aggregate T has: the largest number of initialisers it takes.
template <class T, size_t N = 64>
constexpr size_t member_count() {
  if constexpr (N == 0) {
    return 0;
  } else if constexpr (constructible_from<T>(std::make_index_sequence<N>{})) {
    return N;
  } else {
    return member_count<T, N - 1>();
  }
}

template <uint16_t... Ids>
constexpr bool ids_are_unique() {
  std::array<uint16_t, sizeof...(Ids)> ids{Ids...};
  std::sort(ids.begin(), ids.end());
  return std::adjacent_find(ids.begin(), ids.end()) == ids.end();
}

template <class T>
struct IsArray : std::false_type {};
template <class T, size_t N>
struct IsArray<std::array<T, N>> : std::true_type {};

template <class T>
struct IsBytes : std::false_type {};
template <size_t N>
struct IsBytes<Bytes<N>> : std::true_type {};

inline void put(Buffer& out, uint64_t value, size_t size) {
  for (size_t i = 0; i < size; ++i) out.push_back(static_cast<uint8_t>(value >> (8 * i)));
}

inline uint64_t get(std::span<const uint8_t> in) {
  uint64_t value = 0;
  for (size_t i = 0; i < in.size() && i < 8; ++i) value |= uint64_t{in[i]} << (8 * i);
  return value;
}

}  // namespace detail

template <class State, class... Rows>
constexpr std::tuple<Rows...> table(Rows... rows) {
  static_assert(std::is_aggregate_v<State>, "a State is a plain struct");
  static_assert(detail::member_count<State>() == sizeof...(Rows), "every member of a State needs exactly one row");
  static_assert(detail::ids_are_unique<Rows::id...>(), "field ids are unique");
  return {rows...};
}

template <class T>
void save_value(const T& value, Buffer& out);

template <HasFields State>
void save(const State& state, Buffer& out) {
  std::apply(
      [&](const auto&... row) {
        (
            [&] {
              detail::put(out, row.id, 2);
              const size_t size_at = out.size();
              detail::put(out, 0, 4);
              save_value(state.*row.member, out);
              const uint64_t size = out.size() - size_at - 4;
              for (size_t i = 0; i < 4; ++i) out[size_at + i] = static_cast<uint8_t>(size >> (8 * i));
            }(),
            ...);
      },
      State::fields());
}

template <class T>
void save_value(const T& value, Buffer& out) {
  if constexpr (HasFields<T>) {
    Buffer inner;
    save(value, inner);
    detail::put(out, inner.size(), 4);
    out.insert(out.end(), inner.begin(), inner.end());
  } else if constexpr (detail::IsArray<T>::value) {
    for (const auto& element : value) save_value(element, out);
  } else if constexpr (detail::IsBytes<T>::value) {
    detail::put(out, value.data.size(), 4);
    out.insert(out.end(), value.data.begin(), value.data.end());
  } else {
    static_assert(std::is_integral_v<T> || std::is_enum_v<T>, "a State member of a kind that cannot be saved");
    detail::put(out, static_cast<uint64_t>(value), sizeof(T));
  }
}

template <HasFields State>
[[nodiscard]] Result<> restore(State& state, std::span<const uint8_t> in);

// Takes its bytes from the front of `in`.
template <class T>
[[nodiscard]] Result<> restore_value(T& value, std::span<const uint8_t>& in, std::string_view name) {
  const auto take = [&](size_t size) {
    const auto front = in.subspan(0, size);
    in = in.subspan(size);
    return front;
  };
  if constexpr (HasFields<T> || detail::IsBytes<T>::value) {
    if (in.size() < 4) return fail("saved field {} is cut short", name);
    const uint64_t size = detail::get(take(4));
    if (size > in.size()) return fail("saved field {} claims {} bytes where {} are left", name, size, in.size());
    if constexpr (HasFields<T>) {
      return restore(value, take(size));
    } else {
      if (size > T::max) return fail("saved field {} has {} bytes, at most {} are allowed", name, size, T::max);
      const auto bytes = take(size);
      value.data.assign(bytes.begin(), bytes.end());
      return {};
    }
  } else if constexpr (detail::IsArray<T>::value) {
    for (auto& element : value) {
      if (auto done = restore_value(element, in, name); !done) return done;
    }
    return {};
  } else {
    if (in.size() < sizeof(T)) return fail("saved field {} is cut short", name);
    const uint64_t raw = detail::get(take(sizeof(T)));
    if constexpr (std::is_same_v<T, bool>) {
      if (raw > 1) return fail("saved field {} has the value {}, a flag is 0 or 1", name, raw);
    }
    value = static_cast<T>(raw);
    return {};
  }
}

template <HasFields State>
Result<> restore(State& state, std::span<const uint8_t> in) {
  while (!in.empty()) {
    if (in.size() < 6) return fail("saved state is cut short");
    const uint16_t id = static_cast<uint16_t>(detail::get(in.subspan(0, 2)));
    const uint64_t size = detail::get(in.subspan(2, 4));
    if (size > in.size() - 6) return fail("saved field {} claims {} bytes where {} are left", id, size, in.size() - 6);
    auto body = in.subspan(6, size);
    in = in.subspan(6 + size);
    Result<> done = fail("saved state has an unknown field {}; it comes from a newer version", id);
    std::apply(
        [&](const auto&... row) {
          (
              [&] {
                if (row.id != id) return;
                done = restore_value(state.*row.member, body, row.name);
                if (done && !body.empty()) done = fail("saved field {} is too long", row.name);
              }(),
              ...);
        },
        State::fields());
    if (!done) return done;
  }
  return {};
}

// Names of the members (dotted when nested) in which two states differ.
template <HasFields State>
[[nodiscard]] std::vector<std::string> diff(const State& a, const State& b) {
  std::vector<std::string> names;
  std::apply(
      [&](const auto&... row) {
        (
            [&] {
              const auto& left = a.*row.member;
              const auto& right = b.*row.member;
              if constexpr (HasFields<std::remove_cvref_t<decltype(left)>>) {
                for (const auto& inner : diff(left, right)) names.push_back(std::string{row.name} + "." + inner);
              } else {
                Buffer left_bytes, right_bytes;
                save_value(left, left_bytes);
                save_value(right, right_bytes);
                if (left_bytes != right_bytes) names.emplace_back(row.name);
              }
            }(),
            ...);
      },
      State::fields());
  return names;
}

// Changes every leaf of a state (for the generic round-trip test).
template <class T>
void perturb(T& value) {
  if constexpr (HasFields<T>) {
    std::apply([&](const auto&... row) { (perturb(value.*row.member), ...); }, T::fields());
  } else if constexpr (detail::IsArray<T>::value) {
    for (auto& element : value) perturb(element);
  } else if constexpr (detail::IsBytes<T>::value) {
    value.data.push_back(0xa5);
  } else if constexpr (std::is_same_v<T, bool>) {
    value = !value;
  } else {
    value = static_cast<T>(static_cast<uint64_t>(value) ^ 1);
  }
}

}  // namespace caisson::fields
