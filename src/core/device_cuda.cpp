#include <cuda_runtime.h>

#include "core/console.h"
#include "core/cuda.h"
#include "core/launch.cuh"

namespace keen::cuda {

namespace {

// Of this thread; with several ranks on a host each has chosen its own.
int current_device() {
  int device = 0;
  check_cuda(cudaGetDevice(&device), "asking for the current device");
  return device;
}

struct StreamState : LibraryState {
  cudaStream_t stream = nullptr;
  DeviceLimits limits{};

  StreamState() {
    check_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "making a stream");
    const auto attribute = [device = current_device()](cudaDeviceAttr which) {
      int value = 0;
      check_cuda(cudaDeviceGetAttribute(&value, which, device), "asking for an attribute of the device");
      return value;
    };
    limits = {.major = attribute(cudaDevAttrComputeCapabilityMajor),
              .minor = attribute(cudaDevAttrComputeCapabilityMinor),
              .multiprocessors = attribute(cudaDevAttrMultiProcessorCount),
              .shared_bytes_per_block = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin),
              .shared_bytes_per_multiprocessor = attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor),
              .l2_bytes = attribute(cudaDevAttrL2CacheSize)};
  }
  ~StreamState() override { cudaStreamDestroy(stream); }
};

StreamState& state_of(Context& ctx) {
  check(ctx.device == Device::cuda, "stream_of: a context of a CUDA device");
  if (!ctx.stream) ctx.stream = std::make_unique<StreamState>();
  return static_cast<StreamState&>(*ctx.stream);
}

struct Event : LibraryState {
  cudaEvent_t event = nullptr;
  Event() { check_cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "making an event"); }
  ~Event() override { cudaEventDestroy(event); }
};

struct Graph : LibraryState {
  cudaGraphExec_t exec = nullptr;
  ~Graph() override {
    if (exec != nullptr) cudaGraphExecDestroy(exec);
  }
};

// 13000 as "13.0".
std::string version_text(int version) { return fmt::format("{}.{}", version / 1000, version % 1000 / 10); }

// The kind is said rather than inferred, so that a tensor that lies elsewhere than it says is an error.
cudaMemcpyKind kind_of(const Tensor& to, const ConstTensor& from) {
  return to.device == Device::cpu     ? cudaMemcpyDeviceToHost
         : from.device == Device::cpu ? cudaMemcpyHostToDevice
                                      : cudaMemcpyDeviceToDevice;
}

}  // namespace

cudaStream_t stream_of(Context& ctx) { return state_of(ctx).stream; }
const DeviceLimits& limits_of(Context& ctx) { return state_of(ctx).limits; }

void check_cuda(cudaError_t status, const char* what) {
  if (status == cudaSuccess) [[likely]]
    return;
  if (status == cudaErrorNoDevice || status == cudaErrorInsufficientDriver)
    fail(Exit::device,
         "device: no CUDA device can be used here ({}); set \"device\": \"cpu\", or look at what nvidia-smi "
         "says",
         cudaGetErrorString(status));
  fail(Exit::device, "CUDA: {}: {} ({})", what, cudaGetErrorString(status), cudaGetErrorName(status));
}

int device_count() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

DeviceFacts device_facts() {
  cudaDeviceProp properties{};
  check_cuda(cudaGetDeviceProperties(&properties, current_device()), "asking for the device's properties");
  size_t free_bytes = 0, total_bytes = 0;
  check_cuda(cudaMemGetInfo(&free_bytes, &total_bytes), "asking for free memory");
  int driver = 0, runtime = 0;
  check_cuda(cudaDriverGetVersion(&driver), "asking for the driver's version");
  check_cuda(cudaRuntimeGetVersion(&runtime), "asking for the runtime's version");
  return {.name = properties.name,
          .major = properties.major,
          .minor = properties.minor,
          .multiprocessors = properties.multiProcessorCount,
          .memory_bytes = static_cast<int64_t>(total_bytes),
          .free_bytes = static_cast<int64_t>(free_bytes),
          .shared_bytes_per_block = static_cast<int64_t>(properties.sharedMemPerBlockOptin),
          .l2_bytes = properties.l2CacheSize,
          .driver = version_text(driver),
          .runtime = version_text(runtime)};
}

