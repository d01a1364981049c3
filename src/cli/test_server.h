// A web server for tests of downloads: one thread, one connection at a time, and every way to be a bad one.
//   Threads  the server's own, and any that set what it serves
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <arpa/inet.h>
#include <fmt/core.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"

namespace caisson::cli {

struct ServedFile {
  std::string body{};
  std::string etag = "\"one\"";
  unsigned status = 200;
  std::string location{};       // of a redirect
  size_t cut_after = SIZE_MAX;  // bytes of content after which the connection is closed
  unsigned cuts = 0;            // how many answers are cut; then no more
  bool ranges = true;           // knows Range
  bool says_length = true;      // else the content ends with the connection
  bool hangs = false;           // once it is cut it waits instead of closing
};

class TestServer {
 public:
  TestServer() : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* const generic = reinterpret_cast<sockaddr*>(&address);
    if (::bind(socket_.get(), generic, size) != 0 || ::listen(socket_.get(), 16) != 0) std::abort();
    ::getsockname(socket_.get(), generic, &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread{[this] { serve(); }};
  }
  ~TestServer() {
    stop_ = true;
    thread_.join();
  }

  [[nodiscard]] std::string url(const std::string& path) const {
    return fmt::format("http://127.0.0.1:{}{}", port_, path);
  }
  // A file, made where there is none; no request is answered while the result lives.
  class Locked {
   public:
    Locked(std::unique_lock<std::mutex> lock, ServedFile& file) : lock_(std::move(lock)), file_(file) {}
    ServedFile* operator->() { return &file_; }

   private:
    std::unique_lock<std::mutex> lock_;
    ServedFile& file_;
  };
  Locked operator[](const std::string& path) {
    std::unique_lock lock{mutex_};
    ServedFile& file = files_[path];
    return {std::move(lock), file};
  }
  // What came so far: "/path", or "/path RANGE".
  [[nodiscard]] std::vector<std::string> requests() {
    const std::lock_guard lock{mutex_};
    return requests_;
  }
  [[nodiscard]] size_t sent() const { return sent_; }  // bytes of content

 private:
  void serve() {
    while (!stop_) {
      pollfd ready{socket_.get(), POLLIN, 0};
      if (::poll(&ready, 1, 20) <= 0) continue;
      const Fd peer{::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC)};
      if (peer.valid()) answer(peer.get());
    }
  }

  static std::string header(const std::string& request, const std::string& name) {
    const size_t at = request.find("\r\n" + name + ": ");
    if (at == std::string::npos) return "";
    const size_t start = at + name.size() + 4;
    return request.substr(start, request.find("\r\n", start) - start);
  }

  void put(int peer, std::string_view bytes) const {
    while (!bytes.empty()) {
      const ssize_t size = ::send(peer, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (size <= 0) return;
      bytes.remove_prefix(static_cast<size_t>(size));
    }
  }

  void answer(int peer) {
    std::string request;
    char byte = 0;
    while (request.size() < 8192 && !request.ends_with("\r\n\r\n") && ::read(peer, &byte, 1) == 1) request += byte;
    const size_t start = request.find(' ') + 1;
    const std::string path = request.substr(start, request.find(' ', start) - start);
    const std::string range = header(request, "Range");
    std::unique_lock lock{mutex_};
    requests_.push_back(range.empty() ? path : path + " " + range);
    const auto found = files_.find(path);
    if (found == files_.end())
      return put(peer, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    ServedFile& file = found->second;
    size_t first = 0;
    if (file.ranges && !range.empty() && header(request, "If-Range") == file.etag) {
      first = std::strtoul(range.c_str() + 6, nullptr, 10);
    }
    const size_t all = file.body.size();
    std::string text;
    if (!file.location.empty()) {
      text = "HTTP/1.1 302 Found\r\nLocation: " + file.location + "\r\nContent-Length: 0\r\n";
    } else if (first > 0 && first >= all) {
      text =
          fmt::format("HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */{}\r\nContent-Length: 0\r\n", all);
    } else if (first > 0) {
      text = fmt::format("HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {}-{}/{}\r\n", first, all - 1, all);
    } else {
      text = fmt::format("HTTP/1.1 {} Whatever\r\n", file.status);
    }
    if (!file.etag.empty()) text += "ETag: " + file.etag + "\r\n";
    std::string content = first < all && file.location.empty() ? file.body.substr(first) : "";
    if (file.says_length && text.find("Content-Length") == std::string::npos) {
      text += fmt::format("Content-Length: {}\r\n", content.size());
    }
    text += "Connection: close\r\n\r\n";
    const bool cut = file.cuts > 0 && content.size() > file.cut_after;
    const bool hangs = file.hangs;
    if (cut) {
      content.resize(file.cut_after);
      --file.cuts;
    }
    lock.unlock();
    put(peer, text);
    put(peer, content);
    sent_ += content.size();
    // Until the other side gives up.
    while (cut && hangs && !stop_) {
      pollfd ready{peer, POLLIN | POLLRDHUP, 0};
      if (::poll(&ready, 1, 20) > 0) break;
    }
    ::shutdown(peer, SHUT_WR);
  }

  Fd socket_;
  uint16_t port_ = 0;
  std::mutex mutex_;
  std::map<std::string, ServedFile> files_;
  std::vector<std::string> requests_;
  std::atomic<size_t> sent_ = 0;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

}  // namespace caisson::cli
