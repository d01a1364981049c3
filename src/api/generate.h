// For tests: requests made from the OpenAPI document alone, as it says and in every way not as it says.
//   Seeded   the same seed, or the same bytes of a fuzzer, gives the same requests
//   Threads  one object, one thread
#pragma once

#include <algorithm>
#include <array>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "api/http.h"
#include "control/json_fields.h"

namespace caisson::api {

class Generator {
 public:
  using Json = control::Json;

  using Hints = std::map<std::string, std::vector<Json>>;

  // `words`: what strings are often made of. `hints`: good values of what has that name, in a path or a body; without
  // them hardly a request would be granted.
  Generator(Json document, std::vector<std::string> words, Hints hints, uint64_t seed)
      : Generator(std::move(document), std::move(words), std::move(hints), std::mt19937_64{seed}) {}
  // `random`: 64 bits at each call, for ever.
  Generator(Json document, std::vector<std::string> words, Hints hints, std::function<uint64_t()> random)
      : document_(std::move(document)), words_(std::move(words)), hints_(std::move(hints)), random_(std::move(random)) {
    for (const auto& [path, methods] : document_["paths"].items()) {
      for (const auto& [method, operation] : methods.items()) operations_.push_back({path, method, operation});
    }
  }

  Request next() {
    const Operation& chosen = operations_[below(operations_.size())];
    plain_ = one_in(2);
    Request request;
    request.method = one_in(40) ? pick({"PUT", "HEAD", "OPTIONS", "TRACE", "get", "X"}) : upper(chosen.method);
    request.target = path_of(chosen);
    if (!chosen.operation.contains("requestBody")) {
      if (one_in(20)) request.body = "{}";
      return request;
    }
    if (!plain_ && one_in(10)) return request;
    const Json& content = chosen.operation["requestBody"]["content"];
    if (!content.contains("application/json")) {
      request.content_type = content.begin().key();
      request.body = text(6000);
      return request;
    }
    const Json& schema = content["application/json"]["schema"];
    Json body = value(schema, 0);
    if (!plain_ && one_in(3)) spoil(body);
    request.content_type = !plain_ && one_in(30) ? pick({"text/plain", "", "application/jsonx", "multipart/form-data"})
                                                 : "application/json";
    request.body = body.dump(-1, ' ', false, Json::error_handler_t::replace);
    if (!plain_ && one_in(20)) damage(request.body);
    return request;
  }

 private:
  struct Operation {
    std::string path;
    std::string method;
    Json operation;
  };

  size_t below(size_t count) { return static_cast<size_t>(random_() % count); }
  bool one_in(size_t count) { return below(count) == 0; }
  std::string pick(std::vector<std::string> from) { return from[below(from.size())]; }
  static std::string upper(std::string text) {
    for (char& c : text) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    return text;
  }

  std::string text(size_t most) {
    if (!one_in(4)) return words_[below(words_.size())].substr(0, most);
    std::string out;
    const size_t size = below(one_in(10) ? 6000 : 20);
    for (size_t i = 0; i < size; ++i) out += static_cast<char>(one_in(10) ? below(256) : 0x20 + below(0x5f));
    if (out.starts_with('/')) out[0] = '_';  // no files but those of the test
    return out;
  }

  uint64_t number(uint64_t least, uint64_t most) {
    switch (below(5)) {
      case 0: return least;
      case 1: return most;
      case 2: return random_();
      default: return most - least == ~uint64_t{0} ? random_() : least + random_() % (most - least + 1);
    }
  }

