#include "cli/image_build.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <filesystem>
#include <optional>
#include <vector>

#include <fcntl.h>
#include <fmt/core.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/log.h"
#include "base/utc.h"
#include "cli/apt_host.h"
#include "cli/image_files.h"
#include "cli/image_store.h"
#include "cli/progress.h"
#include "cli/run_options.h"
#include "life/child.h"
#include "life/vmm_process.h"
#include "store/files.h"

namespace caisson::cli {
namespace {

// How a build gets to be root, or to look like it.
struct Rights {
  std::string mode;                  // mmdebstrap's
  std::vector<std::string> wrapper;  // in front of commands that handle files of many owners
  std::string tar_options;
};

Result<Rights> find_rights() {
  if (::geteuid() == 0) return Rights{"root", {}, "--xattrs --xattrs-include=*"};
  const std::vector<std::string> own_namespace{"unshare", "--map-root-user", "--map-auto", "--"};
  auto probe = own_namespace;
  probe.emplace_back("true");
  if (life::succeeds(probe)) return Rights{"unshare", own_namespace, "--xattrs --xattrs-include=*"};
  if (life::in_path("fakechroot") && life::in_path("fakeroot")) return Rights{"fakechroot", {"fakeroot", "--"}, ""};
  return fail(
      "cannot build an image as an ordinary user here: user namespaces with subordinate ids do not work; install "
      "uidmap and "
      "add this user to /etc/subuid and /etc/subgid, or install fakechroot and fakeroot");
}

// Tells a build's steps and percentages from what mmdebstrap --verbose, apt and dpkg print.
struct Step {
  std::string_view line;
  std::string_view what;
  unsigned lines_per_package;  // of "Get:", "Unpacking" and "Setting up" together; 0: no percentage
};
constexpr std::array<Step, 8> build_steps{{
    {"I: running apt-get update", "reading package lists", 0},
    {"I: downloading packages", "downloading the base system", 1},
    {"I: extracting archives", "unpacking the base system", 0},
    {"I: installing essential packages", "installing the base system", 2},
    {"I: installing remaining packages", "downloading and installing systemd, the kernel and the rest", 3},
    {"I: cleaning package lists", "cleaning up", 0},
    {"I: creating tarball", "collecting files", 0},
    {"@image", "making the ext4 image", 0},
}};
constexpr unsigned other_steps = 1;  // checksums

class BuildLog {
 public:
  BuildLog(Progress& progress, bool verbose) : progress_(progress), verbose_(verbose) {}

  void feed(std::string_view bytes) {
    for (const char c : bytes) {
      if (c == '\n' || c == '\r') {
        line(current_);
        current_.clear();
      } else if (current_.size() < 4096) {
        current_.push_back(c);
      }
    }
  }

  // One line that says why a build failed.
  [[nodiscard]] std::string reason() const {
    if (!full_.empty())
      return "the disk is full (" + full_ + "); make room, or set XDG_CACHE_HOME or TMPDIR to where there is some";
    return !apt_.empty() ? apt_ : !error_.empty() ? error_ : last_;
  }

 private:
  void line(const std::string& text) {
    if (text.empty()) return;
    if (verbose_) fmt::print(stderr, "{}\n", text);
    for (const auto& step : build_steps) {
      if (!text.starts_with(step.line)) continue;
      lines_per_package_ = step.lines_per_package;
      lines_ = 0;
      return progress_.step(step.what);
    }
    if (text.starts_with('@') || text.starts_with("I: ")) return;
    count(text);
    if (text.find("No space left on device") != std::string::npos && full_.empty()) full_ = text;
    if (text.starts_with("E: ")) {
      // apt's own errors say more than mmdebstrap's "apt-get update failed" that follows.
      (apt_.empty() && text.find(" failed") == std::string::npos ? apt_ : error_) = text.substr(3);
    }
    last_ = text;
  }

  void count(const std::string& text) {
    if (const size_t at = text.find(" upgraded, "); at != std::string::npos && text.find(" newly installed") > at) {
      packages_ = static_cast<unsigned>(std::strtoul(text.c_str() + at + 11, nullptr, 10));
    } else if (text.starts_with("Get:") || text.starts_with("Unpacking ") || text.starts_with("Setting up ")) {
      ++lines_;
      const unsigned all = packages_ * lines_per_package_;
      if (all != 0) progress_.percent(100.0 * lines_ / all);
    }
  }

