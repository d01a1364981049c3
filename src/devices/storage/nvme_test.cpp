#include "devices/storage/nvme.h"

#include <memory>
#include <random>
#include <string>

#include <gtest/gtest.h>

#include "base/log.h"
#include "devices/device_test_support.h"
#include "devices/pci/host_bridge.h"
#include "devices/virtio/fake_backends.h"

#define LLVMFuzzerTestOneInput nvme_fuzz_one_input  // the test program has the others' targets as well
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
#include "devices/storage/nvme_fuzz.cpp"  // fuzz sources belong to no library

namespace caisson::storage {
namespace {

using namespace nvme;
using virtio::FakeDisk;

// A controller that is enabled, with an admin queue; add_queue() makes I/O queues.
class NvmeTest : public testing::Test {
 protected:
  static constexpr uint64_t bar = 0xc010'0000, table = 0xc020'0000;
  static constexpr Gpa admin_requests = 0x10000, admin_answers = 0x20000, queues = 0x30000, lists = 0x80000,
                       data = 0x100000;
  static constexpr uint32_t size = 16;  // entries of each queue

  void SetUp() override { make(disk); }
  void make(FakeDisk& image) {
    if (nvme != nullptr) return;
    auto owned = std::make_unique<Nvme>(*memory, msi, image, "serial");
    nvme = owned.get();
    slot = bridge.plug(std::move(owned));
    config(pci::base_address, bar);
    config(pci::base_address + 4, 0);
    config(pci::base_address + 4 * Nvme::msix_bar, table);
    config(pci::command, pci::command_memory | pci::command_bus_master);
    for (size_t i = 0; i < image.contents.size(); ++i) image.contents[i] = static_cast<uint8_t>(i / 512 + i);
    enable();
  }
  void config(unsigned offset, uint32_t value) {
    bus.write(Space::Memory, layout.ecam_base + (slot << 15) + offset, 4, value);
  }
  uint32_t get(Register reg) {
    return static_cast<uint32_t>(bus.read(Space::Memory, bar + static_cast<uint32_t>(reg), 4));
  }
  void set(Register reg, uint32_t value) { bus.write(Space::Memory, bar + static_cast<uint32_t>(reg), 4, value); }
  void ring(unsigned queue, bool answers, uint32_t value) {
    bus.write(Space::Memory, bar + doorbells_offset + queue * 8 + (answers ? 4 : 0), 4, value);
  }
  bool interrupt() { return lines[pci::intx_gsi(slot, 0) - pci::first_intx_gsi].level(); }
  void enable() {
    set(Register::AQA, (size - 1) | (size - 1) << 16);
    set(Register::ASQ, admin_requests);
    set(Register::ASQ_high, 0);
    set(Register::ACQ, admin_answers);
    set(Register::ACQ_high, 0);
    set(Register::CC, cc_enable | command_log2 << cc_submission_shift | completion_log2 << cc_completion_shift);
    const std::vector<uint8_t> zeroes(Nvme::queue_count * 0x1000);
    ASSERT_TRUE(memory->write(admin_answers, std::span(zeroes).first(0x1000)));
    ASSERT_TRUE(memory->write(queues, std::span(zeroes).first(0x20000)));
    tails = {};
    heads = {};
    phases.fill(true);
  }
  static Gpa requests_at(unsigned queue) { return queue == 0 ? admin_requests : queues + queue * 0x2000; }
  static Gpa answers_at(unsigned queue) { return queue == 0 ? admin_answers : queues + queue * 0x2000 + 0x1000; }

