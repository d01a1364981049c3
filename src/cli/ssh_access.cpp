#include "cli/ssh_access.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <ctime>

#include <arpa/inet.h>
#include <fmt/core.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/log.h"
#include "cli/exit_status.h"
#include "cli/shell_quotes.h"
#include "life/child.h"
#include "life/ssh_key.h"
#include "life/vm_client.h"
#include "store/files.h"
#include "store/store.h"

namespace caisson::cli {
namespace {

constexpr int exit_unreachable = 255;  // as ssh's own
constexpr uint64_t boot_patience_ns = 120'000'000'000;

// A server behind the port says who it is; before that the forward takes connections and drops them.
bool answers(uint32_t port) {
  const Fd socket{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return false;
  pollfd ready{socket.get(), POLLIN, 0};
  char greeting[4] = {};
  return ::poll(&ready, 1, 5000) > 0 && ::recv(socket.get(), greeting, 4, 0) == 4 && greeting[0] == 'S';
}

// The port of this host, once the machine's ssh server answers there.
Result<uint32_t> reach(const std::string& name) {
  if (!life::in_path("ssh")) return fail("ssh is not installed on this host; apt-get install openssh-client");
  auto store = store::Store::open();
  if (!store) return std::unexpected(store.error());
  auto folder = store->find(name);
  if (!folder) return std::unexpected(folder.error());
  auto client = life::VmClient::connect(*folder);
  if (!client) return std::unexpected(client.error());
  auto answer = client->ask(control::Query{});
  if (!answer) return std::unexpected(answer.error());
  const auto* status = std::get_if<control::Status>(&answer->event);
  if (status == nullptr) return fail("machine {} has not said what it does", name);
  if (status->state == control::RunState::Paused) {
    return fail("machine {} is paused; go on with: caisson resume {}", name, name);
  }
  const auto forward = std::ranges::find_if(status->forwards, [](const control::PortForward& one) {
    return one.guest_port == life::ssh_guest_port && one.protocol == control::Protocol::Tcp;
  });
  if (forward == status->forwards.end()) {
    return fail("machine {} has no way in by ssh: it is not made from an image, or has no network", name);
  }
  const uint64_t start = EventLoop::now_ns();
  bool told = false;
  while (!answers(forward->host_port)) {
    const uint64_t waited = EventLoop::now_ns() - start;
    if (!folder->alive()) return fail("machine {} has ended", name);
    if (waited > boot_patience_ns) {
      return fail(
          "machine {}: no ssh server answers; an image built by an older version has none: caisson image build --force",
          name);
    }
    if (waited > 1'000'000'000 && !told) {
      fmt::print(stderr, "caisson: waiting for {} to answer\n", name);
      told = true;
    }
    const timespec pause{0, 100'000'000};
    ::nanosleep(&pause, nullptr);
  }
  return forward->host_port;
}

// On the loopback interface there is nobody in between.
std::vector<std::string> options(const std::string& key) {
  return {"-i", key,
          "-o", "IdentitiesOnly=yes",
          "-o", "StrictHostKeyChecking=no",
          "-o", "UserKnownHostsFile=/dev/null",
          "-o", "LogLevel=ERROR",
          "-o", "BatchMode=yes"};
}

int become(std::vector<std::string> words) {
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  ::execvp(arguments[0], arguments.data());
  log::error("{}", fail_errno(errno, "cannot start " + words[0]).error().message);
  return exit_failure;
}

int unreachable(const Error& error) {
  log::error("{}", error.message);
  return exit_unreachable;
}

int run_ssh(const std::string& name, const std::vector<std::string>& first, const std::vector<std::string>& last) {
  auto key = life::ssh_key_file();
  auto port = reach(name);
  if (!key || !port) return unreachable(key ? port.error() : key.error());
  std::vector<std::string> words{"ssh"};
  for (const auto& word : options(*key)) words.push_back(word);
  for (const auto& word : first) words.push_back(word);
  for (const std::string& word : {std::string{"-p"}, std::to_string(*port), std::string{"root@127.0.0.1"}})
    words.push_back(word);
  words.insert(words.end(), last.begin(), last.end());
  return become(std::move(words));
}

}  // namespace

int ssh_command(const std::string& name, const std::vector<std::string>& words) { return run_ssh(name, {}, words); }

int exec_command(const std::string& name, const std::vector<std::string>& words) {
  if (words.empty()) {
    log::error("which command? write for example: caisson exec {} uname -r", name);
    return exit_usage;
  }
  // One word for the shell at the other end, which takes it apart as it was here.
  std::string line;
  for (const auto& word : words) line += (line.empty() ? "" : " ") + in_quotes(word);
  const bool terminal = ::isatty(STDIN_FILENO) == 1 && ::isatty(STDOUT_FILENO) == 1;
  return run_ssh(name, {terminal ? "-t" : "-T"}, {"--", line});
}

int copy_command(const std::string& from, const std::string& to, bool recursive) {
  // NAME:PATH, as with scp: a slash before the colon makes it a path of this host.
  const auto machine_in = [](const std::string& text) -> std::string {
    const size_t colon = text.find(':');
    return colon == std::string::npos || colon == 0 || text.find('/') < colon ? "" : text.substr(0, colon);
  };
  const std::string source = machine_in(from);
  const std::string target = machine_in(to);
  if (source.empty() == target.empty()) {
    log::error("write caisson cp FILE NAME:PATH, or caisson cp NAME:PATH FILE");
    return exit_usage;
  }
  auto key = life::ssh_key_file();
  auto port = reach(source + target);
  if (!key || !port) return unreachable(key ? port.error() : key.error());
  const auto place = [](const std::string& text, const std::string& machine) {
    if (!machine.empty()) return "root@127.0.0.1" + text.substr(machine.size());
    return text.find(':') == std::string::npos || text.front() == '/' ? text : "./" + text;
  };
  std::vector<std::string> words{"scp", "-q", "-p"};
  if (recursive) words.emplace_back("-r");
  for (const auto& word : options(*key)) words.push_back(word);
  words.insert(words.end(), {"-P", std::to_string(*port), "--", place(from, source), place(to, target)});
  return become(std::move(words));
}

}  // namespace caisson::cli
