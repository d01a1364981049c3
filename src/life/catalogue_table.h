// The one table of the catalogue's keys and bounds.
//   Threads  constants
#pragma once

#include "control/json_fields.h"
#include "life/catalogue.h"

namespace caisson::control {

template <>
struct JsonTable<life::CatalogueEntry> {
  static constexpr auto fields() {
    using life::CatalogueEntry;
    return std::tuple{key("name", &CatalogueEntry::name, {1, 64}, true),
                      key("arch", &CatalogueEntry::arch, {0, 16}),
                      key("about", &CatalogueEntry::about, {0, 200}),
                      key("recipe", &CatalogueEntry::recipe, {0, 16}),
                      key("url", &CatalogueEntry::url, {0, 2048}),
                      key("sha256", &CatalogueEntry::sha256, {0, 64}),
                      key("key", &CatalogueEntry::key, {0, 64}),
                      key("signature", &CatalogueEntry::signature, {0, 2048}),
                      key("format", &CatalogueEntry::format, {0, 8}),
                      key("compression", &CatalogueEntry::compression, {0, 8}),
                      key("boot", &CatalogueEntry::boot, {0, 8}),
                      key("most_bytes", &CatalogueEntry::most_bytes, {1, uint64_t{1} << 50})};
  }
};

template <>
struct JsonTable<life::Catalogue> {
  static constexpr auto fields() {
    using life::Catalogue;
    return std::tuple{key("version", &Catalogue::version, {1, Catalogue::newest_version}, true),
                      key("images", &Catalogue::images, {0, Catalogue::max_entries}, true)};
  }
};

}  // namespace caisson::control
