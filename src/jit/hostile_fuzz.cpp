// libFuzzer: the input is a kernel. It starts in any mode, with tables that may be nonsense, on a translator whose code
// cache holds a few blocks, and then on the interpreter. Nothing may crash, hang, make a sanitizer speak, outgrow the
// code cache, or touch the memory of another guest.
#include <cstdio>
#include <cstdlib>

#include "base/log.h"
#include "jit/hostile_guest.h"

namespace {

using namespace caisson;
using namespace caisson::jit;
using test::HostileGuest;
using test::HostileRecipe;

constexpr size_t small_cache = 128 << 10;

// What random bytes seldom hit: bigger steps for the mutator.
constexpr std::array<std::string_view, 40> pieces{{{"\xf3\xaa", 2},                      // rep stosb
                                                   {"\xf3\xa4", 2},                      // rep movsb
                                                   {"\xf3\x48\xab", 3},                  // rep stosq
                                                   {"\xeb\xfe", 2},                      // jmp $
                                                   {"\xeb\xf0", 2},                      // jmp -14
                                                   {"\xe2\xfa", 2},                      // loop -4
                                                   {"\xe8\x00\x00\x00\x00", 5},          // call next
                                                   {"\xe8\xf6\xff\xff\xff", 5},          // call -5
                                                   {"\xc3", 1},                          // ret
                                                   {"\xff\xe0", 2},                      // jmp rax
                                                   {"\xff\xd3", 2},                      // call rbx
                                                   {"\x88\x05\x01\x00\x00\x00", 6},      // mov [rip+1], al
                                                   {"\xc6\x05\xfa\xff\xff\xff\x90", 7},  // mov byte [rip-6], nop
                                                   {"\x80\x05\xf9\xff\xff\xff\x01", 7},  // add byte [rip-7], 1
                                                   {"\x48\xab", 2},                      // stosq
                                                   {"\x0f\x22\xd8", 3},                  // mov cr3, rax
                                                   {"\x0f\x20\xd8\x0f\x22\xd8", 6},      // mov rax, cr3; mov cr3, rax
                                                   {"\x0f\x22\xc0", 3},                  // mov cr0, rax
                                                   {"\x0f\x20\xe0\x0f\xba\xf8\x07\x0f\x22\xe0", 10},  // toggle cr4.pge
                                                   {"\x0f\x01\x38", 3},                               // invlpg [rax]
                                                   {"\x0f\x01\x3d\x00\x00\x00\x00", 7},               // invlpg [rip]
                                                   {"\x66\x0f\x38\x82\x01", 5},                       // invpcid
                                                   {"\x48\xcf", 2},                                   // iretq
                                                   {"\xcf", 1},                                       // iret
                                                   {"\x0f\x05", 2},                                   // syscall
                                                   {"\x48\x0f\x07", 3},                               // sysretq
                                                   {"\x0f\x30", 2},                                   // wrmsr
                                                   {"\x0f\x01\x10", 3},                               // lgdt
                                                   {"\x0f\x01\x18", 3},                               // lidt
                                                   {"\x0f\x00\xd8", 3},                               // ltr
                                                   {"\xfa\xfb\xf4", 3},                               // cli; sti; hlt
                                                   {"\x9c\x9d", 2},                                   // pushf; popf
                                                   {"\x0f\x01\xf8", 3},                               // swapgs
                                                   {"\x0f\x0b", 2},                                   // ud2
                                                   {"\xcd\x80", 2},                                   // int 80
                                                   {"\xf0\x48\x0f\xc7\x0e", 5},                       // lock cmpxchg16b
                                                   {"\xf0\x48\xff\x47\xfd", 5},      // lock inc [rdi-3]
                                                   {"\x62\xf1\x7c\x48\x11\x00", 6},  // vmovups [rax], zmm0
                                                   {"\xc4\xe2\x7d\x90\x04\x08", 6},  // vpgatherdd
                                                   {"\x0f\xae\x20", 3}}};            // xsave

void require(bool good, const char* what) {
  if (good) return;
  std::fprintf(stderr, "%s\n", what);
  std::abort();
}

}  // namespace

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  std::minstd_rand random(seed);
  random.discard(3);
  if (size <= HostileRecipe::size || random() % 2 == 0) return LLVMFuzzerMutate(data, size, max_size);
  for (unsigned i = 1 + random() % 4; i != 0; --i) {
    const std::string_view piece = pieces[random() % pieces.size()];
    const size_t at = HostileRecipe::size + random() % (size - HostileRecipe::size + 1);
    const bool insert = random() % 2;
    if (insert && size + piece.size() <= max_size) {
      std::memmove(data + at + piece.size(), data + at, size - at);
      size += piece.size();
    }
    if (at + piece.size() <= size) std::memcpy(data + at, piece.data(), piece.size());
  }
  return size;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  log::set_level(log::Level::Error);
  if (size <= HostileRecipe::size) return 0;
  const auto recipe = HostileRecipe::from(std::span<const uint8_t, HostileRecipe::size>(data, HostileRecipe::size));
  const std::span code(data + HostileRecipe::size, size - HostileRecipe::size);
  static test::Neighbour neighbour;
  for (const bool translate : {true, false}) {
    HostileGuest guest(translate, small_cache);
    guest.load(recipe, code);
    const ExitReason reason = guest.run(translate ? 1000 : 2000, std::chrono::milliseconds(10));
    require(reason != ExitReason::InternalError, "the engine gave up");
    require(!guest.cpu().fpu_live, "vector registers left live");
    require(guest.engine().cache().bytes_used() <= small_cache, "the code cache has outgrown its bound");
  }
  require(neighbour.untouched(), "another guest's memory has changed");
  return 0;
}
