// ACPI Machine Language, as much as a static DSDT needs: every function gives the bytes of one term, terms are joined
// by +.
//   Spec     ACPI 6.5, chapter 20 (names of the functions are its grammar's), 6.4 (resource descriptors)
//   Threads  none
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string_view>
#include <vector>

namespace caisson::boot::aml {

using Aml = std::vector<uint8_t>;

[[nodiscard]] Aml operator+(Aml left, const Aml& right);
Aml& operator+=(Aml& left, const Aml& right);

// "\\_SB_.PCI0": optional root, segments of one to four characters (padded with '_').
[[nodiscard]] Aml name_string(std::string_view path);
[[nodiscard]] Aml integer(uint64_t value);
[[nodiscard]] Aml string(std::string_view text);
[[nodiscard]] Aml eisa_id(std::string_view id);  // "PNP0A08" as a number
[[nodiscard]] Aml package(std::initializer_list<Aml> elements);
[[nodiscard]] Aml package(const std::vector<Aml>& elements);  // at most 255
[[nodiscard]] Aml buffer(const Aml& bytes);
[[nodiscard]] Aml name(std::string_view path, const Aml& value);
[[nodiscard]] Aml scope(std::string_view path, const Aml& terms);
[[nodiscard]] Aml device(std::string_view path, const Aml& terms);

// What methods are made of. `terms`: statements, joined.
[[nodiscard]] Aml method(std::string_view path, unsigned arguments, const Aml& terms, bool serialized = false);
[[nodiscard]] Aml local(unsigned number);  // 0 to 7
[[nodiscard]] Aml store(const Aml& value, const Aml& target);
[[nodiscard]] Aml bit_and(const Aml& left, const Aml& right);
[[nodiscard]] Aml if_true(const Aml& condition, const Aml& terms);
[[nodiscard]] Aml return_value(const Aml& value);
[[nodiscard]] Aml notify(std::string_view object, uint64_t value);
// Ports, and names for the registers of 32 bits that are there one after the other.
[[nodiscard]] Aml port_region(std::string_view path, uint16_t base, uint8_t length);
[[nodiscard]] Aml dword_field(std::string_view region, std::initializer_list<std::string_view> names);

// Resource descriptors, to be joined and closed by resource_template().
[[nodiscard]] Aml resource_template(const Aml& descriptors);
[[nodiscard]] Aml io_ports(uint16_t base, uint8_t length);  // fixed, 16-bit decode
[[nodiscard]] Aml irq(uint8_t line);                        // edge, high, exclusive
[[nodiscard]] Aml memory32_fixed(uint32_t base, uint32_t length);
[[nodiscard]] Aml bus_numbers(uint16_t first, uint16_t last);                         // of a bridge
[[nodiscard]] Aml io_window(uint16_t first, uint16_t last);                           // of a bridge
[[nodiscard]] Aml memory_window32(uint32_t first, uint32_t last);                     // of a bridge, not prefetchable
[[nodiscard]] Aml memory_window64(uint64_t first, uint64_t last, bool prefetchable);  // of a bridge

}  // namespace caisson::boot::aml
