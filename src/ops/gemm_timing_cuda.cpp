#include <algorithm>
#include <cmath>
#include <limits>

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
  if (g.gelu_input) copy.gelu_input = noise(ctx, memory, g.gelu_input, 4 * seed + 3);
  if (g.gelu_at) copy.gelu_at = noise(ctx, memory, g.gelu_at, 4 * seed + 3);
  if (g.a_sums) copy.a_sums = noise(ctx, memory, g.a_sums, 4 * seed + 3);
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

std::optional<size_t> fastest(Context& ctx, const Gemm& g, std::span<const Way> ways) {
  if (is_capturing(cuda::stream_of(ctx))) return {};
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
  const auto time_ms = [&](const Way& way, int repetitions) {
    timer.start();
    for (int i = 0; i < repetitions; ++i)
      if (!way(sets[next++ % sets.size()])) return std::numeric_limits<double>::infinity();
    return timer.stop_ms() / repetitions;
  };
  // The first run of a kernel loads it; the second says how many fill some milliseconds.
  constexpr double kRoundMs = 4, kWorthwhile = 0.99;
  constexpr int kRounds = 3;
  std::optional<size_t> best;
  double best_ms = 0;
  for (size_t i = 0; i < ways.size(); ++i) {
    if (std::isinf(time_ms(ways[i], 1))) continue;
    const int repetitions =
        static_cast<int>(std::clamp(kRoundMs / std::max(time_ms(ways[i], 1), 1e-3), 1.0, 100.0));
    double ms = time_ms(ways[i], repetitions);
    for (int round = 1; round < kRounds && (!best || ms < 1.2 * best_ms); ++round)
      ms = std::min(ms, time_ms(ways[i], repetitions));
    if (best && ms >= kWorthwhile * best_ms) continue;
    best = i;
    best_ms = ms;
  }
  return best;
}

}  // namespace keen::ops
