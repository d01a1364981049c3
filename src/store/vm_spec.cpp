#include "store/vm_spec.h"

#include <algorithm>
#include <cctype>

#include "store/vm_spec_table.h"

namespace caisson::store {

namespace {

Result<> check_version(const control::Json& json) {
  if (!json.is_object()) return {};
  const auto found = json.find("version");
  if (found == json.end() || !found->is_number_unsigned() || found->get<uint64_t>() <= VmSpec::newest_version) {
    return {};
  }
  return fail("written by a newer version of caisson (format {}, this one knows {}); update caisson",
              found->get<uint64_t>(), VmSpec::newest_version);
}

}  // namespace

Result<> VmSpec::not_newer(std::string_view text) {
  const auto json = control::parse_json(text);
  return json ? check_version(*json) : Result<>{};
}

Result<VmSpec> VmSpec::parse(std::string_view text) {
  auto json = control::parse_json(text);
  if (!json) return std::unexpected(json.error());
  // First: what a newer version has written need not look like ours.
  if (auto ok = check_version(*json); !ok) return std::unexpected(ok.error());
  VmSpec spec;
  if (auto ok = control::from_json(*json, spec); !ok) return std::unexpected(ok.error());
  if (auto ok = spec.validate(); !ok) return std::unexpected(ok.error());
  return spec;
}

std::string VmSpec::serialise() const {
  return control::to_json(*this).dump(2, ' ', false, control::Json::error_handler_t::replace) + "\n";
}

Result<> VmSpec::validate() const {
  if (auto ok = control::check_bounds(*this); !ok) return ok;
  if (memory_bytes % (uint64_t{1} << 20) != 0) return fail("memory_bytes is not a multiple of 1 MiB");
  const bool model_known = std::ranges::find(control::cpu_models, cpu_model) != control::cpu_models.end();
  if (!model_known) return fail("cpu_model is {}; known are auto, host, x86-64-v2, x86-64-v3, x86-64-v4", cpu_model);
  if (kernel.empty() == (firmware == control::FirmwareKind::None)) {
    return fail("either kernel or firmware says what is started");
  }
  if (!firmware_vars.empty() && firmware != control::FirmwareKind::Uefi) {
    return fail("firmware_vars is for firmware uefi only");
  }
  if (!forwards.empty() && net == control::NetKind::None) return fail("forwards need a network; net is none");
  if (net_limit && net == control::NetKind::None) return fail("net_limit needs a network; net is none");
  if (!serial2.empty() && serial2.front() != '/') return fail("serial2 {} is not an absolute path", serial2);
  for (const DiskSpec& disk : disks) {
    if (!disk.format.empty() && disk.format != "raw" && disk.format != "qcow2") {
      return fail("the disk {} has the format {}; known are raw and qcow2", disk.path, disk.format);
    }
    if (disk.path.front() != '/' && disk.path.find('/') != std::string::npos) {
      return fail("the disk {} is neither an absolute path nor a file of the machine's folder", disk.path);
    }
  }
  return {};
}

Result<> check_name(std::string_view what, std::string_view name) {
  const auto fits = [](unsigned char c) { return std::isalnum(c) || c == '-' || c == '_' || c == '.'; };
  if (name.empty() || name.size() > 64 || !std::all_of(name.begin(), name.end(), fits) || name.front() == '.' ||
      name.front() == '-') {
    std::string shown{name.substr(0, 80)};
    for (char& c : shown) {
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
    }
    return fail("{} {}: use 1 to 64 letters, digits, '-', '_' and '.', starting with a letter or digit", what, shown);
  }
  return {};
}

}  // namespace caisson::store
