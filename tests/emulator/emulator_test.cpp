// What the CUDA emulator promises: that right kernels run, and that wrong ones are caught.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <vector>

#include "core/dynamic_shared.cuh"
#include "core/warp.cuh"

namespace {

// Memory of the device that lives as long as the object.
template <class T> class OnDevice {
 public:
  explicit OnDevice(size_t count) : count_(count) {
    if (cudaMalloc(&data_, count * sizeof(T)) != cudaSuccess) std::abort();
  }
  ~OnDevice() { cudaFree(data_); }
  OnDevice(const OnDevice&) = delete;
  T* data() const { return data_; }
  std::vector<T> fetch() const {
    std::vector<T> values(count_);
    cudaMemcpy(values.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost);
    return values;
  }
  void put(const std::vector<T>& values) {
    cudaMemcpy(data_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice);
  }

 private:
  T* data_ = nullptr;
  size_t count_;
};

template <class... Params, class... Args>
cudaError_t launch(void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared_bytes, Args... args) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  return cudaLaunchKernelEx(&config, kernel, args...);
}

// Launches and waits; the message of the failure, or nothing. The device is fit for use again afterwards.
template <class... Params, class... Args>
std::string failure(void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared_bytes, Args... args) {
  ::testing::internal::CaptureStderr();
  cudaError_t status = launch(kernel, grid, block, shared_bytes, args...);
  if (status == cudaSuccess) status = cudaDeviceSynchronize();
  const std::string message = status == cudaSuccess ? "" : cudaGetErrorString(status);
  cudaDeviceReset();
  const std::string shown = ::testing::internal::GetCapturedStderr();
  EXPECT_NE(shown.find(message), std::string::npos) << shown;
  return message;
}

// --- Kernels that are right
// ------------------------------------------------------------------------------------------

__global__ void count_visits(int* visits) {
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  visits[block * blockDim.x * blockDim.y * blockDim.z + thread] += 1;
}

TEST(Emulator, EveryThreadOfEveryBlockRunsOnce) {
  OnDevice<int> visits(2 * 3 * 4 * 5 * 3 * 2);
  visits.put(std::vector<int>(720, 0));
  EXPECT_EQ(launch(count_visits, dim3(2, 3, 4), dim3(5, 3, 2), 0, visits.data()), cudaSuccess);
  cudaDeviceSynchronize();
  EXPECT_EQ(visits.fetch(), std::vector<int>(720, 1));
}

__global__ void shuffles(int* out) {
  const int i = static_cast<int>(threadIdx.x), lane = i % 32;
  int* mine = out + i * 7;
  mine[0] = __shfl_xor_sync(0xffffffffu, i, 5);
  mine[1] = __shfl_down_sync(0xffffffffu, i, 3);
  mine[2] = __shfl_up_sync(0xffffffffu, i, 3);
  mine[3] = __shfl_sync(0xffffffffu, i, 9);
  mine[4] = static_cast<int>(__ballot_sync(0xffffffffu, lane % 3 == 0));
  mine[5] = __shfl_xor_sync(0xffffffffu, i, 4, 4);
  mine[6] = __any_sync(0xffffffffu, lane == 31) + 2 * __all_sync(0xffffffffu, lane < 32);
}

TEST(Emulator, LanesOfAWarpExchangeValues) {
  const int threads = 70;  // the last warp has 6 lanes
  OnDevice<int> out(threads * 7);
  EXPECT_EQ(launch(shuffles, 1, threads, 0, out.data()), cudaSuccess);
  cudaDeviceSynchronize();
  const std::vector<int> got = out.fetch();
  const auto value_of = [&](int i, int source) {
    const int from = i / 32 * 32 + source;
    return from < threads ? from : i;
  };
  for (int i = 0; i < threads; ++i) {
    const int lane = i % 32, whole = i < 64;
    unsigned ballot = 0;
    for (int l = 0; l < 32 && i / 32 * 32 + l < threads; ++l)
      ballot |= static_cast<unsigned>(l % 3 == 0) << l;
    EXPECT_EQ(got[static_cast<size_t>(i * 7 + 0)], value_of(i, lane ^ 5));
    EXPECT_EQ(got[static_cast<size_t>(i * 7 + 1)], lane + 3 < 32 ? value_of(i, lane + 3) : i);
    EXPECT_EQ(got[static_cast<size_t>(i * 7 + 2)], lane >= 3 ? i - 3 : i);
    EXPECT_EQ(got[static_cast<size_t>(i * 7 + 3)], value_of(i, 9));
    EXPECT_EQ(got[static_cast<size_t>(i * 7 + 4)], static_cast<int>(ballot));
    EXPECT_EQ(got[static_cast<size_t>(i * 7 + 5)], lane % 8 < 4 ? i : value_of(i, lane ^ 4));
    EXPECT_EQ(got[static_cast<size_t>(i * 7 + 6)], (whole ? 1 : 0) + 2);
  }
}

