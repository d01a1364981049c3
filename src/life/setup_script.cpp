#include "life/setup_script.h"

#include <fmt/core.h>

namespace caisson::life {
namespace {

constexpr std::string_view beginning = R"sh(#!/bin/sh
# What user-data asks for, for a system without cloud-init.
set -eu
user() {
  id -u "$1" >/dev/null 2>&1 || useradd -m -s /bin/bash "$1"
  printf '%s ALL=(ALL) NOPASSWD:ALL\n' "$1" >"/etc/sudoers.d/90-$1"
  chmod 440 "/etc/sudoers.d/90-$1"
}
key() {
  home=$(getent passwd "$1" | cut -d: -f6)
  mkdir -p -m 700 "$home/.ssh"
  touch "$home/.ssh/authorized_keys"
  grep -qxF -- "$2" "$home/.ssh/authorized_keys" || printf '%s\n' "$2" >>"$home/.ssh/authorized_keys"
  chmod 600 "$home/.ssh/authorized_keys"
  chown -R "$1:" "$home/.ssh"
}
# As this image's own service, which would give the machine's name back, finds it.
name() {
  mkdir -p /var/lib/caisson
  printf '%s\n' "$1" >/var/lib/caisson/hostname
  printf '%s\n' "${1%%.*}" >/etc/hostname
  sed -i "s/^127\.0\.1\.1 .*/127.0.1.1 $1 ${1%%.*}/" /etc/hosts
  printf '%s\n' "${1%%.*}" >/proc/sys/kernel/hostname
}
file() {
  mkdir -p "$(dirname "$1")"
  base64 -d >"$1"
}
early() {
  :
)sh";

constexpr std::string_view middle = R"sh(}
late() {
  :
)sh";

constexpr std::string_view own_script = R"sh(  mkdir -p /var/lib/caisson
  cp "$(dirname "$0")/user-data" /var/lib/caisson/user-script
  chmod 700 /var/lib/caisson/user-script
  /var/lib/caisson/user-script
)sh";

constexpr std::string_view end = R"sh(}
case $1 in
  early) early ;;
  late) late ;;
esac
)sh";

}  // namespace

std::string quoted(std::string_view text) {
  std::string word = "'";
  for (const char c : text) word += c == '\'' ? std::string{"'\\''"} : std::string{c};
  return word + "'";
}

std::string base64(std::string_view bytes) {
  constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  text.reserve(bytes.size() / 3 * 4 + 4);
  for (size_t at = 0; at < bytes.size(); at += 3) {
    uint32_t group = 0;
    for (size_t index = 0; index < 3; ++index) {
      group = group << 8 | (at + index < bytes.size() ? static_cast<uint8_t>(bytes[at + index]) : 0u);
    }
    for (size_t index = 0; index < 4; ++index) {
      text += at + index <= bytes.size() ? digits[group >> (18 - 6 * index) & 63] : '=';
    }
  }
  return text;
}

std::string setup_script(const Seed& seed) {
  std::string script{beginning};
  if (!seed.hostname.empty()) script += fmt::format("  name {}\n", quoted(seed.hostname));
  if (!seed.user.empty()) script += fmt::format("  user {}\n", quoted(seed.user));
  for (const std::string& one : seed.keys)
    script += fmt::format("  key {} {}\n", seed.user.empty() ? "root" : quoted(seed.user), quoted(one));
  for (const SeedFile& one : seed.files)
    script += fmt::format("  file {} <<'END'\n{}\nEND\n", quoted(one.path), base64(one.content));
  script += middle;
  if (!seed.packages.empty()) {
    script +=
        "  export DEBIAN_FRONTEND=noninteractive\n  apt-get -q -o Acquire::Retries=5 update\n"
        "  apt-get -q -y -o Acquire::Retries=5 install --";
    for (const std::string& one : seed.packages) script += " " + quoted(one);
    script += "\n";
  }
  if (seed.user_data.starts_with("#!")) script += own_script;
  script += end;
  return script;
}

}  // namespace caisson::life
