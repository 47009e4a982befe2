#include <dlfcn.h>
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <string>
#include <vector>

#include "cuda_runtime.h"
#include "fiber.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

struct CUstream_st {
  std::deque<std::function<void()>> work;
  CUgraph_st* capture = nullptr;
  uint64_t put = 0, done = 0;  // pieces of work, since the beginning
};
struct CUevent_st {
  CUstream_st* stream = nullptr;
  uint64_t after = 0;  // that many pieces of the stream's work
  CUgraph_st* capture = nullptr;
  std::chrono::steady_clock::time_point reached{};
};
struct CUgraph_st {
  std::vector<std::function<void()>> work;
  bool broken = false;
};
struct CUgraphExec_st {
  std::vector<std::function<void()>> work;
};

namespace cuda_emulator {
namespace {

constexpr int kWarp = 32, kMultiprocessors = 3;
constexpr size_t kSharedBytes = size_t{48} << 10, kSharedBytesOptIn = size_t{227} << 10;

struct Allocation {
  size_t bytes;
  bool pinned;
};

// The whole device. Host threads take turns.
struct Device {
  std::recursive_mutex mutex;
  std::map<const std::byte*, Allocation> memory;
  size_t used_bytes = 0;
  std::map<const void*, size_t> shared_bytes_of_kernel;
  CUstream_st null_stream;
  std::vector<CUstream_st*> streams{&null_stream};
  cudaError_t sticky = cudaSuccess;  // what a kernel ended with: every later call says so
  cudaError_t last = cudaSuccess;
  std::string message;
  int open = 0;  // depth of work that may touch device memory
};

Device& device() {
  static Device the_device;
  return the_device;
}

using Lock = std::lock_guard<std::recursive_mutex>;

bool environment_is(const char* name, const char* value) {
  const char* is = std::getenv(name);
  return is != nullptr && std::strcmp(is, value) == 0;
}

cudaError_t error(cudaError_t status) {
  if (status != cudaSuccess) device().last = status;
  return status;
}

cudaError_t failed_launch(const std::string& message) {
  device().message = message;
  std::fprintf(stderr, "CUDA emulator: %s\n", message.c_str());
  device().sticky = cudaErrorLaunchFailure;
  return error(cudaErrorLaunchFailure);
}

// The allocation that an address lies in, or null.
const std::pair<const std::byte* const, Allocation>* allocation_of(const void* address) {
  const auto& memory = device().memory;
  auto it = memory.upper_bound(static_cast<const std::byte*>(address));
  if (it == memory.begin()) return nullptr;
  --it;
  return static_cast<const std::byte*>(address) < it->first + it->second.bytes ? &*it : nullptr;
}

bool lies_in(const void* address, size_t bytes, bool on_device) {
  const auto* allocation = allocation_of(address);
  if (allocation == nullptr || allocation->second.pinned) return !on_device;
  const auto* end = static_cast<const std::byte*>(address) + bytes;
  return on_device && end <= allocation->first + allocation->second.bytes;
}

// Device memory is poison for the host, but for what runs in a stream.
void poison(const std::byte* memory, size_t bytes, bool closed) {
#ifdef __SANITIZE_ADDRESS__
  if (closed)
    __asan_poison_memory_region(memory, bytes);
  else
    __asan_unpoison_memory_region(memory, bytes);
#else
  (void)memory, (void)bytes, (void)closed;
#endif
}

class OpenMemory {
 public:
  OpenMemory() {
    if (device().open++ == 0) set(false);
  }
  ~OpenMemory() {
    if (--device().open == 0) set(true);
  }
  OpenMemory(const OpenMemory&) = delete;

