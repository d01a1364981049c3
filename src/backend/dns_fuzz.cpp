// libFuzzer target: whatever a guest sends as a DNS query, and whatever a name server answers.
#include <cstdlib>
#include <span>

#include "backend/dns_message.h"

using namespace caisson::dns;

namespace {

void expect(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span input{data, size};
  const auto parsed = parse_query(input);
  if (!parsed) return 0;
  const Query& query = parsed->query;
  expect(query.name.size() <= max_name);
  const auto reverse = reverse_address(query.name);
  expect(reverse.empty() || reverse.size() == 4 || reverse.size() == 16);
  if (const auto text = to_text(query.name)) {
    const auto again = from_text(*text);
    expect(again && again->size() == query.name.size());
  }
  for (const size_t limit : {plain_limit, size_t{query.payload_size}, max_message}) {
    AnswerBuilder builder{query, parsed->refusal.value_or(Rcode::NoError), limit};
    if (!query.name.empty()) builder.add_cname(query.name, 5);
    for (int i = 0; i < 100; ++i) builder.add_address(Ipv6{}, 5);
    const auto answer = builder.finish();
    expect(answer.size() <= limit);
    expect(!parse_query(answer));  // an answer is never taken for a query
    if (const auto relayed = relay(query, answer, limit)) expect(relayed->size() <= limit);
  }
  if (const auto relayed = relay(query, input, plain_limit)) expect(relayed->size() <= plain_limit);
  if (!query.name.empty() && !parsed->refusal) {
    const auto on = parse_query(build_query(query, 1));
    expect(on && !on->refusal && on->query.name == query.name && on->query.type == query.type);
  }
  return 0;
}
