// What the parts of the emulator share: the device's memory, its streams, and the running of kernels.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "cuda_runtime.h"

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

inline constexpr int kWarp = 32, kMultiprocessors = 3;
inline constexpr size_t kSharedBytes = size_t{48} << 10, kSharedBytesOptIn = size_t{227} << 10;

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
  int open = 0;                                 // depth of work that may touch device memory
  std::chrono::steady_clock::duration ahead{};  // what the device's clock is before the host's
  int64_t idle_waits = 0;
};

Device& device();

using Lock = std::lock_guard<std::recursive_mutex>;

bool environment_is(const char* name, const char* value);

// Remembers an error for cudaGetLastError, and returns it.
cudaError_t error(cudaError_t status);
// Says what a kernel did wrong; every later call fails too.
cudaError_t failed_launch(const std::string& message);

// The allocation that an address lies in, or null.
const std::pair<const std::byte* const, Allocation>* allocation_of(const void* address);
bool lies_in(const void* address, size_t bytes, bool on_device);

// Device memory is poison for the host, but for what runs in a stream.
void poison(const std::byte* memory, size_t bytes, bool closed);

CUstream_st& stream_or_null(cudaStream_t stream);
// Runs what was put into a stream, up to `until` pieces since its beginning.
void drain(CUstream_st& stream, uint64_t until = ~uint64_t{0});
// The same because the host waits for it.
void wait_for(CUstream_st& stream, uint64_t until = ~uint64_t{0});
cudaError_t put(cudaStream_t where, std::function<void()> work);
// A call that waits cannot be part of a graph, and spoils the capture.
bool waits_in_capture();

// Runs a whole grid, now. Errors are failed_launch's.
void run_kernel(const cudaLaunchConfig_t& config, const void* kernel, const std::function<void()>& thread);

}  // namespace cuda_emulator