 private:
  static void set(bool closed) {
    for (const auto& [memory, allocation] : device().memory)
      if (!allocation.pinned) poison(memory, allocation.bytes, closed);
  }
};

CUstream_st& stream_or_null(cudaStream_t stream) {
  return stream != nullptr ? *stream : device().null_stream;
}

// Runs what was put into a stream, up to `until` pieces since its beginning.
void drain(CUstream_st& stream, uint64_t until = ~uint64_t{0}) {
  if (stream.work.empty()) return;
  const OpenMemory open;
  while (!stream.work.empty() && stream.done < until) {
    const std::function<void()> work = std::move(stream.work.front());
    stream.work.pop_front();
    if (device().sticky == cudaSuccess) work();
    ++stream.done;
  }
}

cudaError_t put(cudaStream_t where, std::function<void()> work) {
  CUstream_st& stream = stream_or_null(where);
  if (stream.capture != nullptr) {
    stream.capture->work.push_back(std::move(work));
    return cudaSuccess;
  }
  stream.work.push_back(std::move(work));
  ++stream.put;
  if (environment_is("CUDA_LAUNCH_BLOCKING", "1")) drain(stream);
  return error(device().sticky);
}

// A call that waits cannot be part of a graph, and spoils the capture.
bool waits_in_capture() {
  bool capturing = false;
  for (CUstream_st* stream : device().streams)
    if (stream->capture != nullptr) capturing = stream->capture->broken = true;
  return capturing;
}

// ---------------------------------------------------------------------------------------------------------------------
// One kernel

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

}  // namespace

cudaError_t enqueue(cudaStream_t stream, std::function<void()> work) {
  const Lock lock(device().mutex);
  return put(stream, std::move(work));
}

bool on_device(const void* address) {
  const Lock lock(device().mutex);
  return lies_in(address, 1, true);
}

cudaError_t launch(const cudaLaunchConfig_t& config, const void* kernel, std::function<void()> thread) {
  const Lock lock(device().mutex);
  if (device().sticky != cudaSuccess) return error(device().sticky);
  const dim3 grid = config.gridDim, size = config.blockDim;
  const uint64_t threads = uint64_t{size.x} * size.y * size.z;
  if (threads < 1 || threads > 1024 || size.z > 64 || grid.x < 1 || grid.y < 1 || grid.z < 1 ||
      grid.x > 2147483647u || grid.y > 65535 || grid.z > 65535)
    return error(cudaErrorInvalidConfiguration);
  const auto it = device().shared_bytes_of_kernel.find(kernel);
  const size_t limit =
      it == device().shared_bytes_of_kernel.end() ? kSharedBytes : std::max(kSharedBytes, it->second);
  if (config.dynamicSmemBytes > limit) return error(cudaErrorInvalidValue);
  return put(config.stream,
             [config, kernel, thread = std::move(thread)] { run_kernel(config, kernel, thread); });
}

bool can_be_read_by_kernels(const void* address, int argument) {
  const Lock lock(device().mutex);
  if (address == nullptr || allocation_of(address) != nullptr) return true;
  // One past the end is an address that empty ranges have.
  if (allocation_of(static_cast<const std::byte*>(address) - 1) != nullptr) return true;
  failed_launch("argument " + std::to_string(argument) + " of a kernel points to memory of the host");
  return false;
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

// ---------------------------------------------------------------------------------------------------------------------
// The runtime

using namespace cuda_emulator;

const char* cudaGetErrorName(cudaError_t status) {
  switch (status) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidMemcpyDirection:
      return "cudaErrorInvalidMemcpyDirection";
    case cudaErrorNoDevice:
      return "cudaErrorNoDevice";
    case cudaErrorNotReady:
      return "cudaErrorNotReady";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
    case cudaErrorStreamCaptureUnsupported:
      return "cudaErrorStreamCaptureUnsupported";
  }
  return "an unknown error";
}

const char* cudaGetErrorString(cudaError_t status) {
  switch (status) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorInvalidMemcpyDirection:
      return "memory does not lie where the direction of the copy says";
    case cudaErrorNoDevice:
      return "no CUDA-capable device is detected";
    case cudaErrorNotReady:
      return "device not ready";
    case cudaErrorLaunchFailure:
      return device().message.c_str();
    case cudaErrorStreamCaptureUnsupported:
      return "operation not permitted when stream is capturing";
  }
  return "unknown";
}

cudaError_t cudaGetLastError() {
  const Lock lock(device().mutex);
  return std::exchange(device().last, device().sticky);
}
cudaError_t cudaPeekAtLastError() {
  const Lock lock(device().mutex);
  return device().last;
}

cudaError_t cudaGetDeviceCount(int* count) {
  const bool hidden = environment_is("CUDA_VISIBLE_DEVICES", "");
  *count = hidden ? 0 : 1;
  return hidden ? error(cudaErrorNoDevice) : cudaSuccess;
}
cudaError_t cudaSetDevice(int index) { return index == 0 ? cudaSuccess : error(cudaErrorInvalidValue); }
cudaError_t cudaGetDevice(int* index) {
  *index = 0;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) {
  *p = {};
  std::snprintf(p->name, sizeof p->name, "CUDA emulator");
  size_t free_bytes = 0;
  cudaMemGetInfo(&free_bytes, &p->totalGlobalMem);
  p->sharedMemPerBlock = kSharedBytes;
  p->sharedMemPerBlockOptin = kSharedBytesOptIn;
  p->sharedMemPerMultiprocessor = kSharedBytesOptIn + 1024;
  p->major = 9;
  p->multiProcessorCount = kMultiprocessors;
  p->l2CacheSize = 1 << 20;
  p->maxThreadsPerBlock = 1024;
  p->warpSize = kWarp;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
      *value = 1024;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *value = kSharedBytes;
      break;
    case cudaDevAttrWarpSize:
      *value = kWarp;
      break;
    case cudaDevAttrMultiProcessorCount:
      *value = kMultiprocessors;
      break;
    case cudaDevAttrL2CacheSize:
      *value = 1 << 20;
      break;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      *value = 2048;
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *value = 9;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = 0;
      break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = kSharedBytesOptIn + 1024;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = kSharedBytesOptIn;
      break;
    default:
      return error(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) { return cudaDriverGetVersion(version); }

cudaError_t cudaDeviceSynchronize() {
  const Lock lock(device().mutex);
  if (waits_in_capture()) return error(cudaErrorStreamCaptureUnsupported);
  for (CUstream_st* stream : device().streams) drain(*stream);
  return error(device().sticky);
}

cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes) {
  const Lock lock(device().mutex);
  const char* mib = std::getenv("KEEN_EMULATOR_MEMORY_MIB");
  *total_bytes = static_cast<size_t>(mib != nullptr ? std::atoll(mib) : 4096) << 20;
  *free_bytes = *total_bytes - std::min(*total_bytes, device().used_bytes);
  return cudaSuccess;
}

