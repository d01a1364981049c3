// Requests made from the OpenAPI document, by whoever: no 5xx, every answer as the document says, and who may not
// change anything has not. The first byte says who asks; the rest are the generator's decisions.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <optional>
#include <string>

#include <unistd.h>

#include "api/api.h"
#include "api/generate.h"
#include "api/schema_check.h"
#include "api/store_image.h"
#include "base/check.h"

using namespace caisson;

namespace {

// A store of its own. No program stands beside the fuzzer, so nothing is started or built.
struct Host {
  std::string folder = "/tmp/caisson-api-fuzz-XXXXXX";
  std::optional<api::Audit> audit;
  std::optional<api::Api> api;
  control::Json document;

  Host() {
    if (::mkdtemp(folder.data()) == nullptr) std::abort();
    for (const char* variable : {"XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"}) {
      ::setenv(variable, (folder + "/home").c_str(), 1);
    }
    std::ofstream{folder + "/kernel"} << "no kernel";
    auto opened = api::Audit::open(folder + "/audit.log");
    if (!opened) std::abort();
    audit.emplace(std::move(*opened));
    api.emplace(*audit);
    const api::Caller admin{"fuzzer", api::Role::Admin};
    document = control::Json::parse(api->handle({"GET", "/v1/openapi.json", "", ""}, admin).body);
    for (const char* name : {"one", "two"}) {
      const control::Json body{{"name", name}, {"kernel", folder + "/kernel"}};
      (void)api->handle({"POST", "/v1/machines", "application/json", body.dump()}, admin);
    }
  }
};

// Two bytes of input at a time, spread over 64 bits (the finaliser of splitmix64); then a counter goes on.
struct Decisions {
  const uint8_t* data;
  size_t size;
  uint64_t count = 0;
  uint64_t operator()() {
    uint64_t value = 0x9e3779b97f4a7c15 * ++count;
    if (size >= 2) {
      value = data[0] | data[1] << 8;
      data += 2;
      size -= 2;
    }
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9;
    value = (value ^ value >> 27) * 0x94d049bb133111eb;
    return value ^ value >> 31;
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Host host;
  if (size == 0) return 0;
  constexpr size_t nobody = 3;
  const size_t who = data[0] % 4;
  const auto caller = who == nobody ? std::nullopt : std::optional{api::Caller{"fuzzer", static_cast<api::Role>(who)}};
  api::Generator generator{host.document,
                           {"one", "two", "three", host.folder + "/kernel", "mine", "raw", "qcow2", "", "1", "host",
                            "auto", "../x", "127.0.0.1", "quiet", "debian:12"},
                           {{"name", {"one", "two", "three"}},
                            {"kernel", {host.folder + "/kernel"}},
                            {"file", {host.folder + "/kernel"}},
                            {"image", {"debian:12", "mine"}},
                            {"memory_bytes", {64 << 20, 128 << 20}}},
                           Decisions{data + 1, size - 1}};
  const bool may_change = caller && caller->role != api::Role::Viewer;
  const auto before = may_change ? std::map<std::string, std::string>{} : api::image_of(host.folder + "/home");
  for (int count = 0; count < 8; ++count) {
    const api::Request request = generator.next();
    const auto target = api::parse_target(request.target);
    const api::Found found = target ? api::find_route(request.method, target->path) : api::Found{};
    // Streams are the daemon's.
    if (found.route != nullptr && api::is_stream(found.route->kind)) continue;
    const api::Answer answer = host.api->handle(request, caller);
    CAISSON_CHECK(answer.status < 500);
    CAISSON_CHECK(api::mismatch(found.route, answer.status, answer.type, answer.body).empty());
  }
  if (!may_change) CAISSON_CHECK(api::image_of(host.folder + "/home") == before);
  return 0;
}
