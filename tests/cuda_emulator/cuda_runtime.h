// A CUDA device made of the host: what keen uses of the CUDA runtime and of the language of kernels, so that
// every .cu file compiles as plain C++ and runs where there is no GPU, under the sanitizers of the host.
//
// The threads of a block are fibers that run one at a time, blocks run one after another, in an order that is
// shuffled anew at every launch (KEEN_EMULATOR_ORDER=ascending: in their own): a missing barrier shows as
// other bits. What is put into a stream runs when somebody waits for it, not before (CUDA_LAUNCH_BLOCKING=1:
// at once): host code that reads too early, or lets go of a pinned buffer too early, sees it. Under the
// address sanitizer device memory is poisoned for the host. Errors that a GPU would answer with a hang or
// with nonsense end a kernel with a message and cudaErrorLaunchFailure: threads that wait at a barrier that
// others never reach, lanes of a warp that meet in different functions, more shared memory or threads than
// there are, host pointers among a kernel's arguments.
//
// Memory of the device: KEEN_EMULATOR_MEMORY_MIB (4096). CUDA_VISIBLE_DEVICES set to nothing: there is no
// device.
#pragma once

#include <math.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <tuple>
#include <type_traits>
#include <utility>

// The words that CUDA adds to the language.
#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __shared__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes) __attribute__((aligned(bytes)))

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
  constexpr operator uint3() const { return {x, y, z}; }
};
struct __align__(8) float2 {
  float x, y;
};
struct float3 {
  float x, y, z;
};
struct __align__(16) float4 {
  float x, y, z, w;
};
struct __align__(8) int2 {
  int x, y;
};
struct __align__(16) int4 {
  int x, y, z, w;
};
struct __align__(8) uint2 {
  unsigned x, y;
};
struct __align__(16) uint4 {
  unsigned x, y, z, w;
};
struct __align__(16) double2 {
  double x, y;
};
struct __align__(16) longlong2 {
  long long x, y;
};
constexpr float2 make_float2(float x, float y) { return {x, y}; }
constexpr float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
constexpr int2 make_int2(int x, int y) { return {x, y}; }
constexpr int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
constexpr uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
constexpr uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
constexpr double2 make_double2(double x, double y) { return {x, y}; }

// ---------------------------------------------------------------------------------------------------------------------
// The runtime

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInvalidMemcpyDirection = 21,
  cudaErrorInsufficientDriver = 35,
  cudaErrorNoDevice = 100,
  cudaErrorNotReady = 600,
  cudaErrorLaunchFailure = 719,
  cudaErrorStreamCaptureUnsupported = 900,
};
enum cudaMemcpyKind {
  cudaMemcpyHostToHost = 0,
  cudaMemcpyHostToDevice = 1,
  cudaMemcpyDeviceToHost = 2,
  cudaMemcpyDeviceToDevice = 3,
  cudaMemcpyDefault = 4,
};
enum cudaFuncAttribute {
  cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
  cudaFuncAttributePreferredSharedMemoryCarveout = 9,
};
enum cudaDeviceAttr {
  cudaDevAttrMaxThreadsPerBlock = 1,
  cudaDevAttrMaxSharedMemoryPerBlock = 8,
  cudaDevAttrWarpSize = 10,
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrL2CacheSize = 38,
  cudaDevAttrMaxThreadsPerMultiProcessor = 39,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrMaxSharedMemoryPerMultiprocessor = 81,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};
enum cudaStreamCaptureMode {
  cudaStreamCaptureModeGlobal = 0,
  cudaStreamCaptureModeThreadLocal = 1,
  cudaStreamCaptureModeRelaxed = 2,
};
enum cudaStreamCaptureStatus {
  cudaStreamCaptureStatusNone = 0,
  cudaStreamCaptureStatusActive = 1,
  cudaStreamCaptureStatusInvalidated = 2,
};
constexpr unsigned cudaStreamDefault = 0, cudaStreamNonBlocking = 1;
constexpr unsigned cudaEventDefault = 0, cudaEventBlockingSync = 1, cudaEventDisableTiming = 2;
constexpr unsigned cudaHostAllocDefault = 0;
constexpr int cudaSharedmemCarveoutMaxShared = 100;

struct cudaDeviceProp {
  char name[256];
  size_t totalGlobalMem, sharedMemPerBlock, sharedMemPerBlockOptin, sharedMemPerMultiprocessor;
  int major, minor, multiProcessorCount, l2CacheSize, maxThreadsPerBlock, warpSize;
};

struct CUstream_st;
struct CUevent_st;
struct CUgraph_st;
struct CUgraphExec_st;
using cudaStream_t = CUstream_st*;
using cudaEvent_t = CUevent_st*;
using cudaGraph_t = CUgraph_st*;
using cudaGraphExec_t = CUgraphExec_st*;

