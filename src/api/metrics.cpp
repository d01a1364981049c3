// Prometheus' text exposition format, version 0.0.4.
#include <cstdio>
#include <map>

#include <unistd.h>

#include "api/handlers.h"
#include "life/host.h"
#include "life/process_usage.h"
#include "store/files.h"

namespace caisson::api {
namespace {

class Text {
 public:
  void family(std::string_view name, std::string_view type, std::string_view help) {
    out_ += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
    name_ = name;
  }
  // Names of machines and states need no escapes in labels (store::check_name).
  template <class Number>
  void sample(std::string_view labels, Number value) {
    out_ += labels.empty() ? fmt::format("{} {}\n", name_, value) : fmt::format("{}{{{}}} {}\n", name_, labels, value);
  }
  std::string take() { return std::move(out_); }

 private:
  std::string out_;
  std::string name_;
};

}  // namespace

uint64_t host_available_bytes() {
  const auto text = read_file("/proc/meminfo", 64 * 1024);
  const size_t at = text ? text->find("MemAvailable:") : std::string::npos;
  return at == std::string::npos ? 0 : std::strtoull(text->c_str() + at + 13, nullptr, 10) * 1024;
}

std::string metrics_text(const std::vector<life::Listed>& machines) {
  Text text;
  text.family("caisson_host_cpus", "gauge", "Usable CPUs of this host.");
  text.sample("", life::host_cpus());
  text.family("caisson_host_memory_bytes", "gauge", "Memory of this host.");
  text.sample("", life::host_memory_bytes());
  text.family("caisson_host_memory_available_bytes", "gauge", "Of it, what new work can have.");
  text.sample("", host_available_bytes());
  double load = 0;
  if (::getloadavg(&load, 1) == 1) {
    text.family("caisson_host_load1", "gauge", "Load of this host, average of a minute.");
    text.sample("", load);
  }

  std::map<std::string_view, uint64_t> counts;
  for (const std::string_view state : life::states) counts[state] = 0;
  std::vector<std::string> labels;
  std::vector<std::string> machine_states;
  std::vector<std::optional<life::ProcessUsage>> processes;
  for (const life::Listed& one : machines) {
    labels.push_back(fmt::format("machine=\"{}\"", one.folder.name()));
    machine_states.push_back(life::state_of(one));
    processes.push_back(one.status ? life::usage_of(one.client->pid()) : std::nullopt);
  }
  for (const std::string& state : machine_states) ++counts[*std::ranges::find(life::states, state)];
  text.family("caisson_machines", "gauge", "Machines by state.");
  for (const auto& [state, count] : counts) text.sample(fmt::format("state=\"{}\"", state), count);
  text.family("caisson_machine_state", "gauge", "1 for the state that a machine is in.");
  for (size_t i = 0; i < machines.size(); ++i) {
    text.sample(fmt::format("{},state=\"{}\"", labels[i], machine_states[i]), 1);
  }
  const auto each = [&](std::string_view name, std::string_view type, std::string_view help, auto value) {
    text.family(name, type, help);
    for (size_t i = 0; i < machines.size(); ++i) {
      if (const auto number = value(i)) text.sample(labels[i], *number);
    }
  };
  const auto of_spec = [&](size_t i, auto member) {
    return machines[i].spec ? std::optional{(*machines[i].spec).*member} : std::nullopt;
  };
  const auto of_process = [&](size_t i, auto member) {
    return processes[i] ? std::optional{(*processes[i]).*member} : std::nullopt;
  };
  const auto of_status = [&](size_t i, auto member) {
    return machines[i].status ? std::optional{(*machines[i].status).*member} : std::nullopt;
  };
  each("caisson_machine_cpus", "gauge", "Virtual CPUs.", [&](size_t i) { return of_spec(i, &store::VmSpec::cpus); });
  each("caisson_machine_memory_bytes", "gauge", "The guest's memory.",
       [&](size_t i) { return of_spec(i, &store::VmSpec::memory_bytes); });
  each("caisson_machine_cpu_seconds_total", "counter", "Time on CPUs of the host since its start.",
       [&](size_t i) { return of_process(i, &life::ProcessUsage::cpu_s); });
  each("caisson_machine_resident_bytes", "gauge", "The host's memory that its process takes.",
       [&](size_t i) { return of_process(i, &life::ProcessUsage::resident_bytes); });
  each("caisson_machine_resets_total", "counter", "Resets since its start.",
       [&](size_t i) { return of_status(i, &control::Status::resets); });
  const auto of_balloon = [&](size_t i, uint64_t control::BalloonStatus::*member) -> std::optional<uint64_t> {
    if (!machines[i].status || !machines[i].status->balloon) return std::nullopt;
    return (*machines[i].status->balloon).*member;
  };
  each("caisson_machine_memory_now_bytes", "gauge", "What its balloon leaves the guest of its memory.",
       [&](size_t i) { return of_balloon(i, &control::BalloonStatus::memory_bytes); });
  each("caisson_machine_available_bytes", "gauge", "Of it, what the guest says that programs could have; 0: not said.",
       [&](size_t i) { return of_balloon(i, &control::BalloonStatus::available_bytes); });
  each("caisson_machine_cpu_cap_percent", "gauge", "Of one CPU of the host; 0: no cap.",
       [&](size_t i) { return of_spec(i, &store::VmSpec::cpu_cap_percent); });
  each("caisson_machine_start_time_seconds", "gauge", "When it was started, since 1970.", [&](size_t i) {
    const auto ms = of_status(i, &control::Status::started_ms);
    return ms ? std::optional{static_cast<double>(*ms) / 1000} : std::nullopt;
  });
  return text.take();
}

}  // namespace caisson::api