  Json value(const Json& schema, unsigned depth) {
    if (schema.contains("$ref")) {
      const auto name = schema["$ref"].get<std::string>();
      return value(document_["components"]["schemas"][name.substr(name.rfind('/') + 1)], depth);
    }
    if (schema.contains("enum")) return schema["enum"][below(schema["enum"].size())];
    const auto type = schema.value("type", "");
    if (type == "boolean") return one_in(2);
    if (type == "integer") return number(schema.value("minimum", uint64_t{0}), schema.value("maximum", ~uint64_t{0}));
    if (type == "string") return text(schema.value("maxLength", size_t{100}));
    if (type == "array") {
      Json list = Json::array();
      for (size_t left = below(4); left > 0 && depth < 4; --left) list.push_back(value(schema["items"], depth + 1));
      return list;
    }
    Json object = Json::object();
    const auto required = schema.value("required", Json::array());
    // Named, because items() only refers to it.
    const auto properties = schema.value("properties", Json::object());
    for (const auto& [name, item] : properties.items()) {
      const bool needed = std::find(required.begin(), required.end(), name) != required.end();
      const auto hint = hints_.find(name);
      const bool wanted = plain_ ? needed || hint != hints_.end() : needed ? !one_in(15) : one_in(4);
      if (!wanted) continue;
      const bool good = hint != hints_.end() && (plain_ || !one_in(4));
      object[name] = good ? hint->second[below(hint->second.size())] : value(item, depth + 1);
    }
    return object;
  }

  // Somewhere another type, or a key too many.
  void spoil(Json& json) {
    if ((json.is_object() || json.is_array()) && !json.empty() && !one_in(4)) {
      auto at = json.begin();
      std::advance(at, static_cast<std::ptrdiff_t>(below(json.size())));
      return spoil(*at);
    }
    if (json.is_object() && one_in(2)) {
      json[text(64)] = 1;
      return;
    }
    const std::array<Json, 9> others{Json{},        Json(true),     Json(-1),           Json(1e300), Json("x"),
                                     Json::array(), Json::object(), Json(~uint64_t{0}), Json(0.5)};
    json = others[below(others.size())];
  }

  // Bytes that are no JSON.
  void damage(std::string& body) {
    switch (below(4)) {
      case 0: body.resize(below(body.size() + 1)); break;
      case 1: body.insert(below(body.size() + 1), 1, static_cast<char>(below(256))); break;
      case 2: body = std::string(1 + below(3000), "[{\""[below(3)]); break;
      default: body += body; break;
    }
  }

  std::string escaped(const std::string& raw) {
    std::string out;
    for (const char c : raw) {
      const bool plain = std::isalnum(static_cast<unsigned char>(c)) != 0 ||
                         std::string_view{"-._~:"}.find(c) != std::string_view::npos;
      constexpr std::string_view digits = "0123456789abcdef";
      const auto byte = static_cast<unsigned char>(c);
      if (plain) {
        out += c;
      } else {
        out += '%';
        out += digits[byte >> 4];
        out += digits[byte & 15];
      }
    }
    return out;
  }

  std::string path_of(const Operation& chosen) {
    std::string path;
    for (size_t at = 0; at < chosen.path.size(); ++at) {
      if (chosen.path[at] != '{') {
        path += chosen.path[at];
        continue;
      }
      const size_t end = chosen.path.find('}', at);
      const auto hint = hints_.find(chosen.path.substr(at + 1, end - at - 1));
      at = end;
      const bool good = hint != hints_.end() && (plain_ || one_in(2));
      path +=
          escaped(good ? hint->second[below(hint->second.size())].get<std::string>() : text(one_in(20) ? 1000 : 40));
    }
    char separator = '?';
    for (const Json& one : chosen.operation["parameters"]) {
      if (one["in"] != "query" || (one["required"] == true ? one_in(10) : one_in(2))) continue;
      const Json given = value(one["schema"], 0);
      const bool free = given.is_string() || one_in(5);
      path += separator + one["name"].get<std::string>() + "=" + (free ? escaped(text(40)) : given.dump());
      separator = '&';
    }
    if (one_in(30)) path += separator + escaped(text(20)) + "=1";
    if (one_in(60)) path += pick({"/", "%", "%4", "//x", "?&=&", "/..", "#x"});
    return path;
  }

  Json document_;
  std::vector<std::string> words_;
  Hints hints_;
  bool plain_ = false;  // this request is meant to be granted
  std::function<uint64_t()> random_;
  std::vector<Operation> operations_;
};

}  // namespace caisson::api