struct cudaLaunchAttribute;
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};

const char* cudaGetErrorName(cudaError_t status);
const char* cudaGetErrorString(cudaError_t status);  // of a failed launch: what went wrong in the last one
cudaError_t cudaGetLastError();
cudaError_t cudaPeekAtLastError();

cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaDriverGetVersion(int* version);
cudaError_t cudaRuntimeGetVersion(int* version);
cudaError_t cudaDeviceSynchronize();
cudaError_t cudaDeviceReset();

cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes);
cudaError_t cudaMalloc(void** memory, size_t bytes);
template <class T> cudaError_t cudaMalloc(T** memory, size_t bytes) {
  return cudaMalloc(reinterpret_cast<void**>(memory), bytes);
}
cudaError_t cudaFree(void* memory);
cudaError_t cudaHostAlloc(void** memory, size_t bytes, unsigned flags);
template <class T> cudaError_t cudaHostAlloc(T** memory, size_t bytes, unsigned flags) {
  return cudaHostAlloc(reinterpret_cast<void**>(memory), bytes, flags);
}
cudaError_t cudaFreeHost(void* memory);
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind);
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream = nullptr);
cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind kind, cudaStream_t stream = nullptr);
cudaError_t cudaMemset(void* memory, int value, size_t bytes);
cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t stream = nullptr);

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
inline cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamQuery(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags = 0);
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, void (*function)(void*), void* data);

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
inline cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return cudaEventCreateWithFlags(event, cudaEventDefault);
}
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream = nullptr);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t stop);

// Graphs: a capture keeps what was put into its stream, a launch of the graph puts it there again.
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph);
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long flags = 0);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value);
template <class T> cudaError_t cudaFuncSetAttribute(T* kernel, cudaFuncAttribute attribute, int value) {
  return cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), attribute, value);
}
template <class T> cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, T*, int, size_t) {
  *blocks = 2;
  return cudaSuccess;
}

// ---------------------------------------------------------------------------------------------------------------------
// What the templates below need of emulator.cpp, and what other emulated libraries build on

namespace cuda_emulator {

// Puts work into a stream (or a capture), as a library does that launches kernels of its own: `work` runs
// with device memory open to it.
cudaError_t enqueue(cudaStream_t stream, std::function<void()> work);
// Whether this lies in memory of the device.
bool on_device(const void* address);
// The device's clock goes forward: what runs now took so much longer.
void take_longer(double milliseconds);
// How often the host has waited until a stream that had work had none left; copies from or to pageable memory
// count, for which the driver may wait.
int64_t idle_waits();

cudaError_t launch(const cudaLaunchConfig_t& config, const void* kernel, std::function<void()> thread);
// False, and the launch's error is set, for memory that no GPU could read.
bool can_be_read_by_kernels(const void* address, int argument);

// Of the thread that runs: waits at the block's or the warp's barrier; the dynamic shared memory of its
// block.
void wait_for_block();
void wait_for_warp(const void* meeting);
unsigned char* dynamic_shared();
// Gives `value` to the lanes of the warp, and fills `result` with the one that `source` gave (its own, where
// the block ends before that lane).
void exchange(const void* meeting, const void* value, size_t bytes, int source, void* result);
unsigned ballot(bool vote);
int lane();
[[noreturn]] void trap(const char* what);

inline void expect_all_lanes(unsigned mask) {
  if (mask != 0xffffffffu) trap("only whole warps are emulated: the mask must be 0xffffffff");
}

}  // namespace cuda_emulator

template <class... Params, class... Args>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Params...), Args&&... args) {
  std::tuple<std::decay_t<Params>...> values(std::forward<Args>(args)...);
  int argument = 0;
  const auto readable = [&argument](const auto& value) {
    ++argument;
    if constexpr (std::is_pointer_v<std::decay_t<decltype(value)>>)
      return cuda_emulator::can_be_read_by_kernels(reinterpret_cast<const void*>(value), argument);
    return true;
  };
  if (!std::apply([&](const auto&... value) { return (readable(value) && ...); }, values))
    return cudaErrorLaunchFailure;
  return cuda_emulator::launch(*config, reinterpret_cast<const void*>(kernel),
                               [kernel, values] { std::apply(kernel, values); });
}

// ---------------------------------------------------------------------------------------------------------------------
// The language of kernels

inline uint3 threadIdx{}, blockIdx{};
inline dim3 blockDim, gridDim;
constexpr int warpSize = 32;

