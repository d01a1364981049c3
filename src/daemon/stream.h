// What a connection reads from and writes to, a unix socket or TLS over TCP, as one type: what speaks HTTP and
// WebSocket over it is compiled once, and in files of its own. An AsyncStream of Beast's.
//   Bounds   expires_after ends what waits then, and closes
//   Threads  the event loop's, one read and one write at a time; handlers run there, never within the call
//   Source   Boost.Asio, requirements on asynchronous operations; Beast, "Writing Composed Operations"
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <type_traits>
#include <utility>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/basic_stream.hpp>
#include <boost/beast/core/error.hpp>
#include <boost/beast/core/role.hpp>
#include <boost/beast/core/tcp_stream.hpp>

namespace caisson::daemon {

namespace asio = boost::asio;
namespace beast = boost::beast;

// Waits, and gives the error with the rest of what there is.
inline constexpr auto no_throw = asio::as_tuple(asio::use_awaitable);

using UnixStream = beast::basic_stream<asio::local::stream_protocol>;
using TlsStream = asio::ssl::stream<beast::tcp_stream>;

class Stream {
 public:
  using executor_type = asio::any_io_executor;
  using Signature = void(beast::error_code, size_t);
  using Done = std::move_only_function<Signature>;

  // The first of a sequence's buffers: what is read or written at once need not be all.
  template <class Buffer>
  class Some {
   public:
    using value_type = Buffer;
    using const_iterator = const Buffer*;
    template <class Sequence>
    explicit Some(const Sequence& sequence) {
      const auto end = asio::buffer_sequence_end(sequence);
      for (auto at = asio::buffer_sequence_begin(sequence); at != end && count_ < buffers_.size(); ++at) {
        const Buffer buffer{*at};
        if (buffer.size() != 0) buffers_[count_++] = buffer;
      }
    }
    [[nodiscard]] const_iterator begin() const { return buffers_.data(); }
    [[nodiscard]] const_iterator end() const { return buffers_.data() + count_; }

   private:
    std::array<Buffer, 16> buffers_;
    size_t count_ = 0;
  };

  explicit Stream(UnixStream stream);
  explicit Stream(TlsStream stream);
  ~Stream();
  Stream(Stream&&) noexcept;
  Stream& operator=(Stream&&) noexcept;

  [[nodiscard]] executor_type get_executor();

  template <class Buffers, class Token>
  typename asio::async_result<std::decay_t<Token>, Signature>::return_type async_read_some(const Buffers& buffers,
                                                                                           Token&& token) {
    return asio::async_initiate<Token, Signature>(
        [this](auto handler, const Some<asio::mutable_buffer>& some) { read(some, Done{std::move(handler)}); }, token,
        Some<asio::mutable_buffer>{buffers});
  }
  template <class Buffers, class Token>
  typename asio::async_result<std::decay_t<Token>, Signature>::return_type async_write_some(const Buffers& buffers,
                                                                                            Token&& token) {
    return asio::async_initiate<Token, Signature>(
        [this](auto handler, const Some<asio::const_buffer>& some) { write(some, Done{std::move(handler)}); }, token,
        Some<asio::const_buffer>{buffers});
  }

  void expires_after(std::chrono::nanoseconds time);
  void expires_never();
  // Says that nothing more will be written: in TLS's way where it is that.
  asio::awaitable<void> shut_down();
  void close();
  // WebSocket's end of a conversation (RFC 6455, 7.1.1).
  void tear_down(beast::role_type role, std::move_only_function<void(beast::error_code)> done);

 private:
  struct Any;
  template <class Kind>
  struct Of;

  void read(const Some<asio::mutable_buffer>& some, Done done);
  void write(const Some<asio::const_buffer>& some, Done done);

  std::unique_ptr<Any> any_;
};

// Beast's WebSocket finds these by their argument.
inline void beast_close_socket(Stream& stream) { stream.close(); }
template <class Handler>
void async_teardown(beast::role_type role, Stream& stream, Handler&& handler) {
  stream.tear_down(role, std::forward<Handler>(handler));
}

}  // namespace caisson::daemon
