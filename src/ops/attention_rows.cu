// Attention row by row. Forward and dq: a block of 128 threads a query row, each thread the scores of every
// 128th key, then the threads, by columns, the weighted sum. dk and dv: the same with a block a key, over the
// queries that see it.
#include <cmath>

#include "ops/attention_cuda.cuh"

namespace keen::ops::cuda_attention {

namespace {

using cuda::from_float;
using cuda::Pack;
using cuda::to_float;

constexpr int kThreads = 128;

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
  int T_q, T_k, H, group, splits, split_keys;
  float scale;
  bool vectors;  // rows can be read 16 bytes at a time
};

template <class T> __device__ float dot(const float* x, const T* row, int D, bool vectors) {
  float sum = 0;
  if (vectors) {
#pragma unroll 2
    for (int d = 0; d < D; d += Pack<T>::kSize) {
      const Pack<T> part = Pack<T>::load(row + d);
#pragma unroll
      for (int i = 0; i < Pack<T>::kSize; ++i) sum += x[d + i] * part.x[i];
    }
  } else {
#pragma unroll 1
    for (int d = 0; d < D; ++d) sum += x[d] * to_float(row[d]);
  }
  return sum;
}

template <class T> __device__ void load_row(float* to, const T* from, int D) {
  for (int d = static_cast<int>(threadIdx.x); d < D; d += kThreads) to[d] = to_float(from[d]);
}

// sums[group][d] = factor * sums[group][d] + sum of weight[j] rows[j][d] over the group's j < count.
template <class T>
__device__ void add_rows(float* sums, float factor, const float* weight, const T* rows, int64_t stride,
                         int count, int D) {
  const Columns columns(D);
  const int group = static_cast<int>(threadIdx.x) / columns.width;
  for (int d = static_cast<int>(threadIdx.x) % columns.width; d < D; d += columns.width) {
    float sum = factor * sums[group * D + d];
#pragma unroll 4
    for (int j = group; j < count; j += columns.groups) sum += weight[j] * to_float(rows[j * stride + d]);
    sums[group * D + d] = sum;
  }
}

__device__ void clear(float* sums, int count) {
  for (int x = static_cast<int>(threadIdx.x); x < count; x += kThreads) sums[x] = 0;
}

__device__ float sum_of_groups(const float* sums, int D, int d) {
  float sum = 0;
  for (int group = 0; group < Columns(D).groups; ++group) sum += sums[group * D + d];
  return sum;
}

template <class T> __global__ void __launch_bounds__(kThreads, 8) rows_forward_kernel(ForwardArgs<T> a) {
  const int D = a.q.D, thread = static_cast<int>(threadIdx.x);
  const int block = static_cast<int>(blockIdx.x), split = block % a.splits,
            row = block / a.splits;  // of (B, H, T_q)
  const int i = row % a.T_q, h = row / a.T_q % a.H, b = row / a.T_q / a.H;
  float* query = reinterpret_cast<float*>(cuda::dynamic_shared());
  float *weight = query + D, *sums = weight + kThreads;
  load_row(query, a.q.row(b, i, h), D);
  clear(sums, Columns(D).groups * D);
  __syncthreads();

  float largest = -INFINITY, base = 0, total = 0;
  const int begin = split * a.split_keys, visible = static_cast<int>(visible_keys(i, a.T_q, a.T_k));
  const int end = visible < begin + a.split_keys ? visible : begin + a.split_keys;
  for (int key = begin; key < end; key += kThreads) {
    const int count = end - key < kThreads ? end - key : kThreads;
    float score = -INFINITY;
    if (thread < count) score = a.scale * dot(query, a.k.row(b, key + thread, h / a.group), D, a.vectors);
    const float most = fmaxf(largest, cuda::block_max(score, -INFINITY));
    base = most == -INFINITY ? 0.0f
                             : most;  // scores that are all minus infinity get weights of 0, not NaN, so far
    const float correction = expf(largest - base);
    largest = most;
    weight[thread] = expf(score - base);
    total = total * correction + weight[thread];
    __syncthreads();
    // The next writes to `weight` are behind the barriers of block_max.
    add_rows(sums, correction, weight, a.v.row(b, key, h / a.group), a.v.token_stride, count, D);
  }
  total = cuda::block_sum(total);

  if (a.splits == 1) {
    for (int d = thread; d < D; d += kThreads)
      a.out.row(b, i, h)[d] = from_float<T>(sum_of_groups(sums, D, d) / total);
    if (a.lse != nullptr && thread == 0) a.lse[row] = base + logf(total);
  } else {
    float* part = a.parts + static_cast<int64_t>(block) * (D + 2);
    for (int d = thread; d < D; d += kThreads) part[2 + d] = sum_of_groups(sums, D, d);
    if (thread == 0) {
      part[0] = largest;
      part[1] = total;
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
  int tokens, H, K, group;
  float scale;
  bool vectors;
};

template <class T>
__global__ void __launch_bounds__(kThreads, 8) rows_backward_queries_kernel(BackwardArgs<T> a) {
  const int D = a.q.D, thread = static_cast<int>(threadIdx.x);
  const int row = static_cast<int>(blockIdx.x);  // of (B, H, T)
  const int i = row % a.tokens, h = row / a.tokens % a.H, b = row / a.tokens / a.H;
  float* query = reinterpret_cast<float*>(cuda::dynamic_shared());
  float *dout = query + D, *ds = dout + D, *sums = ds + kThreads;
  load_row(query, a.q.row(b, i, h), D);
  load_row(dout, a.dout.row(b, i, h), D);
  clear(sums, Columns(D).groups * D);
  const float lse = a.lse[row], delta = a.delta[row];
  for (int key = 0; key <= i; key += kThreads) {
    const int count = i + 1 - key < kThreads ? i + 1 - key : kThreads;
    __syncthreads();
    if (thread < count) {
      const int j = key + thread;
      const float p = expf(a.scale * dot(query, a.k.row(b, j, h / a.group), D, a.vectors) - lse);
      ds[thread] = p * (dot(dout, a.v.row(b, j, h / a.group), D, a.vectors) - delta);
    }
    __syncthreads();
    add_rows(sums, 1.0f, ds, a.k.row(b, key, h / a.group), a.k.token_stride, count, D);
  }
  __syncthreads();
  for (int d = thread; d < D; d += kThreads)
    a.dq.row(b, i, h)[d] = from_float<T>(a.scale * sum_of_groups(sums, D, d));
}

template <class T>
__global__ void __launch_bounds__(kThreads, 8) rows_backward_keys_kernel(BackwardArgs<T> a) {
  const int D = a.q.D, thread = static_cast<int>(threadIdx.x);
  const int block = static_cast<int>(blockIdx.x);
  const int j = block % a.tokens, key_head = block / a.tokens % a.K, b = block / a.tokens / a.K;
  const int group_sums = Columns(D).groups * D;
  float* key = reinterpret_cast<float*>(cuda::dynamic_shared());
  float *value = key + D, *weight = value + D, *ds = weight + kThreads;
  float *dk = ds + kThreads, *dv = dk + group_sums;
  load_row(key, a.k.row(b, j, key_head), D);
  load_row(value, a.v.row(b, j, key_head), D);
  clear(dk, 2 * group_sums);
  for (int h = key_head * a.group; h < (key_head + 1) * a.group; ++h) {
    const float *lse = a.lse + (b * a.H + h) * a.tokens, *delta = a.delta + (b * a.H + h) * a.tokens;
    for (int first = j; first < a.tokens; first += kThreads) {
      const int count = a.tokens - first < kThreads ? a.tokens - first : kThreads;
      __syncthreads();
      if (thread < count) {
        const int i = first + thread;
        const float p = expf(a.scale * dot(key, a.q.row(b, i, h), D, a.vectors) - lse[i]);
        weight[thread] = p;
        ds[thread] = p * (dot(value, a.dout.row(b, i, h), D, a.vectors) - delta[i]);
      }
      __syncthreads();
      add_rows(dk, 1.0f, ds, a.q.row(b, first, h), a.q.token_stride, count, D);
      add_rows(dv, 1.0f, weight, a.dout.row(b, first, h), a.dout.token_stride, count, D);
    }
  }
  __syncthreads();
  for (int d = thread; d < D; d += kThreads) {
    a.dk.row(b, j, key_head)[d] = from_float<T>(a.scale * sum_of_groups(dk, D, d));
    a.dv.row(b, j, key_head)[d] = from_float<T>(sum_of_groups(dv, D, d));
  }
}

// ---------------------------------------------------------------------------------------------------------------

template <class T> bool rows_packable(const DeviceHeads<const T>& x) {
  return cuda::packable<T>(x.token_stride, x.data) && x.sequence_stride % Pack<T>::kSize == 0 &&
         x.D % Pack<T>::kSize == 0;
}

float score_scale(int64_t D) { return static_cast<float>(1 / std::sqrt(static_cast<double>(D))); }

template <class T> void forward(Context& ctx, const Attention& args, Tensor work) {
  const int D = static_cast<int>(args.q.D);
  const int64_t splits = args.path == AttentionPath::reference ? 1 : key_splits(args.q, args.k.T);
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
      .splits = static_cast<int>(splits),
      .split_keys = static_cast<int>(cuda::ceil_div(cuda::ceil_div(args.k.T, splits), kThreads) * kThreads),
      .scale = score_scale(D),
      .vectors = false};
  a.vectors = rows_packable(a.k);
  const int64_t rows = args.q.B * args.q.heads * args.q.T;
  const auto floats = static_cast<size_t>(D + kThreads + Columns(D).groups * D);
  cuda::launch(ctx, rows_forward_kernel<T>, cuda::grid_of(rows * splits), kThreads, floats * sizeof(float),
               a);
  if (splits > 1) cuda::launch(ctx, combine_kernel<T>, cuda::grid_of(rows), kThreads, 0, a);
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
                    .scale = score_scale(D),
                    .vectors = false};
  a.vectors = rows_packable(a.q) && rows_packable(a.k) && rows_packable(a.v) && rows_packable(a.dout);
  const int sums = Columns(D).groups * D;
  cuda::launch(ctx, rows_backward_queries_kernel<T>, cuda::grid_of(B * H * tokens), kThreads,
               static_cast<size_t>(2 * D + kThreads + sums) * sizeof(float), a);
  cuda::launch(ctx, rows_backward_keys_kernel<T>, cuda::grid_of(B * K * tokens), kThreads,
               static_cast<size_t>(2 * D + 2 * kThreads + 2 * sums) * sizeof(float), a);
}

}  // namespace

void rows_forward(Context& ctx, const Attention& args, Tensor work) {
  cuda::with_device_float_type(args.q.dtype, [&]<class T>() { forward<T>(ctx, args, work); });
}

void rows_backward(Context& ctx, const AttentionBackward& args, ConstTensor delta) {
  cuda::with_device_float_type(args.q.dtype, [&]<class T>() { backward<T>(ctx, args, delta); });
}

}  // namespace keen::ops::cuda_attention
