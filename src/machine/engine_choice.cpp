#include "machine/engine_choice.h"

#include <fcntl.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "base/check.h"
#include "jit/engine.h"
#include "jit/translate/classify.h"
#include "kvm/engine.h"
#include "kvm/probe.h"

namespace caisson::machine {
namespace {

// In the order of control::jit_classes.
constexpr std::array<uint32_t, control::jit_classes.size()> jit_off_bits{
    0,
    jit::off::instructions,
    jit::off::integer,
    jit::off::x87,
    jit::off::sse,
    jit::off::avx,
    jit::off::simd,
    jit::off::string,
    jit::off::atomic,
    jit::off::branch,
    jit::off::system,
    jit::off::windows,
    jit::off::flags,
    jit::off::chain,
    jit::off::seldom,
    jit::off::mirror,
    jit::off::patience,
    jit::off::direct,
};

// Something is asked for that only the jit engine does.
bool is_for_jit(const control::VmConfig& config) {
  return !config.jit_off.empty() || config.lockstep || config.profile || config.dump_fd.has_value();
}

Result<jit::JitOptions> jit_options(const control::VmConfig& config, int dump_fd) {
  jit::JitOptions options;
  for (const std::string& name : config.jit_off) {
    const auto found = std::ranges::find(control::jit_classes, name, &control::JitClass::name);
    if (found == control::jit_classes.end()) return fail("--jit-off {}: there is no such class", name);
    if (name == "translate") options.translate = false;
    options.off |= jit_off_bits[static_cast<size_t>(found - control::jit_classes.begin())];
  }
  options.lockstep = config.lockstep;
  if (options.lockstep && !options.translate) {
    return fail("--lockstep compares with the translator; leave out --jit-off translate");
  }
  options.profile = config.profile;
  options.dump_fd = dump_fd;
  for (const std::string& address : config.dump_at) {
    const auto [end, error] =
        std::from_chars(address.data(), address.data() + address.size(), options.dump_at.emplace_back(), 16);
    if (error != std::errc{} || end != address.data() + address.size())
      return fail("dump_at: {} is no address", address);
  }
  return options;
}

Result<ChosenEngine> make_jit(const jit::JitOptions& options, const EngineServices& services, std::string reason) {
  auto engine = jit::JitEngine::create(services, options);
  if (!engine) return std::unexpected(engine.error());
  return ChosenEngine{std::move(*engine), "jit", std::move(reason)};
}

ChosenEngine as_chosen(std::unique_ptr<kvm::KvmEngine> engine, std::string reason) {
  if (!engine->apics_missing().empty()) {
    reason += "; local APICs are our own, some slower: " + engine->apics_missing();
  }
  return {std::move(engine), "kvm", std::move(reason)};
}

}  // namespace

Result<ChosenEngine> jit_instead(const control::VmConfig& config, const EngineServices& services, std::string reason) {
  const auto options = jit_options(config, -1);
  if (!options) return std::unexpected(options.error());
  return make_jit(*options, services, std::move(reason));
}

EngineProbe::EngineProbe(const control::VmConfig& config, const Fd& kvm) {
  // With these the choice is made.
  if (config.engine != control::EngineChoice::Auto || !kvm.valid() || is_for_jit(config)) {
    return;
  }
  kvm_ = Fd{::fcntl(kvm.get(), F_DUPFD_CLOEXEC, 0)};
  thread_ = std::thread{[this] {
    kvm::examine(kvm_, [this](kvm::Verdict verdict) { verdict_.set_value(std::move(verdict)); });
    kvm_.reset();
  }};
}

EngineProbe::~EngineProbe() {
  if (thread_.joinable()) thread_.join();
}

kvm::Verdict EngineProbe::wait() {
  CAISSON_CHECK(thread_.joinable());
  return verdict_.get_future().get();
}

Result<ChosenEngine> choose_engine(const control::VmConfig& config, const EngineServices& services, Fd kvm,
                                   EngineProbe& probe, int dump_fd) {
  const auto options = jit_options(config, dump_fd);
  if (!options) return std::unexpected(options.error());
  if (config.engine == control::EngineChoice::Jit) return make_jit(*options, services, "asked for");
  if (config.engine == control::EngineChoice::Kvm) {
    auto engine = kvm::KvmEngine::create(services, std::move(kvm));
    if (!engine) return with_context("--engine kvm", engine.error());
    return as_chosen(std::move(*engine), "asked for");
  }
  if (is_for_jit(config)) {
    return make_jit(*options, services, "what was asked for is the jit engine's");
  }
  if (!kvm.valid()) return make_jit(*options, services, config.kvm_missing);
  kvm::Verdict verdict = probe.wait();
  if (!verdict.use) return make_jit(*options, services, std::move(verdict.why));
  auto engine = kvm::KvmEngine::create(services, std::move(kvm));
  if (!engine) return make_jit(*options, services, engine.error().message);
  return as_chosen(std::move(*engine), std::move(verdict.why));
}

}  // namespace caisson::machine