  void put(unsigned queue, const Command& command) {
    ASSERT_TRUE(memory->write_object(requests_at(queue) + tails[queue] * sizeof command, command));
    tails[queue] = (tails[queue] + 1) % size;
  }
  void send(unsigned queue, const Command& command) {
    put(queue, command);
    ring(queue, false, tails[queue]);
  }
  // The next answer, if it has come; consumed.
  std::optional<Completion> answer(unsigned queue) {
    Completion entry;
    EXPECT_TRUE(memory->read_object(answers_at(queue) + heads[queue] * sizeof entry, entry));
    if ((entry.status & 1) != (phases[queue] ? 1 : 0)) return {};
    if (++heads[queue] == size) {
      heads[queue] = 0;
      phases[queue] = !phases[queue];
    }
    ring(queue, true, heads[queue]);
    return entry;
  }
  Status status(const std::optional<Completion>& entry) {
    return entry ? static_cast<Status>(entry->status >> 1) : static_cast<Status>(0x7fff);
  }
  std::optional<Completion> administrate(Admin opcode, Command command = {}) {
    command.opcode = static_cast<uint8_t>(opcode);
    send(0, command);
    return answer(0);
  }
  void add_queue(unsigned queue, uint32_t vector = 0) {
    EXPECT_EQ(status(administrate(
                  Admin::create_completion_queue,
                  {.prp1 = answers_at(queue), .dword10 = queue | (size - 1) << 16, .dword11 = 3 | vector << 16})),
              Status::success);
    EXPECT_EQ(status(administrate(
                  Admin::create_submission_queue,
                  {.prp1 = requests_at(queue), .dword10 = queue | (size - 1) << 16, .dword11 = 1 | queue << 16})),
              Status::success);
  }
  static Command io(Io opcode, uint64_t first, uint32_t blocks, uint64_t prp1 = data, uint64_t prp2 = 0) {
    return {.opcode = static_cast<uint8_t>(opcode),
            .id = 7,
            .name_space = 1,
            .prp1 = prp1,
            .prp2 = prp2,
            .dword10 = static_cast<uint32_t>(first),
            .dword11 = static_cast<uint32_t>(first >> 32),
            .dword12 = blocks - 1};
  }
  Status run(const Command& command) {
    send(1, command);
    disk.complete_all();
    return status(answer(1));
  }
  std::vector<uint8_t> bytes(Gpa address, size_t count) {
    std::vector<uint8_t> out(count);
    EXPECT_TRUE(memory->read(address, out));
    return out;
  }
  std::vector<uint8_t> on_disk(uint64_t first, uint64_t blocks) {
    const auto from = disk.contents.begin() + static_cast<std::ptrdiff_t>(first * 512);
    return {from, from + static_cast<std::ptrdiff_t>(blocks * 512)};
  }
  uint64_t number(Gpa address, size_t width) {
    uint64_t value = 0;
    EXPECT_TRUE(memory->read(address, {reinterpret_cast<uint8_t*>(&value), width}));
    return value;
  }
  void entry(Gpa list, unsigned index, Gpa page) { ASSERT_TRUE(memory->write_object(list + index * 8, page)); }

