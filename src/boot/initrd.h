// Tells a usable initial ramdisk from a damaged or wrong file before a guest's kernel panics over it.
//   Spec     Linux Documentation/driver-api/early-userspace/buffer-format.rst
//   Models   newc archives and compressed archives, concatenated and zero-padded as the kernel takes them; old-style
//   file
//            system images by their magic
//   Omits    unpacking to check contents: only gzip, whose end cannot be found otherwise, is inflated (and thrown
//   away);
//            bzip2 and lzo are known by their magic alone
//   Threads  none; the file is untrusted
#pragma once

#include "base/result.h"
#include "boot/bytes.h"

namespace caisson::boot {

[[nodiscard]] Result<> check_initrd(Bytes file);

}  // namespace caisson::boot
