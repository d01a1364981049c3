// Inside of a machine's guest, by its agent. These wait for the guest, some of them at once: the rest of the pool is
// for others.
#include "api/bodies.h"
#include "api/handlers.h"
#include "life/guest_agent.h"
#include "store/files.h"

namespace caisson::api {
namespace {

class Place {
 public:
  explicit Place(Services& services)
      : count_(services.guest_calls), free_(count_.fetch_add(1) < Services::most_guest_calls) {}
  ~Place() { count_.fetch_sub(1); }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;
  [[nodiscard]] bool free() const { return free_; }

 private:
  std::atomic<unsigned>& count_;
  const bool free_;
};

Answer too_many() {
  return problem(
      429, fmt::format("{} calls wait for guests already; try again when one has ended", Services::most_guest_calls));
}

// The one of the address, which runs.
std::expected<store::VmFolder, Answer> running(const Call& call) {
  auto folder = machine_of(call);
  if (folder && !folder->alive()) {
    return std::unexpected(problem(409, fmt::format("machine {} is not running; start it first", folder->name())));
  }
  return folder;
}

}  // namespace

Answer run_command(Call& call) {
  const auto folder = machine_of(call);
  if (!folder) return folder.error();
  auto body = body_as<RunCommand>(call);
  if (!body) return body.error();
  for (const std::string& word : body->command) {
    if (word.find('\0') != std::string::npos) return problem(422, "command: a word has a zero in it");
  }
  if (const auto runs = running(call); !runs) return runs.error();
  const Place place{call.services};
  if (!place.free()) return too_many();
  const life::GuestCommand command{std::move(body->command), std::move(body->directory), std::move(body->input),
                                   body->timeout_s};
  auto output = life::run_in_guest(*folder, command, call.services.ended);
  if (!output) return conflict(output.error());
  return json_answer(200, control::to_json(CommandResult{output->status, std::move(output->out),
                                                         std::move(output->errors), output->truncated}));
}

std::expected<File, Answer> get_file(Call& call) {
  const auto folder = running(call);
  if (!folder) return std::unexpected(folder.error());
  const Place place{call.services};
  if (!place.free()) return std::unexpected(too_many());
  auto fd = unnamed_file();
  if (!fd) return std::unexpected(problem(409, fd.error().message));
  const auto size = life::get_guest_file(*folder, *call.parameter("path"), *fd, call.services.ended);
  if (!size) return std::unexpected(conflict(size.error()));
  return File{std::move(*fd), *size};
}

Answer put_file(Call& call, const File& content) {
  const auto folder = running(call);
  if (!folder) return folder.error();
  const std::string& path = *call.parameter("path");
  const std::string* const given = call.parameter("mode");
  uint32_t mode = 0644;
  if (given != nullptr) {
    if (given->find_first_not_of("01234567") != std::string::npos) {
      return problem(422, fmt::format("mode is {}; write permissions as chmod takes them, for example 644", *given));
    }
    mode = static_cast<uint32_t>(std::stoul(*given, nullptr, 8)) & 0777;
  }
  if (path.ends_with('/')) return problem(422, "path: end it in the name that the file shall have");
  if (call.dry_run()) {
    return would(fmt::format("write {} bytes into {} of {}", content.size, path, folder->name()));
  }
  const Place place{call.services};
  if (!place.free()) return too_many();
  const auto done = life::put_guest_file(*folder, path, mode, content.fd, content.size, call.services.ended);
  return done ? no_content() : conflict(done.error());
}

}  // namespace caisson::api
