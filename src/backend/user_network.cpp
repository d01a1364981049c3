// How libslirp sits on the event loop: its sockets are in an epoll set of their own, which the loop watches as one
// descriptor, so that all that is ready goes through one slirp_pollfds_poll(). After everything that may change what
// slirp waits for, refresh() asks it again (slirp_pollfds_fill) and changes the set where it differs.
#include "backend/user_network.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <slirp/libslirp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "backend/dns_server.h"
#include "backend/dns_tcp.h"
#include "backend/frame_queue.h"
#include "backend/ignore_sigpipe.h"
#include "backend/ip_frame.h"
#include "base/fd.h"
#include "base/log.h"

namespace caisson {
namespace {

constexpr uint64_t ns_per_ms = 1'000'000;
constexpr uint16_t dns_port = 53;
constexpr size_t least_mtu = 576;   // RFC 791 section 3.1
constexpr size_t most_mtu = 65521;  // IF_MTU_MAX of libslirp
constexpr size_t udp_overhead_v4 = 28;
constexpr size_t udp_overhead_v6 = 48;
// Slirp's clock stands still between its polls; a frame that comes later than this sets it first.
constexpr uint64_t stale_ns = 50 * ns_per_ms;
// With more sockets than this the set is not looked through for every frame, but once for all that come together.
constexpr size_t few_sockets = 32;
// What fits DHCP's reply beside the other options; libslirp would warn at each reply about more.
constexpr size_t most_search_bytes = 160;
constexpr size_t most_hostname = 32;

uint32_t to_epoll(int events) {
  return ((events & SLIRP_POLL_IN) != 0 ? uint32_t{EPOLLIN} : 0) |
         ((events & SLIRP_POLL_OUT) != 0 ? uint32_t{EPOLLOUT} : 0) |
         ((events & SLIRP_POLL_PRI) != 0 ? uint32_t{EPOLLPRI} : 0);
}

int to_slirp(uint32_t events) {
  return ((events & EPOLLIN) != 0 ? SLIRP_POLL_IN : 0) | ((events & EPOLLOUT) != 0 ? SLIRP_POLL_OUT : 0) |
         ((events & EPOLLPRI) != 0 ? SLIRP_POLL_PRI : 0) | ((events & EPOLLERR) != 0 ? SLIRP_POLL_ERR : 0) |
         ((events & EPOLLHUP) != 0 ? SLIRP_POLL_HUP : 0);
}

// Is there a route to the IPv6 internet? Connecting a UDP socket asks the host's routing table and sends nothing. The
// address is of the range for documentation, RFC 3849.
bool host_has_ipv6() {
  const Fd fd{::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
  sockaddr_in6 address{};
  address.sin6_family = AF_INET6;
  address.sin6_port = htons(dns_port);
  return fd.valid() && ::inet_pton(AF_INET6, "2001:db8::1", &address.sin6_addr) == 1 &&
         ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
}

in_addr address4(const IpAddress& address) {
  in_addr raw{};
  std::memcpy(&raw, address.bytes.data(), sizeof raw);
  return raw;
}

IpAddress ipv6(const char* text) {
  IpAddress address{.bytes = {}, .size = 16};
  ::inet_pton(AF_INET6, text, address.bytes.data());
  return address;
}

in6_addr address6(const IpAddress& address) {
  in6_addr raw{};
  std::memcpy(&raw, address.bytes.data(), sizeof raw);
  return raw;
}

const IpAddress network4 = ipv4(10, 0, 2, 0), netmask4 = ipv4(255, 255, 255, 0), gateway4 = ipv4(10, 0, 2, 2),
                nameserver4 = ipv4(10, 0, 2, 3), guest4 = ipv4(10, 0, 2, 15);
const IpAddress network6 = ipv6("fec0::"), gateway6 = ipv6("fec0::2"), nameserver6 = ipv6("fec0::3");

struct SlirpTimer {
  std::unique_ptr<EventLoop::Timer> timer;
};

}  // namespace

struct UserNetwork::Impl {
  Impl(EventLoop& event_loop, UserNetworkOptions given) : loop(event_loop), options(std::move(given)) {}
  ~Impl();

  [[nodiscard]] Result<> start();
  [[nodiscard]] Result<> listen(const PortForward& forward);

