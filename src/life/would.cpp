#include "life/would.h"

#include <array>
#include <string_view>

#include <fmt/core.h>

namespace caisson::life {

Result<std::string> would(Operation operation, const store::VmFolder& folder) {
  const bool alive = folder.alive();
  const std::string& name = folder.name();
  const bool starts = operation == Operation::Start || operation == Operation::Restart;
  if (starts) {
    if (const auto spec = folder.spec(); !spec) return std::unexpected(spec.error());
  }
  const bool removes = operation == Operation::Remove || operation == Operation::ForcedRemove;
  if (!starts && !removes && !alive) return fail("machine {} is not running", name);
  if (operation == Operation::Start && alive) return fail("machine {} is running already", name);
  if (operation == Operation::Remove && alive) {
    return fail("machine {} is running; stop it first, or write rm --force", name);
  }
  constexpr std::array<std::string_view, 10> words{
      "start", "stop", "restart", "kill", "reset", "press the power button of", "pause", "resume", "remove", "remove"};
  std::string_view more;
  if (operation == Operation::Restart && !alive) more = " (it does not run: it would be started)";
  if (operation == Operation::ForcedRemove && alive) more = " (it runs: it would be stopped at once)";
  return fmt::format("{} {}{}", words[static_cast<size_t>(operation)], name, more);
}

}  // namespace caisson::life
