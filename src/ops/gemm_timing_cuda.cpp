#include <algorithm>

#include "core/timer.cuh"
#include "ops/gemm_product.cuh"

namespace keen::ops {

namespace {

Tensor noise(Context& ctx, Arena& memory, const ConstTensor& like, uint32_t seed) {
  const Tensor x = memory.take(like.shape, like.dtype);
  if (x.data == nullptr) return x;  // only measured
  fill_with_noise(ctx, x, seed);
  return x;
}

// The same product on operands of their own.
Gemm copy_of(Context& ctx, Arena& memory, const Gemm& g, uint32_t seed) {
  Gemm copy = g;
  copy.a = noise(ctx, memory, g.a, 4 * seed);
  copy.b = noise(ctx, memory, g.b, 4 * seed + 1);
  copy.c = noise(ctx, memory, g.c, 4 * seed + 2);
  if (g.bias) copy.bias = noise(ctx, memory, g.bias, 4 * seed + 3);
  return copy;
}

bool is_capturing(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  cuda::check_cuda(cudaStreamIsCapturing(stream, &status), "asking whether a graph is being captured");
  return status != cudaStreamCaptureStatusNone;
}

int64_t free_device_bytes() {
  size_t free_bytes = 0, total_bytes = 0;
  cuda::check_cuda(cudaMemGetInfo(&free_bytes, &total_bytes), "asking for free memory");
  return static_cast<int64_t>(free_bytes);
}

}  // namespace

std::optional<cublasLtMatmulAlgo_t> fastest(Context& ctx, const Product& product, const Gemm& g,
                                            const std::vector<cublasLtMatmulAlgo_t>& algorithms,
                                            Tensor workspace) {
  const cudaStream_t stream = cuda::stream_of(ctx);
  if (is_capturing(stream)) return {};
  Arena memory(Device::cuda);
  copy_of(ctx, memory, g, 0);
  const int64_t set_bytes = memory.peak(), l2_bytes = cuda::limits_of(ctx).l2_bytes;
  const int64_t count = std::clamp<int64_t>(cuda::ceil_div(2 * l2_bytes, set_bytes), 2, 64);
  for (int64_t i = 1; i < count; ++i) copy_of(ctx, memory, g, 0);
  constexpr int64_t kReserveBytes = int64_t{256} << 20;  // for what the driver loads
  if (memory.peak() + kReserveBytes > free_device_bytes()) return {};
  memory.allocate("timing matrix products");
  std::vector<Gemm> sets;
  for (int64_t i = 0; i < count; ++i) sets.push_back(copy_of(ctx, memory, g, static_cast<uint32_t>(i)));

  cuda::Timer timer(ctx);
  size_t next = 0;
  const auto time_ms = [&](const cublasLtMatmulAlgo_t& algorithm, int repetitions) {
    timer.start();
    for (int i = 0; i < repetitions; ++i)
      product.run(sets[next++ % sets.size()], algorithm, workspace, stream);
    return timer.stop_ms() / repetitions;
  };
  // The first run of an algorithm loads its kernel; the second says how many fill some milliseconds.
  constexpr double kRoundMs = 4, kWorthwhile = 0.99;
  constexpr int kRounds = 3;
  std::optional<cublasLtMatmulAlgo_t> best;
  double best_ms = 0;
  for (const cublasLtMatmulAlgo_t& algorithm : algorithms) {
    time_ms(algorithm, 1);
    const int repetitions =
        static_cast<int>(std::clamp(kRoundMs / std::max(time_ms(algorithm, 1), 1e-3), 1.0, 100.0));
    double ms = time_ms(algorithm, repetitions);
    for (int round = 1; round < kRounds && (!best || ms < 1.2 * best_ms); ++round)
      ms = std::min(ms, time_ms(algorithm, repetitions));
    if (best && ms >= kWorthwhile * best_ms) continue;
    best = algorithm;
    best_ms = ms;
  }
  return best;
}

}  // namespace keen::ops
