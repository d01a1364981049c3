#include "boot/acpi/aml.h"

#include <algorithm>
#include <array>

#include "base/check.h"
#include "boot/bytes.h"

namespace caisson::boot::aml {

namespace {

enum Op : uint8_t {
  ZeroOp = 0x00,
  OneOp = 0x01,
  NameOp = 0x08,
  BytePrefix = 0x0a,
  WordPrefix = 0x0b,
  DWordPrefix = 0x0c,
  StringPrefix = 0x0d,
  QWordPrefix = 0x0e,
  ScopeOp = 0x10,
  BufferOp = 0x11,
  PackageOp = 0x12,
  MethodOp = 0x14,
  DualNamePrefix = 0x2e,
  MultiNamePrefix = 0x2f,
  ExtOpPrefix = 0x5b,
  Local0Op = 0x60,
  StoreOp = 0x70,
  AndOp = 0x7b,
  OpRegionOp = 0x80,  // after ExtOpPrefix, as the next two
  FieldOp = 0x81,
  DeviceOp = 0x82,
  NotifyOp = 0x86,
  IfOp = 0xa0,
  ReturnOp = 0xa4
};

// PkgLength (20.2.4) counts itself.
Aml with_length(const Aml& body) {
  Aml out;
  size_t total = body.size() + 1;
  if (total <= 0x3f) {
    out.push_back(static_cast<uint8_t>(total));
  } else {
    unsigned more = 1;
    while (body.size() + 1 + more >= size_t{1} << (4 + 8 * more)) ++more;
    CAISSON_CHECK(more <= 3);
    total = body.size() + 1 + more;
    out.push_back(static_cast<uint8_t>(more << 6 | (total & 0xf)));
    for (unsigned i = 0; i < more; ++i) out.push_back(static_cast<uint8_t>(total >> (4 + 8 * i)));
  }
  return std::move(out) + body;
}

Aml op(uint8_t code) { return Aml{code}; }

// Address space descriptors (6.4.3.5): length, type, flags, then granularity, minimum, maximum, translation, length.
template <class T>
Aml address_space(uint8_t tag, uint8_t type, uint8_t type_flags, T first, T last) {
  constexpr uint8_t min_fixed = 1u << 2, max_fixed = 1u << 3;
  Aml out = {tag};
  append_le<uint16_t>(out, 3 + 5 * sizeof(T));
  out.insert(out.end(), {type, static_cast<uint8_t>(min_fixed | max_fixed), type_flags});
  for (const T value : {T{0}, first, last, T{0}, static_cast<T>(last - first + 1)}) append_le<T>(out, value);
  return out;
}

constexpr uint8_t word_space = 0x88, dword_space = 0x87, qword_space = 0x8a;
constexpr uint8_t type_memory = 0, type_io = 1, type_bus = 2;
constexpr uint8_t memory_read_write = 1u << 0, memory_prefetchable = 3u << 1, io_entire_range = 3;

}  // namespace

Aml& operator+=(Aml& left, const Aml& right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}

Aml operator+(Aml left, const Aml& right) {
  left += right;
  return left;
}

Aml name_string(std::string_view path) {
  Aml out;
  if (path.starts_with('\\')) {
    out.push_back('\\');
    path.remove_prefix(1);
  }
  Aml segments;
  size_t count = 0;
  while (!path.empty()) {
    const std::string_view segment = path.substr(0, path.find('.'));
    CAISSON_CHECK(!segment.empty() && segment.size() <= 4);
    for (size_t i = 0; i < 4; ++i) segments.push_back(static_cast<uint8_t>(i < segment.size() ? segment[i] : '_'));
    path.remove_prefix(std::min(segment.size() + 1, path.size()));
    ++count;
  }
  if (count == 0) segments.push_back(0);  // NullName
  if (count == 2) out.push_back(DualNamePrefix);
  if (count > 2) out.insert(out.end(), {MultiNamePrefix, static_cast<uint8_t>(count)});
  return std::move(out) + segments;
}

Aml integer(uint64_t value) {
  if (value == 0) return op(ZeroOp);
  if (value == 1) return op(OneOp);
  Aml out;
  if (value <= UINT8_MAX) {
    out.push_back(BytePrefix);
    append_le(out, static_cast<uint8_t>(value));
  } else if (value <= UINT16_MAX) {
    out.push_back(WordPrefix);
    append_le(out, static_cast<uint16_t>(value));
  } else if (value <= UINT32_MAX) {
    out.push_back(DWordPrefix);
    append_le(out, static_cast<uint32_t>(value));
  } else {
    out.push_back(QWordPrefix);
    append_le(out, value);
  }
  return out;
}

Aml string(std::string_view text) {
  Aml out = op(StringPrefix);
  for (const char c : text) out.push_back(static_cast<uint8_t>(c));
  out.push_back(0);
  return out;
}

// Three letters of five bits and four hexadecimal digits, big-endian (6.1.5).
Aml eisa_id(std::string_view id) {
  CAISSON_CHECK(id.size() == 7);
  uint32_t value = 0;
  for (size_t i = 0; i < 3; ++i) value = value << 5 | (static_cast<uint32_t>(id[i] - '@') & 0x1f);
  for (size_t i = 3; i < 7; ++i) {
    const char digit = id[i];
    value = value << 4 | static_cast<uint32_t>(digit <= '9' ? digit - '0' : digit - 'A' + 10);
  }
  return integer(__builtin_bswap32(value));
}

Aml package(const std::vector<Aml>& elements) {
  CAISSON_CHECK(elements.size() <= UINT8_MAX);
  Aml body = {static_cast<uint8_t>(elements.size())};
  for (const Aml& element : elements) body += element;
  return op(PackageOp) + with_length(body);
}

Aml package(std::initializer_list<Aml> elements) { return package(std::vector<Aml>(elements)); }

Aml buffer(const Aml& bytes) { return op(BufferOp) + with_length(integer(bytes.size()) + bytes); }
Aml name(std::string_view path, const Aml& value) { return op(NameOp) + name_string(path) + value; }
Aml scope(std::string_view path, const Aml& terms) { return op(ScopeOp) + with_length(name_string(path) + terms); }
Aml device(std::string_view path, const Aml& terms) {
  return Aml{ExtOpPrefix, DeviceOp} + with_length(name_string(path) + terms);
}

Aml method(std::string_view path, unsigned arguments, const Aml& terms, bool serialized) {
  CAISSON_CHECK(arguments <= 7);
  const auto flags = static_cast<uint8_t>(arguments | (serialized ? 1u << 3 : 0));
  return op(MethodOp) + with_length(name_string(path) + op(flags) + terms);
}

Aml local(unsigned number) {
  CAISSON_CHECK(number <= 7);
  return op(static_cast<uint8_t>(Local0Op + number));
}

Aml store(const Aml& value, const Aml& target) { return op(StoreOp) + value + target; }

Aml bit_and(const Aml& left, const Aml& right) {
  constexpr uint8_t no_target = 0;
  return op(AndOp) + left + right + op(no_target);
}

Aml if_true(const Aml& condition, const Aml& terms) { return op(IfOp) + with_length(condition + terms); }
Aml return_value(const Aml& value) { return op(ReturnOp) + value; }
Aml notify(std::string_view object, uint64_t value) { return op(NotifyOp) + name_string(object) + integer(value); }

Aml port_region(std::string_view path, uint16_t base, uint8_t length) {
  constexpr uint8_t system_io = 1;
  return Aml{ExtOpPrefix, OpRegionOp} + name_string(path) + op(system_io) + integer(base) + integer(length);
}

Aml dword_field(std::string_view region, std::initializer_list<std::string_view> names) {
  constexpr uint8_t dword_access = 3, bits = 32;  // no lock, the rest of a register is preserved
  Aml body = name_string(region) + op(dword_access);
  for (const std::string_view one : names) body += name_string(one) + op(bits);
  return Aml{ExtOpPrefix, FieldOp} + with_length(body);
}

Aml resource_template(const Aml& descriptors) {
  return buffer(descriptors + Aml{0x79, 0});  // end tag, checksum 0: not checked
}

Aml io_ports(uint16_t base, uint8_t length) {
  constexpr uint8_t tag = 0x47, decode16 = 1, alignment = 1;
  Aml out = {tag, decode16};
  append_le(out, base);
  append_le(out, base);
  out.insert(out.end(), {alignment, length});
  return out;
}

Aml irq(uint8_t line) {
  CAISSON_CHECK(line < 16);
  Aml out = {0x22};
  append_le(out, static_cast<uint16_t>(1u << line));
  return out;
}

Aml memory32_fixed(uint32_t base, uint32_t length) {
  Aml out = {0x86, 9, 0, memory_read_write};
  append_le(out, base);
  append_le(out, length);
  return out;
}

Aml bus_numbers(uint16_t first, uint16_t last) { return address_space(word_space, type_bus, 0, first, last); }
Aml io_window(uint16_t first, uint16_t last) {
  return address_space(word_space, type_io, io_entire_range, first, last);
}
Aml memory_window32(uint32_t first, uint32_t last) {
  return address_space(dword_space, type_memory, memory_read_write, first, last);
}
Aml memory_window64(uint64_t first, uint64_t last, bool prefetchable) {
  return address_space(qword_space, type_memory,
                       static_cast<uint8_t>(memory_read_write | (prefetchable ? memory_prefetchable : 0)), first, last);
}

}  // namespace caisson::boot::aml
