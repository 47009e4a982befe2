// The flash forward pass (Dao, "FlashAttention-2", 2023). A block of four warps has 128 queries of one head,
// 32 a warp, and goes through the keys in steps of 64 or 32; scores and weights never leave the registers,
// and while one step is computed the keys and values of the next arrive.
#include <cmath>

#include "ops/attention_cuda.cuh"
#include "ops/attention_mma.cuh"

namespace keen::ops::cuda_attention {

namespace {

constexpr int kQueries = 128;
// Of one step: as many as leave room in the registers for their scores.
template <int kD> constexpr int kKeys = kD <= 64 ? 64 : 32;

struct ForwardArgs {
  DeviceHeads<const bf16> q, k, v;
  DeviceHeads<bf16> out;
  float* lse;  // may be null
  int T_q, T_k, H, group, blocks;
  float scale_log2;  // log2(e) / sqrt(D)
};

// The softmax of the warp's 32 rows so far: largest score and this lane's part of the sum of weights. Scores
// are kept times log2(e) / sqrt(D), so that weights are powers of 2.
struct RunningSoftmax {
  float largest[2][2], total[2][2];

  __device__ __forceinline__ RunningSoftmax() {
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        largest[m][half] = -INFINITY;
        total[m][half] = 0;
      }
  }

  // What weights are relative to. A row whose scores are all minus infinity so far has weights of 0, not NaN.
  __device__ __forceinline__ static float base(float largest) {
    return largest == -INFINITY ? 0.0f : largest;
  }

  // Scores become weights; the rows of `sums` follow the new largest scores.
  template <int kN, int kColumns>
  __device__ __forceinline__ void add(Fragments<2, kN>& scores, Fragments<2, kColumns>& sums,
                                      float scale_log2) {
    float correction[2][2];
    bool grown = false;
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float most = -INFINITY;
#pragma unroll
        for (int n = 0; n < kN; ++n)
          most = fmaxf(most, fmaxf(scores.x[m][n][2 * half], scores.x[m][n][2 * half + 1]));
        most = fmaxf(most, __shfl_xor_sync(cuda::kAllLanes, most, 1));
        most = fmaxf(most, __shfl_xor_sync(cuda::kAllLanes, most, 2));
        most = fmaxf(largest[m][half], most * scale_log2);
        const float relative_to = base(most);
        correction[m][half] = ptx::exp2_approx(largest[m][half] - relative_to);
        grown |= !(correction[m][half] == 1);
        largest[m][half] = most;
        float sum = 0;
#pragma unroll
        for (int n = 0; n < kN; ++n)
#pragma unroll
          for (int e = 2 * half; e < 2 * half + 2; ++e) {
            scores.x[m][n][e] = ptx::exp2_approx(scores.x[m][n][e] * scale_log2 - relative_to);
            sum += scores.x[m][n][e];
          }
        total[m][half] = total[m][half] * correction[m][half] + sum;
      }
    if (__ballot_sync(cuda::kAllLanes, grown) == 0) return;  // so it is for most steps but the first
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
      for (int n = 0; n < kColumns; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) sums.x[m][n][e] *= correction[m][e / 2];
  }
};

// Scores of keys behind the `last` that row 0 sees plus the row, to minus infinity. Keys are counted from
// column 0.
template <int kM, int kN>
__device__ __forceinline__ void mask(Fragments<kM, kN>& scores, int last, int lane) {
  using F = Fragments<kM, kN>;
  const int most = last - F::above_diagonal(lane);
#pragma unroll
  for (int m = 0; m < kM; ++m)
#pragma unroll
    for (int n = 0; n < kN; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e)
        if (F::above_diagonal(m, n, e) > most) scores.x[m][n][e] = -INFINITY;
}

template <int kD> constexpr size_t forward_shared_bytes() {
  return (kQueries + 4 * kKeys<kD>)*kD * sizeof(bf16);
}