  Progress& progress_;
  const bool verbose_;
  unsigned lines_per_package_ = 0;
  unsigned packages_ = 0;
  unsigned lines_ = 0;
  std::string current_;
  std::string full_;   // "… No space left on device"
  std::string apt_;    // the first error of apt
  std::string error_;  // the last error of mmdebstrap
  std::string last_;
};

// The folder everything is made in; gone at the end, whatever happens.
class WorkFolder {
 public:
  static Result<WorkFolder> create(const std::string& path, const Rights& rights) {
    WorkFolder folder{path, rights};
    if (auto ok = folder.remove(); !ok) return std::unexpected(ok.error());
    for (const char* below : {"", "/out", "/overlay"}) {
      if (::mkdir((path + below).c_str(), 0700) != 0) return fail_errno(errno, "cannot make " + path + below);
    }
    return folder;
  }
  WorkFolder(WorkFolder&& other) noexcept : path_(std::move(other.path_)), rights_(other.rights_) {
    other.path_.clear();
  }
  WorkFolder& operator=(WorkFolder&&) = delete;
  ~WorkFolder() {
    if (path_.empty()) return;
    if (const auto ok = remove(); !ok) log::warning("{}", ok.error().message);
  }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  WorkFolder(std::string path, const Rights& rights) : path_(std::move(path)), rights_(rights) {}

  // Files inside may belong to subordinate ids, so it takes the same rights as making them.
  Result<> remove() const {
    if (::access(path_.c_str(), F_OK) != 0) return {};
    auto command = rights_.wrapper;
    command.insert(command.end(), {"rm", "-rf", "--", path_});
    const auto done = life::capture(command);
    if (!done) return std::unexpected(done.error());
    if (::access(path_.c_str(), F_OK) == 0)
      return fail("cannot remove {}: {}", path_, done->out.substr(0, done->out.find('\n')));
    return {};
  }

  std::string path_;
  const Rights& rights_;
};

Result<> write_overlay(const std::string& folder, const std::string& sources, const std::string& options) {
  const auto put = [&](std::string_view name, unsigned mode, std::string_view text) -> Result<> {
    const std::string path = folder + "/" + std::string{name};
    std::error_code error;
    std::filesystem::create_directories(path.substr(0, path.rfind('/')), error);
    if (error) return fail_errno(error.value(), "cannot make a folder for " + path);
    if (auto ok = write_file(path, text); !ok) return ok;
    if (::chmod(path.c_str(), mode) != 0) return fail_errno(errno, "cannot set the mode of " + path);
    return {};
  };
  for (const auto& file : image_files) {
    if (auto ok = put(file.path, file.mode, file.text); !ok) return ok;
  }
  auto agent = life::sibling_program("caisson-agent", "runs in machines of images");
  if (!agent) return std::unexpected(agent.error());
  auto program = read_file(*agent, 64 << 20);
  if (!program) return std::unexpected(program.error());
  if (auto ok = put("usr/local/lib/caisson/agent", 0755, *program); !ok) return ok;
  if (auto ok = put("etc/apt/sources.list", 0644, sources); !ok) return ok;
  return put("etc/apt/apt.conf.d/90caisson", 0644,
             "// Translated package descriptions take longer than all the rest.\n"
             "Acquire::Languages \"none\";\n" +
                 options);
}

std::vector<AptSource> default_sources(const life::ImageName& name) {
  std::vector<AptSource> sources{{"http://deb.debian.org/debian", name.suite, {"main"}, {}}};
  if (name.suite != "sid") {
    sources.push_back({"http://deb.debian.org/debian", name.suite + "-updates", {"main"}, {}});
    sources.push_back({"http://deb.debian.org/debian-security", name.suite + "-security", {"main"}, {}});
  }
  return sources;
}

// mmdebstrap's temporary tree belongs to subordinate ids, which cannot pass a closed home folder.
std::string temporary_folder() {
  const char* given = std::getenv("TMPDIR");
  return given != nullptr && *given != '\0' ? given : "/var/tmp";
}

struct Plan {
  life::ImageName name;
  uint64_t size = 0;
  Rights rights;
  std::vector<AptSource> sources;
  std::vector<AptOption> options;
};

std::vector<std::string> mmdebstrap_command(const Plan& plan) {
  std::vector<std::string> command{"mmdebstrap",
                                   "--mode=" + plan.rights.mode,
                                   "--verbose",
                                   "--variant=minbase",
                                   "--format=tar",
                                   "--architectures=amd64",
                                   "--include=" + std::string{image_packages},
                                   "--essential-hook=" + std::string{essential_hook},
                                   "--customize-hook=" + std::string{customize_hook}};
  for (const auto& [name, value] : plan.options) command.push_back("--aptopt=" + name + " \"" + value + "\"");
  if (::access("/etc/apt/auth.conf", R_OK) == 0) {
    command.push_back("--setup-hook=upload /etc/apt/auth.conf /etc/apt/auth.conf");
  }
  std::error_code error;
  std::filesystem::directory_iterator entry{"/etc/apt/auth.conf.d", error};
  for (; !error && entry != std::filesystem::directory_iterator{}; entry.increment(error)) {
    const std::string path = entry->path().string();
    const bool plain = path.find_first_of(" '\"\\$`") == std::string::npos;
    if (path.ends_with(".conf") && plain && ::access(path.c_str(), R_OK) == 0) {
      command.emplace_back("--setup-hook=mkdir -p \"$1/etc/apt/auth.conf.d\"");
      command.push_back(fmt::format("--setup-hook=upload {0} {0}", path));
    }
  }
  command.insert(command.end(), {plan.name.suite, "-", "-"});  // to standard output, sources.list from standard input
  return command;
}

// Runs mmdebstrap into the packing script; waits for both.
Result<> run_build(const Plan& plan, const std::string& work, BuildLog& log) {
  auto archive = life::make_pipe();
  auto said = life::make_pipe();
  auto printed = life::make_pipe();
  if (!archive) return std::unexpected(archive.error());
  if (!said) return std::unexpected(said.error());
  if (!printed) return std::unexpected(printed.error());

  sigset_t ends;
  ::sigemptyset(&ends);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) ::sigaddset(&ends, signal);
  ::sigprocmask(SIG_BLOCK, &ends, nullptr);
  Fd signals{::signalfd(-1, &ends, SFD_CLOEXEC)};

