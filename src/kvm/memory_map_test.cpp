// Memory as a machine with firmware and a display has it: a window over RAM, and ROM below 4 GiB.
#include <algorithm>
#include <cstring>

#include "kvm/ioctl_faults.h"
#include "kvm/test_machine.h"
#include "memory/dirty_log.h"
#include "memory/page_memory.h"

namespace caisson::kvm::test {
namespace {

using namespace x86;

class KvmMemoryMap : public KvmTest {
 protected:
  static constexpr uint64_t window = 0xb'8000, rom_size = 0x4000, rom = 0x1'0000'0000 - rom_size;

  void SetUp() override {
    KvmTest::SetUp();
    if (!cpu) return;
    // Later than KvmTest's, so over them.
    bus.map(Space::Memory, window, 0x10, port, 0);
  }
  std::unique_ptr<GuestMemory> make_memory() override {
    auto made = *GuestMemory::create(uint64_t{16} << 20, {.video_window = true, .rom_room = rom_size});
    std::vector<uint8_t> image(rom_size, 0x5a);
    // mov edi,b8000h; mov eax,[rdi]; mov [rsi],rbx; mov rcx,[rsi]; mov dx,10fh; out dx,al; jmp $
    const std::vector<uint8_t> payload{0xbf, 0x00, 0x80, 0x0b, 0x00, 0x8b, 0x07, 0x48, 0x89, 0x1e,
                                       0x48, 0x8b, 0x0e, 0x66, 0xba, 0x0f, 0x01, 0xee, 0xeb, 0xfe};
    std::ranges::copy(payload, image.begin());
    EXPECT_TRUE(made->set_rom(image));
    return made;
  }
  // Runs the ROM's code: what the window reads is in RAX, what stands at `address` after RBX was written there in RCX.
  CpuState run(uint64_t address, uint64_t value) {
    CpuState from = long_mode();
    from.rip = rom;
    from.gpr[Rsi] = address;
    from.gpr[Rbx] = value;
    const auto loaded = cpu->load(from);
    EXPECT_TRUE(loaded) << loaded.error().message;
    EXPECT_EQ(cpu->run(), ExitReason::Stopped) << cpu->error();
    return cpu->store();
  }
};

TEST_F(KvmMemoryMap, RomRunsAndKeepsItsContent) {
  const uint64_t before = 0x5a5a'5a5a'5a5a'5a5a;
  EXPECT_EQ(run(rom + 0x800, 0x1111).gpr[Rcx], before);
  uint64_t after = 0;
  std::memcpy(&after, memory->base() + rom + 0x800, sizeof after);
  EXPECT_EQ(after, before);
}

TEST_F(KvmMemoryMap, WindowIsTheDisplays) {
  memory->base()[window] = 0x77;
  port.written = {0x1234};
  EXPECT_EQ(run(data, 1).gpr[Rax], 0x1235u);
  (void)run(window, 0x4321);
  EXPECT_EQ(port.written.at(1), 0x4321u);
  EXPECT_EQ(memory->base()[window], 0x77);
}

TEST_F(KvmMemoryMap, RamGoesOnAroundTheWindow) {
  for (const uint64_t address : {GuestMemory::video_start - 8, GuestMemory::video_end, memory->low_size() - 8}) {
    EXPECT_EQ(run(address, address + 3).gpr[Rcx], address + 3);
    EXPECT_EQ(get<uint64_t>(address), address + 3);
  }
}

// The ROM's code writes to a device's memory and reads it again.
TEST_F(KvmMemoryMap, MemoryOfDevicesIsTheGuestsWithoutADevice) {
  constexpr uint64_t bar = 0xd010'0000;
  PageMemory pages(0x3000);
  PortDevice device;
  bus.map(Space::Memory, bar, pages.size(), device, 0);
  bus.set_direct(device, 0, pages.bytes(), true);
  bus.set_direct_binder(engine->direct_memory());
  EXPECT_FALSE(bus.direct_written(device, 0));
  EXPECT_EQ(run(bar + 0x1008, 0x1234).gpr[Rcx], 0x1234u);
  EXPECT_TRUE(device.written.empty());
  EXPECT_EQ(pages[0x1008], 0x34);
  EXPECT_TRUE(bus.direct_written(device, 0));
  EXPECT_FALSE(bus.direct_written(device, 0));
  // As memory that only reads: a write is the device's.
  bus.set_direct(device, 0, pages.bytes(), false);
  EXPECT_EQ(run(bar + 0x1008, 0x5678).gpr[Rcx], 0x1234u);
  EXPECT_EQ(device.written, (std::vector<uint64_t>{0x5678}));
  bus.set_direct(device, 0, {}, false);
  EXPECT_EQ(run(bar + 0x1008, 0x9abc).gpr[Rcx], 0x9abdu);
  // Over guest memory the kernel has none of it.
  EXPECT_FALSE(engine->direct_memory()->bind(data, pages.bytes(), true));
  bus.set_direct_binder(nullptr);
}

TEST_F(KvmMemoryMap, RomNeedsAKernelThatHasIt) {
  const IoctlFaults faults{IoctlFaults::lacking(KVM_CAP_READONLY_MEM)};
  auto device = open_device();
  ASSERT_TRUE(device) << device.error().message;
  const auto made =
      KvmEngine::create({.memory = *memory, .bus = bus, .clock = clock, .model = *model}, std::move(*device));
  ASSERT_FALSE(made);
  EXPECT_NE(made.error().message.find("lacks KVM_CAP_READONLY_MEM"), std::string::npos) << made.error().message;
  EXPECT_NE(made.error().message.find("--engine jit"), std::string::npos) << made.error().message;
}

TEST_F(KvmMemoryMap, DirtyLogKnowsThePagesBehindTheWindow) {
  auto log = DirtyLog::start(*memory, engine->write_log());
  ASSERT_TRUE(log) << log.error().message;
  const uint64_t page = GuestMemory::video_end + 5 * page_size;
  (void)run(page, 1);
  DirtyPages pages(memory->size() / page_size);
  const auto taken = (*log)->take(pages);
  ASSERT_TRUE(taken) << taken.error().message;
  EXPECT_TRUE(pages.contains(page / page_size));
  EXPECT_FALSE(pages.contains(page / page_size + 1));
  EXPECT_FALSE(pages.contains(page / page_size - 1));
}

}  // namespace
}  // namespace caisson::kvm::test
