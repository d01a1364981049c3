#include "control/messages.h"

#include <array>

#include "control/vm_config_table.h"

namespace caisson::control {

template <>
struct EnumNames<ExitReason> {
  static constexpr std::array<std::string_view, 6> names{"power_off",  "panic",   "reset",
                                                         "debug_exit", "stopped", "failure"};
};

template <>
struct EnumNames<RunState> {
  static constexpr std::array<std::string_view, 2> names{"running", "paused"};
};

template <class T>
struct TypeName;

#define CAISSON_MESSAGE(type, name)                 \
  template <>                                       \
  struct TypeName<type> {                           \
    static constexpr std::string_view value = name; \
  };
CAISSON_MESSAGE(Start, "start")
CAISSON_MESSAGE(PowerButton, "power_button")
CAISSON_MESSAGE(Reset, "reset")
CAISSON_MESSAGE(Stop, "stop")
CAISSON_MESSAGE(Resize, "resize")
CAISSON_MESSAGE(Screenshot, "screenshot")
CAISSON_MESSAGE(Type, "type")
CAISSON_MESSAGE(Pause, "pause")
CAISSON_MESSAGE(Resume, "resume")
CAISSON_MESSAGE(Query, "query")
CAISSON_MESSAGE(Watch, "watch")
CAISSON_MESSAGE(Attach, "attach")
CAISSON_MESSAGE(Started, "started")
CAISSON_MESSAGE(Notice, "notice")
CAISSON_MESSAGE(Panicked, "panicked")
CAISSON_MESSAGE(WasReset, "was_reset")
CAISSON_MESSAGE(Profiled, "profile")
CAISSON_MESSAGE(Paused, "paused")
CAISSON_MESSAGE(Resumed, "resumed")
CAISSON_MESSAGE(Exited, "exited")
CAISSON_MESSAGE(Done, "done")
CAISSON_MESSAGE(Refused, "refused")
CAISSON_MESSAGE(Attached, "attached")
CAISSON_MESSAGE(Status, "status")
#undef CAISSON_MESSAGE

template <class T>
requires std::is_empty_v<T>
struct JsonTable<T> {
  static constexpr auto fields() { return std::tuple<>{}; }
};
template <>
struct JsonTable<Start> {
  static constexpr auto fields() { return std::tuple{key("config", &Start::config, {}, true)}; }
};
template <>
struct JsonTable<Resize> {
  static constexpr auto fields() {
    return std::tuple{key("columns", &Resize::columns, {1, 10000}, true), key("rows", &Resize::rows, {1, 10000}, true)};
  }
};
constexpr uint64_t max_line = 4096;
template <>
struct JsonTable<Screenshot> {
  static constexpr auto fields() { return std::tuple{key("text", &Screenshot::text)}; }
};
template <>
struct JsonTable<Type> {
  static constexpr auto fields() { return std::tuple{key("text", &Type::text, {1, Type::max_text}, true)}; }
};
template <>
struct JsonTable<Started> {
  static constexpr auto fields() {
    return std::tuple{key("engine", &Started::engine, {1, 32}, true),
                      key("cpu_model", &Started::cpu_model, {1, 32}, true),
                      key("cpus", &Started::cpus, {1, VmConfig::max_cpus}, true),
                      key("memory_bytes", &Started::memory_bytes, {}, true),
                      key("engine_reason", &Started::engine_reason, {0, max_line})};
  }
};
template <>
struct JsonTable<Notice> {
  static constexpr auto fields() { return std::tuple{key("text", &Notice::text, {0, max_line}, true)}; }
};
template <>
struct JsonTable<Panicked> {
  static constexpr auto fields() { return std::tuple{key("text", &Panicked::text, {0, max_line})}; }
};
template <>
struct JsonTable<WasReset> {
  static constexpr auto fields() { return std::tuple{key("count", &WasReset::count)}; }
};
template <>
struct JsonTable<ProfileRow> {
  static constexpr auto fields() {
    return std::tuple{key("group", &ProfileRow::group, {1, 32}, true), key("name", &ProfileRow::name, {1, 96}, true),
                      key("value", &ProfileRow::value, {}, true)};
  }
};
template <>
struct JsonTable<Profiled> {
  static constexpr auto fields() { return std::tuple{key("rows", &Profiled::rows, {0, Profiled::max_rows}, true)}; }
};
template <>
struct JsonTable<Exited> {
  static constexpr auto fields() {
    return std::tuple{key("reason", &Exited::reason, {}, true), key("code", &Exited::code, {0, 255}),
                      key("message", &Exited::message, {0, max_line})};
  }
};
template <>
struct JsonTable<Attach> {
  static constexpr auto fields() { return std::tuple{key("replay", &Attach::replay, {0, Attach::max_replay})}; }
};
template <>
struct JsonTable<Refused> {
  static constexpr auto fields() { return std::tuple{key("text", &Refused::text, {0, max_line}, true)}; }
};
template <>
struct JsonTable<Status> {
  static constexpr auto fields() {
    return std::tuple{key("state", &Status::state, {}, true),
                      key("engine", &Status::engine, {0, 32}),
                      key("engine_reason", &Status::engine_reason, {0, max_line}),
                      key("cpu_model", &Status::cpu_model, {0, 32}),
                      key("cpus", &Status::cpus, {0, VmConfig::max_cpus}),
                      key("memory_bytes", &Status::memory_bytes),
                      key("started_ms", &Status::started_ms),
                      key("resets", &Status::resets),
                      key("consoles", &Status::consoles),
                      key("forwards", &Status::forwards, {0, VmConfig::max_forwards})};
  }
};

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
  } else if (std::holds_alternative<Screenshot>(*request)) {
    if (descriptors != 1) return fail("control message: screenshot comes with one descriptor");
  } else if (descriptors != 0) {
    return fail("control message: descriptors came with a message that takes none");
  }
  return request;
}

Result<Event> parse_event(std::string_view text) { return parse_message<Event>(text); }

}  // namespace caisson::control
