#include "api/api.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "api/bodies.h"
#include "api/generate.h"
#include "api/schema_check.h"
#include "api/store_image.h"
#include "life/feed.h"
#include "life/machines.h"
#include "store/files.h"

namespace caisson::api {
namespace {

using control::Json;

class InStore : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "caisson-api-XXXXXX";
    folder_ = ::mkdtemp(pattern.data());
    ::setenv("XDG_DATA_HOME", folder_.c_str(), 1);
    ::setenv("XDG_CACHE_HOME", folder_.c_str(), 1);
    std::ofstream{kernel()} << "no kernel";
    auto audit = Audit::open(folder_ + "/audit.log");
    ASSERT_TRUE(audit);
    audit_.emplace(std::move(*audit));
    api_.emplace(*audit_);
  }
  void TearDown() override {
    api_.reset();
    std::filesystem::remove_all(folder_);
    ::unsetenv("XDG_DATA_HOME");
    ::unsetenv("XDG_CACHE_HOME");
  }
  [[nodiscard]] std::string kernel() const { return folder_ + "/kernel"; }

  // Checked against the route's schemas, whatever comes.
  Answer ask(std::optional<Role> role, const std::string& method, const std::string& target, const Json& body = {}) {
    Request request{method, target, body.is_null() ? "" : "application/json", body.is_null() ? "" : body.dump()};
    return ask(role, request);
  }
  Answer ask(std::optional<Role> role, const Request& request) {
    const auto caller = role ? std::optional{Caller{"test", *role}} : std::nullopt;
    Answer answer = api_->handle(request, caller);
    const auto target = parse_target(request.target);
    const Found found = target ? find_route(request.method, target->path) : Found{};
    EXPECT_EQ(mismatch(found.route, answer.status, answer.type, answer.body), "")
        << request.method << " " << request.target;
    return answer;
  }
  unsigned status(const std::string& method, const std::string& target, const Json& body = {}) {
    return ask(Role::Admin, method, target, body).status;
  }
  Json make(const std::string& name) {
    const Answer answer = ask(Role::Admin, "POST", "/v1/machines", {{"name", name}, {"kernel", kernel()}});
    EXPECT_EQ(answer.status, 201u) << answer.body;
    return Json::parse(answer.body);
  }
  std::vector<Json> record() {
    std::vector<Json> lines;
    std::ifstream file{folder_ + "/audit.log"};
    for (std::string line; std::getline(file, line);) lines.push_back(Json::parse(line));
    return lines;
  }

  std::string folder_;
  std::optional<Audit> audit_;
  std::optional<Api> api_;
};
using ApiTest = InStore;

// The path of a route with its words filled in.
std::string filled(const Route& route) {
  std::string path{route.path};
  for (const auto& [word, value] : {std::pair{"{name}", "one"}, {"{image}", "debian:12"}, {"{id}", "7"}}) {
    if (const size_t at = path.find(word); at != std::string::npos) path.replace(at, std::string{word}.size(), value);
  }
  for (const Parameter& one : route.query) {
    if (one.required) path += "?" + std::string{one.name} + "=/tmp/x";
  }
  return path;
}

TEST_F(ApiTest, EveryRouteKeepsToItsRole) {
  for (const Route& route : routes()) {
    EXPECT_EQ(ask(std::nullopt, std::string{route.method}, filled(route)).status, 401u) << route.id;
    for (const Role role : {Role::Viewer, Role::Operator, Role::Admin}) {
      Request request{std::string{route.method}, filled(route), "", ""};
      const auto admitted = api_->admit(request, Caller{"test", role});
      EXPECT_EQ(admitted.has_value(), role >= route.role) << route.id << " as " << name_of(role);
      if (!admitted) {
        EXPECT_EQ(admitted.error().status, 403u) << route.id;
      }
    }
  }
}

