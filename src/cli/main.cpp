// caisson: the command line. Finds, builds and runs machines itself; no daemon.
//   Threads  main
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <exception>
#include <optional>
#include <string>
#include <string_view>

#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>
#include <CLI/CLI.hpp>

#include "base/log.h"
#include "cli/completion.h"
#include "cli/disk_command.h"
#include "cli/doctor.h"
#include "cli/examples.h"
#include "cli/exit_status.h"
#include "cli/image_command.h"
#include "cli/life_cli.h"
#include "cli/manual.h"
#include "cli/run_command.h"
#include "cli/screen_command.h"
#include "cli/vnc_command.h"
#include "life/catalogue.h"
#include "life/images.h"
#include "life/vmm_process.h"
#include "store/vm_spec.h"

namespace caisson::cli {
namespace {

constexpr const char* version = CAISSON_VERSION;

int print_version(bool json) {
  if (json) {
    fmt::print(
        "{{\n  \"version\": \"{}\",\n  \"machine_format\": {},\n  \"image_format\": {},\n  \"catalogue_format\": "
        "{}\n}}\n",
        version, store::VmSpec::newest_version, life::Manifest::newest_version, life::Catalogue::newest_version);
  } else {
    fmt::print("caisson {}\n", version);
  }
  return exit_ok;
}

// A flag and its opposite; `value` stays none where neither is given, which a flag of CLI11 would make false.
void add_choice(CLI::App* command, const char* names, std::optional<bool>& value, const char* what) {
  command->add_flag_function(
      names, [&value](std::int64_t given) { value = given > 0; }, what);
}

// For run, create and set.
void add_limits(CLI::App* command, RunOptions& options) {
  const auto group = "Limits, which set changes while the machine runs";
  command
      ->add_option("--disk-limit", options.disk_limits,
                   "no more bytes and operations of a disk in a second; DISK is its number, from 0, or its file's "
                   "name, as inspect has them; again for more")
      ->type_name("DISK,[bps=N][,iops=N]|DISK,none")
      ->take_all()
      ->allow_extra_args(false)
      ->group(group);
  command
      ->add_option("--net-limit", options.net_limit, "no more bytes and packets of the network in a second, each way")
      ->type_name("[bps=N][,pps=N]|none")
      ->group(group);
  command
      ->add_option("--cpu-cap", options.cpu_cap, "no more of the host's CPUs: 50% is half of one, 150% one and a half")
      ->type_name("PERCENT%|none")
      ->group(group);
  command
      ->add_option("--cpu-share", options.cpu_share,
                   "where CPUs are scarce: twice the share, twice the time; the usual one is 100")
      ->type_name("N")
      ->group(group);
}

// What a machine is made of and how it runs: for run, and for create.
void add_machine(CLI::App* run, RunOptions& options) {
  run->add_option("IMAGE", options.target,
                  "debian, or debian:12 (11, 13, 14, sid): built on first use, kept between runs; or a disc (*.iso) or "
                  "disk (a path, or *.qcow2, *.raw, *.img) to start by its firmware, used and written to in place")
      ->type_name("IMAGE|FILE");
  run->add_option("--kernel", options.kernel, "kernel to boot: Linux (bzImage, ELF), or a Multiboot one")
      ->type_name("FILE");
  run->add_option("--initrd", options.initrd, "initial RAM disk; a Multiboot kernel's module")->type_name("FILE");
  run->add_option("--append", options.append, "kernel command line; console=ttyS0 and panic=-1 are added unless given")
      ->type_name("TEXT");
  run->add_option("--firmware", options.firmware,
                  "start by firmware instead of a kernel: bios (SeaBIOS) or uefi (OVMF)")
      ->type_name("KIND");
  run->add_option("--firmware-vars", options.firmware_vars,
                  "where UEFI keeps its variables; made if it is not there; default: a file in the machine's folder")
      ->type_name("FILE");
  run->add_option("--firmware-log", options.firmware_log, "write there what the firmware says on its debug port")
      ->type_name("FILE");
  run->add_flag("--display", options.display,
                "a screen (VGA), a keyboard and a pointer for a kernel that is started directly; with --firmware they "
                "are always there");
  run->add_option(
         "--graphics", options.graphics,
         "what shows the picture: vga, or virtio, for a system with its driver (Linux: virtio_gpu) and not with BIOS "
         "firmware; virtio implies --display")
      ->type_name("KIND");
  run->add_option("--tablet", options.tablet,
                  "the pointer's device: virtio, or usb, for a system without virtio drivers, which implies --display")
      ->type_name("KIND");
  run->add_option(
         "--vnc", options.vnc,
         "show the screen to VNC viewers: unix (a socket in the machine's folder, see caisson vnc), an address of "
         "the loopback with --vnc-password-file, or none; implies --display")
      ->type_name("unix|127.0.0.1:PORT");
  run->add_option("--vnc-password-file", options.vnc_password_file,
                  "its first line, of at most 8 characters, is what viewers have to know; read at each start")
      ->type_name("FILE");
  run->add_option(
         "--keyboard-layout", options.keyboard_layout,
         "of the guest's keyboard, for caisson type and viewers that send characters instead of keys: us, de, fr or uk")
      ->type_name("NAME");
  run->add_option("--serial2", options.serial2,
                  "a second serial port (COM2, ttyS1): what the guest writes there is added to FILE; a socket that "
                  "listens there, or a terminal, is for both ways")
      ->type_name("FILE");
  run->add_option("--control", options.control, "listen there for caisson screenshot, type, click and the like")
      ->type_name("SOCKET");
  run->add_option("--disk", options.disks,
                  "disk image or block device; again for more: vda, vdb, …; qcow2 where the name ends so or format= "
                  "says it, else raw")
      ->type_name("FILE[,ro][,format=raw|qcow2][,bus=virtio|sata|nvme|usb][,bps=N][,iops=N]")
      ->take_all()
      ->allow_extra_args(false);
  run->add_option("--cdrom", options.cdroms, "ISO image in a Serial ATA drive; again for more")
      ->type_name("FILE")
      ->take_all()
      ->allow_extra_args(false);
  run->add_option(
         "--boot", options.boot,
         "what the firmware tries first: disk or cdrom; default disk, or the disc that was named to start from")
      ->type_name("WHICH");
  run->add_option("--backing-folder", options.backing_folders,
                  "backing files of images may lie below this folder, as below the image's own; again for more")
      ->type_name("FOLDER")
      ->take_all()
      ->allow_extra_args(false);
  run->add_option("--cpus", options.cpus, "virtual CPUs, 1 to 64; default 2, or 1 on a host with one")->type_name("N");
  run->add_option("--memory", options.memory, "for example 512M or 2G; default 1G, or half of a smaller host's")
      ->type_name("SIZE");
  run->add_option("--net", options.net,
                  "user (no privileges needed) or none; model=e1000: an Intel 82540EM card, for a system without "
                  "virtio drivers; "
                  "bps=10M, pps=5000: no more bytes and packets in a second, each way")
      ->type_name("KIND")
      ->capture_default_str();
  add_limits(run, options);
  run->add_option("-p,--publish", options.forwards, "forward a host's port to the guest; again for more")
      ->type_name("[udp:][ADDRESS:]HOST:GUEST")
      ->take_all()
      ->allow_extra_args(false);
  add_choice(run, "--balloon,!--no-balloon", options.balloon,
             "a balloon device (the default), by which memory that the guest does not use goes back to the host");
  run->add_flag("--vsock", options.vsock,
                "a socket device for caisson-agent in the guest (exec, cp); machines of an image have it anyway");
  run->add_option("--engine", options.engine, "auto (by measurement), jit or kvm")
      ->type_name("NAME")
      ->capture_default_str();
  run->add_option("--cpu-model", options.cpu_model,
                  "host (the default: auto), or for machines that move: x86-64-v2, x86-64-v3, x86-64-v4")
      ->type_name("NAME")
      ->capture_default_str();
  run->add_option("--name", options.name, "the machine's name; default that of the image")
      ->type_name("NAME")
      ->check([](const std::string& name) { return name.empty() ? std::string{"write a name, or leave it out"} : ""; });
  run->add_option("--stop-timeout", options.stop_timeout, "seconds a guest has to shut down after SIGTERM")
      ->type_name("SECONDS")
      ->check(CLI::Range(0u, 86400u))
      ->capture_default_str();
  run->add_flag("--autostart", options.autostart, "start it when caissond starts");
  run->add_flag("--no-reboot", options.no_reboot, "end with status 4 when the guest resets itself");
  run->add_flag("--debug-exit", options.debug_exit, "end when the guest writes to port 0xf4");
  run->add_flag("--dry-run", options.dry_run,
                "say what would be got, made and started, as far as it is known, and do nothing");
  run->add_flag("--json", options.json, "events as JSON lines on standard error");
  const auto first = "First start, by the cloud-init of images from elsewhere";
  const auto seed = [&](const char* name, std::vector<std::string>& into, const char* what, const char* type) {
    run->add_option(name, into, what)->type_name(type)->take_all()->allow_extra_args(false)->group(first);
  };
  run->add_option("--cloud-init", options.cloud_init, "user-data of your own, in the place of what follows")
      ->type_name("FILE")
      ->group(first);
  run->add_option("--user", options.user, "make this user, who may do everything by sudo")
      ->type_name("NAME")
      ->group(first);
  seed("--ssh-key", options.ssh_keys, "public key that the user accepts, or a file of them; again for more",
       "KEY|FILE");
  run->add_option("--hostname", options.hostname, "default: the machine's name")->type_name("NAME")->group(first);
  seed("--packages", options.packages, "install these; again for more", "NAME[,NAME…]");
  seed("--file", options.files, "copy a file of this host there; again for more", "FILE:/PATH");
  const auto engine = "Debugging the engine";
  std::string classes = "interpret these instructions, or leave out these optimisations:";
  for (const control::JitClass& one : control::jit_classes) classes += fmt::format("\n{} ({})", one.name, one.what);
  run->add_option("--jit-off", options.jit_off, classes)
      ->type_name("CLASS[,CLASS…]")
      ->take_all()
      ->allow_extra_args(false)
      ->group(engine);
  run->add_flag("--lockstep", options.lockstep,
                "compare each translated block with the interpreter, and end at the first difference (a hundred times "
                "slower; one CPU at a time)")
      ->group(engine);
  run->add_flag("--profile", options.profile, "say at the end where the engine's time went")->group(engine);
  run->add_option("--dump-blocks", options.dump_blocks, "write each translated block there, guest and host code")
      ->type_name("FILE")
      ->group(engine);
  run->add_option("--dump-at", options.dump_at, "only blocks with one of these linear addresses, hexadecimal")
      ->type_name("ADDRESS[,ADDRESS…]")
      ->take_all()
      ->allow_extra_args(false)
      ->group(engine);
}

void add_run(CLI::App& app, RunOptions& options) {
  auto* run = app.add_subcommand("run", "Run a machine with its serial console on this terminal");
  add_machine(run, options);
  auto* detach = run->add_flag("-d,--detach", options.detached, "run it on its own: print its name and come back");
  run->add_flag("--rm", options.remove, "with -d: the machine is removed when it ends")->needs(detach);
  run->footer(fmt::format(
      "Examples:\n"
      "  caisson run debian\n"
      "  caisson run debian -d --name web --memory 2G -p 8080:80\n"
      "  caisson run --kernel vmlinuz --initrd initrd.img --append 'root=/dev/vda rw' --disk disk.raw\n"
      "  caisson run ./disk.qcow2 --memory 2G\n"
      "  caisson run fedora --user ann --ssh-key ~/.ssh/id_ed25519.pub --packages nginx,curl\n"
      "  caisson run installer.iso --disk disk.qcow2\n"
      "  caisson run --kernel bzImage --initrd test.cpio.gz --no-reboot --json </dev/null\n\n"
      "On a terminal Ctrl-] is the escape key: then q quits, p presses the power button, r resets, h helps.\n"
      "SIGTERM and SIGINT press the power button; after --stop-timeout, or at a second signal, the guest is "
      "stopped.\n\n{}",
      exit_status_text));
}

// One line for a mistake on the command line, not CLI11's several.
int usage_error(const CLI::ParseError& error, const CLI::App& app) {
  const CLI::App* command = &app;
  std::string path = app.get_name();
  while (!command->get_subcommands().empty()) {
    command = command->get_subcommands().front();
    path += " " + command->get_name();
  }
  std::string text = error.what();
  for (char& c : text) {
    if (c == '\n') c = ' ';
  }
  log::error("{}; see {} --help", text, path);
  return exit_usage;
}

// Whether the command line asks for a machine on this terminal, as far as it can be seen without understanding it. A
// wrong guess costs a process that ends unused.
bool will_run(int count, char** arguments) {
  if (count < 3 || std::string_view{arguments[1]} != "run") return false;
  return std::none_of(arguments + 2, arguments + count, [](std::string_view word) {
    return word == "--help" || word == "-h" || word == "--dry-run" || word == "-d" || word == "--detach";
  });
}

// The status to end with where the arguments cannot be taken, or ask for a text.
std::optional<int> parse(CLI::App& app, int count, char** arguments) {
  try {
    app.parse(count, arguments);
  } catch (const CLI::CallForHelp& help) {
    return app.exit(help);
  } catch (const CLI::CallForAllHelp& help) {
    return app.exit(help);
  } catch (const CLI::CallForVersion& asked) {
    return app.exit(asked);
  } catch (const CLI::ParseError& error) {
    return usage_error(error, app);
  }
  return std::nullopt;
}

// A start is not to wait until options of forty other commands are known.
int run_at_once(int count, char** arguments) {
  life::VmmProcess::start_ahead();
  CLI::App app{"", "caisson"};
  app.require_subcommand(1);
  RunOptions options;
  add_run(app, options);
  if (const auto status = parse(app, count, arguments)) return *status;
  return run(std::move(options));
}

int main_program(int count, char** arguments) {
  if (will_run(count, arguments)) return run_at_once(count, arguments);
  CLI::App app{"Caisson runs virtual machines on any x86-64 Linux, without root and without hardware virtualization.",
               "caisson"};
  app.require_subcommand(1);
  app.set_version_flag("--version", std::string{"caisson "} + version);

  RunOptions run_options;
  add_run(app, run_options);
  add_machine(app.add_subcommand("create", "Make a machine without starting it; options as of run"), run_options);
  const auto life = add_life(app);
  SetOptions set_options;
  auto* set_app = app.add_subcommand("set", "Change a machine: limits at once, all else from its next start");
  set_app->add_option("NAME", run_options.name, "the machine")->required();
  set_app->add_option("--cpus", run_options.cpus, "virtual CPUs, 1 to 64")->type_name("N");
  set_app->add_option("--memory", run_options.memory, "for example 512M or 2G")->type_name("SIZE");
  set_app->add_option("-p,--publish", run_options.forwards, "port forwards, in the place of those it has")
      ->type_name("[udp:][ADDRESS:]HOST:GUEST")
      ->take_all()
      ->allow_extra_args(false);
  set_app->add_option("--append", run_options.append, "kernel command line")->type_name("TEXT");
  set_app->add_option("--stop-timeout", set_options.stop_timeout_s, "seconds a guest has to shut down")
      ->type_name("SECONDS")
      ->check(CLI::Range(0u, 86400u));
  set_app->add_flag("--display", run_options.display, "a screen, a keyboard and a pointer, also with a kernel");
  set_app->add_option("--graphics", run_options.graphics, "what shows the picture: vga or virtio")->type_name("KIND");
  set_app->add_option("--tablet", run_options.tablet, "the pointer's device: virtio or usb")->type_name("KIND");
  set_app->add_option("--vnc", run_options.vnc, "show the screen there: unix, 127.0.0.1:PORT or none")
      ->type_name("WHERE");
  set_app->add_option("--vnc-password-file", run_options.vnc_password_file, "what viewers have to know")
      ->type_name("FILE");
  set_app->add_option("--keyboard-layout", run_options.keyboard_layout, "us, de, fr or uk")->type_name("NAME");
  set_app
      ->add_option("--memory-now", set_options.memory_now,
                   "what a running guest is left with of its memory, until its end: the balloon takes the rest, as far "
                   "as the guest gives it")
      ->type_name("SIZE");
  add_choice(set_app, "--balloon,!--no-balloon", run_options.balloon, "a balloon device, or none");
  add_choice(set_app, "--autostart,!--no-autostart", set_options.autostart, "start it when caissond starts, or do not");
  add_limits(set_app, run_options);
  set_app->add_flag("--dry-run", set_options.dry_run,
                    "show the configuration that there would be, or why there could not, and do nothing");
  std::string shell;
  auto* completion_command = app.add_subcommand("completion", "Print the completion of this program for a shell");
  completion_command->add_option("SHELL", shell, "bash, zsh or fish")->required();
  completion_command->footer(
      "Examples:\n  caisson completion bash >~/.local/share/bash-completion/completions/caisson\n"
      "  caisson completion fish >~/.config/fish/completions/caisson.fish");

  std::string manual_folder;
  auto* manual_command =
      app.add_subcommand("man", "Print this program's manual page, or write all pages into a folder");
  manual_command->add_option("FOLDER", manual_folder, "one that man looks into, or that is only for looking");

  const auto image_command = add_image(app);
  bool json = false;
  const auto disk_command = add_disk(app);
  std::string socket, screen_file, keys;
  bool screen_text = false;
  auto* screenshot_command = app.add_subcommand("screenshot", "Write a machine's screen to a PNG file");
  screenshot_command->add_option("MACHINE", socket, "the machine's name, or what was given to run --control")
      ->required();
  screenshot_command->add_option("FILE", screen_file, "where to")->required();
  screenshot_command->add_flag("--text", screen_text, "the characters of a text mode instead");
  auto* type_command = app.add_subcommand("type", "Type on a machine's keyboard");
  type_command->add_option("MACHINE", socket, "the machine's name, or what was given to run --control")->required();
  type_command->add_option("TEXT", keys, "characters and keys, for example 'ls<enter>' or '<ctrl-alt-delete>'")
      ->required();
  PointerOptions pointer;
  const auto pointer_command = [&](const char* name, const char* what) {
    auto* command = app.add_subcommand(name, what);
    command->add_option("MACHINE", pointer.machine, "the machine's name, or what was given to run --control")
        ->required();
    command->add_option("X", pointer.x, "pixels from the left")->required()->check(CLI::Range(0u, 65535u));
    command->add_option("Y", pointer.y, "pixels from the top")->required()->check(CLI::Range(0u, 65535u));
    return command;
  };
  const auto add_button = [&](CLI::App* command) {
    command->add_option("--button", pointer.button, "left, right or middle")->type_name("NAME")->capture_default_str();
  };
  auto* click_command = pointer_command("click", "Click on a machine's screen");
  add_button(click_command);
  click_command->add_flag("--double", pointer.twice, "twice");
  auto* move_command = pointer_command("move", "Move a machine's pointer");
  auto* drag_command = pointer_command("drag", "Drag from one place of a machine's screen to another");
  drag_command->add_option("TO-X", pointer.to_x, "pixels from the left")->required()->check(CLI::Range(0u, 65535u));
  drag_command->add_option("TO-Y", pointer.to_y, "pixels from the top")->required()->check(CLI::Range(0u, 65535u));
  add_button(drag_command);
  std::string looked_at;
  bool by_stdio = false;
  auto* vnc_command = app.add_subcommand("vnc", "Say how to look at a machine's screen by a VNC viewer");
  vnc_command->add_option("MACHINE", looked_at, "the machine, started with --vnc")->required();
  vnc_command->add_flag("--stdio", by_stdio, "be the connection: the viewer's bytes on standard input and output");
  auto* doctor_command = app.add_subcommand("doctor", "Say what this host can do for machines, and why");
  doctor_command->add_flag("--json", json, "as JSON");
  auto* version_command = app.add_subcommand("version", "Print the version");
  version_command->add_flag("--json", json, "as JSON, with what versions of files it knows");
  add_examples(app);
  app.footer("Examples:\n  caisson run debian\n  caisson run --help\n  caisson doctor");

  if (const auto status = parse(app, count, arguments)) return *status;
  if (app.got_subcommand("run")) return run(std::move(run_options));
  if (*set_app) return set(run_options, set_options);
  if (*completion_command) return completion(app, shell);
  if (*manual_command) return manual(app, manual_folder);
  if (app.got_subcommand("create")) return create(std::move(run_options));
  if (const auto status = run_life(*life)) return *status;
  if (app.got_subcommand("disk")) return run_disk(*disk_command);
  if (*screenshot_command) return screenshot(socket, screen_file, screen_text);
  if (*type_command) return type(socket, keys);
  if (*vnc_command) return vnc(looked_at, by_stdio);
  if (*click_command) return click(pointer);
  if (*move_command) return move_pointer(pointer);
  if (*drag_command) return drag(pointer);
  if (*version_command) return print_version(json);
  if (*doctor_command) return doctor(json);
  return run_image(*image_command);
}

// Descriptors 0 to 2 must be something, or files opened later would take their places.
void fill_standard_streams() {
  for (;;) {
    const int fd = ::open("/dev/null", O_RDWR);
    if (fd < 0 || fd > STDERR_FILENO) {
      if (fd > STDERR_FILENO) ::close(fd);
      return;
    }
  }
}

}  // namespace
}  // namespace caisson::cli

int main(int count, char** arguments) {
  caisson::cli::fill_standard_streams();
  ::signal(SIGPIPE, SIG_IGN);
  try {
    return caisson::cli::main_program(count, arguments);
  } catch (const std::exception& error) {
    // Libraries throw when memory ends; ours do not.
    caisson::log::error("{}", error.what());
    return caisson::cli::exit_failure;
  }
}
