// For tests: whether JSON is what a schema of ours says. Of JSON Schema it knows what schemas() uses; another word in a
// schema fails.
//   Threads  pure functions
#pragma once

#include <algorithm>
#include <set>
#include <string>

#include "api/routes.h"

namespace caisson::api {

// Empty where it is; else where and why it is not.
inline std::string mismatch(const control::Json& value, const control::Json& schema, const std::string& at = "") {
  static const std::set<std::string> known{
      "type",     "properties", "required",  "items",     "enum", "additionalProperties", "minimum", "maximum",
      "maxItems", "minItems",   "minLength", "maxLength", "$ref"};
  for (const auto& [word, unused] : schema.items()) {
    if (!known.contains(word)) return at + ": the schema has " + word;
  }
  if (schema.contains("$ref")) {
    const auto name = schema["$ref"].get<std::string>();
    return mismatch(value, schemas().at(name.substr(name.rfind('/') + 1)), at);
  }
  const auto type = schema.value("type", "");
  const bool fits = type == "object"    ? value.is_object()
                    : type == "array"   ? value.is_array()
                    : type == "string"  ? value.is_string()
                    : type == "boolean" ? value.is_boolean()
                    : type == "integer" ? value.is_number_integer()
                                        : false;
  if (!fits) return at + ": is not of type " + type;
  if (schema.contains("enum") && std::ranges::find(schema["enum"], value) == schema["enum"].end()) {
    return at + ": is none of the values";
  }
  if (schema.contains("minimum") && value < schema["minimum"]) return at + ": is too small";
  if (schema.contains("maximum") && value > schema["maximum"]) return at + ": is too large";
  const size_t size = value.is_string() ? value.get_ref<const std::string&>().size() : value.size();
  if (schema.contains("minLength") && size < schema["minLength"].get<size_t>()) return at + ": is too short";
  if (schema.contains("maxLength") && size > schema["maxLength"].get<size_t>()) return at + ": is too long";
  if (schema.contains("minItems") && size < schema["minItems"].get<size_t>()) return at + ": has too few";
  if (schema.contains("maxItems") && size > schema["maxItems"].get<size_t>()) return at + ": has too many";
  if (value.is_array()) {
    for (const auto& item : value) {
      if (auto wrong = mismatch(item, schema["items"], at + "[]"); !wrong.empty()) return wrong;
    }
  }
  if (!value.is_object()) return "";
  for (const auto& name : schema.value("required", control::Json::array())) {
    if (!value.contains(name.get<std::string>())) return at + "/" + name.get<std::string>() + ": is missing";
  }
  if (!schema.contains("properties")) return "";
  for (const auto& [name, item] : value.items()) {
    if (!schema["properties"].contains(name)) return at + "/" + name + ": is not in the schema";
    if (auto wrong = mismatch(item, schema["properties"][name], at + "/" + name); !wrong.empty()) return wrong;
  }
  return "";
}

// The same of an answer to a request for this route.
inline std::string mismatch(const Route* route, unsigned status, const std::string& type, const std::string& body) {
  if (status >= 500) return "status " + std::to_string(status) + ": " + body;
  if (status >= 400) {
    if (type != "application/problem+json") return "a refusal of type " + type;
    const auto json = control::parse_json(body);
    if (!json || (*json)["status"] != status) return "a refusal that does not say its status: " + body;
    return mismatch(*json, schemas().at("Problem"));
  }
  if (route == nullptr) return "an answer without a route";
  const bool may_be_dry = std::ranges::any_of(route->query, [](const auto& one) { return one.name == "dry_run"; });
  if (may_be_dry && status == 200) {
    const auto said = control::parse_json(body);
    if (said && mismatch(*said, schemas().at("DryRun")).empty()) return "";
  }
  if (status != route->status) return "status " + std::to_string(status) + " is not the route's";
  if (route->answer.empty()) return status == 204 && !body.empty() ? "a body with status 204" : "";
  if (type != route->type) return "an answer of type " + type;
  const auto json = control::parse_json(body);
  return json ? mismatch(*json, schemas().at(std::string{route->answer})) : "not JSON: " + body;
}

}  // namespace caisson::api