// Whatever a viewer asks for, the store stays as it is.
TEST_F(ApiTest, AViewerChangesNothing) {
  make("one");
  const auto picture = [&] {
    std::map<std::string, std::string> files;
    for (const auto& entry : std::filesystem::recursive_directory_iterator{folder_ + "/caisson"}) {
      if (entry.is_regular_file())
        files[entry.path().string()] = read_file(entry.path().string(), 1 << 20).value_or("?");
    }
    return files;
  };
  const auto before = picture();
  for (const Route& route : routes()) {
    for (const Json& body : {Json{}, Json{{"name", "two"}, {"kernel", kernel()}}, Json{{"cpus", 3}}}) {
      if (route.method == "GET" && !body.is_null()) continue;
      const auto answer = ask(Role::Viewer, std::string{route.method}, filled(route), body);
      if (route.method != "GET") {
        EXPECT_EQ(answer.status, 403u) << route.id;
      }
    }
  }
  EXPECT_EQ(picture(), before);
  unsigned refused = 0;
  for (const Json& line : record()) refused += line.value("status", 0) == 403 ? 1 : 0;
  EXPECT_GT(refused, 30u) << "refusals are recorded";
}

TEST_F(ApiTest, AMachinesLife) {
  EXPECT_EQ(ask(Role::Viewer, "GET", "/v1/machines").body, "{\"machines\":[]}\n");
  const Json made = make("one");
  EXPECT_EQ(made["state"], "created");
  EXPECT_EQ(made["config"]["append"], "console=ttyS0 panic=-1");
  EXPECT_EQ(status("POST", "/v1/machines", {{"name", "one"}, {"kernel", kernel()}}), 409u);
  const Answer changed = ask(Role::Admin, "PATCH", "/v1/machines/one", {{"cpus", 3}, {"autostart", true}});
  EXPECT_EQ(changed.status, 200u);
  EXPECT_EQ(Json::parse(changed.body)["config"]["cpus"], 3);
  const Answer limited =
      ask(Role::Admin, "PATCH", "/v1/machines/one", {{"net_limit", {{"bytes_per_s", 1000}}}, {"cpu_cap_percent", 50}});
  ASSERT_EQ(limited.status, 200u) << limited.body;
  EXPECT_EQ(Json::parse(limited.body)["config"]["net_limit"]["bytes_per_s"], 1000);
  EXPECT_EQ(Json::parse(limited.body)["config"]["cpu_cap_percent"], 50);
  const Answer free = ask(Role::Admin, "PATCH", "/v1/machines/one", {{"net_limit", Json::object()}});
  EXPECT_FALSE(Json::parse(free.body)["config"].contains("net_limit"));
  const Json no_disk = Json::array({Json{{"disk", "7"}, {"limit", Json::object()}}});
  EXPECT_EQ(ask(Role::Admin, "PATCH", "/v1/machines/one", {{"disk_limits", no_disk}}).status, 422u);
  EXPECT_EQ(ask(Role::Admin, "PATCH", "/v1/machines/one", {{"memory_now_bytes", 64 << 20}}).status, 409u);
  const Json forward{{"host_port", 18080}, {"guest_port", 80}};
  EXPECT_EQ(status("POST", "/v1/machines/one/forwards", forward), 200u);
  EXPECT_EQ(status("POST", "/v1/machines/one/forwards", forward), 409u);
  EXPECT_EQ(status("POST", "/v1/machines/one/forwards",
                   {{"host_port", 1}, {"guest_port", 80}, {"host_address", "localhost"}}),
            422u);
  EXPECT_EQ(status("DELETE", "/v1/machines/one/forwards/udp/18080"), 409u);
  EXPECT_EQ(status("DELETE", "/v1/machines/one/forwards/tcp/18080"), 204u);
  EXPECT_EQ(status("DELETE", "/v1/machines/one/forwards/tcp/x"), 404u);
  const std::string disk = folder_ + "/more.raw";
  std::ofstream{disk} << std::string(4096, 'x');
  EXPECT_EQ(status("POST", "/v1/machines/one/disks", {{"path", disk}}), 200u);
  EXPECT_EQ(status("POST", "/v1/machines/one/disks", {{"path", disk}}), 409u);
  EXPECT_EQ(status("POST", "/v1/machines/one/disks", {{"path", disk + "x"}}), 409u);
  EXPECT_EQ(status("POST", "/v1/machines/one/disks", {{"path", "more.raw"}}), 422u);
  EXPECT_EQ(status("POST", "/v1/machines/one/disks", {{"path", disk}, {"format", "vmdk"}}), 422u);
  EXPECT_EQ(status("POST", "/v1/machines/one/disks/more.raw/grow", {{"bytes", 8192}}), 409u) << "it does not run";
  EXPECT_EQ(status("POST", "/v1/machines/one/disks/more.raw/grow", {{"bytes", 8193}}), 422u);
  EXPECT_EQ(status("POST", "/v1/machines/one/network", {{"card", "e1000"}}), 409u) << "it has one";
  EXPECT_EQ(status("POST", "/v1/machines/one/network", {{"limit", {{"bytes_per_s", -1}}}}), 422u);
  EXPECT_EQ(status("PATCH", "/v1/machines/one", {{"net", "none"}, {"forwards", Json::array()}}), 200u);
  EXPECT_EQ(status("POST", "/v1/machines/one/network", {{"limit", {{"bytes_per_s", 1000}}}}), 200u);
  EXPECT_EQ(Json::parse(ask(Role::Admin, "GET", "/v1/machines/one").body)["config"]["net_limit"]["bytes_per_s"], 1000);
  EXPECT_EQ(status("DELETE", "/v1/machines/one/disks/more.raw"), 202u);
  EXPECT_EQ(status("DELETE", "/v1/machines/none/disks/more.raw"), 404u);
  EXPECT_EQ(status("DELETE", "/v1/machines/none/network"), 404u);
  for (const char* action : {"kill", "stop", "pause", "resume", "reset", "power-button"}) {
    EXPECT_EQ(status("POST", std::string{"/v1/machines/one/"} + action), 409u) << action;
  }
  EXPECT_EQ(status("GET", "/v1/machines/one/screenshot"), 409u);
  EXPECT_EQ(status("GET", "/v1/machines/one/logs?lines=3"), 200u);
  EXPECT_EQ(status("GET", "/v1/machines/one/events"), 200u);
  EXPECT_EQ(status("GET", "/v1/machines/one/console"), 426u);
  EXPECT_EQ(status("GET", "/v1/machines/one/vnc"), 426u);
  EXPECT_EQ(status("POST", "/v1/machines/one/rename", {{"name", "two"}}), 200u);
  EXPECT_EQ(status("GET", "/v1/machines/one"), 404u);
  EXPECT_EQ(status("DELETE", "/v1/machines/two"), 204u);
  EXPECT_EQ(status("DELETE", "/v1/machines/two"), 404u);
  for (const char* path : {"/v1/images", "/v1/jobs", "/v1/host", "/v1/openapi.json", "/metrics"}) {
    EXPECT_EQ(status("GET", path), 200u) << path;
  }
}