__global__ void block_reductions(float* out, const float* in) {
  const float x = in[blockIdx.x * blockDim.x + threadIdx.x];
  const float sum = keen::cuda::block_sum(x), most = keen::cuda::block_max(x, -1e30f),
              again = keen::cuda::block_sum(sum);
  float* mine = out + (blockIdx.x * blockDim.x + threadIdx.x) * 3;
  mine[0] = sum, mine[1] = most, mine[2] = again;
}

TEST(Emulator, BlocksReduceInAFixedOrder) {
  const unsigned blocks = 3, threads = 96;
  OnDevice<float> in(blocks * threads), out(blocks * threads * 3);
  std::vector<float> values;
  for (unsigned i = 0; i < blocks * threads; ++i) values.push_back(std::sin(static_cast<float>(i)) * 3.7f);
  in.put(values);
  std::vector<float> first;
  for (int run = 0; run < 4; ++run) {
    EXPECT_EQ(launch(block_reductions, blocks, threads, 0, out.data(), in.data()), cudaSuccess);
    cudaDeviceSynchronize();
    const std::vector<float> got = out.fetch();
    if (run == 0) first = got;
    EXPECT_EQ(got, first);
  }
  for (unsigned i = 0; i < blocks * threads; ++i) {
    const unsigned begin = i / threads * threads;
    double sum = 0, most = -1e30;
    for (unsigned j = begin; j < begin + threads; ++j)
      sum += values[j], most = std::max<double>(most, values[j]);
    EXPECT_NEAR(first[i * 3], sum, 1e-4);
    EXPECT_EQ(first[i * 3 + 1], static_cast<float>(most));
    EXPECT_EQ(first[i * 3 + 2], first[begin * 3 + 2]);
  }
}

__global__ void reverse_in_shared(float* out, int* was_nan) {
  auto* shared = reinterpret_cast<float*>(keen::cuda::dynamic_shared());
  const unsigned i = threadIdx.x, n = blockDim.x;
  was_nan[i] = std::isnan(shared[i]);
  __syncthreads();
  shared[i] = static_cast<float>(i);
  __syncthreads();
  out[i] = shared[n - 1 - i];
}

TEST(Emulator, DynamicSharedMemoryStartsAsNan) {
  OnDevice<float> out(64);
  OnDevice<int> was_nan(64);
  for (int run = 0; run < 2; ++run) {
    EXPECT_EQ(failure(reverse_in_shared, 1, 64, 64 * sizeof(float), out.data(), was_nan.data()), "");
    for (unsigned i = 0; i < 64; ++i) EXPECT_EQ(out.fetch()[i], static_cast<float>(63 - i));
    bool all = true;
    for (const int nan : was_nan.fetch()) all = all && nan != 0;
    EXPECT_TRUE(all);
  }
}

// --- Kernels that are wrong
// ------------------------------------------------------------------------------------------

// The barrier between writing and reading is missing.
__global__ void race_of_warps(int* out) {
  __shared__ int values[64];
  values[threadIdx.x] = -1;
  __syncthreads();
  values[threadIdx.x] = static_cast<int>(threadIdx.x);
  out[threadIdx.x] = values[63 - threadIdx.x];
}

TEST(Emulator, MissingBarriersShowAsOtherBits) {
  OnDevice<int> out(64);
  std::vector<std::vector<int>> runs;
  for (int run = 0; run < 8; ++run) {
    EXPECT_EQ(failure(race_of_warps, 1, 64, 0, out.data()), "");
    runs.push_back(out.fetch());
  }
  EXPECT_TRUE(std::any_of(runs.begin(), runs.end(), [&](const auto& run) { return run != runs[0]; }));
}

