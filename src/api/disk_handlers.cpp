// Disk images of the host, as caisson disk makes and looks at them: jobs, whose result is what it prints as JSON.
#include "api/bodies.h"
#include "api/command_line.h"
#include "api/handlers.h"

namespace caisson::api {
namespace {

using Words = std::vector<std::string>;

void add(Words& words, std::string_view option, const std::string& value) {
  if (!value.empty()) words.push_back(fmt::format("{}={}", option, value));
}
void add(Words& words, std::string_view option, bool wanted) {
  if (wanted) words.emplace_back(option);
}
void add_folders(Words& words, const Words& folders) {
  for (const std::string& folder : folders) words.push_back("--backing-folder=" + folder);
}

// A bare number would count mebibytes.
std::string in_bytes(uint64_t bytes) { return fmt::format("{}B", bytes); }

// None: they are all absolute.
std::optional<Answer> relative(const Words& paths) {
  for (const std::string& path : paths) {
    if (path.front() != '/') return problem(422, path + ": write an absolute path of the host");
  }
  return std::nullopt;
}

// `size`: what stands behind the paths, and is none.
Answer work(Call& call, std::string_view operation, Words words, const Words& paths, const std::string& size = "") {
  if (auto wrong = relative(paths)) return *wrong;
  words.insert(words.begin(), "disk");
  words.emplace_back("--");
  words.insert(words.end(), paths.begin(), paths.end());
  if (!size.empty()) words.push_back(size);
  if (call.dry_run()) return dry_run_by_caisson(std::move(words));
  words.insert(words.begin() + 2, "--json");
  return start_search(call, operation, paths.front(),
                      [words = std::move(words)](const life::Follow& follow, control::Json& result) {
                        return search_by_caisson(words, follow, result);
                      });
}

}  // namespace

Answer create_disk(Call& call) {
  const auto wish = body_as<CreateDisk>(call);
  if (!wish) return wish.error();
  if (!wish->bytes && wish->backing.empty()) return problem(422, "bytes: how large shall the disk be?");
  Words words{"create"};
  add(words, "--format", wish->format);
  add(words, "--backing", wish->backing);
  add(words, "--backing-format", wish->backing_format);
  if (wish->cluster_bytes) add(words, "--cluster-size", in_bytes(*wish->cluster_bytes));
  add(words, "--force", wish->force);
  add_folders(words, wish->backing_folders);
  return work(call, "createDisk", std::move(words), {wish->path}, wish->bytes ? in_bytes(*wish->bytes) : "");
}

Answer resize_disk(Call& call) {
  const auto wish = body_as<ResizeDisk>(call);
  if (!wish) return wish.error();
  Words words{"resize"};
  add(words, "--format", wish->format);
  add(words, "--shrink", wish->shrink);
  add_folders(words, wish->backing_folders);
  return work(call, "resizeDisk", std::move(words), {wish->path}, in_bytes(wish->bytes));
}

Answer convert_disk(Call& call) {
  const auto wish = body_as<ConvertDisk>(call);
  if (!wish) return wish.error();
  Words words{"convert"};
  add(words, "--format", wish->format);
  add(words, "--from-format", wish->from_format);
  add(words, "--snapshot", wish->snapshot);
  add(words, "--force", wish->force);
  add_folders(words, wish->backing_folders);
  return work(call, "convertDisk", std::move(words), {wish->path, wish->to});
}

Answer check_disk(Call& call) {
  const auto wish = body_as<CheckDisk>(call);
  if (!wish) return wish.error();
  Words words{"check"};
  add(words, "--format", wish->format);
  add(words, "--repair", wish->repair);
  return work(call, "checkDisk", std::move(words), {wish->path});
}

Answer inspect_disk(Call& call) {
  const auto wish = body_as<InspectDisk>(call);
  if (!wish) return wish.error();
  Words words{"info"};
  add(words, "--format", wish->format);
  return work(call, "inspectDisk", std::move(words), {wish->path});
}

}  // namespace caisson::api