  const Fd sources{::open((work + "/sources.list").c_str(), O_RDONLY | O_CLOEXEC)};
  if (!sources.valid()) return fail_errno(errno, "cannot open " + work + "/sources.list");
  auto source =
      life::Child::start(mmdebstrap_command(plan), {sources.get(), archive->write.get(), printed->write.get()},
                         {"TMPDIR=" + temporary_folder(), "LC_ALL=C.UTF-8"});
  if (!source) return std::unexpected(source.error());
  auto command = plan.rights.wrapper;
  command.insert(command.end(), {"sh", "-c", std::string{pack_script}, "sh", work, std::to_string(plan.size),
                                 plan.rights.tar_options});
  auto packer =
      life::Child::start(command, {archive->read.get(), said->write.get(), said->write.get()}, {"LC_ALL=C.UTF-8"});
  if (!packer) return std::unexpected(packer.error());
  archive = life::Pipe{};
  said->write.reset();
  printed->write.reset();

  std::optional<int> ended_by;
  while (said->read.valid() || printed->read.valid()) {
    std::array<pollfd, 3> fds{
        {{printed->read.get(), POLLIN, 0}, {said->read.get(), POLLIN, 0}, {signals.get(), POLLIN, 0}}};
    if (::poll(fds.data(), fds.size(), -1) < 0 && errno != EINTR) return fail_errno(errno, "cannot wait for the build");
    for (auto* stream : {&printed->read, &said->read}) {
      if (!stream->valid() || fds[stream == &printed->read ? 0 : 1].revents == 0) continue;
      std::array<char, 4096> buffer;
      const ssize_t size = ::read(stream->get(), buffer.data(), buffer.size());
      if (size > 0) {
        log.feed({buffer.data(), static_cast<size_t>(size)});
      } else if (size == 0 || errno != EINTR) {
        stream->reset();
      }
    }
    signalfd_siginfo info{};
    if (fds[2].revents != 0 && ::read(signals.get(), &info, sizeof info) == sizeof info) {
      // mmdebstrap removes its own temporary folder on the first; a second one waits for nothing.
      source->signal(ended_by ? SIGKILL : SIGTERM);
      packer->signal(SIGKILL);
      ended_by = static_cast<int>(info.ssi_signo);
    }
  }
  const int source_status = source->wait();
  const int packer_status = packer->wait();
  if (ended_by) return fail("building {} was interrupted; nothing of it is left", plan.name.text());
  if (source_status == 0 && packer_status == 0) return {};
  return fail("building {} failed: {}; caisson image build --verbose {} shows all of it", plan.name.text(),
              log.reason(), plan.name.text());
}

Result<> write_manifest(const Plan& plan, const std::string& work) {
  const std::string out = work + "/out/";
  life::Manifest manifest;
  manifest.image = plan.name.text();
  manifest.built = utc_text(utc_ms());
  manifest.mirror = to_lines(plan.sources);
  for (const char* name : {life::disk_file, life::kernel_file, life::initrd_file}) {
    struct stat status {};
    if (::stat((out + name).c_str(), &status) != 0) return fail_errno(errno, "the build has not made " + out + name);
    auto sum = sha256_file(out + name);
    if (!sum) return std::unexpected(sum.error());
    manifest.files[name] = {static_cast<uint64_t>(status.st_size), *sum};
    if (auto ok = sync_path(out + name); !ok) return ok;
  }
  auto packages = read_file(work + "/packages", 16 << 20);
  if (!packages) return std::unexpected(packages.error());
  for (size_t start = 0; start < packages->size();) {
    const size_t end = std::min(packages->find('\n', start), packages->size());
    const std::string line = packages->substr(start, end - start);
    start = end + 1;
    const size_t first = line.find('|');
    const size_t second = line.find('|', first + 1);
    if (second == std::string::npos || line.size() < 2 || line[1] != 'i') continue;
    manifest.packages[line.substr(first + 1, second - first - 1)] = line.substr(second + 1);
  }
  if (auto ok = write_file(out + life::manifest_file, life::to_json_text(manifest)); !ok) return ok;
  return sync_path(work + "/out");
}

Result<> check_room(const std::string& folder, uint64_t needed) {
  struct statvfs status {};
  if (::statvfs(folder.c_str(), &status) != 0) return {};
  const uint64_t free = static_cast<uint64_t>(status.f_bavail) * status.f_frsize;
  if (free >= needed) return {};
  return fail("not enough room in {}: {} MiB are free, a build needs about {} MiB there; make room or set {}", folder,
              free >> 20, needed >> 20, folder == temporary_folder() ? "TMPDIR" : "XDG_CACHE_HOME");
}

}  // namespace

