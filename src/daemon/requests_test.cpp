// Generated requests, valid and not, to a real daemon on its socket: every answer is what the OpenAPI document says.
// CAISSON_API_REQUESTS, CAISSON_API_SEED: how many, and which.
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include <fmt/core.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/websocket.hpp>

#include "api/generate.h"
#include "api/schema_check.h"
#include "life/vmm_process.h"

namespace caisson::daemon {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using asio::local::stream_protocol;

class Daemon : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "caissond-XXXXXX";
    folder_ = ::mkdtemp(pattern.data());
    std::ofstream{folder_ + "/kernel"} << "no kernel";
    const auto program = life::sibling_program("caissond", "is tested");
    ASSERT_TRUE(program) << program.error().message;
    process_ = ::fork();
    if (process_ == 0) {
      be_at_home();
      ::setenv("PATH", "/nonexistent", 1);  // nothing is built
      ::execl(program->c_str(), "caissond", "--socket", socket().c_str(), nullptr);
      ::_exit(127);
    }
    for (int tries = 0; !connect(); ++tries) {
      ASSERT_LT(tries, 1000) << "caissond does not listen";
      ASSERT_EQ(::waitpid(process_, nullptr, WNOHANG), 0) << "caissond has ended";
      std::this_thread::sleep_for(std::chrono::milliseconds{20});
    }
  }
  void TearDown() override {
    if (process_ > 0) {
      ::kill(process_, SIGTERM);
      int status = 0;
      ::waitpid(process_, &status, 0);
      EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "caissond ended with " << status;
    }
    if (folder_.empty()) return;
    // What was started goes on without the daemon.
    const std::string machines = folder_ + "/caisson/vms";
    if (std::filesystem::exists(machines)) {
      for (const auto& one : std::filesystem::directory_iterator{machines}) kill_machine(one.path().filename());
    }
    std::filesystem::remove_all(folder_);
  }
  void be_at_home() const {
    for (const char* variable : {"XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"})
      ::setenv(variable, folder_.c_str(), 1);
  }
  void kill_machine(const std::string& name) const {
    const auto program = life::sibling_program("caisson", "ends machines");
    ASSERT_TRUE(program);
    const pid_t child = ::fork();
    if (child == 0) {
      be_at_home();
      ::close(STDERR_FILENO);  // one that does not run is no matter
      ::execl(program->c_str(), "caisson", "kill", name.c_str(), nullptr);
      ::_exit(127);
    }
    ::waitpid(child, nullptr, 0);
  }
  [[nodiscard]] std::string socket() const { return folder_ + "/s"; }

  bool connect() {
    connection_.emplace(loop_);
    buffer_.clear();
    boost::system::error_code error;
    connection_->connect(stream_protocol::endpoint{socket()}, error);
    const timeval patience{30, 0};
    if (!error) ::setsockopt(connection_->native_handle(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    return !error;
  }
  // As a client would write it; what comes back.
  std::optional<http::response<http::string_body>> exchange(const std::string& bytes, bool head = false) {
    boost::system::error_code error;
    asio::write(*connection_, asio::buffer(bytes), error);
    http::response_parser<http::string_body> parser;
    parser.body_limit(64 << 20);
    parser.skip(head);
    http::read(*connection_, buffer_, parser, error);
    if (error) return std::nullopt;
    return parser.release();
  }
  static std::string to_bytes(const api::Request& request) {
    std::string bytes = request.method + " " + request.target + " HTTP/1.1\r\nHost: caisson\r\n";
    if (!request.content_type.empty()) bytes += "Content-Type: " + request.content_type + "\r\n";
    if (!request.body.empty()) bytes += fmt::format("Content-Length: {}\r\n", request.body.size());
    return bytes + "\r\n" + request.body;
  }
  static uint64_t from_environment(const char* name, uint64_t otherwise) {
    const char* const text = std::getenv(name);
    return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
  }

  std::string folder_;
  pid_t process_ = -1;
  asio::io_context loop_;
  std::optional<stream_protocol::socket> connection_;
  boost::beast::flat_buffer buffer_;
};

TEST_F(Daemon, AnswersGeneratedRequestsAsItsDocumentSays) {
  const auto document = exchange("GET /v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n");
  ASSERT_TRUE(document);
  const uint64_t seed = from_environment("CAISSON_API_SEED", 1);
  const uint64_t count = from_environment("CAISSON_API_REQUESTS", 2000);
  api::Generator generator{
      control::Json::parse(document->body()),
      {"one", "two", "three", folder_ + "/kernel", "debian:12", "raw", "qcow2", "", "1", "host", "auto", "../x",
       "127.0.0.1", "quiet"},
      {{"name", {"one", "two", "three"}}, {"kernel", {folder_ + "/kernel"}}, {"memory_bytes", {64 << 20, 128 << 20}}},
      seed};
  std::map<unsigned, unsigned> statuses;
  for (uint64_t i = 0; i < count; ++i) {
    api::Request request = generator.next();
    // A stream would go on for ever, and an answer to HEAD has no body to look at.
    if (request.target.starts_with("/v1/events") && request.method == "GET") continue;
    if (request.method == "HEAD") continue;
    const auto answer = exchange(to_bytes(request));
    ASSERT_TRUE(answer) << "seed " << seed << ", request " << i << ", no answer to " << to_bytes(request);
    const auto target = api::parse_target(request.target);
    const auto found = target ? api::find_route(request.method, target->path) : api::Found{};
    const std::string type{(*answer)[http::field::content_type]};
    ++statuses[answer->result_int()];
    ASSERT_LT(answer->result_int(), 500u)
        << "seed " << seed << ", request " << i << ": " << to_bytes(request) << answer->body();
    ASSERT_EQ(api::mismatch(found.route, answer->result_int(), type, answer->body()), "")
        << "seed " << seed << ", request " << i << ": " << to_bytes(request);
    if (!answer->keep_alive()) {
      ASSERT_TRUE(connect());
    }
  }
  // It has reached the operations, not only their doors.
  for (const unsigned status : {200u, 201u, 204u, 400u, 404u, 409u, 422u}) EXPECT_GT(statuses[status], 0u) << status;
}

TEST_F(Daemon, RefusesWhatIsNoRequest) {
  const auto status = [&](const std::string& bytes) {
    EXPECT_TRUE(connect());
    const auto answer = exchange(bytes);
    return answer ? answer->result_int() : 0;
  };
  const std::string head = "GET /v1/host HTTP/1.1\r\nHost: x\r\n";
  EXPECT_EQ(status(head + "\r\n"), 200u);
  EXPECT_EQ(status("nonsense\r\n\r\n"), 400u);
  EXPECT_EQ(status("GET /v1/host HTTP/9.9\r\n\r\n"), 400u);
  EXPECT_EQ(status(head + "Content-Length: x\r\n\r\n"), 400u);
  EXPECT_EQ(status(head + "X: " + std::string(10'000, 'x') + "\r\n\r\n"), 431u);
  EXPECT_EQ(status(head + "Content-Length: 100000\r\n\r\n"), 413u);
  EXPECT_EQ(status(head + "Transfer-Encoding: chunked\r\n\r\nzz\r\n"), 400u);
  EXPECT_EQ(status("GET /v1/machines/x/console HTTP/1.1\r\nHost: x\r\n\r\n"), 426u);
  EXPECT_EQ(status("GET /v1/machines/x/vnc HTTP/1.1\r\nHost: x\r\n\r\n"), 426u);
  EXPECT_EQ(status(head + "\r\n"), 200u) << "it goes on after all that";
}

TEST_F(Daemon, TakesFilesOnlyWhereTheyCanGo) {
  const auto made = exchange(to_bytes(
      {"POST", "/v1/machines", "application/json", fmt::format(R"({{"name":"one","kernel":"{}/kernel"}})", folder_)}));
  ASSERT_TRUE(made && made->result_int() == 201);
  const auto put = [&](const std::string& query, const std::string& body, const std::string& more = "") {
    EXPECT_TRUE(connect());
    const std::string length = more.empty() ? fmt::format("Content-Length: {}\r\n", body.size()) : more;
    const auto answer =
        exchange("PUT /v1/machines/one/files" + query + " HTTP/1.1\r\nHost: x\r\n" + length + "\r\n" + body);
    return answer ? answer->result_int() : 0;
  };
  EXPECT_EQ(put("?path=/root/x", std::string(300'000, 'x')), 409u) << "it does not run";
  EXPECT_EQ(put("?path=/root/x", "3\r\nabc\r\n0\r\n\r\n", "Transfer-Encoding: chunked\r\n"), 409u);
  EXPECT_EQ(put("", "x"), 422u);
  EXPECT_EQ(put("?path=/root/x&colour=1", "x"), 422u);
  EXPECT_EQ(put("?path=/root/x", "", "Content-Length: 2000000000\r\n"), 413u);
  EXPECT_EQ(put("?path=/root/x", "zz\r\n", "Transfer-Encoding: chunked\r\n"), 400u);
  EXPECT_TRUE(connect());
  const auto got = exchange("GET /v1/machines/one/files?path=/etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n");
  ASSERT_TRUE(got);
  EXPECT_EQ(got->result_int(), 409u);
  EXPECT_TRUE(got->keep_alive());
}

TEST_F(Daemon, BringsConsoleAndScreenByWebSocket) {
  if (::access("/usr/share/seabios/bios-256k.bin", F_OK) != 0) GTEST_SKIP() << "no SeaBIOS here";
  const auto ask = [&](const std::string& method, const std::string& path, const std::string& json) {
    const auto answer = exchange(to_bytes({method, path, json.empty() ? "" : "application/json", json}));
    return answer ? answer->result_int() : 0;
  };
  std::filesystem::resize_file(folder_ + "/kernel", 1 << 20);
  ASSERT_EQ(ask("POST", "/v1/machines",
                fmt::format(R"({{"name":"pc","firmware":"bios","memory_bytes":67108864,"vnc":"unix",)"
                            R"("disks":[{{"path":"{}/kernel","format":"raw"}}]}})",
                            folder_)),
            201u);
  namespace websocket = boost::beast::websocket;
  const auto open = [&](websocket::stream<stream_protocol::socket>& socket, const std::string& what) {
    boost::system::error_code error;
    websocket::response_type response;
    socket.next_layer().connect(stream_protocol::endpoint{this->socket()}, error);
    socket.set_option(websocket::stream_base::decorator(
        [](websocket::request_type& request) { request.set(http::field::sec_websocket_protocol, "binary"); }));
    socket.binary(true);
    socket.handshake(response, "caisson", "/v1/machines/pc/" + what, error);
    return response.result_int();
  };
  {
    websocket::stream<stream_protocol::socket> early{loop_};
    EXPECT_EQ(open(early, "vnc"), 409u) << "it does not run";
  }
  ASSERT_EQ(ask("POST", "/v1/machines/pc/start", ""), 200u);
  // The greeting of RFC 6143, 7.1.1, and what follows ours: the types of security, of which there is "none".
  websocket::stream<stream_protocol::socket> screen{loop_};
  ASSERT_EQ(open(screen, "vnc"), 101u);
  std::string got;
  auto into = asio::dynamic_buffer(got);
  while (got.size() < 12) screen.read(into);
  EXPECT_EQ(got, "RFB 003.008\n");
  screen.write(asio::buffer(got));
  into.consume(into.size());
  while (got.size() < 2) screen.read(into);
  EXPECT_EQ(got, std::string("\1\1"));
  websocket::stream<stream_protocol::socket> console{loop_};
  ASSERT_EQ(open(console, "console?replay=0"), 101u);
  console.write(asio::buffer("x", 1));
  // Their end is the machine's.
  ASSERT_EQ(ask("POST", "/v1/machines/pc/kill", ""), 204u);
  boost::system::error_code error;
  while (!error) console.read(into, error);
  EXPECT_EQ(error, websocket::error::closed);
  error = {};
  while (!error) screen.read(into, error);
  EXPECT_EQ(error, websocket::error::closed);
}

TEST_F(Daemon, ServesManyAtOnce) {
  std::vector<std::jthread> threads;
  std::atomic<unsigned> good = 0;
  for (unsigned thread = 0; thread < 8; ++thread) {
    threads.emplace_back([this, &good, thread] {
      asio::io_context loop;
      stream_protocol::socket socket{loop};
      socket.connect(stream_protocol::endpoint{this->socket()});
      boost::beast::flat_buffer buffer;
      for (unsigned i = 0; i < 20; ++i) {
        const std::string body = fmt::format("{{\"name\":\"m{}\",\"kernel\":\"{}/kernel\"}}", i, folder_);
        const api::Request request = thread % 2 == 0
                                         ? api::Request{"POST", "/v1/machines", "application/json", body}
                                         : api::Request{"DELETE", fmt::format("/v1/machines/m{}", i), "", ""};
        asio::write(socket, asio::buffer(to_bytes(request)));
        http::response_parser<http::string_body> parser;
        http::read(socket, buffer, parser);
        if (parser.get().result_int() < 500) ++good;
      }
    });
  }
  threads.clear();
  EXPECT_EQ(good, 160u);
}

}  // namespace
}  // namespace caisson::daemon
