// JSON Schema (draft 2020-12) of what the tables of json_fields.h take, for descriptions of an interface.
//   Strings  their bounds are bytes here and characters in JSON Schema: who keeps to ASCII keeps both
//   Threads  pure functions
// Included by the .cpp files of api/ only.
#pragma once

#include "control/json_fields.h"

namespace caisson::control {

template <HasTable T>
[[nodiscard]] Json schema_of();

template <class T>
[[nodiscard]] Json schema_of_value(const Bounds& bounds) {
  if constexpr (HasTable<T>) {
    return schema_of<T>();
  } else if constexpr (std::is_enum_v<T>) {
    Json names = Json::array();
    for (const std::string_view name : EnumNames<T>::names) names.push_back(std::string{name});
    return {{"type", "string"}, {"enum", names}};
  } else if constexpr (std::is_same_v<T, std::string>) {
    Json schema{{"type", "string"}};
    if (bounds.least > 0) schema["minLength"] = bounds.least;
    if (bounds.most != Bounds{}.most) schema["maxLength"] = bounds.most;
    return schema;
  } else if constexpr (std::is_same_v<T, bool>) {
    return {{"type", "boolean"}};
  } else if constexpr (detail::Kind<T>::optional) {
    return schema_of_value<typename T::value_type>(bounds);
  } else if constexpr (detail::Kind<T>::vector) {
    Json schema{{"type", "array"},
                {"items", schema_of_value<typename T::value_type>(Bounds{1, bounds.element_most, 0})}};
    if (bounds.most != Bounds{}.most) schema["maxItems"] = bounds.most;
    if (bounds.least > 0) schema["minItems"] = bounds.least;
    return schema;
  } else {
    return {{"type", "integer"},
            {"minimum", bounds.least},
            {"maximum", std::min<uint64_t>(bounds.most, std::numeric_limits<T>::max())}};
  }
}

template <HasTable T>
Json schema_of() {
  Json properties = Json::object();
  Json required = Json::array();
  std::apply(
      [&](const auto&... row) {
        (
            [&] {
              using Member = std::remove_cvref_t<decltype(std::declval<T>().*row.member)>;
              properties[std::string{row.name}] = schema_of_value<Member>(row.bounds);
              if (row.required) required.push_back(std::string{row.name});
            }(),
            ...);
      },
      JsonTable<T>::fields());
  Json schema{{"type", "object"}, {"properties", properties}, {"additionalProperties", false}};
  if (!required.empty()) schema["required"] = required;
  return schema;
}

}  // namespace caisson::control