  void send(std::span<const uint8_t> frame);
  // True when it was for the name server and is dealt with.
  bool take_dns(std::span<const uint8_t> frame);
  void lead_to_dns(std::span<const uint8_t> frame, const IpFrame& parsed);
  void queue(std::span<const uint8_t> frame);
  void deliver();
  void deliver_later();
  void update_pause();

  void ready();
  void tick();
  void set_clock();
  void refresh();
  int add_poll(int fd, int events);
  void forget(int fd);

  static const SlirpCb callbacks;

  EventLoop& loop;
  const UserNetworkOptions options;
  const uint64_t start_ns = EventLoop::now_ns();
  bool ipv6_enabled = false;
  Slirp* slirp = nullptr;
  log::Limit guest_errors;

  std::unique_ptr<DnsServer> dns;
  std::unique_ptr<DnsTcp> dns_tcp4;
  std::unique_ptr<DnsTcp> dns_tcp6;

  struct Polled {
    bool in_set = false;
    uint32_t events = 0;
    uint64_t seen = 0;  // the last refresh() that wanted it
    size_t index = 0;   // among that one's descriptors
  };
  Fd sockets;  // the epoll set
  std::vector<Polled> by_fd;
  std::vector<int> wanted;      // the descriptors of the last refresh(), by the index slirp knows
  std::vector<uint32_t> found;  // what epoll said of each
  size_t in_set = 0;
  uint64_t refreshes = 0;
  std::unique_ptr<EventLoop::Timer> timeout;
  uint64_t timeout_at = UINT64_MAX;
  uint64_t clock_set = 0;

