#include "daemon/server.h"

#include <cerrno>
#include <csignal>

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/ssl/context.hpp>

#include "base/log.h"
#include "daemon/connection.h"
#include "life/vm_client.h"
#include "store/files.h"
#include "store/store.h"

namespace caisson::daemon {
namespace {

using namespace std::chrono_literals;
using asio::ip::tcp;
using asio::local::stream_protocol;
namespace ssl = asio::ssl;

constexpr auto handshake_time = 10s;

Result<Peer> peer_of(int socket) {
  ucred credentials{};
  socklen_t size = sizeof credentials;
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) return fail_errno(errno, "the peer");
  Peer peer{credentials.uid, credentials.gid, std::string(64 * sizeof(gid_t), '\0')};
  size = static_cast<socklen_t>(peer.groups.size());
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, peer.groups.data(), &size) != 0) {
    if (errno != ERANGE) size = 0;
    // It says how much room they need.
    peer.groups.assign(size, '\0');
    if (size != 0 && ::getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, peer.groups.data(), &size) != 0) size = 0;
  }
  peer.groups.resize(size);
  return peer;
}

// "127.0.0.1:8443", "[::1]:8443"
Result<tcp::endpoint> parse_address(const std::string& text) {
  const size_t colon = text.rfind(':');
  std::string host = text.substr(0, colon == std::string::npos ? 0 : colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  boost::system::error_code error;
  const auto address = asio::ip::make_address(host, error);
  const std::string port = colon == std::string::npos ? "" : text.substr(colon + 1);
  const bool digits = !port.empty() && port.size() <= 5 && port.find_first_not_of("0123456789") == std::string::npos;
  if (error || !digits || std::stoul(port) > 65535) {
    return fail("listen: {}: write ADDRESS:PORT, for example 127.0.0.1:8443", text);
  }
  return tcp::endpoint{address, static_cast<uint16_t>(std::stoul(port))};
}

std::string common_name(X509* certificate) {
  const X509_NAME* const subject = ::X509_get_subject_name(certificate);
  const int at = ::X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
  if (at < 0) return "";
  const ASN1_STRING* const text = ::X509_NAME_ENTRY_get_data(::X509_NAME_get_entry(subject, at));
  std::string name{reinterpret_cast<const char*>(::ASN1_STRING_get0_data(text)),
                   static_cast<size_t>(::ASN1_STRING_length(text))};
  for (char& c : name) {
    if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) >= 0x7f) c = '?';
  }
  return name.substr(0, 64);
}

}  // namespace

struct Server::Impl {
  Impl(api::Api& api, const Settings& given, const Tokens& tokens)
      : settings(given), pool(pool_threads), shared{api, tokens, pool, Listeners{pool}} {}

  // A connection, counted; while there are too many no more are taken.
  template <class Task>
  void spawn(Task task) {
    ++shared.connections;
    asio::co_spawn(loop, std::move(task), [this](const std::exception_ptr&) {
      --shared.connections;
      room.cancel();
    });
  }
  asio::awaitable<void> wait_for_room() {
    while (shared.connections >= most_connections) {
      room.expires_at(asio::steady_timer::time_point::max());
      co_await room.async_wait(no_throw);
      if (stopping) co_return;
    }
  }
  template <class Acceptor>
  asio::awaitable<bool> pause_after(Acceptor& acceptor, boost::system::error_code error) {
    if (stopping || !acceptor.is_open()) co_return false;
    // Descriptors or memory have run out: not at full speed again.
    log::warning("cannot take a connection: {}", error.message());
    asio::steady_timer timer{loop, 100ms};
    co_await timer.async_wait(no_throw);
    co_return !stopping;
  }

  Identity identify(int socket) {
    const auto peer = peer_of(socket);
    if (!peer) return {};
    const auto role = role_of(settings, *peer, ::geteuid());
    const std::string name = fmt::format("uid {}", peer->uid);
    if (role) return {api::Caller{name, *role}, false};
    shared.api.audit().write({.who = name, .operation = "connect", .status = 401, .result = "has no role"});
    return {};
  }

