#include "machine/screen.h"

#include <cerrno>
#include <utility>

#include <sys/stat.h>
#include <unistd.h>

#include "backend/png.h"
#include "backend/rfb/keymap.h"
#include "base/write_all.h"
#include "control/keys.h"

namespace caisson::machine {

Result<> write_screen(const display::Screen& screen, const Fd& file, bool text) {
  struct stat info {};
  // A pipe could keep the machine waiting.
  if (::fstat(file.get(), &info) != 0 || !S_ISREG(info.st_mode)) return fail("a screenshot goes to a regular file");
  std::string bytes;
  if (text) {
    bytes = screen.text();
    if (bytes.empty()) return fail("the screen is in a graphics mode, or off; it has no text");
  } else {
    const display::Picture picture = screen.picture();
    auto png = encode_png(picture.width, picture.height, picture.rgb);
    if (!png) return std::unexpected(png.error());
    bytes.assign(png->begin(), png->end());
  }
  if (const int error = write_all(file.get(), bytes)) return fail_errno(error, "write the screenshot");
  return {};
}

Typist::Typist(Clock& clock, Inputs& inputs, control::KeyboardLayout layout)
    : clock_(clock), inputs_(inputs), layout_(layout), timer_(clock.create_timer([this] { step(); })) {}

void Typist::type(std::string_view text, Done done) {
  const auto characters = [this](char32_t character) {
    if (layout_ == control::KeyboardLayout::Us) return control::american_keys(character);
    std::vector<control::Stroke> out;
    // The layouts have the same numbers: vnc.cpp.
    for (const rfb::Typed& one : rfb::keys_of(static_cast<rfb::Layout>(layout_), character)) {
      out.push_back({one.key.code, one.key.extended, one.shift, one.altgr});
    }
    return out;
  };
  auto events = control::parse_keys(text, characters);
  if (!events) return done(events.error().message);
  Job job{{}, std::move(done), "the guest does not take keys"};
  for (const control::KeyEvent& event : *events) {
    job.steps.emplace_back([this, event] { return inputs_.key({event.code, event.extended}, event.down); });
  }
  add(std::move(job));
}

void Typist::point(const control::Point& request, unsigned width, unsigned height, Done done) {
  using control::PointAction;
  if (request.x >= width || request.y >= height) {
    return done(
        fmt::format("{},{} is outside of the screen, which has {} x {} pixels", request.x, request.y, width, height));
  }
  Job job{
      {}, std::move(done), "the guest does not use the pointer; it needs a driver for virtio's tablet or a PS/2 mouse"};
  const auto be = [&](bool down) {
    const auto button = static_cast<uint8_t>(1u << static_cast<unsigned>(request.button));
    job.steps.emplace_back([this, request, width, height, button, down] {
      const auto buttons = static_cast<uint8_t>(down ? buttons_ | button : buttons_ & ~button);
      if (!inputs_.point({request.x, request.y, width, height, buttons})) return false;
      buttons_ = buttons;
      return true;
    });
  };
  // While something is dragged the corner is no way to go.
  if (buttons_ == 0) job.steps.emplace_back([this] { return inputs_.home(); });
  job.steps.emplace_back([this, request, width, height] {
    return inputs_.point({request.x, request.y, width, height, buttons_});
  });
  const auto presses = [&]() -> unsigned {
    switch (request.action) {
      case PointAction::Click: return 1;
      case PointAction::DoubleClick: return 2;
      default: return 0;
    }
  }();
  for (unsigned i = 0; i < presses; ++i) {
    be(true);
    be(false);
  }
  if (request.action == PointAction::Press) be(true);
  if (request.action == PointAction::Release) be(false);
  add(std::move(job));
}

void Typist::add(Job job) {
  if (waiting_ + job.steps.size() > most_waiting) return job.done("too much is waiting to be typed; try again later");
  waiting_ += job.steps.size();
  jobs_.push_back(std::move(job));
  if (jobs_.size() == 1) step();
}

void Typist::step() {
  if (jobs_.empty()) return;
  Job& job = jobs_.front();
  std::string error;
  if (!job.steps.empty()) {
    if (job.steps.front()()) {
      job.steps.pop_front();
      --waiting_;
      tries_ = 0;
    } else if (++tries_ > patience) {
      error = job.unwilling;
      waiting_ -= job.steps.size();
      job.steps.clear();
      tries_ = 0;
    }
  }
  if (job.steps.empty()) {
    const auto done = std::move(job.done);
    jobs_.pop_front();
    done(std::move(error));
  }
  if (!jobs_.empty()) timer_->arm(clock_.now_ns() + pace_ns);
}

}  // namespace caisson::machine
