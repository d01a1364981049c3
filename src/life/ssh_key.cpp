#include "life/ssh_key.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <optional>

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "life/child.h"
#include "store/files.h"

namespace caisson::life {
namespace {

// The public half in base64; made where there is none.
Result<std::string> public_key() {
  auto file = ssh_key_file();
  if (!file) return file;
  auto text = read_file(*file + ".pub", 4096);
  if (!text) {
    if (!in_path("ssh-keygen")) return fail("ssh is not installed on this host; apt-get install openssh-client");
    const std::string folder = file->substr(0, file->rfind('/'));
    if (auto made = make_folders(folder); !made) return std::unexpected(made.error());
    // Beside first: of several commands at once one wins, and a killed one leaves no half of a pair. The public half is
    // named last, so that where it is the other is.
    const std::string beside = fmt::format("{}.{}", *file, ::gettid());
    const bool made = succeeds({"ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "caisson", "-f", beside});
    if (!made) return fail("ssh-keygen cannot make {}", *file);
    if (::access((*file + ".pub").c_str(), F_OK) != 0) {
      if (::rename(beside.c_str(), file->c_str()) != 0 ||
          ::rename((beside + ".pub").c_str(), (*file + ".pub").c_str()) != 0) {
        return fail_errno(errno, "cannot make " + *file);
      }
    } else {
      ::unlink(beside.c_str());
      ::unlink((beside + ".pub").c_str());
    }
    text = read_file(*file + ".pub", 4096);
    if (!text) return text;
  }
  const size_t start = text->find(' ');
  const size_t end = start == std::string::npos ? start : text->find_first_of(" \n", start + 1);
  if (end == std::string::npos || !text->starts_with("ssh-ed25519 ")) return fail("{}.pub is no ed25519 key", *file);
  return text->substr(start + 1, end - start - 1);
}

std::optional<uint32_t> free_port() {
  const Fd socket{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  if (!socket.valid() || ::bind(socket.get(), generic, size) != 0) return std::nullopt;
  if (::getsockname(socket.get(), generic, &size) != 0) return std::nullopt;
  return ntohs(address.sin_port);
}

// Words for the guest's caisson-seed.service; what follows "--" is for init.
bool add_words(control::VmConfig& config, const std::string& words) {
  if (config.append.size() + words.size() > control::VmConfig::max_append) return false;
  const size_t end = config.append.find(" -- ");
  config.append.insert(end == std::string::npos ? config.append.size() : end, words);
  return true;
}

}  // namespace

Result<std::string> ssh_key_file() {
  auto data = data_folder();
  if (!data) return data;
  return *data + "/ssh/id_ed25519";
}

void add_name(control::VmConfig& config) {
  std::string host;
  for (const char c : config.name) host += c == '_' || c == '.' ? '-' : c;
  add_words(config, " caisson.hostname=" + host);
}

Result<std::string> ssh_public_key() {
  auto key = public_key();
  if (!key) return key;
  return "ssh-ed25519 " + *key;
}

void add_ssh(control::VmConfig& config) {
  if (config.net == control::NetKind::None || config.forwards.size() >= control::VmConfig::max_forwards) return;
  const auto key = public_key();
  const auto port = free_port();
  if (!key || !port) return;
  if (!add_words(config, " caisson.key=" + *key)) return;
  const bool given = std::ranges::any_of(config.forwards, [](const control::PortForward& one) {
    return one.guest_port == ssh_guest_port && one.protocol == control::Protocol::Tcp;
  });
  if (!given) config.forwards.push_back({control::Protocol::Tcp, "127.0.0.1", *port, ssh_guest_port});
}

}  // namespace caisson::life
