// Images on this host, and those that can be got. What makes them is the command line's.
#include "api/bodies.h"
#include "api/command_line.h"
#include "api/handlers.h"
#include "life/catalogue.h"
#include "life/images.h"

namespace caisson::api {
namespace {

using control::Json;

Answer work(Call& call, std::string_view operation, const std::string& name, std::vector<std::string> words) {
  words.insert(words.begin(), "image");
  if (call.dry_run()) return dry_run_by_caisson(std::move(words));
  return start_job(call, operation, name,
                   [words = std::move(words)](const life::Follow& follow) { return run_caisson(words, follow); });
}

}  // namespace

Answer list_images(Call&) {
  auto images = life::list_images();
  if (!images) return problem(500, images.error().message);
  Json list = Json::array();
  for (life::Image& image : *images) {
    ImageEntry entry{.image = std::move(image.name),
                     .built = std::move(image.built),
                     .folder = std::move(image.folder),
                     .size_bytes = image.size_bytes,
                     .used_bytes = image.used_bytes,
                     .boot = std::string{name_of(image.boot)},
                     .problem = {}};
    if (!image.problem.empty()) entry.problem = std::move(image.problem);
    list.push_back(control::to_json(entry));
  }
  return json_answer(200, {{"images", list}});
}

Answer build_image(Call& call) {
  auto wish = body_as<BuildImage>(call);
  if (!wish) return wish.error();
  const auto name = life::parse_image_name(wish->image);
  if (!name) return problem(422, name.error().message);
  if (!name->built_here())
    return problem(422, fmt::format("image {}: only Debian is built; write debian:12", name->text()));
  wish->image = name->text();
  std::vector<std::string> words{"build"};
  if (!wish->size.empty()) words.push_back("--size=" + wish->size);
  if (wish->force) words.emplace_back("--force");
  words.insert(words.end(), {"--", wish->image});
  return work(call, "buildImage", wish->image, std::move(words));
}

Answer pull_image(Call& call) {
  const auto name = life::parse_image_name(call.word("image"));
  if (!name) return problem(404, name.error().message);
  const auto entry = life::catalogue_entry(*name);
  if (!entry) return problem(404, entry.error().message);
  return work(call, "pullImage", name->text(), {"pull", "--", name->text()});
}

Answer import_image(Call& call) {
  const auto name = life::new_image_name(call.word("image"));
  if (!name) return problem(422, name.error().message);
  auto wish = body_as<ImportImage>(call);
  if (!wish) return wish.error();
  std::vector<std::string> words{"import"};
  for (const auto& [option, value] : {std::pair{"--format", &wish->format}, std::pair{"--firmware", &wish->firmware},
                                      std::pair{"--kernel", &wish->kernel}, std::pair{"--initrd", &wish->initrd},
                                      std::pair{"--append", &wish->append}}) {
    if (!value->empty()) words.push_back(fmt::format("{}={}", option, *value));
  }
  for (const std::string* path : {&wish->file, &wish->kernel, &wish->initrd}) {
    if (!path->empty() && path->front() != '/') return problem(422, *path + ": write an absolute path of the host");
  }
  if (wish->force) words.emplace_back("--force");
  words.insert(words.end(), {"--", name->text(), wish->file});
  return work(call, "importImage", name->text(), std::move(words));
}

Answer export_image(Call& call) {
  const auto name = life::parse_image_name(call.word("image"));
  if (!name) return problem(404, name.error().message);
  const auto wish = body_as<ExportImage>(call);
  if (!wish) return wish.error();
  if (wish->file.front() != '/') return problem(422, wish->file + ": write an absolute path of the host");
  if (!wish->file.ends_with(".qcow2") && !wish->file.ends_with(".tar")) {
    return problem(422, wish->file + ": end the name in .qcow2 for the disk alone, or in .tar for all of the image");
  }
  const auto here = life::find_image(*name);
  if (here && !*here) return problem(404, fmt::format("image {} is not here", name->text()));
  std::vector<std::string> words{"export"};
  if (wish->force) words.emplace_back("--force");
  words.insert(words.end(), {"--", name->text(), wish->file});
  return work(call, "exportImage", name->text(), std::move(words));
}

Answer list_catalogue(Call&) {
  auto all = life::catalogue();
  if (!all) return problem(409, all.error().message);
  Json list = Json::array();
  for (life::CatalogueEntry& entry : *all) {
    list.push_back(control::to_json(CatalogueImage{std::move(entry.name), std::move(entry.arch), std::move(entry.about),
                                                   std::move(entry.recipe), std::move(entry.url), !entry.key.empty()}));
  }
  return json_answer(200, {{"images", list}});
}

Answer remove_image(Call& call) {
  const auto name = life::parse_image_name(call.word("image"));
  if (!name) return problem(404, name.error().message);
  const auto there = life::find_image(*name);
  if (there && !*there) return problem(404, fmt::format("image {} is not here", name->text()));
  if (call.dry_run()) {
    const auto machines = life::machines_of(*name);
    if (machines.empty()) return would("remove image " + name->text());
    return problem(409, fmt::format("image {} is what the disk of machine {} is based on", name->text(), machines[0]));
  }
  if (auto done = life::remove_image(*name); !done) return problem(409, done.error().message);
  return {204, "", "", {}};
}

}  // namespace caisson::api
