#include "machine/machine.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "backend/char_file.h"
#include "backend/console_socket.h"
#include "base/event_loop.h"
#include "base/log.h"
#include "base/start_up_memory.h"
#include "base/utc.h"
#include "boot/boot.h"
#include "control/messages.h"
#include "devices/chipset/attach.h"
#include "devices/display/attach.h"
#include "devices/pci/host_bridge.h"
#include "devices/pci/lpc_bridge.h"
#include "devices/virtio/attach.h"
#include "machine/boot_plan.h"
#include "machine/console_hub.h"
#include "machine/console_switch.h"
#include "machine/control_server.h"
#include "machine/disks.h"
#include "machine/engine_choice.h"
#include "machine/firmware.h"
#include "machine/guest_stream.h"
#include "machine/inputs.h"
#include "machine/limits.h"
#include "machine/live_devices.h"
#include "machine/machine_clock.h"
#include "machine/network.h"
#include "machine/profile_event.h"
#include "machine/screen.h"
#include "machine/serial_console.h"
#include "machine/vnc.h"

namespace caisson::machine {
namespace {

using control::Exited;
using control::ExitReason;

// When what only the start needed is given back: the firmware or kernel is on its way by then.
constexpr uint64_t start_up_ns = 1'000'000'000;

class Machine final : public PowerSink {
 public:
  Machine(const control::VmConfig& config, std::vector<Fd> fds, control::Channel& channel)
      : config_(config), fds_(std::move(fds)), channel_(channel) {}
  ~Machine() override;

  [[nodiscard]] Result<> create();
  [[nodiscard]] Exited run();

  // To clients and the record of events; the owner is told when everything is closed.
  void tell_end(const Exited& exited);

  // Any thread: remembers the first event, and has the event loop end its round.
  void request(PowerEvent event, uint8_t code) override;

 private:
  [[nodiscard]] Result<> create_engine();
  [[nodiscard]] Result<> create_cpus();
  // Puts the jit engine in the place of one that failed; hand_over() with the CPUs' state. No CPU runs.
  [[nodiscard]] Result<> use_jit(std::string why);
  [[nodiscard]] Result<> hand_over(std::string why);
  void engine_failed(std::string why);
  [[nodiscard]] Result<> create_console();
  [[nodiscard]] Result<> create_serial2();
  [[nodiscard]] Result<> create_control();
  [[nodiscard]] Result<> create_devices();
  [[nodiscard]] Result<> create_cpu_limits();
  [[nodiscard]] Result<> create_firmware();
  [[nodiscard]] bool has_display() const { return config_.display || config_.firmware != control::FirmwareKind::None; }
  [[nodiscard]] bool has_vga() const { return has_display() && config_.graphics == control::Graphics::Vga; }
  void describe_boot();
  [[nodiscard]] Result<> load();
  void start_cpus();
  void stop_cpus();
  void cpu_thread(unsigned index);
  void handle_channel();
  // On the event loop: does what is asked for, and answers.
  void handle_request(const control::Request& request, const std::vector<Fd>& fds, ControlServer::Reply reply);
  [[nodiscard]] control::Status status();
  // No CPU runs.
  void pause();
  void store_cpus();
  [[nodiscard]] Result<> resume();
  void finish(Exited exited);
  void tell(const control::Event& event);
  void record(const control::Event& event);
  // What a power event means: the end, or none for another round after a reset.
  [[nodiscard]] std::optional<Exited> after(PowerEvent event, uint8_t code);
  [[nodiscard]] Result<> reset();
  [[nodiscard]] Fd take(uint32_t index) { return std::move(fds_[index]); }

  const control::VmConfig& config_;
  std::vector<Fd> fds_;
  control::Channel& channel_;

