#include "cli/device_commands.h"

#include <fmt/core.h>

#include "base/log.h"
#include "cli/exit_status.h"
#include "cli/run_options.h"
#include "life/devices.h"
#include "life/machines.h"

namespace caisson::cli {
namespace {

constexpr std::string_view net_item = "net";

int report(const Error& error, int status = exit_failure) {
  log::error("{}", error.message);
  return status;
}

void say_dry(const store::VmFolder& folder, std::string_view what, std::string_view item) {
  fmt::print("would {} {}: {}\n", what, item, folder.alive() ? "at once, and for later" : "from its next start on");
}

}  // namespace

int attach_command(const std::string& name, const std::vector<std::string>& disks, const std::string& net,
                   bool dry_run) {
  if (disks.empty() && net.empty()) return report({"attach: say what: --disk FILE or --net user"}, exit_usage);
  std::vector<store::DiskSpec> specs;
  for (const std::string& text : disks) {
    const auto disk = parse_disk(text);
    if (!disk) return report(disk.error(), exit_usage);
    specs.push_back(to_spec(*disk));
  }
  const auto card = net.empty() ? NetOption{} : parse_net(net);
  if (!card) return report(card.error(), exit_usage);
  if (card->kind == control::NetKind::None) {
    return report(
        {"attach --net none: nothing to attach; write user, or detach the card with: caisson detach " + name + " net"},
        exit_usage);
  }
  const auto folder = life::find(name);
  if (!folder) return report(folder.error());
  const auto really = dry_run ? life::Really::No : life::Really::Yes;
  for (const store::DiskSpec& disk : specs) {
    if (auto done = life::attach_disk(*folder, disk, really); !done) return report(done.error());
    if (dry_run) say_dry(*folder, "attach", "disk " + disk.path);
  }
  if (net.empty()) return exit_ok;
  if (auto done = life::attach_net(*folder, card->card, card->limit, really); !done) return report(done.error());
  if (dry_run) say_dry(*folder, "attach", "a network card");
  return exit_ok;
}

int detach_command(const std::string& name, const std::string& item, bool dry_run) {
  const auto folder = life::find(name);
  if (!folder) return report(folder.error());
  const auto really = dry_run ? life::Really::No : life::Really::Yes;
  const auto done = item == net_item ? life::detach_net(*folder, really) : life::detach_disk(*folder, item, really);
  if (!done) return report(done.error());
  if (dry_run) say_dry(*folder, "detach", item == net_item ? "the network card" : "disk " + item);
  return exit_ok;
}

}  // namespace caisson::cli