TEST_F(ApiTest, RefusesWhatIsWrongWithTheReason) {
  make("one");
  const auto detail = [&](const Json& body, unsigned wanted) {
    const Answer answer = ask(Role::Admin, "POST", "/v1/machines", body);
    EXPECT_EQ(answer.status, wanted) << body << answer.body;
    return Json::parse(answer.body).value("detail", "");
  };
  EXPECT_NE(detail({{"name", "x"}, {"kernel", kernel()}, {"colour", 1}}, 422).find("colour"), std::string::npos);
  EXPECT_NE(detail({{"kernel", kernel()}}, 422).find("name is missing"), std::string::npos);
  EXPECT_NE(detail({{"name", "x"}, {"kernel", "vmlinuz"}}, 422).find("absolute"), std::string::npos);
  detail({{"name", "../x"}, {"kernel", kernel()}}, 422);
  detail({{"name", "x"}}, 422);
  detail({{"name", "x"}, {"kernel", kernel()}, {"cpus", 65}}, 422);
  detail({{"name", "x"}, {"kernel", kernel()}, {"cpus", -1}}, 422);
  detail({{"name", "x"}, {"kernel", kernel()}, {"memory_bytes", uint64_t{1} << 40}}, 422);
  detail({{"name", "x"}, {"kernel", kernel()}, {"append", "a\nb"}}, 422);
  detail({{"name", "x"}, {"image", "windows"}}, 422);
  EXPECT_NE(detail({{"name", "x"}, {"image", "debian:12"}}, 409).find("image build"), std::string::npos);
  EXPECT_EQ(status("GET", "/v1/machines?colour=1"), 422u);
  EXPECT_EQ(status("GET", "/v1/machines/one/logs?lines=-1"), 422u);
  EXPECT_EQ(status("DELETE", "/v1/machines/one?force=yes"), 422u);
  EXPECT_EQ(status("PUT", "/v1/machines"), 405u);
  EXPECT_EQ(status("GET", "/v1/machines/"), 404u);
  EXPECT_EQ(status("GET", "/v1/machines/%2e%2e"), 404u);
  EXPECT_EQ(status("GET", "/v1/machines/%0a"), 400u);
  EXPECT_EQ(status("GET", "/v1/machines/%zz"), 400u);
  EXPECT_EQ(status("GET", "/v1/jobs/99999999999999999999"), 404u);
  const auto raw = [&](const std::string& type, const std::string& body) {
    return ask(Role::Admin, Request{"PATCH", "/v1/machines/one", type, body}).status;
  };
  EXPECT_EQ(raw("text/plain", "{}"), 415u);
  EXPECT_EQ(raw("application/json; charset=utf-8", "{}"), 200u);
  EXPECT_EQ(raw("application/json", "{"), 400u);
  EXPECT_EQ(raw("application/json", "[]"), 422u);
  EXPECT_EQ(raw("application/json", std::string(100, '[')), 400u);
  EXPECT_EQ(raw("application/json", std::string(max_body + 1, ' ')), 413u);
  EXPECT_EQ(raw("application/json", "{\"append\":\"\xff\"}"), 400u);
}

