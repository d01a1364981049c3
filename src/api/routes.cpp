#include "api/routes.h"

#include <algorithm>
#include <array>

#include "api/bodies.h"
#include "api/handlers.h"
#include "life/look.h"

namespace caisson::api {
namespace {

using control::Json;

constexpr Parameter dry_run{"dry_run", "say what would be done, or why it could not, and do nothing", Of::Flag};
constexpr Parameter file_path{"path", "of the file in the guest; relative to root's home", Of::Text, 4096, true};
constexpr std::array<Parameter, 1> dry{{dry_run}};
constexpr std::array<Parameter, 2> force{
    {{"force", "those that run as well: they are stopped at once", Of::Flag}, dry_run}};
constexpr std::array<Parameter, 1> lines{{{"lines", "only the last lines", Of::Number, 1'000'000}}};
constexpr std::array<Parameter, 1> text{{{"text", "the characters of a text mode instead", Of::Flag}}};
constexpr std::array<Parameter, 1> replay{
    {{"replay", "bytes of the console's past that come first", Of::Number, control::Attach::max_replay}}};
constexpr std::array<Parameter, 1> from{{file_path}};
constexpr std::array<Parameter, 3> to{
    {file_path, {"mode", "its permissions, as chmod takes them; default 644", Of::Number, 777}, dry_run}};

constexpr auto viewer = Role::Viewer;
constexpr auto oper = Role::Operator;
constexpr auto admin = Role::Admin;

constexpr std::array table{
    Route{"GET", "/v1/machines", "listMachines", "All machines", viewer, "", 200, "MachineList", list_machines},
    Route{"POST", "/v1/machines", "createMachine", "Make a machine, of an image that is here or of files of the host",
          admin, "CreateMachine", 201, "Machine", create_machine, dry},
    Route{"GET", "/v1/machines/{name}", "getMachine", "All that is known of one", viewer, "", 200, "Machine",
          get_machine},
    Route{"PATCH", "/v1/machines/{name}", "changeMachine", "Change one, from its next start on", admin, "ChangeMachine",
          200, "Machine", change_machine, dry},
    Route{"DELETE", "/v1/machines/{name}", "removeMachine", "Remove one with its own disks", admin, "", 204, "",
          remove_machine, force},
    Route{"POST", "/v1/machines/{name}/forwards", "addForward", "Forward a port of this host, at once and later", admin,
          "PortForward", 200, "Machine", add_forward, dry},
    Route{"DELETE", "/v1/machines/{name}/forwards/{protocol}/{port}", "removeForward",
          "Take one away, by protocol and port of this host", admin, "", 204, "", remove_forward, dry},
    Route{"POST", "/v1/machines/{name}/disks", "attachDisk", "Give it a disk, at once and later", admin, "Disk", 200,
          "Machine", attach_disk, dry},
    Route{"DELETE", "/v1/machines/{name}/disks/{disk}", "detachDisk",
          "Take a disk away, by its file's name or path, when the guest has let go of it", admin, "", 202, "Job",
          detach_disk, dry},
    Route{"POST", "/v1/machines/{name}/disks/{disk}/grow", "growDisk", "Make a disk larger while the machine runs",
          admin, "GrowDisk", 200, "Machine", grow_disk, dry},
    Route{"POST", "/v1/machines/{name}/network", "attachNetwork",
          "Give a network card, at once and later, to one that has none", admin, "AttachNetwork", 200, "Machine",
          attach_network, dry},
    Route{"DELETE", "/v1/machines/{name}/network", "detachNetwork",
          "Take the network card away, when the guest has let go of it", admin, "", 202, "Job", detach_network, dry},
    Route{"POST", "/v1/machines/{name}/start", "startMachine", "Start it", oper, "", 200, "Machine", start_machine,
          dry},
    Route{"POST", "/v1/machines/{name}/stop", "stopMachine", "Press the power button, then insist", oper, "StopMachine",
          202, "Job", stop_machine, dry},
    Route{"POST", "/v1/machines/{name}/restart", "restartMachine", "Stop it where it runs, and start it", oper,
          "StopMachine", 202, "Job", restart_machine, dry},
    Route{"POST", "/v1/machines/{name}/kill", "killMachine", "Stop at once, as pulling the plug", oper, "", 204, "",
          kill_machine, dry},
    Route{"POST", "/v1/machines/{name}/reset", "resetMachine", "Press the reset button", oper, "", 204, "",
          reset_machine, dry},
    Route{"POST", "/v1/machines/{name}/power-button", "pressPowerButton", "Press the power button once", oper, "", 204,
          "", press_power_button, dry},
    Route{"POST", "/v1/machines/{name}/pause", "pauseMachine", "Have CPUs and clocks stand still", oper, "", 204, "",
          pause_machine, dry},
    Route{"POST", "/v1/machines/{name}/resume", "resumeMachine", "Go on after pause", oper, "", 204, "", resume_machine,
          dry},
    Route{"POST", "/v1/machines/{name}/rename", "renameMachine", "Give it another name", admin, "RenameMachine", 200,
          "Machine", rename_machine, dry},
    Route{"POST", "/v1/machines/{name}/keys", "typeText", "Type on its keyboard", oper, "TypeText", 202, "Job",
          type_text},
    Route{"POST", "/v1/machines/{name}/pointer", "movePointer", "Move its pointer to a pixel, and click there", oper,
          "Point", 204, "", point},
    Route{"GET", "/v1/machines/{name}/logs", "getLogs", "What it has printed on its console, at most the last mebibyte",
          viewer, "", 200, "", get_logs, lines, "text/plain; charset=utf-8"},
    Route{"GET", "/v1/machines/{name}/events", "getRecord", "The record of its life", viewer, "", 200, "EventList",
          get_record},
    Route{"GET", "/v1/machines/{name}/screenshot", "getScreenshot", "Its screen", viewer, "", 200, "", get_screenshot,
          text, "image/png"},
    Route{"GET", "/v1/machines/{name}/console", "attachConsole",
          "Its serial console, bytes both ways by WebSocket; what a viewer sends is refused", viewer, "", 101, "",
          nullptr, replay, "", Kind::Console},
    Route{"GET",
          "/v1/machines/{name}/vnc",
          "attachScreen",
          "Its screen, keyboard and pointer: the bytes of VNC (RFC 6143) both ways by WebSocket, as noVNC speaks it",
          oper,
          "",
          101,
          "",
          nullptr,
          {},
          "",
          Kind::Screen},
    Route{"POST", "/v1/machines/{name}/exec", "runCommand",
          "Run a command in its guest, and wait for its end; of stdout and stderr at most a mebibyte each", oper,
          "RunCommand", 200, "CommandResult", run_command},
    Route{"GET", "/v1/machines/{name}/files", "getFile", "A regular file of its guest, of at most a gibibyte", oper, "",
          200, "", nullptr, from, content_type, Kind::Download, get_file},
    Route{"PUT", "/v1/machines/{name}/files", "putFile",
          "The body as a file of its guest, which appears when it is whole; at most a gibibyte", oper, "", 204, "",
          nullptr, to, "", Kind::Upload, nullptr, put_file},
    Route{"POST", "/v1/disks/create", "createDisk", "Make a disk image on the host", admin, "CreateDisk", 202, "Job",
          create_disk, dry},
    Route{"POST", "/v1/disks/resize", "resizeDisk", "Change its size; in a machine that runs it can grow", admin,
          "ResizeDisk", 202, "Job", resize_disk, dry},
    Route{"POST", "/v1/disks/convert", "convertDisk", "Copy it into another, of another format or not", admin,
          "ConvertDisk", 202, "Job", convert_disk, dry},
    Route{"POST", "/v1/disks/check", "checkDisk", "Look for faults of a qcow2 image, and mend them", admin, "CheckDisk",
          202, "Job", check_disk, dry},
    Route{"POST", "/v1/disks/info", "inspectDisk", "Say what it is", admin, "InspectDisk", 202, "Job", inspect_disk},
    Route{"GET", "/v1/images", "listImages", "Images on this host", viewer, "", 200, "ImageList", list_images},
    Route{"POST", "/v1/images", "buildImage", "Build one", admin, "BuildImage", 202, "Job", build_image, dry},
    Route{"POST", "/v1/images/{image}/pull", "pullImage", "Get one of the catalogue", admin, "", 202, "Job", pull_image,
          dry},
    Route{"POST", "/v1/images/{image}/import", "importImage", "Make one of a disk or archive of the host", admin,
          "ImportImage", 202, "Job", import_image, dry},
    Route{"POST", "/v1/images/{image}/export", "exportImage", "Write one into a file of the host", admin, "ExportImage",
          202, "Job", export_image, dry},
    Route{"GET", "/v1/catalogue", "listCatalogue", "Images that can be got", viewer, "", 200, "Catalogue",
          list_catalogue},
    Route{"DELETE", "/v1/images/{image}", "removeImage", "Remove one that no machine needs", admin, "", 204, "",
          remove_image, dry},
    Route{"GET", "/v1/jobs", "listJobs", "Jobs that run, and the last that have ended", viewer, "", 200, "JobList",
          list_jobs},
    Route{"GET", "/v1/jobs/{id}", "getJob", "One of them", viewer, "", 200, "Job", get_job},
    Route{"DELETE", "/v1/jobs/{id}", "cancelJob", "End its waiting", oper, "", 204, "", cancel_job},
    Route{"GET",
          "/v1/events",
          "watchEvents",
          "Events of all machines from now on, as server-sent events",
          viewer,
          "",
          200,
          "Event",
          nullptr,
          {},
          "text/event-stream",
          Kind::Events},
    Route{"GET", "/v1/host", "getHost", "This host", viewer, "", 200, "Host", get_host},
    Route{"GET", "/v1/openapi.json", "getOpenapi", "This description", viewer, "", 200, "", get_openapi},
    Route{"GET",
          "/metrics",
          "getMetrics",
          "Figures of host and machines in Prometheus' text format",
          viewer,
          "",
          200,
          "",
          get_metrics,
          {},
          "text/plain; version=0.0.4; charset=utf-8"},
};

Json object(const Json& properties, const Json& required) {
  return {{"type", "object"}, {"properties", properties}, {"required", required}, {"additionalProperties", false}};
}
Json reference(std::string_view name) { return {{"$ref", "#/components/schemas/" + std::string{name}}}; }
Json list_of(std::string_view key, std::string_view name) {
  return object({{std::string{key}, {{"type", "array"}, {"items", reference(name)}}}}, {std::string{key}});
}

Json make_schemas() {
  const Json whole{{"type", "integer"}, {"minimum", 0}};
  const Json line{{"type", "string"}};
  Json states = Json::array();
  for (const std::string_view state : life::states) states.push_back(std::string{state});
  Json all{
      {"CreateMachine", control::schema_of<CreateMachine>()},
      {"ChangeMachine", control::schema_of<life::Change>()},
      {"StopMachine", control::schema_of<StopMachine>()},
      {"PortForward", control::schema_of<control::PortForward>()},
      {"Disk", control::schema_of<store::DiskSpec>()},
      {"GrowDisk", control::schema_of<GrowDisk>()},
      {"AttachNetwork", control::schema_of<AttachNetwork>()},
      {"RenameMachine", control::schema_of<RenameMachine>()},
      {"TypeText", control::schema_of<TypeText>()},
      {"Point", control::schema_of<control::Point>()},
      {"BuildImage", control::schema_of<BuildImage>()},
      {"MachineConfig", control::schema_of<store::VmSpec>()},
      {"MachineStatus", control::schema_of<control::Status>()},
      {"MachineEnd", control::schema_of<control::Exited>()},
      {"Job", control::schema_of<Job>()},
      {"ImportImage", control::schema_of<ImportImage>()},
      {"ExportImage", control::schema_of<ExportImage>()},
      {"CreateDisk", control::schema_of<CreateDisk>()},
      {"ResizeDisk", control::schema_of<ResizeDisk>()},
      {"ConvertDisk", control::schema_of<ConvertDisk>()},
      {"CheckDisk", control::schema_of<CheckDisk>()},
      {"InspectDisk", control::schema_of<InspectDisk>()},
      {"RunCommand", control::schema_of<RunCommand>()},
      {"CommandResult", control::schema_of<CommandResult>()},
      {"DryRun", control::schema_of<DryRun>()},
      {"CatalogueImage", control::schema_of<CatalogueImage>()},
      {"Catalogue", list_of("images", "CatalogueImage")},
      {"Image", control::schema_of<ImageEntry>()},
      {"Host", control::schema_of<Host>()},
      {"MachineList", list_of("machines", "Machine")},
      {"ImageList", list_of("images", "Image")},
      {"JobList", list_of("jobs", "Job")},
      {"EventList", list_of("events", "Event")},
      {"Problem", object({{"title", line}, {"detail", line}, {"status", whole}}, {"title", "detail", "status"})},
  };
  all["Machine"] = object({{"name", line},
                           {"state", {{"type", "string"}, {"enum", states}}},
                           {"folder", line},
                           {"config", reference("MachineConfig")},
                           {"error", line},
                           {"status", reference("MachineStatus")},
                           {"pid", whole},
                           {"started_ms", whole},
                           {"ended_ms", whole},
                           {"end", reference("MachineEnd")}},
                          {"name", "state", "folder"});
  all["Job"]["properties"]["result"] = {{"type", "object"}};
  all["Event"] = control::schema_of<EventHead>();
  all["Event"]["properties"]["detail"] = {{"type", "object"}};
  return all;
}

Json describe(const Route& route) {
  Json operation{{"operationId", std::string{route.id}},
                 {"summary", std::string{route.what}},
                 {"x-role", name_of(route.role)},
                 {"parameters", Json::array()}};
  for (size_t start = route.path.find('{'); start != std::string_view::npos; start = route.path.find('{', start + 1)) {
    const size_t end = route.path.find('}', start);
    operation["parameters"].push_back({{"name", std::string{route.path.substr(start + 1, end - start - 1)}},
                                       {"in", "path"},
                                       {"required", true},
                                       {"schema", {{"type", "string"}}}});
  }
  for (const Parameter& one : route.query) {
    Json schema{{"type", "boolean"}};
    if (one.of == Of::Number) schema = {{"type", "integer"}, {"minimum", 0}, {"maximum", one.most}};
    if (one.of == Of::Text) schema = {{"type", "string"}, {"minLength", 1}, {"maxLength", one.most}};
    operation["parameters"].push_back({{"name", std::string{one.name}},
                                       {"in", "query"},
                                       {"description", std::string{one.what}},
                                       {"required", one.required},
                                       {"schema", schema}});
  }
  if (route.kind == Kind::Upload) {
    operation["requestBody"] = {{"required", true}, {"content", {{std::string{content_type}, Json::object()}}}};
  }
  if (!route.body.empty()) {
    operation["requestBody"] = {{"content", {{std::string{json_type}, {{"schema", reference(route.body)}}}}}};
  }
  Json answer{{"description", "as asked"}};
  if (!route.answer.empty()) {
    answer["content"][std::string{route.type}]["schema"] = reference(route.answer);
  } else if (route.status == 200) {
    answer["content"][std::string{route.type}] = Json::object();
  }
  operation["responses"][std::to_string(route.status)] = answer;
  if (std::ranges::any_of(route.query, [](const Parameter& one) { return one.name == dry_run.name; })) {
    Json& schema = operation["responses"]["200"]["content"][std::string{json_type}]["schema"];
    schema = schema.is_null() ? reference("DryRun") : Json{{"oneOf", Json::array({schema, reference("DryRun")})}};
    operation["responses"]["200"]["description"] = "as asked; of a dry run, what would be done";
  }
  operation["responses"]["4XX"] = {{"description", "refused: detail says why, and what to do"},
                                   {"content", {{"application/problem+json", {{"schema", reference("Problem")}}}}}};
  return operation;
}

Json make_openapi() {
  Json paths = Json::object();
  for (const Route& route : table) {
    std::string method{route.method};
    std::ranges::transform(method, method.begin(), [](unsigned char c) { return std::tolower(c); });
    paths[std::string{route.path}][method] = describe(route);
  }
  return {{"openapi", "3.1.0"},
          {"info",
           {{"title", "Caisson"},
            {"version", CAISSON_VERSION},
            {"description",
             "Virtual machines of this host. x-role: the least role that may call. Unknown keys and parameters are "
             "refused."}}},
          {"paths", paths},
          {"components",
           {{"schemas", schemas()},
            {"securitySchemes",
             {{"token", {{"type", "http"}, {"scheme", "bearer"}}}, {"certificate", {{"type", "mutualTLS"}}}}}}},
          {"security", Json::array({Json::object(), {{"token", Json::array()}}, {{"certificate", Json::array()}}})}};
}

// Whether `path` is what `pattern` says; the words in its braces.
bool matches(std::string_view pattern, const std::vector<std::string>& path,
             std::map<std::string, std::string>& words) {
  size_t at = 0;
  for (size_t start = 1; start <= pattern.size(); ++at) {
    const size_t end = std::min(pattern.find('/', start), pattern.size());
    const std::string_view part = pattern.substr(start, end - start);
    if (at == path.size()) return false;
    if (part.starts_with('{')) {
      words[std::string{part.substr(1, part.size() - 2)}] = path[at];
    } else if (part != path[at]) {
      return false;
    }
    start = end + 1;
  }
  return at == path.size();
}

}  // namespace

std::span<const Route> routes() { return table; }

Found find_route(std::string_view method, const std::vector<std::string>& path) {
  Found found;
  for (const Route& route : table) {
    std::map<std::string, std::string> words;
    if (!matches(route.path, path, words)) continue;
    if (route.method == method) return {&route, std::move(words), {}};
    found.allowed += (found.allowed.empty() ? "" : ", ") + std::string{route.method};
  }
  return found;
}

const Json& schemas() {
  static const Json all = make_schemas();
  return all;
}

const Json& openapi() {
  static const Json document = make_openapi();
  return document;
}

}  // namespace caisson::api