template <int kD>
__global__ void __launch_bounds__(kTileThreads, kD <= 32 ? 3 : 2) flash_forward_kernel(ForwardArgs a) {
  constexpr int kStep = kKeys<kD>;
  const int lane = static_cast<int>(threadIdx.x) % cuda::kWarp;
  const int warp_row = static_cast<int>(threadIdx.x) / cuda::kWarp * 32;
  // Sequence by sequence, so that its keys stay in the second cache; within one, the last blocks, which see
  // most keys, come first, so that the device is busy to the end.
  const int item = static_cast<int>(blockIdx.x);
  const int h = item % a.H, b = item / a.H / a.blocks, i0 = (a.blocks - 1 - item / a.H % a.blocks) * kQueries;
  const int queries = a.T_q - i0 < kQueries ? a.T_q - i0 : kQueries;
  const int seen = a.T_k - a.T_q + i0;  // the last key that row i0 sees
  const int end = seen + queries;

  bf16* shared = reinterpret_cast<bf16*>(cuda::dynamic_shared());
  const Tile<kD> q{shared}, k{shared + kQueries * kD}, v{k.data + 2 * kStep * kD};
  const auto copy_keys = [&](int key, int stage) {
    k.from(stage * kStep)
        .template copy_async<kStep>(a.k.row(b, key, h / a.group), a.k.token_stride, end - key);
    v.from(stage * kStep)
        .template copy_async<kStep>(a.v.row(b, key, h / a.group), a.v.token_stride, end - key);
  };
  q.template copy_async<kQueries>(a.q.row(b, i0, h), a.q.token_stride, queries);
  copy_keys(0, 0);
  ptx::copy_async_commit();

  const LanePlace<kD> place(lane);
  Fragments<2, kD / 8> sums;
  sums.clear();
  RunningSoftmax softmax;
  for (int key = 0, stage = 0; key < end; key += kStep, stage ^= 1) {
    ptx::copy_async_wait<0>();
    __syncthreads();  // these keys and values are there, and all warps are done with the ones before
    if (key + kStep < end) copy_keys(key + kStep, stage ^ 1);
    ptx::copy_async_commit();
    if (key > seen + warp_row + 31) continue;  // no row of this warp sees them
    Fragments<2, kStep / 8> scores;
    multiply_rows(scores, q.from(warp_row), k.from(stage * kStep), place);
    if (key + kStep - 1 > seen + warp_row) mask(scores, seen + warp_row - key, lane);
    softmax.add(scores, sums, a.scale_log2);
    add_weighted_rows(sums, scores, v.from(stage * kStep), place);
  }

  float factor[2][2];
#pragma unroll
  for (int m = 0; m < 2; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float total = softmax.total[m][half];
      total += __shfl_xor_sync(cuda::kAllLanes, total, 1);
      total += __shfl_xor_sync(cuda::kAllLanes, total, 2);
      factor[m][half] = 1 / total;
      const int i = i0 + warp_row + 16 * m + 8 * half + lane / 4;
      if (a.lse != nullptr && lane % 4 == 0 && i < a.T_q)
        a.lse[(static_cast<int64_t>(b) * a.H + h) * a.T_q + i] =
            RunningSoftmax::base(softmax.largest[m][half]) * kLn2 + logf(total);
    }
  q.from(warp_row).template store_rows<2>(sums, factor, a.out.row(b, i0 + warp_row, h), a.out.token_stride,
                                          queries - warp_row, lane);
}

// ----------------------------------------------------------------------------------------------------------

template <int kD> void forward(Context& ctx, const Attention& args) {
  const int64_t blocks = cuda::ceil_div(args.q.T, kQueries);
  const ForwardArgs a{
      .q = device_heads<bf16>(args.q),
      .k = device_heads<bf16>(args.k),
      .v = device_heads<bf16>(args.v),
      .out = packed_heads<bf16>(args.out, args.q.T, kD),
      .lse = args.lse ? args.lse.as<float>() : nullptr,
      .T_q = static_cast<int>(args.q.T),
      .T_k = static_cast<int>(args.k.T),
      .H = static_cast<int>(args.q.heads),
      .group = static_cast<int>(args.q.heads / args.k.heads),
      .blocks = static_cast<int>(blocks),
      .scale_log2 = static_cast<float>(1.4426950408889634 / std::sqrt(static_cast<double>(kD)))};
  cuda::launch(ctx, flash_forward_kernel<kD>, cuda::grid_of(args.q.B * args.q.heads * blocks), kTileThreads,
               forward_shared_bytes<kD>(), a);
}

}  // namespace

void flash_forward(Context& ctx, const Attention& args) {
  switch (args.q.D) {
    case 32:
      return forward<32>(ctx, args);
    case 64:
      return forward<64>(ctx, args);
    case 96:
      return forward<96>(ctx, args);
    case 128:
      return forward<128>(ctx, args);
    default:
      fail(Exit::internal, "flash_forward: no kernel for head width {}", args.q.D);
  }
}

}  // namespace keen::ops::cuda_attention
