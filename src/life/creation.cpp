#include "life/creation.h"

#include <unistd.h>

#include "backend/disk_chain.h"
#include "backend/qcow2/create.h"
#include "backend/qcow2/layout.h"
#include "life/limits.h"
#include "life/new_file.h"
#include "life/ssh_key.h"
#include "store/files.h"

namespace caisson::life {
namespace {

using store::VmSpec;

// What cloud-init reads.
constexpr const char* seed_file = "seed.iso";

// A disk of its own over the image's, which stays as it is.
Result<> add_overlay(const std::string& image_disk, const std::string& path) {
  auto chain = open_chain(image_disk, {.read_only = true, .format = DiskFormat::Raw});
  if (!chain) return std::unexpected(chain.error());
  qcow2::CreateOptions options;
  options.size = qcow2::round_up(chain->front().size, 512);
  options.backing_file = image_disk;
  options.backing_format = name_of(DiskFormat::Raw);
  auto file = life::NewFile::make(path, false);
  if (!file) return std::unexpected(file.error());
  if (auto made = qcow2::create(file->fd().get(), options); !made) return with_context(path, made.error());
  return file->finish();
}

// Whether what is to start the machine is what the image's disk needs.
Result<> check_boot(const ImageName& image, const Manifest& manifest, const VmSpec& spec) {
  if (spec.firmware == firmware_of(manifest.boot)) return {};
  if (!spec.kernel.empty() && manifest.boot != BootBy::Kernel) return {};  // the user's own kernel
  return fail("image {} is started by {} now, which has changed meanwhile; try again", image.text(),
              name_of(manifest.boot));
}

// What a machine of an image has in its folder. Returns the spec with that in it. `lock` keeps the image from being
// removed until the machine is in the store.
Result<VmSpec> fill_from_image(const store::VmFolder& folder, const ImageName& image, VmSpec spec, Fd& lock,
                               const Say& say) {
  auto images = images_folder();
  if (!images) return std::unexpected(images.error());
  const std::string base = *images + "/" + image.folder();
  if (auto here = manifest_of(image); !here) return std::unexpected(here.error());
  auto held = lock_file(base + ".lock", "another command that uses " + image.text(), say);
  if (!held) return std::unexpected(held.error());
  lock = std::move(*held);
  // Once more, since it may have been removed or replaced meanwhile.
  const auto manifest = manifest_of(image);
  if (!manifest) return std::unexpected(manifest.error());
  if (auto ok = check_boot(image, *manifest, spec); !ok) return std::unexpected(ok.error());
  // With a kernel of the user's own the image's initrd, made for another version, is of no use.
  if (manifest->boot == BootBy::Kernel && spec.kernel.empty()) {
    const bool initrd = manifest->files.contains(initrd_file);
    for (const char* file : {kernel_file, initrd_file}) {
      if (file == initrd_file && !initrd) continue;
      if (auto ok = copy_sparse(base + "/" + file, folder.file(file)); !ok) return std::unexpected(ok.error());
    }
    spec.kernel = kernel_file;
    if (spec.initrd.empty() && initrd) spec.initrd = initrd_file;
  }
  if (auto ok = add_overlay(base + "/" + disk_file, folder.file(overlay_file)); !ok) return std::unexpected(ok.error());
  spec.image = image.text();
  spec.disks.insert(spec.disks.begin(), {overlay_file, false, "qcow2"});
  return spec;
}

// What images that are built here can do of it: they have no cloud-init, and the program for the script on the disc
// only since they have sudo.
Result<> check_seed(const ImageName& image, const Seed& seed) {
  if (!image.built_here()) return {};
  if (!seed.user_data.empty() && !seed.user_data.starts_with("#!")) {
    return fail(
        "--cloud-init: {} has no cloud-init; give a script that begins with #!, or use --user, --packages and the "
        "like",
        image.text());
  }
  const auto manifest = manifest_of(image);
  if (!manifest) return std::unexpected(manifest.error());
  if (manifest->packages.contains("sudo")) return {};
  return fail(
      "image {} was built by an older version, and would not see what is asked for its first start; build it "
      "again with: caisson image build {} --force",
      image.text(), image.text());
}

// A disk and not a CD: not every cloud's kernel has drivers for these.
Result<> add_seed(const store::VmFolder& folder, const Seed& seed, VmSpec& spec) {
  if (spec.disks.size() >= control::VmConfig::max_disks)
    return fail("--disk: too many disks besides that of cloud-init");
  const auto key = ssh_public_key();  // without ssh on this host nobody asks for it
  const auto disc = make_seed(seed, folder.name(), key ? *key : "", spec.created_ms);
  if (!disc) return std::unexpected(disc.error());
  if (auto ok = write_file(folder.file(seed_file), *disc); !ok) return ok;
  spec.disks.push_back({seed_file, true, "raw"});
  return {};
}

}  // namespace

control::FirmwareKind firmware_of(BootBy boot) {
  switch (boot) {
    case BootBy::Kernel: break;
    case BootBy::Bios: return control::FirmwareKind::Bios;
    case BootBy::Uefi: return control::FirmwareKind::Uefi;
  }
  return control::FirmwareKind::None;
}

Result<> check_new(const store::Store& store, const std::string& name) {
  if (auto ok = store::check_name("machine", name); !ok) return ok;
  if (!store.has(name)) return {};
  return fail("there is a machine {} already; choose another name, or remove it with: caisson rm {}", name, name);
}

Result<> check_creation(const store::Store& store, const NewMachine& wish) {
  if (auto ok = check_new(store, wish.name); !ok) return ok;
  if (!wish.image) return {};
  if (auto here = manifest_of(*wish.image); !here) return std::unexpected(here.error());
  return wish.seed ? check_seed(*wish.image, *wish.seed) : Result<>{};
}

Result<Made> create(const store::Store& store, NewMachine wish, const Follow& follow) {
  if (auto ok = check_creation(store, wish); !ok) return std::unexpected(ok.error());
  auto draft = store.begin(wish.name);
  if (!draft) return std::unexpected(draft.error());
  Fd image_lock;
  if (wish.image) {
    auto spec = fill_from_image(draft->folder, *wish.image, wish.spec, image_lock, follow.say);
    if (!spec) {
      store.give_up(std::move(*draft));
      return std::unexpected(spec.error());
    }
    wish.spec = std::move(*spec);
  }
  if (wish.seed) {
    if (auto ok = add_seed(draft->folder, *wish.seed, wish.spec); !ok) {
      store.give_up(std::move(*draft));
      return std::unexpected(ok.error());
    }
  }
  if (auto ok = apply_disk_limits(wish.disk_limits, wish.spec); !ok) {
    store.give_up(std::move(*draft));
    return std::unexpected(ok.error());
  }
  auto placed = store.finish(std::move(*draft), wish.spec);
  if (!placed) return std::unexpected(placed.error());
  return Made{std::move(*placed), std::move(wish.spec)};
}

}  // namespace caisson::life
