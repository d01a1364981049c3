#include "cli/completion.h"

#include <algorithm>
#include <utility>
#include <vector>

#include <fmt/core.h>
#include <CLI/CLI.hpp>

#include "base/log.h"
#include "cli/exit_status.h"
#include "cli/shell_quotes.h"

namespace caisson::cli {
namespace {

struct Command {
  std::string path;  // "image build"; empty: none yet
  std::string what;
  std::vector<std::string> commands;
  std::vector<std::pair<std::string, std::string>> options;  // "--memory", and what it is
  bool machines = false;                                     // it takes names of machines
};

void collect(const CLI::App& app, const std::string& path, std::vector<Command>& into) {
  Command command{path, app.get_description(), {}, {}, false};
  for (const CLI::Option* option : app.get_options()) {
    for (const auto& name : option->get_lnames()) command.options.emplace_back("--" + name, option->get_description());
    for (const auto& name : option->get_snames()) command.options.emplace_back("-" + name, option->get_description());
    const std::string& place = option->get_name(true, false);
    if (place == "NAME" || place == "MACHINE") command.machines = true;
  }
  const auto below = app.get_subcommands([](const CLI::App*) { return true; });
  for (const CLI::App* one : below) command.commands.push_back(one->get_name());
  into.push_back(std::move(command));
  for (const CLI::App* one : below) collect(*one, path.empty() ? one->get_name() : path + " " + one->get_name(), into);
}

// Of a description its first line.
std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

void print_bash(const std::vector<Command>& commands) {
  fmt::print(
      "# Completion of caisson for bash; made by: caisson completion bash\n"
      "_caisson() {{\n"
      "  local word=${{COMP_WORDS[COMP_CWORD]}} path= known= i candidates names=\n"
      "  for ((i = 1; i < COMP_CWORD; i++)); do\n"
      "    case \"$path ${{COMP_WORDS[i]}}\" in\n");
  for (const Command& command : commands) {
    if (!command.path.empty())
      fmt::print("      {}) path={} ;;\n", in_quotes(" " + command.path), in_quotes(" " + command.path));
  }
  fmt::print("    esac\n  done\n  case \"${{path# }}\" in\n");
  for (const Command& command : commands) {
    std::string words;
    for (const auto& name : command.commands) words += name + " ";
    std::string options;
    for (const auto& option : command.options) options += option.first + " ";
    fmt::print("    {}) candidates={}; known={}; names={} ;;\n", in_quotes(command.path), in_quotes(words),
               in_quotes(options), command.machines ? "yes" : "");
  }
  fmt::print(
      "  esac\n"
      "  [[ $word == -* ]] && candidates=$known\n"
      "  [[ $word != -* && -n $names ]] && candidates=$(caisson ps -aq 2>/dev/null)\n"
      "  mapfile -t COMPREPLY < <(compgen -W \"$candidates\" -- \"$word\")\n"
      "}}\n"
      "complete -o default -F _caisson caisson\n");
}

void print_fish(const std::vector<Command>& commands) {
  fmt::print("# Completion of caisson for fish; made by: caisson completion fish\n");
  for (const Command& command : commands) {
    std::string when = command.path.empty() ? "__fish_use_subcommand" : "";
    for (size_t start = 0; start < command.path.size();) {
      const size_t end = std::min(command.path.find(' ', start), command.path.size());
      when +=
          (when.empty() ? "" : "; and ") + ("__fish_seen_subcommand_from " + command.path.substr(start, end - start));
      start = end + 1;
    }
    const std::string condition = "-n " + in_quotes(when);
    for (const auto& name : command.commands) {
      const std::string path = command.path.empty() ? name : command.path + " " + name;
      const auto found =
          std::find_if(commands.begin(), commands.end(), [&](const Command& one) { return one.path == path; });
      fmt::print("complete -c caisson {} -f -a {} -d {}\n", condition, name, in_quotes(first_line(found->what)));
    }
    for (const auto& [option, what] : command.options) {
      const bool lone = option.size() == 2;
      fmt::print("complete -c caisson {} -{} {} -d {}\n", condition, lone ? "s" : "l", option.substr(lone ? 1 : 2),
                 in_quotes(first_line(what)));
    }
    if (command.machines) fmt::print("complete -c caisson {} -a '(caisson ps -aq 2>/dev/null)'\n", condition);
  }
}

}  // namespace

int completion(const CLI::App& app, const std::string& shell) {
  std::vector<Command> commands;
  collect(app, "", commands);
  if (shell == "bash") {
    print_bash(commands);
  } else if (shell == "zsh") {
    fmt::print("#compdef caisson\nautoload -U +X bashcompinit && bashcompinit\n");
    print_bash(commands);
  } else if (shell == "fish") {
    print_fish(commands);
  } else {
    log::error("{}: no such shell; write bash, zsh or fish", shell);
    return exit_usage;
  }
  return exit_ok;
}

}  // namespace caisson::cli
