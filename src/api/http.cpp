#include "api/http.h"

#include <algorithm>

#include "control/json_fields.h"

namespace caisson::api {
namespace {

int digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// RFC 3986, 2.1; what is not printable afterwards is refused, so that it can be shown and logged.
Result<std::string> decoded(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '%') {
      const int high = i + 2 < text.size() ? digit(text[i + 1]) : -1;
      const int low = i + 2 < text.size() ? digit(text[i + 2]) : -1;
      if (high < 0 || low < 0) return fail("the address has a % without two hexadecimal digits");
      c = static_cast<char>(high * 16 + low);
      i += 2;
    }
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte >= 0x7f) return fail("the address has characters that are not printable ASCII");
    out += c;
  }
  return out;
}

}  // namespace

std::string_view title_of(unsigned status) {
  switch (status) {
    case 400: return "Bad request";
    case 401: return "Not authenticated";
    case 403: return "Not allowed";
    case 404: return "Not found";
    case 405: return "Method not allowed";
    case 408: return "Too slow";
    case 409: return "Conflict";
    case 413: return "Body too large";
    case 415: return "Not JSON";
    case 422: return "Not acceptable";
    case 426: return "Upgrade required";
    case 429: return "Too many";
    case 431: return "Header too large";
    default: return "Error";
  }
}

Answer problem(unsigned status, std::string_view detail) {
  const control::Json json{
      {"title", std::string{title_of(status)}}, {"detail", std::string{detail}}, {"status", status}};
  return {status, control::dump_json(json) + "\n", "application/problem+json", {}};
}

Result<Target> parse_target(std::string_view text) {
  if (!text.starts_with('/')) return fail("the address has no path");
  if (text.find('#') != std::string_view::npos) return fail("the address has a fragment");
  Target target;
  const size_t mark = std::min(text.find('?'), text.size());
  std::string_view path = text.substr(1, mark - 1);
  for (size_t start = 0; start <= path.size();) {
    const size_t end = std::min(path.find('/', start), path.size());
    auto part = decoded(path.substr(start, end - start));
    if (!part) return std::unexpected(part.error());
    target.path.push_back(std::move(*part));
    start = end + 1;
  }
  if (mark == text.size()) return target;
  const std::string_view query = text.substr(mark + 1);
  for (size_t start = 0; start < query.size();) {
    const size_t end = std::min(query.find('&', start), query.size());
    const std::string_view pair = query.substr(start, end - start);
    const size_t equals = std::min(pair.find('='), pair.size());
    auto name = decoded(pair.substr(0, equals));
    if (!name) return std::unexpected(name.error());
    auto value = decoded(pair.substr(std::min(equals + 1, pair.size())));
    if (!value) return std::unexpected(value.error());
    if (target.query.contains(*name)) return fail("the parameter {} is there twice", *name);
    target.query[*name] = std::move(*value);
    start = end + 1;
  }
  return target;
}

size_t json_depth(std::string_view text) {
  size_t depth = 0;
  size_t deepest = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      in_string = c != '"';
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      deepest = std::max(deepest, ++depth);
    } else if ((c == ']' || c == '}') && depth > 0) {
      --depth;
    }
  }
  return deepest;
}

}  // namespace caisson::api