__global__ void returns_before_the_barrier(int* out) {
  if (threadIdx.x == 3) return;
  __syncthreads();
  out[threadIdx.x] = 1;
}
__global__ void half_a_warp_shuffles(int* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1, 1);
}
__global__ void lanes_in_different_functions(int* out) {
  if (threadIdx.x < 16)
    out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1, 1);
  else
    __syncwarp();
}
__global__ void warp_at_barrier_lane_at_shuffle(int* out) {
  if (threadIdx.x == 0)
    out[0] = __shfl_sync(0xffffffffu, 1, 0);
  else
    __syncthreads();
}
__global__ void partial_mask(int* out) { out[threadIdx.x] = __shfl_sync(0xffffu, 1, 0); }
__global__ void traps(int*) {
  if (threadIdx.x == 7) __trap();
}

TEST(Emulator, DivergenceEndsAKernelLoudly) {
  OnDevice<int> out(64);
  const auto message = [&](auto kernel) { return failure(kernel, 2, 64, 0, out.data()); };
  EXPECT_NE(message(returns_before_the_barrier).find("a barrier that not every thread reaches"),
            std::string::npos);
  EXPECT_NE(message(returns_before_the_barrier).find("thread (3, 0, 0) has returned"), std::string::npos);
  EXPECT_NE(message(half_a_warp_shuffles).find("lanes of a warp do not meet"), std::string::npos);
  EXPECT_NE(message(lanes_in_different_functions).find("in another function"), std::string::npos);
  EXPECT_NE(message(warp_at_barrier_lane_at_shuffle).find("waits for its warp"), std::string::npos);
  EXPECT_NE(message(partial_mask).find("the mask must be"), std::string::npos);
  EXPECT_NE(message(traps).find("thread (7, 0, 0)"), std::string::npos);
  EXPECT_EQ(failure(count_visits, 1, 64, 0, out.data()), "");  // and the device goes on
}

TEST(Emulator, HostPointersAmongArgumentsAreCaught) {
  int on_host = 0;
  EXPECT_NE(
      failure(count_visits, 1, 1, 0, &on_host).find("argument 1 of a kernel points to memory of the host"),
      std::string::npos);
}

TEST(Emulator, FailuresStayUntilTheDeviceIsReset) {
  OnDevice<int> out(64);
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(launch(returns_before_the_barrier, 1, 64, 0, out.data()), cudaSuccess);  // nobody has waited yet
  EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorLaunchFailure);
  EXPECT_EQ(launch(count_visits, 1, 64, 0, out.data()), cudaErrorLaunchFailure);
  cudaDeviceReset();
  EXPECT_EQ(launch(count_visits, 1, 64, 0, out.data()), cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  ::testing::internal::GetCapturedStderr();
}

// --- Limits
// ----------------------------------------------------------------------------------------------------------