inline void __syncthreads() { cuda_emulator::wait_for_block(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) {
  static const char meeting = 0;
  cuda_emulator::expect_all_lanes(mask);
  cuda_emulator::wait_for_warp(&meeting);
}
inline unsigned __ballot_sync(unsigned mask, int vote) {
  cuda_emulator::expect_all_lanes(mask);
  return cuda_emulator::ballot(vote != 0);
}
inline int __any_sync(unsigned mask, int vote) { return __ballot_sync(mask, vote) != 0; }
inline int __all_sync(unsigned mask, int vote) { return __ballot_sync(mask, !vote) == 0; }

namespace cuda_emulator {
template <class T> T shuffle(const void* meeting, unsigned mask, T value, int source) {
  static_assert(sizeof(T) <= 16 && std::is_trivially_copyable_v<T>);
  expect_all_lanes(mask);
  T result = value;
  exchange(meeting, &value, sizeof(T), source, &result);
  return result;
}
}  // namespace cuda_emulator

// Lanes in groups of `width`; a source outside of a lane's group is the lane itself.
template <class T> T __shfl_sync(unsigned mask, T value, int source, int width = warpSize) {
  static const char meeting = 0;
  const int lane = cuda_emulator::lane();
  return cuda_emulator::shuffle(&meeting, mask, value, lane / width * width + (source & (width - 1)));
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int flip, int width = warpSize) {
  static const char meeting = 0;
  const int lane = cuda_emulator::lane(), source = lane ^ flip;
  return cuda_emulator::shuffle(&meeting, mask, value, source / width > lane / width ? lane : source);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize) {
  static const char meeting = 0;
  const int lane = cuda_emulator::lane(), source = lane + static_cast<int>(delta);
  return cuda_emulator::shuffle(&meeting, mask, value, source / width == lane / width ? source : lane);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize) {
  static const char meeting = 0;
  const int lane = cuda_emulator::lane(), source = lane - static_cast<int>(delta);
  return cuda_emulator::shuffle(&meeting, mask, value, source >= lane / width * width ? source : lane);
}

inline void __threadfence() {}
inline void __threadfence_block() {}
[[noreturn]] inline void __trap() { cuda_emulator::trap("__trap()"); }

// Threads run one at a time: what is atomic on a GPU is plain here. Integers only, as our kernels promise.
template <std::integral T> T atomicAdd(T* at, std::type_identity_t<T> value) {
  return std::exchange(*at, *at + value);
}
template <std::integral T> T atomicMax(T* at, std::type_identity_t<T> value) {
  return std::exchange(*at, std::max<T>(*at, value));
}
template <std::integral T> T atomicMin(T* at, std::type_identity_t<T> value) {
  return std::exchange(*at, std::min<T>(*at, value));
}
template <std::integral T> T atomicOr(T* at, std::type_identity_t<T> value) {
  return std::exchange(*at, *at | value);
}
template <std::integral T> T atomicExch(T* at, std::type_identity_t<T> value) {
  return std::exchange(*at, value);
}
template <std::integral T> T atomicCAS(T* at, std::type_identity_t<T> before, std::type_identity_t<T> value) {
  const T old = *at;
  if (old == before) *at = value;
  return old;
}

template <class T> T __ldg(const T* at) { return *at; }
template <class T> T __ldcs(const T* at) { return *at; }
template <class T> T __ldcg(const T* at) { return *at; }
template <class T> T __ldca(const T* at) { return *at; }
template <class T> void __stcs(T* at, std::type_identity_t<T> value) { *at = value; }
template <class T> void __stcg(T* at, std::type_identity_t<T> value) { *at = value; }

inline float __expf(float x) { return ::expf(x); }
inline float __logf(float x) { return ::logf(x); }
inline float __log2f(float x) { return ::log2f(x); }
inline float __sinf(float x) { return ::sinf(x); }
inline float __cosf(float x) { return ::cosf(x); }
inline float __powf(float x, float y) { return ::powf(x, y); }
inline float __tanhf(float x) { return ::tanhf(x); }
inline float rsqrtf(float x) { return 1.0f / ::sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / ::sqrt(x); }
inline float __frsqrt_rn(float x) { return 1.0f / ::sqrtf(x); }
inline float __fsqrt_rn(float x) { return ::sqrtf(x); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fdividef(float x, float y) { return x / y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fsub_rn(float x, float y) { return x - y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fmaf_rn(float x, float y, float z) { return ::fmaf(x, y, z); }
inline double __dadd_rn(double x, double y) { return x + y; }
inline double __dmul_rn(double x, double y) { return x * y; }
inline double __fma_rn(double x, double y, double z) { return ::fma(x, y, z); }
inline float __saturatef(float x) { return x > 1 ? 1.0f : x > 0 ? x : 0.0f; }

inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline int __float2int_rn(float x) { return static_cast<int>(::rintf(x)); }
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __umulhi(unsigned x, unsigned y) {
  return static_cast<unsigned>(static_cast<uint64_t>(x) * y >> 32);
}

using std::max;
using std::min;
