#include <algorithm>
#include <charconv>
#include <utility>

#include <arpa/inet.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/bodies.h"
#include "api/handlers.h"
#include "base/tsc_reading.h"
#include "base/utc.h"
#include "life/creation.h"
#include "life/feed.h"
#include "life/forwards.h"
#include "life/host.h"
#include "life/launch.h"
#include "life/look.h"
#include "life/machines.h"
#include "life/vnc_socket.h"
#include "life/would.h"

namespace caisson::api {
namespace {

using control::Json;
using store::Store;
using store::VmFolder;

Answer broken_store(const Error& error) { return problem(500, error.message); }

Answer ask(Call& call, const control::Request& request, std::optional<life::Operation> operation = {}) {
  const auto folder = machine_of(call);
  if (!folder) return folder.error();
  if (operation && call.dry_run()) return would(life::would(*operation, *folder));
  if (auto done = life::ask(*folder, request); !done) return conflict(done.error());
  return no_content();
}

Result<> check_host(uint64_t memory_bytes) {
  const uint64_t host = life::host_memory_bytes();
  if (host != 0 && memory_bytes > host) {
    return fail("memory_bytes is {}, more than this host has ({})", memory_bytes, host);
  }
  return {};
}

// What the configuration itself does not check.
Result<> check_change(const life::Change& change) {
  if (change.vnc && !change.vnc->empty()) {
    if (auto ok = life::check_vnc(*change.vnc); !ok) return ok;
  }
  if (change.vnc_password_file && !change.vnc_password_file->empty() && change.vnc_password_file->front() != '/') {
    return fail("vnc_password_file {}: write an absolute path of the host", *change.vnc_password_file);
  }
  return {};
}

Result<life::NewMachine> to_new(CreateMachine wish) {
  life::NewMachine made;
  made.name = wish.name;
  if (auto ok = check_change(wish); !ok) return std::unexpected(ok.error());
  if (wish.memory_now_bytes) return fail("memory_now_bytes is for a machine that runs");
  store::VmSpec& spec = made.spec;
  if (!wish.image.empty()) {
    auto image = life::parse_image_name(wish.image);
    if (!image) return std::unexpected(image.error());
    if (wish.firmware != control::FirmwareKind::None) return fail("firmware starts what is on disks; leave out image");
    if (wish.disks.size() >= control::VmConfig::max_disks) return fail("disks: too many besides the image's");
    made.image = *image;
    if (!image->built_here() && wish.kernel.empty()) {
      const auto manifest = life::manifest_of(*image);
      if (!manifest) return std::unexpected(manifest.error());
      wish.firmware = life::firmware_of(manifest->boot);
    }
  }
  if (wish.seed) {
    if (auto ok = life::check(*wish.seed); !ok) return std::unexpected(ok.error());
    if (wish.disks.size() + (made.image ? 1 : 0) >= control::VmConfig::max_disks) {
      return fail("disks: too many besides the seed's");
    }
    made.seed = std::move(wish.seed);
  }
  std::vector<std::string> paths{wish.kernel, wish.initrd, wish.firmware_vars};
  for (const auto& disk : wish.disks) paths.push_back(disk.path);
  for (const std::string& path : paths) {
    if (!path.empty() && path.front() != '/') return fail("{}: write an absolute path of the host", path);
  }
  const auto append =
      life::command_line(made.image ? life::default_append(made.image->text()) : "", wish.append.value_or(""));
  if (!append) return with_context("append", append.error());
  spec.created_ms = utc_ms();
  spec.cpus = std::min(2u, life::host_cpus());
  spec.memory_bytes = life::usual_memory(life::host_memory_bytes());
  spec.net = control::NetKind::User;
  spec.firmware = wish.firmware;
  const bool direct = !wish.kernel.empty() || !wish.initrd.empty() || wish.append;
  if (spec.firmware != control::FirmwareKind::None && direct) {
    return fail("firmware starts what is on the disks; leave out kernel, initrd and append");
  }
  spec.kernel = std::move(wish.kernel);
  spec.initrd = std::move(wish.initrd);
  spec.firmware_vars = std::move(wish.firmware_vars);
  spec.disks = std::move(wish.disks);
  spec.backing_folders = std::move(wish.backing_folders);
  spec.boot_first = wish.boot_first;
  spec.transient = wish.transient;
  wish.append = *append;
  made.disk_limits = std::exchange(wish.disk_limits, {});  // of the image's disk as well
  if (auto ok = life::apply(wish, spec); !ok) return std::unexpected(ok.error());
  // Whether it is whole; what an image will give stands for itself.
  store::VmSpec whole = spec;
  if (made.image && whole.kernel.empty() && whole.firmware == control::FirmwareKind::None)
    whole.kernel = life::kernel_file;
  if (auto ok = whole.validate(); !ok) return std::unexpected(ok.error());
  if (auto ok = check_host(spec.memory_bytes); !ok) return std::unexpected(ok.error());
  if (auto ok = store::check_name("name", made.name); !ok) return std::unexpected(ok.error());
  return made;
}

// A picture or text by the machine's own process.
Result<std::string> take_screenshot(const VmFolder& folder, bool text) {
  constexpr uint64_t most = 64 << 20;
  const Fd memory{::memfd_create("screenshot", MFD_CLOEXEC)};
  if (!memory.valid()) return fail_errno(errno, "cannot make memory for a picture");
  auto client = life::VmClient::connect(folder);
  if (!client) return std::unexpected(client.error());
  const std::vector<int> fds{memory.get()};
  if (auto done = client->ask(control::Screenshot{text}, 10'000, fds); !done) return std::unexpected(done.error());
  struct stat status {};
  if (::fstat(memory.get(), &status) != 0 || static_cast<uint64_t>(status.st_size) > most) {
    return fail("machine {} has given no picture", folder.name());
  }
  std::string bytes(static_cast<size_t>(status.st_size), '\0');
  if (::pread(memory.get(), bytes.data(), bytes.size(), 0) != status.st_size) {
    return fail("machine {} has given half a picture", folder.name());
  }
  return bytes;
}

}  // namespace

Answer conflict(const Error& error) { return problem(409, error.message); }
Answer no_content() { return {204, "", "", {}}; }

std::expected<VmFolder, Answer> machine_of(const Call& call) {
  auto store = Store::open();
  if (!store) return std::unexpected(broken_store(store.error()));
  auto folder = store->find(call.word("name"));
  if (!folder) return std::unexpected(problem(404, folder.error().message));
  return std::move(*folder);
}

Answer show(unsigned status, const std::string& name) {
  auto store = Store::open();
  if (!store) return broken_store(store.error());
  const auto list = life::look(*store, {name});
  if (list.empty()) return problem(404, fmt::format("machine {} has been removed or renamed", name));
  return json_answer(status, life::to_json(list.front()));
}

Answer json_answer(unsigned status, const Json& json) { return {status, control::dump_json(json) + "\n"}; }

Answer list_machines(Call& call) {
  auto store = Store::open();
  if (!store) return broken_store(store.error());
  if (call.caller.role != Role::Viewer) store->sweep();  // who only looks changes nothing, what is left behind neither
  const auto names = store->names();
  if (!names) return broken_store(names.error());
  Json list = Json::array();
  for (const life::Listed& one : life::look(*store, *names)) list.push_back(life::to_json(one));
  return json_answer(200, {{"machines", list}});
}

Answer create_machine(Call& call) {
  auto wish = body_as<CreateMachine>(call);
  if (!wish) return wish.error();
  auto made = to_new(std::move(*wish));
  if (!made) return problem(422, made.error().message);
  auto store = Store::open();
  if (!store) return broken_store(store.error());
  const std::string name = made->name;
  const bool transient = made->spec.transient;
  if (call.dry_run()) {
    if (auto ok = life::check_creation(*store, *made); !ok) return conflict(ok.error());
    return would(fmt::format("make {}{}", name, transient ? " and start it" : ""));
  }
  auto placed = life::create(*store, std::move(*made), {});
  if (!placed) return conflict(placed.error());
  if (transient) {
    // With the lock held all the time: one that does not run would be swept away.
    const auto process = life::start_locked(placed->draft.folder, read_tsc());
    if (!process) {
      (void)store->remove(placed->draft.folder, placed->draft.lock);
      return conflict(process.error());
    }
    call.services.children.add(*process);
  }
  placed->draft.lock.reset();
  Answer answer = show(201, name);
  if (answer.status == 201) answer.headers.emplace_back("Location", "/v1/machines/" + name);
  return answer;
}

Answer get_machine(Call& call) {
  const auto folder = machine_of(call);
  return folder ? show(200, folder->name()) : folder.error();
}

Answer change_machine(Call& call) {
  const auto folder = machine_of(call);
  if (!folder) return folder.error();
  auto change = body_as<life::Change>(call);
  if (!change) return change.error();
  if (auto ok = check_change(*change); !ok) return problem(422, ok.error().message);
  auto spec = folder->spec();
  if (!spec) return conflict(spec.error());
  if (change->append) {
    auto append = life::command_line(life::default_append(spec->image), *change->append);
    if (!append) return problem(422, "append: " + append.error().message);
    change->append = *append;
  }
  if (auto ok = life::apply(*change, *spec); !ok) return problem(422, ok.error().message);
  if (auto ok = spec->validate(); !ok) return problem(422, ok.error().message);
  if (auto ok = check_host(spec->memory_bytes); change->memory_bytes && !ok) return problem(422, ok.error().message);
  if (call.dry_run()) {
    if (change->memory_now_bytes && !folder->alive()) {
      return problem(409, fmt::format("machine {} is not running", folder->name()));
    }
    return would("change " + folder->name());
  }
  if (auto done = life::set(*folder, *change); !done) return conflict(done.error());
  return show(200, folder->name());
}

Answer remove_machine(Call& call) {
  const auto folder = machine_of(call);
  if (!folder) return folder.error();
  const bool force = call.flag("force");
  if (call.dry_run()) {
    return would(life::would(force ? life::Operation::ForcedRemove : life::Operation::Remove, *folder));
  }
  if (auto done = life::remove(*folder, force, {}); !done) return conflict(done.error());
  return no_content();
}

Answer add_forward(Call& call) {
  const auto folder = machine_of(call);
  if (!folder) return folder.error();
  const auto forward = body_as<control::PortForward>(call);
  if (!forward) return forward.error();
  in_addr address{};
  if (::inet_pton(AF_INET, forward->host_address.c_str(), &address) != 1) {
    return problem(422, "host_address: not an IPv4 address such as 127.0.0.1");
  }
  const auto really = call.dry_run() ? life::Really::No : life::Really::Yes;
  if (auto done = life::add_forward(*folder, *forward, really); !done) return conflict(done.error());
  if (call.dry_run()) {
    return would(fmt::format("forward {}:{} to port {} of {}", forward->host_address, forward->host_port,
                             forward->guest_port, folder->name()));
  }
  return show(200, folder->name());
}

Answer remove_forward(Call& call) {
  const auto folder = machine_of(call);
  if (!folder) return folder.error();
  life::HostPort which;
  const std::string& protocol = call.word("protocol");
  const std::string& port = call.word("port");
  if (protocol != "tcp" && protocol != "udp") return problem(404, "protocol: tcp or udp");
  if (protocol == "udp") which.protocol = control::Protocol::Udp;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), which.port);
  if (error != std::errc{} || end != port.data() + port.size()) return problem(404, "port: not a number");
  const auto really = call.dry_run() ? life::Really::No : life::Really::Yes;
  if (auto done = life::remove_forward(*folder, which, really); !done) return conflict(done.error());
  if (call.dry_run()) return would(fmt::format("take away the forward of port {} of {}", which.port, folder->name()));
  return no_content();
}

Answer start_machine(Call& call) {
  const auto folder = machine_of(call);
  if (!folder) return folder.error();
  if (call.dry_run()) return would(life::would(life::Operation::Start, *folder));
  const auto process = life::start_machine(*folder, read_tsc());
  if (!process) return conflict(process.error());
  call.services.children.add(*process);
  return show(200, folder->name());
}

Answer stop_machine(Call& call) {
  const auto folder = machine_of(call);
  if (!folder) return folder.error();
  const auto body = body_as<StopMachine>(call);
  if (!body) return body.error();
  if (call.dry_run()) return would(life::would(life::Operation::Stop, *folder));
  if (!folder->alive()) return problem(409, fmt::format("machine {} is not running", folder->name()));
  return start_job(call, "stopMachine", folder->name(),
                   [name = folder->name(), timeout_s = body->timeout_s](const life::Follow& follow) -> Result<> {
                     auto found = life::find(name);
                     if (!found) return std::unexpected(found.error());
                     return life::stop(*found, timeout_s, follow);
                   });
}

Answer restart_machine(Call& call) {
  const auto folder = machine_of(call);
  if (!folder) return folder.error();
  const auto body = body_as<StopMachine>(call);
  if (!body) return body.error();
  if (call.dry_run()) return would(life::would(life::Operation::Restart, *folder));
  return start_job(call, "restartMachine", folder->name(),
                   [name = folder->name(), timeout_s = body->timeout_s,
                    &children = call.services.children](const life::Follow& follow) -> Result<> {
                     auto found = life::find(name);
                     if (!found) return std::unexpected(found.error());
                     const auto process = life::restart(*found, timeout_s, follow);
                     if (!process) return std::unexpected(process.error());
                     children.add(*process);
                     return {};
                   });
}

Answer kill_machine(Call& call) {
  const auto folder = machine_of(call);
  if (!folder) return folder.error();
  if (call.dry_run()) return would(life::would(life::Operation::Kill, *folder));
  if (auto done = life::kill(*folder, {}); !done) return conflict(done.error());
  return no_content();
}

Answer reset_machine(Call& call) { return ask(call, control::Reset{}, life::Operation::Reset); }
Answer press_power_button(Call& call) { return ask(call, control::PowerButton{}, life::Operation::PowerButton); }
Answer pause_machine(Call& call) { return ask(call, control::Pause{}, life::Operation::Pause); }
Answer resume_machine(Call& call) { return ask(call, control::Resume{}, life::Operation::Resume); }

Answer rename_machine(Call& call) {
  const auto folder = machine_of(call);
  if (!folder) return folder.error();
  const auto body = body_as<RenameMachine>(call);
  if (!body) return body.error();
  if (auto ok = store::check_name("name", body->name); !ok) return problem(422, ok.error().message);
  if (call.dry_run()) {
    auto store = Store::open();
    if (!store) return broken_store(store.error());
    if (auto ok = life::check_new(*store, body->name); !ok) return conflict(ok.error());
    return would(fmt::format("rename {} to {}", folder->name(), body->name));
  }
  if (auto done = life::rename(*folder, body->name); !done) return conflict(done.error());
  return show(200, body->name);
}

Answer point(Call& call) {
  const auto body = body_as<control::Point>(call);
  if (!body) return body.error();
  return ask(call, *body);
}

Answer type_text(Call& call) {
  const auto folder = machine_of(call);
  if (!folder) return folder.error();
  const auto body = body_as<TypeText>(call);
  if (!body) return body.error();
  if (!folder->alive()) return problem(409, fmt::format("machine {} is not running", folder->name()));
  // A long text is typed as slowly as the guest takes it.
  return start_job(call, "typeText", folder->name(),
                   [name = folder->name(), text = body->text](const life::Follow&) -> Result<> {
                     auto found = life::find(name);
                     if (!found) return std::unexpected(found.error());
                     return life::ask(*found, control::Type{text}, 60'000);
                   });
}

Answer get_logs(Call& call) {
  const auto folder = machine_of(call);
  if (!folder) return folder.error();
  std::optional<unsigned> lines;
  if (const std::string* given = call.parameter("lines")) lines = static_cast<unsigned>(std::stoul(*given));
  return {200, life::console_text(*folder, lines).text, "text/plain; charset=utf-8", {}};
}

Answer get_record(Call& call) {
  const auto folder = machine_of(call);
  if (!folder) return folder.error();
  Json list = Json::array();
  for (const store::TimedEvent& event : folder->events()) list.push_back(life::event_json(folder->name(), event));
  return json_answer(200, {{"events", list}});
}

Answer get_screenshot(Call& call) {
  const auto folder = machine_of(call);
  if (!folder) return folder.error();
  const bool as_text = call.flag("text");
  auto bytes = take_screenshot(*folder, as_text);
  if (!bytes) return conflict(bytes.error());
  return {200, std::move(*bytes), as_text ? "text/plain; charset=utf-8" : "image/png", {}};
}

}  // namespace caisson::api
