// The flash backward pass, in two kernels that compute the weights anew from lse, each sum by one warp in one
// order. dk and dv: a block of four warps has 64 or 128 keys of one key head, and goes through the queries
// that see them, head by head; it computes transposed scores (rows are keys), so that weights and gradients
// of scores are factors of the next products as they lie in the registers. dq: a block has 128 queries, and
// goes through the keys that they see.
#include <cmath>

#include "ops/attention_cuda.cuh"
#include "ops/attention_mma.cuh"

namespace keen::ops::cuda_attention {

namespace {

struct BackwardArgs {
  DeviceHeads<bf16> dq, dk, dv;
  DeviceHeads<const bf16> dout, q, k, v;
  const float *lse, *delta;  // (B, H, T)
  int tokens, H, K, group, blocks;
  float scale, scale_log2;  // 1 / sqrt(D), and that times log2(e)

  __device__ __forceinline__ int64_t first_row(int b, int h) const {
    return (static_cast<int64_t>(b) * H + h) * tokens;
  }
};

// Shapes of the kernel for dk and dv: groups of 16 keys a warp, queries a step, by what the registers hold.
template <int kD> struct KeyBlock {
  static constexpr int kM = kD <= 64 ? 2 : 1, kKeys = 64 * kM, kStep = 32;
  static constexpr size_t shared_bytes() {
    return 2 * (kKeys + 2 * kStep) * kD * sizeof(bf16) + 4 * kStep * sizeof(float);
  }
};
// And of that for dq.
template <int kD> struct QueryBlock {
  static constexpr int kQueries = 128, kStep = 32;
  static constexpr size_t shared_bytes() {
    return 2 * (kQueries + 2 * kStep) * kD * sizeof(bf16) + 2 * kQueries * sizeof(float);
  }
};

// p = exp(s - lse), 0 where the key is not visible.
__device__ __forceinline__ float weight(float score, float scale_log2, float lse_log2, bool visible) {
  return visible ? ptx::exp2_approx(score * scale_log2 - lse_log2) : 0.0f;
}

template <int kD>
__global__ void __launch_bounds__(kTileThreads, 2) flash_backward_keys_kernel(BackwardArgs a) {
  using Block = KeyBlock<kD>;
  constexpr int kM = Block::kM, kStep = Block::kStep;
  using Scores = Fragments<kM, kStep / 8>;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % cuda::kWarp;
  // The first keys are seen by most queries and come first.
  const int item = static_cast<int>(blockIdx.x);
  const int key_head = item % a.K, b = item / a.K / a.blocks, j0 = item / a.K % a.blocks * Block::kKeys;
  const int warp_row = thread / cuda::kWarp * 16 * kM, j_warp = j0 + warp_row;
  const int keys = a.tokens - j0;  // behind them rows are zeros and are not stored

  bf16* shared = reinterpret_cast<bf16*>(cuda::dynamic_shared());
  const Tile<kD> k{shared}, v{k.data + Block::kKeys * kD}, q{v.data + Block::kKeys * kD},
      dout{q.data + 2 * kStep * kD};
  float* lse = reinterpret_cast<float*>(dout.data + 2 * kStep * kD);
  float* delta = lse + 2 * kStep;
  // Queries behind the last are zeros with lse and delta of 0: their weights are 1, and add zeros.
  const auto copy_queries = [&](int h, int i, int stage) {
    q.from(stage * kStep).template copy_async<kStep>(a.q.row(b, i, h), a.q.token_stride, a.tokens - i);
    dout.from(stage * kStep)
        .template copy_async<kStep>(a.dout.row(b, i, h), a.dout.token_stride, a.tokens - i);
    if (thread < 2 * kStep) {
      const int x = thread % kStep;
      ptx::copy_async_4((thread < kStep ? lse : delta) + stage * kStep + x,
                        (thread < kStep ? a.lse : a.delta) + a.first_row(b, h) + i + x, i + x < a.tokens);
    }
  };
  int h = key_head * a.group, i0 = j0;
  k.template copy_async<Block::kKeys>(a.k.row(b, j0, key_head), a.k.token_stride, keys);
  v.template copy_async<Block::kKeys>(a.v.row(b, j0, key_head), a.v.token_stride, keys);
  copy_queries(h, i0, 0);
  ptx::copy_async_commit();

  Fragments<kM, kD / 8> dk, dv;
  dk.clear();
  dv.clear();
  for (int stage = 0; h < (key_head + 1) * a.group; stage ^= 1) {
    const int i = i0;
    i0 += kStep;
    if (i0 >= a.tokens) {
      i0 = j0;
      ++h;
    }
    ptx::copy_async_wait<0>();
    __syncthreads();  // these queries are there, and all warps are done with the ones before
    if (h < (key_head + 1) * a.group) copy_queries(h, i0, stage ^ 1);
    ptx::copy_async_commit();
    if (j_warp > i + kStep - 1) continue;  // none of these queries sees a key of this warp

    const LanePlace<kD> place(ptx::opaque(lane));
    const Tile<kD> q_step = q.from(stage * kStep), dout_step = dout.from(stage * kStep);
    Scores p;  // and then ds
    multiply_rows(p, k.from(warp_row), q_step, place);
    const int least = j_warp + 16 * kM - 1 > i ? j_warp - i - Scores::above_diagonal(lane) : -kStep - 16 * kM;
#pragma unroll
    for (int n = 0; n < kStep / 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float lse_log2 = lse[stage * kStep + Scores::column(n, e, lane)] * kLog2e;
#pragma unroll
        for (int m = 0; m < kM; ++m)
          p.x[m][n][e] =
              weight(p.x[m][n][e], a.scale_log2, lse_log2, Scores::above_diagonal(m, n, e) >= least);
      }
    add_weighted_rows(dv, p, dout_step, place);
    Scores dp;
    multiply_rows(dp, v.from(warp_row), dout_step, place);
#pragma unroll
    for (int n = 0; n < kStep / 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float delta_of = delta[stage * kStep + Scores::column(n, e, lane)];
#pragma unroll
        for (int m = 0; m < kM; ++m) p.x[m][n][e] *= dp.x[m][n][e] - delta_of;
      }
    add_weighted_rows(dk, p, q_step, place);
  }

  float ones[kM][2], scales[kM][2];
#pragma unroll
  for (int m = 0; m < kM; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      ones[m][half] = 1;
      scales[m][half] = a.scale;
    }
  k.from(warp_row).template store_rows<kM>(dk, scales, a.dk.row(b, j_warp, key_head), a.dk.token_stride,
                                           keys - warp_row, lane);
  v.from(warp_row).template store_rows<kM>(dv, ones, a.dv.row(b, j_warp, key_head), a.dv.token_stride,
                                           keys - warp_row, lane);
}

template <int kD>
__global__ void __launch_bounds__(kTileThreads, 2) flash_backward_queries_kernel(BackwardArgs a) {
  using Block = QueryBlock<kD>;
  constexpr int kStep = Block::kStep;
  using Scores = Fragments<2, kStep / 8>;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % cuda::kWarp;
  const int item = static_cast<int>(blockIdx.x);
  const int h = item % a.H, b = item / a.H / a.blocks,
            i0 = (a.blocks - 1 - item / a.H % a.blocks) * Block::kQueries;
  const int warp_row = thread / cuda::kWarp * 32, i_warp = i0 + warp_row;
  const int queries = a.tokens - i0 < Block::kQueries ? a.tokens - i0 : Block::kQueries, end = i0 + queries;

  bf16* shared = reinterpret_cast<bf16*>(cuda::dynamic_shared());
  const Tile<kD> q{shared}, dout{q.data + Block::kQueries * kD}, k{dout.data + Block::kQueries * kD};
  const Tile<kD> v{k.data + 2 * kStep * kD};
  const auto copy_keys = [&](int key, int stage) {
    k.from(stage * kStep)
        .template copy_async<kStep>(a.k.row(b, key, h / a.group), a.k.token_stride, end - key);
    v.from(stage * kStep)
        .template copy_async<kStep>(a.v.row(b, key, h / a.group), a.v.token_stride, end - key);
  };
  q.template copy_async<Block::kQueries>(a.q.row(b, i0, h), a.q.token_stride, queries);
  dout.template copy_async<Block::kQueries>(a.dout.row(b, i0, h), a.dout.token_stride, queries);
  copy_keys(0, 0);
  ptx::copy_async_commit();

  // In shared memory, since the registers are full.
  float *lse_log2 = reinterpret_cast<float*>(v.data + 2 * kStep * kD), *delta = lse_log2 + Block::kQueries;
  lse_log2[thread] = i0 + thread < end ? a.lse[a.first_row(b, h) + i0 + thread] * kLog2e : 0.0f;
  delta[thread] = i0 + thread < end ? a.delta[a.first_row(b, h) + i0 + thread] : 0.0f;
  static_assert(Block::kQueries == kTileThreads);
  Fragments<2, kD / 8> dq;
  dq.clear();
  for (int key = 0, stage = 0; key < end; key += kStep, stage ^= 1) {
    ptx::copy_async_wait<0>();
    __syncthreads();  // these keys and values are there, and all warps are done with the ones before
    if (key + kStep < end) copy_keys(key + kStep, stage ^ 1);
    ptx::copy_async_commit();
    if (key > i_warp + 31) continue;  // no row of this warp sees them

    const LanePlace<kD> place(ptx::opaque(lane));
    Scores p;  // and then ds
    multiply_rows(p, q.from(warp_row), k.from(stage * kStep), place);
    const int most = key + kStep - 1 > i_warp ? i_warp - key - Scores::above_diagonal(lane) : kStep;
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float lse_of = lse_log2[warp_row + Scores::row(m, e, lane)];
#pragma unroll
        for (int n = 0; n < kStep / 8; ++n)
          p.x[m][n][e] = weight(p.x[m][n][e], a.scale_log2, lse_of, Scores::above_diagonal(m, n, e) <= most);
      }
    Scores dp;
    multiply_rows(dp, dout.from(warp_row), v.from(stage * kStep), place);
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float delta_of = delta[warp_row + Scores::row(m, e, lane)];
#pragma unroll
        for (int n = 0; n < kStep / 8; ++n) p.x[m][n][e] *= dp.x[m][n][e] - delta_of;
      }
    add_weighted_rows(dq, p, k.from(stage * kStep), place);
  }

