#include "fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#ifndef __x86_64__
#error "the CUDA emulator switches stacks on x86-64 only: configure with KEEN_CUDA=OFF"
#endif

// Keeps the registers that a call preserves on the stack of the caller, and continues on the other stack.
asm(R"(
  .text
  .globl keen_emulator_switch
  .type keen_emulator_switch, @function
keen_emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size keen_emulator_switch, .-keen_emulator_switch
)");
extern "C" void keen_emulator_switch(void** save, void* load);

namespace cuda_emulator {

namespace {

constexpr size_t kStackBytes = size_t{256} << 10, kPage = 4096;

// The one that runs, and where its resumer waits.
Fiber* running = nullptr;
void* resumer_top = nullptr;

// What the address sanitizer has to know about a switch; nothing without it.
#ifdef __SANITIZE_ADDRESS__
const void* resumer_stack = nullptr;
size_t resumer_stack_bytes = 0;
void* resumer_fake_stack = nullptr;
void leave_for(void** fake_stack, const void* stack, size_t bytes) {
  __sanitizer_start_switch_fiber(fake_stack, stack, bytes);
}
void arrive(void* fake_stack, const void** from, size_t* bytes) {
  __sanitizer_finish_switch_fiber(fake_stack, from, bytes);
}
void forget_frames(void* stack) { __asan_unpoison_memory_region(stack, kStackBytes); }
#else
const void* resumer_stack = nullptr;
size_t resumer_stack_bytes = 0;
void* resumer_fake_stack = nullptr;
void leave_for(void**, const void*, size_t) {}
void arrive(void*, const void**, size_t*) {}
void forget_frames(void*) {}
#endif

}  // namespace

Fiber::Fiber() {
  void* memory = mmap(nullptr, kStackBytes + kPage, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) std::abort();
  mprotect(memory, kPage, PROT_NONE);
  stack_ = static_cast<std::byte*>(memory) + kPage;
}

Fiber::~Fiber() {
  forget_frames(stack_);
  munmap(stack_ - kPage, kStackBytes + kPage);
}

void Fiber::trampoline() {
  arrive(nullptr, &resumer_stack, &resumer_stack_bytes);
  running->entry_();
  std::abort();
}

void Fiber::start(void (*entry)()) {
  forget_frames(stack_);  // of a kernel that was given up
  entry_ = entry;
  // Six registers and the address to "return" to, so that the stack is aligned as a call leaves it.
  auto* top = reinterpret_cast<uintptr_t*>(stack_ + kStackBytes) - 8;
  for (int i = 0; i < 8; ++i) top[i] = 0;
  top[6] = reinterpret_cast<uintptr_t>(&trampoline);
  top_ = top;
  fake_stack_ = nullptr;
}

void Fiber::resume() {
  running = this;
  leave_for(&resumer_fake_stack, stack_, kStackBytes);
  keen_emulator_switch(&resumer_top, top_);
  arrive(resumer_fake_stack, nullptr, nullptr);
}

void Fiber::yield() {
  leave_for(&fake_stack_, resumer_stack, resumer_stack_bytes);
  keen_emulator_switch(&top_, resumer_top);
  arrive(fake_stack_, &resumer_stack, &resumer_stack_bytes);
}

void Fiber::finish() {
  leave_for(nullptr, resumer_stack, resumer_stack_bytes);
  keen_emulator_switch(&top_, resumer_top);
  std::abort();
}

}  // namespace cuda_emulator
