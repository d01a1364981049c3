// Requests in, answers out: finds the route, checks who asks and what, calls, and records.
//   Answers  4xx for whatever a client sends; a 5xx is this host's or our own fault
//   Threads  any
#pragma once

#include <atomic>
#include <optional>
#include <stop_token>
#include <string>

#include "api/audit.h"
#include "api/routes.h"

namespace caisson::api {

class Api {
 public:
  explicit Api(Audit& audit);

  // A request that may be: what it asks for, checked.
  struct Admitted {
    const Route* route;
    Call call;
  };
  // `caller`: none where it is not known who asks. Refusals are recorded here.
  [[nodiscard]] std::expected<Admitted, Answer> admit(const Request& request, const std::optional<Caller>& caller);
  // Of Kind::Answer. May wait for seconds.
  [[nodiscard]] Answer answer(Admitted& admitted);
  // Of Kind::Download and Kind::Upload. May wait for as long as a guest may.
  [[nodiscard]] std::expected<File, Answer> fetch(Admitted& admitted);
  [[nodiscard]] Answer take(Admitted& admitted, const File& content);
  // All of a request but streams; content that is fetched is left out.
  [[nodiscard]] Answer handle(const Request& request, const std::optional<Caller>& caller);

  // Starts the machines whose configuration says autostart, in jobs.
  void start_machines();

  // The daemon ends: what waits for guests does so no longer.
  void end() { end_.request_stop(); }

  [[nodiscard]] Audit& audit() { return audit_; }
  [[nodiscard]] Children& children() { return children_; }

 private:
  void record(const Admitted& admitted, const Answer& answer);
  Audit& audit_;
  Children children_;
  Jobs jobs_;
  std::atomic<unsigned> guest_calls_ = 0;
  std::stop_source end_;
  Services services_;
};

}  // namespace caisson::api
