#include "cli/life_cli.h"

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>

#include "cli/device_commands.h"
#include "cli/events_command.h"
#include "cli/guest_copy.h"
#include "cli/guest_exec.h"
#include "cli/life_commands.h"
#include "cli/list_commands.h"
#include "cli/ssh_access.h"
#include "cli/stats_command.h"

namespace caisson::cli {

struct LifeCli {
  Names names;
  std::string name;
  std::string to;
  std::optional<unsigned> timeout_s;
  std::optional<unsigned> lines;
  std::string from;
  std::vector<std::string> add, remove;
  std::vector<std::string> disks;
  std::string net, item;
  bool recursive = false;
  bool all = false;
  bool quiet = false;
  bool force = false;
  bool json = false;
  bool follow = false;
  StatsOptions stats;
  EventsOptions events;
  bool dry_run = false;
  std::vector<std::pair<CLI::App*, std::function<int()>>> commands;
};

std::shared_ptr<LifeCli> add_life(CLI::App& app) {
  auto made = std::make_shared<LifeCli>();
  LifeCli& cli = *made;
  const auto add = [&](const char* command, const char* what, std::function<int()> work) {
    CLI::App* const added = app.add_subcommand(command, what);
    cli.commands.emplace_back(added, std::move(work));
    return added;
  };
  const auto many = [&](const char* command, const char* what, std::function<int()> work) {
    CLI::App* const added = add(command, what, std::move(work));
    added->add_option("NAME", cli.names, "machines")->required();
    return added;
  };
  const auto one = [&](const char* command, const char* what, std::function<int()> work) {
    CLI::App* const added = add(command, what, std::move(work));
    added->add_option("NAME", cli.name, "the machine")->required();
    return added;
  };
  // What changes something may be asked what it would do.
  const auto dry = [&](CLI::App* command) {
    command->add_flag("--dry-run", cli.dry_run, "say what would be done, and whether it could be, and do nothing");
    return command;
  };
  const auto timeout = [&](CLI::App* command) {
    command
        ->add_option("-t,--timeout", cli.timeout_s, "seconds for shutting down; default: the machine's --stop-timeout")
        ->type_name("SECONDS")
        ->check(CLI::Range(0u, 86400u));
  };
  dry(many("start", "Start machines that run on their own",
           [&cli] { return cli.dry_run ? would(Operation::Start, cli.names) : start_command(cli.names); }));
  timeout(dry(many("stop", "Ask its agent and press the power button, then insist", [&cli] {
    return cli.dry_run ? would(Operation::Stop, cli.names) : stop_command(cli.names, cli.timeout_s);
  })));
  timeout(dry(many("restart", "Stop and start again", [&cli] {
    return cli.dry_run ? would(Operation::Restart, cli.names) : restart_command(cli.names, cli.timeout_s);
  })));
  dry(many("kill", "Stop at once, as pulling the plug",
           [&cli] { return cli.dry_run ? would(Operation::Kill, cli.names) : kill_command(cli.names); }));
  dry(many("reset", "Press the reset button",
           [&cli] { return cli.dry_run ? would(Operation::Reset, cli.names) : reset_command(cli.names); }));
  dry(many("pause", "Have CPUs and clocks stand still",
           [&cli] { return cli.dry_run ? would(Operation::Pause, cli.names) : pause_command(cli.names); }));
  dry(many("resume", "Go on after pause",
           [&cli] { return cli.dry_run ? would(Operation::Resume, cli.names) : resume_command(cli.names); }));
  dry(many("rm", "Remove machines with their own disks", [&cli] {
    return cli.dry_run ? would(cli.force ? Operation::ForcedRemove : Operation::Remove, cli.names)
                       : remove_command(cli.names, cli.force);
  }))->add_flag("-f,--force", cli.force, "those that run as well: they are stopped at once");
  dry(one("rename", "Give a machine another name", [&cli] { return rename_command(cli.name, cli.to, cli.dry_run); }))
      ->add_option("NEW-NAME", cli.to, "its new name")
      ->required();
  auto* ps = add("ps", "List machines that run", [&cli] { return ps_command(cli.all, cli.quiet, cli.json); });
  ps->add_flag("-a,--all", cli.all, "those that do not run as well");
  ps->add_flag("-q,--quiet", cli.quiet, "their names only");
  ps->add_flag("--json", cli.json, "as JSON");
  auto* stats =
      add("stats", "What machines use of this host: CPUs and memory", [&cli] { return stats_command(cli.stats); });
  stats->add_option("NAME", cli.stats.names, "machines; default: all that run");
  stats->add_flag("-f,--follow", cli.stats.follow, "again every two seconds");
  stats->add_flag("--json", cli.stats.json, "as JSON; with --follow one line each time");
  add("top", "The same all the time, what uses most first; Ctrl-C ends it", [&cli] {
    cli.stats.follow = cli.stats.by_use = true;
    return stats_command(cli.stats);
  });
  auto* events = add("events", "What happened to machines: made, started, ended, killed …",
                     [&cli] { return events_command(cli.events); });
  events->add_option("NAME", cli.events.names, "machines; default: all");
  events->add_flag("-f,--follow", cli.events.follow, "what happens from now on, until Ctrl-C");
  events->add_option("--since", cli.events.since, "only what is newer, also before --follow")->type_name("SPAN|TIME");
  events->add_flag("--json", cli.events.json, "as JSON lines");
  events->footer("Examples:\n  caisson events web --since 2h\n  caisson events --follow --json");
  many("inspect", "All that is known of machines, as JSON", [&cli] { return inspect_command(cli.names); });
  auto* logs = one("logs", "What a machine has printed on its console",
                   [&cli] { return logs_command(cli.name, cli.lines, cli.follow); });
  logs->add_option("-n,--lines", cli.lines, "only the last lines")->type_name("N");
  logs->add_flag("-f,--follow", cli.follow, "go on until the machine ends");
  one("console", "A machine's console on this terminal; Ctrl-] q leaves it",
      [&cli] { return console_command(cli.name); });
  one("wait", "Wait for a machine's end; the exit status is that of run", [&cli] { return wait_command(cli.name); });
  auto* port = dry(one("port", "List a machine's port forwards, or change them, at once and for later",
                       [&cli] { return port_command(cli.name, cli.add, cli.remove, cli.json, cli.dry_run); }));
  port->add_option("--add", cli.add, "a further one; again for more")
      ->type_name("[udp:][ADDRESS:]HOST:GUEST")
      ->take_all()
      ->allow_extra_args(false);
  port->add_option("--rm", cli.remove, "take away the one of this port of the host; again for more")
      ->type_name("[udp:][ADDRESS:]HOST")
      ->take_all()
      ->allow_extra_args(false);
  port->add_flag("--json", cli.json, "as JSON");
  auto* attach = dry(one("attach", "Give a machine a disk or a network card, at once and for later",
                         [&cli] { return attach_command(cli.name, cli.disks, cli.net, cli.dry_run); }));
  attach->add_option("--disk", cli.disks, "a disk, as of run; again for more")
      ->type_name("FILE[,ro][,format=…][,bus=…][,bps=N][,iops=N]")
      ->take_all()
      ->allow_extra_args(false);
  attach
      ->add_option("--net", cli.net,
                   "a network card, for a machine that has none: user, user,model=e1000; also with bps=10M or pps=5000")
      ->type_name("KIND");
  auto* detach = dry(one("detach", "Take a disk or the network card from a machine, at once and for later",
                         [&cli] { return detach_command(cli.name, cli.item, cli.dry_run); }));
  detach->add_option("ITEM", cli.item, "a disk's path or file name, or net")->required();
  // What follows the machine's name is not ours, options included.
  const auto foreign = [&](const char* command, const char* what, int (*work)(const std::string&, const Names&)) {
    CLI::App* const added = one(command, what, [] { return 0; });
    added->prefix_command();
    cli.commands.back().second = [&cli, added, work] {
      auto words = added->remaining();
      if (!words.empty() && words.front() == "--") words.erase(words.begin());
      return work(cli.name, words);
    };
    return added;
  };
  foreign("ssh", "A shell in a machine of an image, as root; it waits for the machine to come up", ssh_command)
      ->footer("Examples:\n  caisson ssh web\n  caisson ssh web -- -N -L 5432:localhost:5432");
  foreign("exec", "Run a command in a machine of an image, as root; the exit status is the command's", exec_command)
      ->footer("Example:\n  caisson exec web uname -r");
  auto* copy = dry(add("cp", "Copy files into or out of a machine of an image",
                       [&cli] { return copy_command(cli.from, cli.to, cli.recursive, cli.dry_run); }));
  copy->add_option("FROM", cli.from, "FILE or NAME:PATH")->required();
  copy->add_option("TO", cli.to, "NAME:PATH or FILE")->required();
  copy->add_flag("-r,--recursive", cli.recursive, "folders with what is in them");
  copy->footer("Examples:\n  caisson cp site.tar web:/srv/\n  caisson cp web:/etc/hostname .");
  return made;
}

std::optional<int> run_life(const LifeCli& given) {
  for (const auto& [command, work] : given.commands) {
    if (command->parsed()) return work();
  }
  return std::nullopt;
}

}  // namespace caisson::cli
