#include "cli/examples.h"

#include <string>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>

namespace caisson::cli {
namespace {

struct Examples {
  std::vector<const char*> command;  // from the program's first word on
  std::vector<const char*> lines;    // without "caisson"
  const char* behind = nullptr;      // a remark
};

const std::vector<Examples>& table() {
  static const std::vector<Examples> all{
      {{"create"}, {"create debian:12 --name web -p 8080:80", "create --name pc --disk disk.qcow2 --firmware bios"}},
      {{"start"}, {"start web", "start web db"}},
      {{"stop"}, {"stop web", "stop web db --timeout 120"}, "What has not shut down by then is ended."},
      {{"restart"}, {"restart web"}},
      {{"kill"}, {"kill web"}, "The guest may lose what it has not written to its disk; stop lets it."},
      {{"reset"}, {"reset web"}},
      {{"pause"}, {"pause web"}},
      {{"resume"}, {"resume web"}},
      {{"rm"}, {"rm web", "rm -f web db"}, "Disks that were given by --disk stay."},
      {{"rename"}, {"rename web shop"}},
      {{"ps"}, {"ps", "ps --all", "ps --json", "stop $(caisson ps --quiet)"}},
      {{"stats"},
       {"stats", "stats web --json", "stats --follow"},
       "CPU is the share of one CPU of the host over a second; RESIDENT the host's memory that the machine's process "
       "takes."},
      {{"top"}, {"top"}},
      {{"inspect"}, {"inspect web"}},
      {{"logs"}, {"logs web", "logs web --lines 50 --follow"}},
      {{"console"}, {"console web"}},
      {{"wait"}, {"wait web; echo $?"}},
      {{"port"}, {"port web", "port web --add 8080:80", "port web --rm 8080"}},
      {{"attach"},
       {"attach web --disk data.qcow2", "attach web --disk backup.raw,ro,bus=nvme", "attach web --net user"}},
      {{"detach"},
       {"detach web data.qcow2", "detach web net"},
       "A machine that runs is asked to let go of it, and has half a minute; files stay as they are."},
      {{"set"},
       {"set web --memory 4G --cpus 2", "set web -p 8080:80 -p 2222:22", "set web --autostart",
        "set web --disk-limit 0,bps=50M,iops=1000 --net-limit bps=10M", "set web --disk-limit 0,none --cpu-cap 150%",
        "set web --memory-now 512M"}},
      {{"man"}, {"man | man -l -", "man ~/.local/share/man/man1"}},
      {{"image"}, {"image build debian:12", "image ls", "image rm debian:11"}},
      {{"image", "ls"}, {"image ls", "image ls --json"}},
      {{"image", "rm"}, {"image rm debian:11"}},
      {{"disk", "create"}, {"disk create disk.qcow2 20G", "disk create mine.qcow2 --backing base.qcow2"}},
      {{"disk", "info"}, {"disk info disk.qcow2", "disk info disk.qcow2 --json"}},
      {{"disk", "resize"},
       {"disk resize disk.qcow2 +10G", "disk resize disk.raw 5G --shrink"},
       "A disk of a machine that runs grows there: its system sees the new size at once."},
      {{"disk", "convert"}, {"disk convert appliance.vmdk appliance.qcow2"}},
      {{"disk", "map"}, {"disk map disk.qcow2"}},
      {{"screenshot"}, {"screenshot pc screen.png", "screenshot pc screen.txt --text"}},
      {{"type"}, {"type pc 'ls -l<enter>'", "type pc '<ctrl-alt-delete>'"}},
      {{"click"}, {"click pc 320 240", "click pc 100 50 --button right", "click pc 40 60 --double"}},
      {{"move"}, {"move pc 320 240"}},
      {{"vnc"}, {"vnc pc", "vnc pc --stdio"}},
      {{"drag"}, {"drag pc 100 100 300 200"}},
      {{"doctor"}, {"doctor", "doctor --json"}},
      {{"version"}, {"version"}},
  };
  return all;
}

}  // namespace

void add_examples(CLI::App& program) {
  for (const Examples& examples : table()) {
    CLI::App* command = &program;
    for (const char* word : examples.command) command = command->get_subcommand(word);
    std::string text = examples.lines.size() == 1 ? "Example:" : "Examples:";
    for (const char* line : examples.lines) {
      text += std::string{"\n  caisson "} + line;
    }
    if (examples.behind != nullptr) text += std::string{"\n\n"} + examples.behind;
    command->footer(text);
  }
}

}  // namespace caisson::cli
