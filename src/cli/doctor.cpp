#include "cli/doctor.h"

#include <array>
#include <cerrno>
#include <cstring>

#include <cpuid.h>
#include <fcntl.h>
#include <fmt/core.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <nlohmann/json.hpp>

#include "base/fd.h"
#include "cli/exit_status.h"
#include "cli/run_options.h"
#include "kvm/device.h"
#include "kvm/probe.h"
#include "life/child.h"
#include "life/host.h"
#include "life/vmm_process.h"
#include "store/cpu_group.h"
#include "store/files.h"
#include "x86/cpu_model.h"

namespace caisson::cli {
namespace {

std::string error_text(int number) {
  std::array<char, 128> text{};
  return strerror_r(number, text.data(), text.size());
}

std::string cpu_brand() {
  std::array<unsigned, 12> words{};
  for (unsigned i = 0; i < 3; ++i) {
    if (__get_cpuid(0x80000002 + i, &words[4 * i], &words[4 * i + 1], &words[4 * i + 2], &words[4 * i + 3]) == 0)
      return {};
  }
  std::array<char, 49> text{};
  std::memcpy(text.data(), words.data(), 48);
  std::string brand = text.data();
  brand.erase(0, brand.find_first_not_of(' '));
  return brand;
}

Finding find_cpu() {
  const std::string_view best = x86::CpuModel::best_for_host();
  const std::string text = fmt::format("{}, {} usable CPUs", cpu_brand(), life::host_cpus());
  if (best.empty()) return {"cpu", Verdict::Bad, text, "machines need an x86-64-v2 CPU: SSE4.2, POPCNT, CMPXCHG16B"};
  return {"cpu", Verdict::Good, text,
          fmt::format("machines get what this CPU has; the best model that other hosts share is {}", best)};
}

Finding find_tsc() {
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  const bool invariant = __get_cpuid(0x80000007, &a, &b, &c, &d) != 0 && (d & (1u << 8)) != 0;
  if (invariant)
    return {"tsc", Verdict::Good, "the time stamp counter is invariant", "guests read the time without an exit"};
  return {"tsc", Verdict::Limited, "the time stamp counter is not invariant", "guests' clocks may drift"};
}

Finding find_kvm() {
  const auto device = kvm::open_device();
  if (!device) return {"kvm", Verdict::Limited, device.error().message, "not needed: the jit engine runs machines"};
  const kvm::Verdict verdict = kvm::examine(*device);
  return {"kvm", verdict.use ? Verdict::Good : Verdict::Limited, verdict.why,
          verdict.use ? "the kvm engine runs machines" : "the jit engine runs machines"};
}

// Translated code needs memory that can be written at one address and run at another.
Finding find_code_memory() {
  constexpr size_t size = 4096;
  const Fd fd{static_cast<int>(::syscall(SYS_memfd_create, "doctor", MFD_CLOEXEC))};
  if (fd.valid() && ::ftruncate(fd.get(), size) == 0) {
    void* run = ::mmap(nullptr, size, PROT_READ | PROT_EXEC, MAP_SHARED, fd.get(), 0);
    if (run != MAP_FAILED) {
      ::munmap(run, size);
      return {"code_memory", Verdict::Good, "memory for translated code can be made", "the jit engine works"};
    }
  }
  return {
      "code_memory", Verdict::Bad, "memory for translated code: " + error_text(errno),
      "a security policy (SELinux execmem, noexec memfd: sysctl vm.memfd_noexec) forbids it; allow it for caisson-vmm"};
}

Finding find_memory() {
  const uint64_t bytes = life::host_memory_bytes();
  return {"memory", Verdict::Good, fmt::format("{} MiB", bytes >> 20),
          "machines can have at most that much; the default is 1 GiB"};
}

Finding find_io_uring() {
  std::array<unsigned char, 120> parameters{};  // struct io_uring_params
  const Fd ring{static_cast<int>(::syscall(SYS_io_uring_setup, 1, parameters.data()))};
  if (ring.valid()) return {"io_uring", Verdict::Good, "io_uring works", "disks use it"};
  return {"io_uring", Verdict::Limited, "io_uring: " + error_text(errno), "disks use threads instead, a little slower"};
}

Finding find_ping() {
  const Fd ping{::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, IPPROTO_ICMP)};
  if (ping.valid()) return {"ping", Verdict::Good, "ICMP echo sockets work", "guests can ping the outside"};
  return {"ping", Verdict::Limited, "ICMP echo sockets: " + error_text(errno),
          "guests cannot ping the outside; sysctl net.ipv4.ping_group_range=\"0 2147483647\" allows it"};
}

Finding find_vmm() {
  const auto program = life::vmm_program();
  if (program) return {"vmm", Verdict::Good, *program, "runs each machine in a process of its own"};
  return {"vmm", Verdict::Bad, program.error().message, ""};
}

Finding find_image_tools() {
  for (const char* tool : {"mmdebstrap", "mke2fs", "tar", "dpkg-query"}) {
    if (!life::in_path(tool)) {
      return {"image_build", Verdict::Limited, fmt::format("{} is not installed", tool),
              "caisson image build needs it: apt-get install mmdebstrap e2fsprogs tar dpkg"};
    }
  }
  if (::geteuid() == 0) return {"image_build", Verdict::Good, "images are built as root", "caisson run debian works"};
  if (life::succeeds({"unshare", "--map-root-user", "--map-auto", "--", "true"})) {
    return {"image_build", Verdict::Good, "images are built in a user namespace", "caisson run debian works"};
  }
  if (life::in_path("fakechroot") && life::in_path("fakeroot")) {
    return {"image_build", Verdict::Limited, "images are built under fakechroot",
            "slower; user namespaces do not work here"};
  }
  return {"image_build", Verdict::Limited,
          "user namespaces with subordinate ids do not work, and fakechroot is not installed",
          "caisson image build needs one of them: install uidmap and add this user to /etc/subuid, or fakechroot and "
          "fakeroot"};
}

Finding find_room() {
  const auto folder = cache_folder();
  if (!folder) return {"room", Verdict::Bad, folder.error().message, ""};
  std::string path = *folder;
  struct statvfs status {};
  while (::statvfs(path.c_str(), &status) != 0 && path.size() > 1) path.resize(std::max<size_t>(1, path.rfind('/')));
  const uint64_t free = static_cast<uint64_t>(status.f_bavail) * status.f_frsize;
  const std::string text = fmt::format("{} MiB free for images in {}", free >> 20, *folder);
  if (free < (uint64_t{2} << 30))
    return {"room", Verdict::Limited, text, "building an image needs about 2 GiB; make room or set XDG_CACHE_HOME"};
  return {"room", Verdict::Good, text, "enough to build an image"};
}

Finding find_cpu_limits() {
  const auto place = store::find_cpu_groups();
  if (!place)
    return {"cpu_limits", Verdict::Limited, place.error().message,
            "CPU caps and shares are kept by the machine's own process instead, a little less smoothly"};
  return {"cpu_limits", Verdict::Good, fmt::format("control groups (version {}) below {}", place->version, place->path),
          "CPU caps and shares are kept by the kernel"};
}

Finding find_kernel() {
  utsname name{};
  ::uname(&name);
  return {"host", Verdict::Good, fmt::format("{} {} {}", name.sysname, name.release, name.machine), ""};
}

constexpr std::string_view name_of(Verdict verdict) {
  switch (verdict) {
    case Verdict::Good: return "ok";
    case Verdict::Limited: return "limited";
    case Verdict::Bad: return "bad";
  }
  return "";
}

}  // namespace

std::vector<Finding> examine() {
  return {find_kernel(), find_cpu(),      find_tsc(),  find_memory(),     find_code_memory(), find_kvm(),
          find_vmm(),    find_io_uring(), find_ping(), find_cpu_limits(), find_image_tools(), find_room()};
}

int doctor(bool json) {
  const auto findings = examine();
  bool works = true;
  for (const auto& finding : findings) works = works && finding.verdict != Verdict::Bad;
  if (json) {
    auto list = nlohmann::json::array();
    for (const auto& finding : findings) {
      list.push_back(
          {{"id", finding.id}, {"verdict", name_of(finding.verdict)}, {"found", finding.text}, {"why", finding.why}});
    }
    const nlohmann::json whole{{"works", works}, {"findings", list}};
    fmt::print("{}\n", whole.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
  } else {
    for (const auto& finding : findings) {
      fmt::print("{:8} {:12} {}\n", name_of(finding.verdict), finding.id, finding.text);
      if (!finding.why.empty()) fmt::print("{:21} {}\n", "", finding.why);
    }
    fmt::print("{}\n",
               works ? "Machines can run on this host." : "Machines cannot run on this host; see what is bad above.");
  }
  return works ? exit_ok : exit_failure;
}

}  // namespace caisson::cli
