// Fibers: stacks that are switched by hand. One runs at a time, in the thread that resumed it. x86-64 only.
#pragma once

#include <cstddef>

namespace cuda_emulator {

class Fiber {
 public:
  // `entry` never returns: it ends with finish().
  void start(void (*entry)());
  // Runs the fiber until it yields or finishes. Only from outside of fibers.
  void resume();
  // Of the running fiber: back to whoever resumed it.
  void yield();
  [[noreturn]] void finish();

  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;

 private:
  std::byte* stack_;  // kStackBytes above one page that nobody may touch
  void* top_ = nullptr;
  void (*entry_)() = nullptr;
  void* fake_stack_ = nullptr;  // the address sanitizer's, of frames that outlive their function
  static void trampoline();
};

}  // namespace cuda_emulator
