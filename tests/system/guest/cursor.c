// cursor: gives the screen a pointer of 64 x 64 pixels, red with the hot spot 5, 7, at 100, 50; for as long as it runs.
// The kernel's interface is spelled out here, as drm_mode.h has it: Debian has that header only in libdrm-dev.
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

struct drm_mode_card_res {
  uint64_t fb_id_ptr, crtc_id_ptr, connector_id_ptr, encoder_id_ptr;
  uint32_t count_fbs, count_crtcs, count_connectors, count_encoders;
  uint32_t min_width, max_width, min_height, max_height;
};
struct drm_mode_create_dumb {
  uint32_t height, width, bpp, flags;
  uint32_t handle, pitch;
  uint64_t size;
};
struct drm_mode_map_dumb {
  uint32_t handle, pad;
  uint64_t offset;
};
struct drm_mode_cursor2 {
  uint32_t flags, crtc_id;
  int32_t x, y;
  uint32_t width, height, handle;
  int32_t hot_x, hot_y;
};
#define DRM_IOCTL_MODE_GETRESOURCES _IOWR('d', 0xa0, struct drm_mode_card_res)
#define DRM_IOCTL_MODE_CREATE_DUMB _IOWR('d', 0xb2, struct drm_mode_create_dumb)
#define DRM_IOCTL_MODE_MAP_DUMB _IOWR('d', 0xb3, struct drm_mode_map_dumb)
#define DRM_IOCTL_MODE_CURSOR2 _IOWR('d', 0xbb, struct drm_mode_cursor2)
enum { DRM_MODE_CURSOR_BO = 1, DRM_MODE_CURSOR_MOVE = 2 };

static int failed(const char* what) {
  perror(what);
  return 1;
}

int main(void) {
  const int card = open("/dev/dri/card0", O_RDWR);
  if (card < 0) return failed("card0");
  uint32_t crtc = 0;
  struct drm_mode_card_res resources = {.crtc_id_ptr = (uintptr_t)&crtc, .count_crtcs = 1};
  if (ioctl(card, DRM_IOCTL_MODE_GETRESOURCES, &resources) != 0) return failed("resources");
  struct drm_mode_create_dumb buffer = {.width = 64, .height = 64, .bpp = 32};
  if (ioctl(card, DRM_IOCTL_MODE_CREATE_DUMB, &buffer) != 0) return failed("buffer");
  struct drm_mode_map_dumb map = {.handle = buffer.handle};
  if (ioctl(card, DRM_IOCTL_MODE_MAP_DUMB, &map) != 0) return failed("map");
  uint32_t* pixels = mmap(NULL, buffer.size, PROT_READ | PROT_WRITE, MAP_SHARED, card, (off_t)map.offset);
  if (pixels == MAP_FAILED) return failed("mmap");
  for (unsigned i = 0; i < 64 * 64; ++i) pixels[i] = 0xffff0000;
  struct drm_mode_cursor2 cursor = {.flags = DRM_MODE_CURSOR_BO | DRM_MODE_CURSOR_MOVE,
                                    .crtc_id = crtc,
                                    .x = 100,
                                    .y = 50,
                                    .width = 64,
                                    .height = 64,
                                    .handle = buffer.handle,
                                    .hot_x = 5,
                                    .hot_y = 7};
  if (ioctl(card, DRM_IOCTL_MODE_CURSOR2, &cursor) != 0) return failed("cursor");
  puts("caisson-test: ready for the cursor");
  fflush(stdout);
  for (;;) pause();
}