TEST_F(ApiTest, ADryRunSaysWhatWouldBeAndDoesNothing) {
  make("one");
  const std::string disk = folder_ + "/more.raw";
  std::ofstream{disk} << std::string(4096, 'x');
  const auto before = image_of(folder_ + "/caisson");
  const auto says = [&](const std::string& method, const std::string& target, const Json& body = {}) {
    const Answer answer = ask(Role::Admin, method, target, body);
    EXPECT_EQ(answer.status, 200u) << target << answer.body;
    return Json::parse(answer.body).value("would", "");
  };
  EXPECT_EQ(says("POST", "/v1/machines?dry_run=true", {{"name", "two"}, {"kernel", kernel()}}), "make two");
  EXPECT_EQ(says("POST", "/v1/machines?dry_run=true", {{"name", "two"}, {"kernel", kernel()}, {"transient", true}}),
            "make two and start it");
  EXPECT_EQ(says("PATCH", "/v1/machines/one?dry_run=true", {{"cpus", 3}}), "change one");
  EXPECT_EQ(says("DELETE", "/v1/machines/one?dry_run=true&force=true"), "remove one");
  EXPECT_EQ(says("POST", "/v1/machines/one/start?dry_run=true"), "start one");
  EXPECT_EQ(says("POST", "/v1/machines/one/restart?dry_run=true"),
            "restart one (it does not run: it would be started)");
  EXPECT_EQ(says("POST", "/v1/machines/one/rename?dry_run=true", {{"name", "two"}}), "rename one to two");
  EXPECT_EQ(says("POST", "/v1/machines/one/disks?dry_run=true", {{"path", disk}}), "attach a disk to one");
  const Json forward{{"host_port", 18080}, {"guest_port", 80}};
  EXPECT_EQ(says("POST", "/v1/machines/one/forwards?dry_run=true", forward),
            "forward 127.0.0.1:18080 to port 80 of one");
  // What could not be done is refused as without.
  EXPECT_EQ(status("POST", "/v1/machines?dry_run=true", {{"name", "one"}, {"kernel", kernel()}}), 409u);
  EXPECT_EQ(status("POST", "/v1/machines?dry_run=true", {{"name", "two"}, {"image", "debian:12"}}), 409u);
  EXPECT_EQ(status("POST", "/v1/machines/one/rename?dry_run=true", {{"name", "one"}}), 409u);
  EXPECT_EQ(status("PATCH", "/v1/machines/one?dry_run=true", {{"cpus", 100}}), 422u);
  EXPECT_EQ(status("DELETE", "/v1/machines/one/forwards/tcp/1?dry_run=true"), 409u);
  EXPECT_EQ(status("DELETE", "/v1/machines/one/disks/none?dry_run=true"), 409u);
  EXPECT_EQ(status("DELETE", "/v1/images/debian:12?dry_run=true"), 404u);
  for (const char* action : {"kill", "stop", "pause", "resume", "reset", "power-button"}) {
    EXPECT_EQ(status("POST", fmt::format("/v1/machines/one/{}?dry_run=true", action)), 409u) << action;
  }
  EXPECT_TRUE(image_of(folder_ + "/caisson") == before);
  EXPECT_TRUE(std::ranges::any_of(record(), [](const Json& line) { return line.value("result", "") == "dry run"; }));
}