  pci::Layout layout;
  Bus bus;
  std::array<test_support::RecordingLine, pci::intx_gsi_count> lines;
  test_support::RecordingMsi msi;
  std::unique_ptr<GuestMemory> memory = *GuestMemory::create(uint64_t{4} << 20);
  FakeDisk disk{4 << 20};
  pci::HostBridge bridge{bus, layout,
                         [this](unsigned gsi) -> InterruptLine& { return lines[gsi - pci::first_intx_gsi]; }};
  Nvme* nvme = nullptr;
  unsigned slot = 0;
  std::array<uint32_t, Nvme::queue_count> tails{}, heads{};
  std::array<bool, Nvme::queue_count> phases{};
};

TEST_F(NvmeTest, SaysWhatItIs) {
  EXPECT_EQ(get(Register::CSTS), csts_ready);
  EXPECT_EQ(get(Register::VS), 0x10400u);
  ASSERT_EQ(status(administrate(Admin::identify, {.prp1 = data, .dword10 = 1})), Status::success);
  EXPECT_EQ(bytes(data + 4, 7), (std::vector<uint8_t>{'s', 'e', 'r', 'i', 'a', 'l', ' '}));
  EXPECT_EQ(number(data + 516, 4), 1u);
  EXPECT_EQ(number(data + 77, 1), Nvme::transfer_log2);
  ASSERT_EQ(status(administrate(Admin::identify, {.name_space = 1, .prp1 = data, .dword10 = 0})), Status::success);
  EXPECT_EQ(number(data, 8), disk.size() / 512);
  EXPECT_EQ(number(data + 128, 4), 9u << 16);
  ASSERT_EQ(status(administrate(Admin::identify, {.name_space = 0, .prp1 = data, .dword10 = 2})), Status::success);
  EXPECT_EQ(number(data, 8), 1u);
  ASSERT_EQ(status(administrate(Admin::identify, {.name_space = 1, .prp1 = data, .dword10 = 2})), Status::success);
  EXPECT_EQ(number(data, 8), 0u);
  EXPECT_EQ(status(administrate(Admin::identify, {.name_space = 2, .prp1 = data})), Status::invalid_namespace);
  EXPECT_EQ(status(administrate(Admin::identify, {.prp1 = data, .dword10 = 0x77})), Status::invalid_field);
  EXPECT_EQ(status(administrate(static_cast<Admin>(0x80))), Status::invalid_opcode);
}

TEST_F(NvmeTest, TransfersByOnePageTwoPagesAndLists) {
  add_queue(1);
  EXPECT_EQ(run(io(Io::read, 3, 1)), Status::success);
  EXPECT_EQ(bytes(data, 512), on_disk(3, 1));
  // From the middle of one page into another that is elsewhere.
  EXPECT_EQ(run(io(Io::read, 8, 8, data + 0xe00, data + 0x5000)), Status::success);
  EXPECT_EQ(bytes(data + 0xe00, 512), on_disk(8, 1));
  EXPECT_EQ(bytes(data + 0x5000, 7 * 512), on_disk(9, 7));
  // A list that begins two entries before its page's end and goes on in another page: five pages and a half, backwards.
  const Gpa first = lists + 0x1000 - 16, second = lists + 0x3000;
  entry(first, 0, data + 0x9000);
  entry(first, 1, second);
  for (unsigned i = 0; i < 4; ++i) entry(second, i, data + 0x8000 - i * 0x1000);
  EXPECT_EQ(run(io(Io::read, 100, 44, data, first)), Status::success);
  EXPECT_EQ(bytes(data, 4096), on_disk(100, 8));
  EXPECT_EQ(bytes(data + 0x9000, 4096), on_disk(108, 8));
  for (unsigned i = 0; i < 3; ++i) EXPECT_EQ(bytes(data + 0x8000 - i * 0x1000, 4096), on_disk(116 + i * 8, 8));
  EXPECT_EQ(bytes(data + 0x5000, 4 * 512), on_disk(140, 4));
  // A list that ends exactly with its page's last entry.
  const Gpa exact = lists + 0x2000 - 16;
  entry(exact, 0, data + 0x1000);
  entry(exact, 1, data + 0x2000);
  EXPECT_EQ(run(io(Io::write, 200, 24, data, exact)), Status::success);
  EXPECT_EQ(on_disk(200, 24), bytes(data, 3 * 4096));
  // The longest transfer.
  for (unsigned i = 0; i < 255; ++i) entry(lists, i, data + 0x1000 + i * 0x1000);
  EXPECT_EQ(run(io(Io::read, 0, 2048, data, lists)), Status::success);
  EXPECT_EQ(bytes(data, 1 << 20), on_disk(0, 2048));
  EXPECT_EQ(run(io(Io::read, 0, 2049, data, lists)), Status::invalid_field);
}

TEST_F(NvmeTest, RefusesWhatPointsNowhere) {
  add_queue(1);
  EXPECT_EQ(run(io(Io::read, 0, 1, data + 1)), Status::invalid_prp_offset);
  EXPECT_EQ(run(io(Io::read, 0, 16, data, data + 0x200)), Status::invalid_prp_offset);
  EXPECT_EQ(run(io(Io::read, 0, 1, 0x7000'0000)), Status::data_transfer_error);
  EXPECT_EQ(run(io(Io::read, 0, 64, data, 0x7000'0000)), Status::data_transfer_error);
  EXPECT_EQ(run(io(Io::read, 0, 64, data, lists + 4)), Status::invalid_prp_offset);
  // A list that goes on at itself ends, as the entries do.
  for (unsigned i = 0; i < 512; ++i) entry(lists, i, lists);
  EXPECT_EQ(run(io(Io::read, 0, 2048, data, lists + 0xff8)), Status::success);
  entry(lists, 511, lists + 8);
  EXPECT_EQ(run(io(Io::read, 0, 2048, data, lists + 0xff8)), Status::invalid_prp_offset);
  const uint64_t end = disk.size() / 512;
  EXPECT_EQ(run(io(Io::read, end, 1)), Status::lba_out_of_range);
  EXPECT_EQ(run(io(Io::write, end - 1, 2)), Status::lba_out_of_range);
  EXPECT_EQ(run(io(Io::write_zeroes, ~uint64_t{0}, 1)), Status::lba_out_of_range);
  Command other = io(Io::read, 0, 1);
  other.name_space = 2;
  EXPECT_EQ(run(other), Status::invalid_namespace);
  Command fused = io(Io::read, 0, 1);
  fused.flags = 1;
  EXPECT_EQ(run(fused), Status::invalid_field);
  EXPECT_EQ(run(io(static_cast<Io>(0x05), 0, 1)), Status::invalid_opcode);
  // All of them are in the log, the latest first.
  ASSERT_EQ(status(administrate(Admin::get_log_page, {.prp1 = data, .dword10 = 1 | 31u << 16})), Status::success);
  EXPECT_EQ(number(data + 8, 2), 1u);
  EXPECT_EQ(number(data + 10, 2), 7u);
  EXPECT_EQ(number(data + 12, 2) >> 1, static_cast<uint64_t>(Status::invalid_opcode));
  EXPECT_EQ(number(data + 64 + 12, 2) >> 1, static_cast<uint64_t>(Status::invalid_field));
  EXPECT_EQ(number(data, 8), number(data + 64, 8) + 1);
}

TEST_F(NvmeTest, WritesGetToTheMediumAsAsked) {
  add_queue(1);
  EXPECT_EQ(run(io(Io::write, 0, 1)), Status::success);
  Command through = io(Io::write, 0, 1);
  through.dword12 |= force_unit_access;
  EXPECT_EQ(run(through), Status::success);
  EXPECT_EQ(disk.log, (std::vector<BlockOp>{BlockOp::Write, BlockOp::Write, BlockOp::Flush}));
  disk.log.clear();
  // Without a cache every write is flushed; switching it off flushes what it had.
  send(0, {.opcode = static_cast<uint8_t>(Admin::set_features), .dword10 = 6, .dword11 = 0});
  EXPECT_FALSE(answer(0));
  disk.complete_all();
  EXPECT_EQ(status(answer(0)), Status::success);
  EXPECT_EQ(run(io(Io::write_zeroes, 2, 3)), Status::success);
  EXPECT_EQ(disk.log, (std::vector<BlockOp>{BlockOp::Flush, BlockOp::WriteZeroes, BlockOp::Flush}));
  EXPECT_EQ(on_disk(2, 3), std::vector<uint8_t>(3 * 512));
  disk.log.clear();
  Command everywhere = io(Io::flush, 0, 1);
  everywhere.name_space = every_name_space;
  EXPECT_EQ(run(everywhere), Status::success);
  EXPECT_EQ(disk.log, std::vector<BlockOp>{BlockOp::Flush});
}

TEST_F(NvmeTest, DiscardsRanges) {
  add_queue(1);
  const Range ranges[]{{0, 4, 10}, {0, 0, ~uint64_t{0} >> 1}, {0, 1, 20}};
  ASSERT_TRUE(memory->write_object(data, ranges));
  Command command = io(Io::dataset_management, 2, 1);
  EXPECT_EQ(run(command), Status::success);  // no more than hints
  EXPECT_TRUE(disk.log.empty());
  command.dword11 = dataset_deallocate;
  EXPECT_EQ(run(command), Status::lba_out_of_range);
  ASSERT_TRUE(memory->write_object(data + 16 + 8, uint64_t{0}));
  EXPECT_EQ(run(command), Status::success);
  EXPECT_EQ(disk.log, (std::vector<BlockOp>{BlockOp::Discard, BlockOp::Discard}));
  EXPECT_EQ(on_disk(10, 4), std::vector<uint8_t>(4 * 512, 0xdd));
  EXPECT_EQ(on_disk(20, 1), std::vector<uint8_t>(512, 0xdd));
}

TEST_F(NvmeTest, TellsWhatTheImageCannotDo) {
  add_queue(1);
  const auto failing = [&](Io opcode, int error) {
    send(1, io(opcode, 0, 1));
    disk.complete(0, error);
    return status(answer(1));
  };
  EXPECT_EQ(failing(Io::read, EIO), Status::read_error);
  EXPECT_EQ(failing(Io::write, EIO), Status::write_fault);
  EXPECT_EQ(failing(Io::write, ENOSPC), Status::capacity_exceeded);
  ASSERT_EQ(status(administrate(Admin::get_log_page, {.prp1 = data, .dword10 = 2 | 127u << 16})), Status::success);
  EXPECT_EQ(number(data + 160, 8), 3u);
  EXPECT_EQ(number(data + 64, 8), 1u);
  EXPECT_EQ(number(data + 80, 8), 2u);
  EXPECT_EQ(status(administrate(Admin::get_log_page, {.prp1 = data, .dword10 = 0xc0})), Status::invalid_log_page);
}

TEST_F(NvmeTest, CompletesInAnyOrderAndWaitsForRoom) {
  add_queue(1);
  for (unsigned i = 0; i < 3; ++i) {
    Command command = io(Io::read, i, 1, data + i * 0x1000);
    command.id = static_cast<uint16_t>(i);
    put(1, command);
  }
  ring(1, false, tails[1]);
  ASSERT_EQ(disk.waiting.size(), 3u);
  disk.complete(1);
  const auto middle = answer(1);
  ASSERT_TRUE(middle);
  EXPECT_EQ(middle->id, 1);
  EXPECT_EQ(middle->head, 3);
  disk.complete_all();
  EXPECT_TRUE(answer(1) && answer(1));
  // Two rounds of a full queue, with nothing consumed: as many are taken as answers have room.
  for (unsigned i = 0; i < size - 1; ++i) put(1, io(Io::read, i, 1));
  ring(1, false, tails[1]);
  EXPECT_EQ(disk.waiting.size(), size - 1);
  disk.complete_all();
  for (unsigned i = 0; i < size - 1; ++i) put(1, io(Io::read, i, 1));
  ring(1, false, tails[1]);
  EXPECT_TRUE(disk.waiting.empty());
  for (unsigned i = 0; i < size - 1; ++i) {
    ASSERT_TRUE(answer(1));
    EXPECT_EQ(disk.waiting.size(), i + 1);
  }
  EXPECT_FALSE(answer(1));
  disk.complete_all();
  for (unsigned i = 0; i < size - 1; ++i) ASSERT_TRUE(answer(1));
}

TEST_F(NvmeTest, InterruptsByPinAndByVector) {
  EXPECT_FALSE(interrupt());
  send(0, {.opcode = static_cast<uint8_t>(Admin::identify), .prp1 = data, .dword10 = 1});
  EXPECT_TRUE(interrupt());
  set(Register::INTMS, 1);
  EXPECT_FALSE(interrupt());
  EXPECT_EQ(get(Register::INTMC), 1u);
  set(Register::INTMC, 1);
  EXPECT_TRUE(interrupt());
  EXPECT_TRUE(answer(0));
  EXPECT_FALSE(interrupt());

  const uint64_t capability = bus.read(Space::Memory, layout.ecam_base + (slot << 15) + pci::capabilities_pointer, 1);
  config(static_cast<unsigned>(capability), 0x8000'0000);
  bus.write(Space::Memory, table + 3 * 16, 4, 0xfee0'0000);
  bus.write(Space::Memory, table + 3 * 16 + 8, 4, 0x41);
  bus.write(Space::Memory, table + 3 * 16 + 12, 4, 0);
  add_queue(2, 3);
  msi.messages.clear();
  send(2, io(Io::read, 0, 1));
  EXPECT_TRUE(msi.messages.empty());
  disk.complete_all();
  EXPECT_EQ(msi.messages, (std::vector<test_support::RecordingMsi::Message>{{0xfee0'0000, 0x41}}));
  EXPECT_FALSE(interrupt());
}

TEST_F(NvmeTest, QueuesComeAndGo) {
  const auto create = [&](Admin kind, uint32_t dword10, uint32_t dword11, uint64_t at = queues) {
    return status(administrate(kind, {.prp1 = at, .dword10 = dword10, .dword11 = dword11}));
  };
  const auto answers = Admin::create_completion_queue, requests = Admin::create_submission_queue;
  EXPECT_EQ(create(answers, 0 | 15 << 16, 1), Status::invalid_queue);
  EXPECT_EQ(create(answers, Nvme::queue_count | 15 << 16, 1), Status::invalid_queue);
  EXPECT_EQ(create(answers, 1 | 0 << 16, 1), Status::invalid_queue_size);
  EXPECT_EQ(create(answers, 1 | 1024 << 16, 1), Status::invalid_queue_size);
  EXPECT_EQ(create(answers, 1 | 15 << 16, 0), Status::invalid_field);
  EXPECT_EQ(create(answers, 1 | 15 << 16, 1 | Nvme::queue_count << 16), Status::invalid_vector);
  EXPECT_EQ(create(answers, 1 | 15 << 16, 1, queues + 8), Status::invalid_prp_offset);
  EXPECT_EQ(create(answers, 1 | 15 << 16, 1, 0x7000'0000), Status::invalid_field);
  EXPECT_EQ(create(requests, 1 | 15 << 16, 1 | 1 << 16), Status::completion_queue_invalid);
  add_queue(1);
  EXPECT_EQ(create(answers, 1 | 15 << 16, 1), Status::invalid_queue);
  EXPECT_EQ(status(administrate(Admin::delete_completion_queue, {.dword10 = 1})), Status::invalid_queue_deletion);
  // What is at the image is answered before the queue goes.
  send(1, io(Io::read, 0, 1));
  Command through = io(Io::write, 1, 1);
  through.dword12 |= force_unit_access;
  send(1, through);
  EXPECT_EQ(status(administrate(Admin::delete_submission_queue, {.dword10 = 1})), Status::success);
  EXPECT_TRUE(disk.waiting.empty());
  EXPECT_TRUE(answer(1) && answer(1));
  EXPECT_EQ(status(administrate(Admin::delete_completion_queue, {.dword10 = 1})), Status::success);
  EXPECT_EQ(status(administrate(Admin::delete_submission_queue, {.dword10 = 1})), Status::invalid_queue);
  EXPECT_EQ(status(administrate(Admin::delete_completion_queue, {.dword10 = 0})), Status::invalid_queue);
}

TEST_F(NvmeTest, ResetsInTheMiddleOfTransfers) {
  add_queue(1);
  send(1, io(Io::read, 0, 1));
  send(1, io(Io::write, 0, 1));
  set(Register::CC, 0);
  EXPECT_EQ(get(Register::CSTS), 0u);
  EXPECT_TRUE(disk.waiting.empty());
  EXPECT_FALSE(interrupt());
  ring(1, false, 1);  // nobody listens
  EXPECT_EQ(get(Register::ASQ), admin_requests);
  enable();
  EXPECT_EQ(get(Register::CSTS), csts_ready);
  add_queue(1);
  EXPECT_EQ(run(io(Io::read, 9, 1)), Status::success);
  EXPECT_EQ(bytes(data, 512), on_disk(9, 1));
}

TEST_F(NvmeTest, DoesNotStartWithoutAnAdminQueue) {
  const uint32_t good = cc_enable | command_log2 << cc_submission_shift | completion_log2 << cc_completion_shift;
  const auto fails = [&](uint32_t control) {
    set(Register::CC, control);
    const bool fatal = get(Register::CSTS) == csts_fatal;
    set(Register::CC, 0);
    return fatal;
  };
  set(Register::CC, 0);
  EXPECT_FALSE(fails(good));
  EXPECT_TRUE(fails(good | 1u << 7));  // pages of 8 KiB
  set(Register::AQA, 0);
  EXPECT_TRUE(fails(good));
  set(Register::AQA, 15 | 15 << 16);
  set(Register::ACQ, 0x7000'0000);
  EXPECT_TRUE(fails(good));
}

TEST_F(NvmeTest, ShutsDown) {
  const uint32_t running = get(Register::CC);
  set(Register::CC, running | 1u << cc_shutdown_shift);
  EXPECT_EQ(get(Register::CSTS) >> csts_shutdown_shift & 3, 1u);
  disk.complete_all();
  EXPECT_EQ(disk.log, std::vector<BlockOp>{BlockOp::Flush});
  EXPECT_EQ(get(Register::CSTS) >> csts_shutdown_shift & 3, 2u);
  set(Register::CC, 0);
  EXPECT_EQ(get(Register::CSTS), 0u);
}

TEST_F(NvmeTest, TellsOfBadDoorbells) {
  send(0, {.opcode = static_cast<uint8_t>(Admin::asynchronous_event), .id = 42});
  EXPECT_FALSE(answer(0));
  ring(9, false, 1);
  auto event = answer(0);
  ASSERT_TRUE(event);
  EXPECT_EQ(event->id, 42);
  EXPECT_EQ(event->result, 0u | 0u << 8 | 1u << 16);
  // The next is told once the log was read.
  ring(0, true, 9);
  send(0, {.opcode = static_cast<uint8_t>(Admin::asynchronous_event), .id = 43});
  EXPECT_FALSE(answer(0));
  send(0, {.opcode = static_cast<uint8_t>(Admin::get_log_page), .id = 44, .prp1 = data, .dword10 = 1 | 15u << 16});
  event = answer(0);
  ASSERT_TRUE(event);
  EXPECT_EQ(event->id, 43);
  EXPECT_EQ(event->result, 0u | 1u << 8 | 1u << 16);
  event = answer(0);
  ASSERT_TRUE(event);
  EXPECT_EQ(event->id, 44);
  EXPECT_EQ(number(data + 10, 2), 0xffffu);
}

TEST_F(NvmeTest, EventRequestsAreBoundedAndCanBeAborted) {
  for (uint16_t i = 0; i < Nvme::most_event_requests; ++i) {
    send(0, {.opcode = static_cast<uint8_t>(Admin::asynchronous_event), .id = i});
  }
  EXPECT_EQ(status(administrate(Admin::asynchronous_event)), Status::too_many_event_requests);
  send(0, {.opcode = static_cast<uint8_t>(Admin::abort), .id = 99, .dword10 = 2u << 16});
  const auto aborted = answer(0), done = answer(0);
  ASSERT_TRUE(aborted && done);
  EXPECT_EQ(aborted->id, 2);
  EXPECT_EQ(status(aborted), Status::abort_requested);
  EXPECT_EQ(done->id, 99);
  EXPECT_EQ(done->result, 0u);
  const auto late = administrate(Admin::abort, {.dword10 = 1 | 7u << 16});
  ASSERT_TRUE(late);
  EXPECT_EQ(late->result, 1u);
}

TEST_F(NvmeTest, Features) {
  const auto get_feature = [&](uint32_t dword10, uint32_t dword11 = 0) {
    const auto entry = administrate(Admin::get_features, {.dword10 = dword10, .dword11 = dword11});
    return entry && entry->status >> 1 == 0 ? int64_t{entry->result} : int64_t{-1};
  };
  const auto set_feature = [&](uint32_t dword10, uint32_t dword11) {
    return status(administrate(Admin::set_features, {.dword10 = dword10, .dword11 = dword11}));
  };
  EXPECT_EQ(get_feature(7), 31 | 31 << 16);
  EXPECT_EQ(set_feature(7, 3 | 3 << 16), Status::success);
  EXPECT_EQ(set_feature(7, 0xffff), Status::invalid_field);
  EXPECT_EQ(get_feature(6), 1);
  EXPECT_EQ(get_feature(6 | 3 << 8), 4);
  EXPECT_EQ(set_feature(4, 300), Status::success);
  EXPECT_EQ(get_feature(4), 300);
  EXPECT_EQ(get_feature(4 | 1 << 8), 0x157);
  EXPECT_EQ(set_feature(9, 5 | 1 << 16), Status::success);
  EXPECT_EQ(get_feature(9, 5), 5 | 1 << 16);
  EXPECT_EQ(set_feature(9, 200), Status::invalid_field);
  EXPECT_EQ(set_feature(6 | 1u << 31, 0), Status::not_saveable);
  EXPECT_EQ(get_feature(0x33), -1);
  add_queue(1);
  EXPECT_EQ(set_feature(7, 3 | 3 << 16), Status::command_sequence_error);
}

TEST_F(NvmeTest, WaitsForBusMastering) {
  add_queue(1);
  config(pci::command, pci::command_memory);
  send(1, io(Io::read, 0, 1));
  EXPECT_TRUE(disk.waiting.empty());
  config(pci::command, pci::command_memory | pci::command_bus_master);
  EXPECT_EQ(disk.waiting.size(), 1u);
}

TEST_F(NvmeTest, QuiescesAndSaves) {
  add_queue(1);
  Command through = io(Io::write, 0, 1);
  through.dword12 |= force_unit_access;
  send(1, through);
  nvme->quiesce();
  EXPECT_TRUE(disk.waiting.empty());
  EXPECT_EQ(status(answer(1)), Status::success);
  test_support::expect_round_trip<Nvme>(*nvme, [&](Nvme::State& state) {
    state.config = {};
    Nvme::State now;
    ASSERT_TRUE(fields::restore(now, test_support::saved(*nvme)));
    state.config = now.config;
    state.msix = now.msix;
    state.requests = now.requests;
    state.answers = now.answers;
    state.requests[1].head ^= 1;
    state.control = now.control;
    state.status = now.status;
    state.admin_sizes = now.admin_sizes;
    state.events = 1;
  });
  // Queues that no guest can have made are refused.
  Nvme::State bad;
  ASSERT_TRUE(fields::restore(bad, test_support::saved(*nvme)));
  bad.requests[1].tail = size;
  fields::Buffer out;
  fields::save(bad, out);
  EXPECT_FALSE(nvme->restore(out));
}

TEST(Nvme, ReadOnlyImagesAreWriteProtected) {
  const auto memory = *GuestMemory::create(uint64_t{1} << 20);
  FakeDisk disk(1 << 20, true);
  test_support::RecordingMsi msi;
  Nvme nvme(*memory, msi, disk, "");
  nvme.config_write(pci::command, 2, pci::command_memory | pci::command_bus_master);
  const auto set = [&](Register reg, uint32_t value) { nvme.write(0, static_cast<uint32_t>(reg), 4, value); };
  set(Register::AQA, 7 | 7 << 16);
  set(Register::ASQ, 0x1000);
  set(Register::ACQ, 0x2000);
  set(Register::CC, cc_enable | command_log2 << cc_submission_shift | completion_log2 << cc_completion_shift);
  const Command commands[]{{.opcode = 0x06, .name_space = 1, .prp1 = 0x5000},
                           {.opcode = 0x05, .prp1 = 0x4000, .dword10 = 1 | 7 << 16, .dword11 = 1},
                           {.opcode = 0x01, .prp1 = 0x3000, .dword10 = 1 | 7 << 16, .dword11 = 1 | 1 << 16}};
  ASSERT_TRUE(memory->write_object(0x1000, commands));
  nvme.write(0, doorbells_offset, 4, 3);
  uint8_t protection = 0;
  ASSERT_TRUE(memory->read_object(0x5000 + 99, protection));
  EXPECT_EQ(protection, 1);
  ASSERT_TRUE(memory->write_object(0x3000, Command{.opcode = 0x01, .name_space = 1, .prp1 = 0x6000}));
  nvme.write(0, doorbells_offset + 8, 4, 1);
  Completion answer;
  ASSERT_TRUE(memory->read_object(0x4000, answer));
  EXPECT_EQ(static_cast<Status>(answer.status >> 1), Status::write_protected);
}

TEST(NvmeFuzz, RandomInputsDoNoHarm) {
  std::mt19937 random(20261129);
  std::vector<uint8_t> input(2000);
  for (unsigned round = 0; round < 300; ++round) {
    for (uint8_t& byte : input) byte = static_cast<uint8_t>(random());
    EXPECT_EQ(nvme_fuzz_one_input(input.data(), input.size()), 0);
  }
  log::set_level(log::Level::Info);
}

}  // namespace
}  // namespace caisson::storage
