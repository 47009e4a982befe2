// Attention by rows. Forward and dq: a block of 128 threads has one or eight neighbouring queries, each
// thread computes their scores of every 128th key, then the threads, by columns, add up what the keys weigh.
// dk and dv: the same with one or eight keys a block, over the queries that see them.
#include <cmath>

#include "ops/attention_cuda.cuh"

namespace keen::ops::cuda_attention {

namespace {

using cuda::from_float;
using cuda::kWarp;
using cuda::Pack;
using cuda::to_float;

constexpr int kThreads = 128, kWarps = kThreads / kWarp;

// Threads by column of a head: `width` columns side by side, `groups` of them with every groups-th row each.
struct Columns {
  int width, groups;
  __host__ __device__ explicit Columns(int D)
      : width(D <= 32   ? 32
              : D <= 64 ? 64
                        : kThreads),
        groups(kThreads / width) {}
};

template <class T> struct ForwardArgs {
  DeviceHeads<const T> q, k, v;
  DeviceHeads<T> out;
  float *lse, *parts;  // lse may be null; parts is where a split row leaves its sums
  int T_q, T_k, H, group, blocks, splits, split_keys;
  float scale;
  bool vectors;  // rows can be read 16 bytes at a time
};

// sum[r] = the product of x[r], the rows (kRows, D) in shared memory, and one row of T.
template <class T, int kRows>
__device__ void products(float (&sum)[kRows], const float* x, const T* row, int D, bool vectors) {
#pragma unroll
  for (int r = 0; r < kRows; ++r) sum[r] = 0;
  if (vectors) {
#pragma unroll 1
    for (int d = 0; d < D; d += Pack<T>::kSize) {
      const Pack<T> part = Pack<T>::load(row + d);
#pragma unroll
      for (int i = 0; i < Pack<T>::kSize; i += 4)
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          const float4 four = *reinterpret_cast<const float4*>(x + r * D + d + i);
          sum[r] += four.x * part.x[i];
          sum[r] += four.y * part.x[i + 1];
          sum[r] += four.z * part.x[i + 2];
          sum[r] += four.w * part.x[i + 3];
        }
    }
  } else {
#pragma unroll 1
    for (int d = 0; d < D; ++d) {
      const float factor = to_float(row[d]);
#pragma unroll
      for (int r = 0; r < kRows; ++r) sum[r] += x[r * D + d] * factor;
    }
  }
}

// to (kRows, D) = `rows` rows from `from` on, and the last of them again.
template <int kRows, class T>
__device__ void load_rows(float* to, const T* from, int stride, int rows, int D) {
#pragma unroll
  for (int r = 0; r < kRows; ++r)
    for (int d = static_cast<int>(threadIdx.x); d < D; d += kThreads)
      to[r * D + d] = to_float(from[(r < rows ? r : rows - 1) * static_cast<int64_t>(stride) + d]);
}

// sums[r][group][d] = factor[r] * sums[r][group][d] + the sum of weight[r][j] rows[j][d] over the group's j <
// count. Without factors they are 1.
template <int kRows, class T>
__device__ void add_rows(float* sums, const float* factor, const float* weight, const T* rows, int stride,
                         int count, int D) {
  const Columns columns(D);
  const int group = static_cast<int>(threadIdx.x) / columns.width;
#pragma unroll 1
  for (int d = static_cast<int>(threadIdx.x) % columns.width; d < D; d += columns.width) {
    float sum[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r)
      sum[r] = (factor == nullptr ? 1.0f : factor[r]) * sums[(r * columns.groups + group) * D + d];
#pragma unroll(kRows == 1 ? 4 : 2)
    for (int j = group; j < count; j += columns.groups) {
      const float x = to_float(rows[j * static_cast<int64_t>(stride) + d]);
#pragma unroll
      for (int r = 0; r < kRows; ++r) sum[r] += weight[r * kThreads + j] * x;
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) sums[(r * columns.groups + group) * D + d] = sum[r];
  }
}

__device__ void clear(float* sums, int count) {
  for (int x = static_cast<int>(threadIdx.x); x < count; x += kThreads) sums[x] = 0;
}

__device__ float sum_of_groups(const float* sums, int r, int D, int d) {
  const int groups = Columns(D).groups;
  float sum = 0;
  for (int group = 0; group < groups; ++group) sum += sums[(r * groups + group) * D + d];
  return sum;
}

// The softmax so far of the rows r = warp, warp + 4, ... of a block, kept by that warp.
template <int kRows> struct RunningSoftmax {
  static constexpr int kOwn = (kRows + kWarps - 1) / kWarps;
  float largest[kOwn], base[kOwn], total[kOwn];

  __device__ RunningSoftmax() {
#pragma unroll
    for (int own = 0; own < kOwn; ++own) {
      largest[own] = -INFINITY;
      base[own] = total[own] = 0;
    }
  }
  // Scores (kRows, 128) become weights, relative to the largest score so far; factor[r] is what earlier sums
  // of row r are to be multiplied by.
  __device__ void add(float* scores, float* factor) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
#pragma unroll
    for (int own = 0; own < kOwn; ++own) {
      const int r = warp + own * kWarps;
      if (r >= kRows) break;  // a whole warp
      float* row = scores + r * kThreads;
      float most = largest[own];
      for (int j = lane; j < kThreads; j += kWarp) most = fmaxf(most, row[j]);
      most = cuda::warp_max(most);
      base[own] =
          most == -INFINITY ? 0.0f : most;  // scores that are all minus infinity weigh 0, not NaN, so far
      const float correction = expf(largest[own] - base[own]);
      largest[own] = most;
      float sum = 0;
      for (int j = lane; j < kThreads; j += kWarp) sum += row[j] = expf(row[j] - base[own]);
      total[own] = total[own] * correction + cuda::warp_sum(sum);
      if (lane == 0) factor[r] = correction;
    }
  }
  // Leaves what `get(own)` says of row r in to[r].
  template <class F> __device__ void publish(float* to, const F& get) const {
#pragma unroll
    for (int own = 0; own < kOwn; ++own) {
      const int r = static_cast<int>(threadIdx.x) / kWarp + own * kWarps;
      if (r < kRows && threadIdx.x % kWarp == 0) to[r] = get(own);
    }
  }
};