TEST_F(ApiTest, GuestsAreReachedWhileTheyRun) {
  make("one");
  EXPECT_EQ(status("POST", "/v1/machines/one/exec", {{"command", {"true"}}, {"input", "a\nb\n"}}), 409u);
  EXPECT_EQ(status("POST", "/v1/machines/none/exec", {{"command", {"true"}}}), 404u);
  EXPECT_EQ(status("POST", "/v1/machines/one/exec", {{"command", Json::array()}}), 422u);
  EXPECT_EQ(status("POST", "/v1/machines/one/exec", {{"command", {std::string("a\0b", 3)}}}), 422u);
  EXPECT_EQ(status("POST", "/v1/machines/one/exec", {{"command", {"true"}}, {"timeout_s", 301}}), 422u);
  EXPECT_EQ(status("GET", "/v1/machines/one/files?path=/etc/passwd"), 409u);
  EXPECT_EQ(status("GET", "/v1/machines/one/files"), 422u);
  EXPECT_EQ(status("GET", "/v1/machines/one/files?path=" + std::string(5000, 'x')), 422u);
  EXPECT_EQ(status("PUT", "/v1/machines/one/files?path=/root/x&mode=644"), 409u);
  EXPECT_EQ(status("PUT", "/v1/machines/one/files?path=/root/x&mode=1000"), 422u);
}

TEST_F(ApiTest, DisksAndExportsNameFilesOfTheHost) {
  EXPECT_EQ(status("POST", "/v1/disks/create", {{"path", "x.raw"}, {"bytes", 4096}}), 422u);
  EXPECT_EQ(status("POST", "/v1/disks/create", {{"path", folder_ + "/x.raw"}}), 422u);
  EXPECT_EQ(status("POST", "/v1/disks/convert", {{"path", kernel()}, {"to", "x.raw"}}), 422u);
  EXPECT_EQ(status("POST", "/v1/disks/resize", {{"path", kernel()}}), 422u);
  EXPECT_EQ(status("POST", "/v1/images/debian:12/export", {{"file", folder_ + "/x.tar"}}), 404u);
  EXPECT_EQ(status("POST", "/v1/images/debian:12/export", {{"file", "x.tar"}}), 422u);
  EXPECT_EQ(status("POST", "/v1/images/debian:12/export", {{"file", folder_ + "/x.zip"}}), 422u);
  EXPECT_EQ(ask(Role::Operator, "POST", "/v1/disks/info", {{"path", kernel()}}).status, 403u);
}

