// Content that is too large for memory: by way of a file without a name, from the guest to the reader or the other way.
//   Bounds   four uploads at once; each piece has its time
//   Threads  the event loop's; files are made and written in the pool
#pragma once

#include <optional>

#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/parser.hpp>

#include "daemon/shared.h"
#include "daemon/stream.h"

namespace caisson::daemon {

namespace http = beast::http;

// What a request looks like before its body is read: who may not send one does not get to.
using Head = http::request_parser<http::empty_body>;

bool is_upload(const Head& head);

// Where the client waits to be told, it is told to send its body. False: it has gone.
asio::awaitable<bool> go_on(Stream& stream, const Head& head);

// A request whose body is a file. False: the connection ends.
asio::awaitable<bool> serve_upload(Stream& stream, beast::flat_buffer& buffer, Head& head,
                                   const std::optional<api::Caller>& caller, Shared& shared);

// The file as the answer's content, piece by piece: a slow reader may take long for all of it. False: it has gone.
asio::awaitable<bool> send_file(Stream& stream, const api::Route& route, api::File file, bool keep_alive);

// What a client is still sending after its refusal: closed on it, the answer might not be read.
asio::awaitable<void> discard(Stream& stream);

}  // namespace caisson::daemon