template <int kRows> size_t forward_floats(int D) {
  return static_cast<size_t>(kRows) * static_cast<size_t>(D + kThreads + Columns(D).groups * D + 2);
}

template <class T, int kRows>
__global__ void __launch_bounds__(kThreads, 3) rows_forward_kernel(ForwardArgs<T> a) {
  const int D = a.q.D, thread = static_cast<int>(threadIdx.x), groups = Columns(D).groups;
  const int split = static_cast<int>(blockIdx.x) % a.splits, item = static_cast<int>(blockIdx.x) / a.splits;
  const int i0 = (a.blocks - 1 - item % a.blocks) * kRows, h = item / a.blocks % a.H,
            b = item / a.blocks / a.H;
  const int rows = a.T_q - i0 < kRows ? a.T_q - i0 : kRows, key_head = h / a.group;
  float* query = reinterpret_cast<float*>(cuda::dynamic_shared());
  float *weight = query + kRows * D, *sums = weight + kRows * kThreads, *factor = sums + kRows * groups * D;
  float* total = factor + kRows;
  load_rows<kRows>(query, a.q.row(b, i0, h), a.q.token_stride, rows, D);
  clear(sums, kRows * groups * D);
  __syncthreads();

  RunningSoftmax<kRows> softmax;
  const int first_visible = static_cast<int>(visible_keys(i0, a.T_q, a.T_k));  // to row 0
  const int begin = split * a.split_keys, visible = first_visible + rows - 1;
  const int end = visible < begin + a.split_keys ? visible : begin + a.split_keys;
  for (int key = begin; key < end; key += kThreads) {
    const int count = end - key < kThreads ? end - key : kThreads;
    float score[kRows];
    if (thread < count) products(score, query, a.k.row(b, key + thread, key_head), D, a.vectors);
#pragma unroll
    for (int r = 0; r < kRows; ++r)
      weight[r * kThreads + thread] =
          thread < count && key + thread < first_visible + r ? a.scale * score[r] : -INFINITY;
    __syncthreads();
    softmax.add(weight, factor);
    __syncthreads();
    add_rows<kRows>(sums, factor, weight, a.v.row(b, key, key_head), a.v.token_stride, count, D);
    __syncthreads();
  }
  softmax.publish(factor, [&](int own) { return a.splits == 1 ? softmax.base[own] : softmax.largest[own]; });
  softmax.publish(total, [&](int own) { return softmax.total[own]; });
  __syncthreads();

  for (int r = 0; r < rows; ++r) {
    const int64_t row = (static_cast<int64_t>(b) * a.H + h) * a.T_q + i0 + r;
    if (a.splits == 1) {
      for (int d = thread; d < D; d += kThreads)
        a.out.row(b, i0 + r, h)[d] = from_float<T>(sum_of_groups(sums, r, D, d) / total[r]);
      if (a.lse != nullptr && thread == 0) a.lse[row] = factor[r] + logf(total[r]);
    } else {
      float* part = a.parts + (row * a.splits + split) * (D + 2);
      for (int d = thread; d < D; d += kThreads) part[2 + d] = sum_of_groups(sums, r, D, d);
      if (thread == 0) {
        part[0] = factor[r];
        part[1] = total[r];
      }
    }
  }
}