  // In the order they depend on each other; destroyed from the end.
  Fd kvm_;  // until the engine has it
  std::optional<EngineProbe> probe_;
  Bus bus_;
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<MachineClock> clock_;
  std::optional<x86::CpuModel> model_;
  std::unique_ptr<GuestMemory> memory_;
  std::unique_ptr<ConsoleHub> console_;
  std::unique_ptr<ControlServer> control_;
  std::unique_ptr<ConsoleSwitch> consoles_;
  std::unique_ptr<SerialConsole> serial_;
  std::unique_ptr<CharBackend> serial2_backend_;  // null: no COM2
  std::unique_ptr<SerialConsole> serial2_;
  ConsoleSocket* serial2_socket_ = nullptr;  // the backend, where it is one
  Disks disks_;
  std::unique_ptr<Network> network_;
  std::unique_ptr<Chipset> chipset_;
  std::unique_ptr<Firmware> firmware_;
  std::unique_ptr<pci::HostBridge> bridge_;
  display::Vga* vga_ = nullptr;        // the bridge's
  display::Screen* screen_ = nullptr;  // likewise: it, or another
  std::unique_ptr<Inputs> inputs_;
  std::unique_ptr<Typist> typist_;
  virtio::Vsock* vsock_ = nullptr;  // the bridge's
  std::unique_ptr<LiveDevices> live_;
  virtio::Balloon* balloon_ = nullptr;
  std::unique_ptr<CpuLimits> cpu_limits_;
  std::unique_ptr<Vnc> vnc_;
  ChosenEngine engine_;
  std::vector<std::unique_ptr<Vcpu>> cpus_;
  std::vector<CpuState> reset_states_;
  std::vector<std::thread> threads_;
  pci::Layout layout_;
  boot::BootConfig boot_;

  std::mutex power_lock_;
  std::optional<std::pair<PowerEvent, uint8_t>> power_event_;
  std::optional<Exited> exited_;               // decided by a request or a failure
  std::optional<std::string> engine_failure_;  // the engine cannot go on, another one may
  uint64_t resets_ = 0;
  uint64_t started_ms_ = 0;

  // All of these on the thread that runs the event loop.
  bool pause_wanted_ = false;
  std::vector<ControlServer::Reply> pause_replies_;  // due when it is as wanted
  bool paused_ = false;
  std::vector<CpuState> paused_states_;

