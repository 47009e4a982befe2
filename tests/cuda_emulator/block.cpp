// One kernel: the threads of a block as fibers, blocks one after another.
#include <dlfcn.h>

#include <cstring>
#include <memory>
#include <numeric>

#include "device.h"
#include "fiber.h"

namespace cuda_emulator {
namespace {

enum class At : uint8_t { ready, block, warp, end };

struct Thread {
  Fiber fiber;
  uint3 index{};
  At at = At::ready;
  const void* meeting = nullptr;  // the function at whose barrier it waits
  int lane = 0, warp = 0, round = 0;
};

struct Warp {
  std::byte slots[2][kWarp][16];  // a second round begins before everybody has read the first
};

struct Block {
  std::vector<std::unique_ptr<Thread>> threads;  // kept from launch to launch
  std::vector<Warp> warps;
  int count = 0;
  Thread* running = nullptr;
  std::unique_ptr<std::byte[]> shared;
  std::byte* shared_begin = nullptr;
  const std::function<void()>* body = nullptr;
  std::string error;
};

Block& block() {
  static Block the_block;
  return the_block;
}

// Every permutation visits 0..count-1 once: begin, begin + step, ... with a step that shares no factor with
// count.
class Order {
 public:
  Order(uint64_t count, uint64_t& state) : count_(count) {
    if (environment_is("KEEN_EMULATOR_ORDER", "ascending")) return;
    begin_ = next(state) % count;
    do step_ = next(state) % count + 1;
    while (std::gcd(step_, count) != 1);
  }
  uint64_t operator[](uint64_t i) const { return (begin_ + i * step_) % count_; }

