#include "backend/dns_server.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <variant>

#include <sys/random.h>

namespace caisson {
namespace {

using dns::AnswerBuilder;
using dns::Query;
using dns::Rcode;
using dns::Type;
using Outcome = HostResolver::Outcome;

constexpr size_t most_threads = 4;
constexpr size_t most_kept = 1024;
constexpr uint64_t keep_ns = uint64_t{DnsServer::ttl_seconds} * 1'000'000'000;
constexpr uint64_t keep_missing_ns = 1'000'000'000;

// What was looked up: a name's addresses, an address's name, or a whole message by the name server.
using Answer = std::variant<HostResolver::Addresses, HostResolver::NameOf, std::optional<std::vector<uint8_t>>>;

// The threads, and what connects them to the server; they own it together, because threads may outlast the server.
class Lookups : public std::enable_shared_from_this<Lookups> {
 public:
  using Lookup = std::function<Answer()>;
  using Finish = std::function<void(Answer)>;  // on the loop

  explicit Lookups(EventLoop& loop) : loop_(&loop) {}

  // False when the host gives no thread.
  bool start(Lookup lookup, Finish finish) {
    const std::lock_guard lock{mutex_};
    if (idle_ <= tasks_.size() && threads_ < most_threads) {
      try {
        std::thread{[self = shared_from_this()] { self->work(); }}.detach();
        ++threads_;
      } catch (const std::system_error&) {
        if (threads_ == 0) return false;
      }
    }
    tasks_.emplace_back(std::move(lookup), std::move(finish));
    changed_.notify_one();
    return true;
  }

  // The loop is not used any more after this.
  void close() {
    std::deque<std::pair<Lookup, Finish>> dropped;
    {
      const std::lock_guard lock{mutex_};
      loop_ = nullptr;
      dropped.swap(tasks_);
    }
    changed_.notify_all();
  }

 private:
  void work() {
    std::unique_lock lock{mutex_};
    for (;;) {
      ++idle_;
      changed_.wait(lock, [this] { return loop_ == nullptr || !tasks_.empty(); });
      --idle_;
      if (loop_ == nullptr) return;
      auto [lookup, finish] = std::move(tasks_.front());
      tasks_.pop_front();
      lock.unlock();
      auto answer = std::make_shared<Answer>(lookup());
      lock.lock();
      if (loop_ == nullptr) return;
      loop_->post([finish = std::move(finish), answer] { finish(std::move(*answer)); });
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  EventLoop* loop_;
  std::deque<std::pair<Lookup, Finish>> tasks_;
  size_t threads_ = 0;
  size_t idle_ = 0;
};

uint16_t random_id() {
  uint16_t id = 0;
  [[maybe_unused]] const ssize_t size = ::getrandom(&id, sizeof id, 0);
  return id;
}

Rcode rcode_of(Outcome outcome) {
  switch (outcome) {
    case Outcome::Found:
    case Outcome::NoData: return Rcode::NoError;
    case Outcome::NoName: return Rcode::NxDomain;
    case Outcome::Failed: return Rcode::ServFail;
  }
  return Rcode::ServFail;
}

std::vector<uint8_t> build(const Query& query, const HostResolver::Addresses& found, size_t limit) {
  AnswerBuilder builder{query, rcode_of(found.outcome), limit};
  if (found.outcome == Outcome::Found) {
    const auto canonical = dns::from_text(found.canonical);
    if (canonical && dns::to_text(*canonical) != dns::to_text(query.name)) {
      builder.add_cname(*canonical, DnsServer::ttl_seconds);
    }
    if (query.type == static_cast<uint16_t>(Type::A)) {
      for (const auto& address : found.ipv4) builder.add_address(address, DnsServer::ttl_seconds);
    } else {
      for (const auto& address : found.ipv6) builder.add_address(address, DnsServer::ttl_seconds);
    }
  }
  return builder.finish();
}

std::vector<uint8_t> build(const Query& query, const HostResolver::NameOf& found, size_t limit) {
  const auto name = dns::from_text(found.name);
  const bool usable = found.outcome != Outcome::Found || name;
  AnswerBuilder builder{query, usable ? rcode_of(found.outcome) : Rcode::ServFail, limit};
  if (found.outcome == Outcome::Found && name) builder.add_ptr(*name, DnsServer::ttl_seconds);
  return builder.finish();
}

std::vector<uint8_t> build(const Query& query, const std::optional<std::vector<uint8_t>>& answer, size_t limit) {
  if (answer) {
    if (auto relayed = dns::relay(query, *answer, limit)) return std::move(*relayed);
  }
  return AnswerBuilder{query, Rcode::ServFail, limit}.finish();
}

// How long an answer may be used again; only lookups by the host's functions, whose own caches we do not see, are kept.
uint64_t keep_time(const Answer& answer) {
  Outcome outcome = Outcome::Failed;
  if (const auto* addresses = std::get_if<0>(&answer)) outcome = addresses->outcome;
  if (const auto* name = std::get_if<1>(&answer)) outcome = name->outcome;
  switch (outcome) {
    case Outcome::Found: return keep_ns;
    case Outcome::NoData:
    case Outcome::NoName: return keep_missing_ns;
    case Outcome::Failed: return 0;
  }
  return 0;
}

}  // namespace

struct DnsServer::Impl : std::enable_shared_from_this<Impl> {
  Impl(EventLoop& event_loop, std::shared_ptr<HostResolver> host)
      : loop(event_loop), resolver(std::move(host)), lookups(std::make_shared<Lookups>(event_loop)) {}