  std::mutex events_lock_;
  Fd events_;
  uint64_t events_written_ = 0;
};

Machine::~Machine() {
  vnc_.reset();  // its thread takes the device lock
  stop_cpus();
  // Backends ask for the device lock to be held when they go.
  const std::lock_guard hold(bus_.lock());
  bus_.set_binder(nullptr);
  bus_.set_direct_binder(nullptr);
  if (chipset_) chipset_->apic_bus().set_keeper(nullptr);
  control_.reset();
  live_.reset();
  typist_.reset();
  inputs_.reset();
  cpus_.clear();
  engine_.engine.reset();
  bridge_.reset();
  firmware_.reset();
  chipset_.reset();
  network_.reset();
  disks_.close();
  serial2_.reset();
  serial2_backend_.reset();
  serial_.reset();
  consoles_.reset();
  console_.reset();
}

Result<> Machine::create() {
  if (config_.events_fd) events_ = take(*config_.events_fd);
  kvm_ = config_.kvm_fd ? take(*config_.kvm_fd) : Fd{};
  probe_.emplace(config_, kvm_);
  auto loop = EventLoop::create(&bus_.lock());
  if (!loop) return std::unexpected(loop.error());
  loop_ = std::move(*loop);
  if (auto done = create_control(); !done) return done;
  const uint64_t tsc_hz = host_tsc_hz({config_.tsc_before, config_.tsc_before_ns});
  clock_ = std::make_unique<MachineClock>(*loop_, tsc_hz);
  // Nothing moves between hosts yet: a machine gets what this one has (docs/decisions/0006).
  auto model = x86::CpuModel::create(
      config_.cpu_model == "auto" ? std::string_view("host") : std::string_view(config_.cpu_model), config_.cpus,
      tsc_hz);
  if (!model) return std::unexpected(model.error());
  model_ = std::move(*model);
  // OVMF maps all that the CPU can address before it has loaded anything, with pages of 2 MiB.
  if (config_.firmware == control::FirmwareKind::Uefi) model_->limit_physical_bits(40);
  const bool by_firmware = config_.firmware != control::FirmwareKind::None;
  auto memory = GuestMemory::create(config_.memory_bytes,
                                    by_firmware ? firmware_memory : GuestMemory::Layout{.video_window = has_vga()});
  if (!memory) return std::unexpected(memory.error());
  memory_ = std::move(*memory);

  if (auto done = create_console(); !done) return done;
  consoles_ = std::make_unique<ConsoleSwitch>(*console_);
  serial_ = std::make_unique<SerialConsole>(consoles_->serial());
  serial_->scanner().set_handler([this](std::string line) { tell(control::Panicked{std::move(line)}); });

  if (auto done = create_serial2(); !done) return done;

  const ChipsetOptions options{.cpus = config_.cpus,
                               .physical_bits = model_->physical_bits(),
                               .x2apic = model_->has(x86::Feature::X2apic),
                               .low_memory = memory_->low_size(),
                               .high_memory = memory_->high_size(),
                               .debug_exit = config_.debug_exit,
                               .keyboard = has_display(),
                               .serial2 = serial2_.get()};
  auto chipset = Chipset::create(bus_, *clock_, *this, *serial_, options);
  if (!chipset) return std::unexpected(chipset.error());
  chipset_ = std::move(*chipset);
  serial_->connect(chipset_->com1());
  if (serial2_) serial2_->connect(*chipset_->com2());
  if (by_firmware) layout_ = firmware_pci_layout(*memory_, model_->physical_bits());
  bridge_ = std::make_unique<pci::HostBridge>(
      bus_, layout_, [this](unsigned gsi) -> InterruptLine& { return chipset_->router().line(gsi); },
      by_firmware ? pci::HostBridge::Kind::Q35 : pci::HostBridge::Kind::Direct);
  chipset_->raise_reset_port();
  if (by_firmware) {
    if (auto done = create_firmware(); !done) return done;
  }
  if (auto done = create_devices(); !done) return done;
  if (auto done = create_cpu_limits(); !done) return done;
  if (auto done = create_engine(); !done) return done;
  if (config_.vnc_fd) {
    if (screen_ == nullptr)
      return fail("--vnc: this machine has no display; the package seabios or ovmf lacks a VGA BIOS");
    auto vnc = Vnc::create(take(*config_.vnc_fd), config_, bus_, *screen_, *inputs_);
    if (!vnc) return std::unexpected(vnc.error());
    vnc_ = std::move(*vnc);
  }

  if (firmware_) {
    describe_boot();
    return load();
  }
  boot_.kernel = fds_[*config_.kernel_fd].get();
  boot_.kernel_name = config_.kernel_label;
  if (config_.initrd_fd) {
    boot_.initrd = fds_[*config_.initrd_fd].get();
    boot_.initrd_name = config_.initrd_label;
  }
  boot_.command_line = config_.append;
  boot_.acpi = acpi_config(layout_, config_.cpus, options.pvpanic, serial2_ != nullptr);
  boot_.acpi.keyboard_controller = has_display();
  boot_.acpi.vga = has_vga();
  boot_.acpi.hotplug = hotplug_config(live_->slots());
  // Linux would have its early ticks by it and see to it that they come, where now it does without any.
  if (asks_for_hpet(config_.append)) boot_.acpi.hpet = hpet_config();
  boot_.smbios = smbios_config(*model_, config_.cpus, tsc_hz);
  return load();
}

Result<> Machine::create_firmware() {
  const auto opened = [this](const std::optional<uint32_t>& index) { return index ? fds_[*index].get() : -1; };
  auto firmware = Firmware::create(bus_, *memory_,
                                   {.image = opened(config_.firmware_fd),
                                    .image_name = config_.firmware_label,
                                    .bios = config_.firmware == control::FirmwareKind::Bios,
                                    .variables = opened(config_.firmware_vars_fd),
                                    .variables_name = config_.firmware_vars_label,
                                    .log = opened(config_.firmware_log_fd),
                                    .cpus = config_.cpus});
  if (!firmware) return std::unexpected(firmware.error());
  firmware_ = std::move(*firmware);
  bridge_->plug(std::make_unique<pci::LpcBridge>(), pci::LpcBridge::slot);
  if (config_.vga_bios_fd && has_vga()) {
    auto rom = read_rom(fds_[*config_.vga_bios_fd].get(), "VGA BIOS");
    if (!rom) return std::unexpected(rom.error());
    firmware_->files().add_file(boot::firmware::vga_rom_file, std::move(*rom));
  }
  chipset_->rtc().set_cmos(chipset::cmos_more_cpus, static_cast<uint8_t>(config_.cpus - 1));
  return {};
}

// What firmware is told, once all devices are there.
void Machine::describe_boot() {
  const auto acpi = [this] {
    pci::Layout layout = bridge_->layout();
    if (layout.ecam_buses == 0) layout.ecam_buses = 256;  // firmware has not said where yet
    boot::AcpiConfig tables = acpi_config(layout, config_.cpus, true, serial2_ != nullptr);
    tables.keyboard_controller = true;
    tables.vga = vga_ != nullptr;
    tables.hpet = hpet_config();
    tables.hotplug = hotplug_config(live_->slots());
    return tables;
  };
  firmware_->add_tables(acpi, smbios_config(*model_, config_.cpus, clock_->tsc_hz()), disks_.boot_order());
  // SeaBIOS shows its text screen on the serial port, too.
  firmware_->files().add_file(boot::firmware::serial_console_file,
                              std::vector<uint8_t>{chipset::com1_port & 0xff, chipset::com1_port >> 8});
}

Result<> Machine::create_console() {
  Fd console = take(config_.console_fd);
  Fd console_input{::dup(console.get())};
  auto socket = ConsoleSocket::create(*loop_, std::move(console_input), std::move(console));
  if (!socket) return std::unexpected(socket.error());
  std::unique_ptr<ConsoleLog> log;
  if (config_.log_fd) {
    log = std::make_unique<ConsoleLog>(*loop_, take(*config_.log_fd), take(*config_.old_log_fd),
                                       control::VmConfig::max_log);
  }
  console_ = std::make_unique<ConsoleHub>(*loop_, std::move(*socket), std::move(log));
  return {};
}

Result<> Machine::create_serial2() {
  if (!config_.serial2_fd) return {};
  Fd fd = take(*config_.serial2_fd);
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return fail_errno(errno, config_.serial2_label);
  if (S_ISSOCK(info.st_mode) || ::isatty(fd.get()) == 1) {
    Fd input{::fcntl(fd.get(), F_DUPFD_CLOEXEC, 0)};
    auto socket = ConsoleSocket::create(*loop_, std::move(input), std::move(fd));
    if (!socket) return with_context(config_.serial2_label, socket.error());
    serial2_socket_ = socket->get();
    serial2_backend_ = std::move(*socket);
  } else {
    serial2_backend_ = std::make_unique<CharFile>(std::move(fd), config_.serial2_label);
  }
  serial2_ = std::make_unique<SerialConsole>(*serial2_backend_);
  return {};
}

Result<> Machine::create_control() {
  if (!config_.listen_fd && !config_.control_fd) return {};
  control_ = std::make_unique<ControlServer>(
      *loop_, [this](const control::Request& request, const std::vector<Fd>& fds, ControlServer::Reply reply) {
        handle_request(request, fds, std::move(reply));
      });
  for (const auto& index : {config_.listen_fd, config_.control_fd}) {
    if (!index) continue;
    if (auto done = control_->listen(take(*index)); !done) return done;
  }
  return {};
}

Result<> Machine::create_engine() {
  const EngineServices services{*memory_, bus_, *clock_, *model_, loop_.get()};
  auto engine =
      choose_engine(config_, services, std::move(kvm_), *probe_, config_.dump_fd ? fds_[*config_.dump_fd].get() : -1);
  if (!engine) return std::unexpected(engine.error());
  engine_ = std::move(*engine);
  auto created = create_cpus();
  if (created || config_.engine != control::EngineChoice::Auto || engine_.name == "jit") return created;
  return use_jit(created.error().message);
}

Result<> Machine::create_cpus() {
  reset_states_.clear();
  {
    const std::lock_guard hold(bus_.lock());
    chipset_->apic_bus().set_keeper(engine_.engine->apics());
    bus_.set_binder(engine_.engine->doorbells());
    bus_.set_direct_binder(engine_.engine->direct_memory());
  }
  for (unsigned i = 0; i < config_.cpus; ++i) {
    auto cpu = engine_.engine->create_vcpu(i, chipset_->local_apic(i));
    if (!cpu) return std::unexpected(cpu.error());
    chipset_->local_apic(i).connect(**cpu);
    reset_states_.push_back((*cpu)->store());
    cpus_.push_back(std::move(*cpu));
  }
  return {};
}

Result<> Machine::create_devices() {
  const virtio::Services services{*memory_, chipset_->msi(), config_.cpus,
                                  [this](std::function<void()> task) { loop_->post(std::move(task)); }};
  if (has_vga()) {
    // Firmware's is there where its BIOS is.
    if (!firmware_ || config_.vga_bios_fd) screen_ = vga_ = &display::add_vga(*bridge_, bus_, *clock_, vga_slot);
  } else if (has_display()) {
    screen_ = &virtio::add_gpu(*bridge_, services, vga_slot);
  }
  UsbPorts usb(*bridge_, services, *clock_);
  if (auto done = disks_.add(config_, fds_, *loop_, *bridge_, services, usb); !done) return done;
  if (config_.net != control::NetKind::None) {
    auto network = Network::create(*loop_, config_.forwards);
    if (!network) return std::unexpected(network.error());
    network_ = std::move(*network);
    if (config_.net_limit) network_->backend().set_limit(to_backend(*config_.net_limit));
    network_->plug(config_.net_card, *bridge_, services, *clock_, *bridge_->free_slot());
  }
  virtio::add_rng(*bridge_, services);
  if (config_.vsock) vsock_ = &virtio::add_vsock(*bridge_, services);
  virtio::add_console(*bridge_, services, consoles_->virtio());
  if (has_display()) {
    inputs_ = add_inputs(*clock_, chipset_->keyboard(), *bridge_, services, usb, config_.tablet);
    typist_ = std::make_unique<Typist>(*clock_, *inputs_, config_.keyboard_layout);
  }
  if (config_.balloon) balloon_ = &virtio::add_balloon(*bridge_, services);
  const uint32_t fixed = (screen_ != nullptr ? 1u << vga_slot : 0) | (firmware_ ? 1u << pci::LpcBridge::slot : 0);
  live_ = std::make_unique<LiveDevices>(
      LiveDevices::Parts{*loop_, *clock_, *bridge_, chipset_->hotplug(), services, disks_, network_, fixed},
      [this](const control::Event& event) { tell(event); });
  return {};
}

Result<> Machine::create_cpu_limits() {
  cpu_limits_ = std::make_unique<CpuLimits>(*loop_, config_.cpus, [this] {
    for (const auto& cpu : cpus_) cpu->stop();
  });
  return cpu_limits_->set(config_.cpu_cap_percent, config_.cpu_share, config_.cpu_group);
}

Result<> Machine::load() {
  if (firmware_) {
    if (auto done = firmware_->load(); !done) return done;
    for (unsigned i = 0; i < cpus_.size(); ++i) {
      if (auto done = cpus_[i]->load(reset_states_[i]); !done) return done;
    }
    return {};
  }
  if (vga_ != nullptr) {
    constexpr uint16_t width = 1024, height = 768;
    const std::lock_guard hold(bus_.lock());
    vga_->start_linear(width, height);
    boot_.screen = {vga_->bar_address(display::Vga::frame_buffer), width, height};
  }
  auto entry = boot::load(*memory_, boot_);
  if (!entry) return std::unexpected(entry.error());
  for (unsigned i = 0; i < cpus_.size(); ++i) {
    if (auto done = cpus_[i]->load(i == 0 ? entry_state(*entry, reset_states_[0]) : reset_states_[i]); !done)
      return done;
  }
  return {};
}

Result<> Machine::reset() {
  {
    const std::lock_guard hold(bus_.lock());
    for (pci::PciDevice* device : bridge_->functions()) device->reset();
    chipset_->reset();
    if (firmware_) firmware_->reset();
    serial_->scanner().forget();
    live_->was_reset();
  }
  if (auto done = memory_->clear(); !done) return done;
  engine_.engine->memory_replaced();
  return load();
}

void Machine::cpu_thread(unsigned index) {
  auto reason = caisson::ExitReason::Stopped;
  while (reason == caisson::ExitReason::Stopped && cpu_limits_->rest()) reason = cpus_[index]->run();
  switch (reason) {
    case caisson::ExitReason::Debug:
    case caisson::ExitReason::Stopped: break;
    case caisson::ExitReason::TripleFault: request(PowerEvent::TripleFault, 0); break;
    case caisson::ExitReason::InternalError:
      engine_failed(fmt::format("CPU {}: {}", index, cpus_[index]->error()));
      break;
  }
}

// The machine goes on with the jit engine where the choice is ours, else it ends.
void Machine::engine_failed(std::string why) {
  if (config_.engine != control::EngineChoice::Auto || engine_.name == "jit") {
    finish({ExitReason::Failure, 0, std::move(why)});
    return;
  }
  {
    const std::lock_guard hold(power_lock_);
    if (!engine_failure_) engine_failure_ = std::move(why);
  }
  loop_->stop();
}

Result<> Machine::hand_over(std::string why) {
  std::vector<CpuState> states;
  for (const auto& cpu : cpus_) states.push_back(cpu->store());
  if (auto done = use_jit(why); !done) return done;
  for (unsigned i = 0; i < cpus_.size(); ++i) {
    if (auto done = cpus_[i]->load(states[i]); !done) return done;
  }
  tell(control::Notice{"the jit engine runs this machine from here on: " + why});
  return {};
}

Result<> Machine::use_jit(std::string why) {
  auto engine = jit_instead(config_, {*memory_, bus_, *clock_, *model_, loop_.get()}, std::move(why));
  if (!engine) return std::unexpected(engine.error());
  // The old CPUs stay until the local APICs know the new ones.
  const ChosenEngine old_engine = std::exchange(engine_, std::move(*engine));
  const auto old_cpus = std::exchange(cpus_, {});
  return create_cpus();
}

void Machine::start_cpus() {
  cpu_limits_->start();
  for (unsigned i = 0; i < cpus_.size(); ++i) threads_.emplace_back([this, i] { cpu_thread(i); });
}

void Machine::stop_cpus() {
  if (cpu_limits_) cpu_limits_->stop();
  for (size_t i = 0; i < threads_.size(); ++i) cpus_[i]->stop();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void Machine::request(PowerEvent event, uint8_t code) {
  {
    const std::lock_guard hold(power_lock_);
    if (!power_event_) power_event_ = {event, code};
  }
  loop_->stop();
}

void Machine::finish(Exited exited) {
  {
    const std::lock_guard hold(power_lock_);
    if (!exited_) exited_ = std::move(exited);
  }
  loop_->stop();
}

void Machine::tell(const control::Event& event) {
  const std::string text = control::serialise(event);
  // Whoever started this VM may be gone; the VM ends then by its closed channel, or goes on if it is detached.
  (void)channel_.send(text);
  if (control_) control_->tell(text);
  record(event);
}

void Machine::tell_end(const Exited& exited) {
  if (control_) control_->tell(control::serialise(control::Event{exited}));
  record(exited);
}

void Machine::record(const control::Event& event) {
  if (!events_.valid()) return;
  // A guest that resets for ever fills no disk: after so many bytes its end alone is written.
  constexpr uint64_t most_events = 1 << 20;
  const std::string line = control::serialise(event, utc_ms()) + "\n";
  const std::lock_guard hold(events_lock_);
  if (events_written_ + line.size() > most_events && !std::holds_alternative<Exited>(event)) return;
  if (::write(events_.get(), line.data(), line.size()) > 0) events_written_ += line.size();
}

void Machine::handle_channel() {
  auto packet = channel_.receive();
  if (!packet || !*packet) {
    loop_->unwatch(channel_.fd());
    if (!config_.detached) finish({ExitReason::Stopped, 0, {}});
    return;
  }
  auto message = control::parse_request((*packet)->text, (*packet)->fds.size());
  if (!message) {
    tell(control::Notice{message.error().message});
    return;
  }
  handle_request(*message, (*packet)->fds, [this](const control::Event& event, const Fd&) {
    if (const auto* refused = std::get_if<control::Refused>(&event)) tell(control::Notice{refused->text});
  });
}

void Machine::handle_request(const control::Request& message, const std::vector<Fd>& fds, ControlServer::Reply reply) {
  using control::Done;
  using control::Refused;
  const auto answer = [&reply](const Result<>& done) {
    reply(done ? control::Event{Done{}} : Refused{done.error().message}, {});
  };
  if (live_ && live_->handle(message, fds, pause_wanted_, reply)) return;
  if (std::holds_alternative<control::Query>(message)) {
    reply(status(), {});
  } else if (std::holds_alternative<control::PowerButton>(message)) {
    if (pause_wanted_) return answer(fail("the machine is paused and cannot shut down; resume it first"));
    chipset_->acpi_pm().press_power_button();
    answer({});
  } else if (std::holds_alternative<control::Reset>(message)) {
    request(PowerEvent::Reset, 0);
    answer({});
  } else if (std::holds_alternative<control::Stop>(message)) {
    finish({ExitReason::Stopped, 0, {}});
    answer({});
  } else if (std::holds_alternative<control::Pause>(message) || std::holds_alternative<control::Resume>(message)) {
    const bool wanted = std::holds_alternative<control::Pause>(message);
    if (pause_wanted_ == wanted) return answer(fail("the machine is {}", wanted ? "paused already" : "not paused"));
    pause_wanted_ = wanted;
    pause_replies_.push_back(std::move(reply));
    loop_->stop();
  } else if (const auto* attach = std::get_if<control::Attach>(&message)) {
    auto console = console_->attach(attach->replay);
    if (!console) return reply(Refused{console.error().message}, {});
    reply(control::Attached{}, std::move(*console));
  } else if (const auto* add = std::get_if<control::AddForward>(&message)) {
    answer(network_ ? network_->add(add->forward)
                    : fail("this machine has no network; it was started with --net none"));
  } else if (const auto* remove = std::get_if<control::RemoveForward>(&message)) {
    answer(network_ ? network_->remove(remove->forward) : fail("this machine has no network"));
  } else if (const auto* limits = std::get_if<control::SetLimits>(&message)) {
    answer(set_limits(*limits, {disks_, network_.get(), *cpu_limits_, balloon_}));
  } else if (const auto* connect = std::get_if<control::Connect>(&message)) {
    auto stream = connect_guest(*loop_, vsock_, connect->port, pause_wanted_);
    if (!stream) return reply(Refused{stream.error().message}, {});
    reply(control::Attached{}, std::move(*stream));
  } else if (const auto* screenshot = std::get_if<control::Screenshot>(&message)) {
    answer(screen_ != nullptr ? write_screen(*screen_, fds[0], screenshot->text)
                              : fail("this machine has no display; start it with --firmware or --display"));
  } else if (const auto* keys = std::get_if<control::Type>(&message)) {
    if (!typist_) return answer(fail("this machine has no keyboard; start it with --firmware or --display"));
    typist_->type(keys->text, [reply = std::move(reply)](std::string error) {
      reply(error.empty() ? control::Event{Done{}} : Refused{std::move(error)}, {});
    });
  } else if (const auto* point = std::get_if<control::Point>(&message)) {
    if (!typist_ || screen_ == nullptr) {
      return answer(fail("this machine has no pointer; start it with --firmware or --display"));
    }
    const auto [width, height] = screen_->size();
    typist_->point(*point, width, height, [reply = std::move(reply)](std::string error) {
      reply(error.empty() ? control::Event{Done{}} : Refused{std::move(error)}, {});
    });
  } else {
    answer({});  // the console has no size that anybody asks for
  }
}

control::Status Machine::status() {
  control::Status status;
  status.state = pause_wanted_ ? control::RunState::Paused : control::RunState::Running;
  status.engine = engine_.name;
  status.engine_reason = engine_.reason;
  status.cpu_model = model_->name();
  status.cpus = config_.cpus;
  status.memory_bytes = config_.memory_bytes;
  status.started_ms = started_ms_;
  status.resets = resets_;
  status.consoles = console_->attached();
  status.vsock = vsock_ != nullptr;
  status.cpu_limits_by = cpu_limits_->kept_by();
  if (balloon_ != nullptr) status.balloon = balloon_status(*balloon_);
  if (network_) status.forwards = network_->forwards();
  return status;
}

void Machine::store_cpus() {
  paused_states_.clear();
  for (const auto& cpu : cpus_) paused_states_.push_back(cpu->store());
}

void Machine::pause() {
  store_cpus();
  {
    const std::lock_guard hold(bus_.lock());
    // Interrupts of devices that finish meanwhile wait in our local APICs: what the kernel's have is replaced later.
    chipset_->apic_bus().set_keeper(nullptr);
    clock_->stand_still();
  }
  paused_ = true;
  tell(control::Paused{});
}

Result<> Machine::resume() {
  {
    const std::lock_guard hold(bus_.lock());
    clock_->go_on();
    chipset_->apic_bus().set_keeper(engine_.engine->apics());
  }
  paused_ = false;
  if (auto done = engine_.engine->clock_moved(); !done) return done;
  for (unsigned i = 0; i < cpus_.size(); ++i) {
    if (auto done = cpus_[i]->load(paused_states_[i]); !done) return done;
  }
  tell(control::Resumed{});
  return {};
}

std::optional<Exited> Machine::after(PowerEvent event, uint8_t code) {
  const bool crashed = serial_->scanner().crashed();
  switch (event) {
    case PowerEvent::PowerOff: return Exited{crashed ? ExitReason::Panic : ExitReason::PowerOff, 0, {}};
    case PowerEvent::Panic: return Exited{ExitReason::Panic, 0, {}};
    case PowerEvent::DebugExit: return Exited{ExitReason::DebugExit, code, {}};
    case PowerEvent::Reset:
    case PowerEvent::TripleFault: break;
  }
  if (crashed) return Exited{ExitReason::Panic, 0, {}};
  if (config_.no_reboot) return Exited{ExitReason::Reset, 0, event == PowerEvent::TripleFault ? "triple fault" : ""};
  return {};
}

Exited Machine::run() {
  started_ms_ = utc_ms();
  tell(control::Started{std::string{engine_.name}, model_->name(), config_.cpus, config_.memory_bytes, engine_.reason});
  loop_->watch(channel_.fd(), EPOLLIN, [this](uint32_t) { handle_channel(); });
  const auto started = loop_->create_timer(give_back_start_up_memory);
  started->arm(EventLoop::now_ns() + start_up_ns);
  for (;;) {
    if (!paused_) start_cpus();
    loop_->run();
    stop_cpus();
    std::optional<Exited> end;
    std::optional<std::string> failure;
    bool reset_asked = false;
    {
      const std::lock_guard hold(power_lock_);
      end = exited_;
      failure = std::exchange(engine_failure_, std::nullopt);
      if (!end && power_event_) end = after(power_event_->first, power_event_->second);
      reset_asked = power_event_.has_value();
      power_event_.reset();
    }
    if (!end && failure) {
      if (auto done = hand_over(std::move(*failure)); !done) end = Exited{ExitReason::Failure, 0, done.error().message};
    }
    if (!end && pause_wanted_ != paused_) {
      if (!paused_) {
        pause();
      } else if (auto done = resume(); !done) {
        end = Exited{ExitReason::Failure, 0, done.error().message};
      }
    }
    if (!end) {
      for (const auto& reply : std::exchange(pause_replies_, {})) reply(control::Done{}, {});
    }
    if (!end && reset_asked) {
      if (auto done = reset(); !done) {
        end = Exited{ExitReason::Failure, 0, done.error().message};
      } else {
        if (paused_) store_cpus();
        tell(control::WasReset{++resets_});
      }
    }
    if (!end) continue;
    if (config_.profile) tell(profiled(engine_.engine->profile()));
    const std::lock_guard hold(bus_.lock());
    disks_.drain();
    console_->drain(EventLoop::now_ns() + 10'000'000'000);
    if (serial2_socket_ != nullptr) serial2_socket_->drain(EventLoop::now_ns() + 2'000'000'000);
    return *end;
  }
}

}  // namespace

int run(const control::VmConfig& config, std::vector<Fd> fds, control::Channel& channel) {
  Exited exited;
  {
    Machine machine(config, std::move(fds), channel);
    if (auto created = machine.create(); !created) {
      exited = {ExitReason::Failure, 0, created.error().message};
    } else {
      exited = machine.run();
    }
    machine.tell_end(exited);
  }
  const bool told = channel.send(control::serialise(control::Event{exited})).has_value();
  return told || config.detached ? 0 : 1;
}

}  // namespace caisson::machine