 private:
  static uint64_t next(uint64_t& state) {  // xorshift64 (Marsaglia, 2003)
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state >> 11;
  }
  uint64_t count_, begin_ = 0, step_ = 1;
};

uint64_t& order_state() {
  static uint64_t state = 0x9e3779b97f4a7c15;
  return state;
}

std::string describe(const Thread& thread) {
  const char* where = thread.at == At::block  ? "waits at __syncthreads"
                      : thread.at == At::warp ? "waits for its warp"
                      : thread.at == At::end  ? "has returned"
                                              : "runs";
  return "thread (" + std::to_string(thread.index.x) + ", " + std::to_string(thread.index.y) + ", " +
         std::to_string(thread.index.z) + ") " + where;
}

void run_thread() {
  (*block().body)();
  Thread& self = *block().running;
  self.at = At::end;
  self.fiber.finish();
}

void wait(At at, const void* meeting) {
  Thread& self = *block().running;
  self.at = at;
  self.meeting = meeting;
  self.fiber.yield();
}

void stop_with(const std::string& what) {
  if (block().error.empty()) block().error = what;
}

// Lanes run until all of them wait for the block or have returned. False on an error.
bool run_warp(int warp) {
  Block& b = block();
  const int first = warp * kWarp, lanes = std::min(kWarp, b.count - first);
  while (true) {
    const Order order(static_cast<uint64_t>(lanes), order_state());
    for (int i = 0; i < lanes; ++i) {
      Thread& thread = *b.threads[static_cast<size_t>(first) + order[static_cast<uint64_t>(i)]];
      if (thread.at != At::ready) continue;
      b.running = &thread;
      threadIdx = thread.index;
      thread.fiber.resume();
      if (!b.error.empty()) return false;
    }
    int waiting = 0;
    const Thread* elsewhere = nullptr;
    const Thread& one = *b.threads[static_cast<size_t>(first)];
    for (int i = 0; i < lanes; ++i) {
      const Thread& thread = *b.threads[static_cast<size_t>(first + i)];
      if (thread.at == At::warp) ++waiting;
      if (thread.at != one.at || thread.meeting != one.meeting) elsewhere = &thread;
    }
    if (waiting == 0) return true;
    if (elsewhere != nullptr) {
      stop_with("lanes of a warp do not meet: " + describe(one) + ", " + describe(*elsewhere) +
                (waiting == lanes ? " in another function" : ""));
      return false;
    }
    for (int i = 0; i < lanes; ++i) b.threads[static_cast<size_t>(first + i)]->at = At::ready;
  }
}

bool run_block() {
  Block& b = block();
  const int warps = (b.count + kWarp - 1) / kWarp;
  while (true) {
    const Order order(static_cast<uint64_t>(warps), order_state());
    for (int i = 0; i < warps; ++i)
      if (!run_warp(static_cast<int>(order[static_cast<uint64_t>(i)]))) return false;
    const Thread *waiting = nullptr, *returned = nullptr;
    for (int i = 0; i < b.count; ++i) {
      Thread& thread = *b.threads[static_cast<size_t>(i)];
      (thread.at == At::block ? waiting : returned) = &thread;
    }
    if (waiting == nullptr) return true;
    if (returned != nullptr) {
      stop_with("a barrier that not every thread reaches: " + describe(*waiting) + ", " +
                describe(*returned));
      return false;
    }
    for (int i = 0; i < b.count; ++i) b.threads[static_cast<size_t>(i)]->at = At::ready;
  }
}

uint3 index_in(uint64_t i, const dim3& size) {
  return {static_cast<unsigned>(i % size.x), static_cast<unsigned>(i / size.x % size.y),
          static_cast<unsigned>(i / size.x / size.y)};
}

// As large as asked for and no larger, and NaN: overflows and what is read before it is written show.
void make_shared(size_t bytes) {
  Block& b = block();
  constexpr size_t kAlignment = 1024;
  b.shared.reset(new std::byte[bytes + kAlignment]);
  void* begin = b.shared.get();
  size_t space = bytes + kAlignment;
  // The end of the allocation is the end of the shared memory, as far as alignment lets it.
  b.shared_begin = static_cast<std::byte*>(std::align(kAlignment, bytes, begin, space));
  poison(b.shared_begin + bytes,
         static_cast<size_t>(b.shared.get() + bytes + kAlignment - (b.shared_begin + bytes)), true);
}

std::string name_of(const void* kernel) {
  Dl_info info{};
  return dladdr(kernel, &info) != 0 && info.dli_sname != nullptr ? info.dli_sname : "a kernel";
}

}  // namespace

void run_kernel(const cudaLaunchConfig_t& config, const void* kernel, const std::function<void()>& thread) {
  Block& b = block();
  const dim3 grid = config.gridDim, size = config.blockDim;
  b.count = static_cast<int>(size.x * size.y * size.z);
  while (std::ssize(b.threads) < b.count) b.threads.push_back(std::make_unique<Thread>());
  b.warps.resize(static_cast<size_t>((b.count + kWarp - 1) / kWarp));
  b.body = &thread;
  b.error.clear();
  make_shared(config.dynamicSmemBytes);
  gridDim = grid;
  blockDim = size;
  const uint64_t blocks = uint64_t{grid.x} * grid.y * grid.z;
  const Order order(blocks, order_state());
  for (uint64_t i = 0; i < blocks && b.error.empty(); ++i) {
    blockIdx = index_in(order[i], grid);
    std::memset(b.shared_begin, 0xff, config.dynamicSmemBytes);
    for (int t = 0; t < b.count; ++t) {
      Thread& one = *b.threads[static_cast<size_t>(t)];
      one.index = index_in(static_cast<uint64_t>(t), size);
      one.at = At::ready;
      one.lane = t % kWarp;
      one.warp = t / kWarp;
      one.round = 0;
      one.fiber.start(run_thread);
    }
    run_block();
  }
  b.shared.reset();
  if (!b.error.empty())
    failed_launch(name_of(kernel) + ", block (" + std::to_string(blockIdx.x) + ", " +
                  std::to_string(blockIdx.y) + ", " + std::to_string(blockIdx.z) + "): " + b.error);
}

void wait_for_block() {
  static const char meeting = 0;
  wait(At::block, &meeting);
}

void wait_for_warp(const void* meeting) { wait(At::warp, meeting); }

unsigned char* dynamic_shared() { return reinterpret_cast<unsigned char*>(block().shared_begin); }

void exchange(const void* meeting, const void* value, size_t bytes, int source, void* result) {
  Block& b = block();
  Thread& self = *b.running;
  auto& slots = b.warps[static_cast<size_t>(self.warp)].slots[self.round++ % 2];
  std::memcpy(slots[self.lane], value, bytes);
  wait_for_warp(meeting);
  if (self.warp * kWarp + source < b.count) std::memcpy(result, slots[source], bytes);
}

unsigned ballot(bool vote) {
  static const char meeting = 0;
  unsigned votes = 0;
  Block& b = block();
  Thread& self = *b.running;
  auto& slots = b.warps[static_cast<size_t>(self.warp)].slots[self.round++ % 2];
  slots[self.lane][0] = std::byte{vote};
  wait_for_warp(&meeting);
  for (int i = 0; i < kWarp && self.warp * kWarp + i < b.count; ++i)
    if (slots[i][0] != std::byte{0}) votes |= 1u << i;
  return votes;
}

int lane() { return block().running->lane; }

void trap(const char* what) {
  Thread& self = *block().running;
  stop_with(describe(self) + " stopped: " + what);
  self.at = At::end;
  self.fiber.finish();
}

}  // namespace cuda_emulator
