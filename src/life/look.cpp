#include "life/look.h"

#include <utility>

#include "base/event_loop.h"

namespace caisson::life {
namespace {

using Json = nlohmann::json;
using store::Store;

// All machines together may take so long to answer.
constexpr uint64_t answer_ms = 2000;

// The text of a message or configuration of ours.
Json parsed(const std::string& text) { return Json::parse(text, nullptr, false); }

}  // namespace

// Every machine is asked before the first answer is waited for.
std::vector<Listed> look(const Store& store, const std::vector<std::string>& names) {
  std::vector<Listed> list;
  for (const std::string& name : names) {
    auto folder = store.find(name);
    if (!folder) continue;  // removed meanwhile
    auto spec = folder->spec();
    Listed one{std::move(*folder), std::move(spec), false, {}, {}, {}};
    one.alive = one.folder.alive();
    if (one.alive) {
      if (auto client = VmClient::connect(one.folder); client && client->send(control::Query{})) {
        one.client = std::move(*client);
      }
    }
    list.push_back(std::move(one));
  }
  const uint64_t deadline = EventLoop::now_ns() + answer_ms * 1'000'000;
  for (Listed& one : list) {
    if (one.client) {
      const uint64_t now = EventLoop::now_ns();
      auto answer = one.client->receive(now < deadline ? (deadline - now) / 1'000'000 : 0);
      if (answer) {
        if (const auto* status = std::get_if<control::Status>(&answer->event)) one.status = *status;
      }
      if (!one.status) one.alive = one.folder.alive();
    }
    if (!one.status) one.life = one.folder.last_life();
  }
  return list;
}

std::string state_of(const Listed& one) {
  using control::ExitReason;
  if (one.status) return one.status->state == control::RunState::Paused ? "paused" : "running";
  if (one.alive) return "starting";  // or does not answer
  if (!one.spec) return "broken";
  if (one.life.exited) {
    switch (one.life.exited->reason) {
      case ExitReason::Panic: return "panicked";
      case ExitReason::Failure: return "failed";
      default: return "stopped";
    }
  }
  return one.life.started_ms ? "killed" : "created";
}

Json to_json(const Listed& one) {
  Json json{{"name", one.folder.name()}, {"state", state_of(one)}, {"folder", one.folder.path()}};
  if (one.spec) {
    json["config"] = parsed(one.spec->serialise());
  } else {
    json["error"] = one.spec.error().message;
  }
  if (one.status) {
    json["status"] = parsed(control::serialise(control::Event{*one.status}));
    json["status"].erase("type");
    json["pid"] = one.client->pid();
  } else {
    if (one.life.started_ms) json["started_ms"] = *one.life.started_ms;
    if (one.life.ended_ms) json["ended_ms"] = *one.life.ended_ms;
    if (one.life.exited) {
      json["end"] = parsed(control::serialise(control::Event{*one.life.exited}));
      json["end"].erase("type");
    }
  }
  return json;
}

}  // namespace caisson::life
