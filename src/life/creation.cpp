#include "life/creation.h"

#include <unistd.h>

#include "backend/disk_chain.h"
#include "backend/qcow2/create.h"
#include "backend/qcow2/layout.h"
#include "life/new_file.h"
#include "store/files.h"

namespace caisson::life {
namespace {

using store::VmSpec;

// The machine's own disk over its image's.
constexpr const char* overlay_file = "disk.qcow2";

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

// What a machine of an image has in its folder. Returns the spec with that in it. `lock` keeps the image from being
// removed until the machine is in the store.
Result<VmSpec> fill_from_image(const store::VmFolder& folder, const ImageName& image, VmSpec spec, Fd& lock,
                               const Say& say) {
  auto images = images_folder();
  if (!images) return std::unexpected(images.error());
  const std::string base = *images + "/" + image.folder();
  if (::access(base.c_str(), F_OK) != 0) {
    return fail("image {} is not here; build it first with: caisson image build {}", image.text(), image.text());
  }
  auto held = lock_file(base + ".lock", "another command that uses " + image.text(), say);
  if (!held) return std::unexpected(held.error());
  lock = std::move(*held);
  if (::access(base.c_str(), F_OK) != 0) return fail("image {} was removed meanwhile; try again", image.text());
  // With a kernel of the user's own the image's initrd, made for another version, is of no use.
  if (spec.kernel.empty()) {
    for (const char* file : {kernel_file, initrd_file}) {
      if (auto ok = copy_sparse(base + "/" + file, folder.file(file)); !ok) return std::unexpected(ok.error());
    }
    spec.kernel = kernel_file;
    if (spec.initrd.empty()) spec.initrd = initrd_file;
  }
  if (auto ok = add_overlay(base + "/" + disk_file, folder.file(overlay_file)); !ok) return std::unexpected(ok.error());
  spec.image = image.text();
  spec.disks.insert(spec.disks.begin(), {overlay_file, false, "qcow2"});
  return spec;
}

}  // namespace

Result<> check_new(const store::Store& store, const std::string& name) {
  if (auto ok = store::check_name("machine", name); !ok) return ok;
  if (!store.has(name)) return {};
  return fail("there is a machine {} already; choose another name, or remove it with: caisson rm {}", name, name);
}

Result<Made> create(const store::Store& store, NewMachine wish, const Follow& follow) {
  if (auto ok = check_new(store, wish.name); !ok) return std::unexpected(ok.error());
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
  auto placed = store.finish(std::move(*draft), wish.spec);
  if (!placed) return std::unexpected(placed.error());
  return Made{std::move(*placed), std::move(wish.spec)};
}

}  // namespace caisson::life