// A block a row: its parts, added in order.
template <class T> __global__ void __launch_bounds__(kThreads, 8) combine_kernel(ForwardArgs<T> a) {
  const int D = a.q.D;
  const int row = static_cast<int>(blockIdx.x);
  const int i = row % a.T_q, h = row / a.T_q % a.H, b = row / a.T_q / a.H;
  const float* parts = a.parts + static_cast<int64_t>(row) * a.splits * (D + 2);
  float largest = -INFINITY;
  for (int s = 0; s < a.splits; ++s) largest = fmaxf(largest, parts[s * (D + 2)]);
  const float base = largest == -INFINITY ? 0.0f : largest;
  float total = 0;
  for (int s = 0; s < a.splits; ++s) total += expf(parts[s * (D + 2)] - base) * parts[s * (D + 2) + 1];
  for (int d = static_cast<int>(threadIdx.x); d < D; d += kThreads) {
    float sum = 0;
    for (int s = 0; s < a.splits; ++s) sum += expf(parts[s * (D + 2)] - base) * parts[s * (D + 2) + 2 + d];
    a.out.row(b, i, h)[d] = from_float<T>(sum / total);
  }
  if (a.lse != nullptr && threadIdx.x == 0) a.lse[row] = base + logf(total);
}

template <class T> struct BackwardArgs {
  DeviceHeads<T> dq, dk, dv;
  DeviceHeads<const T> dout, q, k, v;
  const float *lse, *delta;  // (B, H, T)
  int tokens, H, K, group, blocks;
  float scale;
  bool vectors;
};

template <int kRows> size_t backward_queries_floats(int D) {
  return static_cast<size_t>(kRows) * static_cast<size_t>(2 * D + kThreads + Columns(D).groups * D);
}
template <int kRows> size_t backward_keys_floats(int D) {
  return 2 * static_cast<size_t>(kRows) * static_cast<size_t>(D + kThreads + Columns(D).groups * D);
}

template <class T, int kRows>
__global__ void __launch_bounds__(kThreads, 3) rows_backward_queries_kernel(BackwardArgs<T> a) {
  const int D = a.q.D, thread = static_cast<int>(threadIdx.x), groups = Columns(D).groups;
  const int item = static_cast<int>(blockIdx.x);
  const int i0 = (a.blocks - 1 - item % a.blocks) * kRows, h = item / a.blocks % a.H,
            b = item / a.blocks / a.H;
  const int rows = a.tokens - i0 < kRows ? a.tokens - i0 : kRows, key_head = h / a.group;
  float* query = reinterpret_cast<float*>(cuda::dynamic_shared());
  float *dout = query + kRows * D, *ds = dout + kRows * D, *sums = ds + kRows * kThreads;
  load_rows<kRows>(query, a.q.row(b, i0, h), a.q.token_stride, rows, D);
  load_rows<kRows>(dout, a.dout.row(b, i0, h), a.dout.token_stride, rows, D);
  clear(sums, kRows * groups * D);
  float lse[kRows], delta[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int64_t row = (static_cast<int64_t>(b) * a.H + h) * a.tokens + i0 + (r < rows ? r : rows - 1);
    lse[r] = a.lse[row];
    delta[r] = a.delta[row];
  }
  for (int key = 0; key < i0 + rows; key += kThreads) {
    const int count = i0 + rows - key < kThreads ? i0 + rows - key : kThreads, j = key + thread;
    __syncthreads();
    if (thread < count) {
      float score[kRows], dp[kRows];
      products(score, query, a.k.row(b, j, key_head), D, a.vectors);
      products(dp, dout, a.v.row(b, j, key_head), D, a.vectors);
#pragma unroll
      for (int r = 0; r < kRows; ++r)
        ds[r * kThreads + thread] =
            j <= i0 + r ? expf(a.scale * score[r] - lse[r]) * (dp[r] - delta[r]) : 0.0f;
    }
    __syncthreads();
    add_rows<kRows>(sums, nullptr, ds, a.k.row(b, key, key_head), a.k.token_stride, count, D);
  }
  __syncthreads();
  for (int r = 0; r < rows; ++r)
    for (int d = thread; d < D; d += kThreads)
      a.dq.row(b, i0 + r, h)[d] = from_float<T>(a.scale * sum_of_groups(sums, r, D, d));
}