namespace {

// Fresh memory is NaN, as far as floats go.
void* new_memory(size_t bytes, bool pinned) {
  void* memory = nullptr;
  if (posix_memalign(&memory, 256, std::max<size_t>(bytes, 1)) != 0) return nullptr;
  std::memset(memory, 0xff, bytes);
  device().memory[static_cast<std::byte*>(memory)] = {bytes, pinned};
  if (!pinned && device().open == 0) poison(static_cast<std::byte*>(memory), bytes, true);
  return memory;
}

cudaError_t delete_memory(void* memory, bool pinned) {
  if (memory == nullptr) return cudaSuccess;
  const auto it = device().memory.find(static_cast<std::byte*>(memory));
  if (it == device().memory.end() || it->second.pinned != pinned) return error(cudaErrorInvalidValue);
  for (CUstream_st* stream : device().streams) drain(*stream);  // as the driver waits
  poison(it->first, it->second.bytes, false);
  if (!pinned) device().used_bytes -= it->second.bytes;
  device().memory.erase(it);
  std::free(memory);
  return cudaSuccess;
}

}  // namespace

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  const Lock lock(device().mutex);
  if (waits_in_capture()) return error(cudaErrorStreamCaptureUnsupported);
  *memory = nullptr;
  if (bytes == 0) return cudaSuccess;
  size_t free_bytes = 0, total_bytes = 0;
  cudaMemGetInfo(&free_bytes, &total_bytes);
  if (bytes > free_bytes) return error(cudaErrorMemoryAllocation);
  *memory = new_memory(bytes, false);
  if (*memory == nullptr) return error(cudaErrorMemoryAllocation);
  device().used_bytes += bytes;
  return error(device().sticky);
}

cudaError_t cudaFree(void* memory) {
  const Lock lock(device().mutex);
  return delete_memory(memory, false);
}

cudaError_t cudaHostAlloc(void** memory, size_t bytes, unsigned) {
  const Lock lock(device().mutex);
  if (waits_in_capture()) return error(cudaErrorStreamCaptureUnsupported);
  *memory = new_memory(bytes, true);
  return *memory != nullptr ? cudaSuccess : error(cudaErrorMemoryAllocation);
}

cudaError_t cudaFreeHost(void* memory) {
  const Lock lock(device().mutex);
  return delete_memory(memory, true);
}

namespace {

bool goes_as_said(const void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  if (kind == cudaMemcpyDefault) return true;
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  return lies_in(to, bytes, to_device) && lies_in(from, bytes, from_device);
}

bool is_pageable(const void* address) { return allocation_of(address) == nullptr; }

}  // namespace

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  const Lock lock(device().mutex);
  if (bytes == 0) return cudaSuccess;
  if (!goes_as_said(to, from, bytes, kind)) return error(cudaErrorInvalidMemcpyDirection);
  const bool capturing = stream_or_null(stream).capture != nullptr;
  // What is pageable is staged at once: its memory may be used again on return.
  if (is_pageable(from)) {
    if (capturing) return error(cudaErrorStreamCaptureUnsupported);
    std::vector<std::byte> staged(bytes);
    std::memcpy(staged.data(), from, bytes);
    return put(stream, [to, staged = std::move(staged)] { std::memcpy(to, staged.data(), staged.size()); });
  }
  const cudaError_t status = put(stream, [=] { std::memmove(to, from, bytes); });
  if (!is_pageable(to)) return status;
  if (capturing) return error(cudaErrorStreamCaptureUnsupported);
  drain(stream_or_null(stream));
  return error(device().sticky);
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  const Lock lock(device().mutex);
  if (waits_in_capture()) return error(cudaErrorStreamCaptureUnsupported);
  const cudaError_t status = cudaMemcpyAsync(to, from, bytes, kind, nullptr);
  drain(device().null_stream);
  return status != cudaSuccess ? status : error(device().sticky);
}

cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind kind, cudaStream_t stream) {
  for (size_t row = 0; row < height; ++row) {
    const cudaError_t status =
        cudaMemcpyAsync(static_cast<std::byte*>(to) + row * to_pitch,
                        static_cast<const std::byte*>(from) + row * from_pitch, width, kind, stream);
    if (status != cudaSuccess) return status;
  }
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t stream) {
  const Lock lock(device().mutex);
  if (bytes == 0) return cudaSuccess;
  if (allocation_of(memory) == nullptr) return error(cudaErrorInvalidValue);
  return put(stream, [=] { std::memset(memory, value, bytes); });
}

cudaError_t cudaMemset(void* memory, int value, size_t bytes) {
  const Lock lock(device().mutex);
  if (waits_in_capture()) return error(cudaErrorStreamCaptureUnsupported);
  const cudaError_t status = cudaMemsetAsync(memory, value, bytes, nullptr);
  drain(device().null_stream);
  return status;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  const Lock lock(device().mutex);
  *stream = new CUstream_st;
  device().streams.push_back(*stream);
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const Lock lock(device().mutex);
  drain(*stream);
  std::erase(device().streams, stream);
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const Lock lock(device().mutex);
  if (stream_or_null(stream).capture != nullptr) {
    stream_or_null(stream).capture->broken = true;
    return error(cudaErrorStreamCaptureUnsupported);
  }
  drain(stream_or_null(stream));
  return error(device().sticky);
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
  const Lock lock(device().mutex);
  return stream_or_null(stream).work.empty() ? device().sticky : cudaErrorNotReady;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const Lock lock(device().mutex);
  if (event->stream == nullptr || event->stream == &stream_or_null(stream)) return cudaSuccess;
  if (event->capture != nullptr) {  // the stream joins the capture
    stream_or_null(stream).capture = event->capture;
    return cudaSuccess;
  }
  return put(stream, [from = event->stream, after = event->after] { drain(*from, after); });
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, void (*function)(void*), void* data) {
  const Lock lock(device().mutex);
  return put(stream, [=] { function(data); });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new CUevent_st;
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  const Lock lock(device().mutex);
  if (event->stream != nullptr && event->capture == nullptr) drain(*event->stream, event->after);
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t where) {
  const Lock lock(device().mutex);
  CUstream_st& stream = stream_or_null(where);
  event->stream = &stream;
  event->capture = stream.capture;
  if (stream.capture != nullptr) return cudaSuccess;
  const cudaError_t status = put(where, [event] { event->reached = std::chrono::steady_clock::now(); });
  event->after = stream.put;
  return status;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const Lock lock(device().mutex);
  if (event->capture != nullptr) return error(cudaErrorStreamCaptureUnsupported);
  if (event->stream != nullptr) drain(*event->stream, event->after);
  return error(device().sticky);
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  const Lock lock(device().mutex);
  return event->stream == nullptr || event->stream->done >= event->after ? device().sticky
                                                                         : cudaErrorNotReady;
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t stop) {
  const Lock lock(device().mutex);
  if (cudaEventQuery(start) != cudaSuccess || cudaEventQuery(stop) != cudaSuccess)
    return error(cudaErrorNotReady);
  *milliseconds = std::chrono::duration<float, std::milli>(stop->reached - start->reached).count();
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  const Lock lock(device().mutex);
  if (stream == nullptr || stream->capture != nullptr) return error(cudaErrorStreamCaptureUnsupported);
  stream->capture = new CUgraph_st;
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const Lock lock(device().mutex);
  *graph = stream->capture;
  if (*graph == nullptr) return error(cudaErrorInvalidValue);
  for (CUstream_st* other : device().streams)
    if (other->capture == *graph) other->capture = nullptr;
  if (!(*graph)->broken) return cudaSuccess;
  delete std::exchange(*graph, nullptr);
  return error(cudaErrorStreamCaptureUnsupported);
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  const CUgraph_st* capture = stream_or_null(stream).capture;
  *status = capture == nullptr ? cudaStreamCaptureStatusNone
            : capture->broken  ? cudaStreamCaptureStatusInvalidated
                               : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  *exec = new CUgraphExec_st{graph->work};
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  const Lock lock(device().mutex);
  return put(stream, [work = exec->work] {
    for (const auto& one : work)
      if (device().sticky == cudaSuccess) one();
  });
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  const Lock lock(device().mutex);
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (value < 0 || static_cast<size_t>(value) > kSharedBytesOptIn) return error(cudaErrorInvalidValue);
  device().shared_bytes_of_kernel[kernel] = static_cast<size_t>(value);
  return cudaSuccess;
}
