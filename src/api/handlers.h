// What the routes do. Each gets a call that was checked against its route.
//   Threads  any
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "api/routes.h"
#include "life/look.h"
#include "store/vm_folder.h"

namespace caisson::api {

// What the handlers of machines share (machine_handlers.cpp).
// What goes wrong with a machine that is there is its state's fault: the same request may work later.
[[nodiscard]] Answer conflict(const Error& error);
[[nodiscard]] Answer no_content();
// The one that the address names.
[[nodiscard]] std::expected<store::VmFolder, Answer> machine_of(const Call& call);
[[nodiscard]] Answer show(unsigned status, const std::string& name);

// Machines (machine_handlers.cpp)
Answer list_machines(Call& call);
Answer create_machine(Call& call);
Answer get_machine(Call& call);
Answer change_machine(Call& call);
Answer remove_machine(Call& call);
Answer add_forward(Call& call);
Answer remove_forward(Call& call);
Answer start_machine(Call& call);
Answer stop_machine(Call& call);
Answer restart_machine(Call& call);
Answer kill_machine(Call& call);
Answer reset_machine(Call& call);
Answer press_power_button(Call& call);
Answer pause_machine(Call& call);
Answer resume_machine(Call& call);
Answer rename_machine(Call& call);
Answer type_text(Call& call);
Answer point(Call& call);
Answer get_logs(Call& call);
Answer get_record(Call& call);
Answer get_screenshot(Call& call);

// Their disks and network cards (device_handlers.cpp)
Answer attach_disk(Call& call);
Answer detach_disk(Call& call);
Answer grow_disk(Call& call);
Answer attach_network(Call& call);
Answer detach_network(Call& call);

// Inside of their guests (guest_handlers.cpp)
Answer run_command(Call& call);
std::expected<File, Answer> get_file(Call& call);
Answer put_file(Call& call, const File& content);

// Disk images of the host (disk_handlers.cpp)
Answer create_disk(Call& call);
Answer resize_disk(Call& call);
Answer convert_disk(Call& call);
Answer check_disk(Call& call);
Answer inspect_disk(Call& call);

// Images (image_handlers.cpp)
Answer list_images(Call& call);
Answer build_image(Call& call);
Answer pull_image(Call& call);
Answer import_image(Call& call);
Answer export_image(Call& call);
Answer list_catalogue(Call& call);
Answer remove_image(Call& call);

// The rest (host_handlers.cpp)
Answer list_jobs(Call& call);
Answer get_job(Call& call);
Answer cancel_job(Call& call);
Answer get_host(Call& call);
Answer get_metrics(Call& call);
Answer get_openapi(Call& call);

// Prometheus' text format (metrics.cpp).
[[nodiscard]] std::string metrics_text(const std::vector<life::Listed>& machines);
[[nodiscard]] uint64_t host_available_bytes();

[[nodiscard]] Answer json_answer(unsigned status, const control::Json& json);
// What a dry run would do, as "start web"; an error is why it could not.
[[nodiscard]] Answer would(const Result<std::string>& text);

// The body as T: an Answer that names what is wrong otherwise.
template <class T>
[[nodiscard]] std::expected<T, Answer> body_as(const Call& call) {
  T value;
  auto ok = control::from_json(call.body, value);
  if (ok) ok = control::check_bounds(value);
  if (!ok) return std::unexpected(problem(422, ok.error().message));
  return value;
}

// A job of the call's route, answered with 202.
[[nodiscard]] Answer start_job(Call& call, std::string_view operation, const std::string& object, Jobs::Work work);
[[nodiscard]] Answer start_search(Call& call, std::string_view operation, const std::string& object,
                                  Jobs::Search search);
[[nodiscard]] control::Json job_json(const Job& job);

}  // namespace caisson::api
