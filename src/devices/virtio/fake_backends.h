// Backends that tests command: requests wait until the test completes them.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backend/block_backend.h"
#include "backend/char_backend.h"
#include "backend/host_stream.h"
#include "backend/net_backend.h"

namespace caisson::virtio {

class FakeDisk final : public BlockBackend {
 public:
  explicit FakeDisk(size_t bytes, bool read_only = false) : contents(bytes), read_only_(read_only) {}

  uint64_t size() const override { return contents.size(); }
  bool read_only() const override { return read_only_; }
  unsigned block_size() const override { return 4096; }
  std::string_view id() const override { return "fake-disk-0123456789-too-long"; }

  void submit(BlockRequest request) override { waiting.push_back(std::move(request)); }
  void begin_batch() override {
    ++batches;
    before_batch_ = waiting.size();
  }
  void end_batch() override {
    ++batches_ended;
    for (size_t left = waiting.size() - before_batch_; at_once && left > 0; --left) complete(before_batch_);
  }
  void drain() override {
    while (!waiting.empty()) complete();
  }

  // Does and completes the request at `index`; with `error` only the latter.
  void complete(size_t index = 0, int error = 0) {
    BlockRequest request = std::move(waiting[index]);
    waiting.erase(waiting.begin() + static_cast<std::ptrdiff_t>(index));
    log.push_back(request.op);
    if (error == 0 && request.offset + request.length > contents.size()) error = EINVAL;
    if (error == 0) perform(request);
    request.done(error);
  }
  void complete_all() { drain(); }

  std::vector<uint8_t> contents;
  std::deque<BlockRequest> waiting;
  bool at_once = false;  // a batch completes at its end
  unsigned batches = 0, batches_ended = 0;
  std::vector<BlockOp> log;

 private:
  void perform(const BlockRequest& request) {
    uint64_t at = request.offset;
    for (const iovec& buffer : request.buffers) {
      if (request.op == BlockOp::Read) std::memcpy(buffer.iov_base, contents.data() + at, buffer.iov_len);
      if (request.op == BlockOp::Write) std::memcpy(contents.data() + at, buffer.iov_base, buffer.iov_len);
      at += buffer.iov_len;
    }
    if (request.op == BlockOp::WriteZeroes || request.op == BlockOp::Discard) {
      std::memset(contents.data() + at, request.op == BlockOp::Discard ? 0xdd : 0, request.length);
    }
  }
  const bool read_only_;
  size_t before_batch_ = 0;
};

class FakeNet final : public NetBackend {
 public:
  void send(std::span<const uint8_t> frame) override {
    sent.emplace_back(frame.begin(), frame.end());
    if (on_send) on_send();
  }
  void set_receiver(Receiver to) override { receiver = std::move(to); }
  void receive_ready() override { ++ready; }

  std::vector<std::vector<uint8_t>> sent;
  std::function<void()> on_send;  // what another CPU of the guest does meanwhile
  Receiver receiver;
  unsigned ready = 0;
};

class FakeConsole final : public CharBackend {
 public:
  size_t write(std::span<const uint8_t> bytes) override {
    const size_t taken = std::min(bytes.size(), room);
    written.append(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(taken));
    room -= taken;
    return taken;
  }
  void set_writable_handler(std::function<void()> handler) override { writable = std::move(handler); }
  void set_receiver(Receiver to) override { receiver = std::move(to); }
  void receive_ready() override { ++ready; }

  std::string written;
  size_t room = SIZE_MAX;
  std::function<void()> writable;
  Receiver receiver;
  unsigned ready = 0;
};

// What the test holds of a stream whose other half a device has.
struct FakePeer {
  std::string to_guest;  // not read yet
  bool ended = false;    // nothing more will come
  bool gone = false;     // reads nothing any more
  size_t room = SIZE_MAX;
  std::string from_guest;
  bool output_ended = false, destroyed = false;
  bool waits_readable = false, waits_writable = false;
  std::function<void()> readable, writable;

  // As the event loop would.
  void say(std::string_view text) {
    to_guest += text;
    poll();
  }
  void poll() {
    const auto read = readable, write = writable;
    if (std::exchange(waits_readable, false) && read) read();
    if (!destroyed && std::exchange(waits_writable, false) && write) write();
  }
};

class FakeStream final : public HostStream {
 public:
  explicit FakeStream(std::shared_ptr<FakePeer> peer) : peer_(std::move(peer)) {}
  ~FakeStream() override { peer_->destroyed = true; }
  void set_handlers(std::function<void()> readable, std::function<void()> writable) override {
    peer_->readable = std::move(readable);
    peer_->writable = std::move(writable);
  }
  Outcome read(std::span<uint8_t> into) override {
    if (peer_->to_guest.empty()) return {peer_->ended ? State::Ended : State::Later, 0};
    const size_t size = std::min(into.size(), peer_->to_guest.size());
    std::memcpy(into.data(), peer_->to_guest.data(), size);
    peer_->to_guest.erase(0, size);
    return {State::Moved, size};
  }
  Outcome write(std::span<const uint8_t> bytes) override {
    if (peer_->gone) return {State::Ended, 0};
    const size_t size = std::min(bytes.size(), peer_->room);
    if (size == 0) return {State::Later, 0};
    peer_->room -= size;
    peer_->from_guest.append(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size));
    return {State::Moved, size};
  }
  void wait_readable() override { peer_->waits_readable = true; }
  void wait_writable() override { peer_->waits_writable = true; }
  void end_output() override { peer_->output_ended = true; }

 private:
  std::shared_ptr<FakePeer> peer_;
};

}  // namespace caisson::virtio