Result<std::string> build_image(const life::ImageName& name, const BuildOptions& options) {
  auto size = parse_size("--size", options.size);
  if (!size) return std::unexpected(size.error());
  auto images = life::images_folder();
  if (!images) return images;
  if (auto ok = make_folders(*images); !ok) return std::unexpected(ok.error());
  const life::Say wait = [](std::string_view text) { log::line(log::Level::Info, text); };
  auto lock = life::lock_file(*images + "/" + name.folder() + ".lock", "another build of " + name.text(), wait);
  if (!lock) return std::unexpected(lock.error());
  const auto present = life::find_image(name);
  if (!present) return std::unexpected(present.error());
  if (*present && !options.force) {
    if (options.dry_run) fmt::print("image {} is here already: {}\n", name.text(), **present);
    return **present;
  }
  if (const auto machines = life::machines_of(name); *present && !machines.empty()) {
    return fail("image {} is what the disk of machine {} is based on, and cannot be built again; remove that first",
                name.text(), machines.front());
  }

  for (const char* tool : {"mmdebstrap", "mke2fs", "tar", "dpkg-query"}) {
    if (!life::in_path(tool)) return fail("{} is not installed; apt-get install mmdebstrap e2fsprogs tar dpkg", tool);
  }
  auto rights = find_rights();
  if (!rights) return std::unexpected(rights.error());
  constexpr uint64_t mib = 1024 * 1024;
  if (auto ok = check_room(*images, 1200 * mib); !ok) return std::unexpected(ok.error());
  if (auto ok = check_room(temporary_folder(), 900 * mib); !ok) return std::unexpected(ok.error());

  if (options.dry_run) {
    fmt::print("would build image {} in {}/{}\n", name.text(), *images, name.folder());
    return *images + "/" + name.folder();
  }

  Plan plan{name, *size, *rights, sources_for(host_sources(), name.suite), host_options()};
  if (!options.mirror.empty()) plan.sources = {{options.mirror, name.suite, {"main"}, {}}};
  if (plan.sources.empty()) plan.sources = default_sources(name);
  auto guest_sources = plan.sources;
  for (auto& source : guest_sources) source.uri = for_guest(source.uri);
  auto guest_options = plan.options;
  for (auto& option : guest_options) option.second = for_guest(option.second);

  Progress progress{build_steps.size() + other_steps};
  BuildLog log{progress, options.verbose};
  auto work = WorkFolder::create(*images + "/." + name.folder() + ".build", plan.rights);
  if (!work) return std::unexpected(work.error());
  if (auto ok = write_overlay(work->path() + "/overlay", to_lines(guest_sources), to_conf(guest_options)); !ok) {
    return std::unexpected(ok.error());
  }
  if (auto ok = write_file(work->path() + "/sources.list", to_lines(plan.sources)); !ok)
    return std::unexpected(ok.error());
  if (auto ok = run_build(plan, work->path(), log); !ok) return std::unexpected(ok.error());
  progress.step("checksums");
  if (auto ok = write_manifest(plan, work->path()); !ok) return std::unexpected(ok.error());

  const std::string folder = *images + "/" + name.folder();
  if (*present) {
    if (::rename(folder.c_str(), (work->path() + "/old").c_str()) != 0)
      return fail_errno(errno, "cannot replace " + folder);
  }
  if (::rename((work->path() + "/out").c_str(), folder.c_str()) != 0) return fail_errno(errno, "cannot name " + folder);
  if (auto ok = sync_path(*images); !ok) return std::unexpected(ok.error());
  progress.done(fmt::format("{} is ready in {}", name.text(), folder));
  return folder;
}

}  // namespace caisson::cli
