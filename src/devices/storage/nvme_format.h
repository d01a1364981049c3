// Registers, commands and structures in memory of an NVMe controller.
//   Spec     NVM Express 1.4: 3.1 (registers), 4.2 and 4.6 (entries of queues), 4.1.2.1 and 4.5.1 (status), 5 and 6
//            (commands)
//   Threads  constants
#pragma once

#include <cstdint>

#include "memory/guest_memory.h"

namespace caisson::storage::nvme {

// 3.1, all 32 bits wide; 64 bit registers are pairs.
enum class Register : uint32_t {
  CAP = 0x00,
  CAP_high = 0x04,
  VS = 0x08,
  INTMS = 0x0c,
  INTMC = 0x10,
  CC = 0x14,
  CSTS = 0x1c,
  AQA = 0x24,
  ASQ = 0x28,
  ASQ_high = 0x2c,
  ACQ = 0x30,
  ACQ_high = 0x34,
};
inline constexpr uint64_t doorbells_offset = 0x1000;

inline constexpr uint32_t version_1_4 = 0x0001'0400;
// CAP, low and high: contiguous queues only, 10 s for what takes longest; the NVM command set; pages of 4 KiB only.
inline constexpr uint32_t cap_contiguous = 1u << 16;
inline constexpr uint32_t cap_timeout = 20u << 24;
inline constexpr uint32_t cap_high_nvm_commands = 1u << (37 - 32);

inline constexpr uint32_t cc_enable = 1u << 0;
inline constexpr uint32_t cc_must_be_zero = 0x3ff0;  // CSS, MPS and AMS: NVM commands, 4 KiB, round robin
inline constexpr unsigned cc_shutdown_shift = 14;
inline constexpr unsigned cc_submission_shift = 16, cc_completion_shift = 20;
inline constexpr uint32_t cc_writable = 0x00ff'fff1;

inline constexpr uint32_t csts_ready = 1u << 0;
inline constexpr uint32_t csts_fatal = 1u << 1;
inline constexpr unsigned csts_shutdown_shift = 2;

// 4.2; dwords 10 to 15 mean what the command says.
struct Command {
  uint8_t opcode = 0;
  uint8_t flags = 0;  // fused operation, PSDT
  uint16_t id = 0;
  uint32_t name_space = 0;
  uint32_t dword2 = 0;
  uint32_t dword3 = 0;
  uint64_t metadata = 0;
  uint64_t prp1 = 0;
  uint64_t prp2 = 0;
  uint32_t dword10 = 0;
  uint32_t dword11 = 0;
  uint32_t dword12 = 0;
  uint32_t dword13 = 0;
  uint32_t dword14 = 0;
  uint32_t dword15 = 0;
};
static_assert(sizeof(Command) == 64);

// 4.6
struct Completion {
  uint32_t result = 0;
  uint32_t reserved = 0;
  uint16_t head = 0;   // of the submission queue
  uint16_t queue = 0;  // the submission queue
  uint16_t id = 0;
  uint16_t status = 0;  // with the phase tag in bit 0
};
static_assert(sizeof(Completion) == 16);
inline constexpr unsigned command_log2 = 6, completion_log2 = 4;  // of their sizes, as CC has them

enum class Admin : uint8_t {
  delete_submission_queue = 0x00,
  create_submission_queue = 0x01,
  get_log_page = 0x02,
  delete_completion_queue = 0x04,
  create_completion_queue = 0x05,
  identify = 0x06,
  abort = 0x08,
  set_features = 0x09,
  get_features = 0x0a,
  asynchronous_event = 0x0c,
};
enum class Io : uint8_t {
  flush = 0x00,
  write = 0x01,
  read = 0x02,
  write_zeroes = 0x08,
  dataset_management = 0x09,
};
enum class Feature : uint8_t {
  arbitration = 0x01,
  power_management = 0x02,
  temperature_threshold = 0x04,
  error_recovery = 0x05,
  volatile_write_cache = 0x06,
  number_of_queues = 0x07,
  interrupt_coalescing = 0x08,
  interrupt_vector = 0x09,
  write_atomicity = 0x0a,
  asynchronous_events = 0x0b,
};

// 4.6.1.2: status code, its type in bits 10:8, and Do Not Retry where another try would do no better. Shifted left by
// one in a completion.
enum class Status : uint16_t {
  success = 0,
  invalid_opcode = 0x4001,
  invalid_field = 0x4002,
  data_transfer_error = 0x4004,
  internal_error = 0x0006,
  abort_requested = 0x0007,
  invalid_namespace = 0x400b,
  command_sequence_error = 0x400c,
  invalid_prp_offset = 0x4013,
  write_protected = 0x4020,
  lba_out_of_range = 0x4080,
  capacity_exceeded = 0x0081,
  completion_queue_invalid = 0x4100,
  invalid_queue = 0x4101,
  invalid_queue_size = 0x4102,
  too_many_event_requests = 0x4105,
  invalid_vector = 0x4108,
  invalid_log_page = 0x4109,
  invalid_queue_deletion = 0x410c,
  not_saveable = 0x410d,
  not_changeable = 0x410e,
  not_of_a_namespace = 0x410f,
  write_fault = 0x0280,
  read_error = 0x0281,
};

inline constexpr uint32_t every_name_space = 0xffff'ffff;
inline constexpr uint32_t the_name_space = 1;

// Asynchronous events, 5.2.1: errors.
inline constexpr uint8_t event_bad_doorbell = 0, event_bad_doorbell_value = 1;
enum class LogPage : uint8_t { errors = 1, health = 2, firmware = 3 };

// Dword 12 of reads and writes, 6.9 and 6.15; of write zeroes, 6.17.
inline constexpr uint32_t force_unit_access = 1u << 30;
inline constexpr uint32_t deallocate = 1u << 25;
// Dword 11 of dataset management, and what follows by PRPs, 6.7.
inline constexpr uint32_t dataset_deallocate = 1u << 2;
struct Range {
  uint32_t attributes = 0;
  uint32_t blocks = 0;
  uint64_t first = 0;
};
static_assert(sizeof(Range) == 16);
// Dword 11 of the two that create queues, 5.3 and 5.4.
inline constexpr uint32_t queue_contiguous = 1u << 0, queue_interrupts = 1u << 1;

}  // namespace caisson::storage::nvme
