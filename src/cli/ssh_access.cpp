#include "cli/ssh_access.h"

#include <cerrno>

#include <unistd.h>

#include "base/log.h"
#include "cli/exit_status.h"
#include "cli/shell_quotes.h"
#include "cli/way_in.h"
#include "life/ssh_key.h"

namespace caisson::cli {
namespace {

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

int run_ssh(uint32_t port, const std::vector<std::string>& first, const std::vector<std::string>& last) {
  auto key = life::ssh_key_file();
  if (!key) return unreachable(key.error());
  std::vector<std::string> words{"ssh"};
  for (const auto& word : options(*key)) words.push_back(word);
  for (const auto& word : first) words.push_back(word);
  for (const std::string& word : {std::string{"-p"}, std::to_string(port), std::string{"root@127.0.0.1"}})
    words.push_back(word);
  words.insert(words.end(), last.begin(), last.end());
  return become(std::move(words));
}

}  // namespace

int ssh_command(const std::string& name, const std::vector<std::string>& words) {
  const auto way = way_in(name, Ways::Ssh);
  if (!way) return unreachable(way.error());
  return run_ssh(way->ssh_port, {}, words);
}

int execute_by_ssh(uint32_t port, const std::vector<std::string>& words, bool terminal) {
  // One word for the shell at the other end, which takes it apart as it was here.
  std::string line;
  for (const auto& word : words) line += (line.empty() ? "" : " ") + in_quotes(word);
  return run_ssh(port, {terminal ? "-t" : "-T"}, {"--", line});
}

int copy_by_ssh(uint32_t port, const Copy& copy) {
  auto key = life::ssh_key_file();
  if (!key) return unreachable(key.error());
  const std::string inside = "root@127.0.0.1:" + copy.inside;
  // What has a colon and no slash before it would be taken for a machine.
  const std::string outside =
      copy.outside.find(':') == std::string::npos || copy.outside.front() == '/' ? copy.outside : "./" + copy.outside;
  std::vector<std::string> words{"scp", "-q", "-p"};
  if (copy.recursive) words.emplace_back("-r");
  for (const auto& word : options(*key)) words.push_back(word);
  words.insert(words.end(), {"-P", std::to_string(port), "--"});
  words.push_back(copy.into ? outside : inside);
  words.push_back(copy.into ? inside : outside);
  return become(std::move(words));
}

}  // namespace caisson::cli
