// caissond: the machines of this user as REST. It holds nothing of them: each request reads the store and asks the
// machines' own processes, so that one that is killed and started again knows as much as before, and machines run on.
//   Threads  main runs the event loop; a pool and jobs work
#include <csignal>
#include <cstdio>
#include <exception>
#include <optional>
#include <string>

#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "api/api.h"
#include "base/log.h"
#include "base/utc.h"
#include "daemon/server.h"
#include "daemon/settings.h"
#include "daemon/tokens.h"
#include "store/files.h"

namespace caisson::daemon {
namespace {

struct Options {
  std::string config;
  std::string socket;
  std::string listen;
  std::string certificate;
  std::string key;
  std::string client_ca;
};

int failure(const Error& error) {
  log::error("{}", error.message);
  return 1;
}

Result<Tokens> tokens_of_user() {
  auto folder = config_folder();
  if (!folder) return std::unexpected(folder.error());
  return Tokens{*folder + "/tokens.json"};
}

int serve(const Options& options) {
  auto folder = config_folder();
  if (!folder) return failure(folder.error());
  auto settings =
      Settings::load(options.config.empty() ? *folder + "/caissond.json" : options.config, !options.config.empty());
  if (!settings) return failure(settings.error());
  const auto put = [](const std::string& given, std::string& member) {
    if (!given.empty()) member = given;
  };
  put(options.socket, settings->socket);
  put(options.listen, settings->listen);
  put(options.certificate, settings->certificate);
  put(options.key, settings->key);
  put(options.client_ca, settings->client_ca);
  if (auto ok = settings->validate(); !ok) return failure(ok.error());

  auto data = data_folder();
  if (!data) return failure(data.error());
  if (auto ok = make_folders(*data); !ok) return failure(ok.error());
  auto audit = api::Audit::open(*data + "/audit.log");
  if (!audit) return failure(audit.error());
  const Tokens tokens{*folder + "/tokens.json"};
  api::Api api{*audit};
  Server server{api, *settings, tokens};
  const auto socket = settings->socket.empty() ? default_socket() : Result<std::string>{settings->socket};
  if (!socket) return failure(socket.error());
  if (auto ok = server.listen_unix(*socket); !ok) return failure(ok.error());
  fmt::print("listening at {}\n", *socket);
  if (!settings->listen.empty()) {
    if (auto ok = server.listen_https(); !ok) return failure(ok.error());
    fmt::print("listening at https://{}\n", server.https_address());
  }
  std::fflush(stdout);
  api.start_machines();
  server.run();
  return 0;
}

int add_token(const std::string& name, const std::string& role_name, const std::string& span) {
  auto tokens = tokens_of_user();
  if (!tokens) return failure(tokens.error());
  const auto role = api::role_named(role_name);
  if (!role) {
    log::error("--role {}: write viewer, operator or admin", role_name);
    return 2;
  }
  std::optional<uint64_t> expires_ms;
  if (!span.empty()) {
    const auto ms = parse_span(span);
    if (!ms) {
      log::error("--expires {}", ms.error().message);
      return 2;
    }
    expires_ms = utc_ms() + *ms;
  }
  const auto token = tokens->add(name, *role, expires_ms);
  if (!token) return failure(token.error());
  fmt::print("{}\n", *token);
  return 0;
}

int list_tokens() {
  auto tokens = tokens_of_user();
  const auto list = tokens ? tokens->list() : std::unexpected(tokens.error());
  if (!list) return failure(list.error());
  fmt::print("{:24} {:9} {}\n", "NAME", "ROLE", "EXPIRES");
  const uint64_t now = utc_ms();
  for (const Token& token : *list) {
    std::string when = "never";
    if (token.expires_ms) {
      const uint64_t at = *token.expires_ms;
      when = at <= now ? "expired" : fmt::format("in {} h", (at - now) / 3'600'000);
    }
    fmt::print("{:24} {:9} {}\n", token.name, api::name_of(token.role), when);
  }
  return 0;
}

int remove_token(const std::string& name) {
  auto tokens = tokens_of_user();
  if (!tokens) return failure(tokens.error());
  if (auto done = tokens->remove(name); !done) return failure(done.error());
  return 0;
}

int main_program(int count, char** arguments) {
  CLI::App app{"Serves the machines of this user as REST, on a unix socket and, where asked, by HTTPS.", "caissond"};
  app.set_version_flag("--version", std::string{"caissond "} + CAISSON_VERSION);
  Options options;
  app.add_option("--config", options.config, "settings; default ~/.config/caisson/caissond.json, where there is one")
      ->type_name("FILE");
  app.add_option("--socket", options.socket, "the unix socket; default $XDG_RUNTIME_DIR/caisson/caissond.sock")
      ->type_name("PATH");
  app.add_option("--listen", options.listen, "HTTPS as well, there")->type_name("ADDRESS:PORT");
  app.add_option("--cert", options.certificate, "its certificate, PEM")->type_name("FILE");
  app.add_option("--key", options.key, "its key, PEM")->type_name("FILE");
  app.add_option("--client-ca", options.client_ca, "who signs clients' certificates, PEM")->type_name("FILE");
  auto* const token = app.add_subcommand("token", "Tokens for HTTPS");
  token->require_subcommand(1);
  std::string name, role, span;
  auto* const add = token->add_subcommand("add", "Make a token and print it: it is shown this once");
  add->add_option("NAME", name, "whose it is")->required();
  add->add_option("--role", role, "viewer, operator or admin")->required();
  add->add_option("--expires", span, "after so long: 30d, 12h; default never")->type_name("TIME");
  auto* const list = token->add_subcommand("list", "List tokens");
  auto* const remove = token->add_subcommand("remove", "Remove a token; it is refused from then on");
  remove->add_option("NAME", name, "whose it is")->required();
  app.footer("docs/api.md tells how to ask it.");
  try {
    app.parse(count, arguments);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    log::error("{}; see caissond --help", error.what());
    return 2;
  }
  if (*add) return add_token(name, role, span);
  if (*list) return list_tokens();
  if (*remove) return remove_token(name);
  return serve(options);
}

}  // namespace
}  // namespace caisson::daemon

int main(int count, char** arguments) {
  // Descriptors 0 to 2 must be something, or files opened later would take their places.
  while (true) {
    const int fd = ::open("/dev/null", O_RDWR);
    if (fd >= 0 && fd <= STDERR_FILENO) continue;
    if (fd > STDERR_FILENO) ::close(fd);
    break;
  }
  ::signal(SIGPIPE, SIG_IGN);
  try {
    return caisson::daemon::main_program(count, arguments);
  } catch (const std::exception& error) {
    // Libraries throw when memory ends; ours do not.
    caisson::log::error("{}", error.what());
    return 1;
  }
}