TEST_F(ApiTest, CloudInitFindsItsSeed) {
  Json seed{{"user", "ann"},
            {"keys", {"ssh-ed25519 AAAA ann@host"}},
            {"packages", {"nginx"}},
            {"files", {{{"path", "/etc/motd"}, {"content", "hello\nthere\n"}}}}};
  const Answer answer =
      ask(Role::Admin, "POST", "/v1/machines", {{"name", "one"}, {"kernel", kernel()}, {"seed", seed}});
  ASSERT_EQ(answer.status, 201u) << answer.body;
  const Json made = Json::parse(answer.body);
  EXPECT_EQ(made["config"]["disks"].back()["path"], "seed.iso");
  EXPECT_TRUE(std::filesystem::exists(made["folder"].get<std::string>() + "/seed.iso"));
  seed["user"] = "Ann!";
  EXPECT_EQ(status("POST", "/v1/machines", {{"name", "two"}, {"kernel", kernel()}, {"seed", seed}}), 422u);
  seed = {{"colour", 1}};
  EXPECT_EQ(status("POST", "/v1/machines", {{"name", "two"}, {"kernel", kernel()}, {"seed", seed}}), 422u);
}

TEST_F(ApiTest, APointerIsOnTheScreenOfAMachineThatRuns) {
  make("one");
  EXPECT_EQ(status("POST", "/v1/machines/one/pointer", {{"x", 1}, {"y", 2}, {"action", "click"}}), 409u);
  EXPECT_EQ(status("POST", "/v1/machines/one/pointer", {{"x", 65536}, {"y", 2}}), 422u);
  EXPECT_EQ(status("POST", "/v1/machines/one/pointer", {{"x", 1}}), 422u);
}

// The document names what the table has, and each schema that it refers to.
TEST_F(ApiTest, TheDocumentIsTheTables) {
  const Json document = Json::parse(ask(Role::Viewer, "GET", "/v1/openapi.json").body);
  EXPECT_EQ(document["openapi"], "3.1.0");
  size_t operations = 0;
  for (const auto& [path, methods] : document["paths"].items()) operations += methods.size();
  EXPECT_EQ(operations, routes().size());
  for (const Route& route : routes()) {
    for (const auto name : {route.body, route.answer}) {
      EXPECT_TRUE(name.empty() || schemas().contains(std::string{name})) << name;
    }
  }
}

TEST_F(ApiTest, JobsEndAndAreRecorded) {
  Jobs jobs;
  const auto fails = jobs.start("test", "one", "me", [](const life::Follow&) -> Result<> { return fail("why"); }, {});
  const auto waits = jobs.start("test", "two", "me",
                                [](const life::Follow& follow) -> Result<> {
                                  while (!follow.cancelled.stop_requested()) std::this_thread::yield();
                                  return fail("cancelled");
                                },
                                {});
  ASSERT_TRUE(fails && waits);
  const auto end = [&](uint64_t id) {
    while (!jobs.find(id)->ended_ms) std::this_thread::yield();
    return *jobs.find(id);
  };
  EXPECT_EQ(end(fails->id).state, JobState::Failed);
  EXPECT_EQ(end(fails->id).message, "why");
  EXPECT_EQ(jobs.find(waits->id)->state, JobState::Running);
  EXPECT_TRUE(jobs.cancel(waits->id));
  EXPECT_EQ(end(waits->id).state, JobState::Cancelled);
  EXPECT_FALSE(jobs.cancel(waits->id));
  EXPECT_FALSE(jobs.find(99));
}