  const float scales[2][2] = {{a.scale, a.scale}, {a.scale, a.scale}};
  q.from(warp_row).template store_rows<2>(dq, scales, a.dq.row(b, i_warp, h), a.dq.token_stride,
                                          queries - warp_row, lane);
}

// ----------------------------------------------------------------------------------------------------------

template <int kD> void backward(Context& ctx, const AttentionBackward& args, ConstTensor delta) {
  const int64_t B = args.q.B, tokens = args.q.T, H = args.q.heads, K = args.k.heads;
  const double scale = 1 / std::sqrt(static_cast<double>(kD));
  BackwardArgs a{.dq = device_heads<bf16>(args.dq),
                 .dk = device_heads<bf16>(args.dk),
                 .dv = device_heads<bf16>(args.dv),
                 .dout = packed_heads<const bf16>(args.dout, tokens, kD),
                 .q = device_heads<bf16>(args.q),
                 .k = device_heads<bf16>(args.k),
                 .v = device_heads<bf16>(args.v),
                 .lse = args.lse.as<float>(),
                 .delta = delta.as<float>(),
                 .tokens = static_cast<int>(tokens),
                 .H = static_cast<int>(H),
                 .K = static_cast<int>(K),
                 .group = static_cast<int>(H / K),
                 .blocks = static_cast<int>(cuda::ceil_div(tokens, KeyBlock<kD>::kKeys)),
                 .scale = static_cast<float>(scale),
                 .scale_log2 = static_cast<float>(scale * 1.4426950408889634)};
  cuda::launch(ctx, flash_backward_keys_kernel<kD>, cuda::grid_of(B * K * a.blocks), kTileThreads,
               KeyBlock<kD>::shared_bytes(), a);
  a.blocks = static_cast<int>(cuda::ceil_div(tokens, QueryBlock<kD>::kQueries));
  cuda::launch(ctx, flash_backward_queries_kernel<kD>, cuda::grid_of(B * H * a.blocks), kTileThreads,
               QueryBlock<kD>::shared_bytes(), a);
}

}  // namespace

void flash_backward(Context& ctx, const AttentionBackward& args, ConstTensor delta) {
  switch (args.q.D) {
    case 32:
      return backward<32>(ctx, args, delta);
    case 64:
      return backward<64>(ctx, args, delta);
    case 96:
      return backward<96>(ctx, args, delta);
    case 128:
      return backward<128>(ctx, args, delta);
    default:
      fail(Exit::internal, "flash_backward: no kernel for head width {}", args.q.D);
  }
}

}  // namespace keen::ops::cuda_attention