TEST(Emulator, LimitsOfALaunch) {
  OnDevice<int> visits(2048);
  EXPECT_EQ(launch(count_visits, 1, 1025, 0, visits.data()), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch(count_visits, 1, dim3(1, 1, 65), 0, visits.data()), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch(count_visits, dim3(1, 65536), 1, 0, visits.data()), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch(count_visits, dim3(0), 1, 0, visits.data()), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch(count_visits, 1, 1, (48 << 10) + 1, visits.data()), cudaErrorInvalidValue);
  const auto ask = [](int bytes) {
    return cudaFuncSetAttribute(count_visits, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  };
  EXPECT_EQ(ask((227 << 10) + 1), cudaErrorInvalidValue);
  EXPECT_EQ(ask(227 << 10), cudaSuccess);
  EXPECT_EQ(launch(count_visits, 1, 1, 227 << 10, visits.data()), cudaSuccess);
  cudaDeviceSynchronize();
  cudaDeviceReset();
}

TEST(Emulator, MemoryIsBounded) {
  setenv("KEEN_EMULATOR_MEMORY_MIB", "1", 1);
  void *first = nullptr, *second = nullptr;
  size_t free_bytes = 0, total_bytes = 0;
  EXPECT_EQ(cudaMalloc(&first, 900 << 10), cudaSuccess);
  EXPECT_EQ(cudaMalloc(&second, 200 << 10), cudaErrorMemoryAllocation);
  cudaMemGetInfo(&free_bytes, &total_bytes);
  EXPECT_EQ(total_bytes, size_t{1} << 20);
  EXPECT_EQ(free_bytes, size_t{124} << 10);
  EXPECT_EQ(cudaFree(first), cudaSuccess);
  EXPECT_EQ(cudaMalloc(&second, 200 << 10), cudaSuccess);
  EXPECT_EQ(cudaFree(second), cudaSuccess);
  unsetenv("KEEN_EMULATOR_MEMORY_MIB");
  cudaDeviceReset();
}

// --- Memory, streams, graphs
// -----------------------------------------------------------------------------------------

TEST(Emulator, CopiesGoWhereTheySay) {
  OnDevice<int> a(4), b(4);
  std::vector<int> host = {1, 2, 3, 4};
  const size_t bytes = 16;
  EXPECT_EQ(cudaMemcpy(a.data(), host.data(), bytes, cudaMemcpyDeviceToDevice),
            cudaErrorInvalidMemcpyDirection);
  EXPECT_EQ(cudaMemcpy(host.data(), a.data(), bytes, cudaMemcpyHostToDevice),
            cudaErrorInvalidMemcpyDirection);
  EXPECT_EQ(cudaMemcpy(a.data(), host.data(), bytes + 4, cudaMemcpyHostToDevice),
            cudaErrorInvalidMemcpyDirection);
  EXPECT_EQ(cudaMemcpy(a.data(), host.data(), bytes, cudaMemcpyHostToDevice), cudaSuccess);
  EXPECT_EQ(cudaMemcpy(b.data(), a.data(), bytes, cudaMemcpyDeviceToDevice), cudaSuccess);
  EXPECT_EQ(b.fetch(), host);
  cudaDeviceReset();
}

__global__ void add_one(int* x) { x[threadIdx.x] += 1; }

struct Pinned {
  int* data = nullptr;
  explicit Pinned(size_t count) { cudaHostAlloc(&data, count * sizeof(int), cudaHostAllocDefault); }
  ~Pinned() { cudaFreeHost(data); }
};

TEST(Emulator, StreamsRunWhenSomebodyWaits) {
  OnDevice<int> x(1);
  x.put({5});
  Pinned in(1), out(1);
  cudaStream_t stream = nullptr;
  cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  *in.data = 7;
  *out.data = -1;
  cudaMemcpyAsync(x.data(), in.data, 4, cudaMemcpyHostToDevice, stream);
  cudaMemcpyAsync(out.data, x.data(), 4, cudaMemcpyDeviceToHost, stream);
  EXPECT_EQ(cudaStreamQuery(stream), cudaErrorNotReady);
  EXPECT_EQ(*out.data, -1);
  *in.data = 8;  // too early: the copy has not been made
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  EXPECT_EQ(*out.data, 8);
  // Pageable memory is free on return.
  int pageable = 3;
  cudaMemcpyAsync(x.data(), &pageable, 4, cudaMemcpyHostToDevice, stream);
  pageable = 4;
  cudaMemcpyAsync(&pageable, x.data(), 4, cudaMemcpyDeviceToHost, stream);
  EXPECT_EQ(pageable, 3);
  cudaStreamDestroy(stream);
}

TEST(Emulator, CountsHowOftenTheHostLetsAStreamBecomeIdle) {
  OnDevice<int> x(1);
  Pinned in(1);
  cudaStream_t stream = nullptr;
  cudaEvent_t early = nullptr;
  cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  cudaEventCreateWithFlags(&early, cudaEventDisableTiming);
  const auto copy = [&](const int* from) {
    cudaMemcpyAsync(x.data(), from, 4, cudaMemcpyHostToDevice, stream);
  };
  const auto counts = [](auto&& calls) {
    const int64_t before = cuda_emulator::idle_waits();
    calls();
    return cuda_emulator::idle_waits() - before;
  };
  int pageable = 7;
  copy(in.data);
  cudaEventRecord(early, stream);
  copy(in.data);
  EXPECT_EQ(counts([&] { cudaEventSynchronize(early); }), 0) << "the stream has more to do";
  EXPECT_EQ(counts([&] { copy(&pageable); }), 1) << "the driver may wait before it stages";
  EXPECT_EQ(counts([&] { cudaStreamSynchronize(stream); }), 1);
  EXPECT_EQ(counts([&] { cudaStreamSynchronize(stream); }), 0) << "nothing to wait for";
  EXPECT_EQ(counts([&] { copy(&pageable); }), 0);
  cudaEventDestroy(early);
  cudaStreamDestroy(stream);
  cudaDeviceReset();
}

TEST(Emulator, EventsOrderStreams) {
  OnDevice<int> x(1);
  x.put({0});
  cudaStream_t one = nullptr, two = nullptr;
  cudaStreamCreate(&one);
  cudaStreamCreate(&two);
  cudaEvent_t event = nullptr, early = nullptr;
  cudaEventCreate(&event);
  cudaEventCreate(&early);
  cudaLaunchConfig_t config{};
  config.stream = one;
  cudaEventRecord(early, one);
  cudaLaunchKernelEx(&config, add_one, x.data());
  cudaEventRecord(event, one);
  cudaLaunchKernelEx(&config, add_one, x.data());
  Pinned out(1);
  cudaStreamWaitEvent(two, event);
  cudaMemcpyAsync(out.data, x.data(), 4, cudaMemcpyDeviceToHost, two);
  EXPECT_EQ(cudaEventQuery(event), cudaErrorNotReady);
  cudaStreamSynchronize(two);
  EXPECT_EQ(*out.data, 1);  // what came after the event has not run yet
  EXPECT_EQ(cudaEventQuery(event), cudaSuccess);
  float milliseconds = -1;
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, early, event), cudaSuccess);
  EXPECT_GE(milliseconds, 0);
  cudaStreamSynchronize(one);
  EXPECT_EQ(x.fetch()[0], 2);
  for (cudaEvent_t e : {event, early}) cudaEventDestroy(e);
  for (cudaStream_t s : {one, two}) cudaStreamDestroy(s);
}