std::byte* allocate(int64_t bytes, const char* purpose) {
  void* memory = nullptr;
  const cudaError_t status = cudaMalloc(&memory, static_cast<size_t>(bytes));
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // it was seen, and the next call shall not report it again
    size_t free_bytes = 0, total_bytes = 0;
    cudaMemGetInfo(&free_bytes, &total_bytes);
    fail(Exit::device,
         "out of device memory: {} needs {} ({} bytes), and {} of {} are free; use fewer "
         "batch.micro_sequences, "
         "\"recompute\": \"block\", or a smaller model (--dry-run shows what takes how much)",
         purpose, short_bytes(bytes), bytes, short_bytes(static_cast<int64_t>(free_bytes)),
         short_bytes(static_cast<int64_t>(total_bytes)));
  }
  check_cuda(status, "allocating memory");
  return static_cast<std::byte*>(memory);
}

void zero(std::byte* memory, int64_t bytes) {
  check_cuda(cudaMemset(memory, 0, static_cast<size_t>(bytes)), "clearing memory");
  check_cuda(cudaDeviceSynchronize(), "clearing memory");
}

void release(std::byte* memory) noexcept { cudaFree(memory); }

std::byte* allocate_pinned(int64_t bytes, const char* purpose) {
  void* memory = nullptr;
  const cudaError_t status = cudaHostAlloc(&memory, static_cast<size_t>(bytes), cudaHostAllocDefault);
  if (status == cudaErrorMemoryAllocation)
    fail(Exit::device, "out of host memory: {} needs {} that cannot be swapped out", purpose,
         short_bytes(bytes));
  check_cuda(status, "allocating pinned memory");
  return static_cast<std::byte*>(memory);
}

void release_pinned(std::byte* memory) noexcept { cudaFreeHost(memory); }

void copy(Context& ctx, const Tensor& to, const ConstTensor& from) {
  check_cuda(
      cudaMemcpyAsync(to.data, from.data, static_cast<size_t>(to.bytes()), kind_of(to, from), stream_of(ctx)),
      "copying");
}

void copy_now(const Tensor& to, const ConstTensor& from) {
  wait_for_device();
  check_cuda(cudaMemcpy(to.data, from.data, static_cast<size_t>(to.bytes()), kind_of(to, from)), "copying");
  wait_for_device();
}

void synchronize(Context& ctx) {
  check_cuda(cudaStreamSynchronize(stream_of(ctx)), "waiting for the device");
}
void wait_for_device() { check_cuda(cudaDeviceSynchronize(), "waiting for the device"); }

std::unique_ptr<LibraryState> make_event() { return std::make_unique<Event>(); }

void mark(LibraryState& event, Context& ctx) {
  check_cuda(cudaEventRecord(static_cast<Event&>(event).event, stream_of(ctx)),
             "marking a place in a stream");
}

void wait(LibraryState& event) {
  check_cuda(cudaEventSynchronize(static_cast<Event&>(event).event), "waiting for the device");
}

std::unique_ptr<LibraryState> record_graph(Context& ctx, const std::function<void()>& work) {
  auto graph = std::make_unique<Graph>();
  const cudaStream_t stream = stream_of(ctx);
  check_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "recording a graph");
  cudaGraph_t recorded = nullptr;
  try {
    work();
  } catch (...) {
    cudaStreamEndCapture(stream, &recorded);
    if (recorded != nullptr) cudaGraphDestroy(recorded);
    throw;
  }
  check_cuda(cudaStreamEndCapture(stream, &recorded), "recording a graph");
  const cudaError_t status = cudaGraphInstantiate(&graph->exec, recorded, 0);
  cudaGraphDestroy(recorded);
  check_cuda(status, "making a graph");
  return graph;
}

void launch_graph(Context& ctx, LibraryState& graph) {
  check_cuda(cudaGraphLaunch(static_cast<Graph&>(graph).exec, stream_of(ctx)), "launching a graph");
}

}  // namespace keen::cuda
