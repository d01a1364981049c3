#include "cli/manual.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <fstream>
#include <vector>

#include <fmt/core.h>
#include <CLI/CLI.hpp>

#include "base/log.h"
#include "cli/exit_status.h"
#include "store/files.h"

namespace caisson::cli {
namespace {

// As text of a page: hyphens that are typed, no escapes, no requests at a line's start; and ASCII only.
std::string escaped(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0xc0) {  // UTF-8: this byte's leading ones are the character's bytes
      const auto more = static_cast<size_t>(std::countl_one(byte)) - 1;
      uint32_t character = byte & (0x3fu >> more);
      for (size_t left = more; left > 0 && i + 1 < text.size(); --left) {
        character = character << 6 | (static_cast<unsigned char>(text[++i]) & 0x3f);
      }
      out += fmt::format("\\[u{:04X}]", character);
    } else if (c == '\\') {
      out += "\\e";
    } else if (c == '-') {
      out += "\\-";
    } else if ((c == '.' || c == '\'') && (out.empty() || out.back() == '\n')) {
      out += std::string{"\\&"} + c;
    } else {
      out += c;
    }
  }
  return out;
}

std::string file_name(std::string path) {
  std::ranges::replace(path, ' ', '-');
  return path + ".1";
}

void add_options(std::string& page, const CLI::App& command) {
  for (const bool positional : {true, false}) {
    bool heading = false;
    for (const CLI::Option* option : command.get_options()) {
      if (option->get_positional() != positional) continue;
      if (!heading) page += positional ? ".SH ARGUMENTS\n" : ".SH OPTIONS\n";
      heading = true;
      const std::string value = option->get_type_size() == 0 || positional ? "" : option->get_type_name();
      std::string about = option->get_description();
      if (!option->get_default_str().empty()) about += " (default: " + option->get_default_str() + ")";
      page += fmt::format(".TP\n\\fB{}\\fR{}\n{}\n", escaped(option->get_name(positional, !positional)),
                          value.empty() ? "" : " \\fI" + escaped(value) + "\\fR", escaped(about));
    }
  }
}

// What stands under --help: paragraphs, with examples as lines that begin with two spaces.
void add_footer(std::string& page, const std::string& footer) {
  bool as_it_is = false;
  const auto keep = [&](bool now) {
    if (now != as_it_is) page += now ? ".nf\n" : ".fi\n";
    as_it_is = now;
  };
  for (size_t at = 0; at < footer.size();) {
    const size_t end = std::min(footer.find('\n', at), footer.size());
    const std::string line = footer.substr(at, end - at);
    at = end + 1;
    keep(line.starts_with("  "));
    if (line == "Example:" || line == "Examples:") {
      page += ".SH EXAMPLES\n";
    } else if (line == "Exit status of run:") {
      page += ".SH EXIT STATUS\n";
    } else {
      page += line.empty() ? ".PP\n" : escaped(line) + "\n";
    }
  }
  keep(false);
}

void collect(const CLI::App& command, const std::string& path,
             std::vector<std::pair<std::string, const CLI::App*>>& into) {
  into.emplace_back(path, &command);
  for (const CLI::App* one : command.get_subcommands([](const CLI::App*) { return true; }))
    collect(*one, path + " " + one->get_name(), into);
}

}  // namespace

std::string manual_page(const CLI::App& command, const std::string& path) {
  const auto below = command.get_subcommands([](const CLI::App*) { return true; });
  std::string synopsis;
  for (const CLI::Option* option : command.get_options()) {
    if (!option->get_positional()) continue;
    const bool needed = option->get_required();
    synopsis +=
        fmt::format(" {}\\fI{}\\fR{}", needed ? "" : "[", escaped(option->get_name(true, false)), needed ? "" : "]");
  }
  if (!below.empty()) synopsis += " \\fICOMMAND\\fR";
  std::string name = path;
  std::ranges::replace(name, ' ', '-');
  std::string upper = name;
  std::ranges::transform(upper, upper.begin(), [](char c) { return c >= 'a' && c <= 'z' ? char(c - 'a' + 'A') : c; });
  std::string page = fmt::format(
      ".TH {} 1 \"\" \"Caisson\" \"Caisson\"\n.SH NAME\n{} \\- {}\n.SH SYNOPSIS\n\\fB{}\\fR [\\fIOPTIONS\\fR]{}\n",
      upper, escaped(name), escaped(command.get_description()), escaped(path), synopsis);
  add_options(page, command);
  if (!below.empty()) {
    page += ".SH COMMANDS\n";
    for (const CLI::App* one : below) {
      page += fmt::format(".TP\n\\fB{}\\fR\n{}; see \\fB{}\\fR(1)\n", escaped(one->get_name()),
                          escaped(one->get_description()), escaped(name + "-" + one->get_name()));
    }
  }
  add_footer(page, command.get_footer());
  return page;
}

int manual(const CLI::App& program, const std::string& folder) {
  if (folder.empty()) {
    fmt::print("{}", manual_page(program, program.get_name()));
    return exit_ok;
  }
  std::vector<std::pair<std::string, const CLI::App*>> commands;
  collect(program, program.get_name(), commands);
  if (auto ok = make_folders(folder); !ok) {
    log::error("{}", ok.error().message);
    return exit_failure;
  }
  for (const auto& [path, command] : commands) {
    const std::string file = folder + "/" + file_name(path);
    errno = 0;
    std::ofstream out{file, std::ios::trunc};
    out << manual_page(*command, path);
    out.close();
    if (!out) {
      log::error("{}", fail_errno(errno, "cannot write " + file).error().message);
      return exit_failure;
    }
  }
  fmt::print("{} pages in {}\n", commands.size(), folder);
  return exit_ok;
}

}  // namespace caisson::cli
