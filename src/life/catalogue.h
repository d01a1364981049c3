// Where images come from: entries that are built in, recipes that build Debian here, and those of the user's
// catalogue.json, addresses with what the file there must be.
//   Checks   strict, as config.json: unknown keys, wrong types and values out of bounds are errors; so is a newer
//   version Threads  pure functions, but for those that read the user's file
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "life/images.h"

namespace caisson::life {

struct CatalogueEntry {
  std::string name;         // of the image that it becomes
  std::string arch{};       // "amd64"
  std::string about{};      // a few words for people
  std::string recipe{};     // "debian": built here; or else:
  std::string url{};        // http, https or file
  std::string sha256{};     // of the file there, in hexadecimal
  std::string key{};        // minisign's public key; empty: no signature
  std::string signature{};  // its address; empty: `url` with ".minisig" behind it
  std::string format{};     // of the disk, once unpacked: raw, qcow2, vmdk, vhdx, vdi, tar; empty: as the address says
  std::string compression{};                 // "none", "gz", "xz", "zst"; empty: as the address says
  std::string boot{};                        // "bios" or "uefi"; empty: by what is on the disk
  uint64_t most_bytes = uint64_t{64} << 30;  // that the file may have, packed or unpacked
};

struct Catalogue {
  static constexpr uint32_t newest_version = 1;
  static constexpr size_t max_size = 1 << 20;  // of its text, in bytes
  static constexpr size_t max_entries = 1000;

  uint32_t version = newest_version;
  std::vector<CatalogueEntry> images;
};

// The errors name no file, but the entry.
[[nodiscard]] Result<Catalogue> parse_catalogue(std::string_view text);
[[nodiscard]] Result<> check(const CatalogueEntry& entry);

// <XDG_CONFIG_HOME>/caisson/catalogue.json
[[nodiscard]] Result<std::string> user_catalogue_file();
// What is built in, then the user's; one of these takes the place of a built-in one of its name.
[[nodiscard]] Result<std::vector<CatalogueEntry>> catalogue();
// An error that says where to look, if there is none of that name.
[[nodiscard]] Result<CatalogueEntry> catalogue_entry(const ImageName& name);

// "xz" of "disk.raw.xz?x=1"; the name without that ending. Of an address the last part of its path counts.
struct PackedName {
  std::string name;
  std::string compression;  // "none", "gz", "xz", "zst"
};
[[nodiscard]] PackedName packed_name(std::string_view url);

}  // namespace caisson::life
