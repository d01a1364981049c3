#include "cli/list_commands.h"

#include <algorithm>
#include <cerrno>
#include <ctime>

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "base/utc.h"
#include "base/write_all.h"
#include "cli/exit_status.h"
#include "cli/run_options.h"
#include "cli/table.h"
#include "life/forwards.h"
#include "life/look.h"
#include "life/machines.h"
#include "store/files.h"
#include "store/store.h"

namespace caisson::cli {
namespace {

using Json = nlohmann::json;
using store::Store;
using store::VmFolder;

int report(const Error& error, int status = exit_failure) {
  log::error("{}", error.message);
  return status;
}

std::string span_of(uint64_t from_ms) {
  const uint64_t now_s = utc_ms() / 1000;
  const uint64_t s = now_s > from_ms / 1000 ? now_s - from_ms / 1000 : 0;
  if (s < 60) return fmt::format("{} s", s);
  if (s < 3600) return fmt::format("{} min", s / 60);
  if (s < 2 * 86400) return fmt::format("{} h", s / 3600);
  return fmt::format("{} days", s / 86400);
}

std::string text_of(const control::PortForward& forward) {
  return fmt::format("{}:{}->{}/{}", forward.host_address, forward.host_port, forward.guest_port,
                     forward.protocol == control::Protocol::Tcp ? "tcp" : "udp");
}

std::string ports_of(const life::Listed& one) {
  std::string text;
  if (!one.spec) return text;
  for (const auto& forward : one.status ? one.status->forwards : one.spec->forwards) {
    text += (text.empty() ? "" : ", ") + text_of(forward);
  }
  return text;
}

void print_json(const Json& json) { fmt::print("{}\n", json.dump(2, ' ', false, Json::error_handler_t::replace)); }

// Goes on with the file as it grows, until its machine has ended.
int follow_log(const VmFolder& folder, off_t at) {
  for (;;) {
    const bool alive = folder.alive();
    Fd fd{::open(folder.file(VmFolder::console_log).c_str(), O_RDONLY | O_CLOEXEC)};
    struct stat status {};
    if (!fd.valid() || ::fstat(fd.get(), &status) != 0) return exit_ok;  // removed
    if (status.st_size < at) {
      // Its content has become the older one's.
      const auto old = read_file(folder.file(VmFolder::old_console_log), 8 << 20);
      if (old && static_cast<off_t>(old->size()) > at) {
        if (write_all(STDOUT_FILENO, std::string_view{*old}.substr(static_cast<size_t>(at))) != 0) return exit_ok;
      }
      at = 0;
    }
    std::string part(static_cast<size_t>(status.st_size - at), '\0');
    const ssize_t size = ::pread(fd.get(), part.data(), part.size(), at);
    if (size > 0) {
      if (write_all(STDOUT_FILENO, std::string_view{part}.substr(0, static_cast<size_t>(size))) != 0) return exit_ok;
      at += size;
    } else if (!alive) {
      return exit_ok;
    }
    const timespec pause{0, 100'000'000};
    ::nanosleep(&pause, nullptr);
  }
}

int change_ports(const store::VmFolder& folder, const std::vector<std::string>& add,
                 const std::vector<std::string>& remove, life::Really really) {
  // All are understood before the first is done.
  std::vector<control::PortForward> added;
  std::vector<life::HostPort> removed;
  for (const std::string& text : add) {
    auto forward = parse_forward(text);
    if (!forward) return report(forward.error(), exit_usage);
    added.push_back(*forward);
  }
  for (const std::string& text : remove) {
    auto port = parse_host_port(text);
    if (!port) return report(port.error(), exit_usage);
    removed.push_back(*port);
  }
  for (const life::HostPort& one : removed) {
    if (auto done = life::remove_forward(folder, one, really); !done) return report(done.error());
    if (really == life::Really::No) fmt::print("would take away the forward of port {}\n", one.port);
  }
  for (const control::PortForward& one : added) {
    const bool freed =
        std::ranges::any_of(removed, [&](const life::HostPort& gone) { return gone.port == one.host_port; });
    // What is only looked at is still there.
    if (really == life::Really::Yes || !freed) {
      if (auto done = life::add_forward(folder, one, really); !done) return report(done.error());
    }
    if (really == life::Really::No)
      fmt::print("would forward {}:{} to port {}\n", one.host_address, one.host_port, one.guest_port);
  }
  return exit_ok;
}

}  // namespace

int ps_command(bool all, bool quiet, bool json) {
  auto store = Store::open();
  if (!store) return report(store.error());
  store->sweep();
  const auto names = store->names();
  if (!names) return report(names.error());
  if (quiet && all) {
    for (const std::string& name : *names) fmt::print("{}\n", name);
    return exit_ok;
  }
  auto list = life::look(*store, *names);
  if (!all) std::erase_if(list, [](const life::Listed& one) { return !one.alive; });
  if (json) {
    Json array = Json::array();
    for (const life::Listed& one : list) array.push_back(life::to_json(one));
    print_json(array);
    return exit_ok;
  }
  if (quiet) {
    for (const life::Listed& one : list) fmt::print("{}\n", one.folder.name());
    return exit_ok;
  }
  std::vector<std::vector<std::string>> rows{{"NAME", "STATE", "IMAGE", "CPUS", "MEMORY", "SINCE", "PORTS"}};
  for (const life::Listed& one : list) {
    auto& row = rows.emplace_back(std::vector{one.folder.name(), life::state_of(one)});
    if (!one.spec) {
      row.insert(row.end(), {"-", "-", "-", "-", "caisson inspect " + one.folder.name() + " says what is wrong"});
      continue;
    }
    row.push_back(one.spec->image.empty() ? "-" : one.spec->image);
    row.push_back(fmt::format("{}", one.spec->cpus));
    row.push_back(fmt::format("{} MiB", one.spec->memory_bytes >> 20));
    const auto since = one.status ? std::optional{one.status->started_ms} : one.life.ended_ms;
    row.push_back(since ? span_of(*since) : "-");
    row.push_back(ports_of(one));
  }
  fmt::print("{}", table_text(rows));
  return exit_ok;
}

int inspect_command(const std::vector<std::string>& names) {
  auto store = Store::open();
  if (!store) return report(store.error());
  for (const std::string& name : names) {
    if (auto folder = store->find(name); !folder) return report(folder.error());
  }
  Json array = Json::array();
  for (const life::Listed& one : life::look(*store, names)) array.push_back(life::to_json(one));
  print_json(array);
  return exit_ok;
}

int logs_command(const std::string& name, std::optional<unsigned> lines, bool follow) {
  auto store = Store::open();
  if (!store) return report(store.error());
  auto folder = store->find(name);
  if (!folder) return report(folder.error());
  const life::ConsoleText console = life::console_text(*folder, lines);
  if (const int error = write_all(STDOUT_FILENO, console.text); error != 0 && error != EPIPE) {
    return report(fail_errno(error, "cannot write the log").error());
  }
  return follow ? follow_log(*folder, static_cast<off_t>(console.log_bytes)) : exit_ok;
}

int port_command(const std::string& name, const std::vector<std::string>& add, const std::vector<std::string>& remove,
                 bool json, bool dry_run) {
  auto store = Store::open();
  if (!store) return report(store.error());
  auto folder = store->find(name);
  if (!folder) return report(folder.error());
  if (!add.empty() || !remove.empty())
    return change_ports(*folder, add, remove, dry_run ? life::Really::No : life::Really::Yes);
  const auto list = life::look(*store, {name});
  if (list.empty() || !list.front().spec) {
    return report(list.empty() ? Error{"machine " + name + " has been removed"} : list.front().spec.error());
  }
  const life::Listed& one = list.front();
  Json array = Json::array();
  for (const auto& forward : one.status ? one.status->forwards : one.spec->forwards) {
    if (json) {
      array.push_back(Json{{"protocol", forward.protocol == control::Protocol::Tcp ? "tcp" : "udp"},
                           {"host_address", forward.host_address},
                           {"host_port", forward.host_port},
                           {"guest_port", forward.guest_port}});
    } else {
      fmt::print("{}\n", text_of(forward));
    }
  }
  if (json) print_json(array);
  return exit_ok;
}

}  // namespace caisson::cli
