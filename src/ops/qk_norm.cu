// A few lanes of a warp take a head together, 16 bytes each; in backward they go from head to head and keep
// the sums for the weights in registers.
#include "ops/column_sums.cuh"
#include "ops/qk_norm.h"
#include "ops/vec.cuh"

namespace keen::ops {

namespace {

constexpr int kThreads = 256;
constexpr int kMostPacks = 4;  // of a lane: heads of up to 128 Packs stay in registers

// Lanes that share a head: as many as it has Packs, as a power of two, at most a warp.
template <int kVec> int lanes_of(int64_t D) {
  return static_cast<int>(std::bit_ceil(static_cast<uint64_t>(std::min<int64_t>(D / kVec, cuda::kWarp))));
}

// The sum over groups of `lanes` neighbours; all lanes of the warp take part.
__device__ __forceinline__ float team_sum(float x, int lanes) {
  for (int offset = lanes / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(cuda::kAllLanes, x, offset);
  return x;
}

template <class T> struct Forward {
  T* qk;
  float* rstd;
  const T* qkv;
  const float *q_weight, *k_weight;
  int64_t units, qk_stride, qkv_stride;  // units: heads of all rows
  int H, heads, D, lanes;
  float eps;
};

template <class T, int kVec> __global__ void __launch_bounds__(kThreads) qk_norm_kernel(Forward<T> a) {
  const int lane = static_cast<int>(threadIdx.x) % a.lanes;
  const int64_t unit = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / a.lanes;
  const bool works = unit < a.units;
  const int64_t row = unit / a.heads;
  const int h = static_cast<int>(unit - row * a.heads);
  const T* x = a.qkv + row * a.qkv_stride + h * a.D;
  T* y = a.qk + row * a.qk_stride + h * a.D;
  const float* weight = h < a.H ? a.q_weight : a.k_weight;

  // What does not fit into registers is read again.
  float kept[kMostPacks][kVec], squares = 0;
#pragma unroll
  for (int p = 0; p < kMostPacks; ++p) {
    const int d = (lane + p * a.lanes) * kVec;
    if (!works || d >= a.D) continue;
    load<kVec>(kept[p], x + d);
#pragma unroll
    for (int i = 0; i < kVec; ++i) squares += kept[p][i] * kept[p][i];
  }
  const int rest = (lane + kMostPacks * a.lanes) * kVec, step = a.lanes * kVec;
  for (int d = rest; works && d < a.D; d += step) {
    float more[kVec];
    load<kVec>(more, x + d);
#pragma unroll
    for (int i = 0; i < kVec; ++i) squares += more[i] * more[i];
  }
  const float rstd = 1.0f / sqrtf(team_sum(squares, a.lanes) / static_cast<float>(a.D) + a.eps);
  if (!works) return;
  if (lane == 0) a.rstd[unit] = rstd;
  const auto write = [&](float(&z)[kVec], int d) {
    float w[kVec];
    load<kVec>(w, weight + d);
#pragma unroll
    for (int i = 0; i < kVec; ++i) z[i] *= rstd * w[i];
    store<kVec>(y + d, z);
  };
#pragma unroll
  for (int p = 0; p < kMostPacks; ++p) {
    const int d = (lane + p * a.lanes) * kVec;
    if (d < a.D) write(kept[p], d);
  }
  for (int d = rest; d < a.D; d += step) {
    float more[kVec];
    load<kVec>(more, x + d);
    write(more, d);
  }
}

template <class T> struct Backward {
  T* dqkv;
  float* partial;  // (chunks, 2D)
  const T* qkv;
  const float *rstd, *q_weight, *k_weight;
  RowChunks chunks;
  int64_t stride;  // of rows of dqkv and qkv
  int H, heads, D, lanes;
};

// blockIdx.y: 0 for the query heads of the chunk, 1 for its key heads.
template <class T, int kVec>
__global__ void __launch_bounds__(kThreads) qk_norm_backward_kernel(Backward<T> a) {
  __shared__ float sums[kThreads * kVec];  // (teams, lanes kVec): columns of a Pack apart
  const bool keys = blockIdx.y == 1;
  const int lane = static_cast<int>(threadIdx.x) % a.lanes, team = static_cast<int>(threadIdx.x) / a.lanes;
  const int teams = kThreads / a.lanes, heads = keys ? a.heads - a.H : a.H, first_head = keys ? a.H : 0;
  const int64_t begin = blockIdx.x * a.chunks.length, end = std::min(begin + a.chunks.length, a.chunks.N);
  const int64_t units = (end - begin) * heads;
  const float* weight = keys ? a.k_weight : a.q_weight;
  float* partial = a.partial + static_cast<int64_t>(blockIdx.x) * 2 * a.D + (keys ? a.D : 0);
  const float width = static_cast<float>(a.D);
  const int step = a.lanes * kVec;

  // One turn for a head that its lanes hold at once; wider ones in several, each with its own columns of the
  // weight, and dx with the last, when nothing of dy is needed any more.
  const int turns = (a.D + step - 1) / step;
  for (int turn = 0; turn < turns; ++turn) {
    const int mine = turn * step + lane * kVec;
    float dw[kVec] = {};
    // All teams take as many steps, so that the lanes of a warp meet in the sum.
    for (int64_t base = 0; base < units; base += teams) {
      const int64_t unit = base + team;
      const bool works = unit < units;
      const int64_t row = begin + (works ? unit / heads : 0);
      const int h = first_head + static_cast<int>(works ? unit % heads : 0);
      T* d = a.dqkv + row * a.stride + h * a.D;
      const T* x = a.qkv + row * a.stride + h * a.D;
      const float rstd = works ? a.rstd[row * a.heads + h] : 0.0f;
      float along = 0, g[kVec] = {}, z[kVec] = {}, w[kVec] = {};
      if (works && mine < a.D) {
        load<kVec>(g, static_cast<const T*>(d) + mine);
        load<kVec>(z, x + mine);
        load<kVec>(w, weight + mine);
#pragma unroll
        for (int i = 0; i < kVec; ++i) {
          z[i] *= rstd;
          dw[i] += g[i] * z[i];
          along += g[i] * w[i] * z[i];
        }
      }
      if (turn + 1 < turns) continue;
      for (int c = lane * kVec; works && c < turn * step; c += step) {
        float more_g[kVec], more_x[kVec], more_w[kVec];
        load<kVec>(more_g, static_cast<const T*>(d) + c);
        load<kVec>(more_x, x + c);
        load<kVec>(more_w, weight + c);
#pragma unroll
        for (int i = 0; i < kVec; ++i) along += more_g[i] * more_w[i] * (more_x[i] * rstd);
      }
      const float mean = team_sum(along, a.lanes) / width;
      if (!works) continue;
      for (int c = lane * kVec; c < turn * step; c += step) {
        float more_g[kVec], more_x[kVec], more_w[kVec];
        load<kVec>(more_g, static_cast<const T*>(d) + c);
        load<kVec>(more_x, x + c);
        load<kVec>(more_w, weight + c);
#pragma unroll
        for (int i = 0; i < kVec; ++i) more_g[i] = rstd * (more_g[i] * more_w[i] - more_x[i] * rstd * mean);
        store<kVec>(d + c, more_g);
      }
      if (mine < a.D) {
#pragma unroll
        for (int i = 0; i < kVec; ++i) g[i] = rstd * (g[i] * w[i] - z[i] * mean);
        store<kVec>(d + mine, g);
      }
    }
    __syncthreads();  // the sums of the turn before have been read
#pragma unroll
    for (int i = 0; i < kVec; ++i) sums[(team * kVec + i) * a.lanes + lane] = dw[i];
    __syncthreads();
    for (int c = static_cast<int>(threadIdx.x); c < step; c += kThreads) {
      if (turn * step + c >= a.D) continue;
      float total = 0;
      for (int t = 0; t < teams; ++t) total += sums[(t * kVec + c % kVec) * a.lanes + c / kVec];
      partial[turn * step + c] = total;
    }
  }
}

}  // namespace

template <> void qk_norm_on<Device::cuda>(Context& ctx, const QkNorm& args) {
  cuda::with_device_float_type(args.qkv.dtype, [&]<class T>() {
    const HeadLayout& layout = args.layout;
    const int heads = static_cast<int>(layout.H + layout.K);
    const bool packed = cuda::packable<T>(layout.D, args.qk.data, args.qkv.data) &&
                        cuda::packable<float>(0, args.q_weight.data, args.k_weight.data);
    with_vec<T>(packed, [&]<int kVec>() {
      const Forward<T> kernel_args{.qk = args.qk.as<T>(),
                                   .rstd = args.rstd.as<float>(),
                                   .qkv = args.qkv.as<T>(),
                                   .q_weight = args.q_weight.as<float>(),
                                   .k_weight = args.k_weight.as<float>(),
                                   .units = args.qkv.shape[0] * heads,
                                   .qk_stride = layout.qk_columns(),
                                   .qkv_stride = layout.qkv_columns(),
                                   .H = static_cast<int>(layout.H),
                                   .heads = heads,
                                   .D = static_cast<int>(layout.D),
                                   .lanes = lanes_of<kVec>(layout.D),
                                   .eps = static_cast<float>(args.eps)};
      if (kernel_args.units == 0) return;
      const int64_t units_of_block = kThreads / kernel_args.lanes;
      cuda::launch(ctx, qk_norm_kernel<T, kVec>,
                   cuda::grid_of(cuda::ceil_div(kernel_args.units, units_of_block)), kThreads, 0,
                   kernel_args);
    });
  });
}

template <> void qk_norm_backward_on<Device::cuda>(Context& ctx, const QkNormBackward& args, Tensor partial) {
  cuda::with_device_float_type(args.qkv.dtype, [&]<class T>() {
    const HeadLayout& layout = args.layout;
    const bool packed = cuda::packable<T>(layout.D, args.dqkv.data, args.qkv.data) &&
                        cuda::packable<float>(0, args.q_weight.data, args.k_weight.data);
    with_vec<T>(packed, [&]<int kVec>() {
      const Backward<T> kernel_args{.dqkv = args.dqkv.as<T>(),
                                    .partial = partial.as<float>(),
                                    .qkv = args.qkv.as<T>(),
                                    .rstd = args.rstd.as<float>(),
                                    .q_weight = args.q_weight.as<float>(),
                                    .k_weight = args.k_weight.as<float>(),
                                    .chunks = RowChunks(args.qkv.shape[0], Device::cuda),
                                    .stride = layout.qkv_columns(),
                                    .H = static_cast<int>(layout.H),
                                    .heads = static_cast<int>(layout.H + layout.K),
                                    .D = static_cast<int>(layout.D),
                                    .lanes = lanes_of<kVec>(layout.D)};
      if (kernel_args.chunks.count == 0) return;
      cuda::launch(ctx, qk_norm_backward_kernel<T, kVec>, cuda::grid_of(kernel_args.chunks.count, 2),
                   kThreads, 0, kernel_args);
    });
    add_partial_sums(ctx, args.dq_weight, partial, 0);
    add_partial_sums(ctx, args.dk_weight, partial, layout.D);
  });
}

}  // namespace keen::ops
