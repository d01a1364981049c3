#include "daemon/stream.h"

#include <boost/beast/core/stream_traits.hpp>
#include <boost/beast/websocket/ssl.hpp>
#include <boost/beast/websocket/teardown.hpp>

namespace caisson::daemon {

struct Stream::Any {
  virtual ~Any() = default;
  virtual executor_type executor() = 0;
  virtual void read(const Some<asio::mutable_buffer>& some, Done done) = 0;
  virtual void write(const Some<asio::const_buffer>& some, Done done) = 0;
  virtual void expires_after(std::chrono::nanoseconds time) = 0;
  virtual void expires_never() = 0;
  virtual asio::awaitable<void> shut_down() = 0;
  virtual void close() = 0;
  virtual void tear_down(beast::role_type role, std::move_only_function<void(beast::error_code)> done) = 0;
};

template <class Kind>
struct Stream::Of final : Any {
  explicit Of(Kind given) : stream(std::move(given)) {}

  executor_type executor() override { return stream.get_executor(); }
  void read(const Some<asio::mutable_buffer>& some, Done done) override {
    stream.async_read_some(some, std::move(done));
  }
  void write(const Some<asio::const_buffer>& some, Done done) override {
    stream.async_write_some(some, std::move(done));
  }
  void expires_after(std::chrono::nanoseconds time) override { beast::get_lowest_layer(stream).expires_after(time); }
  void expires_never() override { beast::get_lowest_layer(stream).expires_never(); }
  asio::awaitable<void> shut_down() override {
    if constexpr (std::is_same_v<Kind, TlsStream>) {
      co_await stream.async_shutdown(no_throw);
    } else {
      beast::error_code ignored;
      stream.socket().shutdown(asio::socket_base::shutdown_send, ignored);
      co_return;
    }
  }
  void close() override { beast::close_socket(beast::get_lowest_layer(stream)); }
  void tear_down(beast::role_type role, std::move_only_function<void(beast::error_code)> done) override {
    using beast::websocket::async_teardown;
    async_teardown(role, stream, std::move(done));
  }

  Kind stream;
};

Stream::Stream(UnixStream stream) : any_(std::make_unique<Of<UnixStream>>(std::move(stream))) {}
Stream::Stream(TlsStream stream) : any_(std::make_unique<Of<TlsStream>>(std::move(stream))) {}
Stream::~Stream() = default;
Stream::Stream(Stream&&) noexcept = default;
Stream& Stream::operator=(Stream&&) noexcept = default;

Stream::executor_type Stream::get_executor() { return any_->executor(); }
void Stream::read(const Some<asio::mutable_buffer>& some, Done done) { any_->read(some, std::move(done)); }
void Stream::write(const Some<asio::const_buffer>& some, Done done) { any_->write(some, std::move(done)); }
void Stream::expires_after(std::chrono::nanoseconds time) { any_->expires_after(time); }
void Stream::expires_never() { any_->expires_never(); }
asio::awaitable<void> Stream::shut_down() { return any_->shut_down(); }
void Stream::close() { any_->close(); }
void Stream::tear_down(beast::role_type role, std::move_only_function<void(beast::error_code)> done) {
  any_->tear_down(role, std::move(done));
}

}  // namespace caisson::daemon