template <class T, int kRows>
__global__ void __launch_bounds__(kThreads, 3) rows_backward_keys_kernel(BackwardArgs<T> a) {
  const int D = a.q.D, thread = static_cast<int>(threadIdx.x), sums = kRows * Columns(D).groups * D;
  const int item = static_cast<int>(blockIdx.x);
  const int j0 = item % a.blocks * kRows, key_head = item / a.blocks % a.K, b = item / a.blocks / a.K;
  const int rows = a.tokens - j0 < kRows ? a.tokens - j0 : kRows;
  float* key = reinterpret_cast<float*>(cuda::dynamic_shared());
  float *value = key + kRows * D, *weight = value + kRows * D, *ds = weight + kRows * kThreads;
  float *dk = ds + kRows * kThreads, *dv = dk + sums;
  load_rows<kRows>(key, a.k.row(b, j0, key_head), a.k.token_stride, rows, D);
  load_rows<kRows>(value, a.v.row(b, j0, key_head), a.v.token_stride, rows, D);
  clear(dk, 2 * sums);
  for (int h = key_head * a.group; h < (key_head + 1) * a.group; ++h) {
    const int64_t head = (static_cast<int64_t>(b) * a.H + h) * a.tokens;
    for (int first = j0; first < a.tokens; first += kThreads) {
      const int count = a.tokens - first < kThreads ? a.tokens - first : kThreads, i = first + thread;
      __syncthreads();
      if (thread < count) {
        float score[kRows], dp[kRows];
        products(score, key, a.q.row(b, i, h), D, a.vectors);
        products(dp, value, a.dout.row(b, i, h), D, a.vectors);
        const float lse = a.lse[head + i], delta = a.delta[head + i];
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          const float p = j0 + r <= i ? expf(a.scale * score[r] - lse) : 0.0f;
          weight[r * kThreads + thread] = p;
          ds[r * kThreads + thread] = p * (dp[r] - delta);
        }
      }
      __syncthreads();
      add_rows<kRows>(dk, nullptr, ds, a.q.row(b, first, h), a.q.token_stride, count, D);
      add_rows<kRows>(dv, nullptr, weight, a.dout.row(b, first, h), a.dout.token_stride, count, D);
    }
  }
  __syncthreads();
  for (int r = 0; r < rows; ++r)
    for (int d = thread; d < D; d += kThreads) {
      a.dk.row(b, j0 + r, key_head)[d] = from_float<T>(a.scale * sum_of_groups(dk, r, D, d));
      a.dv.row(b, j0 + r, key_head)[d] = from_float<T>(sum_of_groups(dv, r, D, d));
    }
}

// ----------------------------------------------------------------------------------------------------------

template <class T> bool rows_packable(const DeviceHeads<const T>& x) {
  return cuda::packable<T>(x.token_stride, x.data) && x.sequence_stride % Pack<T>::kSize == 0 &&
         x.D % Pack<T>::kSize == 0;
}

float score_scale(int64_t D) { return static_cast<float>(1 / std::sqrt(static_cast<double>(D))); }