  asio::awaitable<void> accept_unix() {
    for (;;) {
      co_await wait_for_room();
      auto [error, socket] = co_await unix_acceptor.async_accept(no_throw);
      if (error) {
        const bool again = co_await pause_after(unix_acceptor, error);
        if (!again) co_return;
        continue;
      }
      Identity identity = identify(socket.native_handle());
      spawn(serve(Stream{UnixStream{std::move(socket)}}, std::move(identity), shared));
    }
  }

  asio::awaitable<void> serve_tls(TlsStream stream, std::string from) {
    beast::get_lowest_layer(stream).expires_after(handshake_time);
    auto [error] = co_await stream.async_handshake(ssl::stream_base::server, no_throw);
    if (error) {
      shared.api.audit().write({.who = from, .operation = "handshake", .result = error.message()});
      co_return;
    }
    Identity identity{std::nullopt, true};
    X509* const certificate = ::SSL_get0_peer_certificate(stream.native_handle());
    if (certificate != nullptr) {
      const std::string name = common_name(certificate);
      const auto role = settings.clients.find(name);
      if (role != settings.clients.end()) {
        identity.caller = api::Caller{"certificate " + name, role->second};
      } else {
        shared.api.audit().write(
            {.who = "certificate " + name, .operation = "connect", .status = 401, .result = "has no role"});
      }
    }
    co_await serve(Stream{std::move(stream)}, std::move(identity), shared);
  }

  asio::awaitable<void> accept_https() {
    for (;;) {
      co_await wait_for_room();
      auto [error, socket] = co_await tcp_acceptor.async_accept(no_throw);
      if (error) {
        const bool again = co_await pause_after(tcp_acceptor, error);
        if (!again) co_return;
        continue;
      }
      boost::system::error_code gone;
      const auto remote = socket.remote_endpoint(gone);
      std::string from = gone ? "gone" : remote.address().to_string();
      beast::tcp_stream stream{std::move(socket)};
      spawn(serve_tls(TlsStream{std::move(stream), tls}, std::move(from)));
    }
  }

  asio::awaitable<void> reap() {
    for (;;) {
      auto [error, number] = co_await child_signals.async_wait(no_throw);
      if (error) co_return;
      if (!shared.api.children().reap()) continue;
      // Machines that go when they end.
      asio::post(pool, [] {
        if (const auto store = store::Store::open()) store->sweep();
      });
    }
  }

  void stop() {
    stopping = true;
    shared.api.end();
    loop.stop();
  }

  const Settings& settings;
  asio::io_context loop{1};
  asio::thread_pool pool;
  Shared shared;
  ssl::context tls{ssl::context::tls_server};
  stream_protocol::acceptor unix_acceptor{loop};
  tcp::acceptor tcp_acceptor{loop};
  asio::signal_set end_signals{loop, SIGTERM, SIGINT};
  asio::signal_set child_signals{loop, SIGCHLD};
  asio::steady_timer room{loop};
  Fd unix_lock;
  std::string unix_path;
  bool stopping = false;
};

Server::Server(api::Api& api, const Settings& settings, const Tokens& tokens)
    : impl_(std::make_unique<Impl>(api, settings, tokens)) {}

Server::~Server() {
  impl_->pool.join();
  if (!impl_->unix_path.empty()) ::unlink(impl_->unix_path.c_str());
}