  Receiver receiver;
  FrameQueue to_guest;
  bool blocked = false;  // the guest has no buffers
  bool paused = false;   // the queue is long: nothing is read from sockets
  std::unique_ptr<EventLoop::Timer> deliver_soon;
  std::unique_ptr<EventLoop::Timer> refresh_soon;
};

const SlirpCb UserNetwork::Impl::callbacks = {
    .send_packet = [](const void* frame, size_t size, void* opaque) -> ssize_t {
      static_cast<Impl*>(opaque)->queue({static_cast<const uint8_t*>(frame), size});
      return static_cast<ssize_t>(size);  // dropped or not: an error would make libslirp complain at each frame
    },
    .guest_error =
        [](const char* message, void* opaque) {
          if (static_cast<Impl*>(opaque)->guest_errors.allow()) log::info("user network: the guest erred: {}", message);
        },
    // Not zero at the start, as zero means "never" to libslirp.
    .clock_get_ns = [](void* opaque) -> int64_t {
      return static_cast<int64_t>(EventLoop::now_ns() - static_cast<Impl*>(opaque)->start_ns + 1000 * ns_per_ms);
    },
    .timer_new = nullptr,  // timer_new_opaque instead
    .timer_free = [](void* timer, void*) { delete static_cast<SlirpTimer*>(timer); },
    .timer_mod =
        [](void* timer, int64_t expire_ms, void* opaque) {
          const uint64_t at = static_cast<uint64_t>(std::max<int64_t>(expire_ms, 1000)) * ns_per_ms - 1000 * ns_per_ms;
          static_cast<SlirpTimer*>(timer)->timer->arm(static_cast<Impl*>(opaque)->start_ns + at);
        },
    .register_poll_fd = [](int, void*) {},
    .unregister_poll_fd = [](int fd, void* opaque) { static_cast<Impl*>(opaque)->forget(fd); },
    .notify = [](void*) {},  // every call into slirp is followed by refresh()
    .init_completed = [](Slirp* slirp, void* opaque) { static_cast<Impl*>(opaque)->slirp = slirp; },
    .timer_new_opaque = [](SlirpTimerId id, void* cookie, void* opaque) -> void* {
      Impl* const impl = static_cast<Impl*>(opaque);
      auto* const timer = new SlirpTimer;
      timer->timer = impl->loop.create_timer([impl, id, cookie] {
        slirp_handle_timer(impl->slirp, id, cookie);
        impl->refresh();
        impl->deliver();
      });
      return timer;
    },
};

UserNetwork::Impl::~Impl() {
  dns_tcp4.reset();
  dns_tcp6.reset();
  dns.reset();
  if (sockets.valid()) loop.unwatch(sockets.get());
  if (slirp != nullptr) slirp_cleanup(slirp);
}

Result<> UserNetwork::Impl::start() {
  ignore_sigpipe();
  sockets = Fd{::epoll_create1(EPOLL_CLOEXEC)};
  if (!sockets.valid()) return fail_errno(errno, "cannot set up the user network");
  ipv6_enabled = options.ipv6.value_or(host_has_ipv6());
  timeout = loop.create_timer([this] { tick(); });
  deliver_soon = loop.create_timer([this] { deliver(); });
  refresh_soon = loop.create_timer([this] { refresh(); });

  std::vector<std::string> domains;
  size_t search_bytes = 0;
  for (const auto& domain : options.search_domains.value_or(host_search_domains())) {
    if (!dns::from_text(domain) || (search_bytes += domain.size() + 2) > most_search_bytes) continue;
    domains.push_back(domain);
  }
  std::vector<const char*> search;
  for (const auto& domain : domains) search.push_back(domain.c_str());
  search.push_back(nullptr);
  const std::string hostname = options.hostname.substr(0, most_hostname);

  SlirpConfig config{};
  config.version = 4;
  config.in_enabled = true;
  config.vnetwork = address4(network4);
  config.vnetmask = address4(netmask4);
  config.vhost = address4(gateway4);
  config.vdhcp_start = address4(guest4);
  config.vnameserver = address4(nameserver4);
  config.in6_enabled = ipv6_enabled;
  config.vprefix_addr6 = address6(network6);
  config.vprefix_len = 64;
  config.vhost6 = address6(gateway6);
  config.vnameserver6 = address6(nameserver6);
  config.vhostname = hostname.empty() ? nullptr : hostname.c_str();
  if (!domains.empty()) {
    config.vdnssearch = search.data();
    config.vdomainname = domains.front().c_str();
  }
  config.if_mtu = config.if_mru = std::clamp(options.mtu, least_mtu, most_mtu);
  slirp = slirp_new(&config, &callbacks, this);
  if (slirp == nullptr) return fail("cannot set up the user network: libslirp {} refuses", slirp_version_string());
  set_clock();
  for (const PortForward& forward : options.forwards) {
    if (auto done = listen(forward); !done) return done;
  }

  dns = std::make_unique<DnsServer>(
      loop, options.resolver != nullptr ? options.resolver : std::make_shared<SystemResolver>());
  dns_tcp4 = DnsTcp::listen(loop, *dns, false);
  if (ipv6_enabled) dns_tcp6 = DnsTcp::listen(loop, *dns, true);
  loop.watch(sockets.get(), EPOLLIN, [this](uint32_t) { ready(); });
  refresh();
  return {};
}

namespace {

sockaddr_in host_side(const PortForward& forward) {
  sockaddr_in host{};
  host.sin_family = AF_INET;
  std::memcpy(&host.sin_addr, forward.address.data(), forward.address.size());
  host.sin_port = htons(forward.host_port);
  return host;
}

}  // namespace

Result<> UserNetwork::Impl::listen(const PortForward& forward) {
  const sockaddr_in host = host_side(forward);
  sockaddr_in guest{};
  guest.sin_family = AF_INET;
  guest.sin_addr = address4(guest4);
  guest.sin_port = htons(forward.guest_port);
  if (slirp_add_hostxfwd(slirp, reinterpret_cast<const sockaddr*>(&host), sizeof host,
                         reinterpret_cast<const sockaddr*>(&guest), sizeof guest,
                         forward.udp ? SLIRP_HOSTFWD_UDP : 0) != 0) {
    return std::unexpected(cannot_listen(forward, errno));
  }
  return {};
}

// From the guest.

void UserNetwork::Impl::send(std::span<const uint8_t> frame) {
  const uint16_t type = ethertype(frame);
  // Nothing else reaches libslirp: it has handlers for protocols that nobody needs here.
  if (frame.size() > max_frame) return;
  if (type != ethertype_ipv4 && type != ethertype_arp && (type != ethertype_ipv6 || !ipv6_enabled)) return;
  if (EventLoop::now_ns() - clock_set > stale_ns) set_clock();
  if (take_dns(frame)) {
    if (!to_guest.empty()) deliver_later();
    return;
  }
  slirp_input(slirp, frame.data(), static_cast<int>(frame.size()));
  // What waited for this answer goes out only at the next poll.
  if (type == ethertype_arp) set_clock();
  if (in_set <= few_sockets) {
    refresh();
  } else {
    refresh_soon->arm(0);
  }
  if (!to_guest.empty()) deliver_later();
}

bool UserNetwork::Impl::take_dns(std::span<const uint8_t> frame) {
  const auto parsed = parse_ip_frame(frame);
  if (!parsed || (parsed->destination != nameserver4 && parsed->destination != nameserver6)) return false;
  if (parsed->fragment) return true;  // no DNS query is that long
  if (parsed->destination_port != dns_port) return false;
  if (parsed->protocol == protocol_tcp) {
    lead_to_dns(frame, *parsed);
    return true;
  }
  const bool multicast = (parsed->source_mac[0] & 1) != 0 || (parsed->destination_mac[0] & 1) != 0;
  if (multicast || parsed->source_port == 0) return true;
  const UdpEnds back{.destination_mac = parsed->source_mac,
                     .source_mac = parsed->destination_mac,
                     .source = parsed->destination,
                     .destination = parsed->source,
                     .source_port = dns_port,
                     .destination_port = parsed->source_port};
  const size_t overhead = parsed->destination.size == 4 ? udp_overhead_v4 : udp_overhead_v6;
  dns->resolve(parsed->payload, DnsServer::Transport::Udp, std::clamp(options.mtu, least_mtu, most_mtu) - overhead,
               [this, back](std::vector<uint8_t> message) {
                 if (message.empty()) return;
                 queue(build_udp_frame(back, message));
                 deliver();
               });
  return true;
}

// TCP to the name server becomes TCP to the gateway, which is the host's loopback interface to libslirp, and to the
// port where we listen. queue() changes the answers back.
void UserNetwork::Impl::lead_to_dns(std::span<const uint8_t> frame, const IpFrame& parsed) {
  const bool v4 = parsed.destination.size == 4;
  const DnsTcp* const tcp = v4 ? dns_tcp4.get() : dns_tcp6.get();
  if (tcp == nullptr) return;
  std::vector<uint8_t> changed{frame.begin(), frame.end()};
  change_destination(changed, parsed, v4 ? gateway4 : gateway6, tcp->port());
  slirp_input(slirp, changed.data(), static_cast<int>(changed.size()));
  refresh();
}

// To the guest.

void UserNetwork::Impl::queue(std::span<const uint8_t> frame) {
  if (!receiver || !to_guest.push(frame)) return;
  const auto parsed = parse_ip_frame(to_guest.back());
  if (!parsed || parsed->protocol != protocol_tcp || parsed->fragment) return;
  if (parsed->source == gateway4 && dns_tcp4 != nullptr && parsed->source_port == dns_tcp4->port()) {
    change_source(to_guest.back(), *parsed, nameserver4, dns_port);
  } else if (parsed->source == gateway6 && dns_tcp6 != nullptr && parsed->source_port == dns_tcp6->port()) {
    change_source(to_guest.back(), *parsed, nameserver6, dns_port);
  }
}

void UserNetwork::Impl::deliver() {
  while (!blocked && receiver && !to_guest.empty()) {
    const Receiver current = receiver;  // it may be replaced from inside
    if (current(to_guest.front())) {
      to_guest.pop();
    } else {
      blocked = true;
    }
  }
  update_pause();
}

void UserNetwork::Impl::deliver_later() {
  if (!blocked) deliver_soon->arm(0);
  update_pause();
}

void UserNetwork::Impl::update_pause() {
  if (!paused && to_guest.high()) {
    paused = true;
    loop.unwatch(sockets.get());
  } else if (paused && to_guest.low()) {
    paused = false;
    loop.watch(sockets.get(), EPOLLIN, [this](uint32_t) { ready(); });
  }
}

// Slirp's sockets and time.

void UserNetwork::Impl::ready() {
  std::array<epoll_event, 64> events;
  const int count = ::epoll_wait(sockets.get(), events.data(), static_cast<int>(events.size()), 0);
  for (int i = 0; i < count; ++i) {
    const epoll_event& event = events[static_cast<size_t>(i)];
    const Polled& polled = by_fd[static_cast<size_t>(event.data.fd)];
    if (polled.in_set && polled.seen == refreshes) found[polled.index] = event.events;
  }
  clock_set = EventLoop::now_ns();
  slirp_pollfds_poll(
      slirp, 0,
      [](int index, void* opaque) -> int {
        const Impl* const impl = static_cast<Impl*>(opaque);
        const auto at = static_cast<size_t>(index);
        return at < impl->found.size() ? to_slirp(impl->found[at]) : 0;
      },
      this);
  refresh();
  deliver();
}

void UserNetwork::Impl::tick() {
  timeout_at = UINT64_MAX;
  set_clock();
  refresh();
  deliver();
}

// Slirp's clock moves, and what is due by it happens, in slirp_pollfds_poll() only; told of an error, that looks at no
// socket.
void UserNetwork::Impl::set_clock() {
  clock_set = EventLoop::now_ns();
  slirp_pollfds_poll(
      slirp, 1, [](int, void*) { return 0; }, this);
}

void UserNetwork::Impl::refresh() {
  ++refreshes;
  wanted.clear();
  uint32_t milliseconds = UINT32_MAX;
  slirp_pollfds_fill(
      slirp, &milliseconds,
      [](int fd, int events, void* opaque) { return static_cast<Impl*>(opaque)->add_poll(fd, events); }, this);
  found.assign(wanted.size(), 0);
  if (in_set != wanted.size()) {
    for (size_t fd = 0; fd < by_fd.size() && in_set > wanted.size(); ++fd) {
      if (by_fd[fd].in_set && by_fd[fd].seen != refreshes) forget(static_cast<int>(fd));
    }
  }
  // Asked to wait for ever slirp says a second where nothing is due.
  if (milliseconds >= 1000) {
    if (timeout_at != UINT64_MAX) timeout->cancel();
    timeout_at = UINT64_MAX;
    return;
  }
  const uint64_t at = EventLoop::now_ns() + milliseconds * ns_per_ms;
  if (at >= timeout_at) return;
  timeout_at = at;
  timeout->arm(at);
}

int UserNetwork::Impl::add_poll(int fd, int events) {
  const auto number = static_cast<size_t>(fd);
  if (number >= by_fd.size()) by_fd.resize(number + 1);
  Polled& polled = by_fd[number];
  const uint32_t bits = to_epoll(events);
  if (!polled.in_set || polled.events != bits) {
    epoll_event event{};
    event.events = bits;
    event.data.fd = fd;
    int done = ::epoll_ctl(sockets.get(), polled.in_set ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event);
    if (done != 0 && errno == ENOENT) done = ::epoll_ctl(sockets.get(), EPOLL_CTL_ADD, fd, &event);
    if (done != 0 && errno == EEXIST) done = ::epoll_ctl(sockets.get(), EPOLL_CTL_MOD, fd, &event);
    if (done != 0) return -1;
    if (!polled.in_set) ++in_set;
    polled.in_set = true;
    polled.events = bits;
  }
  polled.seen = refreshes;
  polled.index = wanted.size();
  wanted.push_back(fd);
  return static_cast<int>(polled.index);
}

// Slirp closes a socket, or waits for it no longer; it may be -1, where it never came to be.
void UserNetwork::Impl::forget(int fd) {
  const auto number = static_cast<size_t>(fd);
  if (fd < 0 || number >= by_fd.size() || !by_fd[number].in_set) return;
  ::epoll_ctl(sockets.get(), EPOLL_CTL_DEL, fd, nullptr);
  by_fd[number].in_set = false;
  --in_set;
}

UserNetwork::UserNetwork(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
UserNetwork::~UserNetwork() = default;

Result<std::unique_ptr<UserNetwork>> UserNetwork::create(EventLoop& loop, UserNetworkOptions options) {
  auto impl = std::make_unique<Impl>(loop, std::move(options));
  if (auto done = impl->start(); !done) return std::unexpected(done.error());
  return std::unique_ptr<UserNetwork>(new UserNetwork(std::move(impl)));
}

void UserNetwork::send(std::span<const uint8_t> frame) { impl_->send(frame); }

void UserNetwork::set_receiver(Receiver receiver) {
  impl_->receiver = std::move(receiver);
  impl_->blocked = false;
  if (!impl_->receiver) impl_->to_guest.clear();
  impl_->update_pause();
}

void UserNetwork::receive_ready() {
  impl_->blocked = false;
  if (!impl_->to_guest.empty()) impl_->deliver_later();
}

Result<> UserNetwork::add_forward(const PortForward& forward) {
  auto done = impl_->listen(forward);
  impl_->refresh();
  return done;
}

void UserNetwork::remove_forward(const PortForward& forward) {
  const sockaddr_in host = host_side(forward);
  slirp_remove_hostxfwd(impl_->slirp, reinterpret_cast<const sockaddr*>(&host), sizeof host,
                        forward.udp ? SLIRP_HOSTFWD_UDP : 0);
  impl_->refresh();
}

uint64_t UserNetwork::dropped() const { return impl_->to_guest.dropped(); }

}  // namespace caisson