// Rows that share what a block reads: eight, unless there are few, or so wide that shared memory would not
// hold them.
template <class F> void with_rows_a_block(int64_t rows, int64_t D, const F& launch) {
  if (rows > kFewQueries && D <= 512)
    launch.template operator()<8>();
  else
    launch.template operator()<1>();
}

template <class T> void forward(Context& ctx, const Attention& args, Tensor work) {
  const int D = static_cast<int>(args.q.D);
  const int64_t splits = args.path == AttentionPath::reference ? 1 : key_splits(args.q, args.k.T);
  const int64_t heads = args.q.B * args.q.heads;
  ForwardArgs<T> a{
      .q = device_heads<T>(args.q),
      .k = device_heads<T>(args.k),
      .v = device_heads<T>(args.v),
      .out = packed_heads<T>(args.out, args.q.T, D),
      .lse = args.lse ? args.lse.as<float>() : nullptr,
      .parts = splits > 1 ? work.as<float>() : nullptr,
      .T_q = static_cast<int>(args.q.T),
      .T_k = static_cast<int>(args.k.T),
      .H = static_cast<int>(args.q.heads),
      .group = static_cast<int>(args.q.heads / args.k.heads),
      .blocks = 0,
      .splits = static_cast<int>(splits),
      .split_keys = static_cast<int>(cuda::ceil_div(cuda::ceil_div(args.k.T, splits), kThreads) * kThreads),
      .scale = score_scale(D),
      .vectors = false};
  a.vectors = rows_packable(a.k);
  with_rows_a_block(args.q.T, D, [&]<int kRows>() {
    a.blocks = static_cast<int>(cuda::ceil_div(args.q.T, kRows));
    cuda::launch(ctx, rows_forward_kernel<T, kRows>, cuda::grid_of(heads * a.blocks * splits), kThreads,
                 forward_floats<kRows>(D) * sizeof(float), a);
  });
  if (splits > 1) cuda::launch(ctx, combine_kernel<T>, cuda::grid_of(heads * args.q.T), kThreads, 0, a);
}

template <class T> void backward(Context& ctx, const AttentionBackward& args, ConstTensor delta) {
  const int D = static_cast<int>(args.q.D);
  const int64_t B = args.q.B, tokens = args.q.T, H = args.q.heads, K = args.k.heads;
  BackwardArgs<T> a{.dq = device_heads<T>(args.dq),
                    .dk = device_heads<T>(args.dk),
                    .dv = device_heads<T>(args.dv),
                    .dout = packed_heads<const T>(args.dout, tokens, D),
                    .q = device_heads<T>(args.q),
                    .k = device_heads<T>(args.k),
                    .v = device_heads<T>(args.v),
                    .lse = args.lse.as<float>(),
                    .delta = delta.as<float>(),
                    .tokens = static_cast<int>(tokens),
                    .H = static_cast<int>(H),
                    .K = static_cast<int>(K),
                    .group = static_cast<int>(H / K),
                    .blocks = 0,
                    .scale = score_scale(D),
                    .vectors = false};
  a.vectors = rows_packable(a.q) && rows_packable(a.k) && rows_packable(a.v) && rows_packable(a.dout);
  with_rows_a_block(tokens, D, [&]<int kRows>() {
    a.blocks = static_cast<int>(cuda::ceil_div(tokens, kRows));
    cuda::launch(ctx, rows_backward_queries_kernel<T, kRows>, cuda::grid_of(B * H * a.blocks), kThreads,
                 backward_queries_floats<kRows>(D) * sizeof(float), a);
    cuda::launch(ctx, rows_backward_keys_kernel<T, kRows>, cuda::grid_of(B * K * a.blocks), kThreads,
                 backward_keys_floats<kRows>(D) * sizeof(float), a);
  });
}

}  // namespace

void rows_forward(Context& ctx, const Attention& args, Tensor work) {
  cuda::with_device_float_type(args.q.dtype, [&]<class T>() { forward<T>(ctx, args, work); });
}

void rows_backward(Context& ctx, const AttentionBackward& args, ConstTensor delta) {
  cuda::with_device_float_type(args.q.dtype, [&]<class T>() { backward<T>(ctx, args, delta); });
}

}  // namespace keen::ops::cuda_attention