  struct Waiting {
    Query query;
    size_t limit;
    Reply reply;
  };
  struct Kept {
    Answer answer;
    uint64_t until;
  };

  // A reply that is ready now, sent from the loop.
  void reply_soon(Reply reply, std::vector<uint8_t> message) {
    auto shared = std::make_shared<std::vector<uint8_t>>(std::move(message));
    loop.post([weak = weak_from_this(), reply = std::move(reply), shared] {
      if (weak.lock() != nullptr) reply(std::move(*shared));
    });
  }

  static std::vector<uint8_t> message_for(const Waiting& waiting, const Answer& answer) {
    return std::visit([&](const auto& found) { return build(waiting.query, found, waiting.limit); }, answer);
  }

  void look_up(std::string key, Waiting waiting, Lookups::Lookup lookup);
  void finished(const std::string& key, Answer answer);
  void keep(const std::string& key, const Answer& answer);

  EventLoop& loop;
  const std::shared_ptr<HostResolver> resolver;
  const std::shared_ptr<Lookups> lookups;
  std::map<std::string, std::vector<Waiting>> running;
  std::map<std::string, Kept> kept;
  size_t waiting_count = 0;
};

void DnsServer::Impl::look_up(std::string key, Waiting waiting, Lookups::Lookup lookup) {
  const auto known = kept.find(key);
  if (known != kept.end()) {
    if (EventLoop::now_ns() < known->second.until) {
      return reply_soon(waiting.reply, message_for(waiting, known->second.answer));
    }
    kept.erase(known);
  }
  const auto fail_now = [&] {
    reply_soon(waiting.reply, AnswerBuilder{waiting.query, Rcode::ServFail, waiting.limit}.finish());
  };
  if (waiting_count >= most_lookups) return fail_now();
  const auto [entry, is_new] = running.try_emplace(key);
  if (is_new) {
    const bool started = lookups->start(std::move(lookup), [weak = weak_from_this(), key](Answer answer) {
      if (const auto self = weak.lock()) self->finished(key, std::move(answer));
    });
    if (!started) {
      running.erase(entry);
      return fail_now();
    }
  }
  ++waiting_count;
  entry->second.push_back(std::move(waiting));
}

void DnsServer::Impl::finished(const std::string& key, Answer answer) {
  const auto entry = running.find(key);
  if (entry == running.end()) return;
  const auto waiting = std::move(entry->second);
  running.erase(entry);
  waiting_count -= waiting.size();
  keep(key, answer);
  for (const Waiting& one : waiting) one.reply(message_for(one, answer));
}

void DnsServer::Impl::keep(const std::string& key, const Answer& answer) {
  const uint64_t time = keep_time(answer);
  if (time == 0) return;
  const uint64_t now = EventLoop::now_ns();
  if (kept.size() >= most_kept) {
    std::erase_if(kept, [&](const auto& entry) { return entry.second.until <= now; });
    if (kept.size() >= most_kept) kept.erase(kept.begin());
  }
  kept.insert_or_assign(key, Kept{answer, now + time});
}

DnsServer::DnsServer(EventLoop& loop, std::shared_ptr<HostResolver> resolver)
    : impl_(std::make_shared<Impl>(loop, std::move(resolver))) {}

DnsServer::~DnsServer() { impl_->lookups->close(); }

void DnsServer::resolve(std::span<const uint8_t> message, Transport transport, size_t limit, Reply reply) {
  Impl& my = *impl_;
  const auto parsed = dns::parse_query(message);
  if (!parsed) return my.reply_soon(std::move(reply), {});
  const Query& query = parsed->query;
  limit = std::min(limit, transport == Transport::Udp ? size_t{query.payload_size} : dns::max_message);
  if (parsed->refusal) {
    AnswerBuilder builder{query, *parsed->refusal, limit};
    if (parsed->bad_version) builder.set_bad_version();
    return my.reply_soon(std::move(reply), builder.finish());
  }
  Impl::Waiting waiting{query, limit, std::move(reply)};
  const auto type = static_cast<Type>(query.type);
  const bool internet = query.qclass == dns::class_in;

  if (internet && (type == Type::A || type == Type::Aaaa)) {
    if (const auto name = dns::to_text(query.name)) {
      return my.look_up("host " + *name, std::move(waiting),
                        [resolver = my.resolver, name = *name]() -> Answer { return resolver->addresses(name); });
    }
  }
  if (internet && type == Type::Ptr) {
    const auto address = dns::reverse_address(query.name);
    if (!address.empty()) {
      return my.look_up("address " + std::string{address.begin(), address.end()}, std::move(waiting),
                        [resolver = my.resolver, address]() -> Answer { return resolver->name_of(address); });
    }
  }
  auto forwarded = dns::build_query(query, random_id());
  // Two identical questions share one lookup; the id is not part of the question.
  std::string key = "query " + std::string{forwarded.begin() + 2, forwarded.end()};
  my.look_up(
      std::move(key), std::move(waiting),
      [resolver = my.resolver, forwarded = std::move(forwarded)]() -> Answer { return resolver->ask(forwarded); });
}

}  // namespace caisson
