#include "devices/virtio/gpu.h"

#include <algorithm>
#include <cstring>

namespace caisson::virtio {
namespace {

using namespace gpu;

constexpr uint32_t least = 16;  // of a scanout and its size
constexpr size_t events_clear_at = 4;

bool known(uint32_t format) {
  switch (static_cast<Format>(format)) {
    case Format::B8G8R8A8:
    case Format::B8G8R8X8:
    case Format::A8R8G8B8:
    case Format::X8R8G8B8:
    case Format::R8G8B8A8:
    case Format::X8B8G8R8:
    case Format::A8B8G8R8:
    case Format::R8G8B8X8: return true;
  }
  return false;
}

template <class Value>
void append(std::vector<uint8_t>& out, const Value& value) {
  const auto* const bytes = reinterpret_cast<const uint8_t*>(&value);
  out.insert(out.end(), bytes, bytes + sizeof value);
}
template <class Value>
bool take(std::span<const uint8_t>& in, Value& value) {
  if (in.size() < sizeof value) return false;
  std::memcpy(&value, in.data(), sizeof value);
  in = in.subspan(sizeof value);
  return true;
}

// As it stands in a saved state; its backing and its pixels follow.
struct Packed {
  uint32_t id = 0, format = 0, width = 0, height = 0;
  uint32_t pieces = 0, padding = 0;
};

}  // namespace

Gpu::Gpu() { refresh_config(); }

// --- Configuration, 5.7.4 ---

void Gpu::refresh_config() {
  const std::array<uint32_t, 4> words{state_.events, 0, 1, 0};  // of one scanout, without capability sets
  std::memcpy(config_.data(), words.data(), config_.size());
}

void Gpu::write_config(unsigned offset, std::span<const uint8_t> bytes) {
  for (size_t i = 0; i < bytes.size(); ++i) {
    const size_t at = offset + i;
    if (at < events_clear_at || at >= events_clear_at + 4) continue;
    state_.events &= ~(uint32_t{bytes[i]} << (8 * (at - events_clear_at)));
  }
  refresh_config();
}

bool Gpu::want_size(unsigned width, unsigned height) {
  width = std::clamp(width, least, largest);
  height = std::clamp(height, least, largest);
  if (width == state_.wanted_width && height == state_.wanted_height) return true;
  state_.wanted_width = width;
  state_.wanted_height = height;
  state_.events |= event_display;
  refresh_config();
  if (transport_ != nullptr) transport_->config_changed();
  return true;
}

// --- Resources, 5.7.6.8 ---

Gpu::Resource* Gpu::find(uint32_t id) {
  const auto found = std::ranges::find(resources_, id, &Resource::id);
  return id == 0 || found == resources_.end() ? nullptr : &*found;
}

bool Gpu::inside(const Rect& rect, const Resource& resource) {
  return rect.x <= resource.width && rect.width <= resource.width - rect.x && rect.y <= resource.height &&
         rect.height <= resource.height - rect.y;
}

Answer Gpu::add(uint32_t id, uint32_t format, uint32_t width, uint32_t height) {
  if (id == 0 || find(id) != nullptr) return Answer::invalid_resource;
  if (!known(format) || width == 0 || height == 0 || width > largest || height > largest) {
    return Answer::invalid_parameter;
  }
  Resource resource{.id = id, .format = static_cast<Format>(format), .width = width, .height = height};
  if (resources_.size() >= most_resources || resource.bytes() > most_bytes - bytes_) return Answer::out_of_memory;
  resource.pixels.reset(static_cast<uint8_t*>(std::calloc(resource.bytes(), 1)));
  if (resource.pixels == nullptr) return Answer::out_of_memory;
  bytes_ += resource.bytes();
  resources_.push_back(std::move(resource));
  return Answer::ok;
}

Answer Gpu::remove(uint32_t id) {
  Resource* const resource = find(id);
  if (resource == nullptr) return Answer::invalid_resource;
  if (state_.shown == id) state_.shown = 0;
  if (state_.cursor == id) state_.cursor = 0;
  bytes_ -= resource->bytes();
  pieces_ -= resource->backing.size();
  resources_.erase(resources_.begin() + (resource - resources_.data()));
  changed();
  return Answer::ok;
}

Answer Gpu::attach(const AttachBacking& request, const Chain& chain) {
  Resource* const resource = find(request.resource);
  if (resource == nullptr) return Answer::invalid_resource;
  if (!resource->backing.empty()) return Answer::unspecified;
  if (request.entries > most_pieces - pieces_) return Answer::out_of_memory;
  std::vector<MemoryEntry> entries(request.entries);
  const std::span bytes{reinterpret_cast<uint8_t*>(entries.data()), entries.size() * sizeof(MemoryEntry)};
  if (gather(transport_->memory(), chain.readable, sizeof(Header) + sizeof request, bytes) != bytes.size()) {
    return Answer::invalid_parameter;
  }
  std::vector<Segment> backing;
  for (const MemoryEntry& entry : entries) {
    if (entry.length == 0) continue;
    if (!transport_->memory().contains(entry.address, entry.length)) return Answer::invalid_parameter;
    backing.push_back({entry.address, entry.length});
  }
  pieces_ += backing.size();
  resource->backing = std::move(backing);
  return Answer::ok;
}

Answer Gpu::detach(uint32_t id) {
  Resource* const resource = find(id);
  if (resource == nullptr) return Answer::invalid_resource;
  pieces_ -= resource->backing.size();
  resource->backing.clear();
  return Answer::ok;
}

// Rows lie in the backing as they do in the resource, the first at `offset`.
Answer Gpu::transfer(const Transfer& request) {
  Resource* const resource = find(request.resource);
  if (resource == nullptr) return Answer::invalid_resource;
  const Rect& rect = request.rect;
  if (!inside(rect, *resource)) return Answer::invalid_parameter;
  const size_t stride = resource->stride(), length = size_t{rect.width} * 4;
  uint64_t from = request.offset;
  // Rows only go up, and so does the piece of the backing that one begins in.
  size_t piece = 0;
  uint64_t piece_at = 0;
  for (uint32_t row = 0; row < rect.height; ++row, from += stride) {
    while (piece < resource->backing.size() && from - piece_at >= resource->backing[piece].length) {
      piece_at += resource->backing[piece++].length;
    }
    if (from < piece_at) return Answer::invalid_parameter;  // an offset that has gone round
    uint8_t* const to = resource->pixels.get() + (size_t{rect.y} + row) * stride + size_t{rect.x} * 4;
    const std::span rest = std::span(resource->backing).subspan(piece);
    if (gather(transport_->memory(), rest, from - piece_at, {to, length}) != length) return Answer::invalid_parameter;
    copied_ += length;
  }
  return Answer::ok;
}

// --- What is shown ---

Answer Gpu::set_scanout(const SetScanout& request) {
  if (request.scanout != 0) return Answer::invalid_scanout;
  if (request.resource == 0) {
    state_.shown = 0;
    changed();
    return Answer::ok;
  }
  const Resource* const resource = find(request.resource);
  if (resource == nullptr) return Answer::invalid_resource;
  const Rect& rect = request.rect;
  if (!inside(rect, *resource) || rect.width < least || rect.height < least) return Answer::invalid_parameter;
  state_.shown = request.resource;
  state_.x = rect.x;
  state_.y = rect.y;
  state_.width = rect.width;
  state_.height = rect.height;
  changed();
  return Answer::ok;
}

Answer Gpu::flush(const Flush& request) {
  const Resource* const resource = find(request.resource);
  if (resource == nullptr) return Answer::invalid_resource;
  if (!inside(request.rect, *resource)) return Answer::invalid_parameter;
  if (state_.shown == request.resource) changed();
  return Answer::ok;
}

// 5.7.6.10. A resource of another size is no cursor.
Answer Gpu::set_cursor(const Cursor& request, bool moves_only) {
  if (request.scanout != 0) return Answer::invalid_scanout;
  state_.cursor_x = request.x;
  state_.cursor_y = request.y;
  if (!moves_only) {
    const Resource* const resource = find(request.resource);
    const bool sound = resource != nullptr && resource->width == cursor_size && resource->height == cursor_size;
    state_.cursor = sound ? request.resource : 0;
    state_.hot_x = request.hot_x;
    state_.hot_y = request.hot_y;
  }
  changed();
  return Answer::ok;
}

// --- Queues ---

template <class Body>
bool Gpu::get(const Chain& chain, Body& body) const {
  const std::span bytes{reinterpret_cast<uint8_t*>(&body), sizeof body};
  return gather(transport_->memory(), chain.readable, sizeof(Header), bytes) == bytes.size();
}

Answer Gpu::execute(const Header& header, const Chain& chain, Reply& reply) {
  const auto with = [&](auto body, auto handle) { return get(chain, body) ? handle(body) : Answer::invalid_parameter; };
  switch (static_cast<Command>(header.type)) {
    case Command::get_display_info: {
      std::array<ScanoutInfo, scanouts_told> scanouts{};
      scanouts[0] = {{0, 0, state_.wanted_width, state_.wanted_height}, 1, 0};
      append(reply, scanouts);
      return Answer::ok_display_info;
    }
    case Command::get_edid:
      return with(GetEdid{}, [&](const GetEdid& request) {
        if (request.scanout != 0) return Answer::invalid_scanout;
        append(reply, std::array<uint32_t, 2>{edid_size, 0});
        append(reply, edid());
        reply.resize(8 + edid_room);
        return Answer::ok_edid;
      });
    case Command::resource_create_2d:
      return with(Create2d{}, [&](const Create2d& request) {
        return add(request.resource, request.format, request.width, request.height);
      });
    case Command::resource_unref:
      return with(OfResource{}, [&](const OfResource& request) { return remove(request.resource); });
    case Command::set_scanout:
      return with(SetScanout{}, [&](const SetScanout& request) { return set_scanout(request); });
    case Command::resource_flush: return with(Flush{}, [&](const Flush& request) { return flush(request); });
    case Command::transfer_to_host_2d:
      return with(Transfer{}, [&](const Transfer& request) { return transfer(request); });
    case Command::resource_attach_backing:
      return with(AttachBacking{}, [&](const AttachBacking& request) { return attach(request, chain); });
    case Command::resource_detach_backing:
      return with(OfResource{}, [&](const OfResource& request) { return detach(request.resource); });
    case Command::update_cursor:
    case Command::move_cursor:
      return with(Cursor{}, [&](const Cursor& request) {
        return set_cursor(request, static_cast<Command>(header.type) == Command::move_cursor);
      });
  }
  return Answer::unspecified;
}

void Gpu::kick(unsigned index) {
  copied_ = 0;
  serve(*transport_, index, [&](Queue& queue, const Chain& chain) {
    if (copied_ >= most_at_once) {
      transport_->kick_later(index);
      return false;
    }
    Header header;
    const std::span bytes{reinterpret_cast<uint8_t*>(&header), sizeof header};
    if (gather(transport_->memory(), chain.readable, 0, bytes) != bytes.size()) {
      transport_->fail("a GPU command without a header");
      return true;
    }
    Reply reply;
    const Answer answer = execute(header, chain, reply);
    // 5.7.6.7: the fence of the request, whose work is done.
    Header back{.type = static_cast<uint32_t>(answer)};
    if ((header.flags & flag_fence) != 0) {
      back.flags = flag_fence;
      back.fence = header.fence;
      back.context = header.context;
    }
    size_t written = scatter(transport_->memory(), chain.writable, 0, {reinterpret_cast<uint8_t*>(&back), sizeof back});
    if (written == sizeof back) written += scatter(transport_->memory(), chain.writable, sizeof back, reply);
    queue.push(chain.ticket, static_cast<uint32_t>(written));
    return true;
  });
}

// The size that the host would like stays.
void Gpu::stop() {
  resources_.clear();
  bytes_ = pieces_ = 0;
  const uint32_t width = state_.wanted_width, height = state_.wanted_height;
  state_ = {};
  state_.wanted_width = width;
  state_.wanted_height = height;
  refresh_config();
  changed();
}

// --- Saving ---

void Gpu::pack(std::vector<uint8_t>& out) const {
  for (const Resource& resource : resources_) {
    append(out, Packed{resource.id, static_cast<uint32_t>(resource.format), resource.width, resource.height,
                       static_cast<uint32_t>(resource.backing.size())});
    for (const Segment& piece : resource.backing) {
      append(out, piece.address);
      append(out, piece.length);
    }
    out.insert(out.end(), resource.pixels.get(), resource.pixels.get() + resource.bytes());
  }
}

bool Gpu::unpack(std::span<const uint8_t> in) {
  while (!in.empty()) {
    Packed packed;
    if (!take(in, packed) || add(packed.id, packed.format, packed.width, packed.height) != Answer::ok) return false;
    Resource& resource = resources_.back();
    if (packed.pieces > most_pieces - pieces_) return false;
    for (uint32_t i = 0; i < packed.pieces; ++i) {
      Segment piece{};
      if (!take(in, piece.address) || !take(in, piece.length) || piece.length == 0 ||
          !transport_->memory().contains(piece.address, piece.length)) {
        return false;
      }
      resource.backing.push_back(piece);
      ++pieces_;
    }
    if (in.size() < resource.bytes()) return false;
    std::memcpy(resource.pixels.get(), in.data(), resource.bytes());
    in = in.subspan(resource.bytes());
  }
  return true;
}

void Gpu::save(fields::Buffer& out) const {
  State state = state_;
  pack(state.resources.data);
  fields::save(state, out);
}

Result<> Gpu::restore(std::span<const uint8_t> in) {
  State state = state_;
  pack(state.resources.data);
  if (auto done = fields::restore(state, in); !done) return done;
  auto before = std::exchange(resources_, {});
  const uint64_t bytes = std::exchange(bytes_, 0);
  const size_t pieces = std::exchange(pieces_, 0);
  const auto sound = [&] {
    if (state.wanted_width < least || state.wanted_width > largest || state.wanted_height < least ||
        state.wanted_height > largest || !unpack(state.resources.data)) {
      return false;
    }
    const Resource* const shown = find(state.shown);
    const Resource* const cursor = find(state.cursor);
    return (state.shown == 0 || (shown != nullptr && inside({state.x, state.y, state.width, state.height}, *shown) &&
                                 state.width >= least && state.height >= least)) &&
           (state.cursor == 0 || (cursor != nullptr && cursor->width == cursor_size && cursor->height == cursor_size));
  };
  if (!sound()) {
    resources_ = std::move(before);
    bytes_ = bytes;
    pieces_ = pieces;
    return fail("saved state of virtio-gpu is none that a guest could make");
  }
  state.resources.data.clear();
  state_ = std::move(state);
  refresh_config();
  changed();
  return {};
}

}  // namespace caisson::virtio