Result<> Server::listen_unix(const std::string& path) {
  if (auto ok = make_folders(path.substr(0, path.rfind('/'))); !ok) return ok;
  const auto address = life::socket_address(path);
  if (!address) return std::unexpected(address.error());
  impl_->unix_lock = Fd{::open((path + ".lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)};
  if (!impl_->unix_lock.valid()) return fail_errno(errno, "cannot open " + path + ".lock");
  if (::flock(impl_->unix_lock.get(), LOCK_EX | LOCK_NB) != 0) return fail("another caissond listens at {}", path);
  struct stat status {};
  if (::lstat(path.c_str(), &status) == 0) {
    if (!S_ISSOCK(status.st_mode)) return fail("{} is there, and is no socket; give another --socket", path);
    ::unlink(path.c_str());
  }
  Fd socket{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
  if (!socket.valid()) return fail_errno(errno, "cannot make a socket");
  // Whoever connects is looked at; where only this user may, others do not even get so far.
  const bool others = !impl_->settings.users.empty() || !impl_->settings.groups.empty();
  const mode_t mask = ::umask(others ? 0111 : 0177);
  const int bound = ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address);
  const int error = errno;
  ::umask(mask);
  if (bound != 0) return fail_errno(error, "cannot listen at " + path);
  impl_->unix_path = path;
  if (::listen(socket.get(), SOMAXCONN) != 0) return fail_errno(errno, "cannot listen at " + path);
  boost::system::error_code failed;
  impl_->unix_acceptor.assign(stream_protocol{}, socket.get(), failed);
  if (failed) return fail("cannot listen at {}: {}", path, failed.message());
  (void)socket.release();
  return {};
}

Result<> Server::listen_https() {
  const Settings& settings = impl_->settings;
  const auto endpoint = parse_address(settings.listen);
  if (!endpoint) return std::unexpected(endpoint.error());
  boost::system::error_code error;
  ssl::context& tls = impl_->tls;
  tls.set_options(ssl::context::default_workarounds | ssl::context::no_sslv2 | ssl::context::no_sslv3 |
                      ssl::context::no_tlsv1 | ssl::context::no_tlsv1_1 | ssl::context::single_dh_use,
                  error);
  if (!error) tls.use_certificate_chain_file(settings.certificate, error);
  if (error) return fail("certificate: {}: {}", settings.certificate, error.message());
  tls.use_private_key_file(settings.key, ssl::context::pem, error);
  if (error) return fail("key: {}: {}", settings.key, error.message());
  if (!settings.client_ca.empty()) {
    tls.load_verify_file(settings.client_ca, error);
    if (error) return fail("client_ca: {}: {}", settings.client_ca, error.message());
    // A client may come without one, and bring a token instead; one that is wrong ends the handshake.
    tls.set_verify_mode(ssl::verify_peer, error);
  }
  // So that sessions are not resumed past a check of certificates.
  ::SSL_CTX_set_session_cache_mode(tls.native_handle(), SSL_SESS_CACHE_OFF);
  ::SSL_CTX_set_options(tls.native_handle(), SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION);
  auto& acceptor = impl_->tcp_acceptor;
  acceptor.open(endpoint->protocol(), error);
  if (!error) acceptor.set_option(asio::socket_base::reuse_address(true), error);
  if (!error) ::fcntl(acceptor.native_handle(), F_SETFD, FD_CLOEXEC);
  if (!error) acceptor.bind(*endpoint, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) return fail("cannot listen at {}: {}", settings.listen, error.message());
  return {};
}

std::string Server::https_address() const {
  boost::system::error_code error;
  const auto endpoint = impl_->tcp_acceptor.local_endpoint(error);
  if (error) return "";
  return fmt::format("{}:{}", endpoint.address().to_string(), endpoint.port());
}

void Server::run() {
  Impl& impl = *impl_;
  impl.end_signals.async_wait([&impl](const boost::system::error_code& error, int) {
    if (!error) impl.stop();
  });
  asio::co_spawn(impl.loop, impl.reap(), asio::detached);
  if (impl.unix_acceptor.is_open()) asio::co_spawn(impl.loop, impl.accept_unix(), asio::detached);
  if (impl.tcp_acceptor.is_open()) asio::co_spawn(impl.loop, impl.accept_https(), asio::detached);
  impl.loop.run();
}

void Server::stop() {
  asio::post(impl_->loop, [this] { impl_->stop(); });
}

}  // namespace caisson::daemon