TEST(Emulator, GraphsReplayWhatWasRecorded) {
  OnDevice<int> x(1);
  x.put({10});
  cudaStream_t stream = nullptr;
  cudaStreamCreate(&stream);
  cudaLaunchConfig_t config{};
  config.stream = stream;
  EXPECT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  cudaLaunchKernelEx(&config, add_one, x.data());
  cudaLaunchKernelEx(&config, add_one, x.data());
  cudaGraph_t graph = nullptr;
  EXPECT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
  cudaGraphExec_t exec = nullptr;
  EXPECT_EQ(cudaGraphInstantiate(&exec, graph), cudaSuccess);
  cudaGraphDestroy(graph);
  cudaStreamSynchronize(stream);
  EXPECT_EQ(x.fetch()[0], 10);  // recorded, not run
  for (int i = 0; i < 3; ++i) EXPECT_EQ(cudaGraphLaunch(exec, stream), cudaSuccess);
  cudaStreamSynchronize(stream);
  EXPECT_EQ(x.fetch()[0], 16);
  cudaGraphExecDestroy(exec);

  // What waits, allocates or stages cannot be recorded.
  const auto broken = [&](const std::function<cudaError_t()>& forbidden) {
    cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
    EXPECT_EQ(forbidden(), cudaErrorStreamCaptureUnsupported);
    const bool spoiled = cudaStreamEndCapture(stream, &graph) != cudaSuccess;
    if (!spoiled) cudaGraphDestroy(graph);
    return spoiled;
  };
  EXPECT_TRUE(broken([&] { return cudaStreamSynchronize(stream); }));
  EXPECT_TRUE(broken([&] { return cudaDeviceSynchronize(); }));
  void* memory = nullptr;
  EXPECT_TRUE(broken([&] { return cudaMalloc(&memory, 4); }));
  int pageable = 0;
  broken([&] { return cudaMemcpyAsync(x.data(), &pageable, 4, cudaMemcpyHostToDevice, stream); });
  cudaStreamDestroy(stream);
  cudaDeviceReset();
}

}  // namespace
