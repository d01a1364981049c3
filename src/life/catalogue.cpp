#include "life/catalogue.h"

#include <algorithm>
#include <array>
#include <cctype>

#include <unistd.h>

#include "life/catalogue_table.h"
#include "store/files.h"

namespace caisson::life {
namespace {

constexpr std::string_view built_in = R"({"version": 1, "images": [
  {"name": "debian:11", "arch": "amd64", "recipe": "debian", "about": "Debian 11 (bullseye), minimal"},
  {"name": "debian:12", "arch": "amd64", "recipe": "debian", "about": "Debian 12 (bookworm), minimal"},
  {"name": "debian:13", "arch": "amd64", "recipe": "debian", "about": "Debian 13 (trixie), minimal"}
]})";

template <size_t N>
bool one_of(std::string_view text, const std::array<std::string_view, N>& list) {
  return std::ranges::find(list, text) != list.end();
}

constexpr std::array<std::string_view, 3> schemes{"https://", "http://", "file:///"};
constexpr std::array<std::string_view, 7> formats{"", "raw", "qcow2", "vmdk", "vhdx", "vdi", "tar"};
constexpr std::array<std::string_view, 5> compressions{"", "none", "gz", "xz", "zst"};
constexpr std::array<std::string_view, 3> boots{"", "bios", "uefi"};

bool is_address(std::string_view text) {
  const bool known = std::ranges::any_of(
      schemes, [&](std::string_view scheme) { return text.starts_with(scheme) && text.size() > scheme.size(); });
  // What would break a line or a request; anything else is the server's to judge.
  return known && std::ranges::all_of(text, [](unsigned char c) { return c > 0x20 && c < 0x7f; });
}

}  // namespace

Result<> check(const CatalogueEntry& entry) {
  const auto bad = [&](std::string_view why) { return fail("image {}: {}", entry.name, why); };
  if (!one_of(entry.arch, std::array<std::string_view, 3>{"", "amd64", "arm64"}))
    return bad("arch is unknown; write amd64");
  if (entry.recipe.empty() == entry.url.empty()) return bad("either url or recipe says where it comes from");
  if (!entry.recipe.empty()) {
    const auto name = parse_image_name(entry.name);
    if (entry.recipe != "debian" || !name || !name->built_here())
      return bad("the recipe debian builds debian:11 and so on");
    return {};
  }
  if (auto name = new_image_name(entry.name); !name) return std::unexpected(name.error());
  if (!is_address(entry.url)) return bad("url is no address; write https://, http:// or file:///");
  const auto is_hex = [](unsigned char c) { return std::isdigit(c) != 0 || (c >= 'a' && c <= 'f'); };
  if (entry.sha256.size() != 64 || !std::ranges::all_of(entry.sha256, is_hex)) {
    return bad("sha256 is missing or not 64 hexadecimal digits in small letters; sha256sum prints it");
  }
  if (!entry.signature.empty() && !is_address(entry.signature)) return bad("signature is no address");
  if (!entry.signature.empty() && entry.key.empty()) return bad("a signature needs a key");
  if (!one_of(entry.format, formats)) return bad("format is unknown; write raw, qcow2, vmdk, vhdx, vdi or tar");
  if (!one_of(entry.compression, compressions)) return bad("compression is unknown; write none, gz, xz or zst");
  if (!one_of(entry.boot, boots)) return bad("boot is unknown; write bios or uefi");
  return {};
}

constexpr std::string_view newer_remedy = "update caisson";  // there is nothing to correct in the file

Result<Catalogue> parse_catalogue(std::string_view text) {
  if (text.size() > Catalogue::max_size) return fail("more than {} bytes", Catalogue::max_size);
  auto json = control::parse_json(text);
  if (!json) return std::unexpected(json.error());
  // First: what a newer version has written need not look like ours.
  if (json->is_object()) {
    const auto found = json->find("version");
    if (found != json->end() && found->is_number_unsigned() && found->get<uint64_t>() > Catalogue::newest_version) {
      return fail("written for a newer version of caisson (format {}, this one knows {}); {}", found->get<uint64_t>(),
                  Catalogue::newest_version, newer_remedy);
    }
  }
  Catalogue all;
  if (auto ok = control::from_json(*json, all); !ok) return std::unexpected(ok.error());
  if (auto ok = control::check_bounds(all); !ok) return std::unexpected(ok.error());
  std::vector<std::string_view> names;
  for (const CatalogueEntry& entry : all.images) {
    if (auto ok = check(entry); !ok) return std::unexpected(ok.error());
    names.push_back(entry.name);
  }
  std::ranges::sort(names);
  if (const auto twice = std::ranges::adjacent_find(names); twice != names.end())
    return fail("image {}: is there twice", *twice);
  return all;
}

Result<std::string> user_catalogue_file() {
  auto folder = config_folder();
  if (!folder) return folder;
  return *folder + "/catalogue.json";
}

Result<std::vector<CatalogueEntry>> catalogue() {
  auto all = parse_catalogue(built_in);
  if (!all) return std::unexpected(all.error());
  auto file = user_catalogue_file();
  if (!file) return std::unexpected(file.error());
  if (::access(file->c_str(), F_OK) != 0) return std::move(all->images);
  const auto text = read_file(*file, Catalogue::max_size);
  if (!text) return std::unexpected(text.error());
  auto users = parse_catalogue(*text);
  if (!users) {
    const bool newer = users.error().message.ends_with(newer_remedy);
    return fail("{}: {}{}", *file, users.error().message, newer ? "" : "; correct that file");
  }
  for (CatalogueEntry& entry : users->images) {
    std::erase_if(all->images, [&](const CatalogueEntry& other) { return other.name == entry.name; });
    all->images.push_back(std::move(entry));
  }
  return std::move(all->images);
}

Result<CatalogueEntry> catalogue_entry(const ImageName& name) {
  auto all = catalogue();
  if (!all) return std::unexpected(all.error());
  for (CatalogueEntry& entry : *all) {
    if (entry.name == name.text()) return std::move(entry);
  }
  // Every release of Debian can be built, also those that are not shown.
  if (name.built_here()) return CatalogueEntry{.name = name.text(), .arch = "amd64", .recipe = "debian"};
  const auto file = user_catalogue_file();
  return fail("image {} is not in the catalogue; caisson image catalogue lists it, {} is where to add it", name.text(),
              file ? *file : "catalogue.json");
}

PackedName packed_name(std::string_view url) {
  if (const size_t scheme = url.find("://"); scheme != std::string_view::npos && scheme < 6) {
    url = url.substr(0, url.find_first_of("?#"));
  }
  if (const size_t slash = url.rfind('/'); slash != std::string_view::npos) url.remove_prefix(slash + 1);
  for (const std::string_view kind : {"gz", "xz", "zst"}) {
    if (url.size() > kind.size() + 1 && url.ends_with(kind) && url[url.size() - kind.size() - 1] == '.') {
      return {std::string{url.substr(0, url.size() - kind.size() - 1)}, std::string{kind}};
    }
  }
  return {std::string{url}, "none"};
}

}  // namespace caisson::life
