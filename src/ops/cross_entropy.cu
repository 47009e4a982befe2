// A block takes a row of logits, reads it once, and keeps it in shared memory for the gradient where it fits.
#include <cmath>

#include "core/launch.cuh"
#include "ops/cross_entropy.h"
#include "ops/exp.cuh"
#include "ops/vec.cuh"

namespace keen::ops {

namespace {

using cuda::Pack;

constexpr int kMostThreads = 1024;
constexpr int kQuad = Pack<float>::kSize;

// The threads of a block go over a row of `count` elements, of which `lead` stand before the first address
// that is a multiple of a Pack: read(x, index), then use(x, index), where x holds kVec elements in Packs and
// 1 at both ends. Several reads come before their uses, so that many are under way.
template <int kVec, class Read, class Use>
__device__ __forceinline__ void for_row(int64_t count, int64_t lead, const Read& read, const Use& use) {
  constexpr int kBatch = 4;
  const int64_t packs = (count - lead) / kVec, tail = lead + packs * kVec, threads = blockDim.x;
  const auto single = [&](int64_t i) {
    float x[1];
    read(x, i);
    use(x, i);
  };
  for (int64_t i = threadIdx.x; i < lead; i += threads) single(i);
  for (int64_t first = threadIdx.x; first < packs; first += kBatch * threads) {
    float x[kBatch][kVec];
#pragma unroll
    for (int k = 0; k < kBatch; ++k)
      if (first + k * threads < packs) read(x[k], lead + (first + k * threads) * kVec);
#pragma unroll
    for (int k = 0; k < kBatch; ++k)
      if (first + k * threads < packs) use(x[k], lead + (first + k * threads) * kVec);
  }
  for (int64_t i = tail + threadIdx.x; i < count; i += threads) single(i);
}

// Elements before the first one of a row, `offset` elements into an aligned array, that begins a Pack of
// kVec.
template <int kVec> __device__ __forceinline__ int64_t lead_of(int64_t offset, int64_t count) {
  return std::min((kVec - offset % kVec) % kVec, count);
}

// The largest logit that a thread has seen, and the sum of exp(logit - largest). All threads of a block join
// theirs.
struct Exponentials {
  float largest = -INFINITY, sum = 0;

  // -infinity less -infinity is no number, yet exp(-infinity) is 0 whatever the shift.
  __device__ float shift() const { return largest == -INFINITY ? 0.0f : largest; }

  template <int kVec> __device__ __forceinline__ void add(const float (&x)[kVec]) {
    float top = x[0];
#pragma unroll
    for (int i = 1; i < kVec; ++i) top = fmaxf(top, x[i]);
    if (top > largest) {
      sum *= exp_approx(largest - top);
      largest = top;
    }
#pragma unroll
    for (int i = 0; i < kVec; ++i) sum += exp_approx(x[i] - shift());
  }
  __device__ __forceinline__ void join_block() {
    const float top = cuda::block_max(largest, -INFINITY);
    sum = cuda::block_sum(largest == -INFINITY ? sum : sum * exp_approx(largest - top));
    largest = top;
  }
};

template <class T> struct Rows {
  float* losses;
  T* dlogits;  // may be logits; null: losses alone
  const float* logits;
  const int32_t* targets;
  int64_t V, stride;  // elements of a row, and from row to row
  float scale;
};

// kVec: elements of dlogits written at once; 1 where an array is not aligned.
template <class T, int kVec, bool kKeep>
__global__ void __launch_bounds__(kMostThreads, 1) cross_entropy_kernel(Rows<T> a) {
  constexpr int kReadVec = kVec == 1 ? 1 : kQuad;
  const int64_t row = blockIdx.x, offset = row * a.stride;
  const float* logits = a.logits + offset;
  // Kept at the same distance from a multiple of 16 bytes as in memory.
  float* kept = reinterpret_cast<float*>(cuda::dynamic_shared()) + offset % kQuad;

  Exponentials exponentials;
  for_row<kReadVec>(
      a.V, lead_of<kReadVec>(offset, a.V),
      [&]<int kWidth>(float(&x)[kWidth], int64_t i) { load(x, logits + i); },
      [&]<int kWidth>(const float(&x)[kWidth], int64_t i) {
        if constexpr (kKeep) store(kept + i, x);
        exponentials.add(x);
      });
  const int64_t target = a.targets[row];
  const float logit_at_target = logits[target];
  exponentials.join_block();  // its barriers also stand between this read of logits and their overwriting
  if (threadIdx.x == 0) a.losses[row] = logf(exponentials.sum) - (logit_at_target - exponentials.largest);
  if (a.dlogits == nullptr) return;

  T* dlogits = a.dlogits + offset;
  const float factor = a.scale / exponentials.sum, top = exponentials.largest;
  const float* from = kKeep ? kept : logits;
  for_row<kVec>(
      a.V, lead_of<kVec>(offset, a.V), [&]<int kWidth>(float(&x)[kWidth], int64_t i) { load(x, from + i); },
      [&]<int kWidth>(float(&x)[kWidth], int64_t i) {
#pragma unroll
        for (int j = 0; j < kWidth; ++j) {
          x[j] = exp_approx(x[j] - top) * factor;
          if (i + j == target) x[j] -= a.scale;
        }
        store(dlogits + i, x);
      });
  for (int64_t i = a.V + threadIdx.x; i < a.stride; i += blockDim.x) dlogits[i] = cuda::from_float<T>(0);
}

template <class T> void cross_entropy_rows(Context& ctx, const CrossEntropy& args, T* dlogits) {
  const auto [rows, stride] = dims<2>(args.logits);
  if (rows == 0) return;
  const int64_t columns = args.columns > 0 ? args.columns : stride;
  const Rows<T> kernel_args{.losses = args.losses.as<float>(),
                            .dlogits = dlogits,
                            .logits = args.logits.as<float>(),
                            .targets = args.targets.as<int32_t>(),
                            .V = columns,
                            .stride = stride,
                            .scale = static_cast<float>(args.scale)};
  // Each thread has about 16 elements at least, so that a narrow row does not pay for barriers of many warps.
  const int threads = static_cast<int>(
      std::clamp<int64_t>(columns / 16 / cuda::kWarp * cuda::kWarp, cuda::kWarp, kMostThreads));
  const int64_t row_bytes = (columns + kQuad - 1) * static_cast<int64_t>(sizeof(float));
  const bool keeps = dlogits != nullptr && row_bytes + 1024 <= cuda::limits_of(ctx).shared_bytes_per_block;
  const dim3 grid = cuda::grid_of(rows);
  with_vec<T>(cuda::packable<T>(0, args.logits.data, args.dlogits.data), [&]<int kVec>() {
    if (keeps)
      cuda::launch(ctx, cross_entropy_kernel<T, kVec, true>, grid, threads, static_cast<size_t>(row_bytes),
                   kernel_args);
    else
      cuda::launch(ctx, cross_entropy_kernel<T, kVec, false>, grid, threads, 0, kernel_args);
  });
}

}  // namespace

template <> void cross_entropy_on<Device::cuda>(Context& ctx, const CrossEntropy& args) {
  if (args.dlogits && args.dlogits.dtype == DType::bf16)
    return cross_entropy_rows(ctx, args, args.dlogits.as<bf16>());
  check(args.logits.dtype == DType::f32, "cross_entropy: CUDA computes in float32");
  cross_entropy_rows(ctx, args, args.dlogits ? args.dlogits.as<float>() : nullptr);
}

}  // namespace keen::ops
