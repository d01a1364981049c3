#include "control/messages.h"

#include "control/messages_table.h"

namespace caisson::control {

namespace {

void make_plain(std::string& text) {
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  }
  if (text.size() > max_line) text.resize(max_line);
}

// Free text that a person may have to read is made fit for a line rather than refused.
template <class T>
void make_plain_texts(T& message) {
  if constexpr (requires { make_plain(message.text); }) make_plain(message.text);
  if constexpr (std::is_same_v<T, Exited>) make_plain(message.message);
  if constexpr (requires { make_plain(message.device); }) make_plain(message.device);
  if constexpr (requires { message.engine_reason; }) make_plain(message.engine_reason);
}

template <class Variant>
std::string serialise_message(const Variant& message) {
  return std::visit(
      [](auto plain) {
        make_plain_texts(plain);
        Json json = to_json(plain);
        json["type"] = std::string{TypeName<decltype(plain)>::value};
        return dump_json(json);
      },
      message);
}

template <class Variant, size_t I = 0>
Result<Variant> parse_as(const Json& json, const std::string& type) {
  if constexpr (I == std::variant_size_v<Variant>) {
    return fail("unknown message type");
  } else {
    using T = std::variant_alternative_t<I, Variant>;
    if (type != TypeName<T>::value) return parse_as<Variant, I + 1>(json, type);
    T message;
    if (auto ok = from_json(json, message); !ok) return with_context(TypeName<T>::value, ok.error());
    make_plain_texts(message);
    if (auto ok = check_bounds(message); !ok) return with_context(TypeName<T>::value, ok.error());
    return message;
  }
}

template <class Variant>
Result<Variant> parse_message(std::string_view text) {
  auto json = parse_json(text);
  if (!json) return with_context("control message", json.error());
  if (!json->is_object()) return fail("control message: not a JSON object");
  const auto type = json->find("type");
  if (type == json->end() || !type->is_string()) return fail("control message: no type");
  const std::string name = type->template get_ref<const std::string&>();
  json->erase("type");
  auto message = parse_as<Variant>(*json, name);
  if (!message) return with_context("control message", message.error());
  return message;
}

}  // namespace

std::string serialise(const Request& request) { return serialise_message(request); }
std::string serialise(const Event& event) { return serialise_message(event); }
std::string serialise(const Event& event, uint64_t at_ms) {
  return fmt::format("{{\"at\":{},{}", at_ms, serialise_message(event).substr(1));
}

Result<Request> parse_request(std::string_view text, size_t descriptors) {
  auto request = parse_message<Request>(text);
  if (!request) return request;
  if (const auto* start = std::get_if<Start>(&*request)) {
    if (auto ok = start->config.validate(descriptors); !ok) return with_context("control message", ok.error());
  } else if (const auto* attach = std::get_if<AttachDisk>(&*request)) {
    if (auto ok = attach->disk.validate(descriptors); !ok) return with_context("control message", ok.error());
  } else if (std::holds_alternative<Screenshot>(*request)) {
    if (descriptors != 1) return fail("control message: screenshot comes with one descriptor");
  } else if (descriptors != 0) {
    return fail("control message: descriptors came with a message that takes none");
  }
  return request;
}

Result<Event> parse_event(std::string_view text) { return parse_message<Event>(text); }

}  // namespace caisson::control
