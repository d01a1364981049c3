#include "machine/screen.h"

#include <cerrno>
#include <utility>

#include <sys/stat.h>
#include <unistd.h>

#include "backend/png.h"
#include "base/write_all.h"

namespace caisson::machine {

Result<> write_screen(const display::Vga& vga, const Fd& file, bool text) {
  struct stat info {};
  // A pipe could keep the machine waiting.
  if (::fstat(file.get(), &info) != 0 || !S_ISREG(info.st_mode)) return fail("a screenshot goes to a regular file");
  std::string bytes;
  if (text) {
    bytes = vga.text();
    if (bytes.empty()) return fail("the screen is in a graphics mode, or off; it has no text");
  } else {
    const display::Picture picture = vga.picture();
    auto png = encode_png(picture.width, picture.height, picture.rgb);
    if (!png) return std::unexpected(png.error());
    bytes.assign(png->begin(), png->end());
  }
  if (const int error = write_all(file.get(), bytes)) return fail_errno(error, "write the screenshot");
  return {};
}

Typist::Typist(Clock& clock, KeyboardController& keyboard)
    : clock_(clock), keyboard_(keyboard), timer_(clock.create_timer([this] { step(); })) {}

void Typist::type(std::string_view text, std::function<void(std::string error)> done) {
  auto events = control::parse_keys(text);
  if (!events) return done(events.error().message);
  if (waiting_ + events->size() > most_waiting) return done("too much is waiting to be typed; try again later");
  waiting_ += events->size();
  jobs_.push_back({{events->begin(), events->end()}, std::move(done)});
  if (jobs_.size() == 1) step();
}

void Typist::step() {
  if (jobs_.empty()) return;
  Job& job = jobs_.front();
  std::string error;
  if (!job.events.empty()) {
    const control::KeyEvent event = job.events.front();
    if (keyboard_.key({event.code, event.extended}, event.down)) {
      job.events.pop_front();
      --waiting_;
      tries_ = 0;
    } else if (++tries_ > patience) {
      error = "the guest does not take keys";
      waiting_ -= job.events.size();
      job.events.clear();
      tries_ = 0;
    }
  }
  if (job.events.empty()) {
    const auto done = std::move(job.done);
    jobs_.pop_front();
    done(std::move(error));
  }
  if (!jobs_.empty()) timer_->arm(clock_.now_ns() + pace_ns);
}

}  // namespace caisson::machine