TEST_F(ApiTest, TheFeedTellsWhatHasChanged) {
  make("one");
  life::Feed feed;
  EXPECT_TRUE(feed.look().empty());
  const auto types = [&] {
    std::vector<std::string> list;
    for (const Json& event : feed.look()) {
      EXPECT_EQ(mismatch(event, schemas().at("Event")), "");
      list.push_back(event["machine"].get<std::string>() + " " + event["type"].get<std::string>());
    }
    return list;
  };
  using List = std::vector<std::string>;
  make("two");
  EXPECT_EQ(types(), List{"two created"});
  ASSERT_TRUE(life::rename(*life::find("two"), "three"));
  EXPECT_EQ(types(), List{"two renamed"});
  EXPECT_EQ(status("PATCH", "/v1/machines/one", {{"cpus", 2}}), 200u);
  EXPECT_EQ(types(), List{"one changed"});
  // What its process would do: hold its life, and write its record.
  const auto folder = life::find("one");
  {
    auto life = folder->take_life();
    ASSERT_TRUE(life && *life);
    std::ofstream record{folder->file(store::VmFolder::events_log), std::ios::app};
    record << control::serialise(control::Started{"jit", "host", 1, 1 << 20, ""}, 5) << "\n{\"at\":6,\"ty"
           << std::flush;
    EXPECT_EQ(types(), List{"one started"});
    record << "pe\":\"paused\"}\n" << std::flush;
    EXPECT_EQ(types(), List{"one paused"});
  }
  EXPECT_EQ(types(), List{"one killed"});
  EXPECT_EQ(types(), List{});
  EXPECT_EQ(status("DELETE", "/v1/machines/three"), 204u);
  EXPECT_EQ(types(), List{"three removed"});
}

TEST(Http, Targets) {
  const auto target = parse_target("/v1/a%20b?x=1&y");
  ASSERT_TRUE(target);
  EXPECT_EQ(target->path, (std::vector<std::string>{"v1", "a b"}));
  EXPECT_EQ(target->query.at("x"), "1");
  EXPECT_EQ(target->query.at("y"), "");
  for (const char* bad : {"", "x", "http://x/", "/%", "/%4", "/\x01", "/a#b", "/?a=1&a=2"})
    EXPECT_FALSE(parse_target(bad)) << bad;
  EXPECT_EQ(json_depth("{\"a\":[[1],\"]]{{\\\"[\"]}"), 3u);
}

TEST_F(InStore, WhoMayOnlyLookChangesNothing) {
  make("one");
  make("two");
  // What a killed command has left is the next one's that may change something.
  std::filesystem::create_directories(folder_ + "/caisson/vms/.new-left");
  Generator generator{Json::parse(ask(Role::Viewer, "GET", "/v1/openapi.json").body),
                      {"one", "two", "three", kernel(), "mine", "raw", "", "1", "../x", "debian:12"},
                      {{"name", {"one", "two", "three"}}, {"image", {"debian:12", "mine"}}, {"kernel", {kernel()}}},
                      7};
  const auto before = image_of(folder_ + "/caisson");
  ASSERT_GE(before.size(), 5u);
  std::map<unsigned, unsigned> statuses;
  for (int count = 0; count < 3000; ++count) {
    const Request request = generator.next();
    const auto target = parse_target(request.target);
    const Found found = target ? find_route(request.method, target->path) : Found{};
    if (found.route != nullptr && is_stream(found.route->kind)) continue;
    const auto role = count % 4 == 0 ? std::nullopt : std::optional{Role::Viewer};
    const Answer answer = ask(role, request);
    ASSERT_LT(answer.status, 500u) << request.method << " " << request.target;
    ++statuses[answer.status];
  }
  EXPECT_TRUE(image_of(folder_ + "/caisson") == before);
  for (const unsigned status : {200u, 401u, 403u, 404u}) EXPECT_GT(statuses[status], 0u) << status;
}

}  // namespace
}  // namespace caisson::api
